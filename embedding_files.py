"""Embeddings on disk: kept beside a run, so that a search need not make them again, and exported for other programs."""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dataset import Collection
from embedding import Embedded, Run, embed_rows
from pictures import CACHE_FORMAT
from utils import UserError, write_whole

FORMATS = ("npz", "csv", "projector")
CHUNK = 8192  # pictures after which the embeddings made so far are kept


# Keeping.


def embed_collection(run: Run, collection: Collection, args: argparse.Namespace) -> Embedded:
    """Embeddings of a whole collection, kept beside the run: only pictures that are new or changed are embedded.

    Everything is embedded anew where the weights changed. Pictures that cannot be decoded are left out. What was
    interrupted goes on where it stopped, but for the last `CHUNK` pictures.
    """
    path = kept_path(run, collection)
    made_by = f"{run.weights} {CACHE_FORMAT}"
    kept = read_kept(path, made_by, run.net.embedding_dim)
    places = find_kept(kept, collection)
    missing, ready = np.flatnonzero(places < 0), places >= 0
    embeddings = np.zeros((len(collection), run.net.embedding_dim), dtype=np.float32)
    embeddings[ready] = kept["embeddings"][places[ready]]
    if len(missing):
        which = f"are new or changed since {path} was written" if path.exists() else f"will be kept in {path}"
        print(f"embeddings: {len(missing)} of {len(collection)} pictures {which}")
    for start in range(0, len(missing), CHUNK):
        done = embed_rows(run, collection, missing[start : start + CHUNK], args)
        embeddings[done.rows], ready[done.rows] = done.embeddings.numpy(), True
        if len(done.rows):
            write_kept(path, made_by, collection, np.flatnonzero(ready), embeddings[ready])
    return Embedded(np.flatnonzero(ready), torch.from_numpy(embeddings[ready]), None, np.flatnonzero(~ready))


def kept_path(run: Run, collection: Collection) -> Path:
    """The file beside a run in which the embeddings of a folder, or list, of pictures are kept."""
    place = f"{collection.folder.resolve()}\n{Path(collection.source).resolve()}"
    key = hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return run.folder / f"embeddings-{key}.npz"


def read_kept(path: Path, made_by: str, width: int) -> dict[str, np.ndarray]:
    """Read the embeddings that `write_kept` left in a file: nothing if they are of other weights or damaged."""
    nothing = {
        "embeddings": np.empty((0, width), np.float32), "paths": np.empty(0, "U1"),
        "size": np.empty(0, np.int64), "changed": np.empty(0, np.int64),
    }  # fmt: skip
    if not path.exists():
        return nothing
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["made_by"]) != made_by:
                print(f"embeddings: those in {path} are of other weights")
                return nothing
            kept = {name: file[name] for name in nothing}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        print(f"embeddings: {path} is damaged ({type(error).__name__})")
        return nothing
    shapes = {name: value.shape[1:] for name, value in kept.items()}
    lengths = {len(value) for value in kept.values() if value.ndim}
    if shapes != {name: value.shape[1:] for name, value in nothing.items()} or len(lengths) != 1:
        print(f"embeddings: {path} is damaged (its parts do not fit together)")
        return nothing
    return kept


def find_kept(kept: dict[str, np.ndarray], collection: Collection) -> np.ndarray:
    """Where each picture's embedding stands among the kept ones, int64 [n], -1 if it is new or has changed."""
    place = {name: position for position, name in enumerate(kept["paths"].tolist())}
    places = np.array([place.get(name, -1) for name in collection.paths], dtype=np.int64)
    here = np.flatnonzero(places >= 0)
    same = (kept["size"][places[here]] == collection.size[here]) & (
        kept["changed"][places[here]] == collection.changed[here]
    )
    places[here[~same]] = -1
    return places


def write_kept(path: Path, made_by: str, collection: Collection, rows: np.ndarray, embeddings: np.ndarray) -> None:
    """Keep embeddings, float32 [n, d], of the given rows; says so where the run folder cannot be written."""
    columns = {
        "made_by": np.array(made_by), "embeddings": embeddings, "paths": text_array(collection.paths, rows),
        "size": collection.size[rows], "changed": collection.changed[rows],
    }  # fmt: skip
    try:
        write_whole(path, lambda file: np.savez(file, **columns))
    except UserError as error:
        print(f"note: the embeddings are not kept: {error}")


def text_array(names: list[str], rows: np.ndarray) -> np.ndarray:
    """The names of the given rows as an array of text, also where there are none."""
    return np.array([names[row] for row in rows.tolist()], dtype=str).reshape(len(rows))


# Exporting.


def write_embeddings(out: Path, form: str, embeddings: Tensor, columns: dict[str, list[str]]) -> None:
    """Write embeddings, float32 [n, d], and their `columns` (path, style, content: n texts each) into the folder `out`.

    `form` is npz: `embeddings.npz` with the arrays embeddings, paths, styles, contents; csv: `embeddings.csv` with a
    row a picture; or projector: `vectors.tsv` and `metadata.tsv` for the TensorFlow projector.
    """
    table = embeddings.numpy()
    if form == "npz":
        names = {f"{name}s": np.array(texts, dtype=str).reshape(len(texts)) for name, texts in columns.items()}
        write_whole(out / "embeddings.npz", lambda file: np.savez(file, embeddings=table, **names))
        return
    numbers = [[f"{value:.9g}" for value in row] for row in table]
    texts = list(zip(*columns.values(), strict=True))
    if form == "csv":
        header = [*columns, *(f"e{position}" for position in range(table.shape[1]))]
        rows = [[*cells, *row] for cells, row in zip(texts, numbers, strict=True)]
        write_whole(out / "embeddings.csv", to_table([header, *rows], ","))
        return
    # The projector splits at tabs and line ends and knows no quotes.
    plain = [[" ".join(text.split()) for text in cells] for cells in texts]
    write_whole(out / "vectors.tsv", "".join("\t".join(row) + "\n" for row in numbers))
    lines = ["\t".join(cells) + "\n" for cells in [list(columns), *plain]]
    write_whole(out / "metadata.tsv", "".join(lines).encode("utf-8", "surrogateescape"))


def to_table(rows: list[list[str]], delimiter: str) -> bytes:
    """Rows as CSV."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")
