"""Text that people write by hand: index.csv, text lists, config.json. Accepted right, or refused with one line."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from running import PLAIN, TINY, finish, last_line, start

import classification_net
from dataset import Collection, read_collection
from run_folder import read_split, settle_options, write_split
from utils import UserError, read_json

MANY = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
PATHS = ("a.png", "b b.png", "übung/ç.png", "日本/絵.png", "quote'\".png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a few pictures whose names are awkward."""
    folder = tmp_path_factory.mktemp("data") / "mit Leerzeichen und ümlaut"
    for path in PATHS:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(folder / path)
    return folder


def read(folder: Path, **options: object) -> Collection | str:
    """The collection, or the line with which it is refused."""
    try:
        return read_collection(folder, **options)
    except UserError as error:
        assert len(str(error)) > 10
        return str(error)


def write_index(folder: Path, data: bytes | str) -> None:
    (folder / "index.csv").write_bytes(data if isinstance(data, bytes) else data.encode())


ROWS = [(path, style) for path, style in zip(PATHS, ("x", "Öl", "Öl", "水彩", "x"), strict=True)]


def as_csv(rows: list[tuple[str, ...]], end: str = "\n") -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator=end).writerows([("path", "style"), *rows])
    return text.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        as_csv(ROWS), as_csv(ROWS, "\r\n"), "\ufeff" + as_csv(ROWS), as_csv(ROWS).rstrip(), as_csv(ROWS) + "\n\n",
        as_csv(ROWS).replace("path,style", " path , style "),
    ],
    ids=["plain", "CRLF", "BOM", "no last line end", "blank lines", "spaces in the header"],
)  # fmt: skip
def test_ways_of_writing_an_index_that_are_right(folder, data):
    write_index(folder, data)
    found = read(folder)
    assert isinstance(found, Collection), found
    assert tuple(found.paths) == PATHS and set(found.styles) == {"x", "Öl", "水彩"}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (as_csv(ROWS).encode("utf-16"), "not UTF-8"),
        (as_csv(ROWS).encode("latin-1", "replace"), "not UTF-8"),
        (b"", "is empty"),
        (b"path,style\n", "lists no pictures"),
        (b"style,content\nx,y\n", "no column 'path'"),
        (b"path,style,style\na.png,x,y\n", "names a column twice"),
        (b"path,style\na.png\n", "line 2: has 1 values"),
        (b'path,style\n"a.png,x\n', "not valid CSV"),
        (b'path,style\n"a".png,x\n', "not valid CSV"),
        (b"path,style\na.png,\n", "line 2: has no style"),
        (b"path,style\n,x\n", "line 2: has no path"),
        (b"path,style\na\0.png,x\n", "line"),
        (b"path,style\n/etc/passwd,x\n", "points outside the data folder"),
        (b"path,style\n../a.png,x\n", "points outside the data folder"),
        (b"path,style\nu/../../a.png,x\n", "points outside the data folder"),
        (b"path,style\na.png,x\na.png,y\n", "lists a.png more than once"),
        (b"path,style\nmissing.png,x\n", "first missing.png"),
        ("path,style\nübung,x\n".encode(), "is a folder or a device"),
        (b"path,style,split\na.png,x,dev\n", "split is 'dev'"),
        (b"path,style\n" + b"a" * 10_000_000 + b",x\n", "line"),
        (b"a" * 10_000_000, ""),
        (b"path,style\n" + b"a" * 5000 + b",x\n", "not usable"),
        (b"path,style,group,split\na.png,x,g,train\nb b.png,x,g,test\n", "group 'g' is in the splits"),
    ],
)
def test_indexes_that_are_wrong_are_refused_in_one_line(folder, data, says):
    write_index(folder, data)
    found = read(folder)
    assert isinstance(found, str) and says in found and len(found) < 1000, found
    assert "index.csv" in found


CELLS = st.one_of(
    st.sampled_from(
        [*PATHS, "..", "/", "C:\\x", "", " ", '"', "train", "val", "path", "style", "split", "group", "\0", "\ufeff"]
    ),
    st.text(max_size=8),
)


@MANY
@given(
    header=st.permutations(["path", "style", "content", "split", "group", "more"]),
    width=st.integers(0, 6),
    rows=st.lists(st.lists(CELLS, max_size=6), max_size=5),
    quote=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_any_table_is_read_as_it_stands_or_refused(folder, header, width, rows, quote, end):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL if quote else csv.QUOTE_MINIMAL)
    try:
        writer.writerows([header[:width], *rows])
    except csv.Error:
        return
    write_index(folder, text.getvalue().encode("utf-8", "surrogatepass"))
    found = read(folder)
    if isinstance(found, Collection):
        kept = [row for row in rows if row]
        assert found.paths == [row[header.index("path")].strip() for row in kept]
        assert [found.style_name(row) for row in range(len(found))] == [
            row[header.index("style")].strip() for row in kept
        ]


@MANY
@given(data=st.binary(max_size=200))
@example(b"path,style\r\na.png,x")
@example(b"\xff\xfe")
def test_any_bytes_are_read_or_refused(folder, data):
    write_index(folder, data)
    read(folder)
    write_index(folder, b"path,style\n" + data)
    read(folder)


# Text lists.


def test_a_list_of_names_with_unusual_characters(tmp_path):
    names = ["a\u2028b.png", "nel\x85.png", "ff\x0cff.png", "日本 絵.png", "e\u0301.png"]
    for name in names:
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    for end in ("\n", "\r\n"):
        (tmp_path / "names").write_bytes(("\ufeff" + end.join(names) + end * 3).encode())
        (tmp_path / "labels").write_bytes(end.join(map(str, range(5))).encode())
        found = read(tmp_path, filenames=tmp_path / "names", labels=tmp_path / "labels")
        assert isinstance(found, Collection), found
        assert found.paths == names and found.styles == ("0", "1", "2", "3", "4")


@pytest.mark.parametrize(
    ("names", "labels", "says"),
    [
        ("a.png\nb b.png", "0", "1 labels"),
        ("a.png", "0\n1", "must pair up"),
        ("a.png\na.png", "0\n1", "more than once"),
        ("../a.png", "0", "line 1: ../a.png points outside"),
        ("a.png\n\nb b.png", "0\n0\n1", "line 2: has no path"),
        ("a.png", "-1", "negative"),
        ("a.png", "1.5", "expected 1 integer"),
        ("a.png", "one", "expected 1 integer"),
        ("a.png", "9" * 40, "expected 1 integer"),
        ("a.png", "--5", "expected 1 integer"),
        ("a.png", "1-", "expected 1 integer"),
        ("a.png", "٣", "expected 1 integer"),
        ("a.png", "", "is empty"),
        ("", "0", "is empty"),
        ("a.png" * 2_000_000, "0", "not usable"),
    ],
)
def test_lists_that_are_wrong_are_refused_in_one_line(folder, tmp_path, names, labels, says):
    (tmp_path / "names").write_text(names)
    (tmp_path / "labels").write_text(labels)
    found = read(folder, filenames=tmp_path / "names", labels=tmp_path / "labels")
    assert isinstance(found, str) and says in found and len(found) < 1000, found


LISTS = st.lists(CELLS, max_size=4).map(lambda cells: "\n".join(cells).encode("utf-8", "replace"))
NUMBERS = st.lists(st.integers(-1, 12), max_size=4).map(lambda numbers: "\n".join(map(str, numbers)).encode())


@MANY
@given(names=st.binary(max_size=80) | LISTS, labels=st.binary(max_size=20) | NUMBERS)
def test_any_lists_are_read_or_refused(folder, names, labels):
    (folder / "names").write_bytes(names)
    (folder / "labels").write_bytes(labels)
    read(folder, filenames=folder / "names", labels=folder / "labels")


def test_lists_that_are_not_there(folder):
    assert "cannot be read" in read(folder, filenames=folder / "nowhere")
    assert "cannot be read" in read(folder, filenames=folder)
    assert "needs --filenames too" in read(folder, labels=folder / "nowhere")


# Folders.


def test_links_out_of_the_folder_are_followed_and_other_things_are_not_read(folder, tmp_path):
    """A link is its owner's wish: collections often are folders of links. What is no file is no picture."""
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "link.png").symlink_to(folder / "a.png")
    (tmp_path / "y").symlink_to(folder)
    found = read(tmp_path)
    assert isinstance(found, Collection)
    assert found.paths[0] == "x/link.png" and all(path.startswith("y/") for path in found.paths[1:])
    (tmp_path / "x" / "loop").symlink_to(tmp_path)  # ends by itself: two levels are read
    assert isinstance(read(tmp_path), Collection)
    os.mkfifo(tmp_path / "x" / "pipe.png")
    assert "x/pipe.png is a folder or a device" in read(tmp_path)
    (tmp_path / "x" / "pipe.png").unlink()
    (tmp_path / "x" / "dangling.png").symlink_to(tmp_path / "nowhere")
    assert "first x/dangling.png" in read(tmp_path)


def test_names_that_are_no_text_are_refused_in_one_line(folder, tmp_path):
    place = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(place)  # noqa: PTH102 (a name that is no text)
    shutil.copy(folder / "a.png", place + b"/a.png")
    assert "is not UTF-8 text; rename" in read(tmp_path)


def test_unicode_and_spaces_work_from_the_folder_to_the_run(tmp_path):
    data = tmp_path / "Bilder für später"
    for style in ("Öl auf Leinwand", "水彩 画", "naïve, 'quoted\"", "=1+1"):
        for content in ("chat noir", "ネコ"):
            (data / style / content).mkdir(parents=True)
            for number in range(6):
                Image.new("RGB", (40, 40), (number * 40, 90, 30)).save(data / style / content / f"№ {number}, ok.png")
    run, log = tmp_path / "läufe" / "erster lauf", tmp_path / "log"
    said = finish(
        start("classification_net.py", ("--data", data, "--run", run, "--epochs", 1, *TINY, *PLAIN), log), log
    )
    assert "水彩 画" in said
    assert len(read_split(run)) == 48 and read_json(run / "config.json")["classes"][-1] == "水彩 画"
    options = ("--data", data, "--stage1", run, "--run", tmp_path / "二", "--epochs", 1, "--batch-size", 8, *PLAIN)
    finish(start("train.py", options, log), log)
    before = read_collection(data)
    (tmp_path / "index.csv").write_bytes((run / "split.csv").read_bytes())
    shutil.copy(tmp_path / "index.csv", data / "index.csv")
    assert read_collection(data).fingerprint() == before.fingerprint()  # split.csv is a valid index of the same data


@MANY
@given(
    names=st.lists(
        # No file's name has a NUL in it, and Python 3.10 cannot write one into a table.
        st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=6),
        min_size=1, max_size=4, unique=True,
    )
)  # fmt: skip
def test_any_name_survives_split_csv(folder, tmp_path, names):
    plain = read_collection(folder_of_empty_files(tmp_path, len(names)))
    changed = Collection(**{**vars(plain), "paths": names, "group": [f"path:{name}" for name in names]})
    write_split(tmp_path / "split.csv", changed)
    assert read_split(tmp_path) == dict(zip(names, changed.split.tolist(), strict=True))


def folder_of_empty_files(tmp_path: Path, count: int) -> Path:
    place = tmp_path / str(count) / "style"
    place.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (place / f"{number}.png").touch()
    return place.parent


# config.json.


@pytest.fixture(scope="module")
def begun(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a `config.json` and nothing else."""
    run = tmp_path_factory.mktemp("runs") / "run"
    log = run.parent / "log"
    finish(start("classification_net.py", ("--data", collection, "--run", run, "--epochs", 1, *TINY, *PLAIN), log), log)
    (run / "last.pt").unlink()
    return run


def resume(run: Path) -> str | None:
    """Settle the options of a resumed run; returns the line with which that is refused."""
    parser = classification_net.get_parser()
    args = parser.parse_args(["--run", str(run), "--resume", "--data", "x"])
    arch = next(action for action in parser._actions if action.dest == "arch")
    arch.choices = (*arch.choices, "tiny")
    try:
        settled = settle_options(args, parser)
    except UserError as error:
        assert str(run) in str(error)
        return str(error)
    for action in parser._actions:
        if action.dest != "help" and action.default is not None:
            value = getattr(settled, action.dest)
            assert isinstance(value, (int, float) if isinstance(action.default, float) else type(action.default))
    return None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2), max_leaves=4,
)  # fmt: skip


@MANY
@given(data=st.data())
def test_any_setting_in_a_config_is_possible_or_refused(begun, data):
    config = json.loads((begun / "config.json").read_text())
    kept = (begun / "config.json").read_bytes()
    name = data.draw(st.sampled_from(sorted(config["settings"])))
    config["settings"][name] = data.draw(VALUES)
    try:
        (begun / "config.json").write_text(json.dumps(config))
        resume(begun)
    finally:
        (begun / "config.json").write_bytes(kept)


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("epochs", "3"), ("epochs", 2.5), ("lr", -1), ("lr", float("nan")), ("arch", "other"), ("amp", "fp8"),
     ("batch_size", None), ("seed", True), ("skip_unreadable", "no"), ("embedding_dim", [1])],
)  # fmt: skip
def test_impossible_settings_are_refused_by_name(begun, name, value):
    kept = (begun / "config.json").read_bytes()
    config = json.loads(kept)
    config["settings"][name] = value
    try:
        (begun / "config.json").write_text(json.dumps(config))
        assert f"setting {name} is " in (resume(begun) or "")
    finally:
        (begun / "config.json").write_bytes(kept)
    assert resume(begun) is None


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b"\xff", b"{}", b'{"settings": 3}', b"[" * 100_000, b'{"settings": {}, "data": [1]}',
     "\ufeff{}".encode(), b"{" + b'"a":1,' * 2_000_000 + b'"b":2}'],
)  # fmt: skip
def test_a_config_that_is_none_ends_in_one_line(begun, collection, tmp_path, data):
    run, log = tmp_path / "run", tmp_path / "log"
    run.mkdir()
    (run / "config.json").write_bytes(data)
    options = ("--data", collection, "--run", run, "--resume", "--epochs", 1, *TINY, *PLAIN)
    line = last_line(finish(start("classification_net.py", options, log), log, 2))
    assert line.startswith("classification_net.py: ") and len(line) < 1000


@MANY
@given(data=st.binary(max_size=60) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_config_is_read_or_refused(tmp_path, data):
    (tmp_path / "config.json").write_bytes(data)
    resume(tmp_path)
