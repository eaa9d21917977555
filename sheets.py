"""Drawings of what an embedding knows: t-SNE maps, retrieval and search sheets, confusion matrices. All return PNGs.

Colours are the eight of Okabe and Ito, which colour-blind people tell apart, and three that differ from them in
brightness too. Each class has a marker of its own as well, and right and wrong are told by sign and frame, so that
everything survives a grey print.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from decoding import UnreadablePicture, decode, to_square
from retrieval import nearest
from utils import derive_seed

COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000", "#F0E442", "#882255", "#A6A6A6",
    "#332288",
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "*", ">")
RIGHT, WRONG, QUIET = "#0072B2", "#D55E00", "#555555"
MOST_CELLS = 60  # classes to a side of a confusion matrix that each have room for a name; a larger one is a map
MOST_CLASSES = 30  # classes that a sheet of retrieved pictures asks for
LEFT = 150  # pixels for the names at the left of a sheet


def to_png(figure: Figure, dpi: int, few_colours: bool = False) -> bytes:
    """Render a figure; `few_colours` keeps 256 colours, in which pictures need a third of the bytes."""
    FigureCanvasAgg(figure)
    drawn = io.BytesIO()
    with warnings.catch_warnings():
        # Names in scripts that matplotlib's font lacks are drawn as boxes; the tables have them.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(drawn, format="png", dpi=dpi, facecolor="white")
    if not few_colours:
        return drawn.getvalue()
    small = io.BytesIO()
    Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(small, "PNG", optimize=True)
    return small.getvalue()


# t-SNE.


def sample_rows(n: int, most: int) -> np.ndarray:
    """At most `most` of n rows, drawn evenly and always the same, in order: int64 [min(n, most)]."""
    return np.sort(np.random.default_rng(derive_seed(0, "t-SNE sample")).permutation(n)[:most])


def project(embeddings: Tensor) -> np.ndarray:
    """Lay embeddings, float32 [n, d], out on a plane by t-SNE: float32 [n, 2], the same for the same embeddings.

    Perplexity 30, or a third of the pictures if that is less; started from the two principal components. Embeddings
    that are all one point stay one.
    """
    from sklearn.manifold import TSNE  # takes a second to import

    points = embeddings.numpy()
    if len(points) < 4 or float(np.ptp(points, axis=0).max()) == 0:
        return points[:, :2] - points[:1, :2]
    perplexity = min(30.0, (len(points) - 1) / 3)
    return TSNE(init="pca", perplexity=perplexity, learning_rate="auto", random_state=0, n_jobs=-1).fit_transform(
        points
    )


def draw_tsne(
    points: np.ndarray, panels: Sequence[tuple[str, np.ndarray, Sequence[str]]], title: str, few_colours: bool = False
) -> bytes:
    """Draw the same points, float [n, 2], once for each panel: its title, each point's class, int64 [n], the names.

    Points of unknown class, -1, are small and grey. Later points do not systematically hide earlier ones: classes are
    drawn in one shuffled order.
    """
    figure = Figure(figsize=(6.6 * len(panels), 7.2), layout="constrained")
    figure.suptitle(plain(title))
    size = float(np.clip(9000 / max(1, len(points)), 6, 42))
    for axis, (heading, number, names) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        unknown = number < 0
        axis.scatter(*points[unknown].T, s=size / 2, c="#999999", linewidths=0)
        pieces = np.array_split(np.random.default_rng(0).permutation(len(points)), 8)
        for piece in pieces:
            for which in range(len(names)):
                mine = piece[number[piece] == which]
                axis.scatter(*points[mine].T, s=size, c=colour(which), marker=marker(which), linewidths=size / 80,
                             edgecolors="#222222")  # fmt: skip
        axis.set(title=heading, xticks=[], yticks=[])
        axis.set_aspect("equal", "datalim")
        handles = [
            Line2D(
                [],
                [],
                ls="",
                marker=marker(which),
                color=colour(which),
                mec="#222222",
                mew=0.3,
                ms=8,
                label=plain(name),
            )
            for which, name in enumerate(names)
        ]
        if handles:
            axis.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=4, frameon=False,
                        handletextpad=0.2, columnspacing=1.2)  # fmt: skip
    return to_png(figure, 100, few_colours)


def plain(text: str) -> str:
    """A name as matplotlib should show it: as it is, on one line, a dollar sign no formula, an underscore no secret."""
    return " ".join(text.split()).replace("$", r"\$").replace("_", " _", text.startswith("_"))


def colour(which: int) -> str:
    """The colour of a class."""
    return COLOURS[which % len(COLOURS)]


def marker(which: int) -> str:
    """The marker of a class: with its colour, 110 classes look different."""
    return MARKERS[which % len(MARKERS)]


# Confusion matrix.


def draw_confusion(counts: np.ndarray, names: Sequence[str], title: str, found: str) -> bytes:
    """Draw a confusion matrix, int64 [true, found], in percent of each true class; `found` names the columns."""
    n = len(names)
    side = 2.4 + 0.52 * min(n, MOST_CELLS)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axis = figure.subplots()
    share = 100 * counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    image = axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
    for row, column in np.argwhere(counts > 0).tolist() if n <= 40 else []:
        axis.text(column, row, f"{share[row, column]:.0f}", ha="center", va="center", fontsize=9,
                  color="white" if share[row, column] > 55 else "black")  # fmt: skip
    named = range(0, n, -(-n // MOST_CELLS))
    totals = counts.sum(axis=1)
    axis.set_xticks(named, [plain(names[one]) for one in named], rotation=45, ha="right", rotation_mode="anchor")
    axis.set_yticks(named, [f"{plain(names[one])} ({totals[one]})" for one in named])
    axis.set(xlabel=found, ylabel="true class (pictures)", title=plain(title))
    figure.colorbar(image, label="% of the true class", shrink=0.8)
    return to_png(figure, 100)


# Sheets of pictures.


class Sheet:
    """A white sheet on which pictures are laid in rows, with signs and words around them."""

    def __init__(self, width: int, height: int) -> None:
        self.canvas = np.full((height, width, 3), 255, dtype=np.uint8)
        self.figure = Figure(figsize=(width / 100, height / 100))
        self.axis = self.figure.add_axes((0, 0, 1, 1))
        self.axis.set(xlim=(0, width), ylim=(height, 0))
        self.axis.axis("off")

    def paste(self, picture: np.ndarray, left: int, top: int) -> None:
        """Lay a picture, uint8 [height, width, 3], down."""
        height, width = picture.shape[:2]
        self.canvas[top : top + height, left : left + width] = picture

    def write(self, text: str, x: float, y: float, **options: Any) -> None:
        """Write a text with matplotlib's options; `y` is its top unless they say otherwise."""
        # A dollar sign would start a formula.
        self.axis.text(x, y, " ".join(text.split()), **{"fontsize": 8, "va": "top", "parse_math": False} | options)

    def frame(self, left: int, top: int, side: int, right: bool) -> None:
        """Frame a square picture as right (solid, with a tick) or wrong (dashed, with a cross)."""
        hue = RIGHT if right else WRONG
        self.axis.add_patch(
            Rectangle(
                (left - 1.5, top - 1.5),
                side + 3,
                side + 3,
                fill=False,
                lw=2.2,
                ec=hue,
                ls="-" if right else (0, (2, 1.2)),
            )
        )
        badge = {"boxstyle": "circle,pad=0.12", "fc": hue, "ec": "white", "lw": 0.8}
        self.write("✓" if right else "✗", left + side - 7, top + 8, color="white", fontsize=8, ha="center", va="center",
                   bbox=badge)  # fmt: skip

    def to_png(self, few_colours: bool = False) -> bytes:
        """The finished sheet."""
        height, width = self.canvas.shape[:2]
        self.axis.imshow(self.canvas, extent=(0, width, height, 0), interpolation="nearest", aspect="auto")
        return to_png(self.figure, 100, few_colours)


def thumbnail(path: Any, side: int) -> np.ndarray:
    """A picture's central square at `side` pixels, uint8 [side, side, 3]; grey with a cross if it cannot be decoded."""
    try:
        return to_square(decode(path), side)
    except UnreadablePicture:
        square = np.full((side, side, 3), 220, dtype=np.uint8)
        cv2.line(square, (0, 0), (side, side), (120, 120, 120), 2)
        return cv2.line(square, (0, side), (side, 0), (120, 120, 120), 2)


def choose_queries(label: np.ndarray, other: np.ndarray, each: int) -> np.ndarray:
    """Choose `each` queries of every class, of different contents where there are some: rows, int64 [q].

    `label` and `other` are int64 [n]; where no label is known, from all. Of more than `MOST_CLASSES` classes as many,
    evenly spread. The same for every run on the same pictures.
    """
    order = np.random.default_rng(derive_seed(0, "queries")).permutation(len(label))
    chosen = []
    classes = np.unique(label[label >= 0]).tolist() or [-1]
    if len(classes) > MOST_CLASSES:
        classes = [classes[place] for place in np.linspace(0, len(classes) - 1, MOST_CLASSES).astype(int)]
    for position, which in enumerate(classes):
        rows = order[label[order] == which]
        # Begin with another content in each class, so that the sheet shows them all.
        contents = np.unique(other[rows])
        wanted = np.roll(contents, -position * each)[:each]
        first = [rows[other[rows] == content][0] for content in wanted]
        chosen += first + [row for row in rows if row not in first][: each - len(first)]
    return np.array(chosen, dtype=np.int64)


def draw_retrieval(
    paths: Sequence[Any], names: Sequence[Sequence[str]], queries: np.ndarray, found: Tensor, title: str, *,
    side: int = 72, few_colours: bool = False,
) -> bytes:  # fmt: skip
    """Draw queries, int64 [q], and what they found, rows int64 [q, k], nearest first, right and wrong ones marked.

    `paths` are the pictures' files; `names` their two columns of words: what should be the same (style), and what
    should not matter (content); empty where unknown.
    """
    label, other = names
    step, line = side + 8, side + 20
    width, top = LEFT + side + 24 + found.shape[1] * step + 8, 54
    sheet = Sheet(width, top + len(queries) * line + 6)
    sheet.write(title, 10, 8, fontsize=11, weight="bold")
    sheet.write("query", LEFT, 34, color=QUIET)
    signs = ";  ✓ and solid frame: the query's class;  ✗ and dashed frame: another class, named below" * any(label)
    sheet.write(f"nearest first{signs}", LEFT + side + 24, 34, color=QUIET)
    for position, (query, rows) in enumerate(zip(queries.tolist(), found.tolist(), strict=True)):
        y = top + position * line
        sheet.write(shorten(label[query] or Path(paths[query]).name, 17), 10, y + 14, fontsize=10, weight="bold")
        sheet.write(shorten(other[query], 20), 10, y + 32, fontsize=9, color=QUIET)
        sheet.paste(thumbnail(paths[query], side), LEFT, y)
        for place, row in enumerate(rows):
            x = LEFT + side + 24 + place * step
            sheet.paste(thumbnail(paths[row], side), x, y)
            right = label[row] == label[query]
            if label[query]:
                sheet.frame(x, y, side, right)
            caption = other[row] if right else label[row]
            sheet.write(shorten(caption), x + side / 2, y + side + 4, fontsize=7, ha="center",
                        color=QUIET if right else WRONG)  # fmt: skip
    return sheet.to_png(few_colours)


def draw_search(
    questions: Sequence[Any], answers: Sequence[tuple[Any, float, str, str]], title: str, side: int = 128
) -> bytes:
    """Draw the pictures that were asked with, then the answers (file, distance, style, content), nearest first."""
    across = 5
    step, line = side + 16, side + 44
    asked = [questions[start : start + across] for start in range(0, len(questions), across)]
    given = [answers[start : start + across] for start in range(0, len(answers), across)]
    sheet = Sheet(20 + across * step, 62 + len(asked) * (side + 12) + 24 + len(given) * line)
    sheet.write(title, 12, 8, fontsize=11, weight="bold")
    sheet.write(
        "asked with" + (f" the mean of {len(questions)} pictures" if len(questions) > 1 else ""), 12, 34, color=QUIET
    )
    y = 54
    for row in asked:
        for place, path in enumerate(row):
            sheet.paste(thumbnail(path, side), 12 + place * step, y)
        y += side + 12
    sheet.write("nearest in style", 12, y, color=QUIET)
    y += 20
    for number, row in enumerate(given):
        for place, (path, far, style, content) in enumerate(row):
            x = 12 + place * step
            sheet.paste(thumbnail(path, side), x, y)
            sheet.write(f"{number * across + place + 1}.  distance {far:.3f}", x, y + side + 4)
            sheet.write(shorten(", ".join(filter(None, (style, content))), 26), x, y + side + 18, color=QUIET)
        y += line
    return sheet.to_png()


def shorten(text: str, most: int = 15) -> str:
    """Cut a long name."""
    return text if len(text) <= most else text[: most - 1] + "…"


def to_pixels(png: bytes) -> np.ndarray:
    """A PNG's pixels as Visdom takes them: uint8 [3, height, width]."""
    return np.ascontiguousarray(np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).transpose(2, 0, 1))


def nearest_rows(embeddings: Tensor, queries: np.ndarray, k: int) -> Tensor:
    """The k nearest other pictures of each query: rows, int64 [q, k]; fewer columns where there are fewer pictures."""
    found, _ = nearest(embeddings, embeddings[torch.from_numpy(queries)], k + 1)
    return torch.stack([row[row != query][:k] for row, query in zip(found, queries.tolist(), strict=True)])
