"""The defaults learn: a small case is solved from every seed, and stage 2 makes distance mean style across contents."""

from __future__ import annotations

import csv
import json
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import QUIET, run_main
from torch import nn

import classification_net
import evaluate
import train
from networks import rate_shares
from training import rate_at

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


def across_contents(run: Path) -> float:
    """Mean average precision across contents of a run, on pictures that neither stage was trained on."""
    run_main(evaluate, run, "--split", "test", "--out", run / "evaluation", "--no-tsne", "--no-visdom")
    return json.loads((run / "evaluation" / "metrics.json").read_text())["map_cross_content"]


@pytest.mark.parametrize("seed", [0, 1, pytest.param(2, marks=pytest.mark.slow)])
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
    before, after = (across_contents(tmp_path / stage) for stage in ("1", "2"))
    assert after > before + 0.02, "stage 2 should bring a style's pictures of other contents nearer"


def test_the_rate_warms_up_in_equal_steps_and_falls_as_half_a_cosine():
    rates = [rate_at(step, 110, 0.001, 10, "cosine") for step in range(110)]
    assert rates[:10] == pytest.approx([0.0001 * step for step in range(1, 11)])
    assert rates[10] == 0.001 and rates[60] == pytest.approx(0.0005)
    assert all(after < before for before, after in pairwise(rates[10:])) and 0 < rates[-1] < 1e-6


def test_without_warm_up_and_decay_the_rate_is_one():
    assert {rate_at(step, 50, 0.001, 0, "none") for step in range(50)} == {0.001}


def test_wide_layers_get_a_share_of_the_rate_by_their_inputs():
    net = nn.Sequential(nn.Conv2d(3, 8, 5), nn.Linear(1024, 10), nn.Linear(256, 10))
    share_of = {id(weight): group["share"] for group in rate_shares(net, 256) for weight in group["params"]}
    assert [share_of[id(layer.weight)] for layer in net] == [1, 0.25, 1]
    assert {share_of[id(layer.bias)] for layer in net} == {1}
    assert len(share_of) == 6
    assert [group["share"] for group in rate_shares(net, 0)] == [1]
