"""python -m retrieval.evaluate: the same pictures and triplets for all runs, and files that belong together."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import ROOT, read_rows, run_main, stage1, stage2

from dataset import read_collection
from retrieval import evaluate
from retrieval.metrics import DEFINITIONS
from retrieval.pictures import plain
from utils import UserError

FILES = {"curves.png", "embeddings.npz", "metrics.json", "retrieval.png", "tsne.png"}


def measure(out: Path, *options: object) -> list[dict]:
    """Evaluate into a folder; return the metrics of all runs there."""
    run_main(evaluate, *options, "--out", out, "--device", "cpu")
    return [json.loads(file.read_text()) for file in sorted(out.glob("*/metrics.json"))]


@pytest.fixture(scope="module")
def evaluated(stage1_run, stage2_run, tmp_path_factory) -> Path:
    """Both stages, evaluated into one folder."""
    out = tmp_path_factory.mktemp("evaluated")
    measure(out, stage1_run, stage2_run)
    return out


def test_everything_is_written_and_has_every_number(evaluated):
    assert {path.name for path in (evaluated / "stage1").iterdir()} == FILES | {"confusion.png"}
    assert {path.name for path in (evaluated / "stage2").iterdir()} == FILES
    for path in evaluated.rglob("*.png"):
        assert np.asarray(Image.open(path).convert("L")).std() > 10  # there is something on it
    one, two = (json.loads((evaluated / stage / "metrics.json").read_text()) for stage in ("stage1", "stage2"))
    assert two["accuracy"] is None and 0 <= one["accuracy"] <= 1
    for metrics in (one, two):
        assert all(0 <= metrics[name] <= 1 for name in DEFINITIONS if not name.startswith("accuracy"))
        assert metrics["n_queries"] == metrics["n_pictures"] == 9
        assert metrics["precision_at_1"] == metrics["recall_at_1"]
        assert sum(row["n_queries"] for row in metrics["per_style"].values()) == 9


def test_embeddings_are_those_of_the_split(evaluated, stage2_run):
    with np.load(evaluated / "stage2" / "embeddings.npz") as file:
        assert file["embeddings"].dtype == np.float32 and file["embeddings"].shape == (9, 16)
        np.testing.assert_allclose(np.linalg.norm(file["embeddings"], axis=1), 1, rtol=1e-5)
        parts = [path.split("/")[:2] for path in file["paths"].tolist()]
        assert parts == [list(pair) for pair in zip(file["styles"].tolist(), file["contents"].tolist(), strict=True)]
        split = {row["path"]: row["split"] for row in read_rows(stage2_run / "split.csv")}
        assert {split[path] for path in file["paths"].tolist()} == {"test"}


def test_other_pictures_are_taken_whole_and_by_their_own_splits(collection, stage1_run, tmp_path):
    assert measure(tmp_path, stage1_run, "--data", collection)[0]["n_pictures"] == 90
    data = tmp_path / "data"
    for style in ("noise", "stripes"):
        shutil.copytree(collection / style, data / "test" / style)
        shutil.copytree(collection / style / "red", data / "train" / style / "red")
    (data / "test" / "noise").rename(data / "test" / "cubism")
    (metrics,) = measure(tmp_path, stage1_run, "--data", data, "--split", "test")
    assert metrics["n_pictures"] == 60
    assert metrics["per_style"]["cubism"]["accuracy"] is None  # the net does not know it
    assert 0 <= metrics["per_style"]["stripes"]["accuracy"] <= 1


def test_pictures_that_have_moved_keep_the_run_s_splits(data, stage1_run, tmp_path):
    assert measure(tmp_path, stage1_run, "--data", data, "--split", "val")[0]["n_pictures"] == 9


def test_runs_on_different_pictures_are_not_compared_and_one_dimension_is_evaluated(collection, stage1_run, tmp_path):
    other_run = tmp_path / "run"
    stage1(collection, other_run, "--embedding-dim", 1, "--split-seed", 1, "--epochs", 1)
    with pytest.raises(UserError, match="other pictures in test; give --data"):
        measure(tmp_path / "out", stage1_run, other_run)
    assert not (tmp_path / "out").exists()
    assert measure(tmp_path / "out", other_run) and (tmp_path / "out/run/tsne.png").exists()


def test_runs_of_one_name_get_folders_of_their_own(stage1_run, tmp_path):
    runs = [shutil.copytree(stage1_run, tmp_path / place / "runs/stage1") for place in "ab"]
    assert len(measure(tmp_path / "out", *runs)) == 2


def test_names_on_pictures_may_be_of_any_bytes():
    assert plain(os.fsdecode(b"caf\xe9 $1")) == r"caf? \$1"


def test_a_list_of_triplets_is_trained_on_and_is_for_all_runs(collection, stage1_run, tmp_path, capsys):
    split, file = read_collection(collection), tmp_path / "list.txt"
    rows = [np.flatnonzero(split.split == name).tolist() for name in ("train", "val", "test")]
    file.write_text("".join(f"{anchor} {part[-1]} {part[1]}\n" for part in rows for anchor in part[2:-1]))
    (row,) = stage2(stage1_run, tmp_path / "run", "--triplets", file, "--epochs", 1)
    assert 0 < float(row["val_triplet_accuracy"]) <= 1
    measured = measure(tmp_path / "out", stage1_run, tmp_path / "run")
    assert [metrics["triplets"] for metrics in measured] == [f"6 of {file}"] * 2
    assert f"triplets: 6 of {file}" in capsys.readouterr().out


def test_pictures_that_cannot_be_read_are_named_and_left_out(data, stage1_run, tmp_path, capsys):
    (data / "noise" / "red" / "0.png").write_bytes(b"words")
    assert measure(tmp_path, stage1_run, "--data", data)[0]["n_pictures"] == 89
    assert "noise/red/0.png" in capsys.readouterr().out


def test_a_second_evaluation_that_stops_leaves_no_old_numbers(stage1_run, evaluated, tmp_path, monkeypatch):
    def stop(path: Path, *_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "write_whole", stop)
    out = shutil.copytree(evaluated / "stage1", tmp_path / "stage1")
    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path, stage1_run)
    assert not (out / "metrics.json").exists() and (out / "tsne.png").exists()


def test_a_notebook_s_backend_ends_nothing_and_help_defines_every_number():
    words = [sys.executable, "-m", "retrieval.evaluate", "--help"]
    settings = {**os.environ, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    done = subprocess.run(words, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert all(f"\n  {name}\n" in done.stdout for name in DEFINITIONS)
