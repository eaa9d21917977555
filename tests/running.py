"""Whole runs of both stages on a tiny net: in this process, and in processes that tests kill, starve and stop.

A server process imports torch once; every run is forked from it and so starts in a blink.
"""

from __future__ import annotations

import csv
import multiprocessing
import os
import sys
from collections.abc import Callable
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models._api import register_model

import classification_net
import train
import utils

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = {"classification_net.py": classification_net, "train.py": train}
QUIET = ("--device", "cpu", "--amp", "off", "--no-visdom")
TINY = ("--arch", "tiny", "--image-size", 32, "--embedding-dim", 16, "--batch-size", 8, *QUIET)
TIMES = ("images_per_second", "seconds")  # what may differ between two runs that are otherwise the same


@register_model("tiny")
def tiny(**_: Any) -> nn.Module:
    """A backbone of some thousand weights that has a layer of every kind that the real ones have."""
    layers = [nn.Conv2d(3, 8, 5, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Dropout(0.2), nn.Linear(32, 1000))


@register_model("smooth")
def smooth(**_: Any) -> nn.Module:
    """The same without batch norm and dropout, which go by a process's own part of a batch."""
    return nn.Sequential(*(layer for layer in tiny() if not isinstance(layer, (nn.BatchNorm2d, nn.Dropout))))


def run_main(script: str, *options: object) -> None:
    """Run a script's `main` in this process; `UserError` comes through."""
    module = SCRIPTS[script]
    module.main(module.get_parser().parse_args([str(option) for option in options]))


def start(
    script: str, options: tuple, log: Path, before: Callable[..., None] | None = None, *values: Any
) -> BaseProcess:
    """Start a script in a process of its own whose output goes to `log`; it calls `before(*values)` first, if given."""
    server = multiprocessing.get_context("forkserver")
    # The server does not get this process's module path, only its environment.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests"), str(ROOT)])
    server.set_forkserver_preload([__name__])
    words = [script, *map(str, options)]
    process = server.Process(target=live, args=(words, str(log), before, values), daemon=True)
    process.start()
    return process


def live(words: list[str], log: str, before: Callable[..., None] | None, values: tuple) -> None:
    """What the process does: the same as the script on a command line."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    sys.argv = words
    torch.set_num_threads(1)
    if before is not None:
        before(*values)
    module = SCRIPTS[words[0]]
    raise SystemExit(utils.run_script(module.main, module.get_parser()))


def finish(process: BaseProcess, log: Path, status: int = 0) -> str:
    """Wait for a process to end with `status`; return what it said, which has no traceback."""
    process.join(60)
    said = log.read_text(errors="replace") if log.exists() else ""
    assert process.exitcode == status and "Traceback" not in said, f"ended with {process.exitcode}:\n{said}"
    return said


def run_elsewhere(script: str, *options: object, log: Path, status: int = 0, before: tuple = ()) -> str:
    """Run a script in a process of its own to its end; return what it said."""
    return finish(start(script, options, log, *before), log, status)


def strike(place: str, times: int, number: int) -> None:
    """Send this process a signal just before the `times`-th time, from 1, that it comes to a place.

    Places: "step" (of either optimizer, inside an epoch) and "file" (written, but not yet synced and renamed).
    """
    seen = count(1)

    def pass_by() -> None:
        if next(seen) == times:
            os.kill(os.getpid(), number)

    if place == "step":
        for kind in (torch.optim.Adam, torch.optim.SGD):
            kind.step = before_call(kind.step, pass_by)
    else:
        os.fsync = before_call(os.fsync, pass_by)


def before_call(function: Callable[..., Any], first: Callable[[], None]) -> Callable[..., Any]:
    """A function that calls `first` and then `function`."""

    def both(*values: Any, **named: Any) -> Any:
        first()
        return function(*values, **named)

    return both


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file without the columns of times."""
    with path.open(newline="") as file:
        return [{name: value for name, value in row.items() if name not in TIMES} for row in csv.DictReader(file)]


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor in a file of torch.save, by the path that leads to it."""
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
    assert read_rows(run / "metrics.csv") == read_rows(other / "metrics.csv")
    for name in ("weights.pt", "resume.pt"):
        mine, theirs = read_tensors(run / name), read_tensors(other / name)
        assert mine.keys() == theirs.keys() and len(mine) > 8
        assert [key for key in mine if not torch.equal(mine[key], theirs[key])] == []
