"""How well an embedding retrieves: average precision and its relatives, over all pairs of pictures, block by block.

Every picture queries all the others. All ranks are exact: nothing is cut off after the first k. Ties are never broken
by luck: average precision counts a group of equal distances as one step of the ranking (as scikit-learn does), and
precision at k puts the relevant pictures of such a group last, so that an embedding of one single point earns nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BLOCK_ELEMENTS = 2**25  # distances held at a time: 128 MiB in float32
LAST = 2**31 - 1  # the sorting key of what is not ranked


@dataclass(frozen=True)
class Ranking:
    """What each of n queries found, all float64 [n] between 0 and 1, NaN for a query that has nothing to find."""

    average_precision: Tensor
    precision_at_1: Tensor
    precision_at_10: Tensor
    r_precision: Tensor


def rank_all(embeddings: Tensor, labels: Tensor, excluded: Tensor | None = None) -> Ranking:
    """Let every picture query all the others; relevant are those with its label.

    `embeddings` is float [n, d], `labels` int64 [n] on the same device. `excluded`, int64 [n], takes the pictures
    with the query's label *and* the query's value in it out of the ranking (style and content: what is left can only
    be found by style); a query whose value is -1, unknown, finds nothing.
    """
    n = len(embeddings)
    results = [
        rank_block(embeddings, labels, excluded, start, min(n, start + block_rows(n))) for start in blocks(n)
    ]  # fmt: skip
    return Ranking(*(torch.cat(column) for column in zip(*results, strict=True)))


def block_rows(n: int) -> int:
    """Queries handled at a time."""
    return max(1, BLOCK_ELEMENTS // max(1, n))


def blocks(n: int) -> range:
    """The first query of each block."""
    return range(0, n, block_rows(n))


def rank_block(
    embeddings: Tensor, labels: Tensor, excluded: Tensor | None, start: int, stop: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Average precision, precision at 1 and at 10, and R-precision of the queries start..stop, each float64 [m]."""
    near = squared_distances(embeddings, start, stop)
    relevant = labels[start:stop, None] == labels
    ranked = torch.ones_like(relevant)
    queries = torch.arange(start, stop, device=labels.device)
    ranked[queries - start, queries] = False
    if excluded is not None:
        ranked &= ~(relevant & (excluded[start:stop, None] == excluded))
    keys = sorted_keys(near, relevant & ranked, ranked)
    wanted = (relevant & ranked).sum(dim=1)
    if excluded is not None:
        wanted = torch.where(excluded[start:stop] >= 0, wanted, 0)

    hits = (keys & 1).bool()
    found = hits.cumsum(dim=1, dtype=torch.int32)
    place = torch.arange(1, keys.shape[1] + 1, device=keys.device, dtype=torch.int32)
    at_hit = precision_at_group_ends(keys, found, place)
    count = wanted.clamp(min=1).double()
    average = torch.where(hits, at_hit, 0).sum(dim=1, dtype=torch.float64) / count

    others = max(1, keys.shape[1] - 1)
    at_r = found.gather(1, (wanted.clamp(min=1) - 1)[:, None])[:, 0] / count
    undefined = wanted == 0
    columns = (average, hits[:, 0].double(), hits[:, :10].double().sum(dim=1) / min(10, others), at_r)
    return tuple(column.masked_fill(undefined, math.nan) for column in columns)


def squared_distances(embeddings: Tensor, start: int, stop: int) -> Tensor:
    """Squared Euclidean distances from the pictures start..stop to all, float32 [stop - start, n], scaled into [0, 1].

    The scale is a power of two, which changes no order and makes no ties.
    """
    embeddings = embeddings.float()
    lengths = embeddings.square().sum(dim=1)
    near = torch.addmm(lengths[None, :], embeddings[start:stop], embeddings.T, alpha=-2) + lengths[start:stop, None]
    largest = 4 * float(lengths.max())
    return near.clamp_(min=0).mul_(2.0 ** -math.ceil(math.log2(largest)) if largest > 0 else 1.0)


def sorted_keys(near: Tensor, relevant: Tensor, ranked: Tensor) -> Tensor:
    """Sort each row by distance; int32 keys whose lowest bit says whether the picture is relevant.

    The bits of a float in [0, 1] order as its value does, so distance and relevance fit in one integer, and sorting
    integers is several times faster than sorting pairs. What is not ranked comes last.
    """
    keys = (near.view(torch.int32) << 1) | relevant
    keys.masked_fill_(~ranked, LAST - 1)
    if keys.device.type == "cpu":
        return torch.from_numpy(np.sort(keys.numpy(), axis=1))  # vectorised, which torch's sort is not
    return keys.sort(dim=1).values


def precision_at_group_ends(keys: Tensor, found: Tensor, place: Tensor) -> Tensor:
    """Precision after each place of a ranking, [m, n]; within a group of ties, that after the whole group."""
    ends = torch.ones_like(keys, dtype=torch.bool)
    ends[:, :-1] = (keys[:, 1:] >> 1) != (keys[:, :-1] >> 1)
    if bool(ends.all()):
        return found / place
    last = torch.where(ends, place, LAST).flip(1).cummin(dim=1).values.flip(1)
    return found.gather(1, last.long() - 1) / last


def mean_average_precision(embeddings: Tensor, labels: Tensor, excluded: Tensor | None = None) -> float:
    """The mean of the queries' average precisions, between 0 and 1; NaN if no query has anything to find."""
    return rank_all(embeddings, labels, excluded).average_precision.nanmean().item()


def nearest_has_same(embeddings: Tensor, values: Tensor) -> Tensor:
    """For each picture, whether the nearest other one has the same value (a share, where several are equally near).

    `values` is int64 [n]; pictures of unknown value, -1, get NaN. Returns float64 [n].
    """
    shares = []
    n = len(embeddings)
    for start in blocks(n):
        stop = min(n, start + block_rows(n))
        near = squared_distances(embeddings, start, stop)
        queries = torch.arange(start, stop, device=near.device)
        near[queries - start, queries] = math.inf
        nearest = near == near.min(dim=1, keepdim=True).values
        same = values[start:stop, None] == values
        share = (nearest & same).sum(dim=1).double() / nearest.sum(dim=1)
        shares.append(share.masked_fill(values[start:stop] < 0, math.nan))
    return torch.cat(shares)
