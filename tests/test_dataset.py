"""Data folders: the three forms, the text lists, the split's properties, and one line for whatever is wrong."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset import BAM_CONTENTS, BAM_STYLES, assign_splits, check_trainable, read_collection
from utils import UserError


def make_folder(folder: Path, paths: list[str], index: str | None = None) -> Path:
    """A folder with an (empty) file at each path and perhaps an index."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    if index is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "index.csv").write_text(index, encoding="utf-8")
    return folder


# The forms of a data folder.


def test_an_index_gives_styles_contents_groups_splits_and_keeps_further_columns(tmp_path):
    index = (
        "\ufeffpath,style,content,split,group,licence\r\na.jpg,Comic,bird,train,g1,CC0\r\n"
        'b é.jpg,"Oil Paint",,,g2,\r\nsub/c.jpg,Comic,cat,,g1,"x, y"\r\n\r\n'
    )
    found = read_collection(make_folder(tmp_path, ["a.jpg", "b é.jpg", "sub/c.jpg"], index))
    assert found.paths == ["a.jpg", "b é.jpg", "sub/c.jpg"]
    assert found.styles == ("Comic", "Oil Paint") and found.style.tolist() == [0, 1, 0]
    assert found.contents == ("bird", "cat") and found.content.tolist() == [0, -1, 1]
    assert found.extra == {"licence": ["CC0", "", "x, y"]}
    assert found.split[0] == "train" and found.split[2] == "train", "a group follows its given split"


def test_folders_of_styles_and_contents_are_read_in_sorted_order(tmp_path):
    paths = ["Comic/bird/2.png", "Comic/bird/1.JPG", "Oil Paint/cat/1.webp", "Comic/bird/notes.txt", ".hidden/x/1.jpg"]
    found = read_collection(make_folder(tmp_path, paths))
    assert found.paths == ["Comic/bird/1.JPG", "Comic/bird/2.png", "Oil Paint/cat/1.webp"]
    assert found.style.tolist() == [0, 0, 1] and found.content.tolist() == [0, 0, 1]


def test_folders_of_styles_alone_leave_the_content_unknown(tmp_path):
    found = read_collection(make_folder(tmp_path, ["b/1.jpg", "a/1.jpg", "a/2.jpg"]))
    assert found.styles == ("a", "b") and found.contents == () and found.content.tolist() == [-1] * 3


def test_the_index_comes_before_the_folders(tmp_path):
    found = read_collection(make_folder(tmp_path, ["x/y/1.jpg", "x/y/2.jpg"], "path,style\nx/y/2.jpg,Comic\n"))
    assert found.paths == ["x/y/2.jpg"] and found.styles == ("Comic",)


def test_the_order_of_bams_classes_is_the_methods_and_of_others_alphabetical(collection, tmp_path):
    found = read_collection(collection)
    assert found.styles == BAM_STYLES and found.contents == BAM_CONTENTS
    assert read_collection(make_folder(tmp_path, ["zebra/1.jpg", "Comic/1.jpg"])).styles == ("Comic", "zebra")


def write_lists(folder: Path, labels: list[int]) -> tuple[Path, Path]:
    paths = [f"{number}.jpg" for number in range(len(labels))]
    make_folder(folder, paths)
    (folder / "names.txt").write_text("\n".join(paths) + "\n")
    (folder / "labels.txt").write_text("\n".join(map(str, labels)) + "\n")
    return folder / "names.txt", folder / "labels.txt"


def test_the_earlier_implementations_lists_are_read(tmp_path):
    names, labels = write_lists(tmp_path, [*range(10, -1, -1), 3])
    found = read_collection(None, filenames=names, labels=labels)
    assert found.styles == BAM_STYLES and found.style.tolist() == [*range(10, -1, -1), 3]
    names, labels = write_lists(tmp_path / "other", [10, 2, 2])
    found = read_collection(tmp_path / "other", filenames=names, labels=labels)
    assert found.styles == ("02", "10") and found.style.tolist() == [1, 0, 0]


# The split.


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 3), st.integers(0, 60)), min_size=1, max_size=300),
    seed=st.integers(0, 3),
)
def test_groups_stay_whole_and_every_picture_has_a_split(rows, seed):
    style, content, group = (list(column) for column in zip(*rows, strict=True))
    names = [f"g{number}" for number in group]
    split = assign_splits(np.array(style), np.array(content), names, [""] * len(rows), seed, "it")
    assert set(split.tolist()) <= {"train", "val", "test"}
    of_group = defaultdict(set)
    for name, part in zip(names, split.tolist(), strict=True):
        of_group[name].add(part)
    assert all(len(parts) == 1 for parts in of_group.values())
    again = assign_splits(np.array(style), np.array(content), names, [""] * len(rows), seed, "it")
    assert (again == split).all()


@settings(max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(4, 120), min_size=2, max_size=5), contents=st.integers(1, 9), seed=st.integers(0, 3))
def test_each_style_is_split_80_10_10_and_is_in_every_split(counts, contents, seed):
    style = np.repeat(np.arange(len(counts)), counts)
    content = np.arange(len(style)) % contents
    names = [f"path:{row}" for row in range(len(style))]
    split = assign_splits(style, content, names, [""] * len(style), seed, "it")
    for number, count in enumerate(counts):
        found = Counter(split[style == number].tolist())
        assert found["val"] >= 1 and found["test"] >= 1 and found["train"] >= 2
        for part, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
            assert abs(found[part] - share * count) <= 2 + contents / 2


def test_the_split_depends_on_the_rows_and_the_seed_alone_and_is_the_same_on_every_machine(tmp_path):
    paths = [f"{style}/{content}/{number}.jpg" for style in "ab" for content in "xy" for number in range(10)]
    folder = make_folder(tmp_path, paths)
    found = read_collection(folder)
    assert (read_collection(folder).split == found.split).all()
    assert (read_collection(folder, split_seed=1).split != found.split).any()
    # Written down, so that another machine or version that splits otherwise is noticed.
    assert [paths[row] for row in found.rows("val")] == ["a/x/1.jpg", "a/x/7.jpg", "b/x/3.jpg", "b/y/8.jpg"]


def test_given_splits_are_kept(tmp_path):
    index = "path,style,split\n" + "".join(f"{n}.jpg,{'ab'[n % 2]},{'test' if n < 6 else ''}\n" for n in range(30))
    found = read_collection(make_folder(tmp_path, [f"{n}.jpg" for n in range(30)], index))
    assert set(found.split[:6].tolist()) == {"test"} and Counter(found.split[6:].tolist())["train"] > 15


def test_the_index_of_121000_pictures_is_read_and_split_in_seconds(tmp_path):
    rng = np.random.default_rng(0)
    names = [f"{number:06d}.jpg" for number in range(121_000)]
    for name in names:
        os.close(os.open(tmp_path / name, os.O_CREAT))
    styles, contents = rng.integers(0, 11, len(names)), rng.integers(0, 9, len(names))
    lines = [f"{n},{BAM_STYLES[s]},{BAM_CONTENTS[c]}\n" for n, s, c in zip(names, styles, contents, strict=True)]
    (tmp_path / "index.csv").write_text("path,style,content\n" + "".join(lines))
    began = time.perf_counter()
    found = read_collection(tmp_path)
    assert len(found) == 121_000 and time.perf_counter() - began < 10, "two seconds on a machine that does nothing else"


# What bad input gets.


@pytest.mark.parametrize(
    ("paths", "index", "complaint"),
    [
        ([], None, "holds no pictures"),
        (["readme.txt", "picture.jpg"], None, "holds no pictures"),
        ([], "", "is empty"),
        ([], "path,style\n", "lists no pictures"),
        (["a.jpg"], "file,style\na.jpg,x\n", "no column 'path'"),
        (["a.jpg"], "path,class\na.jpg,x\n", "no column 'style'"),
        (["a.jpg"], "path,style,style\na.jpg,x,y\n", "names a column twice"),
        (["a.jpg"], "path,style\na.jpg,x,y\n", "line 2: has 3 values"),
        (["a.jpg"], "path,style\na.jpg,x\nb.jpg,x\nc.jpg,x\n", "2 of its 3 pictures are not in .*, first b.jpg"),
        (["a.jpg"], "path,style\na.jpg,\n", "line 2: has no style"),
        (["a.jpg"], "path,style\n,x\n", "line 2: has no path"),
        (["a.jpg"], "path,style\n../a.jpg,x\n", "points outside"),
        (["a.jpg"], "path,style\n/etc/passwd,x\n", "points outside"),
        (["a.jpg"], "path,style\na.jpg,x\na.jpg,y\n", "lists a.jpg more than once"),
        (["a.jpg"], "path,style,split\na.jpg,x,training\n", "split is 'training'"),
        (["a.jpg", "b.jpg"], "path,style,split,group\na.jpg,x,train,g\nb.jpg,x,test,g\n", "group 'g' is in the splits"),
        (["a.jpg"], 'path,style\n"a.jpg,x\n', "not valid CSV"),
    ],
)
def test_a_bad_folder_or_index_is_refused_by_name(tmp_path, paths, index, complaint):
    with pytest.raises(UserError, match=complaint) as caught:
        read_collection(make_folder(tmp_path, paths, index))
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_no_data_folder_at_all_tells_both_ways_to_get_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"data/bam: no such data folder.*harvest\.py.*demo\.py"):
        read_collection(None)


def test_a_picture_that_a_link_leads_to_is_taken_where_the_link_stands(collection, tmp_path):
    shutil.copytree(collection, tmp_path / "real")
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    assert len(read_collection(tmp_path / "linked")) == len(read_collection(collection))


@pytest.mark.parametrize(
    ("names", "labels", "complaint"),
    [
        ("1.jpg\n2.jpg\n", "0\n", "holds 1 labels, .* 2 pictures"),
        ("1.jpg\n2.jpg\n", "0\nx\n", "line 2: expected 1 integer"),
        ("1.jpg\n2.jpg\n", "0\n-1\n", "negative label"),
        ("1.jpg\n1.jpg\n", "0\n1\n", "lists 1.jpg more than once"),
        ("1.jpg\n../2.jpg\n", "0\n1\n", "line 2: .* points outside"),
        ("1.jpg\n\n2.jpg\n", "0\n1\n2\n", "line 2: has no path"),
        ("", "", "is empty"),
        ("1.jpg\n9.jpg\n", "0\n1\n", "first 9.jpg"),
    ],
)
def test_bad_text_lists_are_refused(tmp_path, names, labels, complaint):
    make_folder(tmp_path, ["1.jpg", "2.jpg"])
    (tmp_path / "names.txt").write_text(names)
    (tmp_path / "labels.txt").write_text(labels)
    with pytest.raises(UserError, match=complaint):
        read_collection(None, filenames=tmp_path / "names.txt", labels=tmp_path / "labels.txt")


def test_labels_without_names_and_lists_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(UserError, match="needs --filenames"):
        read_collection(None, labels=tmp_path / "labels.txt")
    with pytest.raises(UserError, match="cannot be read"):
        read_collection(None, filenames=tmp_path / "names.txt")


@pytest.mark.parametrize(
    ("paths", "complaint"),
    [
        ([f"a/{n}.jpg" for n in range(9)], "at least two styles, it has only a"),
        ([f"a/{n}.jpg" for n in range(9)] + ["b/1.jpg", "b/2.jpg"], "style 'b' has too few pictures"),
    ],
)
def test_too_few_styles_or_pictures_to_split_and_pair_are_refused(tmp_path, paths, complaint):
    with pytest.raises(UserError, match=complaint):
        check_trainable(read_collection(make_folder(tmp_path, paths)), "style")


def test_contents_can_be_the_classes_only_where_they_are_known(tmp_path):
    with pytest.raises(UserError, match="at least two contents, it has none"):
        check_trainable(read_collection(make_folder(tmp_path, ["a/1.jpg", "b/1.jpg"])), "content")
