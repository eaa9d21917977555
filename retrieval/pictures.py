"""Pictures of what an embedding knows, as PNGs: a t-SNE map, sheets of found pictures, a confusion matrix, curves.

Classes are told by colour and by marker, right and wrong by frame and by sign, so that a grey print tells them too.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

os.environ["MPLBACKEND"] = "agg"  # a notebook hands its own on to the programs that it starts, which may lack it
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from dataset import to_square

# The eight colours of Okabe and Ito, which colour-blind people tell apart, and three of another brightness.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000", "#F0E442", "#882255", "#A6A6A6")
COLOURS += ("#332288",)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "*", ">")  # with the colours, 110 classes look different
RIGHT, WRONG, QUIET = "#0072B2", "#D55E00", "#555555"
MOST_POINTS = 5000  # of a t-SNE map: more would hide each other, and take minutes
MOST_NAMES = 60  # along a side of a confusion matrix


def to_png(figure: Figure) -> bytes:
    """Render a figure."""
    drawn = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # scripts that matplotlib's font lacks
        figure.savefig(drawn, format="png", dpi=100)
    return drawn.getvalue()


def plain(text: str) -> str:
    """A name as matplotlib shows it as it is: a dollar sign is no formula, an underscore no secret."""
    text = text.encode("utf-8", "replace").decode()
    return " ".join(text.split()).replace("$", r"\$").replace("_", " _", text.startswith("_"))


def project(embeddings: np.ndarray) -> np.ndarray:
    """Lay embeddings, float32 [n, d], out on a plane by t-SNE: float32 [n, 2], the same each time."""
    from sklearn.manifold import TSNE  # takes a second to import

    points = np.pad(embeddings, ((0, 0), (0, max(0, 2 - embeddings.shape[1]))))
    if len(points) < 4 or np.ptp(points, axis=0).max() == 0:
        return points[:, :2]
    return TSNE(init="pca", perplexity=min(30, (len(points) - 1) / 3), random_state=0).fit_transform(points)


def draw_tsne(embeddings: np.ndarray, panels: dict[str, tuple[Sequence[str], np.ndarray]], title: str) -> bytes:
    """Draw a t-SNE map of embeddings, float32 [n, d], once for each panel: class names and numbers, int64 [n].

    Pictures of unknown class, -1, are small and grey. Of many pictures a random 5,000 are drawn.
    """
    chosen = np.random.default_rng(0).permutation(len(embeddings))[:MOST_POINTS]
    points = project(embeddings[chosen])
    size = float(np.clip(9000 / len(points), 6, 42))
    figure = Figure(figsize=(6.6 * len(panels), 7.4), layout="constrained")
    shown = "" if len(chosen) == len(embeddings) else f"{len(chosen)} of "
    figure.suptitle(plain(f"{title}: t-SNE of {shown}{len(embeddings)} pictures"))
    for place, (heading, (names, number)) in enumerate(panels.items(), 1):
        axis, number = figure.add_subplot(1, len(panels), place), number[chosen]
        axis.scatter(*points[number < 0].T, s=size / 2, c="#999999", linewidths=0)
        for which, name in enumerate(names):
            style = {"c": COLOURS[which % len(COLOURS)], "marker": MARKERS[which % len(MARKERS)], "alpha": 0.8}
            style |= {"s": size, "linewidths": size / 80, "edgecolors": "#222222", "label": plain(name)}
            axis.scatter(*points[number == which].T, **style)
        axis.set(title=f"by {heading}", xticks=[], yticks=[])
        axis.set_aspect("equal", "datalim")
        if names:
            axis.legend(
                loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=4, frameon=False, markerscale=7 / size**0.5
            )
    return to_png(figure)


def draw_confusion(counts: np.ndarray, names: Sequence[str], title: str) -> bytes:
    """Draw a confusion matrix, int64 [true, chosen], in percent of each true class; of many classes every k-th is named."""
    n, totals = len(names), counts.sum(axis=1)
    share = 100 * counts / totals[:, None].clip(min=1)
    side = 2.4 + 0.52 * min(n, MOST_NAMES)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
    for row, column in np.argwhere(counts > 0).tolist() if n <= 40 else []:
        colour = "white" if share[row, column] > 55 else "black"
        axis.text(column, row, f"{share[row, column]:.0f}", ha="center", va="center", fontsize=9, color=colour)
    named = range(0, n, -(-n // MOST_NAMES))
    axis.set_xticks(named, [plain(names[one]) for one in named], rotation=45, ha="right", rotation_mode="anchor")
    axis.set_yticks(named, [f"{plain(names[one])} ({totals[one]})" for one in named])
    axis.set(xlabel="class with the highest score", ylabel="true class (pictures)", title=plain(title))
    figure.colorbar(image, label="% of the true class", shrink=0.8)
    return to_png(figure)


def draw_curves(history: Sequence[dict[str, str]], title: str) -> bytes:
    """Draw a run's metrics.csv: a panel for each quantity of training and validation, over the epochs."""
    quantities = [name.removeprefix("val_") for name in history[0] if name.startswith("val_")]
    figure = Figure(figsize=(4.6 * len(quantities), 3.6), layout="constrained")
    figure.suptitle(plain(title))
    epochs = [int(row["epoch"]) for row in history]
    for place, quantity in enumerate(quantities, 1):
        axis = figure.add_subplot(1, len(quantities), place)
        for part, style in (("train", "-o"), ("val", "--s")):
            if f"{part}_{quantity}" in history[0]:
                values = [float(row[f"{part}_{quantity}"]) for row in history]
                axis.plot(epochs, values, style, color=RIGHT if part == "train" else WRONG, label=part, ms=3)
        axis.set(title=quantity.replace("_", " "), xlabel="epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        axis.legend()
    return to_png(figure)


@dataclass
class Cell:
    """A picture on a sheet, uint8 RGB [height, width, 3], two lines below it, and whether it is right (None: no matter)."""

    picture: np.ndarray
    first: str
    second: str = ""
    right: bool | None = None


def draw_sheet(rows: Sequence[tuple[Cell | None, Sequence[Cell] | None]], title: str, query: str, found: str) -> bytes:
    """Draw rows of pictures: a query, if the row has one, and apart from it what goes with it; `query` and `found` head them.

    Right ones have a solid frame and a tick, wrong ones a dashed frame and a cross.
    """
    across = max(len(cells or ()) for _, cells in rows)
    width, height = across + 1.35, 1.34 * len(rows) + 0.62
    figure = Figure(figsize=(width, height))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.axis("off")
    axis.text(0.12, 0.2, plain(title), fontsize=11, weight="bold", va="center")
    axis.text(0.12, 0.45, query, fontsize=8, color=QUIET, va="center")
    axis.text(1.37, 0.45, found, fontsize=8, color=QUIET, va="center")
    for line, (asked, cells) in enumerate(rows):
        for column, cell in enumerate([asked, *(cells or ())]):
            if cell:
                draw_cell(axis, cell, column + (0.12 if column == 0 else 0.37), 0.6 + 1.34 * line)
    axis.set(xlim=(0, width), ylim=(height, 0))
    return to_png(figure)


def draw_cell(axis: Axes, cell: Cell, left: float, top: float, side: float = 0.9) -> None:
    """Draw one picture of a sheet, its lines and its sign."""
    axis.imshow(to_square(cell.picture, 150), extent=(left, left + side, top + side, top), aspect="auto")
    hue = {None: QUIET, True: RIGHT, False: WRONG}[cell.right]
    for line, text in enumerate((cell.first, cell.second)):
        text = plain(text if len(text) <= 17 else text[:16] + "…")
        place = (left + side / 2, top + side + 0.1 + 0.14 * line)
        axis.text(*place, text, fontsize=7, ha="center", va="center", color=hue if cell.right is False else QUIET)
    if cell.right is not None:
        line = "-" if cell.right else (0, (2, 1.2))
        axis.add_patch(Rectangle((left, top), side, side, fill=False, lw=2.2, ec=hue, ls=line))
        badge = {"boxstyle": "circle,pad=0.12", "fc": hue, "ec": "white", "lw": 0.8}
        sign = {"color": "white", "fontsize": 8, "ha": "center", "va": "center", "bbox": badge}
        axis.text(left + side - 0.08, top + 0.09, "✓" if cell.right else "✗", **sign)
