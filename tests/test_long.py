"""A long run: memory, open files and threads stay as they are, and the last epochs are as fast as the first."""

from __future__ import annotations

import json
import os
import statistics
import threading
import time
from pathlib import Path

import pytest
from running import PLAIN, TINY, finish, read_rows, start
from test_visdom import Server

EPOCHS = 200


def record(path: str) -> None:
    """Write down after each epoch what this process holds: memory, open files, threads, processor time."""
    import training

    original, samples = training.Loop.run_epoch, []

    def recorded(loop: training.Loop, signals: list[int]) -> None:
        began = time.process_time()
        original(loop, signals)
        took = time.process_time() - began
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (a Path for each would cost as much as what is measured)
        samples.append((pages * os.sysconf("SC_PAGE_SIZE") / 1e6, files, threading.active_count(), took))
        if len(samples) == EPOCHS:
            Path(path).write_text(json.dumps(samples))

    training.Loop.run_epoch = recorded


@pytest.mark.slow
@pytest.mark.parametrize("script", ["classification_net.py", "train.py"])
@pytest.mark.parametrize("cache", ["auto", "none"])
def test_two_hundred_epochs_are_flat(collection, tmp_path, script, cache):
    (tmp_path / "visdom").mkdir()
    server, log, stage1 = Server(tmp_path / "visdom"), tmp_path / "log", tmp_path / "stage1"
    shown = [option for option in PLAIN if option != "--no-visdom"]
    common = ("--data", collection, "--cache", cache)
    try:
        if script == "train.py":
            options = (*common, "--run", stage1, "--epochs", 1, *TINY, *PLAIN)
            finish(start("classification_net.py", options, log), log)
            rest = ("--stage1", stage1, "--batch-size", 8)
        else:
            rest = TINY
        options = (*common, "--run", tmp_path / "run", "--epochs", EPOCHS, "--visdom-port", server.port, *shown, *rest)
        process = start(script, options, log, record, str(tmp_path / "samples"))
        process.join(280)
        finish(process, log)
    finally:
        server.kill()
    samples = json.loads((tmp_path / "samples").read_text())
    assert len(read_rows(tmp_path / "run")) == len(samples) == EPOCHS
    memory, files, threads, seconds = (list(column) for column in zip(*samples, strict=True))
    early, late = statistics.median(seconds[1:41]), statistics.median(seconds[-40:])
    print(f"memory {memory[20]:.0f}, {memory[100]:.0f}, {memory[-1]:.0f} MB; files {files[20]}, {files[-1]}; threads "
          f"{threads[20]}, {threads[-1]}; an epoch {early:.4f}, {late:.4f} s of processor time")  # fmt: skip
    assert statistics.median(memory[-20:]) < statistics.median(memory[20:40]) + 25
    assert max(files[-100:]) <= max(files[20:100]) and max(threads[-100:]) <= max(threads[20:100])
    assert late < 1.3 * early + 0.005
