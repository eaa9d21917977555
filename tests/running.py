"""Whole runs of both stages on a tiny net: in this process, and in processes that tests kill, starve and stop.

A server process imports torch once; every run is forked from it and so starts in a blink.
"""

import csv
import gc
import multiprocessing
import os
import sys
from collections.abc import Callable
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

import filelock
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils._pytree import tree_leaves
from torchvision.models._api import register_model

import classification_net
import train
import utils

ROOT = Path(__file__).resolve().parent.parent
STAGE1, STAGE2 = "classification_net.py", "train.py"
SCRIPTS = {STAGE1: classification_net, STAGE2: train}
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


def run_main(module: ModuleType, *options: object) -> None:
    """Run a module's `main` in this process; `UserError` comes through."""
    gc.collect()  # the run before this one lets go of its folder
    module.main(module.get_parser().parse_args([str(option) for option in options]))


def options_of(script: str, begin: Path, run: Path) -> tuple[object, ...]:
    """Options for three epochs; `begin` is the data of stage 1, or the run that stage 2 starts from."""
    if script == STAGE1:
        return ("--data", begin, "--run", run, "--epochs", 3, *TINY)
    return ("--stage1", begin, "--run", run, "--epochs", 3, "--batch-size", 8, *QUIET)


def stage1(data: Path, run: Path, *options: object) -> list[dict[str, str]]:
    """Run stage 1 in this process; return the rows of its metrics."""
    run_main(classification_net, *options_of(STAGE1, data, run), *options)
    return read_rows(run / "metrics.csv")


def stage2(begin: Path, run: Path, *options: object) -> list[dict[str, str]]:
    """Run stage 2 in this process; return the rows of its metrics."""
    run_main(train, *options_of(STAGE2, begin, run), *options)
    return read_rows(run / "metrics.csv")


def start(script: str, options: tuple, log: Path, before: tuple = ()) -> BaseProcess:
    """Start a script in a process of its own that writes to `log`, after a call `before`: a function and its values."""
    server = multiprocessing.get_context("forkserver")
    # The server does not get this process's module path, only its environment.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests"), str(ROOT)])
    server.set_forkserver_preload([__name__])
    process = server.Process(target=live, args=([script, *map(str, options)], log, *before), daemon=True)
    process.start()
    return process


def live(words: list[str], log: Path, before: Callable[..., None] | None = None, *values: Any) -> None:
    """What the process does: the same as the script on a command line."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    sys.argv = words
    torch.set_num_threads(1)
    if before:
        before(*values)
    module = SCRIPTS[words[0]]
    raise SystemExit(utils.run_script(module.main, module.get_parser()))


def finish(process: BaseProcess, log: Path, status: int = 0) -> str:
    """Wait for a process to end with `status`; return what it said, which has no traceback."""
    process.join(60)
    said = log.read_text(errors="replace") if log.exists() else ""
    assert process.exitcode == status and "Traceback" not in said, f"ended with {process.exitcode}:\n{said}"
    return said


def run_elsewhere(script: str, begin: Path, run: Path, *options: object, status: int = 0, before: tuple = ()) -> str:
    """Run a script, with `options_of` and more, in a process of its own to its end; return what it said."""
    log = run.with_name("log")
    return finish(start(script, (*options_of(script, begin, run), *options), log, before), log, status)


def strike(place: str, times: int, number: int) -> None:
    """Send this process a signal when it comes to a place for the `times`-th time, from 1.

    Places: "step" (of an optimizer) and "file" (one is written beside its name, which it gets next).
    """
    seen = count(1)

    def come(*_: Any) -> None:
        if next(seen) == times:
            os.kill(os.getpid(), number)

    if place == "step":
        register_optimizer_step_pre_hook(come)
    else:
        sys.addaudithook(lambda event, _: come() if event == "os.rename" else None)


def refuse_locks() -> None:
    """As of a network file system."""

    def acquire(*_: object) -> None:
        raise OSError(37, "No locks available")

    filelock.FileLock._acquire = acquire


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file without the columns of times."""
    with path.open(newline="") as file:
        return [{name: value for name, value in row.items() if name not in TIMES} for row in csv.DictReader(file)]


def assert_same_run(run: Path, other: Path) -> None:
    """The two runs have the same weights and optimizer state bit for bit, and the same metrics, each row once."""
    assert read_rows(run / "metrics.csv") == read_rows(other / "metrics.csv")
    for name in ("weights.pt", "resume.pt"):
        mine, theirs = (tree_leaves(torch.load(folder / name, weights_only=True)) for folder in (run, other))
        pairs = [pair for pair in zip(mine, theirs, strict=True) if isinstance(pair[0], torch.Tensor)]
        assert len(pairs) > 8 and all(torch.equal(*pair) for pair in pairs), name
