"""How good the embeddings of runs are: numbers, t-SNE, retrieval sheet, confusion matrix, curves, the embeddings.

python -m retrieval.evaluate runs/stage1 runs/stage2         # each run's own test pictures; into RUN/evaluation
python -m retrieval.evaluate runs/stage2 --split val         # to choose settings by; look at test once, at the end
python -m retrieval.evaluate runs/stage2 --data DIR          # all pictures of another folder, of any styles
"""

from __future__ import annotations

import argparse
import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from dataset import Collection, load_pictures
from retrieval import pictures
from retrieval.embedding import TrainedNet, load, read_config, read_own_pictures, read_pictures
from retrieval.metrics import DEFINITIONS, measure, summarise
from triplet_network import draw_fixed_triplets, read_triplets
from utils import METRICS, Curves, UserError, choose_device, connect_visdom, read_table, run_script, write_whole

NOTES = """Every number is a mean between 0 and 1, null where labels are missing; per_style has it for each style.
Distances are Euclidean, on embeddings of length 1. Of equally near pictures those of another style come first, but in average precision they
count as one step. A picture that is alone in its style queries nothing; n_queries counts the others. For a run with
--label content, style and content change places in all of this. Pictures that cannot be read are left out."""
SHOWN_CLASSES, SHOWN_EACH, SHOWN_FOUND = 30, 2, 10  # of the sheet: queries for each class, and what each found


def get_parser() -> argparse.ArgumentParser:
    """The options of evaluation."""
    words = "".join(
        f"  {name}\n{textwrap.indent(textwrap.fill(text, 110), ' ' * 6)}\n" for name, text in DEFINITIONS.items()
    )
    parser = argparse.ArgumentParser(
        prog="python -m retrieval.evaluate",
        description=__doc__,
        epilog=f"The numbers in metrics.json:\n\n{words}\n{NOTES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="run folders of either stage; several are put side by side")
    add("--data", type=Path, metavar="DIR", help="other pictures; default: each run's own, by its split.csv")
    add(
        "--split",
        choices=("test", "val", "train", "all"),
        help="default test, and all of --data, where it is by DIR's own splits",
    )
    add("--out", type=Path, metavar="DIR", help="each run gets a folder in DIR; default RUN/evaluation")
    add("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    parser.set_defaults(amp="off")
    return parser


@dataclass
class Case:
    """A run, and n pictures as it sees them: `rows`, int64 [n], of a collection, and their `squares` and embeddings."""

    run: Path
    config: dict[str, Any]
    net: TrainedNet
    collection: Collection
    rows: np.ndarray
    squares: Tensor
    embeddings: Tensor
    scores: Tensor | None

    def labels(self, label: str) -> tuple[list[str], np.ndarray]:
        """Names, and the number of each of the n pictures, int64 [n], -1 where unknown, of "style" or "content"."""
        names, number = self.collection.classes(label)
        return names, number[self.rows]

    @property
    def other(self) -> str:
        """What the embedding should not know: content, or style if that is what the run's classes are not."""
        return "content" if self.net.label == "style" else "style"


def main(args: argparse.Namespace) -> None:
    """Evaluate each run and print one table. Raises `UserError`."""
    device, _ = choose_device(args)
    args.split = args.split or ("all" if args.data else "test")
    names = [run.resolve().name for run in args.runs]
    if len(set(names)) < len(names):
        if args.out:
            raise UserError(f"--out {args.out}: two runs are called {max(names, key=names.count)}; leave it out")
        names = [str(run) for run in args.runs]
    cases = [embed_run(run, args, device) for run in args.runs]
    seen = [[case.collection.paths[row] for row in case.rows] for case in cases]
    for case, paths in zip(cases, seen, strict=True):
        if paths != seen[0]:
            raise UserError(
                f"{args.runs[0]} and {case.run}: would be measured on different pictures; give --data DIR to take all "
                f"of one folder for both, or evaluate them one by one"
            )
    columns = []
    for case, name, (triplets, which) in zip(cases, names, choose_triplets(cases, args), strict=True):
        out = args.out / name if args.out else case.run / "evaluation"
        metrics = {
            "run": str(case.run),
            "stage": case.net.facts["stage"],
            "label": case.net.label,
            "epoch": case.net.facts["epoch"],
            "data": str(case.collection.folder.resolve()),
            "split": args.split,
            "n_pictures": len(case.rows),
            "triplets": which,
            **measure_case(case, triplets),
        }
        write_evaluation(case, metrics, out)
        show_in_visdom(case, tabulate([name], [metrics]))
        print(f"{case.run}: {len(case.rows)} pictures ({args.split}), triplets: {which}; written to {out}")
        columns.append(metrics)
    print(tabulate(names, columns))


def embed_run(run: Path, args: argparse.Namespace, device: torch.device) -> Case:
    """Embed the pictures that a run is measured on. Raises `UserError` where there are none."""
    net, config = load(run, device), read_config(run)
    cache = None if args.data or not config["options"].get("cache") else Path(config["options"]["cache"])
    collection = (
        read_pictures(args.data, args.split) if args.data else read_own_pictures(run, Path(config["data"]["folder"]))
    )
    if not (collection.split != "").any():
        collection = read_own_pictures(run, args.data)
    size, cpu = net.facts["image_size"], torch.device("cpu")
    collection, squares = load_pictures(collection, size, cpu, cache, skip_unreadable=True)
    rows = collection.rows(args.split, net.label)
    if not len(rows):
        raise UserError(f"{collection.folder}: has no pictures of known {net.label} in --split {args.split}")
    found = net.predict(squares, rows)
    return Case(
        run, config, net, collection, rows, squares, normalize(found, dim=1), net.head(found) if net.head else None
    )


def choose_triplets(cases: Sequence[Case], args: argparse.Namespace) -> list[tuple[np.ndarray, str]]:
    """The triplets that each run is measured on, int64 [m, 3] of its n pictures, and which these are.

    The same for all: those of the lists that one of the runs was trained on, else drawn as training draws its fixed ones.
    """
    for case in cases:
        files = case.config["options"].get("triplets")
        if files and not args.data:
            lists = read_triplets([Path(file) for file in files], case.collection.split)
            given = np.concatenate(list(lists.values())) if args.split == "all" else lists[args.split]
            given = given[np.isin(given, case.rows).all(axis=1)]
            if len(given):
                which = f"the {len(given)} of {' '.join(files)} in this split"
                return [(np.searchsorted(case.rows, given), which)] * len(cases)
    found = []
    for case in cases:
        number, other = (case.collection.classes(label)[1] for label in (case.net.label, case.other))
        drawn = draw_fixed_triplets(number, other, case.rows)
        found.append((np.searchsorted(case.rows, drawn), f"{len(drawn)}, ten drawn for each picture as the anchor"))
    return found


def measure_case(case: Case, triplets: np.ndarray) -> dict[str, Any]:
    """All numbers of a run."""
    names, label = case.labels(case.net.label)
    on_device = [
        torch.from_numpy(values).to(case.net.device) for values in (label, case.labels(case.other)[1], triplets)
    ]
    right = None
    if case.scores is not None:
        true = true_classes(case)
        right = torch.from_numpy(np.where(true >= 0, chosen_classes(case) == true, math.nan)).to(case.net.device)
    return summarise(measure(case.embeddings, *on_device, right), label, triplets, names)


def true_classes(case: Case) -> np.ndarray:
    """Each picture's class among those of the net, int64 [n]; -1 where the net does not know it."""
    names, label = case.labels(case.net.label)
    known = {name: place for place, name in enumerate(case.net.classes)}
    return np.array([known.get(name, -1) for name in names])[label]


def chosen_classes(case: Case) -> np.ndarray:
    """The class with the highest score, int64 [n]."""
    return case.scores.argmax(dim=1).cpu().numpy()


# What is written and shown.


def write_evaluation(case: Case, metrics: dict[str, Any], out: Path) -> None:
    """Write everything into a folder: the metrics.json of before goes first, the new one comes last."""
    embeddings = case.embeddings.cpu().numpy()
    drawn = draw_all(case, embeddings, f"{case.run.resolve().name}, {metrics['split']}")
    words = {
        f"{label}s": [names[one] if one >= 0 else "" for one in number]
        for label, (names, number) in ((label, case.labels(label)) for label in ("style", "content"))
    }
    paths = [case.collection.paths[row] for row in case.rows]
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").unlink(missing_ok=True)
    write_whole(out / "embeddings.npz", lambda file: np.savez(file, embeddings=embeddings, paths=paths, **words))
    for name, png in drawn.items():
        write_whole(out / name, png)
    write_whole(out / "metrics.json", json.dumps(metrics, indent=2).encode())


def draw_all(case: Case, embeddings: np.ndarray, title: str) -> dict[str, bytes]:
    """The pictures of an evaluation, by their files' names."""
    panels = {label: case.labels(label) for label in (case.net.label, case.other)}
    panels = {label: panel for label, panel in panels.items() if panel[0]}
    drawn = {"tsne.png": pictures.draw_tsne(embeddings, panels, title), "retrieval.png": draw_retrieval(case, title)}
    history = read_table(case.run / METRICS)
    if history:
        drawn["curves.png"] = pictures.draw_curves(history, case.run.resolve().name)
    if case.scores is not None and (true_classes(case) >= 0).any():
        true, classes = true_classes(case), len(case.net.classes)
        pairs = true[true >= 0] * classes + chosen_classes(case)[true >= 0]
        counts = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
        drawn["confusion.png"] = pictures.draw_confusion(counts, case.net.classes, title)
    return drawn


def draw_retrieval(case: Case, title: str) -> bytes:
    """Draw what some pictures of each class find: the same queries for every run on the same pictures."""
    (names, label), (others, other) = case.labels(case.net.label), case.labels(case.other)

    def cell(place: int, query: int | None = None) -> pictures.Cell:
        square = cv2.resize(case.squares[int(case.rows[place])].numpy(), (150, 150), interpolation=cv2.INTER_AREA)
        right = None if query is None else bool(label[place] == label[query])
        return pictures.Cell(square, names[label[place]], others[other[place]] if other[place] >= 0 else "", right)

    rows, embeddings = [], case.embeddings
    for query in choose_queries(label, other):
        far = (embeddings - embeddings[query]).norm(dim=1)
        far[query] = math.inf
        nearest = far.argsort()[: min(SHOWN_FOUND, len(far) - 1)].tolist()
        rows.append((cell(query), [cell(place, query) for place in nearest]))
    found = f"nearest first;  ✓ and solid frame: the query's {case.net.label};  ✗ and dashed frame: another one"
    return pictures.draw_sheet(rows, f"{title}: the nearest of {len(label)} pictures", "query", found)


def choose_queries(label: np.ndarray, other: np.ndarray) -> list[int]:
    """Some queries of each class, of contents that differ from class to class, of many classes as many as fit a sheet."""
    order, chosen = np.random.default_rng(0).permutation(len(label)), []
    classes = np.unique(label)
    for position, which in enumerate(
        classes[np.linspace(0, len(classes) - 1, min(len(classes), SHOWN_CLASSES)).astype(int)]
    ):
        mine = order[label[order] == which]
        contents = np.roll(np.unique(other[mine]), -position * SHOWN_EACH)
        first = [int(mine[other[mine] == content][0]) for content in contents]
        chosen += (first + [place for place in mine.tolist() if place not in first])[:SHOWN_EACH]
    return chosen


def tabulate(names: Sequence[str], columns: Sequence[dict[str, Any]]) -> str:
    """Runs side by side: a row for each number, a column for each run."""
    rows = [name for name in DEFINITIONS if any(metrics[name] is not None for metrics in columns)]
    lines = ["".join([f"{'':24}", *(f"  {name:>8}" for name in names)])]
    for row in rows:
        values = ["-" if metrics[row] is None else f"{metrics[row]:.3f}" for metrics in columns]
        lines.append(
            f"{row:24}" + "".join(f"  {value:>{max(8, len(name))}}" for name, value in zip(names, values, strict=True))
        )
    return "\n".join(lines)


def show_in_visdom(case: Case, table: str) -> None:
    """Put the numbers beside the run's curves, if it has some and their server is up. Whatever goes wrong is one line."""
    options = SimpleNamespace(**case.config["options"])
    if not options.visdom:
        return
    try:
        curves = Curves(SimpleNamespace(args=options, folder=case.run))
        client = connect_visdom(curves.address)
        if client.win_exists("run", env=curves.env):
            client.text(f"<pre>{escape(table)}</pre>", win="evaluation", env=curves.env, opts={"title": "evaluation"})
            print(f"visdom: the numbers stand in {curves.address}/env/{curves.env}")
    except Exception as error:  # of whatever kind: it is a view
        print(f"visdom: the numbers are not shown ({error})")


if __name__ == "__main__":
    raise SystemExit(run_script(main, get_parser()))
