"""The stand-in collection: `python -m standin`."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from running import ROOT

from dataset import BAM_CONTENTS, BAM_STYLES
from standin.__main__ import NOTE, claim, draw_collection, draw_picture, draw_sheet
from standin.contents import CONTENTS
from standin.styles import STYLES
from utils import UserError


def contents_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_command_draws_every_cell_and_can_be_repeated(tmp_path):
    folder = tmp_path / "drawn"
    command = [sys.executable, "-m", "standin", str(folder), "--per-cell", "2", "--size", "48"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"classification_net.py --data {folder}" in done.stdout.splitlines()[-1]
    first = contents_of(folder)
    wanted = {f"{style}/{content}/{k:04d}.jpg" for style in BAM_STYLES for content in BAM_CONTENTS for k in range(2)}
    assert set(first) == wanted | {NOTE}
    assert len(set(first.values())) == len(first)  # no picture is another one's copy
    assert cv2.imread(str(folder / "Comic/cat/0001.jpg")).shape == (48, 48, 3)
    (folder / "Comic/cat/0001.jpg").unlink()  # as if it had been interrupted
    assert subprocess.run(command, cwd=ROOT).returncode == 0
    assert contents_of(folder) == first


def test_another_seed_draws_other_pictures():
    assert (draw_picture("Oil Paint", "tree", 3, 32, seed=5) != draw_picture("Oil Paint", "tree", 3, 32, seed=6)).any()


def test_a_folder_with_anything_else_in_it_is_refused_but_hidden_files_do_not_count(tmp_path):
    options = {"per_cell": 1, "size": 32, "seed": 0}
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "lost+found").mkdir()
    for _ in range(2):
        claim(tmp_path, options)
    assert json.loads((tmp_path / NOTE).read_text()) == options
    with pytest.raises(UserError, match="other options"):
        claim(tmp_path, options | {"seed": 1})
    (tmp_path / NOTE).rename(tmp_path / "holiday.jpg")
    with pytest.raises(UserError, match="holds something else"):
        draw_collection(tmp_path, 1, 32, 0)
    assert set(contents_of(tmp_path)) == {".DS_Store", "holiday.jpg"}


def test_the_sheet_has_a_row_for_each_style_and_a_column_for_each_content(tmp_path):
    draw_sheet(tmp_path / "sheet.png", seed=0, tile=20, left=10, top=10)
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == (10 + 11 * 23, 10 + 9 * 23, 3)


def test_mean_colours_alone_do_not_tell_the_style():
    pictures = {
        style: [draw_picture(style, content, n, 32, 0) for content in CONTENTS for n in range(8)] for style in STYLES
    }
    means = np.array([[picture.mean(axis=(0, 1)) for picture in drawn] for drawn in pictures.values()])
    centres = means[:, ::2].mean(axis=1)  # of one half, for the other half
    nearest = np.linalg.norm(means[:, 1::2, None] - centres, axis=3).argmin(axis=2)
    assert (nearest == np.arange(len(STYLES))[:, None]).mean() < 0.45
