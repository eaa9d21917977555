"""python -m retrieval.search: the nearest in style, of a collection that is embedded once."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from running import run_main, stage1

import dataset
from dataset import predict, read_picture
from retrieval import search
from retrieval.embedding import load
from utils import UserError


@pytest.fixture
def run(stage2_run, tmp_path) -> Path:
    """A run folder in which nothing is kept yet."""
    return shutil.copytree(stage2_run, tmp_path / "run")


def find(capsys: pytest.CaptureFixture, *command: object) -> list[list[str]]:
    """Search; return the table's rows: place, distances, style, content, path."""
    capsys.readouterr()
    run_main(search, *command, "--device", "cpu")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    return [words for words in lines if words[:1] and words[0].rstrip(".").isdecimal()]


def test_a_query_finds_its_copy_first_and_never_itself(run, data, capsys):
    query = data / "noise" / "red" / "3.png"
    shutil.copy(query, data / "noise" / "red" / "copy.png")
    rows = find(capsys, run, query, "--data", data, "--top", 99)
    assert rows[0][1:] == ["0.000", "noise", "red", "noise/red/copy.png"]
    assert len(rows) == 90 and "noise/red/3.png" not in [row[-1] for row in rows]
    far = [float(row[1]) for row in rows]
    assert far == sorted(far)
    one, other = load(run)([query, data / rows[50][-1]])
    assert (one - other).norm().item() == pytest.approx(far[50], abs=1e-3)


def test_without_data_the_run_s_own_folder_is_searched_by_what_the_run_has_decoded(data, tmp_path, capsys, monkeypatch):
    stage1(data, tmp_path / "run", "--cache", tmp_path / "cache", "--epochs", 1)
    seen, query = [], data / "noise" / "red" / "0.png"
    monkeypatch.setattr(dataset, "read_picture", lambda path, side: seen.append(path) or read_picture(path, side))
    assert len(find(capsys, tmp_path / "run", query, "--top", 99)) == 89
    assert seen == [query] and not (data / ".pictures").exists()


def test_several_pictures_ask_with_what_they_share(run, data):
    collection, asked = search.read_pictures(data), [data / "noise" / "red" / f"{n}.png" for n in range(3)]
    found = search.measure_distances(run, asked, collection, torch.device("cpu"))
    net = load(run)
    mean = torch.nn.functional.normalize(net(asked).mean(dim=0), dim=0)
    torch.testing.assert_close(found[7], (net(data / collection.paths[7])[0] - mean).norm(), atol=1e-4, rtol=0)


def test_content_keeps_that_subject_alone(run, data, capsys):
    query = data / "noise" / "red" / "0.png"
    rows = find(capsys, run, query, "--data", data, "--content", "blue", "--top", 99)
    assert len(rows) == 30 and {row[3] for row in rows} == {"blue"}
    with pytest.raises(UserError, match="--content ship: is none of .*: blue, green, red"):
        find(capsys, run, query, "--data", data, "--content", "ship")


def test_a_second_run_says_what_is_depicted(run, collection, tmp_path, capsys):
    content, noise, blue = tmp_path / "content", collection / "noise/red/0.png", collection / "stripes/blue/0.png"
    stage1(collection, content, "--label", "content", "--epochs", 2)
    table = {}
    for weight in (0, 0.5, 1):
        rows = find(capsys, run, noise, "--like", content, blue, "--weight", weight, "--top", 99)
        assert len(rows) == 88  # neither of the two
        table[weight] = {row[-1]: [float(value) for value in row[1:4]] for row in rows}
        assert list(table[weight].values()) == sorted(table[weight].values(), key=lambda row: row[0])
    style = {row[-1]: float(row[1]) for row in find(capsys, run, noise, "--top", 99)}
    assert list(table[0]) == [path for path in style if path in table[0]]  # style alone
    deviations = [np.std([row[column] for row in table[0.5].values()]) for column in (1, 2)]
    for both, far, other in table[0.5].values():
        assert both == pytest.approx(0.5 * far / deviations[0] + 0.5 * other / deviations[1], rel=0.1)
    with pytest.raises(UserError, match="--like: takes a run's folder and one picture"):
        find(capsys, run, noise, "--like", content)


def test_pictures_are_embedded_once_and_again_when_they_or_the_weights_change(run, data, capsys, monkeypatch):
    counted, query = [], data / "noise" / "red" / "0.png"
    monkeypatch.setattr(
        dataset, "predict", lambda *given, **named: counted.append(len(given[2])) or predict(*given, **named)
    )
    first = find(capsys, run, query, "--data", data)
    assert find(capsys, run, query, "--data", data) == first
    assert counted == [1, 90, 1]  # the query each time, the collection once
    (data / "noise" / "red" / "9.png").unlink()
    find(capsys, run, query, "--data", data)
    os.utime(run / "weights.pt", (1, 1))
    find(capsys, run, query, "--data", data)
    assert counted[3:] == [1, 89, 1, 89]
    assert len(list(run.glob("embeddings-*.npz"))) == 1


def test_own_pictures_need_no_folders_and_links_to_a_parent_come_to_an_end(run, data, capsys):
    flat = data / "noise" / "red"
    for name in ("latest", "current"):
        (flat / name).symlink_to(".")
    rows = find(capsys, run, data / "stripes/red/0.png", "--data", flat)
    assert sorted(row[-1] for row in rows) == [f"{number}.png" for number in range(10)]
    assert {tuple(row[2:4]) for row in rows} == {("-", "-")}


def test_what_is_no_picture_is_no_answer(run, data, capsys):
    (data / "noise" / "red" / "1.png").write_bytes(b"words")
    for _ in range(2):  # the second time from what was kept
        rows = find(capsys, run, data / "noise/red/0.png", "--data", data, "--top", 99)
        assert len(rows) == 88 and "noise/red/1.png" not in [row[-1] for row in rows]


def test_the_sheet_shows_questions_and_answers(run, data, tmp_path, capsys):
    asked = [data / "noise" / "red" / f"{n}.png" for n in range(3)]
    find(capsys, run, *asked, "--data", data, "--top", 7, "--out", tmp_path / "sheet.png")
    picture = np.asarray(Image.open(tmp_path / "sheet.png").convert("L"))
    assert picture.shape[1] > 500 and picture.std() > 10
