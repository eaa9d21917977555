"""How well an embedding retrieves: average precision and its relatives, over all pairs of pictures, block by block.

Every picture queries all the others. All ranks are exact: nothing is cut off after the first k, and distances are
computed in float64 and ordered as float32. Ties are never broken by luck: average precision counts a group of equal
distances as one step of the ranking (as scikit-learn does), and precision at k and R-precision put the relevant
pictures of such a group last, so that an embedding of one single point earns nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BLOCK_ELEMENTS = 2**21  # distances held at a time, about what fits into a processor's cache ...
BLOCK_QUERIES = 128  # ... but those of this many queries at least: of 121,000 pictures, 124 MB
ROUGH = 1e-4  # more than float32 errs in a squared distance, of embeddings whose longest is of length 1
SAME_POINT = 1e-12  # squared distance, of embeddings scaled to length 1, that float32 embeddings cannot resolve


@dataclass(frozen=True)
class Ranking:
    """What each of n queries found, all float64 [n] between 0 and 1, NaN for a query that has nothing to find."""

    average_precision: Tensor
    precision_at_1: Tensor
    precision_at_10: Tensor
    r_precision: Tensor


def rank_all(embeddings: Tensor, labels: Tensor, excluded: Tensor | None = None) -> Ranking:
    """Let every picture query all the others; relevant are those with its label.

    `embeddings` is float [n, d], `labels` int64 [n] on the same device. Pictures of unknown label, -1, are left out
    altogether: they neither query nor are found. `excluded`, int64 [n], takes the pictures with the query's label
    *and* the query's value in it out of the ranking (style and content: what is left can only be found by style);
    a query whose value is -1, unknown, finds nothing.

    Average precision: the mean, over the relevant pictures, of the share of relevant ones among all that are at most
    as far away. Precision at k: relevant pictures among the k nearest, divided by k (by the number of other pictures
    if that is smaller). R-precision: precision at R, the number of relevant pictures.
    """
    columns = torch.full((4, len(labels)), math.nan, dtype=torch.float64, device=embeddings.device)
    order = torch.argsort(labels, stable=True)  # each label's pictures stand together
    order = order[labels[order] >= 0]
    known, lengths = scale(embeddings[order])
    values = excluded[order] if excluded is not None else None
    for first, last in stretches(labels[order]):
        for start, stop in blocks(first, last, len(order)):
            near = squared_distances(known, lengths, start, stop)
            columns[:, order[start:stop]] = rank_block(near, start, first, last, values)
    return Ranking(*columns)


def stretches(labels: Tensor) -> list[tuple[int, int]]:
    """Where each label begins and ends in a sorted int64 [n]."""
    _, counts = torch.unique_consecutive(labels, return_counts=True)
    ends = counts.cumsum(dim=0).tolist()
    return list(zip([0, *ends], ends, strict=False))


def blocks(first: int, last: int, n: int) -> Iterator[tuple[int, int]]:
    """Cut the queries first..last into blocks of a size that suits the distances to n pictures."""
    step = max(BLOCK_QUERIES, BLOCK_ELEMENTS // max(1, n))
    for start in range(first, last, step):
        yield start, min(last, start + step)


def rank_block(near: Tensor, start: int, first: int, last: int, excluded: Tensor | None) -> Tensor:
    """Average precision, precision at 1 and at 10, and R-precision of m queries, float64 [4, m].

    `near`, float32 [m, n], holds their squared distances to all pictures, among which the relevant ones stand at
    first..last; the queries themselves are start, start + 1, ... of the n.
    """
    m, n = near.shape
    near[torch.arange(m), torch.arange(start, start + m)] = math.inf
    found = near[:, first:last]
    if excluded is not None:
        value = excluded[start : start + m, None]
        found.masked_fill_(value == excluded[first:last], math.inf)  # a view: they leave `near` too
    nearest_first = sort_rows(found)
    wanted = nearest_first.isfinite().sum(dim=1, keepdim=True)
    if excluded is not None:
        wanted = wanted.masked_fill(value < 0, 0)

    # For each relevant picture: how many pictures, and how many relevant ones, are at most as far from the query.
    place = torch.arange(1, last - first + 1, device=near.device, dtype=torch.int32)
    among_all = torch.searchsorted(sort_rows(near), nearest_first, right=True, out_int32=True)
    among_relevant = torch.searchsorted(nearest_first, nearest_first, right=True, out_int32=True)
    valid, count = place <= wanted, wanted.clamp(min=1)
    average = torch.where(valid, among_relevant.double() / among_all, 0).sum(dim=1, keepdim=True) / count
    # Its place in the ranking if, in a group of ties, all others come first.
    rank = among_all - among_relevant + place

    def precision(k: Tensor | int) -> Tensor:
        return (valid & (rank <= k)).sum(dim=1, keepdim=True).double() / k

    columns = torch.cat([average, precision(1), precision(max(1, min(10, n - 1))), precision(count)], dim=1)
    return columns.masked_fill(wanted == 0, math.nan).T


def sort_rows(table: Tensor) -> Tensor:
    """Sort each row of a float32 [m, n], the smallest first."""
    if table.device.type != "cpu":
        return table.sort(dim=1).values
    # numpy's sort is vectorised, which torch's is not, but runs on one core: give each core some rows.
    rows = np.array(table.numpy())
    threads = max(1, min(torch.get_num_threads(), len(rows)))
    if threads == 1 or rows.size < 2**16:
        rows.sort(axis=1)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda part: part.sort(axis=1), np.array_split(rows, threads)))
    return torch.from_numpy(rows)


def scale(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings as float64 [n, d], the longest of length 1, and their squared lengths, float64 [n]."""
    embeddings = embeddings.double()
    largest = embeddings.abs().max() if embeddings.numel() else 0
    if largest > 0:
        embeddings = embeddings / largest
        embeddings = embeddings / embeddings.square().sum(dim=1).max().sqrt()
    return embeddings, embeddings.square().sum(dim=1)


def squared_distances(embeddings: Tensor, lengths: Tensor, start: int, stop: int) -> Tensor:
    """Squared Euclidean distances from the pictures start..stop to all, float32 [stop - start, n].

    `embeddings` and `lengths` as from `scale`. In float64, so that the result does not depend on the block's shape
    and copies of one picture are equally far from everything.
    """
    near = torch.addmm(lengths[None, :], embeddings[start:stop], embeddings.T, alpha=-2)
    near = near.add_(lengths[start:stop, None]).float()
    return torch.nn.functional.threshold_(near, SAME_POINT, 0.0)


def mean_average_precision(embeddings: Tensor, labels: Tensor, excluded: Tensor | None = None) -> float:
    """The mean of the queries' average precisions, between 0 and 1; NaN if no query has anything to find."""
    return rank_all(embeddings, labels, excluded).average_precision.nanmean().item()


def nearest_has_same(embeddings: Tensor, values: Tensor) -> Tensor:
    """For each picture, whether the nearest other one has the same value (a share, where several are equally near).

    `values` is int64 [n]. Pictures of unknown value, -1, are left out altogether and get NaN, as does a picture
    without another. Returns float64 [n].
    """
    shares = torch.full((len(values),), math.nan, dtype=torch.float64, device=embeddings.device)
    known = torch.nonzero(values >= 0)[:, 0]
    if len(known) < 2:
        return shares
    values = values[known]
    for start, stop, nearest in nearest_others(embeddings[known]):
        same = values[start:stop, None] == values
        shares[known[start:stop]] = (nearest & same).sum(dim=1).double() / nearest.sum(dim=1)
    return shares


def nearest_class(embeddings: Tensor, labels: Tensor) -> Tensor:
    """The label of each picture's nearest other picture: int64 [n], -1 for pictures of unknown label.

    Of several that are equally near, the first with another label than the picture's own: as in precision at 1,
    nothing is earned by a tie.
    """
    found = torch.full_like(labels, -1)
    known = torch.nonzero(labels >= 0)[:, 0]
    if len(known) < 2:
        return found
    labels = labels[known]
    for start, stop, nearest in nearest_others(embeddings[known]):
        other = labels[start:stop, None] != labels
        preferred = nearest.to(torch.uint8) * (1 + other.to(torch.uint8))
        found[known[start:stop]] = labels[preferred.argmax(dim=1)]
    return found


def nearest_others(embeddings: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """For each block of queries start..stop, which of the other pictures are the nearest, bool [stop - start, n]."""
    n = len(embeddings)
    embeddings, lengths = scale(embeddings)
    for start, stop in blocks(0, n, n):
        near = squared_distances(embeddings, lengths, start, stop)
        queries = torch.arange(start, stop, device=near.device)
        near[queries - start, queries] = math.inf
        yield start, stop, near == near.min(dim=1, keepdim=True).values


def nearest(embeddings: Tensor, questions: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest pictures to each question, nearest first: rows, int64 [q, k], and distances, float64 [q, k].

    `embeddings` is float [n, d], `questions` float [q, d]. Fewer than k where there are fewer pictures. Equally near
    ones stand in the order of their rows.
    """
    k = min(k, len(embeddings))
    rows, far = [], []
    lengths = torch.linalg.vector_norm(embeddings, dim=1).square_()
    for question in questions:
        # A matrix product finds in a few milliseconds who may be among the nearest; the rest is exact.
        rough = torch.addmv(lengths, embeddings, question, alpha=-2)
        error = ROUGH * max(float(lengths.max()), float(question.square().sum()))
        near = torch.nonzero(rough <= rough.kthvalue(k).values + error)[:, 0]
        distances = (embeddings[near] - question).double().square().sum(dim=1).sqrt()
        order = torch.argsort(distances, stable=True)[:k]
        rows.append(near[order])
        far.append(distances[order])
    return torch.stack(rows), torch.stack(far)
