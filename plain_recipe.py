"""The plain recipe, which `benchmark.py` compares this project with: how one would write both stages first.

A DataLoader whose workers decode, convert to float, resize and centre each picture in each epoch; a forward pass for
each of the three branches; full precision; PyTorch's default layout and optimizers; the loss read after every step.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from dataset import Collection
from networks import COLOURS, EmbeddingNet, StyleClassifier
from triplet_network import distances
from triplets import draw_epoch


class PlainPictures(Dataset):
    """Pictures as one would first write it: decoded, made float, resized and centred whenever they are asked for."""

    def __init__(self, collection: Collection, rows: np.ndarray, image_size: int, triplets: bool) -> None:
        self.files = [f"{collection.folder}/{collection.paths[row]}" for row in rows]
        self.styles, self.contents = collection.style[rows].tolist(), collection.content[rows].tolist()
        self.triplets = draw_epoch(collection.style, collection.content, rows, 0, 1) if triplets else None
        self.place = {row: place for place, row in enumerate(rows.tolist())}
        self.transform = transforms.Compose(
            [
                transforms.ToTensor(),
                transforms.Resize((image_size, image_size)),
                transforms.Normalize(*COLOURS["centred"]),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def load(self, place: int) -> Tensor:
        """One picture, float [3, size, size]."""
        with Image.open(self.files[place]) as picture:
            return self.transform(picture.convert("RGB"))

    def __getitem__(self, place: int) -> tuple[Any, ...]:
        """A picture and its style, or the three pictures of a triplet."""
        if self.triplets is None:
            return self.load(place), self.styles[place]
        return tuple(self.load(self.place[row]) for row in self.triplets[place].tolist())


def endless_batches(dataset: PlainPictures, batch_size: int, workers: int, device: torch.device) -> Iterator[Any]:
    """Batches of a DataLoader, epoch after epoch, with workers that stay."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)  # more workers than processors
        loader = DataLoader(
            dataset, min(batch_size, len(dataset)), shuffle=True, num_workers=workers, drop_last=True,
            pin_memory=device.type == "cuda", persistent_workers=workers > 0,
        )  # fmt: skip
        while True:
            yield from loader


def train_stage1(
    embedding: EmbeddingNet, classes: int, batches: Iterator[Any], rate: float, device: torch.device
) -> Iterator[int]:
    """Train the classifier; yields the number of pictures after each step."""
    net = StyleClassifier(embedding, classes).to(device).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    total = 0.0
    for pictures, styles in batches:
        scores = net(pictures.to(device, non_blocking=True))
        loss = functional.cross_entropy(scores, styles.to(device, non_blocking=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
        yield len(styles)


def train_stage2(
    embedding: EmbeddingNet, batches: Iterator[Any], rate: float, momentum: float, margin: float, device: torch.device
) -> Iterator[int]:
    """Train the embedding with a forward pass for each branch; yields the number of pictures after each step."""
    net = embedding.to(device).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=rate, momentum=momentum)
    ranking = nn.MarginRankingLoss(margin)
    total = 0.0
    for triplet in batches:
        anchor, positive, negative = (
            functional.normalize(net(pictures.to(device, non_blocking=True))) for pictures in triplet
        )
        near, far = distances(anchor, positive), distances(anchor, negative)
        loss = ranking(far, near, torch.ones_like(far))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
        yield 3 * len(anchor)


def read_only(batches: Iterator[Any], device: torch.device) -> Iterator[int]:
    """Only bring the pictures to the device; yields their number after each batch."""
    for pictures, _ in batches:
        pictures.to(device, non_blocking=True)
        yield len(pictures)
