"""Several processes (Gloo, on the CPU) train as one does."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
from running import QUIET, TINY, finish, read_rows, run_main, start

EPOCHS = ("--epochs", 3)
STAGE1 = (*TINY, "--arch", "smooth")
STAGE2 = ("--batch-size", 9, *QUIET)


def become(rank: int, port: int) -> None:
    """Set what torchrun sets in the environment of its second process or first, of two."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def run_two(script: str, folder: Path, *options: object) -> list[str]:
    """Run a script in two processes; return what each said."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    logs = [folder / f"log {rank}" for rank in range(2)]
    processes = [start(script, options, log, become, rank, port) for rank, log in enumerate(logs)]
    return [finish(process, log) for process, log in zip(processes, logs, strict=True)]


def assert_close(run: Path, other: Path) -> None:
    """Two runs have the same losses and weights but for rounding."""
    rows, others = (read_rows(each / "metrics.csv") for each in (run, other))
    assert len(rows) == len(others) == 3
    for row, same in zip(rows, others, strict=True):
        for name in row:
            if "loss" in name or name == "lr":
                assert float(row[name]) == pytest.approx(float(same[name]), rel=2e-3, abs=1e-5), (name, row, same)
    mine, theirs = (torch.load(each / "weights.pt", weights_only=True)["embedding"] for each in (run, other))
    for name in mine:
        assert (mine[name] - theirs[name]).norm() <= 0.02 * theirs[name].norm() + 1e-5, name


def test_two_processes_train_both_stages_like_one_and_the_first_alone_speaks(collection, tmp_path):
    run_main("classification_net.py", "--data", collection, "--run", tmp_path / "1", *EPOCHS, *STAGE1)
    run_main("train.py", "--stage1", tmp_path / "1", "--run", tmp_path / "2", *EPOCHS, *STAGE2)
    data, ours = ("--data", collection), (tmp_path / "two 1", tmp_path / "two 2")
    said = run_two("classification_net.py", tmp_path, *data, "--run", ours[0], *EPOCHS, *STAGE1)
    assert said[0].count("epoch 1 ") == 1 and "epoch" not in said[1] and "done:" not in said[1]
    assert_close(ours[0], tmp_path / "1")
    run_two("train.py", tmp_path, "--stage1", tmp_path / "1", "--run", ours[1], *EPOCHS, *STAGE2)
    assert_close(ours[1], tmp_path / "2")
