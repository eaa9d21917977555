"""Several processes (Gloo, on the CPU) train as one does."""

import os
import socket
from pathlib import Path

import pytest
import torch
from running import STAGE1, STAGE2, finish, options_of, read_rows, refuse_locks, stage1, stage2, start


def become(rank: int, port: int) -> None:
    """Set what torchrun sets in the environment of its second process or first, of two, on a file system without locks."""
    refuse_locks()
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def run_two(script: str, begin: Path, run: Path, *options: object) -> list[str]:
    """Run a script in two processes; return what each said."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    logs, options = [run.with_name(f"log {rank}") for rank in range(2)], (*options_of(script, begin, run), *options)
    processes = [start(script, options, log, (become, rank, port)) for rank, log in enumerate(logs)]
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


def test_two_processes_train_both_stages_like_one_and_the_first_alone_speaks(collection, data, tmp_path):
    one, two = ([tmp_path / f"{processes} {stage}" for stage in "12"] for processes in ("one", "two"))
    stage1(collection, one[0], "--arch", "smooth")
    stage2(*one, "--batch-size", 9)
    said = run_two(STAGE1, data, two[0], "--arch", "smooth")
    assert said[0].count("epoch 1 ") == 1 and "epoch" not in said[1] and "done:" not in said[1]
    assert_close(two[0], one[0])
    run_two(STAGE2, one[0], two[1], "--batch-size", 9)
    assert_close(two[1], one[1])
