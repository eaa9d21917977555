"""From a folder of pictures to batches: which pictures there are, their splits, their pixels, what the net sees of them.

A data folder has an `index.csv` with the header `path,style` and optionally `content`, `split`, `group` (pictures of one
group stay in one split), or else folders: `DIR/<style>/<content>/<picture>` or `DIR/<style>/<picture>`, or either of
them below `DIR/train`, `DIR/val` and `DIR/test`.

A picture's way: `read_picture` decodes it and `to_square` crops it, once; `load_pictures` keeps the uint8 squares;
`batches` gathers some, crops them anew, at random in training, and centres their colours.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError
from torch import Tensor, distributed
from torch.nn.functional import grid_sample
from tqdm.contrib.concurrent import thread_map

from utils import UserError, rank, read_table, take_lock, world, write_table

# The classes of BAM in the public re-implementation's order: seven media, then four emotions.
BAM_STYLES = ("3D Graphics", "Comic", "Pencil Sketch", "Oil Paint", "Pen Ink", "Vector Art", "Water Color")
BAM_STYLES += ("Scary", "Gloomy", "Happy", "Peaceful")
BAM_CONTENTS = ("bicycle", "bird", "building", "cars", "cat", "dog", "flower", "people", "tree")
SPLITS = ("train", "val", "test")
SPLIT_FOLDERS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLIT_FOLDERS |= dict.fromkeys(("val", "valid", "validation", "dev", "eval"), "val")
# Pillow knows more formats, some of which run other programs; and not every Pillow knows all of these.
Image.init()
FORMATS = [form for form in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF") if form in Image.OPEN]
SUFFIXES = {suffix for suffix, form in Image.EXTENSION.items() if form in FORMATS}
RUN_FILES = {".lock", "split.csv", "embeddings.npz"}  # what tells a run's or a cache's folder
# A long text beside the pixels is no reason to refuse them, nor is a large scan.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 2**30
Image.MAX_IMAGE_PIXELS = 2**29
STORED_PER_SEEN = 8 / 7  # squares are kept a little larger than the net sees them: 256 pixels for 224
GPU_RESERVE = 4e9  # bytes of a GPU's memory that are left to training
# Mean and deviation by which colours in [0, 1] are centred: ImageNet's, as torchvision's weights expect, or none.
COLOURS = {"centred": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))}


@dataclass(frozen=True)
class Collection:
    """Labelled pictures, a row each: `style` and `content`, int64 [n], number `styles` and `contents`; -1 is unknown.

    `split`, text [n], is train, val, test, or empty for a picture that is left out.
    """

    folder: Path
    paths: list[str]
    styles: list[str]
    contents: list[str]
    style: np.ndarray
    content: np.ndarray
    split: np.ndarray

    def classes(self, label: str) -> tuple[list[str], np.ndarray]:
        """Names and numbers, int64 [n], of what `label` ("style" or "content") means."""
        return (self.styles, self.style) if label == "style" else (self.contents, self.content)

    def rows(self, split: str, label: str = "style") -> np.ndarray:
        """The rows of a split, or of "all" three, whose label is known, int64 [k]."""
        in_split = self.split != "" if split == "all" else self.split == split
        return np.flatnonzero(in_split & (self.classes(label)[1] >= 0))

    def facts(self) -> dict[str, Any]:
        """What config.json says of the data; the fingerprint is another if a picture, a label or a split is."""
        sizes = [(self.folder / path).stat().st_size for path in self.paths]
        state = (self.paths, sizes, self.style.tolist(), self.content.tolist(), self.split.tolist())
        counts = {split: len(self.rows(split)) for split in SPLITS}
        return {"folder": str(self.folder.resolve()), "pictures": counts, "fingerprint": hash_of(state)}


def hash_of(value: Any) -> str:
    """A short hash of plain data, the same on every machine."""
    return hashlib.sha256(repr(value).encode("utf-8", "backslashreplace")).hexdigest()[:16]


# Which pictures there are, and their splits.


def read_collection(folder: Path, split_seed: int = 0, known: dict[str, str] | None = None) -> Collection:
    """Read a data folder and give every picture its split, 80:10:10 where the index has none.

    `known`, the split of each path in an earlier run, outranks both; pictures that are new since then are left out.
    Raises `UserError` for a folder that is missing or not as described above.
    """
    if not folder.is_dir():
        raise UserError(
            f"--data {folder}: is no folder; correct it. BAM comes by `python -m bam.harvest --db bam.sqlite --out data/bam`, "
            f"the stand-in collection, to try things, by `python -m standin data/standin`"
        )
    table = read_index(folder) if (folder / "index.csv").exists() else walk(folder)
    wanted = [row["path"] for row in table] if known is None else [path for path, split in known.items() if split]
    there = {row["path"] for row in table if (folder / row["path"]).is_file()}
    gone = [path for path in wanted if path not in there]
    if gone:
        what = f"{len(gone)} of the pictures that {'index.csv' if known is None else 'stage 1'} had, first {gone[0]}"
        raise UserError(f"--data {folder}: lacks {what}; put them back, or train stage 1 without them")
    if known is not None:
        new = sum(row["path"] not in known for row in table)
        if new:
            print(f"data: {new} pictures are new since stage 1 and left out")
        there &= known.keys()
        table = [{**row, "split": known[row["path"]]} for row in table if row["path"] in there]
    style, styles = number_names([row["style"] for row in table], BAM_STYLES)
    content, contents = number_names([row.get("content", "") for row in table], BAM_CONTENTS)
    split = np.array([row.get("split", "") for row in table], dtype="<U5")
    if known is None:
        # Files that are equal byte for byte are a group where the index gives none.
        sizes = [(folder / row["path"]).stat().st_size for row in table]
        common, group, first = Counter(sizes), [], {}
        for row, size in zip(table, sizes, strict=True):
            same = hashlib.sha256((folder / row["path"]).read_bytes()).digest() if common[size] > 1 else row["path"]
            group.append(row.get("group") or first.setdefault(same, f"path:{row['path']}"))
        copies = sum(not row.get("group") for row in table) - len(first)
        if copies:
            print(f"data: {copies} files are copies of others, byte for byte; those of no given split stay together")
        split = draw_splits(style, content, group, split, split_seed)
    collection = Collection(folder, [row["path"] for row in table], styles, contents, style, content, split)
    counts = ", ".join(f"{len(collection.rows(name))} {name}" for name in SPLITS)
    counts += f", {(style < 0).sum()} of no style" if (style < 0).any() else ""
    known_contents = f"{len(contents) or 'no'} contents"
    print(f"data: {len(table)} pictures ({counts}), {known_contents}, {len(styles)} styles: {', '.join(styles)}")
    return collection


def read_index(folder: Path) -> list[dict[str, str]]:
    """The rows of an index.csv, without spaces around values. Raises `UserError` for one that is not as it should be."""
    index, seen = folder / "index.csv", set()
    table = read_table(index)
    for line, row in enumerate(table, 2):
        if None in row or not row.get("path") or "style" not in row or row["path"] in seen:
            problem = "has no path or no style, is the path's second, or outgrows the header"
            raise UserError(f"{index}, row {line}: {problem}, which is path,style with commas, in UTF-8")
        row.update({name: value.strip() for name, value in row.items()})
        if row.get("split", "") not in ("", *SPLITS):
            raise UserError(f"{index}, row {line}: split is {row['split']}, not train, val or test, or empty")
        seen.add(row["path"])
    if not table:
        raise UserError(f"{index}: lists no pictures; delete it to go by the folders' names")
    return table


def walk(folder: Path) -> list[dict[str, str]]:
    """The rows that an index.csv would have, by the folders' names. Hidden files are none; what else is passed over is said.

    Raises `UserError` where no pictures are left, in all or in the folder of a style.
    """
    table, passed_over, styles, errors = [], Counter(), set(), []
    names = {path.name.lower() for path in folder.iterdir() if path.is_dir() and path.name[0] != "."}
    by_split = names <= SPLIT_FOLDERS.keys() or len(names & SPLIT_FOLDERS.keys()) > 1
    for place, folders, files in os.walk(folder, onerror=errors.append, followlinks=True):
        path, here = Path(place).relative_to(folder), Path(place).resolve()
        split = SPLIT_FOLDERS.get(path.parts[0].lower()) if by_split and path.parts else ""
        style, *contents = path.parts[by_split:] or [""]
        reason = "" if style else "in no style's folder"
        if len(contents) > 1:  # no links there: two may lead to each other, as others may to a folder above
            reason, folders[:] = "too deep", [name for name in folders if not (here / name).is_symlink()]
        folders[:] = sorted(n for n in folders if n[0] != "." and not here.is_relative_to((here / n).resolve()))
        if split is None:
            reason = "in no split's folder"
        if path.parts and not RUN_FILES.isdisjoint(files):
            reason, folders[:] = "of a run or a cache", []
        for name in sorted(name for name in files if name[0] != "."):
            suffix = Path(name).suffix.lower()
            if reason or suffix not in SUFFIXES:
                passed_over[place, reason or suffix or "no suffix"] += 1
            else:
                found = {"path": (path / name).as_posix(), "style": style, "content": "".join(contents)}
                table.append({**found, "split": split})
            if reason in ("", "too deep"):
                styles.add(style)
    passed_over.update((error.filename, error.strerror) for error in errors)
    if passed_over:
        most = [f"{count} in {place} ({why})" for (place, why), count in passed_over.most_common(8)]
        print(f"data: {passed_over.total()} files are passed over: {', '.join(most)}{', ...' * (len(passed_over) > 8)}")
    empty = sorted(styles - {row["style"] for row in table})
    if empty or not table:
        raise UserError(
            f"--data {folder}: no pictures {'of style ' + ', '.join(empty) if empty else 'there'}; expected index.csv, "
            f"<style>/<content>/<picture> or <style>/<picture>, pictures being {' '.join(sorted(SUFFIXES))}"
        )
    return table


def number_names(names: list[str], known: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Number names, int64 [n], by their order in `known` if all are in it, else in sorted order; the empty name is -1."""
    names = [unicodedata.normalize("NFC", name) for name in names]  # file systems spell accents in two ways
    used = set(names) - {""}
    ordered = [name for name in known if name in used] if used <= set(known) else sorted(used)
    number = {"": -1} | {name: place for place, name in enumerate(ordered)}
    return np.array([number[name] for name in names], dtype=np.int64), ordered


def draw_splits(style: np.ndarray, content: np.ndarray, group: list[str], given: np.ndarray, seed: int) -> np.ndarray:
    """Give every row without a `given` split one, text [n]: 80:10:10, stratified by style and content, groups whole.

    Goes through the groups, large ones first and otherwise in an order that their names and `seed` decide, and puts each
    where its styles, and half as much its cells of style and content, lack most.
    """
    members: dict[str, list[int]] = {}
    for row, name in enumerate(group):
        members.setdefault(name, []).append(row)
    split = given.copy()
    for rows in members.values():
        split[rows] = np.where(given[rows] == "", max(given[rows]), given[rows])  # all of a group follow one of it
    free = [name for name, rows in members.items() if not split[rows[0]]]
    strata = [((s,), (s, c)) for s, c in zip(style.tolist(), content.tolist(), strict=True)]
    lacking: dict[tuple, np.ndarray] = {}
    for stratum, count in Counter(part for name in free for row in members[name] for part in strata[row]).items():
        # Of a style at least one picture to validate and one to test, if it has three.
        val = test = max(1.0, 0.1 * count) if len(stratum) == 1 and count >= 3 else 0.1 * count
        lacking[stratum] = np.array([count - val - test, val, test]) * (2 if len(stratum) == 1 else 1)
    shuffled = sorted(free, key=lambda name: hashlib.sha256(f"{seed}\n{name}".encode("utf-8", "replace")).digest())
    for name in sorted(shuffled, key=lambda name: -len(members[name])):
        parts = [part for row in members[name] for part in strata[row]]
        best = int(sum(lacking[part] for part in parts).argmax())
        split[members[name]] = SPLITS[best]
        for part in parts:
            lacking[part][best] -= 2 if len(part) == 1 else 1
    return split


# Pixels. Pictures are decoded once, into a memory map that every later run uses too.


class UnreadablePicture(Exception):
    """A file that holds no whole picture. Its message says why."""


def read_picture(source: Path | bytes, least: int | None = None) -> np.ndarray:
    """Decode a picture: upright, its first frame, on white where it is transparent, uint8 RGB [height, width, 3].

    Large JPEGs come at an eighth, a quarter or half of their size if their sides stay twice `least` pixels. Of metadata
    the orientation alone counts. Raises `UnreadablePicture` for what is no whole picture (but damage inside a JPEG is
    not noticed), and `OSError` where the file itself cannot be read.
    """
    data = source if isinstance(source, bytes) else source.read_bytes()
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if least:
                image.draft(None, (2 * least, 2 * least))
            image.load()
            return to_rgb(image)
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises all kinds of things, for metadata too, on which OpenCV is asked
        np.empty(2**28, np.uint8)  # raises where memory is short, which decoders do not tell from damage
        unknown = isinstance(error, UnidentifiedImageError)
        if unknown or not isinstance(error, OSError):  # that is, unless pixels are missing, which OpenCV would make up
            with contextlib.suppress(cv2.error):  # raised for what it cannot decode
                whole = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
                if whole is not None and whole.dtype == np.uint8 and whole.shape[2:] == (4,):  # transparent
                    return to_rgb(Image.fromarray(cv2.cvtColor(whole, cv2.COLOR_BGRA2RGBA)))
                picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
                return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
        why = "is empty or of no known format" if unknown else f"cannot be decoded: {error or type(error).__name__}"
        raise UnreadablePicture(f"it {why}") from error


def to_rgb(image: Image.Image) -> np.ndarray:
    """A picture of any of Pillow's modes as uint8 RGB [height, width, 3]; see `read_picture`."""
    with contextlib.suppress(Exception):  # EXIF is easily broken; in place the pixels are turned before it is written
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):  # grey beyond 8 bits, which Pillow would cut off
        grey = np.asarray(image).astype(np.float32)
        white = next(top for top in (1, 255, 65535, 2**32) if grey.max() <= top and (image.mode == "F" or top > 255))
        grey[grey == image.info.get("transparency")] = white
        image = Image.fromarray((grey * (255 / white)).round().clip(0, 255).astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def to_square(picture: np.ndarray, side: int) -> np.ndarray:
    """The central square of uint8 [height, width, 3], resized to [side, side, 3]."""
    short = min(picture.shape[:2])
    top, left = ((length - short) // 2 for length in picture.shape[:2])
    square = picture[top : top + short, left : left + short]
    return cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA if short > side else cv2.INTER_LINEAR)


def load_pictures(
    collection: Collection, image_size: int, device: torch.device, cache: Path | None, skip_unreadable: bool = False
) -> tuple[Collection, Tensor]:
    """Every picture's square, uint8 [n, side, side, 3]: in a GPU's memory if it fits there, else memory-mapped.

    The map is kept in `cache`, else beside the data, else, where that cannot be written, in the user's cache folder.
    Pictures that cannot be decoded are in no split of the collection that comes with the squares, if `skip_unreadable`;
    otherwise a `UserError` names them.
    """
    data, side = collection.folder.resolve(), round(image_size * STORED_PER_SEEN)
    name, folder = f"{data.name}-{hash_of(str(data))[:8]}", collection.folder / ".pictures"
    if cache:
        folder = cache / name
    elif not os.access(folder if folder.exists() else data, os.W_OK):
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sketching-with-style" / name
        print(f"pictures: {collection.folder} cannot be written, so the decoded ones are kept in {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    files = [(path, (stat := (data / path).stat()).st_size, stat.st_mtime_ns) for path in collection.paths]
    target = folder / f"{side}-{hash_of(files)}.npy"
    try:
        if rank() == 0:
            lock = take_lock(folder / ".lock", wait=True)
            if not target.exists():
                decode_all(collection.folder, files, side, target)
            lock.release()
        if world() > 1:
            distributed.barrier()
        mapped, table = np.load(target, mmap_mode="r"), read_table(target.with_suffix(".csv"))
    except (ValueError, EOFError) as error:
        raise UserError(f"{folder}: a map is not whole ({error}); delete the folder, it is made anew") from error
    broken = [f"{row['path']} ({row['problem']})" for row in table if row["problem"]]
    if broken:
        said = f"{len(broken)} pictures cannot be read: {', '.join(broken[:20])}{', ...' * (len(broken) > 20)}"
        if not skip_unreadable:
            raise UserError(f"{said}; replace them, or leave them out by --skip-unreadable")
        print(f"pictures: {said}; they are left out")
        collection = replace(collection, split=np.where([not row["problem"] for row in table], collection.split, ""))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch would rather have arrays that it can write to
        squares, where = torch.from_numpy(mapped), folder
    if device.type == "cuda" and squares.numel() + GPU_RESERVE < torch.cuda.mem_get_info(device)[0]:
        there, where = torch.empty(squares.shape, dtype=torch.uint8, device=device), "the GPU's memory"
        for part, source in zip(there.split(4096), squares.split(4096), strict=True):
            part.copy_(source)
        squares = there
    print(f"pictures: squares of {side} pixels, {squares.numel() / 1e9:.1f} GB in {where}")
    return collection, squares


def decode_all(data: Path, files: list[tuple[str, int, int]], side: int, target: Path) -> None:
    """Decode pictures in parallel into a memory map, uint8 [n, side, side, 3], and its table: path,size,changed,problem.

    Squares of pictures that did not change are taken over from the map before, which is then deleted.
    """
    older, kept = list(target.parent.glob(f"{side}-*.npy")), {}
    for file in older:
        for square, row in zip(np.load(file, mmap_mode="r"), read_table(file.with_suffix(".csv")), strict=True):
            kept[row["path"], int(row["size"]), int(row["changed"])] = square, row["problem"]
    part = target.with_name("squares.part")  # the next start writes over that of one that was killed
    try:
        squares = np.lib.format.open_memmap(part, "w+", np.uint8, (len(files), side, side, 3))
        if hasattr(os, "posix_fallocate"):  # space is taken at once: a map that finds the disk full kills its process
            with part.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, part.stat().st_size)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(error.errno, f"{error.strerror}; choose another --cache", str(part)) from error

    def decode(file: tuple[str, int, int], square: np.ndarray) -> tuple[str, int, int, str]:
        try:
            square[:], problem = kept.get(file) or (to_square(read_picture(data / file[0], side), side), "")
        except UnreadablePicture as error:
            problem = str(error)
        return *file, problem

    cv2.setNumThreads(1)  # each thread here has a picture of its own
    cv2.utils.logging.setLogLevel(0)  # what is wrong with one is in the table
    rows = thread_map(decode, files, squares, desc="reading pictures", disable=None)
    write_table(target.with_suffix(".csv"), ("path", "size", "changed", "problem"), rows)
    squares.flush()
    part.replace(target)
    for file in older:  # the map first: one that a kill left without its table could not be read
        file.unlink()
        file.with_suffix(".csv").unlink()


# Batches.


def split_batches(examples: Tensor, batch_size: int, even: bool = True) -> list[Tensor]:
    """Cut an epoch's examples, [n, ...], into as few batches as possible; `even` leaves no small one at the end.

    Of each batch comes the part of this process, of those that `torchrun` started.
    """
    whole = examples.tensor_split(-(-len(examples) // batch_size)) if even else examples.split(batch_size)
    return [batch[rank() :: world()] for batch in whole]


def draw_crops(rows: np.ndarray, least: float, mirror: bool, side: int, generator: np.random.Generator) -> Tensor:
    """Draw a square crop for each of `rows`, int64 [...]: row, left, top, side, mirrored (0 or 1), int64 [..., 5].

    Each has between `least` (0, 1] and all of the area of a square of `side` pixels, anywhere in it; half are
    mirrored, if `mirror`. Colours stay as they are: they are style.
    """
    chance = generator.random((4, *rows.shape))
    width = (side * np.sqrt(least + (1 - least) * chance[0])).round()
    corner = np.floor(chance[1:3] * (side - width + 1))
    return torch.from_numpy(np.stack([rows, *corner, width, (chance[3] < 0.5) & mirror], axis=-1).astype(np.int64))


class View(NamedTuple):
    """How a net sees pictures: on which device, in how many pixels, with which of `COLOURS`."""

    device: torch.device
    image_size: int
    colours: str


def batches(squares: Tensor, plan: Sequence[Tensor], view: View) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each batch of a plan, on the device: its rows, int64 [b] or [b, k], and its pictures.

    The plan's batches are int64 [b, 5] or [b, k, 5] (`draw_crops`), or [b, 1]: rows alone, of which the middle is seen.
    Pictures are float32 [b k, 3, image_size, image_size], channels-last, which convolutions are fastest on.
    """
    device, size, colours = view
    there, lengths = torch.cat(list(plan)).to(device), [len(batch) for batch in plan]  # all of an epoch at once
    rows_there, crops_there = there[..., 0].contiguous().split(lengths), there[..., 1:].split(lengths)
    mean, deviation = (torch.tensor(values, device=device).repeat(size) for values in COLOURS[colours])
    scale, shift = 1 / (255 * deviation), -mean / deviation
    parts = (squares[rows.flatten()] for rows in rows_there) if squares.is_cuda else gather(squares, plan, device)
    for rows, part, crops in zip(rows_there, parts, crops_there, strict=True):
        if not crops.shape[-1]:
            start = (part.shape[1] - size) // 2
            pictures = part[:, start : start + size, start : start + size].float()
        else:
            pictures = (crop_on_gpu if part.is_cuda else crop_on_cpu)(part, size, crops.flatten(0, -2))
        # (value / 255 - mean) / deviation as one multiplication and addition of whole lines of pixels
        lines = pictures.view(len(pictures), size, 3 * size)
        yield rows, torch.addcmul(shift, lines, scale, out=lines).view_as(pictures).permute(0, 3, 1, 2)


def gather(squares: Tensor, plan: Sequence[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Copy the squares of each batch's rows out of the memory map, one batch ahead of its use: uint8 [m, side, side, 3].

    To a GPU they go by a stream of their own, beside the net's work.
    """
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def fetch(batch: Tensor) -> Tensor:
        rows = batch[..., 0].flatten()
        part = torch.empty((len(rows), *squares.shape[1:]), dtype=torch.uint8, pin_memory=stream is not None)
        np.take(squares.numpy(), rows.numpy(), axis=0, out=part.numpy(), mode="clip")  # "raise" buffers
        with torch.cuda.stream(stream):
            return part.to(device, non_blocking=True)

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(fetch, plan[0])
        for following in [*plan[1:], None]:
            part = ahead.result()
            if stream:
                torch.cuda.current_stream().wait_stream(stream)
                part.record_stream(torch.cuda.current_stream())  # so that its memory is not reused too early
            if following is not None:
                ahead = pool.submit(fetch, following)
            yield part


def crop_on_cpu(squares: Tensor, image_size: int, crops: Tensor) -> Tensor:
    """Crop and resize one by one, which OpenCV is fastest at: float32 [n, image_size, image_size, 3]."""
    cropped = np.empty((len(squares), image_size, image_size, 3), np.uint8)
    for square, (left, top, side, mirrored), into in zip(squares.numpy(), crops.tolist(), cropped, strict=True):
        cv2.resize(square[top : top + side, left : left + side], (image_size, image_size), dst=into)
        if mirrored:
            cv2.flip(into, 1, dst=into)
    return torch.from_numpy(cropped).float()


def crop_on_gpu(squares: Tensor, image_size: int, crops: Tensor) -> Tensor:
    """The same for all pictures at once, without rounding: float32 [n, image_size, image_size, 3]."""
    steps = torch.linspace(0.5 / image_size, 1 - 0.5 / image_size, image_size, device=squares.device)
    left, top, side = (crops[:, :3, None] * (2 / squares.shape[1])).unbind(dim=1)  # a square goes from -1 to 1
    x = torch.addcmul(left - 1, side, (crops[:, 3:] - steps).abs())  # mirrored ones from the right
    y = torch.addcmul(top - 1, side, steps)
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1)
    cropped = grid_sample(squares.permute(0, 3, 1, 2).float(), grid, padding_mode="border", align_corners=False)
    return cropped.permute(0, 2, 3, 1).contiguous()


@torch.inference_mode()
def predict(net: Callable, squares: Tensor, rows: np.ndarray, view: View, batch_size: int = 256) -> Tensor:
    """What a net in evaluation mode makes of rows, int64 [n], uncropped, in every process alike: float32 [n, d]."""
    plan = torch.from_numpy(rows)[:, None].split(min(256, batch_size))
    return torch.cat([net(pictures).float() for _, pictures in batches(squares, plan, view)])
