"""What many tests need: a small stand-in collection and short runs of both stages on it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import classification_net
import demo
import train

ROOT = Path(__file__).resolve().parent.parent
# ResNet-18's checkpoints are a sixth of AlexNet's; tests that are about AlexNet name it.
SMALL = ("--arch", "resnet18", "--image-size", "64")  # options of stage 1
QUIET = ("--no-visdom", "--amp", "off")  # options of both stages
QUICK = (*SMALL, *QUIET)

# A shell that starts the tests in the background has interrupts ignored, and so would all processes that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def run_main(script: object, *options: object) -> None:
    """Run a script's `main` in this process on a command line."""
    script.main(script.get_parser().parse_args([str(option) for option in options]))


def run_command(*command: object, cwd: Path = ROOT, **settings: object) -> subprocess.CompletedProcess:
    """Run a script in a process of its own, as a user would; its output is kept as text."""
    words = [sys.executable, *map(str, command)]
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=240, **settings)


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in collection of 11 styles x 9 contents x 2 pictures of 64 px."""
    folder = tmp_path_factory.mktemp("collection") / "pictures of every style"
    run_main(demo, folder, "--per-cell", 2, "--size", 64)
    return folder


@pytest.fixture(scope="session")
def stage1_run(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of stage 1: two epochs on the collection."""
    run = tmp_path_factory.mktemp("runs") / "stage1"
    run_main(classification_net, "--data", collection, "--run", run, "--epochs", 2, *QUICK)
    return run


@pytest.fixture(scope="session")
def stage2_run(collection: Path, stage1_run: Path) -> Path:
    """A finished run of stage 2: two epochs that start from `stage1_run`."""
    run = stage1_run.parent / "stage2"
    run_main(train, "--data", collection, "--stage1", stage1_run, "--run", run, "--epochs", 2, *QUIET)
    return run
