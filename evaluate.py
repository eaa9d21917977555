"""How good a run's embedding is: numbers, t-SNE, retrieval sheet, confusion matrix, exported embeddings.

    python evaluate.py runs/stage2                         # writes runs/stage2/evaluation
    python evaluate.py runs/stage1 runs/stage2             # and puts both side by side in a table
    python evaluate.py runs/stage2 --split val             # another split than test
    python evaluate.py runs/stage2 --data OTHER            # other pictures, labelled or not

Takes the best weights of each run (best.pt) and the split that the run recorded (split.csv).
"""

from __future__ import annotations

import argparse
import math
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sheets
from dataset import SPLITS, Collection
from embedding import (
    Embedded,
    Run,
    add_embedding_options,
    embed_rows,
    load_run,
    numbers_of,
    read_pictures,
    refuse_missing,
    refuse_unreadable,
    say_unreadable,
)
from embedding_files import FORMATS, write_embeddings
from pictures import stored_size
from retrieval import nearest_class, nearest_has_same, rank_all
from run_folder import describe_device, read_split
from show import add_show_options, show_pictures
from triplet_network import triplet_losses
from triplets import draw_fixed, read_triplets
from utils import UserError, choose_device, run_script, write_json, write_whole

DEFINITIONS = {
    "accuracy": "stage 1: share of pictures whose highest class score is that of their own class",
    "map": "every picture queries all the others, relevant = same style: the mean over queries of the average "
    "precision, which is the mean over relevant pictures of the share of relevant ones among all that are at most as "
    "far away",
    "map_cross_content": "map with the pictures of the query's style *and* content taken out: only style can help",
    "precision_at_1": "how often the nearest other picture has the query's style",
    "precision_at_10": "share of the query's style among the ten nearest",
    "r_precision": "share of the query's style among the R nearest, R = number of other pictures of its style",
    "triplet_accuracy": "share of fixed triplets, ten for each picture as the anchor, drawn as for validation, whose "
    "positive (same style, other content) is nearer than their negative (other style, same content)",
    "content_precision_at_1": "how often the nearest other picture has the query's content, which it should not know",
}
NOTES = """Ranks are exact, nothing is cut off; distances are Euclidean, on embeddings of length 1. Equal distances
count as one step in average precision; elsewhere the other style comes first. A picture that is alone in its style
queries nothing. Every number is a mean over pictures (per_style: over that style's), between 0 and 1; null where
labels are missing. `chance` is what embeddings at random would reach. For a run with --label content, style and
content change places in all of this."""
MOST_POINTS = 5000  # in a t-SNE map: more would hide each other, and take minutes


def get_parser() -> argparse.ArgumentParser:
    """The options of evaluation."""
    words = "\n".join(
        f"  {name}\n{textwrap.indent(textwrap.fill(text, 105), ' ' * 6)}" for name, text in DEFINITIONS.items()
    )
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"numbers in metrics.json:\n{words}\n\n{NOTES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder of either stage; several are compared")
    add_embedding_options(parser)
    parser.add_argument(
        "--split",
        choices=("test", "val", "train", "all"),
        default=None,
        help="default: test of the data that the run was trained on, all of other data. Choose settings by val; look "
        "at test once, at the end",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder for what is found, default RUN/evaluation; of several runs, each gets a folder in DIR",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="npz",
        help="embeddings.npz is always written; csv adds embeddings.csv, projector adds vectors.tsv and "
        "metadata.tsv for the TensorFlow projector",
    )
    parser.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="leave pictures that cannot be decoded out instead of stopping at them",
    )
    parser.add_argument(
        "--tsne",
        action=argparse.BooleanOptionalAction,
        default=True,
        help=f"draw the t-SNE map, of at most {MOST_POINTS} pictures; the slowest part where there are many",
    )
    add_show_options(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    """Evaluate each run; with several, compare them."""
    device = choose_device(args.device)
    outs = choose_folders(args)
    found = [evaluate_run(folder, out, args, device) for folder, out in zip(args.runs, outs, strict=True)]
    if len(found) > 1:
        names = [Path(folder).resolve().name for folder in args.runs]
        if len(set(names)) < len(names):
            names = [str(Path(folder)) for folder in args.runs]
        print(compare(names, found, markdown=False), end="")
        for folder in [Path(args.out)] if args.out else outs:
            write_whole(folder / "comparison.txt", compare(names, found, markdown=False))
            write_whole(folder / "comparison.md", compare(names, found, markdown=True))
        print(f"compared in {outs[-1] if not args.out else args.out}/comparison.md")


def choose_folders(args: argparse.Namespace) -> list[Path]:
    """The folder that each run's evaluation goes into."""
    runs = [Path(folder) for folder in args.runs]
    if args.out is None:
        return [run / "evaluation" for run in runs]
    if len(runs) == 1:
        return [Path(args.out)]
    names = [run.resolve().name for run in runs]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"--out {args.out}: two of the runs are called {twice[0]}; evaluate them without --out")
    return [Path(args.out) / name for name in names]


def evaluate_run(folder: str, out: Path, args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Evaluate one run, leave everything in `out`, print the numbers and return them."""
    began = time.monotonic()
    run = load_run(folder, device)
    collection, own = read_pictures(run, args)
    split = args.split or ("test" if own else "all")
    elsewhere = own and args.data is not None and collection.folder.resolve() != Path(run.config["data"]["folder"])
    if elsewhere and args.split is None:
        print(f"note: {args.data} holds most pictures of the run by their names, so it is taken for the run's data, and "
              f"the run's test split is evaluated; --split all takes every picture")  # fmt: skip
    if own and not (elsewhere and split == "all"):
        refuse_missing(run, collection, split)
    rows = choose_rows(run, collection, own, split)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be made: {error.strerror or error}") from error
    embedded = embed_rows(run, collection, rows, args)
    if not args.skip_unreadable:
        refuse_unreadable(collection, embedded.unreadable, stored_size(run.net.image_size))
    say_unreadable(collection, embedded.unreadable)
    case = make_case(run, collection, embedded)
    metrics = {
        "run": str(run.folder),
        "stage": run.net.stage,
        "label": run.net.label,
        "data": str(collection.folder.resolve()),
        "split": split,
        "n_pictures": len(embedded.rows),
        "embedding_dim": run.net.embedding_dim,
        "net_sha256": run.weights,
        "device": describe_device(device),
        **measure(case, fixed_triplets(run, collection, case, own, split), device),
    }
    print_metrics(metrics)
    write_all(run, collection, case, metrics, out, args)
    print(f"{run.folder}: written to {out} after {time.monotonic() - began:.0f} s")
    return metrics


@dataclass
class Case:
    """What is evaluated: n embedded pictures, with int64 [n] of the trained label (style) and of the other (content).

    `classes` and `others` name them; -1 stands for unknown.
    """

    embedded: Embedded
    label: np.ndarray
    classes: tuple[str, ...]
    other: np.ndarray
    others: tuple[str, ...]


def choose_rows(run: Run, collection: Collection, own: bool, split: str) -> np.ndarray:
    """The rows of a collection that are evaluated, int64 [n]. Raises `UserError` where there is nothing to compare."""
    if own:
        new = int((collection.split == "").sum())
        if new:
            print(f"note: {new} pictures are new since the run and in none of its splits")
    rows = collection.rows(split)
    if not len(rows):
        counts = ", ".join(f"{len(collection.rows(name))} {name}" for name in SPLITS)
        raise UserError(
            f"--split {split}: {collection.source} has no pictures in it ({counts}); choose another --split"
        )
    number = numbers_of(collection, run.net.label, run.net.classes)[rows]
    present = np.unique(number[number >= 0])
    if len(present) == 1:
        raise UserError(
            f"{collection.source}: all pictures of --split {split} have the {run.net.label} "
            f"'{run.net.classes[present[0]]}'; it takes two to tell apart; --unlabelled embeds them without numbers"
        )
    return rows


def make_case(run: Run, collection: Collection, embedded: Embedded) -> Case:
    """Put the embedded pictures' labels beside their embeddings."""
    label = run.net.label
    others, number = (
        (collection.contents, collection.content) if label == "style" else (collection.styles, collection.style)
    )
    classes = run.net.classes
    return Case(embedded, numbers_of(collection, label, classes)[embedded.rows], classes, number[embedded.rows], others)


def fixed_triplets(run: Run, collection: Collection, case: Case, own: bool, split: str) -> np.ndarray:
    """Triplets drawn as training draws its fixed ones, or the file's that it trained on, int64 [t, 3] into the case."""
    rows, file = case.embedded.rows, run.settings.get("triplets")
    if file and own and split in SPLITS:
        gone = read_split(run.folder).keys() - collection.paths  # then the file's numbers mean other pictures
        if gone:
            print(f"note: {len(gone)} of the run's pictures are gone; triplet_accuracy is on drawn triplets")
        elif Path(file).exists():
            given = read_triplets(Path(file), collection)[split]
            return np.searchsorted(rows, given[np.isin(given, rows).all(axis=1)])
        else:
            print(f"note: {file}, which the run took its triplets from, is gone; triplet_accuracy is on drawn triplets")
    number = np.full(len(collection), -1, dtype=np.int64)
    other = number.copy()
    number[rows], other[rows] = case.label, case.other
    known = rows[case.label >= 0]
    if (np.bincount(number[known], minlength=1) > 1).sum() < 2:
        return np.empty((0, 3), dtype=np.int64)
    return np.searchsorted(rows, draw_fixed(number, other, known, run.settings.get("split_seed", 0)))


# Numbers.


def measure(case: Case, triplets: np.ndarray, device: torch.device) -> dict[str, Any]:
    """Every number of `DEFINITIONS`, over all pictures and for each class, as plain data."""
    embeddings = case.embedded.embeddings.to(device)
    label, other = (torch.from_numpy(number).to(device) for number in (case.label, case.other))
    ranking = rank_all(embeddings, label)
    anchor, positive, negative = embeddings[torch.from_numpy(triplets).to(device)].unbind(dim=1)
    right = triplet_losses(anchor, positive, negative, 0.0)[1].double().cpu().numpy()
    scores = case.embedded.scores
    if scores is None:
        accuracy = np.full(len(case.label), math.nan)
        confused = nearest_class(embeddings, label).cpu().numpy()
    else:
        confused = scores.argmax(dim=1).numpy()
        accuracy = np.where(case.label >= 0, confused == case.label, math.nan)
    each = {
        "accuracy": accuracy,
        "map": ranking.average_precision.cpu().numpy(),
        "map_cross_content": rank_all(embeddings, label, other).average_precision.cpu().numpy(),
        "precision_at_1": ranking.precision_at_1.cpu().numpy(),
        "precision_at_10": ranking.precision_at_10.cpu().numpy(),
        "r_precision": ranking.r_precision.cpu().numpy(),
        "triplet_accuracy": right,
        "content_precision_at_1": nearest_has_same(embeddings, other).cpu().numpy(),
    }
    belongs = {name: case.label if name != "triplet_accuracy" else case.label[triplets[:, 0]] for name in each}

    def summary(which: int | None) -> dict[str, Any]:
        chosen = {name: each[name] if which is None else each[name][belongs[name] == which] for name in each}
        counts = {"n_queries": counted(chosen["map"]), "n_queries_cross_content": counted(chosen["map_cross_content"])}
        return {name: mean(values) for name, values in chosen.items()} | counts

    present = np.unique(case.label[case.label >= 0]).tolist()
    return {
        **summary(None),
        "chance": {"precision_at_1": chance(case.label), "content_precision_at_1": chance(case.other)},
        "per_style": {case.classes[which]: summary(which) for which in present},
        "confusion": {
            "by": "nearest neighbour" if scores is None else "classifier",
            "classes": list(case.classes),
            "counts": confusion(case.label, confused, len(case.classes)).tolist(),
        },
    }


def mean(values: np.ndarray) -> float | None:
    """The mean of what is known, or None."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def counted(values: np.ndarray) -> int:
    """How many are known."""
    return int((~np.isnan(values)).sum())


def chance(number: np.ndarray) -> float | None:
    """How often one of the other pictures, taken at random, has the same class: the floor of precision at 1."""
    counts = np.bincount(number[number >= 0])
    n = int(counts.sum())
    return float((counts * (counts - 1)).sum() / (n * (n - 1))) if n > 1 else None


def confusion(label: np.ndarray, found: np.ndarray, classes: int) -> np.ndarray:
    """Count (true, found) pairs, both int64 [n], -1 where unknown: int64 [classes, classes]."""
    known = (label >= 0) & (found >= 0)
    return np.bincount(label[known] * classes + found[known], minlength=classes**2).reshape(classes, classes)


# What is written and shown.


def write_all(
    run: Run, collection: Collection, case: Case, metrics: dict[str, Any], out: Path, args: argparse.Namespace
) -> None:
    """Write numbers, embeddings and pictures into `out`, and show the pictures in the run's Visdom environment."""
    rows = case.embedded.rows.tolist()
    columns = {
        "path": [collection.paths[row] for row in rows],
        "style": [collection.style_name(row) for row in rows],
        "content": [collection.content_name(row) for row in rows],
    }
    for form in dict.fromkeys(("npz", args.format)):
        write_embeddings(out, form, case.embedded.embeddings, columns)
    pictures = draw_all(run, collection, case, metrics, args)
    for name, png in pictures.items():
        write_whole(out / f"{name}.png", png)
    write_json(out / "metrics.json", metrics)  # last: where it is, the rest is
    show_pictures(args, run, {f"{name} ({metrics['split']})": png for name, png in pictures.items()})


def draw_all(
    run: Run, collection: Collection, case: Case, metrics: dict[str, Any], args: argparse.Namespace
) -> dict[str, bytes]:
    """The pictures of an evaluation as PNGs, by name."""
    label, kind = run.net.label, {"style": "content", "content": "style"}[run.net.label]
    n = len(case.label)
    what = (
        f"{run.folder.resolve().name}, {'all pictures' if metrics['split'] == 'all' else metrics['split'] + ' split'}"
    )
    drawn = {}
    if args.tsne:
        rows = sheets.sample_rows(n, MOST_POINTS)
        of = f"{n} pictures" if len(rows) == n else f"{len(rows)} of {n} pictures, drawn at random"
        if len(rows) < n:
            print(f"t-SNE: {of}")
        points = sheets.project(case.embedded.embeddings[torch.from_numpy(rows)])
        panels = [(f"by {label}", case.label[rows], case.classes), (f"by {kind}", case.other[rows], case.others)]
        panels = [panel for panel in panels if (panel[1] >= 0).any()] or [("unlabelled", case.label[rows], ())]
        drawn["tsne"] = sheets.draw_tsne(points, panels, f"t-SNE of the embeddings of {of} ({what})")
    if n > 1:
        classes = len(np.unique(case.label[case.label >= 0]))
        queries = sheets.choose_queries(case.label, case.other, 2 if classes else 8)
        words = [
            [names[number] if number >= 0 else "" for number in numbers.tolist()]
            for names, numbers in ((case.classes, case.label), (case.others, case.other))
        ]
        files = [collection.folder / collection.paths[row] for row in case.embedded.rows.tolist()]
        found = sheets.nearest_rows(case.embedded.embeddings, queries, 10)
        drawn["retrieval"] = sheets.draw_retrieval(
            files, words, queries, found, f"The ten nearest of {n} pictures ({what})"
        )
    if metrics["n_queries"]:
        counts, by = np.array(metrics["confusion"]["counts"]), metrics["confusion"]["by"]
        drawn["confusion"] = sheets.draw_confusion(counts, case.classes, what, f"class by the {by}")
    return drawn


def print_metrics(metrics: dict[str, Any]) -> None:
    """Print a run's numbers: overall, then a line a class."""
    print(f"{metrics['run']} (stage {metrics['stage']}), {metrics['split']}: {metrics['n_pictures']} pictures of "
          f"{metrics['data']}, {metrics['n_queries']} queries")  # fmt: skip
    names = [name for name in DEFINITIONS if metrics[name] is not None]
    if not names:
        print("no labels, so no numbers")
        return
    lines = [[f"all {metrics['label']}s", *(number(metrics[name]) for name in names)]]
    lines += [[style, *(number(row[name]) for name in names)] for style, row in metrics["per_style"].items()]
    lines += [["chance", *(number(metrics["chance"].get(name), "") for name in names)]]
    words = [textwrap.wrap(name.replace("_", " "), 9) for name in ("", *names)]
    header = [list(line) for line in zip_longest(*words, fillvalue="")]
    print(lay_out([*header, *lines]))


def compare(names: Sequence[str], found: Sequence[dict[str, Any]], markdown: bool) -> str:
    """Several runs side by side: a row for each number, a column for each run; as text or as a Markdown table."""
    lines = [["", *names], ["split", *(f"{metrics['split']} ({metrics['n_pictures']})" for metrics in found)]]
    lines += [[name, *(number(metrics[name]) for metrics in found)] for name in DEFINITIONS]
    if not markdown:
        return lay_out(lines) + "\n"
    lines.insert(1, ["---", *("---:" for _ in names)])
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def number(value: float | None, unknown: str = "-") -> str:
    """A number for a table."""
    return unknown if value is None else f"{value:.3f}"


def lay_out(lines: list[list[str]]) -> str:
    """Align the columns of a table: the first to the left, the others to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.rjust(width) if column else cell.ljust(width)
                  for column, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip()
        for line in lines
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(run_script(get_parser, main))
