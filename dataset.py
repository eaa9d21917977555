"""From a folder of pictures to batches: which pictures there are, their splits, their pixels, what the net sees of them.

A data folder has an `index.csv` with the header `path,style` and optionally `content`, `split`, `group` (pictures of one
group stay in one split), or else folders: `DIR/<style>/<content>/<picture>` or `DIR/<style>/<picture>`, or either of
them below `DIR/train`, `DIR/val` and `DIR/test`.

A picture's way: `read_picture` decodes it and `to_square` crops it, once; `load_pictures` keeps the uint8 squares;
`batches` gathers some, crops them anew, at random in training, and centres their colours.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError
from torch import Tensor, distributed
from torch.nn.functional import grid_sample
from tqdm.contrib.concurrent import thread_map

from utils import UserError, read_table, take_lock, write_whole

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
# A long text beside the pixels is no reason to refuse them.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 2**30
Image.MAX_IMAGE_PIXELS = 10**8  # pictures of more than twice that are OpenCV's, which needs far less memory
warnings.filterwarnings("ignore", "The given NumPy array is not writ|Image size ")  # maps are for reading
STORED_PER_SEEN = 8 / 7  # squares are kept a little larger than the net sees them: 256 pixels for 224
GPU_RESERVE = 4e9  # bytes of a GPU's memory that are left to training
# Mean and deviation by which colours in [0, 1] are centred: ImageNet's, as torchvision's weights expect, or none.
COLOURS = {"centred": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))}


@dataclass(frozen=True)
class Collection:
    """Labelled pictures, a row each. `split`, text [n], is train, val, test, or empty for one that is left out.

    For the labels "style" and "content", `classes` are their names and `number`, int64 [n], is of which class each
    picture is, -1 where that is unknown. `facts` are for config.json: their fingerprint is another if a picture's path
    or size, a label or a split is.
    """

    folder: Path
    paths: list[str]
    stats: list[os.stat_result]
    classes: dict[str, list[str]]
    number: dict[str, np.ndarray]
    split: np.ndarray
    facts: dict[str, Any]


# Which pictures there are, and their splits.
def read_collection(folder: Path, split_seed: int | None = 0, known: dict[str, str] | None = None) -> Collection:
    """Read a data folder, as described above. Where it gives a picture no split, one is drawn if there is a `split_seed`.

    `known`, the split of each path in an earlier run, outranks both, and leaves out what is new. Raises `UserError`.
    """
    if not folder.is_dir():
        ways = "`python -m bam.harvest --db bam.sqlite --out data/bam` gets BAM, `python -m standin data/standin` draws"
        raise UserError(f"--data {folder}: is no folder; correct it. {ways} the stand-in collection, to try things")
    table = read_index(folder / "index.csv") if (folder / "index.csv").exists() else walk(folder, split_seed is None)
    there = {row["path"] for row in table if (folder / row["path"]).is_file()}
    wanted = [row["path"] for row in table] if known is None else [path for path, split in known.items() if split]
    if gone := [path for path in wanted if path not in there]:
        what = f"lacks {len(gone)} pictures that {'index.csv' if known is None else 'stage 1'} has, first {gone[0]}"
        raise UserError(f"--data {folder}: {what}; put them back")
    if known is not None:
        if new := len(there - known.keys()):
            print(f"data: {new} pictures are new since stage 1 and left out")
        table = [{**row, "split": known[row["path"]]} for row in table if row["path"] in there & known.keys()]
    paths, split = [row["path"] for row in table], np.array([row.get("split", "") for row in table], dtype="<U5")
    stats, classes, number = [(folder / path).stat() for path in paths], {}, {}
    for label, bam in (("style", BAM_STYLES), ("content", BAM_CONTENTS)):  # in BAM's order if all names are BAM's
        names = [unicodedata.normalize("NFC", row.get(label, "")) for row in table]  # systems spell accents in two ways
        used = set(names) - {""}
        classes[label] = [name for name in bam if name in used] if used <= set(bam) else sorted(used)
        places = {"": -1} | {name: place for place, name in enumerate(classes[label])}
        number[label] = np.array([places[name] for name in names], dtype=np.int64)
    if known is None and split_seed is not None:
        # Files that are equal byte for byte are a group, named after the first of them, where the index gives none.
        common, group, first = Counter(stat.st_size for stat in stats), [], {}
        for row, path, stat in zip(table, paths, stats, strict=True):
            same = sha256((folder / path).read_bytes()).digest() if common[stat.st_size] > 1 else path
            group.append(row.get("group") or first.setdefault(same, f"path:{path}"))
        if copies := sum(not row.get("group") for row in table) - len(first):
            print(f"data: {copies} files are copies of others, byte for byte; those of no given split stay together")
        split = draw_splits(*number.values(), group, split, split_seed)
    state = paths, [stat.st_size for stat in stats], [one.tolist() for one in number.values()], split.tolist()
    fingerprint = sha256(repr(state).encode("utf-8", "backslashreplace")).hexdigest()[:16]
    facts = {"folder": str(folder.resolve()), "fingerprint": fingerprint}
    counts = {name: (split == name).sum() for name in SPLITS} | {"of no style": (number["style"] < 0).sum()}
    said = "".join(f", {count} {name}" for name, count in counts.items() if count)
    styles, contents = classes.values()
    print(f"data: {len(table)} pictures{said}; {len(contents)} contents; {len(styles)} styles: {', '.join(styles)}")
    return Collection(folder, paths, stats, classes, number, split, facts)


def read_index(index: Path) -> list[dict[str, str]]:
    """The rows of an index.csv, without spaces around values. Raises `UserError` for one that is not as it should be."""
    table, seen = read_table(index), set()
    for line, row in enumerate(table, 2):
        longer = row.pop(None, "")
        row |= {name: value.strip() for name, value in row.items()}
        odd = longer or not row.get("path") or "style" not in row or row["path"] in seen
        if odd or row.get("split", "") not in ("", *SPLITS):
            problem = "needs a path of its own and as split train, val, test or nothing; the header needs path,style"
            raise UserError(f"{index}, row {line}: {problem}")
        seen.add(row["path"])
    if not table:
        raise UserError(f"{index}: lists no pictures; delete it to go by the folders' names")
    return table


def walk(folder: Path, flat: bool) -> list[dict[str, str]]:
    """The rows that an index.csv would have; if `flat`, pictures beside no folders too, of no style.

    Says what is passed over. Raises `UserError` where no pictures are left, in all or in the folder of a style.
    """
    table, passed_over, styles, errors = [], Counter(), set(), []
    inside = [path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."]
    names, flat = {path.name.lower() for path in inside}, flat and all(path.is_symlink() for path in inside)
    by_split = names <= SPLIT_FOLDERS.keys() or len(names & SPLIT_FOLDERS.keys()) > 1
    for place, folders, files in os.walk(folder, onerror=errors.append, followlinks=True):
        path, here = Path(place).relative_to(folder), Path(place).resolve()
        split = SPLIT_FOLDERS.get(path.parts[0].lower()) if by_split and path.parts else ""
        parts = () if split is None else path.parts[int(by_split) :]
        style, content, *deeper = (*parts, "", "")
        folders[:] = sorted(n for n in folders if n[0] != "." and not here.is_relative_to((here / n).resolve()))
        if any(deeper):  # links to each other would go in circles, as those to a folder above would
            folders[:] = [name for name in folders if not (here / name).is_symlink()]
        if path.parts and {".lock", "split.csv", "embeddings.npz"} & set(files):  # a cache, a run, an evaluation
            style, folders[:] = "", []
        for name in sorted(name for name in files if name[0] != "."):
            suffix = Path(name).suffix.lower()
            if (style or (flat and not path.parts)) and suffix in SUFFIXES and not any(deeper):
                table.append({"path": (path / name).as_posix(), "style": style, "content": content, "split": split})
            else:
                passed_over[place, suffix or "no suffix"] += 1
            styles.add(style)
    passed_over.update((error.filename, error.strerror) for error in errors)
    expected = "<style>/<content>/<picture> or <style>/<picture>, pictures being " + " ".join(sorted(SUFFIXES))
    if passed_over:
        most = ", ".join(f"{count} in {place} ({what})" for (place, what), count in passed_over.most_common(8))
        print(f"data: {passed_over.total()} files are passed over, first {most}; expected {expected}")
    empty = sorted(styles - {"", *(row["style"] for row in table)})
    if empty or not table:
        raise UserError(f"--data {folder}: no pictures in {', '.join(empty) or 'it'}; expected index.csv, {expected}")
    return table


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
        split[rows] = np.where(given[rows] == "", max(given[rows]), given[rows])  # where some of a group have one
    free = [name for name, rows in members.items() if not split[rows[0]]]
    strata = [((s,), (s, c)) for s, c in zip(style.tolist(), content.tolist(), strict=True)]
    lacking: dict[tuple, np.ndarray] = {}
    for stratum, count in Counter(part for name in free for row in members[name] for part in strata[row]).items():
        # Of a style at least one picture to validate and one to test, if it has three.
        val = test = max(1.0, 0.1 * count) if len(stratum) == 1 and count >= 3 else 0.1 * count
        lacking[stratum] = np.array([count - val - test, val, test]) * (2 if len(stratum) == 1 else 1)
    shuffled = {name: sha256(f"{seed}\n{name}".encode("utf-8", "replace")).digest() for name in free}
    for name in sorted(free, key=lambda name: (-len(members[name]), shuffled[name])):
        parts = [part for row in members[name] for part in strata[row]]
        best = int(sum(lacking[part] for part in parts).argmax())
        split[members[name]] = SPLITS[best]
        for part in parts:
            lacking[part][best] -= 2 if len(part) == 1 else 1
    return split


# Pixels. Pictures are decoded once, into a memory map that every later run uses too.
def read_picture(source: Path | bytes, least_side: int = 2**20) -> np.ndarray:
    """Decode a picture: upright, its first frame, on white where it is transparent, uint8 RGB [height, width, 3].

    JPEGs come at an eighth, a quarter or half of their size where their sides stay at least twice `least_side`. Of
    metadata the orientation alone counts. Raises `UserError` for what is no whole picture (but damage inside a JPEG is
    not noticed), and `OSError` where the file itself cannot be read.
    """
    data = source if isinstance(source, bytes) else source.read_bytes()
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            image.draft(None, (2 * least_side, 2 * least_side))
            image.load()
            return to_rgb(image)
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises all kinds of things, for metadata too, on which OpenCV is asked
        np.empty(2**28, np.uint8)  # raises where a limit on memory is near, which decoders do not tell from damage
        unknown = isinstance(error, UnidentifiedImageError)
        if unknown or not isinstance(error, OSError):  # that is, unless pixels are missing, which OpenCV would make up
            with contextlib.suppress(cv2.error):  # raised for what it cannot decode
                whole = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
                if whole is not None and whole.dtype == np.uint8 and whole.shape[2:] == (4,):  # transparent
                    return to_rgb(Image.fromarray(cv2.cvtColor(whole, cv2.COLOR_BGRA2RGBA)))
                if whole is not None:
                    whole = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
                    return cv2.cvtColor(whole, cv2.COLOR_BGR2RGB)
        why = "is empty or of no known format" if unknown else f"cannot be decoded: {error or type(error).__name__}"
        raise UserError(f"it {why}") from error


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
    A `UserError` names pictures that cannot be decoded, or else the returned collection has them in no split.
    """
    data, side = collection.folder.resolve(), round(image_size * STORED_PER_SEEN)
    name = "-".join(data.parts[1:])[-200:]
    folder = cache / name if cache else collection.folder / ".pictures"
    if not cache and not os.access(folder if folder.exists() else data, os.W_OK):
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sketching-with-style" / name
        print(f"pictures: {collection.folder} cannot be written, so the decoded ones are kept in {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    stamps, target = [f"{stat.st_size} {stat.st_mtime_ns}" for stat in collection.stats], folder / f"{side}.squares"
    if distributed.is_initialized() and distributed.get_rank():
        distributed.barrier()  # until the first process has decoded all
    lock = take_lock(folder / ".lock", wait=True)
    decode_all(data, list(zip(collection.paths, stamps, strict=True)), side, target)
    table = json.loads(target.with_suffix(".json").read_bytes())
    squares = torch.from_numpy(np.memmap(target, np.uint8, "r", shape=(len(table), side, side, 3)))
    lock.release()  # the map that is open stays as it is, even if a run with other pictures puts a new one in its place
    if distributed.is_initialized() and not distributed.get_rank():
        distributed.barrier()
    if broken := [f"{path} ({problem})" for path, _, problem in table if problem]:
        said = f"{len(broken)} pictures cannot be read: {', '.join(broken[:20])}{', ...' * (len(broken) > 20)}"
        if not skip_unreadable:
            raise UserError(f"{said}; replace them, or leave them out by --skip-unreadable")
        print(f"pictures: {said}; they are left out")
        collection = replace(collection, split=np.where([not problem for *_, problem in table], collection.split, ""))
    if device.type == "cuda" and squares.numel() + GPU_RESERVE < torch.cuda.mem_get_info(device)[0]:
        squares, folder = squares.to(device), "the GPU's memory"
    print(f"pictures: squares of {side} pixels, {squares.numel() / 1e9:.1f} GB in {folder}")
    return collection, squares


def decode_all(data: Path, files: list[tuple[str, str]], side: int, target: Path) -> None:
    """Decode files, paths and stamps, into a map, uint8 [n, side, side, 3], unless the map there is of these already.

    Squares of files that did not change are taken over. The map's table, beside it, says which could not be decoded.
    """
    table, kept = target.with_suffix(".json"), {}
    if table.exists() and target.exists():
        rows = json.loads(table.read_bytes())
        squares = np.memmap(target, np.uint8, "r", shape=(len(rows), side, side, 3))
        kept = {(path, stamp): (square, problem) for (path, stamp, problem), square in zip(rows, squares, strict=True)}
        if list(kept) == files:
            return

    def decode(file: tuple[str, str], square: np.ndarray) -> tuple[str, str, str]:
        try:
            square[:], problem = kept.get(file) or (to_square(read_picture(data / file[0], side), side), "")
        except UserError as error:
            problem = str(error)
        return *file, problem

    cv2.setNumThreads(1)  # each thread here has a picture of its own
    cv2.utils.logging.setLogLevel(0)  # what is wrong with one is in the table
    part, shape = target.with_suffix(".part"), (len(files), side, side, 3)
    # Space is taken at once, where the system can: a map that finds the disk full kills its process.
    take_space = getattr(os, "posix_fallocate", lambda *_: None)
    write_whole(part, lambda file: take_space(file.fileno(), 0, math.prod(shape)))
    squares = np.memmap(part, np.uint8, "r+", shape=shape)
    rows = thread_map(decode, files, squares, desc="reading pictures", disable=None)
    squares.flush()
    table.unlink(missing_ok=True)  # a map without a table is none
    part.replace(target)
    write_whole(table, json.dumps(rows).encode())


def split_batches(examples: Tensor, batch_size: int, even: bool) -> list[Tensor]:
    """Cut examples, [n, ...], into batches, if `even` of nearly equal size, and take this process's part of each."""
    batches_of_all = examples.tensor_split(-(-len(examples) // batch_size)) if even else examples.split(batch_size)
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
    return [batch[rank::world] for batch in batches_of_all]


def draw_crops(rows: np.ndarray, crop_area: float, mirror: bool, side: int, generator: np.random.Generator) -> Tensor:
    """Draw a square crop for each of `rows`, int64 [...]: row, left, top, side, mirrored (0 or 1), int64 [..., 5].

    Each has between `crop_area` (0, 1] and all of the area of a square of `side` pixels, anywhere in it; half are
    mirrored, if `mirror`. Colours stay as they are: they are style.
    """
    chance = generator.random((4, *rows.shape))
    width = (side * np.sqrt(crop_area + (1 - crop_area) * chance[0])).round()
    corner = np.floor(chance[1:3] * (side - width + 1))
    return torch.from_numpy(np.stack([rows, *corner, width, (chance[3] < 0.5) & mirror], axis=-1).astype(np.int64))


def batches(
    squares: Tensor, plan: Sequence[Tensor], device: torch.device, size: int, colours: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each batch of a plan, on the device: its rows, int64 [b] or [b, k], and its pictures.

    The plan's batches are int64 [b, 5] or [b, k, 5] (`draw_crops`), or [b, 1]: rows alone, of which the middle is seen.
    Pictures are float32 [b k, 3, size, size], their `colours` one of COLOURS, channels-last, which nets are fastest on.
    """
    on_device, lengths = torch.cat(list(plan)).to(device), [len(batch) for batch in plan]  # all of an epoch at once
    all_rows, all_crops = on_device[..., 0].contiguous().split(lengths), on_device[..., 1:].split(lengths)
    mean, deviation = (torch.tensor(values, device=device).repeat(size) for values in COLOURS[colours])
    scale, shift = 1 / (255 * deviation), -mean / deviation
    parts = (squares[rows.flatten()] for rows in all_rows) if squares.is_cuda else gather(squares, plan, device)
    for rows, part, crops in zip(all_rows, parts, all_crops, strict=True):
        if not crops.shape[-1]:
            start = (part.shape[1] - size) // 2
            pictures = part[:, start : start + size, start : start + size].float()
        else:
            pictures = (crop_on_gpu if part.is_cuda else crop_on_cpu)(part, size, crops.flatten(0, -2))
        # (value / 255 - mean) / deviation as one multiplication and addition of whole lines of pixels
        lines = pictures.view(len(pictures), size, 3 * size)
        yield rows, torch.addcmul(shift, lines, scale, out=lines).view_as(pictures).permute(0, 3, 1, 2)


def gather(squares: Tensor, plan: Sequence[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Copy each batch's squares out of the map, uint8 [m, side, side, 3], one batch ahead; to a GPU beside its work."""
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def fetch(batch: Tensor) -> Tensor:
        rows = batch[..., 0].flatten()
        part = torch.empty((len(rows), *squares.shape[1:]), dtype=torch.uint8, pin_memory=stream is not None)
        np.take(squares.numpy(), rows.numpy(), axis=0, out=part.numpy(), mode="clip")  # mode "raise" would copy twice
        with torch.cuda.stream(stream):
            return part.to(device, non_blocking=True)

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(fetch, plan[0])
        for following in [*plan[1:], plan[0][:0]]:  # the last fetch is empty and unused
            part = ahead.result()
            if stream:
                torch.cuda.current_stream().wait_stream(stream)
                part.record_stream(torch.cuda.current_stream())  # so that its memory is not reused too early
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
def predict(net: Callable, squares: Tensor, rows: np.ndarray, *view: Any, batch_size: int) -> Tensor:
    """The outputs of a net in evaluation mode for rows, int64 [n], float32 [n, d]; `view` is as `batches` takes it."""
    plan = torch.from_numpy(rows)[:, None].split(min(256, batch_size))
    return torch.cat([net(pictures).float() for _, pictures in batches(squares, plan, *view)])
