"""Give it a picture, get the most similar in style.

    python search.py runs/stage2 query.jpg --data DIR                       # the ten nearest, as a table
    python search.py runs/stage2 query.jpg --data DIR --out sheet.png       # and drawn
    python search.py runs/stage2 one.jpg two.jpg --data DIR                 # several pictures ask one question
    python search.py runs/stage2 query.jpg --data DIR --content bird        # birds in the style of query.jpg

Several queries stand for the style that they share: their embeddings' mean, of length 1 again (the paper's "one or more
contextual images"). The collection's embeddings are made once and kept beside the run; later only those of new and
changed pictures are, and all of them if the run's weights changed. A query that is itself in the collection is not
among its own answers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dataset import Collection
from decoding import UnreadablePicture
from embedding import Run, add_embedding_options, load_run, read_pictures, say_unreadable
from embedding_files import embed_collection
from retrieval import nearest
from session import positive_integer
from sheets import draw_search
from utils import UserError, choose_device, run_script, write_whole


def get_parser() -> argparse.ArgumentParser:
    """The options of a search."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="run folder of either stage")
    parser.add_argument("queries", nargs="+", metavar="QUERY", help="picture file; several ask one question")
    add_embedding_options(parser)
    parser.add_argument(
        "--top", type=positive_integer, default=10, metavar="N", help="how many to find; default %(default)s"
    )
    parser.add_argument("--content", metavar="NAME", help="only pictures of this content; default: of any")
    parser.add_argument("--out", metavar="FILE", help="draw queries and answers on a sheet: FILE.png")
    return parser


def main(args: argparse.Namespace) -> None:
    """Find the pictures of a collection that are nearest to the queries; print them, and draw them if asked to."""
    out = Path(args.out) if args.out else None
    if out is not None and (out.suffix.lower() != ".png" or not out.parent.is_dir()):
        raise UserError(f"--out {out}: should be a file FILE.png in a folder that exists")
    run = load_run(args.run, choose_device(args.device))
    question = ask(run, args.queries)
    collection, _ = read_pictures(run, args, any_class=True)
    wanted = choose_wanted(collection, args.content, args.queries)
    embedded = embed_collection(run, collection, args)
    say_unreadable(collection, embedded.unreadable)
    among = np.flatnonzero(wanted[embedded.rows])
    if not len(among):
        raise UserError(f"{collection.source}: has no pictures left to find besides the queries; give another --data")
    embeddings = (
        embedded.embeddings if len(among) == len(embedded.rows) else embedded.embeddings[torch.from_numpy(among)]
    )
    places, far = nearest(embeddings, question, args.top)
    rows = embedded.rows[among[places[0].numpy()]]
    print_answers(collection, rows, far[0])
    if out is not None:
        answers = [
            (
                collection.folder / collection.paths[row],
                distance,
                collection.style_name(row),
                collection.content_name(row),
            )
            for row, distance in zip(rows.tolist(), far[0].tolist(), strict=True)
        ]
        title = f"{len(answers)} nearest of {len(among)} pictures by {run.folder.resolve().name}"
        write_whole(out, draw_search(args.queries, answers, title + (f", {args.content} only" if args.content else "")))
        print(f"drawn in {out}")


def ask(run: Run, queries: list[str]) -> Tensor:
    """The question that the query pictures ask together: the mean of their embeddings at length 1, float32 [1, d]."""
    try:
        with torch.inference_mode():
            mean = run.net(queries).mean(dim=0, keepdim=True).cpu()
    except UnreadablePicture as error:
        raise UserError(f"{error}; give picture files to ask with") from error
    if not float(mean.norm()) > 1e-6:  # also where it is not a number
        raise UserError(
            f"the queries' embeddings have no common direction ({', '.join(queries)}); ask with fewer pictures"
        )
    return functional.normalize(mean, dim=1)


def choose_wanted(collection: Collection, content: str | None, queries: list[str]) -> np.ndarray:
    """Which pictures may be answers, bool [n]: those of the content asked for, but not the queries themselves."""
    wanted = np.ones(len(collection), dtype=bool)
    if content is not None:
        if content not in collection.contents:
            known = f"its contents are {', '.join(collection.contents)}" if collection.contents else "none is known"
            raise UserError(f"--content {content}: {collection.source} has no such pictures; {known}")
        wanted &= collection.content == collection.contents.index(content)
    folder = collection.folder.resolve()
    row_of = {path: row for row, path in enumerate(collection.paths)}
    for query in map(Path, queries):
        for place in (query.resolve(), query.parent.resolve() / query.name):  # the link's target, and the link
            if place.is_relative_to(folder):
                row = row_of.get(place.relative_to(folder).as_posix())
                if row is not None:
                    wanted[row] = False
    return wanted


def print_answers(collection: Collection, rows: np.ndarray, far: Tensor) -> None:
    """Print the answers as a table: place, distance (0: the same style; at most 2), style, content, path."""
    lines = [("", "distance", "style", "content", "picture")]
    for place, (row, distance) in enumerate(zip(rows.tolist(), far.tolist(), strict=True), 1):
        names = (collection.style_name(row) or "-", collection.content_name(row) or "-")
        lines.append((str(place), f"{distance:.4f}", *names, collection.paths[row]))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    for place, distance, style, content, path in lines:
        print(f"{place.rjust(widths[0])}  {distance.rjust(widths[1])}  {style.ljust(widths[2])}  "
              f"{content.ljust(widths[3])}  {path}")  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(run_script(get_parser, main))
