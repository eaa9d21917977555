"""From a run and pictures to embeddings: load the run, find out which pictures are meant, embed them."""

from __future__ import annotations

import argparse
import hashlib
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dataset import PICTURE_SUFFIXES, UNKNOWN, Collection, read_collection, stat_pictures
from decoding import UnreadablePicture
from pictures import KEPT, cache_paths, count_processors, load_finished, read_square, refusal, stored_size
from run_folder import BEST, CONFIG, read_split
from session import positive_integer, workers_number
from trained import TrainedNet, load_trained
from utils import UserError, read_json

SAME_DATA = 0.5  # share of a run's pictures that a folder must hold to count as the run's own data


@dataclass
class Run:
    """A finished run: its folder, its settings, its net, and a hash of its weights."""

    folder: Path
    config: dict[str, Any]
    net: TrainedNet
    weights: str

    @property
    def settings(self) -> dict[str, Any]:
        """The options that it was trained with."""
        return self.config["settings"]


@dataclass
class Embedded:
    """What a net made of pictures: their rows, int64 [n], in order; embeddings, float32 [n, d]; and, after stage 1,
    class scores, float32 [n, classes]. `unreadable` are the rows that cannot be decoded and are left out."""  # noqa: D205, D209

    rows: np.ndarray
    embeddings: Tensor
    scores: Tensor | None
    unreadable: np.ndarray


def add_embedding_options(parser: argparse.ArgumentParser) -> None:
    """Options on the data and the machine that evaluation and search share."""
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="folder of pictures: index.csv, or <style>/<content>/<picture>, or <style>/<picture>, or unlabelled "
        "pictures; default: the data that the run was trained on",
    )
    parser.add_argument(
        "--unlabelled",
        action="store_true",
        help="take every picture under --data, whatever its folders are called, as one without style and content",
    )
    lists = parser.add_argument_group("other data")
    lists.add_argument(
        "--filenames",
        metavar="FILE",
        help="text list of pictures instead of a folder; relative to --data if given, else to the list's folder",
    )
    lists.add_argument("--labels", metavar="FILE", help="their styles: one integer a line, counted from 0")
    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--device", default="auto", metavar="auto|cpu|cuda|cuda:N", help="default auto: CUDA where there is one"
    )
    machine.add_argument(
        "--batch-size",
        type=positive_integer,
        default=64,
        metavar="N",
        help="pictures embedded at a time; default %(default)s. Lower it where memory is short; the numbers stay",
    )
    machine.add_argument(
        "--workers",
        type=workers_number,
        default=None,
        metavar="N|auto",
        help="threads that decode pictures; default auto: one a processor",
    )


def load_run(folder: Path | str, device: torch.device) -> Run:
    """Load a run's net and settings. Raises `UserError` for a folder that holds none."""
    folder = Path(folder)
    if folder.is_file():
        raise UserError(f"{folder}: is a file; give the run folder that holds {BEST} and {CONFIG}")
    net = load_trained(folder)
    config = read_json(folder / CONFIG)
    settings, data = config.get("settings"), config.get("data")
    if not isinstance(settings, dict) or not isinstance(data, dict) or not isinstance(data.get("folder"), str):
        raise UserError(f"{folder / CONFIG}: does not say what the run was trained on; is it from this project?")
    return Run(folder, config, net.to(device), hash_net(net))


def hash_net(net: TrainedNet) -> str:
    """SHA-256, in hexadecimal, of all that decides the embeddings: of the loaded net, whatever becomes of its file."""
    digest = hashlib.sha256(f"{net.image_size} {net.mean.tolist()} {net.deviation.tolist()}".encode())
    for name, value in sorted(net.embedding.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy())
    return digest.hexdigest()


# Which pictures.


def read_pictures(run: Run, args: argparse.Namespace, any_class: bool = False) -> tuple[Collection, bool]:
    """Read the pictures that the options of `add_embedding_options` mean, and whether they are the run's own data.

    A run's own pictures get the order and the split that it recorded, so that the same numbers come out wherever they
    lie now; pictures that are new in its folder come last and have an empty split.
    Raises `UserError` for data that cannot be read and, unless `any_class`, for classes that the net does not know.
    """
    folder, filenames, labels = args.data, args.filenames, args.labels
    if labels is not None and filenames is None:
        raise UserError("--labels: needs --filenames too, the list of pictures that the labels belong to")
    if folder is None and filenames is None:
        folder, filenames, labels = (
            run.config["data"]["folder"], run.settings.get("filenames"), run.settings.get("labels")
        )  # fmt: skip
        refuse_missing_folder(run, Path(folder))
    recorded = read_split(run.folder)
    listed = run.settings.get("filenames") if filenames is None and not args.unlabelled else None
    if listed and sum((Path(folder) / path).exists() for path in recorded) >= SAME_DATA * len(recorded):
        filenames, labels = listed, run.settings.get("labels")  # the run's own pictures, which may have moved
    if args.unlabelled or (filenames is None and is_unlabelled(Path(folder))):
        if filenames is not None:
            raise UserError("--unlabelled: goes with --data; a list of pictures without --labels is unlabelled anyway")
        collection = read_unlabelled(Path(folder))
    else:
        split_seed = run.settings.get("split_seed", 0)
        collection = read_collection(folder, filenames=filenames, labels=labels, split_seed=split_seed)
        if not any_class:
            check_classes(collection, run)
    shared = sum(path in recorded for path in collection.paths)
    if shared < SAME_DATA * len(recorded):
        return collection, False
    place = {path: position for position, path in enumerate(recorded)}
    order = sorted(range(len(collection)), key=lambda row: place.get(collection.paths[row], len(place)))
    collection = take(collection, order)
    split = np.array([recorded.get(path) or "" for path in collection.paths], dtype="<U10")
    return replace(collection, split=split), True


def take(collection: Collection, rows: list[int]) -> Collection:
    """The given rows of a collection, in their order."""
    arrays = {name: getattr(collection, name)[rows] for name in ("style", "content", "split", "size", "changed")}
    lists = {name: [getattr(collection, name)[row] for row in rows] for name in ("paths", "group")}
    extra = {name: [column[row] for row in rows] for name, column in collection.extra.items()}
    return replace(collection, **arrays, **lists, extra=extra)


def refuse_missing_folder(run: Run, folder: Path) -> None:
    """Say how many pictures are gone if a run's whole data folder is. Raises `UserError`."""
    if not folder.is_dir():
        paths = list(read_split(run.folder))
        raise UserError(
            f"{run.folder}: all {len(paths)} pictures of its data are gone, first {paths[0]}, as is their folder "
            f"{folder}; restore it, or say with --data where they are now"
        )


def refuse_missing(run: Run, collection: Collection, split: str) -> None:
    """Say how many of a run's own pictures of a split, or of "all", are gone. Raises `UserError`."""
    here = set(collection.paths)
    wanted = [path for path, name in read_split(run.folder).items() if name == split or split == "all"]
    gone = [path for path in wanted if path not in here]
    if gone:
        which = "pictures" if split == "all" else f"{split} pictures"
        raise UserError(
            f"{run.folder}: {len(gone)} of its {len(wanted)} {which} are gone from {collection.folder}, first "
            f"{gone[0]}; restore them, or say with --data where they are now"
        )


def is_unlabelled(folder: Path) -> bool:
    """Whether a folder holds pictures itself and its folders none, so that no name says what style they have."""
    if not folder.is_dir() or (folder / "index.csv").exists():
        return False
    depths = {len(Path(path).parts) for path in find_pictures(folder)}
    return min(depths, default=0) == 1 and not depths & {2, 3}


def find_pictures(folder: Path) -> list[str]:
    """Every picture under a folder, by its suffix: sorted relative paths. Hidden files and folders are skipped."""
    paths = []
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        parts = Path(place).relative_to(folder).parts
        paths += [
            "/".join((*parts, name)) for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in PICTURE_SUFFIXES
        ]  # fmt: skip
    return sorted(paths)


def read_unlabelled(folder: Path) -> Collection:
    """Take every picture under a folder as one of unknown style and content, in no split."""
    if not folder.is_dir():
        raise UserError(f"--data {folder}: no such folder")
    paths = find_pictures(folder)
    if not paths:
        raise UserError(f"--data {folder}: holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))})")
    size, changed = stat_pictures(folder, paths, str(folder))
    unknown = np.full(len(paths), UNKNOWN, dtype=np.int64)
    groups, split = [f"path:{path}" for path in paths], np.full(len(paths), "", dtype="<U10")
    return Collection(folder, paths, (), (), unknown, unknown, groups, split, size, changed, str(folder))


def check_classes(collection: Collection, run: Run) -> None:
    """Refuse data with classes that the net was not trained on. Raises `UserError`."""
    names = collection.styles if run.net.label == "style" else collection.contents
    strange = [name for name in names if name not in run.net.classes]
    if strange:
        raise UserError(f"{collection.source}: has the {run.net.label} '{strange[0]}', {run.folder} knows only "
                        f"{', '.join(run.net.classes)}; use the data that it was trained on, or embed these pictures "
                        f"without their labels by --unlabelled")  # fmt: skip


def numbers_of(collection: Collection, label: str, classes: tuple[str, ...]) -> np.ndarray:
    """The number in `classes` of each picture's style or content, int64 [n], -1 where unknown."""
    names, number = (
        (collection.styles, collection.style) if label == "style" else (collection.contents, collection.content)
    )
    order = np.array([*(classes.index(name) for name in names), UNKNOWN], dtype=np.int64)
    return order[number]  # unknown, -1, is the last


# Embedding.


def embed_rows(run: Run, collection: Collection, rows: np.ndarray, args: argparse.Namespace) -> Embedded:
    """Embed the given rows, int64 [n], of a collection, in full precision; pictures are decoded ahead of the net.

    Takes the squares out of the training's memory map where there is a finished one. Raises `UserError` for
    embeddings that are not finite.
    """
    net = run.net
    cv2.setNumThreads(1)  # the decoding threads each have a picture of their own
    embeddings, scores, readable = [torch.empty(0, net.embedding_dim)], [], [np.empty(0, dtype=np.int64)]
    batches = [rows[start : start + args.batch_size] for start in range(0, len(rows), args.batch_size)]
    side = stored_size(net.image_size)
    bar = tqdm(total=len(rows), desc="embedding", unit="picture", disable=None, leave=False)
    with torch.inference_mode(), bar:
        for part, squares in read_batches(collection, batches, side, args.workers, run.settings.get("cache_dir")):
            if len(part):
                embedded, scored = net.embed_squares(squares)
                embeddings.append(embedded.cpu())
                scores += [scored.cpu()] if scored is not None else []
                readable.append(part)
            bar.update(len(part))
    kept = np.concatenate(readable)
    together = torch.cat(embeddings)
    finite = together.isfinite().all(dim=1)
    if not bool(finite.all()):
        name = collection.name(int(kept[int(finite.long().argmin())]))
        raise UserError(
            f"{run.folder}: its net gives {name} no finite embedding; the weights are damaged, train it anew"
        )
    return Embedded(kept, together, torch.cat(scores) if scores else None, np.setdiff1d(rows, kept))


def read_batches(
    collection: Collection, batches: list[np.ndarray], side: int, workers: int | None, cache_dir: str | None
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Yield for each batch its rows that can be decoded, int64 [m], and their squares, uint8 [m, side, side, 3]."""
    map_path, state_path, _ = cache_paths(collection, side, Path(cache_dir or collection.folder / ".pictures"))
    kept = load_finished(map_path, state_path, (len(collection), side, side, 3))

    def read(row: int) -> np.ndarray | None:
        try:
            return read_square(collection, row, side)
        except UnreadablePicture:
            return None

    if kept is not None:
        squares, state = kept
        for batch in batches:
            part = batch[state[batch] == KEPT]
            yield part, squares[torch.from_numpy(part)]
        return
    queue: deque[tuple[np.ndarray, list[Future[np.ndarray | None]]]] = deque()
    with ThreadPoolExecutor(workers or count_processors()) as pool:
        for batch in [*batches, None, None]:
            if batch is not None:
                queue.append((batch, [pool.submit(read, row) for row in batch.tolist()]))
            if queue and (batch is None or len(queue) > 2):
                part, futures = queue.popleft()
                decoded = [future.result() for future in futures]
                good = [square for square in decoded if square is not None]
                squares = np.stack(good) if good else np.empty((0, side, side, 3), dtype=np.uint8)
                yield part[[square is not None for square in decoded]], torch.from_numpy(squares)


def refuse_unreadable(collection: Collection, unreadable: np.ndarray, side: int) -> None:
    """Name and count the rows, int64 [k], that cannot be decoded. Raises `UserError` if there are any."""
    if not len(unreadable):
        return
    row, more = int(unreadable[0]), f" (and {len(unreadable) - 1} more)" if len(unreadable) > 1 else ""
    try:
        read_square(collection, row, side)
    except UnreadablePicture as error:
        raise refusal(collection, row, UnreadablePicture(f"{error}{more}")) from error
    raise UserError(f"{collection.name(row)} could not be decoded a moment ago but can now; start again")


def say_unreadable(collection: Collection, unreadable: np.ndarray) -> None:
    """Say how many pictures were left out as they cannot be decoded, and which first."""
    if len(unreadable):
        print(f"note: {len(unreadable)} pictures cannot be decoded and are left out, first "
              f"{collection.folder / collection.paths[unreadable[0]]}")  # fmt: skip
