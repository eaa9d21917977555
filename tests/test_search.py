"""search.py: the nearest in style, of a collection that is embedded once."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run_main
from PIL import Image
from test_evaluate import copy_collection, copy_run

import embedding
import embedding_files
import search
from retrieval import nearest
from utils import UserError


@pytest.fixture(scope="module")
def run(stage2_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder in which embeddings can be kept."""
    return copy_run(stage2_run, tmp_path_factory.mktemp("search") / "run")


@pytest.fixture
def data(collection: Path, tmp_path: Path) -> Path:
    """A collection that may be changed: three styles x nine contents x two pictures."""
    for style in ("Comic", "Oil Paint", "Scary"):
        copy_collection(collection / style, tmp_path / "data" / style)
    return tmp_path / "data"


def find(capsys: pytest.CaptureFixture, *command: object) -> list[list[str]]:
    """Search; return the table's rows: place, distance, style, content, path."""
    capsys.readouterr()
    run_main(search, *command)
    lines = capsys.readouterr().out.splitlines()
    first = next(number for number, line in enumerate(lines) if "distance" in line and "picture" in line)
    return [line.split(maxsplit=2) for line in lines[first + 1 :] if line.split()[0].isdecimal()]


def embedded_now(capsys: pytest.CaptureFixture, run: Path, data: Path) -> int:
    """How many pictures a search embeds."""
    capsys.readouterr()
    run_main(search, run, data / "Comic" / "bird" / "bird_0000.jpg", "--data", data)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("embeddings: ") and " of " in line]
    return sum(int(line.split()[1]) for line in said if line.split()[1].isdecimal())


@pytest.mark.parametrize(
    ("content", "problem"), [(b"words", "cannot be decoded"), (b"", "empty file"), (None, "cannot be read")]
)
def test_a_query_that_is_no_picture_is_named(run: Path, data: Path, content: bytes | None, problem: str) -> None:
    query = data.parent / "query.jpg"
    if content is not None:
        query.write_bytes(content)
    with pytest.raises(UserError, match=f"query.jpg .*{problem}"):
        run_main(search, run, query, "--data", data)


def test_a_content_that_is_not_there_is_refused_with_those_that_are(run: Path, data: Path) -> None:
    with pytest.raises(UserError, match="--content ship: .*bicycle, bird, building"):
        run_main(search, run, data / "Comic" / "bird" / "bird_0000.jpg", "--data", data, "--content", "ship")


def test_styles_that_the_net_was_not_trained_on_are_found_too(
    run: Path, data: Path, capsys: pytest.CaptureFixture
) -> None:
    (data / "Scary").rename(data / "Cubism")
    found = find(capsys, run, data / "Cubism/bird/bird_0000.jpg", "--data", data, "--content", "bird", "--top", 5)
    assert len(found) == 5
    assert any("Cubism/bird/bird_0001.jpg" in row[2] for row in found)


def test_a_sheet_that_cannot_be_drawn_is_refused_before_the_work(run: Path, data: Path) -> None:
    for out in ("sheet.gif", "no folder/sheet.png"):
        with pytest.raises(UserError, match="--out"):
            run_main(search, run, data / "Comic" / "bird" / "bird_0000.jpg", "--data", data, "--out", data.parent / out)


def test_a_copy_finds_its_original_first_and_a_query_never_itself(
    run: Path, data: Path, capsys: pytest.CaptureFixture
) -> None:
    original = data / "Scary" / "tree" / "tree_0001.jpg"
    copy = shutil.copy(original, data.parent / "copy.jpg")
    rows = find(capsys, run, copy, "--data", data, "--top", 3)
    assert len(rows) == 3
    assert rows[0][2].endswith("Scary/tree/tree_0001.jpg")
    assert float(rows[0][1]) < 1e-3
    assert all(
        "tree_0001.jpg" not in row[2] or "Scary" not in row[2] for row in find(capsys, run, original, "--data", data)
    )


def test_distances_are_those_of_the_embeddings_and_grow(run: Path, data: Path, capsys: pytest.CaptureFixture) -> None:
    query = data / "Comic" / "bird" / "bird_0000.jpg"
    rows = find(capsys, run, query, "--data", data, "--top", 999)
    assert len(rows) == 53
    far = [float(row[1]) for row in rows]
    assert far == sorted(far)
    net = embedding.load_run(run, torch.device("cpu")).net
    both = net([query, data / rows[7][2].split(maxsplit=1)[1].rsplit("  ", 1)[-1]])
    assert (both[0] - both[1]).norm().item() == pytest.approx(far[7], abs=1e-3)


def test_several_queries_ask_with_their_mean(run: Path, data: Path) -> None:
    loaded = embedding.load_run(run, torch.device("cpu"))
    queries = [str(data / "Comic" / name) for name in ("bird/bird_0000.jpg", "cat/cat_0000.jpg", "tree/tree_0000.jpg")]
    question = search.ask(loaded, queries)
    torch.testing.assert_close(search.ask(loaded, queries[::-1]), question)
    mean = torch.stack([loaded.net(query)[0] for query in queries]).mean(dim=0)
    torch.testing.assert_close(question[0], mean / mean.norm(), atol=1e-5, rtol=0)


def test_content_keeps_only_that_subject(run: Path, data: Path, capsys: pytest.CaptureFixture) -> None:
    query = data / "Comic" / "bird" / "bird_0000.jpg"
    rows = find(capsys, run, query, "--data", data, "--content", "bird", "--top", 99)
    assert len(rows) == 5
    assert all("/bird/" in row[2] for row in rows)


def test_the_sheet_shows_the_answers(run: Path, data: Path) -> None:
    queries = sorted((data / "Comic" / "bird").iterdir())
    out = data.parent / "sheet.png"
    run_main(search, run, *queries, "--data", data, "--out", out, "--top", 7)
    picture = np.asarray(Image.open(out).convert("RGB"))
    assert picture.shape[1] > 700
    assert picture.std() > 10


def test_pictures_are_embedded_once_and_again_only_when_they_change(
    stage1_run: Path, run: Path, data: Path, capsys: pytest.CaptureFixture
) -> None:
    assert embedded_now(capsys, run, data) == 54
    assert embedded_now(capsys, run, data) == 0
    changed = data / "Scary" / "dog" / "dog_0000.jpg"
    shutil.copy(data / "Comic" / "dog" / "dog_0001.jpg", changed)
    shutil.copy(changed, data / "Scary" / "dog" / "new.jpg")
    assert embedded_now(capsys, run, data) == 2
    os.utime(changed, (1, 1))
    assert embedded_now(capsys, run, data) == 1
    changed.unlink()
    assert embedded_now(capsys, run, data) == 0
    (run / "best.pt").unlink()
    (run / "best.pt").symlink_to(stage1_run / "best.pt")
    assert embedded_now(capsys, run, data) == 54
    kept = next(iter(sorted(run.glob("embeddings-*.npz"), key=lambda path: path.stat().st_mtime, reverse=True)))
    kept.write_bytes(kept.read_bytes()[:1000])
    assert embedded_now(capsys, run, data) == 54


def test_what_was_kept_gives_the_same_answers(run: Path, data: Path, capsys: pytest.CaptureFixture) -> None:
    query = data / "Comic" / "bird" / "bird_0000.jpg"
    assert find(capsys, run, query, "--data", data) == find(capsys, run, query, "--data", data)


def test_a_picture_that_cannot_be_decoded_is_counted_and_not_found(
    run: Path, data: Path, capsys: pytest.CaptureFixture
) -> None:
    (data / "Scary" / "dog" / "dog_0000.jpg").write_bytes(b"no picture")
    run_main(search, run, data / "Comic" / "bird" / "bird_0000.jpg", "--data", data, "--top", 99)
    printed = capsys.readouterr().out
    assert "1 pictures cannot be decoded and are left out, first" in printed
    assert printed.count("dog_0000.jpg") == 3  # in the note, Comic's and Oil Paint's


def test_121_000_pictures_answer_in_under_a_second() -> None:
    embeddings = torch.randn(121_000, 256, generator=torch.Generator().manual_seed(0))
    embeddings /= embeddings.norm(dim=1, keepdim=True)
    began = time.thread_time()
    rows, far = nearest(embeddings, embeddings[77:78], 10)
    assert time.thread_time() - began < 1
    assert rows[0, 0] == 77
    assert far[0, 0] == 0


def test_what_a_kept_file_holds_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "embeddings.npz"
    np.savez(path, made_by=np.array("x"), embeddings=np.zeros((3, 4), np.float32), paths=np.array(["a"]),
             size=np.zeros(3, np.int64), changed=np.zeros(3, np.int64))  # fmt: skip
    assert len(embedding_files.read_kept(path, "x", 4)["paths"]) == 0
    assert "damaged" in capsys.readouterr().out
