"""Draw the stand-in collection: 11 styles x 9 contents, so that everything runs with no data at hand.

    python demo.py data/demo                        # 990 pictures of 128 px, under a minute on two cores
    python demo.py data/demo --per-cell 40          # 3,960 pictures: enough to tell recipes apart
    python demo.py --sheet images/demo.png          # only the sample sheet: a row per style, a column per content

`drawings.py` and `contents.py` say what is depicted, `renderings.py` and `moods.py` how. The pictures lie in
DIR/<style>/<content>/<picture>.jpg, and DIR/index.csv lists them. Each picture depends on (seed, style, content,
number) alone, so that the same command draws the same collection with any number of processes, and so that one that
was interrupted can be completed by running it again.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

import utils
from contents import CONTENTS, draw
from moods import STYLES
from renderings import make_plan

VERSION = 1  # of the drawings: raise it when the same seed draws something else


class Cell(NamedTuple):
    """One picture to be drawn: its style, its content and its number among the pictures of both."""

    style: str
    content: str
    number: int

    @property
    def path(self) -> str:
        """Where it lies in the collection, with forward slashes."""
        return f"{self.style}/{self.content}/{self.content}_{self.number:04d}.jpg"


def picture(cell: Cell, size: int, seed: int) -> np.ndarray:
    """Draw one picture: uint8 [size, size, 3], red, green, blue. A pure function of its arguments."""
    rng = np.random.default_rng([seed, list(STYLES).index(cell.style), list(CONTENTS).index(cell.content), cell.number])
    drawing = draw(cell.content, rng)
    # Drawn larger and shrunk: that smooths the edges.
    large = STYLES[cell.style](make_plan(drawing, size * (3 if size <= 160 else 2)), rng)
    small = cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA)
    return np.round(np.clip(small, 0, 1) * 255).astype(np.uint8)


def write_picture(cell: Cell, folder: Path, size: int, seed: int) -> None:
    """Draw one picture and write it into the collection, whole or not at all. One worker's job."""
    cv2.setNumThreads(1)  # the pictures are spread over the processes already
    rgb = picture(cell, size, seed)
    done, jpeg = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 93])
    assert done
    utils.write_whole(folder / cell.path, jpeg.tobytes())


def cells(per_cell: int) -> Iterator[Cell]:
    """All pictures of the collection; the numbers run slowest, so that a cut-off collection is balanced."""
    for number in range(per_cell):
        for style in STYLES:
            for content in CONTENTS:
                yield Cell(style, content, number)


def index_csv(per_cell: int) -> str:
    """The text of index.csv: a row per picture."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "style", "content"])
    writer.writerows([cell.path, cell.style, cell.content] for cell in cells(per_cell))
    return text.getvalue()


def claim(folder: Path, options: dict[str, int]) -> None:
    """Make the folder this collection's. Raises `UserError` where it holds anything else: nothing is overwritten."""
    note = folder / "demo.json"
    if folder.exists() and not folder.is_dir():
        raise utils.UserError(f"{folder}: is a file; name another folder")
    if not folder.exists() or not any(folder.iterdir()):
        folder.mkdir(parents=True, exist_ok=True)
        utils.write_whole(note, json.dumps(options, indent=2) + "\n")
        return
    if not note.is_file():
        raise utils.UserError(f"{folder}: holds something else already; name a new or an empty folder")
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
    except ValueError as error:
        raise utils.UserError(f"{note}: cannot be read ({error}); name a new or an empty folder") from error
    if found != options:
        raise utils.UserError(
            f"{folder}: holds a collection drawn with other options {json.dumps(found)}; name another folder"
        )


def draw_collection(args: argparse.Namespace) -> None:
    """Draw what is missing of the collection into `args.folder` and say what came out."""
    folder = Path(args.folder)
    claim(folder, {"per_cell": args.per_cell, "size": args.size, "seed": args.seed, "version": VERSION})
    todo = [cell for cell in cells(args.per_cell) if not (folder / cell.path).is_file()]
    total = args.per_cell * len(STYLES) * len(CONTENTS)
    for parent in {(folder / cell.path).parent for cell in todo}:
        parent.mkdir(parents=True, exist_ok=True)
    job = partial(write_picture, folder=folder, size=args.size, seed=args.seed)
    workers = min(args.workers, max(1, len(todo) // 8))
    with tqdm(total=total, initial=total - len(todo), desc="drawing", unit="picture", disable=None) as bar:
        if workers == 1:
            for cell in todo:
                job(cell)
                bar.update()
        else:
            # Fresh processes rather than forked ones: the same everywhere, and safe beside other threads.
            with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
                try:
                    for _ in pool.map(job, todo, chunksize=4):
                        bar.update()
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
    if not (folder / "index.csv").is_file():
        utils.write_whole(folder / "index.csv", index_csv(args.per_cell))
    drawn = f"{len(todo)} pictures drawn" if todo else "Nothing to draw, the collection is complete"
    print(f"{drawn}: {len(STYLES)} styles x {len(CONTENTS)} contents x {args.per_cell} = {total} in {folder}")
    print(f"Next: python classification_net.py --data {folder} --image-size 96 --epochs 10")


def draw_sheet(path: Path, seed: int) -> None:
    """Write a sample sheet: a labelled row per style and a labelled column per content, one picture each."""
    tile, gap, left, top = 88, 4, 108, 24
    rows, columns = len(STYLES), len(CONTENTS)
    sheet = np.full((top + rows * (tile + gap), left + columns * (tile + gap), 3), 255, np.uint8)
    for i, style in enumerate(STYLES):
        y = top + i * (tile + gap)
        label(sheet, style, 4, y + tile // 2 + 4)
        for j, content in enumerate(CONTENTS):
            x = left + j * (tile + gap)
            if i == 0:
                width = cv2.getTextSize(content, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)[0][0]
                label(sheet, content, x + (tile - width) // 2, 16)
            sheet[y : y + tile, x : x + tile] = picture(Cell(style, content, 0), tile, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    compact = path.suffix.lower() == ".png" and {"params": [cv2.IMWRITE_PNG_COMPRESSION, 9]} or {}
    done, data = cv2.imencode(path.suffix.lower(), sheet[..., ::-1], **compact)
    assert done
    utils.write_whole(path, data.tobytes())
    print(f"Sample sheet: {path}")


def label(sheet: np.ndarray, text: str, x: int, y: int) -> None:
    """Write one label on the sheet, its base line starting at (x, y)."""
    cv2.putText(sheet, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (50, 50, 50), 1, cv2.LINE_AA)


def whole(text: str, least: int, most: int) -> int:
    """A whole number of the command line between two bounds."""
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} should be a whole number from {least} to {most}")
    return int(text)


def count_of_workers(text: str) -> int:
    """`auto` (the cores that this process may use, 16 at most) or a number of processes."""
    if text == "auto":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(cores, 16)
    return whole(text, 1, 256)


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder",
        nargs="?",
        metavar="DIR",
        help="where the collection goes: a new or an empty folder, or one that an interrupted run left",
    )
    parser.add_argument(
        "--per-cell", type=partial(whole, least=1, most=10000), default=10, metavar="N",
        help="pictures of each style and content (default: 10, that is 990 in all); more make training better and slower",
    )  # fmt: skip
    parser.add_argument(
        "--size", type=partial(whole, least=32, most=1024), default=128, metavar="PX",
        help="width and height of the pictures in pixels (default: 128); take 256 to train at --image-size 224",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=partial(whole, least=0, most=2**32 - 1), default=0, metavar="S",
        help="another seed draws another collection (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=count_of_workers, default="auto", metavar="N",
        help="processes that draw (default: auto, one per core); the pictures do not depend on it",
    )  # fmt: skip
    parser.add_argument(
        "--sheet",
        metavar="FILE",
        help="also write a sample sheet, one small picture of each style and content, to this .png or .jpg file",
    )
    return parser


def main(args: argparse.Namespace) -> None:
    """Draw the collection, the sample sheet, or both."""
    if args.folder is None and args.sheet is None:
        raise utils.UserError("DIR: is missing; name the folder to draw into, for example: python demo.py data/demo")
    if args.sheet is not None and Path(args.sheet).suffix.lower() not in (".png", ".jpg"):
        raise utils.UserError(f"--sheet {args.sheet}: should end in .png or .jpg")
    if args.folder is not None:
        draw_collection(args)
    if args.sheet is not None:
        draw_sheet(Path(args.sheet), args.seed)


if __name__ == "__main__":
    raise SystemExit(utils.run_script(get_parser, main))
