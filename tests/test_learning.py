"""The defaults learn: styles of held-out pictures are told, and stage 2 makes distance mean style across contents."""

import json
from pathlib import Path

import pytest
from conftest import draw_collection
from running import run_main, stage1, stage2

from retrieval import evaluate


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return draw_collection(tmp_path_factory.mktemp("learning") / "pictures", 30)


@pytest.mark.parametrize("seed", [0, 1])
def test_both_stages_learn(pictures, tmp_path, seed):
    runs, common = [tmp_path / "1", tmp_path / "2"], ("--seed", seed, "--batch-size", 16)
    rows = stage1(pictures, runs[0], *common, "--lr", 0.01)
    assert float(rows[-1]["val_accuracy"]) > 0.6, "chance is 0.33"
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    rows = stage2(*runs, *common, "--epochs", 10, "--lr", 0.003)
    assert float(rows[-1]["val_triplet_accuracy"]) > 0.85, "chance is 0.5"
    assert float(rows[-1]["train_loss"]) < 0.15, "a loss at the margin, 0.2, is a collapse"
    run_main(evaluate, *runs, "--device", "cpu")
    metrics = [json.loads((run / "evaluation/metrics.json").read_text()) for run in runs]
    before, after = (one["map_cross_content"] for one in metrics)
    assert after > before + 0.1, "stage 2 should bring a style's pictures of other contents nearer"
