"""Section 3.2.1: how triplets are drawn, the net of three branches that share all their weights, and the loss.

Anchor and positive share the style and differ in content; the negative has another style and the anchor's content: a
watercolour bicycle, a watercolour flower, a 3-D-graphics bicycle. So style alone tells the positive from the negative.
Everywhere a triplet is (anchor, positive, negative), in this order.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from networks import EmbeddingNet
from utils import UserError


class TripletNet(nn.Module):
    """Anchor, positive and negative through one and the same branch: the embedding net, which stage 1 has trained.

    Embeddings get the given `length` before distances are measured; None leaves them as they are.
    """

    def __init__(self, embedding: EmbeddingNet, length: float | None) -> None:
        super().__init__()
        self.embedding, self.length = embedding, length

    def branch(self, pictures: Tensor) -> Tensor:
        """Pictures, float [n, 3, size, size], to embeddings, float32 [n, embedding_dim]."""
        embeddings = self.embedding(pictures).float()
        return embeddings if self.length is None else self.length * functional.normalize(embeddings, dim=1)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Embed triplets, float [3 n, 3, size, size]: anchor, positive, negative of the first, then of the second, ...

        The branches share every weight, so they are one net that sees the three pictures in one forward pass.
        """
        anchor, positive, negative = self.branch(pictures).unflatten(0, (-1, 3)).unbind(dim=1)
        return anchor, positive, negative


def triplet_losses(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float, squared: bool = False
) -> tuple[Tensor, Tensor]:
    """The margin ranking loss of each triplet, float [n], and whether its positive is the nearer, bool [n].

    max(0, d(anchor, positive) - d(anchor, negative) + margin) of embeddings, float [n, embedding_dim], with Euclidean
    distances as in the public re-implementation, or with `squared` ones, as the paper's figure of the loss has them.
    """
    near, far = functional.pairwise_distance(anchor, positive), functional.pairwise_distance(anchor, negative)
    if squared:
        near, far = near.square(), far.square()
    # The target 1 says that the first input, the distance to the negative, should be the larger one.
    return nn.MarginRankingLoss(margin, reduction="none")(far, near, torch.ones_like(far)), near < far


def draw_triplets(
    label: np.ndarray, other: np.ndarray, rows: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, int]:
    """Draw a triplet for each of `rows`, int64 [n], as the anchor, every candidate as likely: int64 [n, 3].

    `label` and `other`, int64 over the whole collection, are what the embedding should know (style) and what it should
    not (content), -1 where unknown. Where no picture keeps the content rule, any other picture of the label, or any of
    another label, is taken; the number of such anchors is returned too. `rows` has two labels of two pictures each.
    """
    a, b = label[rows], other[rows]
    positive, negative, fallbacks = np.empty_like(rows), np.empty_like(rows), 0
    for this_label, this_other in np.unique(np.stack([a, b], axis=1), axis=0).tolist():
        anchors = np.flatnonzero((a == this_label) & (b == this_other))
        near = np.flatnonzero((a == this_label) & (b != this_other) & (b >= 0) & (this_other >= 0))
        far = np.flatnonzero((a != this_label) & (b == this_other) & (this_other >= 0))
        fallbacks += 0 if len(near) and len(far) else len(anchors)
        if len(near):
            positive[anchors] = rows[generator.choice(near, len(anchors))]
        else:  # any other than the anchor itself: a place after its own counts one more
            near = np.flatnonzero(a == this_label)
            place = generator.integers(len(near) - 1, size=len(anchors))
            positive[anchors] = rows[near[place + (place >= np.searchsorted(near, anchors))]]
        far = far if len(far) else np.flatnonzero(a != this_label)
        negative[anchors] = rows[generator.choice(far, len(anchors))]
    return np.stack([rows, positive, negative], axis=1), fallbacks


def draw_fixed_triplets(label: np.ndarray, other: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The triplets of validation and evaluation, the same each time: ten for each row that can be an anchor, int64 [m, 3].

    Raises `UserError` where there are not two labels with two pictures each.
    """
    counts = np.bincount(label[rows][label[rows] >= 0])
    if (counts > 1).sum() < 2:
        raise UserError("too few pictures to measure triplets on, which takes two classes of two each; add some")
    rows = rows[(label[rows] >= 0) & (counts[label[rows]] > 1)]
    return np.concatenate([draw_triplets(label, other, rows, np.random.default_rng(part))[0] for part in range(10)])


def read_triplets(files: list[Path], split: np.ndarray) -> dict[str, np.ndarray]:
    """Read lists of the public re-implementation: lines `a b c`, "a is nearer to c than to b", rows counted from 0.

    Returns the triplets of each split, int64 [n, 3]. Those that name a picture twice, or whose pictures are not all in
    one split, can teach nothing and are left out, which is said. Raises `UserError` for what is no such list.
    """
    try:
        table = np.concatenate([np.loadtxt(file, dtype=np.int64, ndmin=2) for file in files])[:, [0, 2, 1]]
        splits = np.where(table >= 0, split[table], "")
    except (ValueError, IndexError) as error:
        raise UserError(f"--triplets {' '.join(map(str, files))}: {error}; give lines of three row numbers") from error
    in_one = (splits == splits[:, :1]).all(axis=1) & (splits[:, 0] != "")
    useful = in_one & (table != np.roll(table, 1, axis=1)).all(axis=1)
    print(f"triplets: {useful.sum()} of {len(table)}; the others name a picture twice, or are not all in one split")
    found = {name: table[useful & (splits[:, 0] == name)] for name in ("train", "val", "test")}
    if not len(found["train"]) or not len(found["val"]):
        raise UserError(f"--triplets {' '.join(map(str, files))}: give some for training and some for validation")
    return found


def squared_distances(embeddings: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of rows, int64 [m], and their squared distances to all n, float32 [m, n], infinite to themselves."""
    embeddings = embeddings.double()
    lengths = embeddings.square().sum(dim=1)
    for rows in torch.arange(len(embeddings), device=embeddings.device).split(128):
        far = torch.addmm(lengths, embeddings[rows], embeddings.T, alpha=-2) + lengths[rows, None]
        far = far.clamp(min=1e-12).float()  # copies of a picture are equally far from everything
        far[torch.arange(len(rows)), rows] = torch.inf
        yield rows, far


@torch.no_grad()
def average_precisions(embeddings: Tensor, label: Tensor, other: Tensor | None = None) -> Tensor:
    """How well each picture, as a query, finds those of its label among all others, float64 [n]; NaN with none to find.

    `embeddings` float [n, d], `label` int64 [n]. The mean, over the pictures of the label, of the label's share among
    all that are at most as far away. With `other`, pictures that share that with the query too are taken out.
    """
    found = []
    for rows, far in squared_distances(embeddings):
        wanted = label[rows, None] == label
        if other is not None:
            far[wanted & (other[rows, None] == other)] = torch.inf
        nearest = far.masked_fill(~wanted, torch.inf).sort(dim=1).values[:, : int(wanted.sum(dim=1).max())].contiguous()
        among_all = torch.searchsorted(far.sort(dim=1).values, nearest, right=True)
        share = torch.searchsorted(nearest, nearest, right=True).double() / among_all
        found.append(share.where(nearest.isfinite(), 0).sum(dim=1) / nearest.isfinite().sum(dim=1))
    return torch.cat(found)
