"""The defaults learn: a small case is solved from every seed, and stage 2 makes distance mean style across contents."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import QUIET, run_main

import classification_net
import train

SIDE = 72


def draw(style: str, content: str, rng: np.random.Generator) -> np.ndarray:
    """A shape in two random colours, its inside filled in one of three ways: uint8 [SIDE, SIDE, 3]."""
    ground, ink = rng.integers(0, 256, (2, 3))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    phase = rng.integers(0, 8)
    filled = {
        "stripes": (columns + phase) % 8 < 4,
        "dots": ((columns + phase) % 8 - 4) ** 2 + ((rows + phase) % 8 - 4) ** 2 < 7,
        "plain": np.ones((SIDE, SIDE), dtype=bool),
    }[style]
    centre, size = rng.integers(26, 46, 2), rng.integers(20, 30)
    across, down = np.abs(columns - centre[0]), np.abs(rows - centre[1])
    inside = {"disc": across**2 + down**2 < size**2, "box": np.maximum(across, down) < size * 0.85}[content]
    return np.where((inside & filled)[:, :, None], ink, ground).astype(np.uint8)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three ways of filling two shapes, 40 pictures of each: 240 pictures."""
    folder = tmp_path_factory.mktemp("shapes")
    rng = np.random.default_rng(5)
    for style in ("stripes", "dots", "plain"):
        for content in ("disc", "box"):
            place = folder / style / content
            place.mkdir(parents=True)
            for number in range(40):
                cv2.imwrite(str(place / f"{number}.png"), draw(style, content, rng))
    return folder


def last_row(run: Path) -> dict[str, float]:
    with (run / "metrics.csv").open(newline="") as file:
        return {name: float(value) for name, value in list(csv.DictReader(file))[-1].items()}


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_both_stages_learn_from_every_seed(shapes, tmp_path, seed):
    common = ("--data", shapes, "--seed", seed)
    run_main(
        classification_net,
        *common,
        "--run",
        tmp_path / "1",
        "--epochs",
        10,
        "--batch-size",
        32,
        "--image-size",
        64,
        *QUIET,
    )
    stage1 = last_row(tmp_path / "1")
    assert stage1["val_accuracy"] > 0.6, "chance is 0.33"
    run_main(train, *common, "--stage1", tmp_path / "1", "--run", tmp_path / "2", "--epochs", 4, *QUIET)
    stage2 = last_row(tmp_path / "2")
    assert stage2["val_triplet_accuracy"] > 0.8, "chance is 0.5"
    assert stage2["val_map"] > 0.6, "chance is 0.35"
    assert stage2["train_loss"] < 0.15, "a loss at the margin, 0.2, is a collapse"
