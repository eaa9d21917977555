"""The defaults learn: styles of held-out pictures are told, and stage 2 makes distance mean style across contents."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import draw_collection
from running import QUIET, TINY, read_rows, run_main

from dataset import load_pictures, predict, read_collection
from networks import load_net
from triplet_network import average_precisions

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_collection(tmp_path_factory.mktemp("learning") / "pictures", 30)


def precision_across_contents(run: Path, data: Path) -> float:
    """Mean average precision across contents on pictures that neither stage was trained on."""
    facts, embedding, _ = load_net(run)
    found, squares = load_pictures(read_collection(data), 32, CPU, None)
    rows = found.rows("test")
    embeddings = torch.nn.functional.normalize(predict(embedding, squares, rows, CPU, 32, facts["colours"]))
    label, other = (torch.from_numpy(numbers[rows]) for numbers in (found.style, found.content))
    return average_precisions(embeddings, label, other).nanmean().item()


@pytest.mark.parametrize("seed", [0, 1])
def test_both_stages_learn(pictures, tmp_path, seed):
    common = ("--data", pictures, "--seed", seed, "--batch-size", 16)
    run_main("classification_net.py", *TINY, *common, "--run", tmp_path / "1", "--epochs", 3, "--lr", 0.01)
    stage1 = read_rows(tmp_path / "1/metrics.csv")
    assert float(stage1[-1]["val_accuracy"]) > 0.6, "chance is 0.33"
    assert float(stage1[-1]["train_loss"]) < float(stage1[0]["train_loss"])
    options = ("--stage1", tmp_path / "1", "--run", tmp_path / "2", "--epochs", 10, "--lr", 0.003)
    run_main("train.py", *QUIET, *common, *options)
    stage2 = read_rows(tmp_path / "2/metrics.csv")
    assert float(stage2[-1]["val_triplet_accuracy"]) > 0.85, "chance is 0.5"
    assert float(stage2[-1]["train_loss"]) < 0.15, "a loss at the margin, 0.2, is a collapse"
    before, after = (precision_across_contents(tmp_path / stage, pictures) for stage in "12")
    assert after > before + 0.1, "stage 2 should bring a style's pictures of other contents nearer"
