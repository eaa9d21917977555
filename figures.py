"""Draw the README's figures out of two evaluated runs.

    python demo.py --sheet images/demo.png             # the sample of the stand-in collection
    python evaluate.py runs/stage1 runs/stage2
    python figures.py --runs runs --out images         # all the others

Needs RUNS/stage1 and RUNS/stage2 with their evaluation folders, and the pictures that were evaluated.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

import sheets
from run_folder import CONFIG, METRICS
from triplet_network import distances, triplet_losses
from utils import UserError, read_json, run_script, write_whole

MOST_BYTES = 500_000  # a repository should stay small
MOST_POINTS = 5000
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#555555"


@dataclass
class Evaluated:
    """A run and what `evaluate.py` left of it: n embeddings with each picture's file, style and content."""

    name: str
    settings: dict[str, Any]
    history: list[dict[str, float]]
    metrics: dict[str, Any]
    embeddings: torch.Tensor
    files: list[Path]
    styles: list[str]
    contents: list[str]

    @property
    def pictures(self) -> str:
        """What was evaluated, in words."""
        return "pictures" if self.metrics["split"] == "all" else f"{self.metrics['split']} pictures"


def get_parser() -> argparse.ArgumentParser:
    """The options of the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--runs", default="runs", metavar="DIR", help="folder of stage1 and stage2; default %(default)s"
    )
    parser.add_argument("--out", default="images", metavar="DIR", help="folder for the figures; default %(default)s")
    return parser


def main(args: argparse.Namespace) -> None:
    """Write every figure into `args.out`."""
    out = Path(args.out)
    stages = [read_evaluated(Path(args.runs) / name) for name in ("stage1", "stage2")]
    out.mkdir(parents=True, exist_ok=True)
    write_figure(out / "triplet_net.png", lambda _: draw_triplet_net(stages[1], stages[0].settings["arch"]))
    write_figure(out / "loss.png", lambda _: draw_loss(stages[1]))
    for stage in stages:
        write_figure(out / f"curves_{stage.name}.png", lambda _, stage=stage: draw_history(stage))
        write_figure(out / f"tsne_{stage.name}.png", lambda few, stage=stage: draw_map(stage, few))
        write_figure(out / f"retrieval_{stage.name}.png", lambda few, stage=stage: draw_rows(stage, few))


def read_evaluated(run: Path) -> Evaluated:
    """Read a run and its evaluation. Raises `UserError` where a part is missing."""
    metrics_file, archive = run / "evaluation" / "metrics.json", run / "evaluation" / "embeddings.npz"
    if not metrics_file.exists():
        raise UserError(f"{run}: has no evaluation; run `python evaluate.py {run}` first")
    metrics = read_json(metrics_file)
    try:
        with np.load(archive, allow_pickle=False) as found:
            embeddings, *names = (found[name] for name in ("embeddings", "paths", "styles", "contents"))
        with (run / METRICS).open(newline="", encoding="utf-8") as file:
            history = [{name: float(value or "nan") for name, value in row.items()} for row in csv.DictReader(file)]
        files = [Path(metrics["data"]) / path for path in names[0].tolist()]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{run}: {error}; run `python evaluate.py {run}` again") from error
    gone = [file for file in files if not file.exists()]
    if gone:
        raise UserError(f"{run}: {len(gone)} of its {len(files)} evaluated pictures are gone, first {gone[0]}")
    settings = read_json(run / CONFIG)["settings"]
    styles, contents = names[1].tolist(), names[2].tolist()
    return Evaluated(run.name, settings, history, metrics, torch.from_numpy(embeddings), files, styles, contents)


def write_figure(path: Path, draw: Callable[[bool], bytes]) -> None:
    """Write a figure; `draw` is asked for fewer colours where it would be too large for a repository."""
    png = draw(False)
    if len(png) > MOST_BYTES:
        png = draw(True)
    write_whole(path, png)
    print(f"{path}: {len(png) / 1000:.0f} kB")


# The figures.


def draw_map(stage: Evaluated, few_colours: bool) -> bytes:
    """The t-SNE map of a run's embeddings, by style and by content."""
    rows = sheets.sample_rows(len(stage.files), MOST_POINTS)
    panels = []
    for heading, names in (("by style", stage.styles), ("by content", stage.contents)):
        classes, number = number_classes(names, stage.metrics["confusion"]["classes"])
        panels.append((heading, number[rows], classes))
    points = sheets.project(stage.embeddings[torch.from_numpy(rows)])
    title = f"After {stage.name.replace('stage', 'stage ')}: t-SNE of {len(rows)} {stage.pictures}"
    return sheets.draw_tsne(points, panels, title, few_colours=few_colours)


def draw_rows(stage: Evaluated, few_colours: bool) -> bytes:
    """What a query of each style finds."""
    label, other = (
        number_classes(names, stage.metrics["confusion"]["classes"])[1] for names in (stage.styles, stage.contents)
    )
    queries = sheets.choose_queries(label, other, 1)
    found = sheets.nearest_rows(stage.embeddings, queries, 10)
    title = f"After {stage.name.replace('stage', 'stage ')}: the ten nearest of {len(label)} {stage.pictures}"
    return sheets.draw_retrieval(
        stage.files, (stage.styles, stage.contents), queries, found, title, side=64, few_colours=few_colours
    )


def number_classes(names: Sequence[str], order: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The classes among `names`, in the run's order where it has them, and each name's number, int64 [n]."""
    used = set(names) - {""}
    classes = [name for name in order if name in used] + sorted(used - set(order))
    return classes, np.array([classes.index(name) if name else -1 for name in names], dtype=np.int64)


def draw_history(stage: Evaluated) -> bytes:
    """The curves of a run: loss, accuracy, and retrieval if it was measured, against the epoch."""
    kind = "accuracy" if "train_accuracy" in stage.history[0] else "triplet_accuracy"
    panels = [("loss", ["train_loss", "val_loss"]), (kind, [f"train_{kind}", f"val_{kind}"])]
    score = f"val_{kind}"
    if "val_map" in stage.history[0]:
        panels.append(("retrieval mAP", ["val_map"]))
        score = "val_map"
    best = max(stage.history, key=lambda row: row[score])["epoch"]
    figure = Figure(figsize=(4.4 * len(panels), 3.4), layout="constrained")
    for axis, (title, names) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for name, hue, dash in zip(names, (BLUE, ORANGE) if len(names) > 1 else (ORANGE,), ("-", "--"), strict=False):
            word = "training" if name.startswith("train") else "validation"
            epochs = [row["epoch"] for row in stage.history]
            axis.plot(epochs, [row[name] for row in stage.history], dash, color=hue, lw=1.8, label=word)
        axis.axvline(best, color=GREY, lw=0.8, ls=":", label=f"best, epoch {best:.0f}")
        axis.set(title=title.replace("_", " "), xlabel="epoch")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
    return sheets.to_png(figure, 100)


def length_of(stage: Evaluated) -> float | None:
    """The length that a run of stage 2 gave its embeddings before it measured distances; None: as they came."""
    return float(stage.settings.get("length", 1)) if stage.settings.get("normalise", True) else None


def draw_loss(stage: Evaluated) -> bytes:
    """The loss as the code computes it, with the run's margin, against how much farther the negative is."""
    margin, length = float(stage.settings["margin"]), length_of(stage) or 1.0
    # The negative goes round half a circle, from the anchor to the farthest point; the positive stays where it is.
    angle = torch.linspace(0, torch.pi, 2001, dtype=torch.float64)
    circle = length * torch.stack([angle.cos(), angle.sin()], dim=1)
    anchor = circle[:1].expand_as(circle)
    positive = circle[len(circle) // 5].expand_as(circle)
    losses, _ = triplet_losses(anchor, positive, circle, margin)
    lead = distances(anchor, circle) - distances(anchor, positive)
    figure = Figure(figsize=(7.2, 3.9), layout="constrained")
    axis = figure.subplots()
    left, right, top = lead[0].item(), lead[-1].item(), 1.35 * losses.max().item()
    margin_shown = min(margin, right)
    zones = (
        (left, 0, ORANGE, "the negative\nis nearer: wrong"),
        (0, margin_shown, "#E69F00", "right, but by less\nthan the margin"),
        (margin_shown, right, GREEN, "farther by the margin:\nnothing left to learn"),
    )
    for start, stop, hue, words in zones:
        axis.axvspan(start, stop, color=hue, alpha=0.12, lw=0)
        axis.text((start + stop) / 2, 0.97 * top, words, ha="center", va="top", fontsize=8.5)
    axis.plot(lead, losses, color=BLUE, lw=2.4)
    axis.plot([0], [margin], "o", color=BLUE, ms=6)
    axis.annotate(f"collapse: all embeddings alike,\nloss = margin = {margin:g}", (0, margin),
                  (0.96 * left, 0.06 * top), fontsize=9,
                  arrowprops={"arrowstyle": "->", "color": GREY})  # fmt: skip
    axis.set(xlim=(left, right), ylim=(0, top), ylabel="loss of the triplet",
             xlabel="d(anchor, negative) − d(anchor, positive)",
             title=f"loss = max(0, d(anchor, positive) − d(anchor, negative) + {margin:g})")  # fmt: skip
    axis.spines[["top", "right"]].set_visible(False)
    return sheets.to_png(figure, 100)


def choose_triplet(stage: Evaluated) -> list[int]:
    """Three pictures that make a triplet: the method's own example if the collection has it, else the first there is."""
    cells = list(zip(stage.styles, stage.contents, strict=True))
    example = [("Water Color", "bicycle"), ("Water Color", "flower"), ("3D Graphics", "bicycle")]
    if all(cell in cells for cell in example):
        return [cells.index(cell) for cell in example]
    for anchor, (style, content) in enumerate(cells):
        positives = [row for row, cell in enumerate(cells) if cell[0] == style and cell[1] != content]
        negatives = [row for row, cell in enumerate(cells) if cell[0] != style and cell[1] == content]
        if content and positives and negatives:
            return [anchor, positives[0], negatives[0]]
    raise UserError(f"{stage.metrics['run']}: its evaluated pictures hold no triplet; evaluate a larger --split")


def draw_triplet_net(stage: Evaluated, arch: str) -> bytes:
    """Three pictures through three branches that share their weights, to two distances and the loss."""
    length = length_of(stage)
    last = "embedding" if length is None else f"scaled to\nlength {length:g}"
    figure = Figure(figsize=(12.4, 5.2))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, 124), ylim=(0, 52))
    axis.axis("off")
    heights, names = (43, 26, 9), ("anchor a", "positive p", "negative n")
    for row, height, name in zip(choose_triplet(stage), heights, names, strict=True):
        axis.imshow(sheets.thumbnail(stage.files[row], 150), extent=(14, 27, height - 6.5, height + 6.5), zorder=2)
        axis.text(1, height + 1.5, name, fontsize=12, weight="bold", va="center")
        axis.text(1, height - 1.0, f"{stage.styles[row]}\n{stage.contents[row]}", fontsize=9, color=GREY, va="top")
        box(axis, 33, height, 16, f"backbone\n({arch})", BLUE)
        box(axis, 54, height, 14, f"bottleneck\n({stage.metrics['embedding_dim']})", BLUE)
        box(axis, 73, height, 11, last, GREY)
        for start, stop in ((27.5, 32.5), (49.5, 53.5), (68.5, 72.5)):
            arrow(axis, (start, height), (stop, height))
    for upper, lower in ((43, 26), (26, 9)):
        for x in (41, 61):
            arrow(axis, (x, upper - 5.2), (x, lower + 5.2), both=True)
        axis.text(51, (upper + lower) / 2, "same weights", ha="center", va="center", fontsize=9.5, color=BLUE)
    box(axis, 90, 34.5, 11, "distance\nd(a, p)", GREEN)
    box(axis, 90, 17.5, 11, "distance\nd(a, n)", ORANGE)
    for start, stop in (((84.5, 43), (89.5, 37)), ((84.5, 43), (89.5, 20)), ((84.5, 26), (89.5, 32)),
                        ((84.5, 9), (89.5, 15)), ((101.5, 34.5), (106.5, 28.5)), ((101.5, 17.5), (106.5, 23.5))):  # fmt: skip
        arrow(axis, start, stop)
    box(axis, 107, 26, 15.5, f"loss\nmax(0, d(a, p)\n− d(a, n) + {stage.settings['margin']:g})", GREY, wide=5.2)
    return sheets.to_png(figure, 100)


def box(axis: Axes, left: float, height: float, width: float, words: str, hue: str, wide: float = 4.6) -> None:
    """A rounded box around `height` with words in it."""
    style = {"boxstyle": "round,pad=0,rounding_size=1", "fc": "white", "ec": hue, "lw": 1.8}
    axis.add_patch(FancyBboxPatch((left, height - wide), width, 2 * wide, zorder=2, **style))
    axis.text(left + width / 2, height, words, ha="center", va="center", fontsize=10, zorder=3)


def arrow(axis: Axes, start: tuple[float, float], stop: tuple[float, float], both: bool = False) -> None:
    """An arrow; with `both`, a dashed one with two heads."""
    options = {"arrowstyle": "<->" if both else "->", "mutation_scale": 12, "shrinkA": 0, "shrinkB": 0}
    axis.add_patch(
        FancyArrowPatch(start, stop, color=BLUE if both else GREY, ls="--" if both else "-", zorder=1, **options)
    )


if __name__ == "__main__":
    raise SystemExit(run_script(get_parser, main))
