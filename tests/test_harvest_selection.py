"""Which pictures harvest.py chooses out of BAM's database: by which label, how evenly, and always the same ones."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from harvest_stand import make_big_database, make_database
from hypothesis import given, settings
from hypothesis import strategies as st

from bam import Candidates, count_spares, draft, even_share, open_database, read_candidates, read_details
from dataset import BAM_CONTENTS, BAM_STYLES
from utils import UserError

COMIC, PEN, HAPPY = BAM_STYLES.index("Comic"), BAM_STYLES.index("Pen Ink"), BAM_STYLES.index("Happy")


def read(path: Path, **options) -> Candidates:
    return read_candidates(open_database(path), **options)


def choose(path: Path, per_style: int, **options) -> dict[int, tuple[str, str]]:
    """The draft by mid, with names: {mid: (style, content)}."""
    candidates = read(path, **options)
    names = (*candidates.contents, "")
    return {
        int(candidates.mid[row]): (candidates.styles[style], names[content])
        for row, (style, content) in draft(candidates, per_style).items()
    }


def comic(mid: int, score: float = 1.0, **more) -> dict:
    return {"mid": mid, "scores": {"media_comic": score, **more.pop("scores", {})}, **more}


def make_candidates(cells: list[list[tuple[list[int], list[int]]]], styles: int, contents: int) -> Candidates:
    """Candidates out of (styles, contents) for each picture; the earlier a picture, the surer."""
    pictures = [picture for group in cells for picture in group]
    style_bits = np.array([sum(1 << s for s in picture[0]) for picture in pictures], np.int64)
    content_bits = np.array([sum(1 << c for c in picture[1]) for picture in pictures], np.int64)
    queues = []
    for style in range(styles):
        rows = np.flatnonzero(style_bits >> style & 1).astype(np.int32)
        bits = content_bits[rows]
        queues.append([rows[bits >> content & 1 == 1] for content in range(contents)] + [rows[bits == 0]])
    return Candidates(
        BAM_STYLES[:styles], BAM_CONTENTS[:contents], np.arange(len(pictures)), np.zeros((len(pictures), styles)),
        style_bits, content_bits, queues,
    )  # fmt: skip


# Labels.


@pytest.mark.parametrize(
    ("crowd", "automatic", "score", "taken"),
    [
        (None, None, 2.0, True),
        (None, None, 0.5, True),
        (None, None, 0.4, False),
        (None, None, None, False),
        (None, "positive", -9.0, True),
        (None, "negative", 9.0, False),
        (None, "unsure", 9.0, False),
        ("positive", "negative", -9.0, True),
        ("negative", "positive", 9.0, False),
        ("unsure", "positive", 9.0, False),
        ("positive", None, None, True),
        ("no idea", None, 2.0, True),
    ],
)
@pytest.mark.parametrize("attribute", ["media_comic", "content_cat"])
def test_a_crowd_label_outranks_an_automatic_label_which_outranks_a_score(
    tmp_path, attribute, crowd, automatic, score, taken
):
    other = "content_cat" if attribute == "media_comic" else "media_comic"
    picture = {"mid": 5, "scores": {other: 3.0, attribute: score}, "automatic": {attribute: automatic}}
    picture["crowd"] = {attribute: crowd} if crowd else {}
    path = make_database(tmp_path / "bam.sqlite", [picture, comic(6)])
    chosen = choose(path, 10)
    if attribute == "media_comic":
        assert (5 in chosen) == taken
    else:
        assert chosen[5] == ("Comic", "cat" if taken else "")
    assert chosen[6] == ("Comic", "")


def test_crowd_positives_come_first_then_automatic_ones_then_scores_and_higher_scores_before_lower(tmp_path):
    pictures = [
        comic(1, 0.9), comic(2, 7.0), comic(3, -2.0, automatic={"media_comic": "positive"}),
        comic(4, 3.0, automatic={"media_comic": "positive"}), comic(5, -5.0, crowd={"media_comic": "positive"}),
    ]  # fmt: skip
    path = make_database(tmp_path / "bam.sqlite", pictures)
    assert [list(choose(path, count)) for count in (1, 2, 3, 4, 5)] == [
        [5], [5, 4], [5, 4, 3], [5, 4, 3, 2], [5, 4, 3, 2, 1],
    ]  # fmt: skip


def test_mature_pictures_and_pictures_without_an_address_are_left_out_and_mature_ones_taken_on_demand(tmp_path):
    pictures = [comic(1), comic(2, mature=1), comic(3, mature="true"), comic(4, mature=None), comic(5, mature="0"),
                comic(6, url=""), comic(7, url=None)]  # fmt: skip
    path = make_database(tmp_path / "bam.sqlite", pictures)
    assert set(choose(path, 10)) == {1, 4, 5}
    assert set(choose(path, 10, include_mature=True)) == {1, 2, 3, 4, 5}


def test_min_score_moves_the_line_for_styles_and_contents(tmp_path):
    path = make_database(tmp_path / "bam.sqlite", [comic(1, 2.0, scores={"content_dog": 1.0}), comic(2, 1.0)])
    assert choose(path, 10, min_score=1.5) == {1: ("Comic", "")}
    assert choose(path, 10, min_score=-3.0) == {1: ("Comic", "dog"), 2: ("Comic", "")}


def test_given_styles_and_contents_are_the_only_ones(tmp_path):
    pictures = [comic(1, scores={"content_dog": 1.0}), comic(2, scores={"content_cat": 1.0}), comic(3),
                {"mid": 4, "scores": {"emotion_happy": 2.0, "content_cat": 1.0}}]  # fmt: skip
    path = make_database(tmp_path / "bam.sqlite", pictures)
    assert set(choose(path, 10, styles=("Comic",))) == {1, 2, 3}
    assert choose(path, 10, contents=("cat",)) == {2: ("Comic", "cat"), 4: ("Happy", "cat")}


def test_the_order_of_columns_tables_and_rows_changes_nothing_and_neither_does_an_empty_automatic_table(tmp_path):
    rng = random.Random(1)
    attributes = ("media_comic", "emotion_happy", "media_pen_ink", "content_cat", "content_dog", "content_tree")
    pictures = [
        {"mid": mid, "scores": {name: rng.gauss(0, 1) for name in attributes}, "project": mid // 3}
        for mid in range(200)
    ]
    plain = choose(make_database(tmp_path / "a.sqlite", pictures), 30)
    assert choose(make_database(tmp_path / "b.sqlite", pictures, reverse=True), 30) == plain
    assert choose(make_database(tmp_path / "c.sqlite", pictures, automatic=False), 30) == plain
    assert choose(make_database(tmp_path / "d.sqlite", pictures[::-1]), 30) == plain
    assert len(plain) == 90


def test_the_seed_decides_only_between_pictures_that_are_equally_sure(tmp_path):
    path = make_database(tmp_path / "bam.sqlite", [comic(mid, 9.0 if mid < 10 else 1.0) for mid in range(100)])
    drafts = [set(choose(path, 20, seed=seed)) for seed in (0, 0, 1)]
    assert drafts[0] == drafts[1] != drafts[2]
    assert all(set(range(10)) <= chosen and len(chosen) == 20 for chosen in drafts)


def test_details_are_read_by_number(tmp_path):
    path = make_database(tmp_path / "bam.sqlite", [comic(1, project=9, url=" http://h/1 "), comic(2, license=None)])
    details = read_details(open_database(path), np.array([2, 1]))
    assert details == {1: ("http://h/1", "9", "CC BY"), 2: ("http://x/2", "", "")}


# What is refused.


def test_a_database_that_is_not_bam_is_refused_with_what_is_missing(tmp_path):
    import sqlite3

    path = tmp_path / "other.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(
        "CREATE TABLE modules (mid int, src text); CREATE TABLE scores (mid int, media_comic real);"
    )
    connection.close()
    with pytest.raises(UserError) as error:
        open_database(path)
    message = str(error.value)
    assert "modules has no column project_id, mature_content, license" in message
    assert "media_graphite" in message and "media_comic" not in message
    assert "no table crowd_labels" in message and "\n" not in message


def test_a_file_that_is_no_database_or_not_there_is_refused(tmp_path):
    (tmp_path / "text").write_text("not a database, but long enough to look at" * 50)
    for name in ("text", "absent", "."):
        with pytest.raises(UserError, match=r"--db .*(give|database)"):
            open_database(tmp_path / name)


# Balance.


@pytest.mark.parametrize(
    ("supplies", "wanted", "level"), [([], 5, 0), ([3], 5, 3), ([2, 10, 10], 12, 5), ([9, 9], 1, 0)]
)
def test_the_even_share_fills_all_cells_to_one_level(supplies, wanted, level):
    assert even_share(supplies, wanted) == level


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=9), st.integers(0, 20), st.integers(0, 120))
def test_contents_are_as_even_as_the_data_allow_and_unknown_ones_come_last(supplies, unknown, wanted):
    pictures = [([0], [content]) for content, supply in enumerate(supplies) for _ in range(supply)] + [
        ([0], [])
    ] * unknown
    chosen = draft(make_candidates([pictures], 1, len(supplies)), wanted)
    taken = Counter(content for _, content in chosen.values())
    assert len(chosen) == min(wanted, sum(supplies) + unknown)
    assert taken[-1] == max(0, min(unknown, wanted - sum(supplies)))
    most = max((taken[content] for content in range(len(supplies))), default=0)
    for content, supply in enumerate(supplies):
        assert taken[content] == supply or taken[content] >= most - 1


def test_a_cell_that_runs_dry_is_filled_from_other_contents_then_from_unknown_ones(tmp_path):
    pictures = [comic(mid, scores={"content_cat": 1.0}) for mid in range(2)]
    pictures += [comic(mid, scores={"content_dog": 1.0}) for mid in range(10, 17)] + [
        comic(mid, 9.0) for mid in range(20, 25)
    ]
    path = make_database(tmp_path / "bam.sqlite", pictures)
    contents = [Counter(content for _, content in choose(path, count).values()) for count in (4, 8, 11, 99)]
    assert contents == [
        {"cat": 2, "dog": 2},
        {"cat": 2, "dog": 6},
        {"cat": 2, "dog": 7, "": 2},
        {"cat": 2, "dog": 7, "": 5},
    ]


def test_a_picture_that_fits_two_styles_serves_the_scarcer_one():
    both, first = ([0, 1], [0]), ([0], [0])
    chosen = draft(make_candidates([[both] * 3, [first] * 20], 2, 1), 3)
    assert Counter(style for style, _ in chosen.values()) == {0: 3, 1: 3}
    assert {row for row, (style, _) in chosen.items() if style == 1} == {0, 1, 2}


def test_two_equally_scarce_styles_leave_each_other_what_they_need():
    pictures = [([0, 1], [0]), ([0, 1], [0]), ([0], [0]), ([1], [0])]
    assert len(draft(make_candidates([pictures], 2, 1), 2)) == 4


def test_a_picture_that_shows_two_contents_serves_the_scarcer_one():
    pictures = [([0], [0, 1])] * 2 + [([0], [1])] * 3
    chosen = draft(make_candidates([pictures], 1, 2), 4)
    assert Counter(content for _, content in chosen.values()) == {0: 2, 1: 2}


picture_lists = st.lists(
    st.tuples(
        st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True), st.lists(st.integers(0, 2), unique=True)
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(picture_lists, st.integers(1, 12), st.randoms(use_true_random=False))
def test_no_style_falls_short_while_a_picture_is_left_for_it_and_no_spare_is_surer_in_its_cell(
    pictures, per_style, rng
):
    candidates = make_candidates([pictures], 3, 3)
    failed = {row for row in range(len(pictures)) if rng.random() < 0.3}
    chosen = draft(candidates, per_style, failed)
    assert not failed & set(chosen)
    assert all(style in pictures[row][0] for row, (style, _) in chosen.items())
    assert all(
        content in pictures[row][1] or (content == -1 and not pictures[row][1]) for row, (_, content) in chosen.items()
    )
    sizes = Counter(style for style, _ in chosen.values())
    assert max(sizes.values(), default=0) <= per_style
    last = {cell: max(row for row, where in chosen.items() if where == cell) for cell in chosen.values()}
    for row in set(range(len(pictures))) - failed - set(chosen):
        for style in pictures[row][0]:
            assert sizes[style] == per_style
            for content in pictures[row][1] or [-1]:
                assert row > last.get((style, content), -1)


@settings(max_examples=300, deadline=None)
@given(picture_lists, st.integers(1, 12), st.randoms(use_true_random=False))
def test_the_result_depends_on_which_pictures_are_dead_and_not_on_when_that_is_found_out(pictures, per_style, rng):
    candidates = make_candidates([pictures], 3, 3)
    dead = {row for row in range(len(pictures)) if rng.random() < 0.4}
    known: set[int] = set()
    while found := dead & set(draft(candidates, per_style, known)):
        known |= set(rng.sample(sorted(found), rng.randint(1, len(found))))
    missed: list[dict[int, int]] = [{}, {}]
    assert draft(candidates, per_style, known, missed[0]) == draft(candidates, per_style, dead, missed[1])
    assert missed[0] == missed[1]


def test_spares_are_what_is_neither_chosen_nor_failed():
    candidates = make_candidates([[([0], [0])] * 5, [([0, 1], [0])] * 2, [([1], [])] * 3], 2, 1)
    chosen = draft(candidates, 2)
    assert count_spares(candidates, chosen).sum() == 5 * 1 + 2 * 2 + 3 * 1 - 2 - 2 * 2
    assert count_spares(candidates, chosen, [0]).sum() == count_spares(candidates, chosen).sum() - (0 not in chosen)


# Size.

MEASURE = """
import json, resource, sys, time
from pathlib import Path
from bam import draft, open_database, read_candidates
start = time.process_time()  # of this process alone, whatever else the machine does
candidates = read_candidates(open_database(Path(sys.argv[1])))
chosen = draft(candidates, int(sys.argv[2]))
kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([candidates.digest(), len(chosen), time.process_time() - start, kilobytes]))
"""


def measure(path: Path, per_style: int) -> list:
    command = [sys.executable, "-c", MEASURE, str(path), str(per_style)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parent.parent).stdout)


def test_another_process_chooses_the_same_pictures(tmp_path):
    make_big_database(tmp_path / "bam.sqlite", 2_000)
    candidates = read(tmp_path / "bam.sqlite")
    assert measure(tmp_path / "bam.sqlite", 100)[:2] == [candidates.digest(), len(draft(candidates, 100))]


@pytest.mark.slow
def test_2_3_million_rows_take_under_two_minutes_and_4_gigabytes(tmp_path):
    make_big_database(tmp_path / "bam.sqlite", 2_300_000)
    _, chosen, seconds, kilobytes = measure(tmp_path / "bam.sqlite", 11_000)
    assert chosen > 100_000 and seconds < 120 and kilobytes < 4_000_000
