"""A trained net, ready to use: the embedding of a run together with the preprocessing that it was trained with.

    from trained import load_trained
    net = load_trained("runs/stage2")                    # or the file runs/stage2/best.pt
    embeddings = net(["one.jpg", "another.png"])         # float32 [2, 256], each of length 1
    far = (embeddings[0] - embeddings[1]).norm()         # between 0, the same style, and 2

Works in any program that finds this folder on its Python path and has no modules of the same names, such as `utils`;
`hubconf.py` offers the same through `torch.hub`, beside modules of any names.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from augmentation import prepare
from decoding import UnreadablePicture, decode, to_square
from networks import rebuild
from pictures import stored_size
from run_folder import BEST, BEST_FORMAT, CONFIG, read_checkpoint
from triplet_network import embed
from utils import UserError

Picture = str | Path | np.ndarray | Tensor


class TrainedNet(nn.Module):
    """The embedding net of a `best.pt`, in evaluation mode, its weights frozen, with its preprocessing.

    `stage` is 1 or 2; `label` what the classes are, "style" or "content"; `classes` their names in the order of the
    scores; `image_size` the side, in pixels, of what the net sees; `embedding_dim` the length of an embedding.
    `head` turns embeddings before normalisation into class scores and is None after stage 2.
    """

    def __init__(self, checkpoint: dict[str, Any], where: str) -> None:
        super().__init__()
        self.embedding, classifier = rebuild(checkpoint, where)
        self.head = classifier.head if classifier is not None else None
        check_description(checkpoint, where)
        self.stage: int = checkpoint["stage"]
        self.label: str = checkpoint["label"]
        self.classes: tuple[str, ...] = tuple(checkpoint["classes"])
        self.image_size: int = checkpoint["image_size"]
        self.embedding_dim: int = checkpoint["embedding_dim"]
        self.register_buffer("mean", torch.tensor(checkpoint["colour_mean"]), persistent=False)
        self.register_buffer("deviation", torch.tensor(checkpoint["colour_deviation"]), persistent=False)
        self.to(memory_format=torch.channels_last)

    def forward(self, pictures: Picture | Sequence[Picture]) -> Tensor:
        """Embed pictures: float32 [n, embedding_dim] on the net's device, each of length 1.

        `pictures` is one of: a path or a uint8 RGB array or tensor [height, width, 3]; a list of such, of any sizes;
        a uint8 RGB array or tensor [n, height, width, 3]; or a float tensor [n, 3, image_size, image_size] of RGB in
        [0, 1], which is embedded as it is and through which gradients flow. Raises `decoding.UnreadablePicture` for
        a path that holds no whole picture, and `ValueError` for anything else.
        """
        if isinstance(pictures, Tensor) and pictures.is_floating_point():
            return embed(self.embedding, self.centre(pictures))
        return self.embed_squares(torch.from_numpy(self.to_squares(pictures)))[0]

    def embed_squares(self, squares: Tensor) -> tuple[Tensor, Tensor | None]:
        """Embed uint8 squares [n, side, side, 3], side = `stored_size(image_size)`, as `pictures.py` keeps them.

        Returns the embeddings, float32 [n, embedding_dim], and, after stage 1, class scores, float32 [n, classes].
        """
        seen = prepare(squares.to(self.mean.device), self.image_size, self.mean, self.deviation, None)
        # Full precision on GPUs too, whose convolutions would otherwise round to TF32: a copy is at distance 0.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            raw = self.embedding(seen).float()
            scores = self.head(raw) if self.head is not None else None
        return nn.functional.normalize(raw, dim=1), scores

    def to_squares(self, pictures: Picture | Sequence[Picture]) -> np.ndarray:
        """Crop and resize pictures, as `forward` takes them, into uint8 [n, side, side, 3]."""
        if isinstance(pictures, (str, Path)) or getattr(pictures, "ndim", 0) == 3:
            pictures = [pictures]
        side = stored_size(self.image_size)
        squares = [to_square(self.read(picture), side) for picture in pictures]
        return np.stack(squares) if squares else np.empty((0, side, side, 3), dtype=np.uint8)

    def read(self, picture: Picture) -> np.ndarray:
        """Decode a path, or check an array or tensor: uint8 RGB [height, width, 3]."""
        if isinstance(picture, (str, Path)):
            try:
                return decode(picture)
            except UnreadablePicture as error:
                raise UnreadablePicture(f"{picture} {error}") from error
        array = picture.cpu().numpy() if isinstance(picture, Tensor) else np.asarray(picture)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
            raise ValueError(f"a picture should be uint8 [height, width, 3], this is {array.dtype} {array.shape}")
        return array

    def centre(self, pictures: Tensor) -> Tensor:
        """Centre the colours of float RGB in [0, 1], [n, 3, image_size, image_size]."""
        expected = (3, self.image_size, self.image_size)
        if pictures.ndim != 4 or tuple(pictures.shape[1:]) != expected:
            raise ValueError(f"float pictures should be [n, {', '.join(map(str, expected))}], not {pictures.shape}")
        pictures = pictures.to(self.mean.device, torch.float32, memory_format=torch.channels_last)
        return (pictures - self.mean[:, None, None]) / self.deviation[:, None, None]


def check_description(checkpoint: dict[str, Any], where: str) -> None:
    """Check what a checkpoint says of its net's classes and preprocessing. Raises `UserError`."""

    def is_colour(value: Any) -> bool:
        return isinstance(value, list) and len(value) == 3 and all(isinstance(part, float) for part in value)

    size = checkpoint.get("image_size")
    if (
        not all(isinstance(name, str) for name in checkpoint["classes"])
        or checkpoint.get("label") not in ("style", "content")
        or checkpoint.get("stage") not in (1, 2)
        or not (isinstance(size, int) and 0 < size < 2**14)
        or not is_colour(checkpoint.get("colour_mean"))
        or not is_colour(checkpoint.get("colour_deviation"))
    ):
        raise UserError(f"{where}: does not say how pictures are prepared for it; is it a best.pt of this project?")


def load_trained(run: Path | str, device: torch.device | str = "cpu") -> TrainedNet:
    """Load the best weights of a run folder, or a `best.pt` file, onto a device.

    Nothing in the file is executed. Raises `UserError` for a run or file that is missing, damaged or foreign.
    """
    path = Path(run)
    if path.is_dir():
        path = path / BEST
        if not path.exists():
            begun = (path.parent / CONFIG).exists()
            raise UserError(
                f"{run}: has no {BEST} yet; let it train" if begun else f"{run}: holds no run; correct the path"
            )
    elif not path.exists():
        raise UserError(f"{run}: no such run; train one with classification_net.py, or correct the path")
    return TrainedNet(read_checkpoint(path, BEST_FORMAT), str(path)).to(device)
