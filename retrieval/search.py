"""Give it pictures, get the most similar in style.

    python -m retrieval.search runs/stage2 query.jpg                          # in the pictures that it was trained on
    python -m retrieval.search runs/stage2 query.jpg --data DIR --out sheet.png
    python -m retrieval.search runs/stage2 one.jpg two.jpg --data DIR         # in the style that the two share
    python -m retrieval.search runs/stage2 query.jpg --content bird           # birds in the style of query.jpg
    python -m retrieval.search runs/stage2 query.jpg --like runs/content2 boat.jpg harbour.jpg

The last one finds what depicts the same as boat.jpg and harbour.jpg in the style of query.jpg, by a second run that was
trained with --label content. Both distances count in units of their own deviation over the collection. Several pictures
ask with the mean of their embeddings, and are not among their own answers. A folder without styles will do as DIR.
"""

from __future__ import annotations

import argparse
import unicodedata
from functools import partial
from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from dataset import Collection, read_picture
from retrieval.embedding import embed_collection, load, read_config, read_pictures
from retrieval.pictures import Cell, draw_sheet
from utils import UserError, choose_device, run_script, write_whole


def get_parser() -> argparse.ArgumentParser:
    """The options of a search."""
    parser = argparse.ArgumentParser(
        prog="python -m retrieval.search", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="run folder of either stage")
    add("pictures", type=Path, nargs="+", metavar="PICTURE", help="pictures of the style")
    add("--data", type=Path, metavar="DIR", help="where to search; default: the folder that RUN was trained on")
    what = parser.add_mutually_exclusive_group()
    nfc = partial(unicodedata.normalize, "NFC")  # as the collection has its names
    what.add_argument("--content", type=nfc, metavar="NAME", help="only pictures of this content")
    what.add_argument("--like", nargs="+", type=Path, metavar="RUN2 PICTURE", help="a run, and pictures of a content")
    add("--weight", type=float, default=0.5, metavar="W", help="of --like, from 0 to 1; default 0.5: as much as style")
    add("--top", type=int, default=10, metavar="N", help="how many to find; default 10")
    add("--out", type=Path, metavar="FILE", help="draw the answers too: sheet.png")
    add("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    parser.set_defaults(amp="off")
    return parser


def main(args: argparse.Namespace) -> None:
    """Print the nearest pictures of a collection, and draw them if asked to. Raises `UserError`."""
    if args.like and len(args.like) < 2:
        raise UserError("--like: takes a run's folder and one picture at least")
    device, _ = choose_device(args)
    collection = read_pictures(args.data or Path(read_config(args.run)["data"]["folder"]))
    far = measure_distances(args.run, args.pictures, collection, device)
    columns, asked = {"distance": far}, args.pictures
    if args.like:
        other = measure_distances(args.like[0], args.like[1:], collection, device)
        both = (1 - args.weight) * in_deviations(far) + args.weight * in_deviations(other)
        columns, asked = {"distance": both, "in style": far, "like": other}, [*args.pictures, *args.like[1:]]
    far = columns["distance"]
    themselves, folder = {path.resolve() for path in asked}, collection.folder.resolve()
    wanted = far.isfinite() & torch.tensor([folder / path not in themselves for path in collection.paths])
    if args.content:
        contents = collection.classes["content"]
        if args.content not in contents:
            known = ", ".join(contents) or "none is known"
            raise UserError(f"--content {args.content}: is none of the contents of {collection.folder}: {known}")
        wanted &= torch.from_numpy(collection.number["content"] == contents.index(args.content))
    found = far.where(wanted, torch.inf).argsort()[: min(args.top, int(wanted.sum()))].tolist()
    if not found:
        raise UserError(f"{collection.folder}: has no pictures left to find; give another --data or --content")
    print_answers(collection, found, columns)
    if args.out:
        write_whole(args.out, draw_answers(collection, found, far, asked))
        print(f"drawn in {args.out}")


def measure_distances(run: Path, asked: list[Path], collection: Collection, device: torch.device) -> Tensor:
    """How far each picture of a collection is from what some pictures have in common, to a run: float32 [n]."""
    net = load(run, device)
    question = normalize(net(asked).mean(dim=0), dim=0).cpu()
    return (embed_collection(run, net, collection) - question).norm(dim=1)


def in_deviations(far: Tensor) -> Tensor:
    """Distances in units of their standard deviation, float32 [n]; those that are no numbers stay so."""
    return far / far[far.isfinite()].std().clamp(min=1e-9)


def print_answers(collection: Collection, found: list[int], columns: dict[str, Tensor]) -> None:
    """Print a line for each picture found."""
    styles, contents = ([*names, "-"] for names in collection.classes.values())
    wide, wider = (max(8, *map(len, names)) for names in (styles, contents))
    print("     ", *(f"{name:>8}" for name in columns), f" {'style':{wide}}  {'content':{wider}}  picture")
    for place, row in enumerate(found, 1):
        values = (f"{values[row]:8.3f}" for values in columns.values())
        style, content = styles[collection.number["style"][row]], contents[collection.number["content"][row]]
        print(f"{place:5}.", *values, f" {style:{wide}}  {content:{wider}}  {collection.paths[row]}")


def draw_answers(collection: Collection, found: list[int], far: Tensor, asked: list[Path]) -> bytes:
    """A sheet of the pictures that were asked with and, in rows of five, of those that were found."""
    styles, contents = ([*names, ""] for names in collection.classes.values())
    cells = [Cell(read_picture(path, 150), path.name) for path in asked]
    for place, row in enumerate(found, 1):
        names = filter(None, (styles[collection.number["style"][row]], contents[collection.number["content"][row]]))
        picture = read_picture(collection.folder / collection.paths[row], 150)
        cells.append(Cell(picture, f"{place}. {far[row]:.3f}", ", ".join(names)))
    questions, answers = cells[: len(asked)], cells[len(asked) :]
    lines = [answers[start : start + 5] for start in range(0, len(answers), 5)]
    title = f"The nearest {len(found)} of {len(collection.paths)} pictures"
    return draw_sheet(list(zip_longest(questions, lines)), title, "asked with", "nearest first")


if __name__ == "__main__":
    raise SystemExit(run_script(main, get_parser()))
