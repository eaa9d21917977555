"""Runs of both stages in processes of their own, for tests that kill, starve and stop them.

A server process imports torch once; every run is forked from it and so starts in a blink. The net is as small as a
net with convolutions, batch norm and dropout can be, so that a run takes a second and its checkpoints little disk.
"""

from __future__ import annotations

import csv
import itertools
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
from torch import nn

import classification_net
import networks
import train
import training
from utils import run_script

SCRIPTS = {"classification_net.py": classification_net, "train.py": train}
TINY = ("--arch", "tiny", "--image-size", 32, "--embedding-dim", 16, "--batch-size", 8)
PLAIN = ("--no-visdom", "--amp", "off", "--device", "cpu")
TIMES = ("images_per_second", "seconds")  # what may differ between two runs that are otherwise the same


def tiny(**_: Any) -> nn.Module:
    """A backbone of a few thousand weights that has a layer of every kind that the real ones have."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=4), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(32, networks.BACKBONE_OUTPUTS),
    )  # fmt: skip


def get_server() -> ForkServerContext:
    """Start the server that runs are forked from, if it is not there yet."""
    server = multiprocessing.get_context("forkserver")
    here = Path(__file__).resolve().parent
    # The server does not get this process's module path, only its environment.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(here), str(here.parent)])
    server.set_forkserver_preload([__name__])
    return server


def start(script: str, options: Iterable[object], log: Path, before: Callable[..., None] | None = None,
          *values: object) -> BaseProcess:  # fmt: skip
    """Start a run in a process of its own. Its output goes to `log`; it calls `before(*values)` first, if given."""
    words = [str(option) for option in options]
    process = get_server().Process(target=live, args=(script, words, str(log), before, values), daemon=True)
    process.start()
    return process


def live(script: str, words: list[str], log: str, before: Callable[..., None] | None, values: tuple) -> None:
    """What the process does: the same as the script on a command line."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    sys.argv = [script, *words]
    torch.set_num_threads(1)
    networks.BACKBONES["tiny"] = tiny
    if before is not None:
        before(*values)
    module = SCRIPTS[script]
    raise SystemExit(run_script(module.get_parser, module.main))


def strike(place: str, count: int, blow: Callable[..., Any], *values: object) -> None:
    """Make a blow fall in this process just before the `count`-th time, from 1, that it comes to a place.

    Places: "step" (an optimizer step), "validation", "write" (a file is begun), "sync" (it is written but not yet
    synced and renamed, or renamed and its folder not yet synced).
    """
    owner, name = {
        "step": (training.Loop, "train_step"), "validation": (training, "predict"),
        "write": (tempfile, "mkstemp"), "sync": (os, "fsync"),
    }[place]  # fmt: skip
    original, seen = getattr(owner, name), itertools.count(1)

    def passing(*arguments: Any, **named: Any) -> Any:
        if next(seen) == count:
            blow(*values)
        return original(*arguments, **named)

    for module in (owner, *(SCRIPTS.values() if place == "validation" else ())):
        setattr(module, name, passing)


def signal_self(number: int) -> None:
    """Send this process a signal."""
    os.kill(os.getpid(), number)


def finish(process: BaseProcess, log: Path, status: int = 0) -> str:
    """Wait for a run to end with `status`; return what it said."""
    process.join(120)
    said = log.read_text(errors="replace") if log.exists() else ""
    assert process.exitcode == status, f"ended with {process.exitcode}:\n{said}"
    return said


def last_line(said: str) -> str:
    """The line that the run ended with. Fails where there is a traceback."""
    assert "Traceback" not in said and "Error:" not in said, said
    return said.strip().splitlines()[-1]


def read_rows(run: Path) -> list[dict[str, str]]:
    """The rows of a run's `metrics.csv` without the times."""
    with (run / "metrics.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name not in TIMES} for row in csv.DictReader(file)]


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor in a checkpoint, by the path that leads to it."""
    found: dict[str, torch.Tensor] = {}

    def walk(value: Any, name: str) -> None:
        if isinstance(value, torch.Tensor):
            found[name] = value
        elif isinstance(value, (dict, list)):
            for key, part in value.items() if isinstance(value, dict) else enumerate(value):
                walk(part, f"{name}/{key}")

    walk(torch.load(path, map_location="cpu", weights_only=True), "")
    return found


def assert_same_run(run: Path, other: Path) -> None:
    """The two runs have the same weights and optimizer state bit for bit, and the same metrics, each row once."""
    assert read_rows(run) == read_rows(other)
    for name in ("best.pt", "last.pt"):
        mine, theirs = read_tensors(run / name), read_tensors(other / name)
        assert mine.keys() == theirs.keys()
        assert [key for key in mine if not torch.equal(mine[key], theirs[key])] == []
