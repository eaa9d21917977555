"""Triplets keep the rule of section 3.2.1, are drawn evenly, afresh each epoch, reproducibly and fast."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataset import read_collection
from triplets import count_fallbacks, draw_balanced_batches, draw_epoch, draw_triplets, read_triplets
from utils import UserError


@pytest.fixture(scope="module")
def labels() -> tuple[np.ndarray, np.ndarray]:
    """Styles and contents of 5,000 pictures, some of unknown content."""
    rng = np.random.default_rng(7)
    return rng.integers(0, 11, 5000), rng.integers(-1, 9, 5000)


def test_every_triplet_keeps_the_content_rule_where_the_content_is_known(labels):
    style, content = labels
    rows = np.arange(1000, 4000)
    anchor, positive, negative = draw_triplets(style, content, rows, seed=1).T
    assert (anchor == rows).all()
    assert np.isin(np.concatenate([positive, negative]), rows).all()
    assert (style[positive] == style[anchor]).all() and (positive != anchor).all()
    assert (style[negative] != style[anchor]).all()
    known = content[anchor] >= 0
    assert (content[positive[known]] != content[anchor[known]]).all() and (content[positive[known]] >= 0).all()
    assert (content[negative[known]] == content[anchor[known]]).all()


def test_candidates_are_drawn_evenly():
    style = np.array([0] * 6 + [1] * 6)
    content = np.array([0, 0, 1, 1, 2, 2] * 2)
    drawn = np.stack([draw_triplets(style, content, np.arange(12), seed)[0] for seed in range(2000)])
    assert (drawn[:, 0] == 0).all()
    positives, times = np.unique(drawn[:, 1], return_counts=True)
    assert positives.tolist() == [2, 3, 4, 5] and times.min() > 400  # 500 each are expected
    negatives, times = np.unique(drawn[:, 2], return_counts=True)
    assert negatives.tolist() == [6, 7] and times.min() > 900


def test_an_anchor_of_unknown_content_gets_any_picture_of_its_style_but_never_itself():
    style, content = np.array([0, 0, 0, 1, 1]), np.full(5, -1)
    drawn = np.concatenate([draw_triplets(style, content, np.arange(5), seed) for seed in range(300)])
    assert (drawn[:, 0] != drawn[:, 1]).all()
    assert (style[drawn[:, 0]] == style[drawn[:, 1]]).all() and (style[drawn[:, 0]] != style[drawn[:, 2]]).all()
    assert set(drawn[drawn[:, 0] == 0, 1].tolist()) == {1, 2}
    assert count_fallbacks(style, content, np.arange(5)) == (5, 5)


def test_the_rule_gives_way_only_for_anchors_that_need_it():
    # The only style-0 picture of content 1 finds no negative of its content; the others find everything.
    style, content = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 0, 2])
    assert count_fallbacks(style, content, np.arange(5)) == (0, 2)
    for seed in range(50):
        drawn = draw_triplets(style, content, np.arange(5), seed)
        assert drawn[2, 1] in (0, 1) and drawn[2, 2] in (3, 4)
        assert drawn[0].tolist() == [0, 2, 3]


@pytest.mark.parametrize(("style", "content"), [([0, 0, 0], [0, 1, 2]), ([0, 0, 1], [0, 1, 0])])
def test_one_style_or_a_style_of_one_picture_is_refused(style, content):
    with pytest.raises(ValueError, match="at least two"):
        draw_triplets(np.array(style), np.array(content), np.arange(3), seed=0)


def test_epochs_are_fresh_and_reproducible(labels):
    rows = np.arange(5000)
    first, again, second = (draw_epoch(*labels, rows, seed=3, epoch=epoch) for epoch in (1, 1, 2))
    assert (first == again).all()
    assert (np.sort(first[:, 0]) == rows).all(), "every picture is the anchor once"
    by_anchor = [triplets[np.argsort(triplets[:, 0])] for triplets in (first, second)]
    assert (by_anchor[0][:, 1] != by_anchor[1][:, 1]).mean() > 0.9
    assert (draw_epoch(*labels, rows, seed=4, epoch=1) != first).any()


def test_a_hundred_thousand_anchors_take_well_under_a_second():
    rng = np.random.default_rng(0)
    style, content, rows = rng.integers(0, 11, 100_000), rng.integers(0, 9, 100_000), np.arange(100_000)
    seconds = []
    for epoch in range(3):
        began = time.perf_counter()
        draw_epoch(style, content, rows, 0, epoch)
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.5


def test_balanced_batches_hold_a_few_contents_in_every_style():
    rng = np.random.default_rng(0)
    style, content, rows = rng.integers(0, 6, 2000), rng.integers(0, 9, 2000), np.arange(0, 2000, 2)
    batches = draw_balanced_batches(style, content, rows, 60, seed=1)
    assert len(batches) == -(-len(rows) // 60)
    for batch in batches:
        assert len(batch) in (58, 59) and np.isin(batch, rows).all()
        assert set(style[batch[:, 0]].tolist()) == set(range(6))
        assert set(np.bincount(style[batch[:, 0]]).tolist()) <= {9, 10}
        assert 2 <= len(set(content[batch[:, 0]].tolist())) <= 5
    assert (draw_balanced_batches(style, content, rows, 60, seed=1)[0] == batches[0]).all()


def test_balanced_batches_are_even_and_no_more_pictures_than_an_epoch_of_the_plain_way_has_anchors():
    rng = np.random.default_rng(0)
    style, content, rows = rng.integers(0, 6, 720), rng.integers(0, 9, 720), np.arange(720)
    assert [len(batch) for batch in draw_balanced_batches(style, content, rows, 64, seed=1)] == [60] * 12
    assert sum(len(batch) for batch in draw_balanced_batches(style, content, rows[:701], 64, seed=1)) == 701


@pytest.mark.parametrize("size", [4, 8, 11, 16, 22])
def test_small_balanced_batches_hold_positives_and_negatives_and_reach_every_style(size):
    style, content = (numbers.ravel() for numbers in np.meshgrid(np.arange(11), np.arange(9)))
    style, content, rows = np.tile(style, 4), np.tile(content, 4), np.arange(4 * 99)
    anchors = set()
    for batch in draw_balanced_batches(style, content, rows, size, seed=1):
        labels, others = style[batch[:, 0]], content[batch[:, 0]]
        positive = (labels[:, None] == labels) & (others[:, None] != others)
        negative = (labels[:, None] != labels) & (others[:, None] == others)
        useful = positive.any(axis=1) & negative.any(axis=1)
        assert useful.sum() >= len(batch) - 1
        anchors |= set(labels[useful].tolist())
    assert anchors == set(range(11))


def write_triplets(folder: Path, text: str) -> Path:
    path = folder / "triplets.txt"
    path.write_text(text)
    return path


def test_a_triplet_file_says_which_is_nearer_and_its_triplets_stay_within_a_split(collection, tmp_path):
    pictures = read_collection(collection)
    split = np.array(["train"] * 10 + ["val"] * 10 + ["test"] * (len(pictures) - 20))
    pictures = replace(pictures, split=split)
    found = read_triplets(write_triplets(tmp_path, "0 1 2\n10,11,12\n0 1 15\n30 31 32\n"), pictures)
    assert found["train"].tolist() == [[0, 2, 1]], "a b c: a is nearer to c, so c is the positive"
    assert found["val"].tolist() == [[10, 12, 11]]
    assert found["test"].tolist() == [[30, 32, 31]]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("0 1 9999\n", "line 1: names a picture outside"),
        ("0 1 2\n3 4 3\n", "line 2: names a picture twice"),
        ("0 1\n", "line 1: expected 3 integer"),
        ("0 1 x\n", "line 1: expected 3 integer"),
        ("", "is empty"),
    ],
)
def test_a_bad_triplet_file_is_refused_by_its_line(collection, tmp_path, text, complaint):
    with pytest.raises(UserError, match=complaint):
        read_triplets(write_triplets(tmp_path, text), read_collection(collection))
