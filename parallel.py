"""One process or many: what `torchrun` started, shards of batches, and sums and rows gathered over all processes.

Without `torchrun` everything here is the identity on a single process.
"""

from __future__ import annotations

import os
from datetime import timedelta

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from utils import UserError


def launched() -> int:
    """How many processes `torchrun` has launched, known before they join; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 1


def start(device_name: str) -> str:
    """Join the other processes of a `torchrun`, if there is one; return the name of the device that this one uses.

    GPUs talk through NCCL and each process takes the one of its local rank; CPUs through Gloo.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ or distributed.is_initialized():
        return device_name
    on_gpu = device_name != "cpu" and torch.cuda.is_available()
    if on_gpu:
        place, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if place >= count:
            raise UserError(f"--nproc_per_node: this machine has {count} GPU(s); start as many processes, or fewer")
        device_name = f"cuda:{place}"
        torch.cuda.set_device(device_name)
    # Long enough for the first process to read the pictures while the others wait.
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=timedelta(hours=6))
    return device_name


def finish() -> None:
    """Leave the group of processes."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def rank() -> int:
    """This process's number, counted from 0; the one with 0 writes, plots and prints."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def shard(batch: np.ndarray) -> np.ndarray:
    """This process's part of a batch: the parts of all processes are disjoint and make up the whole."""
    return batch[rank() :: world()]


def wrap(net: nn.Module, device: torch.device) -> nn.Module:
    """Make a net average its gradients over all processes; batch norm sees the whole batch on GPUs."""
    if world() == 1:
        return net
    if device.type == "cuda":
        net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    return DistributedDataParallel(net, device_ids=[device] if device.type == "cuda" else None)


def share_buffers(net: nn.Module) -> None:
    """Give every process the first one's counts of batch norm, which each keeps for itself on CPUs."""
    if world() > 1:
        for buffer in net.buffers():
            distributed.broadcast(buffer, 0)


def sum_over_processes(values: Tensor) -> Tensor:
    """Sum a tensor over all processes, in place; returns it."""
    if world() > 1:
        distributed.all_reduce(values)
    return values


def gather_shards(mine: Tensor, rows: int) -> Tensor:
    """Put the shards [ceil or floor of rows / world, d] of all processes together in order: [rows, d] on each."""
    if world() == 1:
        return mine
    longest = -(-rows // world())
    padded = torch.zeros((longest, *mine.shape[1:]), dtype=mine.dtype, device=mine.device)
    padded[: len(mine)] = mine
    parts = [torch.empty_like(padded) for _ in range(world())]
    distributed.all_gather(parts, padded)
    return torch.stack(parts, dim=1).flatten(0, 1)[:rows]


def from_first(value: object) -> object:
    """The first process's value, on every process."""
    values = [value]
    if world() > 1:
        distributed.broadcast_object_list(values)
    return values[0]
