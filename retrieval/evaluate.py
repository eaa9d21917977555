"""How good the embeddings of runs are: numbers, t-SNE, retrieval sheet, confusion matrix, curves, the embeddings.

python -m retrieval.evaluate runs/stage1 runs/stage2         # each run's own test pictures; into RUN/evaluation
python -m retrieval.evaluate runs/stage2 --split val         # to choose settings by; look at test once, at the end
python -m retrieval.evaluate runs/stage2 --data DIR          # all pictures of another folder, of any styles
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from dataset import Collection, load_pictures, read_collection
from retrieval import pictures
from retrieval.embedding import TrainedNet, load, read_config, read_pictures
from retrieval.metrics import DEFINITIONS, measure, summarise
from triplet_network import draw_fixed_triplets, read_triplets
from utils import METRICS, SPLIT, Curves, UserError, choose_device, read_table, run_script, write_whole

NOTES = """Every number is a mean between 0 and 1, null where labels are missing; per_style has it for each style.
Distances are Euclidean, on embeddings of length 1. Of equally near pictures those of another style come first, but in
average precision they count as one step. A picture that is alone in its style queries nothing; n_queries counts the
others. For a run with --label content, style and content change places in all of this. Pictures that cannot be read are
named and left out."""
SHOWN_CLASSES, SHOWN_EACH, SHOWN_FOUND = 30, 2, 10  # of the sheet: queries for each class, and what each found


def get_parser() -> argparse.ArgumentParser:
    """The options of evaluation."""
    words = [f"  {name}\n      {text}\n" for name, text in DEFINITIONS.items()]
    parser = argparse.ArgumentParser(
        prog="python -m retrieval.evaluate",
        description=__doc__,
        epilog=f"The numbers in metrics.json:\n\n{''.join(words)}\n{NOTES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="run folders of either stage; several are put side by side")
    add("--data", type=Path, metavar="DIR", help="other pictures; default: each run's own")
    split = "default test, of --data all; where DIR has no splits of its own, the run's are meant"
    add("--split", choices=("test", "val", "train", "all"), help=split)
    add("--out", type=Path, metavar="DIR", help="each run gets a folder in DIR; default RUN/evaluation")
    add("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    parser.set_defaults(amp="off")
    return parser


@dataclass
class Case:
    """A run and the n pictures that it is measured on.

    They are `rows`, int64 [n], of a collection and of its `squares`, uint8 [m, side, side, 3]. `labels` are the names, and
    each picture's number, int64 [n], -1 where unknown, of what the embedding should know (style) and then of what it
    should not (content). `embeddings` are float32 [n, d], each of length 1. `true` is each picture's class among those of
    the net, int64 [n], -1 where that does not know it, and `chosen` the one that stage 1 gives it, -1 in stage 2.
    """

    run: Path
    config: dict[str, Any]
    net: TrainedNet
    collection: Collection
    squares: Tensor
    rows: np.ndarray
    labels: dict[str, tuple[list[str], np.ndarray]]
    embeddings: Tensor
    true: np.ndarray
    chosen: np.ndarray


def main(args: argparse.Namespace) -> None:
    """Evaluate each run and print one table. Raises `UserError`."""
    device, _ = choose_device(args)
    args.split = args.split or ("all" if args.data else "test")
    for parts in (1, 2, 3, 99):  # as many of the path's last as tell the runs apart
        names = ["-".join(run.resolve().parts[1:][-parts:]) for run in args.runs]
        if len(set(names)) == len(names):
            break
    cases = [see_pictures(run, args, device) for run in args.runs]
    paths = [[case.collection.paths[row] for row in case.rows] for case in cases]
    other = [case.run for case, seen in zip(cases, paths, strict=True) if seen != paths[0]]
    if other:
        raise UserError(f"{args.runs[0]}, {other[0]}: have other pictures in {args.split}; give --data DIR for both")
    table = []
    for case, name, (triplets, which) in zip(cases, names, choose_triplets(cases, args), strict=True):
        out = args.out / name if args.out else case.run / "evaluation"
        facts = {"run": str(case.run), **{fact: case.net.facts[fact] for fact in ("stage", "label", "epoch")}}
        facts |= {"data": str(case.collection.folder.resolve()), "split": args.split, "n_pictures": len(case.rows)}
        table.append({**facts, "triplets": which, **measure_case(case, triplets)})
        write_evaluation(case, table[-1], out)
        show_in_visdom(case, tabulate([name], table[-1:]))
        print(f"{case.run}: written to {out}")
    print(f"\n{len(paths[0])} pictures ({args.split}); triplets: {table[0]['triplets']}\n\n{tabulate(names, table)}")


def see_pictures(run: Path, args: argparse.Namespace, device: torch.device) -> Case:
    """Embed the pictures that a run is measured on. Raises `UserError` where there are none."""
    net, config = load(run, device), read_config(run)
    folder, cache = args.data or Path(config["data"]["folder"]), config["options"]["cache"]
    collection = read_pictures(folder, args.split) if args.data else None
    if collection is None or not (collection.split != "").any():
        collection = read_collection(folder, known={row["path"]: row["split"] for row in read_table(run / SPLIT)})
    cache = Path(cache) if cache and not args.data else None
    collection, squares = load_pictures(collection, net.facts["image_size"], torch.device("cpu"), cache, True)
    wanted = collection.split != "" if args.split == "all" else collection.split == args.split
    rows = np.flatnonzero(wanted & (collection.number[net.label] >= 0))
    if not len(rows):
        raise UserError(f"--split {args.split}: {folder} has no pictures of known {net.label} in it; choose another")
    found = net.predict(squares, rows)
    chosen = net.head(found).argmax(dim=1).cpu().numpy() if net.head else np.full(len(rows), -1)
    own_first = sorted(collection.classes, key=net.label.__ne__)
    labels = {label: (collection.classes[label], collection.number[label][rows]) for label in own_first}
    names, number = labels[net.label]
    true = np.array([net.classes.index(name) if name in net.classes else -1 for name in names])[number]
    return Case(run, config, net, collection, squares, rows, labels, normalize(found, dim=1), true, chosen)


def choose_triplets(cases: Sequence[Case], args: argparse.Namespace) -> list[tuple[np.ndarray, str]]:
    """The triplets that each run is measured on, int64 [m, 3] of its n pictures, and which these are.

    The same for all: those of the lists that one of the runs was trained on, else drawn as training's fixed ones are.
    """
    for case in cases:
        files = case.config["options"].get("triplets")
        if files and not args.data:
            lists = read_triplets([Path(file) for file in files], case.collection.split)
            given = np.concatenate([lists[split] for split in lists if args.split in (split, "all")])
            given = given[np.isin(given, case.rows).all(axis=1)]
            if len(given):
                return [(np.searchsorted(case.rows, given), f"{len(given)} of {' '.join(files)}")] * len(cases)
    numbers = [[number for _, number in case.labels.values()] for case in cases]
    drawn = [draw_fixed_triplets(*number, np.arange(len(number[0]))) for number in numbers]
    return [(triplets, f"{len(triplets)}, ten drawn for each picture as the anchor") for triplets in drawn]


def measure_case(case: Case, triplets: np.ndarray) -> dict[str, Any]:
    """All numbers of a run."""
    (names, label), (_, other) = case.labels.values()
    right = np.where((case.true >= 0) & (case.chosen >= 0), case.chosen == case.true, math.nan)
    given = (torch.tensor(part).to(case.embeddings.device) for part in (label, other, triplets, right))
    return summarise(measure(case.embeddings, *given), label, triplets, names)


def write_evaluation(case: Case, metrics: dict[str, Any], out: Path) -> None:
    """Write everything into a folder: the metrics.json of before goes first, the new one comes last."""
    title = f"{case.run.resolve().name}, {metrics['split']}"
    embeddings = case.embeddings.cpu().numpy()
    words = {f"{label}s": [[*names, ""][one] for one in number] for label, (names, number) in case.labels.items()}
    paths = [case.collection.paths[row] for row in case.rows]
    drawn = {"tsne.png": pictures.draw_tsne(embeddings, case.labels, title)}
    drawn["retrieval.png"] = draw_retrieval(case, title)
    drawn["curves.png"] = pictures.draw_curves(read_table(case.run / METRICS), case.run.resolve().name)
    if metrics["accuracy"] is not None:
        counts = np.zeros((len(case.net.classes),) * 2, dtype=np.int64)
        np.add.at(counts, (case.true[case.true >= 0], case.chosen[case.true >= 0]), 1)
        drawn["confusion.png"] = pictures.draw_confusion(counts, case.net.classes, title)
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").unlink(missing_ok=True)
    write_whole(out / "embeddings.npz", lambda file: np.savez(file, embeddings=embeddings, paths=paths, **words))
    for name, png in drawn.items():
        write_whole(out / name, png)
    write_whole(out / "metrics.json", json.dumps(metrics, indent=2).encode())


def draw_retrieval(case: Case, title: str) -> bytes:
    """Draw what some pictures of each class find, or of as many classes as fit: the same for all runs on the same pictures."""
    (names, label), (others, other) = case.labels.values()

    def cell(place: int, query: int | None = None) -> pictures.Cell:
        square = case.squares[int(case.rows[place])].numpy()
        right = None if query is None else bool(label[place] == label[query])
        return pictures.Cell(square, names[label[place]], [*others, ""][other[place]], right)

    order, classes, rows = np.random.default_rng(0).permutation(len(label)), np.unique(label), []
    shown = classes[np.linspace(0, len(classes) - 1, min(len(classes), SHOWN_CLASSES)).astype(int)]
    for query in [int(place) for which in shown for place in order[label[order] == which][:SHOWN_EACH]]:
        far = (case.embeddings - case.embeddings[query]).norm(dim=1)
        far[query] = math.inf
        rows.append((cell(query), [cell(place, query) for place in far.argsort()[:-1][:SHOWN_FOUND].tolist()]))
    found = f"nearest first;  ✓ and solid frame: the query's {case.net.label};  ✗ and dashed frame: another one"
    return pictures.draw_sheet(rows, f"{title}: the nearest of {len(label)} pictures", "query", found)


def tabulate(names: Sequence[str], table: Sequence[dict[str, Any]]) -> str:
    """Runs side by side: a row for each number, a column for each run."""
    wide = 2 + max(8, *map(len, names))
    lines = [" " * 24 + "".join(f"{name:>{wide}}" for name in names)]
    for row in [row for row in DEFINITIONS if any(metrics[row] is not None for metrics in table)]:
        values = ("-" if metrics[row] is None else f"{metrics[row]:.3f}" for metrics in table)
        lines.append(f"{row:24}" + "".join(f"{value:>{wide}}" for value in values))
    return "\n".join(lines)


def show_in_visdom(case: Case, table: str) -> None:
    """Put the numbers beside the run's curves, where these were shown, if their server is up."""
    args = SimpleNamespace(**case.config["options"])
    if args.visdom:
        try:
            curves = Curves(SimpleNamespace(args=args, folder=case.run))
            opts = {"title": "evaluation", "width": 450, "height": 380}
            client = curves.connect()
            client.text(f"<pre>{escape(table)}</pre>", win="evaluation", env=curves.env, opts=opts)
            client.save([curves.env])
        except Exception as error:  # of whatever kind: it is a view
            print(f"visdom: the numbers are not shown there: {error}")


if __name__ == "__main__":
    raise SystemExit(run_script(main, get_parser()))
