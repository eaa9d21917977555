"""Data folders: the three layouts, what is passed over and said, and splits without leaks."""

import os
import re
import shutil
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset import BAM_CONTENTS, BAM_STYLES, SUFFIXES, draw_splits, read_collection
from utils import UserError


def make_folder(folder: Path, paths: list[str], index: str | None = None) -> Path:
    """A folder with a file at each path, each of its own content, and perhaps an index."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(os.fsencode(path))
    if index is not None:
        (folder / "index.csv").write_text(index, encoding="utf-8")
    return folder


# The layouts.


def test_an_index_gives_styles_contents_splits_and_groups(tmp_path):
    index = (
        "\ufeffpath,style,content,split,group,licence\r\na.jpg,Comic,bird,train,g1,CC0\r\n"
        'b é.jpg,"Oil Paint",,,g2,\r\nsub/c.jpg, Comic ,cat,,g1,"x, y"\r\n\r\n'
    )
    found = read_collection(make_folder(tmp_path, ["a.jpg", "b é.jpg", "sub/c.jpg", "d.jpg"], index))
    assert found.paths == ["a.jpg", "b é.jpg", "sub/c.jpg"]
    assert found.classes["style"] == ["Comic", "Oil Paint"] and found.number["style"].tolist() == [0, 1, 0]
    assert found.classes["content"] == ["bird", "cat"] and found.number["content"].tolist() == [0, -1, 1]
    assert found.split[0] == found.split[2] == "train", "a group follows the split that one of it has"


def test_folders_are_styles_and_perhaps_contents(tmp_path):
    found = read_collection(make_folder(tmp_path / "1", ["b/cat/1.PNG", "b/cat/2.jpg", "a/dog/1.webp"]))
    assert found.paths == ["a/dog/1.webp", "b/cat/1.PNG", "b/cat/2.jpg"]
    assert found.number["style"].tolist() == [0, 1, 1] and found.classes["content"] == ["cat", "dog"]
    found = read_collection(make_folder(tmp_path / "2", ["b/1.jpg", "a/1.jpg"]))
    assert found.classes == {"style": ["a", "b"], "content": []} and found.number["content"].tolist() == [-1, -1]


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Training", "validation", "test"), ("train", "dev", "testing")]
)
def test_folders_that_are_called_like_splits_are_splits(tmp_path, names):
    paths = [f"{name}/{style}/1.jpg" for name in names for style in "ab"]
    found = read_collection(make_folder(tmp_path, [*paths, "more/a/1.jpg", "runs/stage1/split.csv"]))
    assert found.classes["style"] == ["a", "b"] and Counter(found.split.tolist()) == {"train": 2, "val": 2, "test": 2}


def test_the_order_of_bams_classes_is_the_methods_where_all_names_are_bams(tmp_path):
    paths = [f"{style}/{content}/1.jpg" for style in BAM_STYLES for content in BAM_CONTENTS]
    found = read_collection(make_folder(tmp_path / "bam", paths))
    assert found.classes["style"] == list(BAM_STYLES) and found.classes["content"] == list(BAM_CONTENTS)
    assert BAM_STYLES[:3] == ("3D Graphics", "Comic", "Pencil Sketch") and BAM_STYLES[-1] == "Peaceful"
    found = read_collection(make_folder(tmp_path / "2", ["zebra/1.jpg", "Comic/1.jpg"]))
    assert found.classes["style"] == ["Comic", "zebra"]


def test_names_may_be_spelt_in_two_ways_and_need_not_be_utf_8(tmp_path):
    composed, split_up = (unicodedata.normalize(form, "Süd") for form in ("NFC", "NFD"))
    odd = os.fsdecode(b"\xff")
    found = read_collection(make_folder(tmp_path, [f"{composed}/1.jpg", f"{split_up}/2.jpg", f"{odd}/1.jpg"]))
    assert found.classes["style"] == [composed, odd] and sorted(found.number["style"].tolist()) == [0, 0, 1]


# What is passed over is said.


def test_hidden_files_are_passed_over_in_silence_and_others_are_counted_by_reason(tmp_path, capsys):
    assert {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff"} <= SUFFIXES
    assert not {".eps", ".pdf", ".txt", ".csv"} & SUFFIXES
    read_collection(make_folder(tmp_path, ["a/1.jpg", "b/1.jpg", ".git/x/1.jpg", "a/.DS_Store", ".DS_Store"]))
    assert "passed over" not in capsys.readouterr().out
    read_collection(make_folder(tmp_path, ["a/2.heic", "a/3", "b/4.jpg?w=200", "root.jpg", "a/x/deep/5.jpg"]))
    said = capsys.readouterr().out
    assert re.search(r"5 files.* are passed over", said), said
    assert all(word in said for word in (".heic", "no suffix", ".jpg?w=200", "deep"))
    for deep in ("c/1.heic", "d/x/no-file-here/deeper/1.jpg"):
        with pytest.raises(UserError, match=f"no pictures in {deep[0]}; expected index.csv, <style>/<content>/"):
            read_collection(make_folder(tmp_path / deep[0], ["a/1.jpg", "b/1.jpg", deep]))


def test_runs_and_evaluations_inside_the_data_are_no_styles(tmp_path, capsys):
    paths = ["a/1.jpg", "b/1.jpg", "runs/stage1/split.csv", "runs/stage1/curves.png", "results/embeddings.npz"]
    paths += [
        "cache/data-1/.lock",
        "cache/data-1/37.squares",
        "stopped/embeddings.npz",
        "stopped/tsne.png",
        "config.json",
    ]
    found = read_collection(make_folder(tmp_path, [*paths, "results/tsne.png", "runs/stage1/evaluation/tsne.png"]))
    assert found.classes["style"] == ["a", "b"] and "stage1" in capsys.readouterr().out


def test_links_are_followed_but_never_in_a_circle(tmp_path):
    make_folder(tmp_path / "real", ["a/1.jpg", "a/2.jpg", "b/3.jpg"])
    (tmp_path / "linked").mkdir()
    for style in "ab":
        (tmp_path / "linked" / style).symlink_to(tmp_path / "real" / style)
    assert len(read_collection(tmp_path / "linked").paths) == 3
    for place in ("up", "again", "a/up", "a/again"):
        (tmp_path / "real" / place).symlink_to(tmp_path / "real")
    for number in range(4):
        for style, other in ("ab", "ba"):
            (tmp_path / "real" / style / str(number)).symlink_to(tmp_path / "real" / other)
    (tmp_path / "real" / "above").symlink_to(tmp_path)  # with another style's pictures
    make_folder(tmp_path / "holiday", ["1.jpg"])
    found = read_collection(tmp_path / "real")
    assert {"a/1.jpg", "a/2.jpg", "b/3.jpg"} <= set(found.paths) and found.classes["style"] == ["a", "b"]


def test_a_folder_may_have_two_names(tmp_path):
    make_folder(tmp_path, ["train/a/1.jpg", "train/b/1.jpg", "test/a/2.jpg", "test/b/2.jpg"])
    (tmp_path / "val").symlink_to("test")
    assert Counter(read_collection(tmp_path).split.tolist()) == {"train": 2, "val": 2, "test": 2}


@pytest.mark.parametrize(
    ("index", "says"),
    [
        (None, "no pictures in it; expected index.csv"),
        ("path,class\na.txt,x\n", "row 2: .*style"),
        ("path,style\na.txt,x\nb.jpg,x\nc.jpg,x\n", r"lacks 2 pictures that index\.csv has, first b\.jpg"),
        ("path,style\na.txt,x\na.txt ,y\n", "row 3"),
        ("path,style,split\na.txt,x,training\n", "row 2: .*split"),
        ('path,style\n"a.txt,x\n', "not valid CSV"),
    ],
)
def test_a_folder_that_is_not_as_described_is_refused_in_one_line_that_names_it(tmp_path, index, says):
    with pytest.raises(UserError, match=says) as caught:
        read_collection(make_folder(tmp_path, ["a.txt", "in-no-folder.jpg"], index))
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


# The split.


def test_byte_equal_pictures_stay_together_but_where_an_index_splits_them_and_their_number_is_said(tmp_path, capsys):
    folder = make_folder(tmp_path, [f"{style}/{number}.jpg" for style in "ab" for number in range(20)])
    for number in range(20):
        shutil.copy(folder / f"a/{number}.jpg", folder / f"a/{number}.jpg.copy.jpg")
    found = read_collection(folder)
    copies = [row for row, path in enumerate(found.paths) if path.endswith("copy.jpg")]
    assert [found.split[row] for row in copies] == [found.split[row - 1] for row in copies]
    assert "20 files are copies of others" in capsys.readouterr().out
    index = "path,style,split\na/0.jpg,a,train\na/0.jpg.copy.jpg,a,test\nb/2.jpg,b,val\nb/3.jpg,b,\n"
    assert read_collection(make_folder(folder, [], index)).split[:3].tolist() == ["train", "test", "val"]
    assert "1 files are copies of others" in capsys.readouterr().out


@settings(max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(4, 120), min_size=2, max_size=5), contents=st.integers(1, 9), seed=st.integers(0, 3))
def test_every_style_is_split_80_10_10_and_groups_stay_whole(counts, contents, seed):
    style = np.repeat(np.arange(len(counts)), counts)
    content, rows, none = np.arange(len(style)) % contents, np.arange(len(style)), np.full(len(style), "", dtype="<U5")
    split = draw_splits(style, content, [str(row) for row in rows], none, seed)
    for number, total in enumerate(counts):
        found = Counter(split[style == number].tolist())
        assert found["val"] >= 1 and found["test"] >= 1 and found["train"] >= 2
        shares = {"train": 0.8, "val": 0.1, "test": 0.1}
        assert all(abs(found[part] - share * total) <= 2 + contents / 2 for part, share in shares.items())
    grouped = draw_splits(style, content, [str(row % 7) for row in rows], none, seed)
    assert all(len(set(grouped[rows % 7 == group].tolist())) == 1 for group in range(7))


def test_the_split_depends_on_the_rows_and_the_seed_alone(tmp_path):
    paths = [f"{style}/{content}/{number}.jpg" for style in "ab" for content in "xy" for number in range(10)]
    found, again = (read_collection(make_folder(tmp_path / name, paths)) for name in "12")
    assert (again.split == found.split).all() and (read_collection(tmp_path / "1", 1).split != found.split).any()
    # Written down, so that another machine or version that splits otherwise is noticed.
    val = [paths[row] for row in np.flatnonzero(found.split == "val")]
    assert val == ["a/x/1.jpg", "a/x/7.jpg", "b/x/3.jpg", "b/y/8.jpg"]


def test_a_known_split_outranks_all_and_new_pictures_are_left_out_and_counted(tmp_path, capsys):
    folder = make_folder(tmp_path, ["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"])
    known = {"a/1.jpg": "val", "b/1.jpg": "train", "b/2.jpg": "test"}
    found = read_collection(folder, known=known)
    assert dict(zip(found.paths, found.split.tolist(), strict=True)) == known
    make_folder(folder, [], "path,style\na/1.jpg,a\na/2.jpg,a\nb/1.jpg,b\nb/2.jpg,b\nbroken.jpg,b\n")
    assert read_collection(folder, known={**known, "broken.jpg": ""}).paths == list(known), "left out, and gone since"
    assert "1 pictures are new since stage 1 and left out" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"lacks 1 pictures that stage 1 has, first c/1\.jpg"):
        read_collection(folder, known={**known, "c/1.jpg": "train"})
