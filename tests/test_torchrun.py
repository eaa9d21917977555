"""Runs under torchrun: what two processes (Gloo, on the CPU) make of both stages, stopped, killed and resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from running import PLAIN, TINY, read_rows, tiny

import networks
from dataset import read_collection
from trained import load_trained

# A small net without batch norm, which on CPUs counts over each process's part of a batch; and one with it.
SCRIPT = """
import os, sys
import torch
from torch import nn
sys.path[:0] = [{root!r}, {root!r} + '/tests']
import networks
from utils import run_script
torch.set_num_threads(1)
networks.BACKBONES["tiny"] = lambda **_: nn.Sequential(
    nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 1000))
from running import tiny
networks.BACKBONES["normed"] = tiny
module = __import__({name!r})
with open({pids!r}, "a") as file:
    file.write(os.environ.get("RANK", "0") + " " + str(os.getpid()) + "\\n")
raise SystemExit(run_script(module.get_parser, module.main))
"""
EPOCHS = {"classification_net": 60, "train": 3}
TIMEOUT = 200


def start(folder: Path, processes: int, name: str, *options: object) -> subprocess.Popen:
    """Start a stage, under torchrun if `processes` is more than one; it notes its process ids in `folder`."""
    script = folder / f"{name}.py"
    (folder / "pids").unlink(missing_ok=True)
    script.write_text(SCRIPT.format(root=str(ROOT), name=name, pids=str(folder / "pids")))
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "--"]
    words = [sys.executable, *(launch if processes > 1 else []), str(script), "--epochs", str(EPOCHS[name])]
    words += map(str, (*options, *PLAIN))
    pipe = subprocess.PIPE
    return subprocess.Popen(words, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


def finish(process: subprocess.Popen) -> str:
    out, error = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, error[-3000:]
    return out


def wait_for(path: Path, process: subprocess.Popen) -> None:
    """Wait until a file is there."""
    until = time.monotonic() + TIMEOUT
    while not path.exists():
        assert process.poll() is None and time.monotonic() < until, process.communicate()[1][-3000:]
        time.sleep(0.01)


def assert_close(run: Path, other: Path) -> None:
    """Two runs have the same weights and losses but for rounding."""
    rows, others = read_rows(run), read_rows(other)
    assert len(rows) == len(others)
    for row, same in zip(rows, others, strict=True):
        for name in row:
            if "loss" in name or name == "lr":
                assert float(row[name]) == pytest.approx(float(same[name]), rel=2e-3, abs=1e-5), (row, same)
    mine, theirs = (torch.load(each / "last.pt", weights_only=True)["net"] for each in (run, other))
    for name in mine:
        assert (mine[name] - theirs[name]).norm() <= 0.02 * theirs[name].norm() + 1e-5, name


@pytest.fixture(scope="module")
def stage1(collection, tmp_path_factory) -> Path:
    """Stage 1 in a single process."""
    folder = tmp_path_factory.mktemp("one")
    finish(start(folder, 1, "classification_net", "--data", collection, "--run", folder / "run", *TINY))
    return folder / "run"


@pytest.mark.slow
def test_two_processes_train_stage_1_like_one_and_speak_once(collection, stage1, tmp_path):
    said = finish(start(tmp_path, 2, "classification_net", "--data", collection, "--run", tmp_path / "run", *TINY))
    assert_close(tmp_path / "run", stage1)
    assert said.count("2 process(es)") == 1 and said.count("epoch 1/") == 1 and said.count("done:") == 1


def test_with_batch_norm_two_processes_validate_the_weights_that_they_keep(collection, tmp_path, monkeypatch):
    options = ("--data", collection, "--run", tmp_path / "run", *TINY, "--arch", "normed")
    finish(start(tmp_path, 2, "classification_net", *options))
    best = max(read_rows(tmp_path / "run"), key=lambda row: float(row["val_accuracy"]))
    monkeypatch.setitem(networks.BACKBONES, "normed", tiny)
    net, found = load_trained(tmp_path / "run"), read_collection(collection)
    val = found.rows("val")
    squares = net.to_squares([found.folder / found.paths[row] for row in val])
    scores = net.embed_squares(torch.from_numpy(squares))[1]
    loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(found.style[val]))
    assert loss.item() == pytest.approx(float(best["val_loss"]), rel=1e-4)


@pytest.mark.slow
def test_two_processes_train_stage_2_like_one(collection, stage1, tmp_path):
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        finish(start(folder, processes, "train", "--data", collection, "--stage1", stage1, "--run", folder / "run",
                     "--batch-size", 9))  # fmt: skip
    assert_close(tmp_path / "2" / "run", tmp_path / "1" / "run")


def test_terminated_under_torchrun_it_saves_and_goes_on_with_another_number_of_processes(collection, stage1, tmp_path):
    command = ("classification_net", "--data", collection, "--run", tmp_path / "run", "--resume", *TINY)
    process = start(tmp_path, 2, *command)
    wait_for(tmp_path / "run" / "last.pt", process)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=TIMEOUT)
    assert process.returncode != 0 and "stopped after step" in error
    stopped = torch.load(tmp_path / "run" / "last.pt", weights_only=True)["progress"]
    assert 1 <= stopped["epoch"] <= EPOCHS["classification_net"]
    assert "going on after" in finish(start(tmp_path, 1, *command))
    assert_close(tmp_path / "run", stage1)


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_and_the_checkpoint_stays(collection, stage1, tmp_path):
    command = ("classification_net", "--data", collection, "--run", tmp_path / "run", "--resume", *TINY)
    process = start(tmp_path, 2, *command)
    wait_for(tmp_path / "run" / "last.pt", process)
    pids = dict(line.split() for line in (tmp_path / "pids").read_text().splitlines())
    os.kill(int(pids["1"]), signal.SIGKILL)
    process.communicate(timeout=TIMEOUT)
    assert process.returncode != 0
    kept = torch.load(tmp_path / "run" / "last.pt", weights_only=True)["progress"]
    assert len(kept["history"]) >= 1
    assert "going on after" in finish(start(tmp_path, 2, *command))
    assert_close(tmp_path / "run", stage1)
