"""The comparison of recipes: what it runs, what it does not run again, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import run_main

import recipes
from utils import UserError

ARMS = ("defaults", "no momentum")


def compare(collection: Path, out: Path, *options: object) -> None:
    """One epoch of each stage, small pictures, one seed."""
    own = ("--image-size", 64, "--seeds", 0, "--epochs", 1, 1, "--options", "--no-visdom --amp off --batch-size 32")
    run_main(recipes, "--data", collection, "--out", out, *own, *options)


@pytest.fixture(scope="module")
def compared(collection, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("recipes")
    compare(collection, out, "--arms", *ARMS)
    return out


def test_the_tables_have_the_runs_own_numbers(compared):
    text = (compared / "tables.md").read_text()
    for stage, arm in (("1", "defaults"), ("2", "defaults"), ("2", "no momentum")):
        numbers = json.loads(
            (compared / arm.replace(" ", "-") / "0" / f"stage{stage}" / "evaluation-test" / "metrics.json").read_text()
        )
        assert numbers["split"] == "test" and numbers["stage"] == int(stage)
        cells = [numbers[column] for column in recipes.COLUMNS]
        row = " | ".join("-" if cell is None else f"{cell:.3f} ± 0.000" for cell in cells)
        assert f"| {arm} | {row} |" in text.partition(f"Stage {stage}, test split, 64 px, 1+1 epochs")[2]


def test_an_arm_that_differs_in_stage_2_alone_starts_from_the_defaults_stage_1(compared):
    assert not (compared / "no-momentum" / "0" / "stage1").exists()
    config = json.loads((compared / "no-momentum" / "0" / "stage2" / "config.json").read_text())
    assert config["settings"]["momentum"] == 0
    assert Path(config["settings"]["stage1"]) == compared / "defaults" / "0" / "stage1"


def test_finished_runs_keep_their_best_weights_alone_and_are_not_run_again(compared, collection):
    best = sorted(compared.glob("*/0/stage?/best.pt"))
    assert len(best) == 3 and not list(compared.glob("*/0/stage?/last.pt"))
    before = [path.stat().st_mtime_ns for path in best]
    compare(collection, compared, "--arms", *ARMS, "--stages", 2)
    assert [path.stat().st_mtime_ns for path in best] == before
    assert (compared / "tables.md").read_text().count("Stage 2") == 2
    assert (compared / "defaults" / "0" / "stage2.log").read_text().count("epoch 1/1") == 1


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--arms", "defaults", "--epochs", 1, 2), "stage2: has epochs 1, not 2; choose another --out"),
        (("--arms", "defaults", "--image-size", 96), "stage1: has image_size 64, not 96; choose another --out"),
        (("--arms", "wisdom"), "--arms wisdom: there is no such arm"),
    ],
)
def test_finished_runs_of_other_settings_are_refused(compared, collection, options, complaint):
    with pytest.raises(UserError, match=complaint):
        compare(collection, compared, *options)


def test_finished_runs_of_other_data_are_refused(compared, tmp_path):
    with pytest.raises(UserError, match="stage1: has data .*, not .*; choose another --out"):
        compare(tmp_path, compared, "--arms", "defaults")


def test_a_stage_that_fails_ends_the_comparison(tmp_path):
    with pytest.raises(UserError, match="classification_net.py .*: ended with status 2"):
        compare(tmp_path / "nothing", tmp_path / "out", "--arms", "defaults")
    assert not (tmp_path / "out" / "tables.md").exists()
