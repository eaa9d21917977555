"""The benchmark measures the three contenders with no data at hand, and writes what it found."""

from __future__ import annotations

import json
import statistics

import cv2
import pytest
import torch
from conftest import run_command
from running import last_line

import benchmark
from dataset import BAM_STYLES, read_collection
from plain_recipe import PlainPictures

QUICK = ("--image-size", 64, "--batch-size", 8, "--repeats", 2, "--seconds", 0.05, "--workers", 1, "--amp", "off")


def test_the_input_alone_is_measured_in_seconds(tmp_path):
    done = run_command("benchmark.py", *QUICK, "--only", "input", "--json", tmp_path / "speed.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "speed.json").read_text())
    assert found["input"]["ours/plain"] > 5 and "stage1" not in found


@pytest.mark.slow
def test_without_data_it_measures_everything_and_writes_it(tmp_path):
    done = run_command("benchmark.py", *QUICK, "--json", tmp_path / "speed.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "speed.json").read_text())
    for what in ("input", "stage1", "stage2"):
        assert f"\n{what} " in done.stdout
        names = ("plain", "ours", "ceiling", "net")[: 3 if what == "input" else 4]
        assert all(found[what][name] > 0 for name in names)
        rounds = found[what]["rounds"]
        assert all(len(speeds) == 2 for speeds in rounds.values())
        pairs = zip(rounds["ours"], rounds["plain"], strict=True)
        assert found[what]["ours/plain"] == pytest.approx(statistics.median(a / b for a, b in pairs))
    for stage in ("stage1", "stage2"):
        # A net of 57 million weights, their gradients and the optimizer's state, in bytes.
        assert all(5e8 < size < 1e10 for size in found[stage]["peak_bytes"].values())
    assert "torch" in found["machine"] and found["batch_size"] == 8


def test_stand_in_pictures_are_jpegs_of_two_sizes_in_every_style(tmp_path):
    collection = read_collection(benchmark.write_pictures(tmp_path / "pictures", None))
    shapes = {cv2.imread(str(collection.folder / path)).shape for path in collection.paths}
    assert shapes == {(256, 256, 3), (480, 640, 3)}
    assert collection.styles == BAM_STYLES and len(collection.contents) == 9
    benchmark.write_pictures(tmp_path / "many", 150)
    assert len(list((tmp_path / "many").rglob("*.jpg"))) == 150


def test_the_plain_recipe_sees_the_same_pictures_and_kinds_of_triplets(collection):
    found = read_collection(collection)
    rows = found.rows("train")
    picture, style = PlainPictures(found, rows, 64, triplets=False)[5]
    assert picture.shape == (3, 64, 64) and picture.dtype == torch.float32 and style == found.style[rows[5]]
    triplets = PlainPictures(found, rows, 64, triplets=True)
    assert [part.shape for part in triplets[0]] == [(3, 64, 64)] * 3 and len(triplets) == len(rows)


def test_the_whole_method_is_trained_by_its_commands_and_extrapolated(tmp_path):
    done = run_command(
        "benchmark.py", "--whole", 300, "--epochs", 1, 1, "--image-size", 64, "--json", tmp_path / "whole.json"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "whole.json").read_text())
    assert found["pictures"] == 300 and "30 + 50 epochs" in last_line(done.stdout)
    for stage, epochs in (("stage1", 30), ("stage2", 50)):
        part = found[stage]
        assert part["whole_seconds"] == pytest.approx(part["seconds"] + (epochs - 1) * part["epoch_seconds"])
    assert found["whole_seconds"] > found["stage1"]["whole_seconds"]


@pytest.mark.parametrize("command", [("--data", "nowhere"), ("--device", "cuda:99"), ("--repeats", "0")])
def test_what_cannot_be_measured_is_refused_in_a_line(command):
    done = run_command("benchmark.py", *command)
    assert done.returncode == 2 and "Traceback" not in done.stderr and command[1] in done.stderr
