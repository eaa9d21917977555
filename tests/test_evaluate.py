"""python -m retrieval.evaluate: the same pictures and triplets for all runs, and files that belong together."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import QUIET, ROOT, TINY
from running import run_main as train_run

from retrieval import evaluate, pictures
from retrieval.metrics import DEFINITIONS
from utils import UserError

FILES = {"curves.png", "embeddings.npz", "metrics.json", "retrieval.png", "tsne.png"}


def run_main(*options: object) -> None:
    evaluate.main(evaluate.get_parser().parse_args([*map(str, options), "--device", "cpu"]))


def read_metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def evaluated(stage1_run: Path, stage2_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both stages, evaluated into one folder."""
    out = tmp_path_factory.mktemp("evaluated")
    run_main(stage1_run, stage2_run, "--out", out)
    return out


def test_everything_is_written(evaluated: Path) -> None:
    assert {path.name for path in (evaluated / "stage1").iterdir()} == FILES | {"confusion.png"}
    assert {path.name for path in (evaluated / "stage2").iterdir()} == FILES
    for path in evaluated.rglob("*.png"):
        assert np.asarray(Image.open(path).convert("L")).std() > 10  # there is something on it


def test_metrics_have_every_number(evaluated: Path) -> None:
    one, two = read_metrics(evaluated / "stage1"), read_metrics(evaluated / "stage2")
    assert two["accuracy"] is None and 0 <= one["accuracy"] <= 1
    for metrics in (one, two):
        assert all(0 <= metrics[name] <= 1 for name in DEFINITIONS if not name.startswith("accuracy"))
        assert metrics["n_queries"] == metrics["n_pictures"] == 9
        assert metrics["precision_at_1"] == metrics["recall_at_1"]
        assert sum(row["n_queries"] for row in metrics["per_style"].values()) == 9


def test_embeddings_are_those_of_the_split(evaluated: Path, stage2_run: Path) -> None:
    with np.load(evaluated / "stage2" / "embeddings.npz") as file:
        assert file["embeddings"].dtype == np.float32 and file["embeddings"].shape == (9, 16)
        np.testing.assert_allclose(np.linalg.norm(file["embeddings"], axis=1), 1, rtol=1e-5)
        parts = [path.split("/")[:2] for path in file["paths"].tolist()]
        assert parts == [list(pair) for pair in zip(file["styles"].tolist(), file["contents"].tolist(), strict=True)]
        split = dict(line.split(",") for line in (stage2_run / "split.csv").read_text().split()[1:])
        assert {split[path] for path in file["paths"].tolist()} == {"test"}


def test_other_pictures_are_taken_whole_and_by_their_own_splits(
    collection: Path, stage1_run: Path, tmp_path: Path
) -> None:
    run_main(stage1_run, "--data", collection, "--out", tmp_path)
    assert read_metrics(tmp_path / "stage1")["n_pictures"] == 90
    data = tmp_path / "data"
    for style in ("noise", "stripes"):
        shutil.copytree(collection / style, data / "test" / style)
        shutil.copytree(collection / style / "red", data / "train" / style / "red")
    (data / "test" / "noise").rename(data / "test" / "cubism")
    run_main(stage1_run, "--data", data, "--split", "test", "--out", tmp_path)
    metrics = read_metrics(tmp_path / "stage1")
    assert metrics["n_pictures"] == 60
    assert metrics["per_style"]["cubism"]["accuracy"] is None  # the net does not know it
    assert 0 <= metrics["per_style"]["stripes"]["accuracy"] <= 1


def test_pictures_that_have_moved_keep_the_run_s_splits(collection: Path, stage1_run: Path, tmp_path: Path) -> None:
    shutil.copytree(collection, tmp_path / "moved")
    run_main(stage1_run, "--data", tmp_path / "moved", "--split", "val", "--out", tmp_path)
    assert read_metrics(tmp_path / "stage1")["n_pictures"] == 9


def test_runs_on_different_pictures_are_not_compared(collection: Path, stage1_run: Path, tmp_path: Path) -> None:
    train_run(
        "classification_net.py",
        "--data",
        collection,
        "--run",
        tmp_path / "run",
        "--split-seed",
        1,
        *TINY,
        "--epochs",
        1,
    )
    with pytest.raises(UserError, match="other pictures in test; give --data"):
        run_main(stage1_run, tmp_path / "run")
    assert not (tmp_path / "run" / "evaluation").exists()


def test_a_list_of_triplets_is_for_all_runs(
    collection: Path, stage1_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    split = [line.split(",")[1] for line in (stage1_run / "split.csv").read_text().split()[1:]]
    lines = []
    for name in ("train", "val", "test"):
        rows = [row for row, part in enumerate(split) if part == name]
        lines += [f"{rows[0]} {rows[-1]} {rows[1]}", f"{rows[1]} {rows[-2]} {rows[0]}"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    run = tmp_path / "run"
    train_run(
        "train.py", "--stage1", stage1_run, "--run", run, "--triplets", tmp_path / "list.txt", "--epochs", 1, *QUIET
    )
    run_main(stage1_run, run, "--out", tmp_path)
    said = {read_metrics(tmp_path / name)["triplets"] for name in ("stage1", "run")}
    assert said == {f"2 of {tmp_path / 'list.txt'}"}
    assert f"triplets: 2 of {tmp_path / 'list.txt'}" in capsys.readouterr().out


def test_pictures_that_cannot_be_read_are_named_and_left_out(
    collection: Path, stage1_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(collection, tmp_path / "data")
    (tmp_path / "data" / "noise" / "red" / "0.png").write_bytes(b"words")
    run_main(stage1_run, "--data", tmp_path / "data", "--out", tmp_path)
    assert "noise/red/0.png" in capsys.readouterr().out
    assert read_metrics(tmp_path / "stage1")["n_pictures"] == 89


def test_a_second_evaluation_that_stops_leaves_no_old_numbers(
    stage1_run: Path, evaluated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(path: Path, *_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "write_whole", stop)
    out = shutil.copytree(evaluated / "stage1", evaluated / "again" / "stage1")
    with pytest.raises(KeyboardInterrupt):
        run_main(stage1_run, "--out", evaluated / "again")
    assert not (out / "metrics.json").exists() and (out / "tsne.png").exists()


def test_an_embedding_of_one_dimension_is_evaluated(collection: Path, tmp_path: Path) -> None:
    options = (*TINY, "--embedding-dim", 1, "--epochs", 1)
    train_run("classification_net.py", "--data", collection, "--run", tmp_path / "run", *options)
    run_main(tmp_path / "run")
    assert (tmp_path / "run" / "evaluation" / "tsne.png").exists()


def test_a_notebook_s_backend_ends_nothing_and_help_defines_every_number() -> None:
    words = [sys.executable, "-m", "retrieval.evaluate", "--help"]
    settings = {**os.environ, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    done = subprocess.run(words, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert all(f"\n  {name}\n" in done.stdout for name in DEFINITIONS)


def test_of_many_classes_every_k_th_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(pictures, "to_png", lambda figure: drawn.append(figure) or b"")
    for classes, named in ((60, 60), (150, 50)):
        pictures.draw_confusion(np.eye(classes, dtype=np.int64), [f"class_{n}" for n in range(classes)], "many")
        assert len(drawn[-1].axes[0].get_yticks()) == named
