"""A trained net in use: pictures in, embeddings out, in any program that finds this project on its Python path.

    from retrieval.embedding import load
    net = load("runs/stage2")
    embeddings = net(["one.jpg", "another.png"])      # float32 [2, 256], each of length 1
    distance = (embeddings[0] - embeddings[1]).norm() # 0: the same style; at most 2

`hubconf.py` offers the same through `torch.hub`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

import dataset
from dataset import STORED_PER_SEEN, Collection
from networks import load_net
from utils import CONFIG, WEIGHTS, UserError, write_whole

Picture = str | Path | np.ndarray


class TrainedNet(nn.Module):
    """The net of a run with its preprocessing, in evaluation mode.

    `label` says what its classes are, "style" or "content"; `classes` are their names, in the order of the scores.
    `embedding` is the net itself, and `head` stage 1's, from embeddings of any length to scores; None in stage 2.
    """

    def __init__(self, run: Path | str) -> None:
        super().__init__()
        facts, self.embedding, self.head = load_net(run)
        self.facts: dict[str, Any] = facts
        self.label: str = facts["label"]
        self.classes: list[str] = facts["classes"]
        self.eval().requires_grad_(False)

    def forward(self, pictures: Picture | Iterable[Picture]) -> Tensor:
        """Embed pictures, some thousands at most: float32 [n, embedding_dim], each of length 1, on the net's device.

        `pictures` are paths, or uint8 RGB arrays [height, width, 3] of any sizes; their central squares are seen.
        Raises `UserError` for a path that holds no whole picture, and `ValueError` for an array that is none.
        """
        return normalize(self.see(pictures), dim=1)

    def scores(self, pictures: Picture | Iterable[Picture]) -> Tensor:
        """Class scores before the softmax, float32 [n, classes], of pictures as `forward` takes them; stage 1 only."""
        return self.head(self.see(pictures))

    @torch.no_grad()
    def see(self, pictures: Picture | Iterable[Picture]) -> Tensor:
        """The embeddings as they come, of any length: float32 [n, embedding_dim]."""
        if isinstance(pictures, (str, Path)) or getattr(pictures, "ndim", 0) == 3:
            pictures = [pictures]
        squares = [torch.from_numpy(self.square(picture)) for picture in pictures]
        return self.predict(torch.stack(squares), np.arange(len(squares)))

    def square(self, picture: Picture) -> np.ndarray:
        """A picture's central square, a little larger than the net sees it: uint8 [side, side, 3]."""
        side = round(self.facts["image_size"] * STORED_PER_SEEN)
        if isinstance(picture, (str, Path)):
            try:
                picture = dataset.read_picture(Path(picture), side)
            except UserError as error:
                raise UserError(f"{picture}: cannot be read ({error}); give whole pictures") from error
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(f"a picture is uint8 [height, width, 3], not {picture.dtype} {list(picture.shape)}")
        return dataset.to_square(picture, side)

    def predict(self, squares: Tensor, rows: np.ndarray) -> Tensor:
        """As `see`, of rows, int64 [n], of squares, uint8 [m, side, side, 3], such as `dataset.load_pictures` gives."""
        device = self.embedding.bottleneck.weight.device
        view = device, self.facts["image_size"], self.facts["colours"]
        return dataset.predict(self.embedding, squares, rows, *view, batch_size=64).clone()


def load(run: Path | str, device: torch.device | str = "cpu") -> TrainedNet:
    """Load the net of a run's folder. Raises `UserError` where there is none."""
    return TrainedNet(run).to(device)


def read_config(run: Path) -> dict[str, Any]:
    """What a run's config.json says. Raises `UserError` where there is none."""
    if not (run / CONFIG).exists():
        raise UserError(f"{run}: has no {CONFIG}; give the folder of a run")
    return json.loads((run / CONFIG).read_text(encoding="utf-8"))


def read_pictures(folder: Path, split: str = "all") -> Collection:
    """Every picture of a data folder, or of one that holds pictures, of no style, and no folders.

    Its splits are the folder's own, if one of them is asked for, which may be empty; else all pictures are in "all".
    Raises `UserError` as `dataset.read_collection` does.
    """
    collection = dataset.read_collection(folder, split_seed=None)
    if split == "all":
        collection = replace(collection, split=np.full(len(collection.paths), "all"))
    return collection


def embed_collection(run: Path, net: TrainedNet, collection: Collection) -> Tensor:
    """Embed every picture of a collection: float32 [n, d] on the CPU, not numbers for those that cannot be read.

    They are kept in the run's folder, and made anew when its weights or a picture changed.
    """
    stats = (run / WEIGHTS).stat(), *collection.stats
    state = collection.paths, [(stat.st_size, stat.st_mtime_ns) for stat in stats]
    values = state, collection.folder.resolve()
    key, place = (sha256(repr(value).encode("utf-8", "backslashreplace")).hexdigest() for value in values)
    kept = run / f"embeddings-{place[:8]}.npz"
    if kept.exists():
        with np.load(kept) as file:
            if file["key"] == key:
                return torch.from_numpy(file["embeddings"])
    size = net.facts["image_size"]
    config = read_config(run)
    own = collection.folder.resolve() == Path(config["data"]["folder"])
    cache = Path(config["options"]["cache"]) if own and config["options"]["cache"] else None
    readable, squares = dataset.load_pictures(collection, size, torch.device("cpu"), cache, skip_unreadable=True)
    rows = np.flatnonzero(readable.split != "")
    embeddings = torch.full((len(collection.paths), net.facts["embedding_dim"]), torch.nan)
    embeddings[torch.from_numpy(rows)] = normalize(net.predict(squares, rows), dim=1).cpu()
    try:
        write_whole(kept, lambda file: np.savez(file, key=key, embeddings=embeddings.numpy()))
    except OSError as error:
        print(f"note: the embeddings are not kept for the next search: {error}")
    return embeddings
