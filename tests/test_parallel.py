"""Two processes under torchrun (Gloo, on the CPU) compute what one computes."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import QUIET, ROOT

import parallel

# AlexNet has no batch norm, whose statistics would be those of each process's part of a batch on CPUs.
OPTIONS = ("--arch", "alexnet", "--image-size", "64", "--epochs", "1", "--device", "cpu", *QUIET)


def torchrun(processes: int, *command: object) -> None:
    """Run a script under torchrun. The bare -- keeps torchrun from taking --run for an option of its own."""
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "--"]
    done = subprocess.run([*words, *map(str, command)], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]


def read_row(run: Path) -> dict[str, float]:
    with (run / "metrics.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    return {name: float(value) for name, value in row.items() if name not in ("images_per_second", "seconds")}


def test_two_processes_give_the_numbers_of_one(collection, tmp_path):
    for processes in (1, 2):
        run = tmp_path / str(processes)
        torchrun(processes, "classification_net.py", "--data", collection, "--run", run, *OPTIONS)
        # The mean over active triplets: the processes' halves of a batch hold different numbers of them.
        torchrun(processes, "train.py", "--data", collection, "--stage1", tmp_path / "1", "--run", run / "stage2",
                 "--epochs", 1, "--device", "cpu", *QUIET)  # fmt: skip
    for stage in (".", "stage2"):
        one, two = read_row(tmp_path / "1" / stage), read_row(tmp_path / "2" / stage)
        assert one == pytest.approx(two, rel=1e-3)


def test_mining_is_refused_in_more_than_one_process(collection, tmp_path):
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--", "train.py"]
    options = ["--data", str(collection), "--run", str(tmp_path / "run"), "--mining", "batch"]
    done = subprocess.run([*words, *options], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode != 0 and "--mining batch: compares all pictures of a batch in one process" in done.stderr
    assert not (tmp_path / "run").exists()


def test_parts_of_a_batch_are_disjoint_and_make_it_up(monkeypatch):
    batch = np.arange(21).reshape(7, 3)
    parts = []
    for rank in range(4):
        monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(parallel, "world", lambda: 4)
        parts.append(parallel.shard(batch))
    assert [len(part) for part in parts] == [2, 2, 2, 1]
    assert (np.sort(np.concatenate(parts), axis=0) == batch).all()
