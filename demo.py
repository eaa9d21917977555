"""Draw the stand-in collection: 11 styles x 9 contents, so that everything runs with no data at hand.

    python demo.py data/demo                        # 990 pictures of 128 px, under a minute on two cores
    python demo.py data/demo --per-cell 40          # 3,960 pictures: enough to tell recipes apart
    python demo.py --sheet images/demo.png --seed 3 # only the sample sheet: a row per style, a column per content

The folder `standin` holds what is depicted (`contents.py`) apart from how (`media.py`, `moods.py`). The pictures lie in
DIR/<style>/<content>/<picture>.jpg, and DIR/index.csv lists them. Each picture depends on (seed, style, content,
number) alone, so that the same command draws the same collection with any number of processes, and so that one that
was interrupted can be completed by running it again.
"""

from __future__ import annotations

import argparse
import csv
import io
import multiprocessing
import os
import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

import utils
from standin.contents import CONTENTS, draw
from standin.media import reproduced
from standin.moods import STYLES
from standin.plans import make_plan

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
    large = reproduced(large, rng)
    small = cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA)
    return np.round(np.clip(small, 0, 1) * 255).astype(np.uint8)


def start_worker() -> None:
    """Set up a process of the pool: one thread for drawing, Ctrl-C left to the parent, and no life without it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """Wait for the end of the parent process, however it comes, and then end this one."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def write_picture(cell: Cell, folder: Path, size: int, seed: int) -> None:
    """Draw one picture and write it into the collection, whole or not at all."""
    utils.write_whole(folder / cell.path, encoded(picture(cell, size, seed), ".jpg"))


def encoded(rgb: np.ndarray, suffix: str) -> bytes:
    """A picture (uint8 [h, w, 3], red, green, blue) as the bytes of a .jpg or .png file."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, 93] if suffix == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 9]
    return cv2.imencode(suffix, rgb[..., ::-1], quality)[1].tobytes()


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
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A run that was killed while it wrote its first file leaves only the beginnings of that file.
        empty = all(entry.name.startswith(".demo.json.") for entry in folder.iterdir())
    except OSError as error:
        raise utils.UserError(f"{folder}: cannot be used: {error.strerror}; name another folder") from error
    if empty:
        utils.write_json(note, options)
        return
    if not note.is_file():
        raise utils.UserError(f"{folder}: holds something else already; name a new or an empty folder")
    found = utils.read_json(note)
    if found != options:
        raise utils.UserError(f"{folder}: holds a collection drawn with other options, {found}; name another folder")


def draw_all(todo: list[Cell], job: Callable[[Cell], None], workers: int, bar: tqdm) -> None:
    """Do the job for each of the pictures, in this process (`workers` 1) or in several."""
    if workers == 1:
        for cell in todo:
            job(cell)
            bar.update()
        return
    # Fresh processes rather than forked ones: the same on every system, and safe beside other threads.
    with ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=start_worker
    ) as pool:
        try:
            for _ in pool.map(job, todo, chunksize=4):
                bar.update()
        finally:
            pool.shutdown(cancel_futures=True)


def draw_collection(args: argparse.Namespace) -> None:
    """Draw what is missing of the collection into `args.folder` and say what came out."""
    folder = Path(args.folder)
    claim(folder, {"per_cell": args.per_cell, "size": args.size, "seed": args.seed, "version": VERSION})
    total = args.per_cell * len(STYLES) * len(CONTENTS)
    todo = [cell for cell in cells(args.per_cell) if not (folder / cell.path).is_file()]
    for cell in todo:
        (folder / cell.path).parent.mkdir(parents=True, exist_ok=True)
    job = partial(write_picture, folder=folder, size=args.size, seed=args.seed)
    workers = min(args.workers, max(1, len(todo) // 8))  # a process takes seconds to start
    try:
        with tqdm(total=total, initial=total - len(todo), desc="drawing", unit="picture", disable=None) as bar:
            draw_all(todo, job, workers, bar)
    except KeyboardInterrupt as stop:
        raise utils.Interrupted(f"interrupted; the same command completes {folder}") from stop
    if not (folder / "index.csv").is_file():
        utils.write_whole(folder / "index.csv", index_csv(args.per_cell))
    drawn = f"Drawn: {len(todo)} pictures" if todo else "Nothing to draw, the collection is complete"
    print(f"{drawn}. {folder} holds {total}: {len(STYLES)} styles x {len(CONTENTS)} contents x {args.per_cell}")
    print(f"Next: python classification_net.py --data {shlex.quote(str(folder))} --image-size 96 --epochs 10")


def draw_sheet(path: Path, seed: int) -> None:
    """Write a sample sheet: a labelled row per style and a labelled column per content, one picture each."""
    tile, gap, left, top = 68, 3, 108, 24
    sheet = np.full((top + len(STYLES) * (tile + gap), left + len(CONTENTS) * (tile + gap), 3), 255, np.uint8)
    for j, content in enumerate(CONTENTS):
        width = cv2.getTextSize(content, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)[0][0]
        label(sheet, content, left + j * (tile + gap) + (tile - width) // 2, 16)
    for i, style in enumerate(STYLES):
        y = top + i * (tile + gap)
        label(sheet, style, 4, y + tile // 2 + 4)
        for j, content in enumerate(CONTENTS):
            x = left + j * (tile + gap)
            shown = picture(Cell(style, content, 0), 96, seed)
            sheet[y : y + tile, x : x + tile] = cv2.resize(shown, (tile, tile), interpolation=cv2.INTER_AREA)
    if path.suffix.lower() == ".png":
        sheet = sheet // 8 * 8 + sheet // 32  # 32 steps a colour make the file a third as large
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise utils.UserError(f"--sheet {path}: its folder cannot be made: {error.strerror}") from error
    utils.write_whole(path, encoded(sheet, path.suffix.lower()))
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
        help="pictures of each style and content (default: 10, that is 990 in all); more train better and slower",
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
