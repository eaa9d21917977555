"""From a folder on disk to rows: which pictures there are, their style and content, and their split.

A data folder is any of these, tried in this order:

1. `DIR/index.csv` with the header `path,style` and optionally `content`, `split`, `group` and further columns;
2. `DIR/<style>/<content>/<picture>`;
3. `DIR/<style>/<picture>`;

or the two text lists of the earlier public implementation (`read_text_lists`). `pictures.py` decodes what is found.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
import stat
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np

from utils import UserError

# The classes of BAM in the method's order; the first seven styles are media, the last four emotions.
BAM_STYLES = (
    "3D Graphics", "Comic", "Pencil Sketch", "Oil Paint", "Pen Ink", "Vector Art", "Water Color",
    "Scary", "Gloomy", "Happy", "Peaceful",
)  # fmt: skip
BAM_CONTENTS = ("bicycle", "bird", "building", "cars", "cat", "dog", "flower", "people", "tree")

SPLITS = ("train", "val", "test")
SPLIT_SHARES = (0.8, 0.1, 0.1)
STYLE_WEIGHT = 2  # of a style's balance over the splits, against that of its style x content cells
UNKNOWN = -1  # the content, or the style, of a picture of which it is not known
UNREADABLE = "unreadable"  # stands in the split of a picture that was left out because it cannot be decoded

PICTURE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"))
INDEX_COLUMNS = ("path", "style", "content", "split", "group")


@dataclass(frozen=True)
class Collection:
    """Labelled pictures, one row each, in the order of the index.

    `style` and `content` are int64 [n] and index `styles` and `contents`; -1 stands for unknown. `split` holds
    "train", "val", "test" or "unreadable". Pictures with the same `group` share their split. `size` (bytes) and
    `changed` (nanoseconds) describe each file as it was found. `extra` keeps the index's further columns.
    """

    folder: Path
    paths: list[str]
    styles: tuple[str, ...]
    contents: tuple[str, ...]
    style: np.ndarray
    content: np.ndarray
    group: list[str]
    split: np.ndarray
    size: np.ndarray
    changed: np.ndarray
    source: str = "the data"
    extra: dict[str, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.paths)

    def rows(self, split: str) -> np.ndarray:
        """Rows of one split ("train", "val", "test", or "all" three) in index order, int64 [k]."""
        return np.flatnonzero(self.split != UNREADABLE if split == "all" else self.split == split)

    def name(self, row: int) -> str:
        """How a message names a picture: its path and where the collection lists it."""
        return f"{self.folder / self.paths[row]} (picture {row} of {self.source})"

    def fingerprint(self) -> str:
        """Tell two collections apart: a hash of every row's path, style, content, group and split."""
        digest = hashlib.sha256()
        for row, path in enumerate(self.paths):
            cells = (path, self.style_name(row), self.content_name(row), self.group[row], self.split[row])
            digest.update(("\t".join(cells) + "\n").encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def style_name(self, row: int) -> str:
        """Name of a row's style; empty where it is unknown."""
        return self.styles[self.style[row]] if self.style[row] >= 0 else ""

    def content_name(self, row: int) -> str:
        """Name of a row's content; empty where it is unknown."""
        return self.contents[self.content[row]] if self.content[row] >= 0 else ""

    def without(self, unreadable: np.ndarray) -> Collection:
        """Leave the given rows, int64 [k], out of every split; the other rows stay in the split that they have."""
        split = self.split.copy()
        split[unreadable] = UNREADABLE
        return replace(self, split=split)


# Reading.


def read_collection(
    data: Path | str | None,
    *,
    filenames: Path | str | None = None,
    labels: Path | str | None = None,
    split_seed: int = 0,
    known_splits: dict[str, str] | None = None,
) -> Collection:
    """Read a data folder, or text lists, and give every picture its split.

    `known_splits` gives the split of some paths, for lists that cannot say it themselves.
    Raises `UserError`, one line with the remedy, for whatever is wrong with the folder or the lists.
    """
    if filenames is not None:
        folder = Path(data) if data is not None else Path(filenames).parent
        table, source = read_text_lists(Path(filenames), Path(labels) if labels else None), str(filenames)
    elif labels is not None:
        raise UserError("--labels: needs --filenames too, the list of pictures that the labels belong to")
    else:
        folder = Path("data/bam" if data is None else data)
        table, source = read_folder(folder)
    columns = {name: table.pop(name) for name in INDEX_COLUMNS}
    style, styles = number_names(columns["style"], BAM_STYLES)
    content, contents = number_names(columns["content"], BAM_CONTENTS)
    group = [name or f"path:{path}" for name, path in zip(columns["group"], columns["path"], strict=True)]
    size, changed = stat_pictures(folder, columns["path"], source)
    given = columns["split"]
    if known_splits is not None:
        given = [known_splits.get(path, "") for path in columns["path"]]
    split = assign_splits(style, content, group, given, split_seed, source)
    return Collection(
        folder, columns["path"], styles, contents, style, content, group, split, size, changed, source, table
    )  # fmt: skip


def read_folder(folder: Path) -> tuple[dict[str, list[str]], str]:
    """Read a data folder in whichever of the three forms it has; return its columns and the name of their source."""
    if not folder.exists():
        raise UserError(
            f"{folder}: no such data folder; give one with --data, harvest BAM with "
            f"`python harvest.py --db bam.sqlite --out {folder}`, or draw the stand-in collection with "
            f"`python demo.py {folder}`"
        )
    if not folder.is_dir():
        raise UserError(f"--data {folder}: is a file; give the folder that holds the pictures")
    index = folder / "index.csv"
    if index.exists():
        return read_index(index), str(index)
    return walk_folder(folder), str(folder)


def read_index(index: Path) -> dict[str, list[str]]:
    """Read `index.csv` into columns of text, the missing optional ones empty. Spaces around values are dropped."""
    rows = read_csv(index)
    if not rows:
        raise UserError(f"{index}: is empty; its first line should be path,style")
    header = [name.strip() for name in rows[0][1]]
    for name in ("path", "style"):
        if name not in header:
            raise UserError(f"{index}: has no column '{name}'; its first line should be path,style[,content,...]")
    if len(set(header)) < len(header):
        raise UserError(f"{index}: names a column twice in its first line: {','.join(header)[:200]}")
    table: dict[str, list[str]] = {name: [] for name in header}
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise UserError(f"{index}, line {line}: has {len(row)} values, the header has {len(header)} columns")
        for name, value in zip(header, row, strict=True):
            table[name].append(value.strip())
        check_row(f"{index}, line {line}", table)
    if not table["path"]:
        raise UserError(f"{index}: lists no pictures; add a line for each, or delete it to use the folders' names")
    twice = [path for path, count in Counter(table["path"]).items() if count > 1]
    if twice:
        raise UserError(f"{index}: lists {twice[0]} more than once; a picture belongs to one row")
    empty = [""] * len(table["path"])
    return {name: table.get(name, list(empty)) for name in (*INDEX_COLUMNS, *header)}


def read_csv(path: Path) -> list[tuple[int, list[str]]]:
    """Read a CSV file as (line number, values), blank lines left out. Raises `UserError` where it is not one."""
    rows = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            rows = [(reader.line_num, row) for row in reader if row]
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: is not valid CSV: {error}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    return rows


def check_row(where: str, table: dict[str, list[str]]) -> None:
    """Check the row that was added last; `where` names it in messages."""
    check_relative(where, table["path"][-1])
    if not table["style"][-1]:
        raise UserError(f"{where}: has no style; give one or take the line out")
    if "split" in table and table["split"][-1] not in ("", *SPLITS):
        raise UserError(f"{where}: split is '{table['split'][-1]}'; use train, val, test or leave it empty")


def check_relative(where: str, path: str) -> None:
    """Refuse a picture's path that is empty, absolute, or leads out of the folder."""
    if not path:
        raise UserError(f"{where}: has no path")
    if "\0" in path or len(path) > 4096:
        raise UserError(f"{where}: path is not usable ({path[:40]!r}...)")
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or Path(path).is_absolute():
        raise UserError(f"{where}: {path} points outside the data folder; use paths relative to it, without '..'")


def walk_folder(folder: Path) -> dict[str, list[str]]:
    """List `<style>/<content>/<picture>` or `<style>/<picture>` in sorted order, hidden files and folders left out."""
    paths, styles, contents = [], [], []
    for place, folders, files in os.walk(folder, followlinks=True):
        parts = Path(place).relative_to(folder).parts
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if len(parts) < 2 else []
        for name in sorted(files) if parts else []:
            if not name.startswith(".") and Path(name).suffix.lower() in PICTURE_SUFFIXES:
                paths.append("/".join((*parts, name)))
                styles.append(parts[0])
                contents.append(parts[1] if len(parts) == 2 else "")
    if not paths:
        raise UserError(
            f"{folder}: holds no pictures; expected index.csv, <style>/<content>/<picture> or <style>/<picture> "
            f"({', '.join(sorted(PICTURE_SUFFIXES))})"
        )
    empty = [""] * len(paths)
    return {"path": paths, "style": styles, "content": contents, "split": empty, "group": list(empty)}


def read_text_lists(filenames: Path, labels: Path | None) -> dict[str, list[str]]:
    """Read the earlier implementation's lists: one path a line, and one integer label a line, counted from 0.

    Labels 0 to 10 are BAM's styles where all eleven occur; otherwise a style is named by its number. Without
    `labels` the styles are unknown, which only triplets from a file can do with.
    """
    paths = read_lines(filenames)
    for line, path in enumerate(paths, 1):
        check_relative(f"{filenames}, line {line}", path)
    twice = [path for path, count in Counter(paths).items() if count > 1]
    if twice:
        raise UserError(f"{filenames}: lists {twice[0]} more than once")
    numbers = read_integers(labels, 1)[:, 0].tolist() if labels else []
    if labels and len(numbers) != len(paths):
        raise UserError(f"{labels} holds {len(numbers)} labels, {filenames} {len(paths)} pictures; they must pair up")
    if any(number < 0 for number in numbers):
        raise UserError(f"{labels}: holds a negative label; count from 0")
    if set(numbers) == set(range(len(BAM_STYLES))):
        styles = [BAM_STYLES[number] for number in numbers]
    else:
        digits = len(str(max(numbers, default=0)))
        styles = [f"{number:0{digits}d}" for number in numbers]  # zeros in front: sorted by name is sorted by number
    empty = [""] * len(paths)
    return {"path": paths, "style": styles or empty, "content": empty, "split": list(empty), "group": list(empty)}


def read_lines(path: Path) -> list[str]:
    """Lines of a text file, stripped, without the blank ones at its end."""
    try:
        # Not splitlines(), which also splits at characters that a file's name may hold, such as U+2028.
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").split("\n")]
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise UserError(f"{path}: is empty")
    return lines


def read_integers(path: Path, columns: int) -> np.ndarray:
    """Read lines of `columns` integers, separated by spaces or commas, as int64 [lines, columns]."""
    table = []
    for line, text in enumerate(read_lines(path), 1):
        words = text.replace(",", " ").split()
        if len(words) != columns or not all(re.fullmatch("-?[0-9]{1,15}", word) for word in words):
            raise UserError(f"{path}, line {line}: expected {columns} integer(s), found '{text[:60]}'")
        table.append([int(word) for word in words])
    return np.array(table, dtype=np.int64)


def number_names(names: list[str], known: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Number names by their order in `known` if it has them all, else by sorting them; the empty name gets -1.

    Returns the numbers, int64 [n], and the names in order.
    """
    used = set(names) - {""}
    ordered = tuple(name for name in known if name in used) if used <= set(known) else tuple(sorted(used))
    number = {name: position for position, name in enumerate(ordered)} | {"": UNKNOWN}
    return np.array([number[name] for name in names], dtype=np.int64), ordered


def stat_pictures(folder: Path, paths: list[str], source: str) -> tuple[np.ndarray, np.ndarray]:
    """Bytes and time of change in nanoseconds, int64 [n] each, of every picture. `UserError` names those missing."""
    size = np.zeros(len(paths), dtype=np.int64)
    changed = np.zeros(len(paths), dtype=np.int64)
    missing, no_files = [], []
    for row, path in enumerate(paths):
        if not path.isascii() and not is_text(path):
            raise UserError(f"{source}: the name {path!r} is not UTF-8 text; rename that file or folder")
        try:
            status = os.stat(f"{folder}/{path}")  # noqa: PTH116 (a Path for each picture would take longer)
        except (OSError, ValueError):
            missing.append(path)
            continue
        if not stat.S_ISREG(status.st_mode):
            no_files.append(path)
        size[row], changed[row] = status.st_size, status.st_mtime_ns
    if missing:
        raise UserError(
            f"{source}: {len(missing)} of its {len(paths)} pictures are not in {folder}, first {missing[0]}; "
            f"correct the paths or take the lines out"
        )
    if no_files:
        raise UserError(f"{source}: {no_files[0]} is a folder or a device, no picture; take it out")
    return size, changed


def is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8; names of files on Linux may hold any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


# Splitting.


def assign_splits(
    style: np.ndarray, content: np.ndarray, group: list[str], given: list[str], seed: int, source: str
) -> np.ndarray:
    """Give every picture without a split one: 80:10:10, stratified by style and content, groups kept whole.

    Goes through the groups, large ones first and otherwise in an order that only their names and `seed` decide,
    and puts each where its styles and its style x content cells lack most. A group of which a picture has a given
    split follows it. Returns text [n]. Raises `UserError` for a group with two given splits.
    """
    members: dict[str, list[int]] = {}
    for row, name in enumerate(group):
        members.setdefault(name, []).append(row)
    split = np.array(given, dtype="<U10")
    free = []
    for name, rows in members.items():
        chosen = {given[row] for row in rows} - {""}
        if len(chosen) > 1:
            raise UserError(f"{source}: group '{name}' is in the splits {' and '.join(sorted(chosen))}; keep it in one")
        if chosen:
            split[rows] = chosen.pop()
        else:
            free.append(name)
    cells = [("style", s) for s in style.tolist()], list(zip(style.tolist(), content.tolist(), strict=True))
    lacking = count_lacking([[strata[row] for name in free for row in members[name]] for strata in cells])
    shuffled = sorted(free, key=lambda name: hashlib.sha256(f"{seed}\n{name}".encode("utf-8", "replace")).digest())
    for name in sorted(shuffled, key=lambda name: -len(members[name])):
        strata = [stratum[row] for row in members[name] for stratum in cells]
        scores = [sum(lacking[stratum][which] for stratum in strata) for which in range(len(SPLITS))]
        best = scores.index(max(scores))
        split[members[name]] = SPLITS[best]
        for stratum in strata:
            lacking[stratum][best] -= STYLE_WEIGHT if stratum[0] == "style" else 1
    return split


def count_lacking(levels: list[list[tuple]]) -> dict[tuple, list[float]]:
    """How many pictures each split should get of each stratum; of a style's, at least one for val and for test.

    The styles count twice as heavily as their cells, in which a tenth is often less than one picture.
    """
    lacking = {}
    for level, strata in enumerate(levels):
        for stratum, count in Counter(strata).items():
            quota = [count * share for share in SPLIT_SHARES]
            if level == 0 and count >= len(SPLITS):
                quota[1:] = [max(1.0, part) for part in quota[1:]]
                quota[0] = count - sum(quota[1:])
            lacking[stratum] = [part * (STYLE_WEIGHT if level == 0 else 1) for part in quota]
    return lacking


def check_trainable(collection: Collection, label: str) -> None:
    """Refuse a collection that a net cannot be trained and validated on.

    `label` is "style" or "content". Raises `UserError` for fewer than two classes and for a class with fewer than
    two training pictures (an anchor needs a positive) or none for validation.
    """
    names, number = classes_of(collection, label)
    if len(names) < 2:
        known = f"only {names[0]}" if names else "none at all"
        raise UserError(f"{collection.source}: needs pictures of at least two {label}s, it has {known}")
    counts = {split: np.bincount(number[collection.rows(split)] + 1, minlength=len(names) + 1)[1:] for split in SPLITS}
    for position, name in enumerate(names):
        train, val, test = (int(counts[split][position]) for split in SPLITS)
        if train < 2 or val < 1:
            raise UserError(
                f"{collection.source}: {label} '{name}' has too few pictures ({train} for training, {val} for "
                f"validation, {test} for test); add pictures, or groups, or leave the {label} out"
            )


def classes_of(collection: Collection, label: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Names and numbers, int64 [n], of the classes that `label` ("style" or "content") means."""
    if label == "style":
        return collection.styles, collection.style
    return collection.contents, collection.content
