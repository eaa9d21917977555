"""Draw the stand-in collection: nine contents in eleven styles, so that everything runs with no data at hand.

    python -m standin data/standin                        # 990 pictures of 128 pixels
    python -m standin data/standin --per-cell 40          # 3,960 pictures: enough to tell recipes apart
    python -m standin --sheet images/BAM_sample.png       # one picture of each style and content on a sheet

The pictures lie in DIR/<style>/<content>/<number>.jpg. Each depends on (seed, style, content, number) and the size
alone, so that the same command draws the same collection, and completes one that was interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from standin.contents import CONTENTS
from standin.scenes import draw_paint, draw_scene
from standin.styles import STYLES, render
from utils import UserError, run_script, write_whole

NOTE = ".standin.json"  # in the folder of a collection: the options that it was drawn with


def draw_picture(style: str, content: str, number: int, size: int, seed: int) -> np.ndarray:
    """One picture of the collection: uint8 [size, size, 3], red, green, blue. A pure function of its arguments."""
    rng = np.random.default_rng([seed, list(STYLES).index(style), list(CONTENTS).index(content), number])
    depict, hue = CONTENTS[content]
    return render(style, draw_scene(depict(rng, draw_paint(rng, hue)), hue, rng), size, rng)


def encoded(picture: np.ndarray, suffix: str) -> bytes:
    """A picture as the bytes of a .jpg or .png file."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, 93] if suffix == ".jpg" else []
    return cv2.imencode(suffix, picture[..., ::-1], quality)[1].tobytes()


def start_worker() -> None:
    """In each process that draws: one thread, and Ctrl-C is left to the process that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


def write_picture(cell: tuple[str, str, int], folder: Path, size: int, seed: int) -> None:
    """Draw one picture into the folder, unless it is there."""
    style, content, number = cell
    path = folder / style / content / f"{number:04d}.jpg"
    if not path.exists():
        part = path.with_name(f".{path.name}")
        part.write_bytes(encoded(draw_picture(style, content, number, size, seed), ".jpg"))
        part.replace(path)  # what is killed while it writes leaves no half picture


def claim(folder: Path, options: dict[str, int]) -> None:
    """Make the folder this collection's. Raises `UserError` where it holds anything else, hidden files apart."""
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / NOTE
    if note.is_file():
        found = json.loads(note.read_text())
        if found != options:
            raise UserError(f"{folder}: holds a collection drawn with other options, {found}; name another folder")
    elif {path.name for path in folder.glob("[!.]*")} - {"lost+found"}:
        raise UserError(f"{folder}: holds something else already; name a new or an empty folder")
    else:
        write_whole(note, json.dumps(options).encode())


def draw_collection(folder: Path, per_cell: int, size: int, seed: int) -> None:
    """Draw what is missing of the collection, on every core."""
    claim(folder, {"per_cell": per_cell, "size": size, "seed": seed})
    for style in STYLES:
        for content in CONTENTS:
            (folder / style / content).mkdir(parents=True, exist_ok=True)
    cells = [(style, content, number) for number in range(per_cell) for style in STYLES for content in CONTENTS]
    job = partial(write_picture, folder=folder, size=size, seed=seed)
    with ProcessPoolExecutor(min(os.cpu_count() or 1, 32), initializer=start_worker) as pool:
        try:
            for _ in tqdm(pool.map(job, cells, chunksize=16), "drawing", len(cells), unit="picture", disable=None):
                pass
        finally:
            pool.shutdown(cancel_futures=True)
    print(f"{folder}: {len(cells)} pictures, {len(STYLES)} styles x {len(CONTENTS)} contents x {per_cell}")
    print(f"Next: python classification_net.py --data {shlex.quote(str(folder))} --image-size {min(max(size, 64), 96)}")


def draw_sheet(path: Path, seed: int, tile: int = 72, left: int = 108, top: int = 24) -> None:
    """Write a sheet with a row for each style and a column for each content."""
    step = tile + 3
    sheet = np.full((top + len(STYLES) * step, left + len(CONTENTS) * step, 3), 255, np.uint8)
    for row, style in enumerate(STYLES):
        cv2.putText(sheet, style, (4, top + row * step + tile // 2 + 4), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (50, 50, 50))
        for column, content in enumerate(CONTENTS):
            y, x = top + row * step, left + column * step
            sheet[y : y + tile, x : x + tile] = draw_picture(style, content, 0, tile, seed)
    for column, content in enumerate(CONTENTS):
        cv2.putText(sheet, content, (left + column * step + 8, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (50, 50, 50))
    sheet = sheet // 8 * 8 + sheet // 32  # 32 steps a colour make a .png half as large
    write_whole(path, encoded(sheet, path.suffix))
    print(f"{path}: one picture of each style and content")


def get_parser() -> argparse.ArgumentParser:
    """The options."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m standin", description=__doc__, formatter_class=layout)
    add = parser.add_argument
    add("folder", nargs="?", metavar="DIR", type=Path, help="a new or an empty folder, or one that was begun")
    add("--per-cell", type=int, default=10, metavar="N", help="pictures of each style and content; default %(default)s")
    add("--size", type=int, default=128, metavar="PIXELS", help="width and height; default %(default)s")
    add("--seed", type=int, default=0, help="another seed draws another collection; default %(default)s")
    add("--sheet", type=Path, metavar="FILE", help="write a sheet, .png or .jpg, with a picture of each kind")
    return parser


def main(args: argparse.Namespace) -> None:
    """Draw the collection, the sheet, or both."""
    if args.folder is None and args.sheet is None:
        raise UserError("DIR: is missing; name the folder to draw into, for example: python -m standin data/standin")
    if args.folder is not None:
        draw_collection(args.folder, args.per_cell, args.size, args.seed)
    if args.sheet is not None:
        draw_sheet(args.sheet, args.seed)


if __name__ == "__main__":
    raise SystemExit(run_script(main, get_parser()))
