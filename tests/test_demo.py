"""The stand-in collection: the same pictures from the same seed, every cell filled, nothing overwritten."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import demo
import utils
from demo import Cell

ROOT = Path(demo.__file__).parent


def draw(*options):
    """Run the script's main on this command line."""
    demo.main(demo.get_parser().parse_args([str(option) for option in options]))


def files(folder):
    """Every file below the folder with its bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """The smallest collection: one picture of each style and content, 32 px, drawn by two processes."""
    folder = tmp_path_factory.mktemp("demo") / "stand in"
    draw(folder, "--per-cell", 1, "--size", 32, "--workers", 2)
    return folder


def test_styles_and_contents_are_those_of_bam_in_its_order():
    assert list(demo.STYLES) == [
        "3D Graphics", "Comic", "Pencil Sketch", "Oil Paint", "Pen Ink", "Vector Art", "Water Color",
        "Scary", "Gloomy", "Happy", "Peaceful",
    ]  # fmt: skip
    assert list(demo.CONTENTS) == ["bicycle", "bird", "building", "cars", "cat", "dog", "flower", "people", "tree"]


def test_every_cell_is_filled_and_the_index_lists_every_picture(collection):
    with (collection / "index.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert reader.fieldnames == ["path", "style", "content"]
    assert {(row["style"], row["content"]) for row in rows} == {(s, c) for s in demo.STYLES for c in demo.CONTENTS}
    assert sorted(row["path"] for row in rows) == sorted(path for path in files(collection) if path.endswith(".jpg"))
    assert all(row["path"].startswith(f"{row['style']}/{row['content']}/") for row in rows)


def test_pictures_decode_have_the_size_and_are_not_blank(collection):
    for path in collection.rglob("*.jpg"):
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        assert picture.shape == (32, 32, 3), path
        assert picture.std() > 4, path


def test_one_process_draws_what_two_draw(collection, tmp_path):
    draw(tmp_path / "one", "--per-cell", 1, "--size", 32, "--workers", 1)
    assert files(tmp_path / "one") == files(collection)


def test_pictures_differ_by_seed_number_style_and_content():
    cells = [Cell("Comic", "cat", 0), Cell("Comic", "cat", 1), Cell("Comic", "dog", 0), Cell("Happy", "cat", 0)]
    pictures = [demo.picture(cell, 32, 0) for cell in cells] + [demo.picture(cells[0], 32, 1)]
    assert len({picture.tobytes() for picture in pictures}) == 5


@pytest.mark.parametrize("style", list(demo.STYLES))
def test_a_style_renders_any_content_and_any_size_without_a_warning(style, recwarn):
    for size, content in ((33, "bicycle"), (50, "people"), (71, "tree")):
        assert demo.picture(Cell(style, content, 5), size, 3).shape == (size, size, 3)
    assert not [str(warning.message) for warning in recwarn]


def test_an_interrupted_collection_is_completed_and_a_complete_one_left_alone(collection, tmp_path, capsys):
    folder = tmp_path / "cut off"
    whole = files(collection)
    for path in ["demo.json", *(path for path in whole if path.endswith("tree_0000.jpg"))]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(whole[path])
    kept = {path: (folder / path).stat().st_mtime_ns for path in files(folder)}
    draw(folder, "--per-cell", 1, "--size", 32, "--workers", 1)
    assert files(folder) == whole
    assert {path: (folder / path).stat().st_mtime_ns for path in kept} == kept
    capsys.readouterr()
    draw(folder, "--per-cell", 1, "--size", 32)
    assert "Nothing to draw" in capsys.readouterr().out
    assert files(folder) == whole


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_ended_by_a_signal_it_leaves_whole_pictures_and_no_process(number, status, tmp_path):
    folder = tmp_path / "demo"
    command = [sys.executable, "demo.py", str(folder), "--per-cell", "9", "--workers", "2"]
    script = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not any(folder.rglob("*.jpg")) and time.monotonic() < deadline:
        time.sleep(0.05)
    script.send_signal(number)
    # The pipe closes only when the last of its processes has ended.
    _, error = script.communicate(timeout=30)
    assert script.returncode == status
    assert "Traceback" not in error
    assert number == signal.SIGKILL or len(error.splitlines()) == 1, error
    pictures = list(folder.rglob("*.jpg"))
    assert 0 < len(pictures) < 9 * 99
    assert all(cv2.imread(str(path)) is not None for path in pictures)


def test_a_folder_that_holds_something_else_is_refused_and_left_as_it_was(tmp_path):
    (tmp_path / "holiday.txt").write_text("mine")
    result = subprocess.run(
        [sys.executable, "demo.py", str(tmp_path), "--per-cell", "1"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert str(tmp_path) in result.stderr and "empty folder" in result.stderr
    assert files(tmp_path) == {"holiday.txt": b"mine"}


def test_a_collection_with_other_options_is_refused_and_left_as_it_was(collection):
    before = files(collection)
    with pytest.raises(utils.UserError, match="other options"):
        draw(collection, "--per-cell", 2, "--size", 32)
    assert files(collection) == before


def test_a_file_in_place_of_the_folder_and_a_spoilt_note_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(utils.UserError, match="file"):
        draw(tmp_path / "file", "--per-cell", 1)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "demo.json").write_text("{")
    with pytest.raises(utils.UserError, match=r"demo\.json"):
        draw(tmp_path / "torn", "--per-cell", 1)


@pytest.mark.parametrize("options", [["--per-cell", "0"], ["--size", "x"], ["--workers", "0"], ["--seed", "-1"]])
def test_a_wrong_number_ends_with_status_2_and_names_the_option(options, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        draw(tmp_path / "new", *options)
    assert stop.value.code == 2
    assert options[0] in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_without_a_folder_it_says_what_to_name():
    with pytest.raises(utils.UserError, match="DIR"):
        draw()


def test_the_next_command_is_printed_with_the_folder_quoted(collection, capsys):
    draw(collection, "--per-cell", 1, "--size", 32)
    assert f"python classification_net.py --data '{collection}'" in capsys.readouterr().out
    assert json.loads((collection / "demo.json").read_text())["size"] == 32


def test_the_sample_sheet_shows_every_cell_in_less_than_500_kb(tmp_path):
    draw("--sheet", tmp_path / "new" / "sheet.png")
    sheet = cv2.imread(str(tmp_path / "new" / "sheet.png"))
    assert sheet.shape[0] > 11 * 60 and sheet.shape[1] > 9 * 60
    assert (tmp_path / "new" / "sheet.png").stat().st_size < 500_000
    with pytest.raises(utils.UserError, match="--sheet"):
        draw("--sheet", tmp_path / "sheet.gif")


def test_a_colour_histogram_does_not_tell_the_style():
    """Three pictures a cell, two to learn from: a linear classifier on 8x8x8 colours stays far from knowing."""
    features, styles, numbers = [], [], []
    for cell in demo.cells(3):
        rgb = demo.picture(cell, 32, 0)
        counts = cv2.calcHist([rgb], [0, 1, 2], None, [8, 8, 8], [0, 256] * 3).ravel()
        features.append(np.sqrt(counts / counts.sum()))
        styles.append(cell.style)
        numbers.append(cell.number)
    features, styles, test = np.array(features), np.array(styles), np.array(numbers) == 2
    model = LogisticRegression(C=10, max_iter=500).fit(features[~test], styles[~test])
    assert model.score(features[test], styles[test]) < 0.5
