"""Files are whole or not at all: full disks, folders that go away or turn read-only, two runs in one folder."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import QUICK, ROOT
from running import PLAIN, TINY, assert_same_run, finish, last_line, read_rows, start, strike

from run_folder import BEST_FORMAT, LAST_FORMAT, read_checkpoint
from utils import UserError, run_script, write_json, write_whole

STAGE1 = "classification_net.py"


def options_of(collection: Path, run: Path) -> tuple[object, ...]:
    return ("--data", collection, "--run", run, "--epochs", 3, *TINY, *PLAIN)


@pytest.fixture(scope="module")
def untouched(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with room for everything."""
    run = tmp_path_factory.mktemp("untouched") / "run"
    finish(start(STAGE1, options_of(collection, run), run.parent / "log"), run.parent / "log")
    return run


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 4 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", place], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(disk: str) -> None:
    """Leave no byte free on a disk."""
    with contextlib.suppress(OSError), Path(disk, "ballast").open("wb", buffering=0) as file:
        for size in (65536, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size):
                    pass


def assert_checkpoints_load(run: Path) -> None:
    """Whatever checkpoints there are can be read, and nothing half written lies beside them."""
    for name, form in (("best.pt", BEST_FORMAT), ("last.pt", LAST_FORMAT)):
        if (run / name).exists():
            read_checkpoint(run / name, form)
    assert not list(run.glob(".*.part"))


def fails_and_goes_on(collection: Path, disk: Path, untouched: Path, count: int) -> bool:
    """Fill the disk before the `count`-th file of a run; returns whether the run got that far."""
    run, log = disk / "run", disk.parent / "log"
    process = start(STAGE1, options_of(collection, run), log, strike, "write", count, fill, str(disk))
    process.join(60)
    said = log.read_text()
    reached = (disk / "ballast").exists()
    if reached:
        assert process.exitcode == 2, said
        assert "cannot be written: No space left on device; free some space" in last_line(said), said
        assert_checkpoints_load(run)
        (disk / "ballast").unlink()
        finish(start(STAGE1, (*options_of(collection, run), "--resume"), log), log)
    assert_same_run(run, untouched)
    shutil.rmtree(run)
    return reached


# split.csv, config.json, then best.pt, last.pt, metrics.csv and curves.png of the first epoch.
@pytest.mark.parametrize("count", [2, 3, 4, 6])
def test_a_disk_that_fills_up_ends_the_run_and_the_run_goes_on_when_there_is_room(
    collection, small_disk, untouched, count
):
    assert fails_and_goes_on(collection, small_disk, untouched, count)


@pytest.mark.slow
def test_a_disk_that_fills_up_before_any_of_a_runs_files(collection, small_disk, untouched):
    counts = 0
    while fails_and_goes_on(collection, small_disk, untouched, counts + 1):
        counts += 1
    print(f"{counts} files")
    assert counts >= 8


def limit_files(size: int) -> None:
    """Let this process write no file larger than `size` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("size", [5_000, 200_000])
def test_files_that_may_not_grow_end_the_run_in_one_line(collection, untouched, tmp_path, size):
    run, log = tmp_path / "run", tmp_path / "log"
    said = finish(start(STAGE1, options_of(collection, run), log, limit_files, size), log, 2)
    assert "cannot be written" in last_line(said)
    assert_checkpoints_load(run)
    finish(start(STAGE1, (*options_of(collection, run), "--resume"), log), log)
    assert_same_run(run, untouched)


def test_no_room_for_the_decoded_pictures_is_said_and_changes_nothing(collection, untouched, small_disk, tmp_path):
    fill(str(small_disk))
    options = (*options_of(collection, tmp_path / "run"), "--cache-dir", small_disk)
    said = finish(start(STAGE1, options, tmp_path / "log"), tmp_path / "log")
    assert "pictures: decoded anew in each epoch, as" in said and "No space left" in said
    assert_same_run(tmp_path / "run", untouched)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("streams", ["stdout", pytest.param("both", marks=pytest.mark.slow)])
def test_an_output_on_a_full_disk_ends_a_script_without_a_traceback(collection, tmp_path, streams):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, STAGE1, "--data", collection, "--run", tmp_path / "run", "--epochs", "1", *QUICK],
            cwd=ROOT, stdout=full, stderr=full if streams == "both" else subprocess.PIPE, text=True, timeout=120,
        )  # fmt: skip
    assert done.returncode == 2
    if streams == "stdout":
        assert "No space left on device" in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


def remove(folder: str) -> None:
    """Delete a run under its process."""
    shutil.rmtree(folder)


def turn_read_only(folder: str) -> None:
    """Make a folder read-only, for this process too if it is the superuser's."""
    Path(folder).chmod(0o555)
    # Give up all capabilities: header (version 3, this process), then two words of each of three sets.
    header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    ctypes.CDLL(None).capset(header, nothing)


@pytest.mark.parametrize(
    ("blow", "says"), [(remove, "No such file or directory"), (turn_read_only, "Permission denied")]
)
@pytest.mark.parametrize(("place", "count"), [("step", 30), ("validation", 1)])
def test_a_run_folder_that_goes_away_or_turns_read_only(collection, tmp_path, blow, says, place, count):
    run, log = tmp_path / "run", tmp_path / "log"
    process = start(STAGE1, options_of(collection, run), log, strike, place, count, blow, str(run))
    line = last_line(finish(process, log, 2))
    assert line.startswith(f"{STAGE1}: {run}") and says in line, line
    if run.exists():
        run.chmod(0o755)
        assert_checkpoints_load(run)


def test_a_folder_that_cannot_be_written_from_the_start(collection, tmp_path):
    (tmp_path / "closed").mkdir()
    log = tmp_path / "log"
    process = start(STAGE1, options_of(collection, tmp_path / "closed" / "run"), log, turn_read_only, str(tmp_path / "closed"))  # fmt: skip  # noqa: E501
    assert f"--run {tmp_path / 'closed' / 'run'}: cannot be written" in last_line(finish(process, log, 2))


def wait_for(log: Path, words: str) -> None:
    deadline = time.monotonic() + 60
    while words not in (log.read_text() if log.exists() else ""):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


@pytest.mark.parametrize("resume", [(), ("--resume",)])
def test_the_second_of_two_runs_in_one_folder_refuses(collection, tmp_path, resume):
    run, log, log2 = tmp_path / "run", tmp_path / "log", tmp_path / "log2"
    options = ("--data", collection, "--run", run, "--epochs", 2000, *TINY, *PLAIN)
    first = start(STAGE1, options, log)
    try:
        wait_for(log, "device:" if not resume else "epoch 1/")
        before = (run / "config.json").exists()
        line = last_line(finish(start(STAGE1, (*options, "--resume"), log2), log2, 2))
        assert f"--run {run}: another process is training in it" in line
        assert first.is_alive() and before
        wait_for(log, "epoch 1/")  # before that a signal ends it at once, as there is nothing to save
    finally:
        first.terminate()
        first.join(30)
    assert first.exitcode == 143, log.read_text()
    assert_checkpoints_load(run)


def test_two_runs_started_at_once_leave_one(collection, untouched, tmp_path):
    run, logs = tmp_path / "run", [tmp_path / f"log{number}" for number in range(4)]
    processes = [start(STAGE1, options_of(collection, run), log) for log in logs]
    for process in processes:
        process.join(120)
    codes = sorted(process.exitcode for process in processes)
    assert codes == [0, 2, 2, 2], [log.read_text() for log in logs]
    for process, log in zip(processes, logs, strict=True):
        if process.exitcode == 2:
            assert "another process is training" in last_line(log.read_text()) or "--resume" in last_line(
                log.read_text()
            )
    assert_same_run(run, untouched)


@pytest.mark.parametrize("script", ["classification_net.py", "train.py"])
def test_losses_that_are_not_finite_end_the_run_with_the_last_good_weights(collection, untouched, tmp_path, script):
    run, log = tmp_path / "run", tmp_path / "log"
    options = ("--data", collection, "--run", run, "--epochs", 8, "--warm-up", 0, "--lr", 1e30, *PLAIN)
    rest = TINY if script == STAGE1 else ("--stage1", untouched, "--batch-size", 8)
    line = last_line(finish(start(script, (*options, *rest), log), log, 2))
    assert "the loss stopped being finite in epoch 1, step" in line and "(pictures " in line, line
    assert "more); the weights before it are kept" in line and "--lr" in line
    assert not (run / "last.pt").exists()  # there was no good weight yet
    assert not list(run.glob("*.part"))


def test_weights_that_are_not_finite_after_the_last_step_end_the_run_too(collection, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    options = ("--data", collection, "--run", run, "--epochs", 1, "--warm-up", 0, "--lr", 1e30, *TINY, *PLAIN)
    said = finish(start(STAGE1, (*options, "--batch-size", 100), log), log, 2)  # two steps: too few for the losses
    assert "the weights stopped being finite in epoch 1" in last_line(said) and "done" not in said
    assert not (run / "best.pt").exists() and not (run / "last.pt").exists()


def spoil(module_name: str) -> None:
    """Turn the learning rate up out of all bounds from here on."""
    training = sys.modules[module_name]
    training.Loop.set_rate = lambda loop, *_: [group.update(lr=1e30) for group in loop.task.optimizer.param_groups]


@pytest.mark.parametrize("count", [41, 43, 57, 60])
def test_weights_kept_from_before_the_losses_went_wrong_are_finite_and_the_best(collection, untouched, tmp_path, count):
    run, log = tmp_path / "run", tmp_path / "log"
    options = (*options_of(collection, run), "--epochs", 6)
    said = finish(start(STAGE1, options, log, strike, "step", count, spoil, "training"), log, 2)
    assert "the loss stopped being finite in epoch" in last_line(said)
    for name in ("best.pt", "last.pt"):
        content = torch.load(run / name, weights_only=True)
        weights = content["weights" if name == "best.pt" else "net"]
        assert all(bool(value.isfinite().all()) for value in weights.values()), name
    rows = [line for line in said.splitlines() if line.startswith(("epoch 1/", "epoch 2/"))]
    assert any(line.endswith("(best)") for line in rows)
    best = torch.load(run / "best.pt", weights_only=True)["epoch"]
    assert any(line.startswith(f"epoch {best}/") and line.endswith("(best)") for line in rows)
    assert len(read_rows(run)) >= 1


def test_memory_that_does_not_suffice_is_said_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["script.py"])

    def fill_gpu(_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    def wrong(_: object) -> None:
        torch.ones(2) @ torch.ones(3)

    for main, what in ((lambda _: torch.empty(2**60), "machine"), (fill_gpu, "GPU")):
        assert run_script(argparse.ArgumentParser, main) == 2
        assert (
            capsys.readouterr().err
            == f"script.py: the memory of the {what} is full; lower --batch-size, or free some of it\n"
        )
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        run_script(argparse.ArgumentParser, wrong)


def test_what_is_written_is_whole_or_not_there(tmp_path):
    write_whole(tmp_path / "text", "old")

    def fail(file: object) -> None:
        file.write(b"half of the new")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="No space left on device"):
        write_whole(tmp_path / "text", fail)
    assert (tmp_path / "text").read_text() == "old"
    write_json(tmp_path / "text", {"näme": 1})
    assert (tmp_path / "text").read_text(encoding="utf-8") == '{\n  "näme": 1\n}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["text"]
