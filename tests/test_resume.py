"""A run that is killed or stopped anywhere and resumed ends exactly as one that was never touched."""

from __future__ import annotations

import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from conftest import QUICK, QUIET, run_command
from running import (
    PLAIN,
    TINY,
    assert_same_run,
    finish,
    last_line,
    read_rows,
    signal_self,
    start,
    strike,
)  # fmt: skip

EPOCHS = 4
STAGES = ("classification_net.py", "train.py")
OFTEN = ("--checkpoint-minutes", 0.00001)  # a checkpoint every ten steps: two in each epoch


def options_of(script: str, collection: Path, runs: Path) -> tuple[object, ...]:
    common = ("--data", collection, "--epochs", EPOCHS, "--seed", 5, *PLAIN)
    if script == "classification_net.py":
        return (*common, "--run", runs / "stage1", *TINY)
    return (*common, "--stage1", runs / "stage1", "--run", runs / "stage2", "--batch-size", 8, "--lr", 0.02)


@pytest.fixture(scope="module")
def untouched(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both stages, never stopped."""
    runs = tmp_path_factory.mktemp("untouched")
    for script in STAGES:
        finish(start(script, options_of(script, collection, runs), runs / "log"), runs / "log")
    return runs


def kill_at_random(collection: Path, runs: Path, chances: random.Random, kills: int, rests: tuple) -> list[str]:
    """Run both stages with `--resume`, each time a little faster or slower, killing them `kills` times in all.

    Returns what each killed run had said last.
    """
    said = []
    for script in STAGES:
        goal = (kills + 1) // 2 if script == STAGES[0] else kills
        while True:
            log = runs / "log"
            rest = rests[len(said) % len(rests)]
            process = start(script, (*options_of(script, collection, runs), "--resume", *rest), log)
            if len(said) < goal:
                # It takes a while until a run begins, and that is no interesting time.
                deadline = time.monotonic() + 30
                while "device:" not in (log.read_text() if log.exists() else "") and time.monotonic() < deadline:
                    time.sleep(0.005)
                process.join(chances.uniform(0, 2.5))
                if process.is_alive():
                    process.kill()
                    process.join()
                    said.append(f"{script}: {(log.read_text().strip().splitlines() or [''])[-1]}")
                    continue
            finish(process, log)
            if len(said) >= goal:
                break
            shutil.rmtree(runs / ("stage1" if script == STAGES[0] else "stage2"))  # it got away: once more
    return said


def test_killed_at_four_random_moments_over_both_stages(collection, untouched, tmp_path):
    rests = ((), OFTEN, ("--cache", "none", "--workers", 3), (*OFTEN, "--workers", 1))
    kill_at_random(collection, tmp_path, random.Random(7), 4, rests)
    for stage in ("stage1", "stage2"):
        assert_same_run(tmp_path / stage, untouched / stage)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_twenty_five_random_moments_over_both_stages(collection, untouched, tmp_path, seed):
    rests = ((), OFTEN, ("--cache", "none", "--workers", 3), (*OFTEN, "--workers", 1))
    said = kill_at_random(collection, tmp_path, random.Random(seed), 25, rests)
    print("\n".join(said))
    assert len(said) == 25
    for stage in ("stage1", "stage2"):
        assert_same_run(tmp_path / stage, untouched / stage)


def kill_at(place: str, count: int, script: str, collection: Path, runs: Path, *rest: object) -> str:
    """Kill a run at a place, resume it, let it end; return what the resumed run said."""
    log, options = runs / "log", (*options_of(script, collection, runs), *rest)
    killed = start(script, options, log, strike, place, count, signal_self, signal.SIGKILL)
    finish(killed, log, -signal.SIGKILL)
    return finish(start(script, (*options, "--resume"), log), log)


# The first four files synced are split.csv and config.json and their folder, then best.pt, last.pt and the views.
@pytest.mark.parametrize(("place", "count"), [("step", 1), ("validation", 2), ("sync", 3), ("sync", 7)])
def test_killed_at_a_chosen_moment_of_stage_1(collection, untouched, tmp_path, place, count):
    kill_at(place, count, "classification_net.py", collection, tmp_path)
    assert_same_run(tmp_path / "stage1", untouched / "stage1")
    assert not list((tmp_path / "stage1").glob(".*.part"))


@pytest.mark.slow
@pytest.mark.parametrize("script", STAGES)
@pytest.mark.parametrize("count", range(1, 25))
def test_killed_at_every_file_that_a_run_writes(collection, untouched, tmp_path, script, count):
    if script == "train.py":
        shutil.copytree(untouched / "stage1", tmp_path / "stage1")
    for place in ("write", "sync"):
        log, options = tmp_path / "log", options_of(script, collection, tmp_path)
        process = start(script, options, log, strike, place, count, signal_self, signal.SIGKILL)
        process.join(60)
        assert process.exitcode in (0, -signal.SIGKILL), log.read_text()
        finish(start(script, (*options, "--resume"), log), log)
        stage = "stage1" if script == STAGES[0] else "stage2"
        assert_same_run(tmp_path / stage, untouched / stage)
        shutil.rmtree(tmp_path / stage)


@pytest.mark.slow
def test_goes_on_in_the_middle_of_an_epoch(collection, untouched, tmp_path):
    said = kill_at("step", 36, "classification_net.py", collection, tmp_path, *OFTEN)
    assert "going on after epoch 1, step 10 of 4 epochs" in said  # an epoch has 20 steps, and this was its 16th
    assert_same_run(tmp_path / "stage1", untouched / "stage1")


def test_stage_2_goes_on_in_the_middle_of_an_epoch(collection, untouched, tmp_path):
    shutil.copytree(untouched / "stage1", tmp_path / "stage1")
    said = kill_at("step", 55, "train.py", collection, tmp_path, *OFTEN)
    assert "going on after epoch 2, step 10 of 4 epochs" in said
    assert_same_run(tmp_path / "stage2", untouched / "stage2")


@pytest.mark.parametrize(
    ("number", "status", "place", "count"),
    [(signal.SIGINT, 130, "step", 25), (signal.SIGTERM, 143, "step", 1), (signal.SIGTERM, 143, "validation", 2)],
)
def test_a_signal_ends_the_run_after_saving_the_step(collection, untouched, tmp_path, number, status, place, count):
    log, options = tmp_path / "log", options_of("classification_net.py", collection, tmp_path)
    said = finish(start("classification_net.py", options, log, strike, place, count, signal_self, number), log, status)
    steps = count if place == "step" else 41  # it falls in the second validation, after two epochs of 20 steps
    where = f"step {(steps - 1) % 20 + 1} of 20 in epoch {(steps - 1) // 20 + 1}"
    assert last_line(said).startswith(f"classification_net.py: stopped after {where} and saved"), said
    assert "--resume" in last_line(said)
    said = finish(start("classification_net.py", (*options, "--resume"), log), log)
    assert f"step {(steps - 1) % 20 + 1} of 4 epochs" in said
    assert_same_run(tmp_path / "stage1", untouched / "stage1")


def test_caches_and_workers_and_their_absence_change_nothing(collection, untouched, tmp_path):
    rests = (("--cache", "none", "--workers", 4), ("--cache-dir", tmp_path / "pictures", "--workers", 1))
    for script, rest in zip(STAGES, rests, strict=True):
        finish(start(script, (*options_of(script, collection, tmp_path), *rest), tmp_path / "log"), tmp_path / "log")
    for stage in ("stage1", "stage2"):
        assert_same_run(tmp_path / stage, untouched / stage)


def test_a_finished_run_that_is_resumed_stays_as_it_is(collection, untouched, tmp_path):
    runs = tmp_path / "copy"
    shutil.copytree(untouched, runs)
    for script in STAGES:
        said = finish(start(script, (*options_of(script, collection, runs), "--resume"), runs / "log"), runs / "log")
        assert "done: best" in said
    for stage in ("stage1", "stage2"):
        assert_same_run(runs / stage, untouched / stage)


def test_the_comparison_of_runs_can_fail(collection, untouched, tmp_path):
    options = (*options_of("classification_net.py", collection, tmp_path), "--seed", 6)
    finish(start("classification_net.py", options, tmp_path / "log"), tmp_path / "log")
    assert read_rows(tmp_path / "stage1") != read_rows(untouched / "stage1")
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "stage1", untouched / "stage1")


@pytest.mark.slow
def test_alexnet_is_killed_and_goes_on(collection, tmp_path):
    log = tmp_path / "log"
    common = ("--data", collection, "--epochs", 3, "--dropout", 0.5, "--image-size", 64, *QUIET)
    finish(start("classification_net.py", (*common, "--run", tmp_path / "a"), log), log)
    options = (*common, "--run", tmp_path / "b", "--checkpoint-minutes", 0.00001, "--batch-size", 64)
    for place, count in (("step", 4), ("sync", 3), ("validation", 1)):
        finish(start("classification_net.py", (*options, "--resume"), log, strike, place, count, signal_self,
                     signal.SIGKILL), log, -signal.SIGKILL)  # fmt: skip
    finish(start("classification_net.py", (*options, "--resume"), log), log)
    assert_same_run(tmp_path / "a", tmp_path / "b")


@pytest.mark.slow
def test_ctrl_c_on_a_command_line(collection, tmp_path):
    run = tmp_path / "run"
    options = ("--data", collection, "--run", run, "--epochs", 500, "--batch-size", 16, *QUICK, "--arch", "resnet18")
    done = run_command("-c", TIMED, *options)
    assert done.returncode == 130, done.stderr
    assert done.stderr.strip().splitlines()[-1].endswith("the same command with --resume goes on from there")
    assert "Traceback" not in done.stderr


# Starts the script of stage 1 and presses Ctrl-C as soon as it trains.
TIMED = """
import signal, subprocess, sys
run = subprocess.Popen([sys.executable, "classification_net.py", *sys.argv[1:]], stdout=subprocess.PIPE, text=True)
for line in run.stdout:
    if line.startswith("epoch 1/"):
        run.send_signal(signal.SIGINT)
sys.exit(run.wait())
"""
