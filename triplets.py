"""Which three pictures make a triplet (section 3.2.1 of the paper).

Anchor and positive share the style and differ in content; the negative has another style and the anchor's content:
a watercolour bicycle, a watercolour flower, a 3-D-graphics bicycle. So the only thing that tells the positive from the
negative is style. Everywhere in this project a triplet is a row (anchor, positive, negative), in this order.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset import UNKNOWN, Collection, read_integers
from utils import UserError, derive_seed


@dataclass(frozen=True)
class Span:
    """For each anchor a stretch of a sorted list, [start, stop), without the hole [hole_start, hole_stop) inside it."""

    start: np.ndarray
    stop: np.ndarray
    hole_start: np.ndarray
    hole_stop: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    def counts(self) -> np.ndarray:
        """How many places are left for each anchor, int64 [n]."""
        return (self.stop - self.start) - (self.hole_stop - self.hole_start)

    def draw(self, chance: np.ndarray) -> np.ndarray:
        """Turn `chance`, float64 [n] in [0, 1), into one place for each anchor, every place equally likely, int64 [n]."""
        place = self.start + (chance * self.counts()).astype(np.int64)
        return place + np.where(place >= self.hole_start, self.hole_stop - self.hole_start, 0)


def draw_triplets(label: np.ndarray, other: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
    """Draw one triplet for each row as the anchor; the anchors keep the order of `rows`.

    `label` and `other` are int64 [N] over the whole collection: what the embedding should know (style) and what it
    should not (content), -1 where unknown. `rows`, int64 [n], are the pictures to draw from. Returns int64 [n, 3].

    Where an anchor's content is unknown, or no picture fits, the content rule gives way: the positive is any other
    picture of the label, the negative any picture of another label (`count_fallbacks` tells how often).
    Raises `ValueError` where a label has a single picture or there is a single label.
    """
    positives, any_positives, negatives, any_negatives, by_label, by_other = find_candidates(label[rows], other[rows])
    if (any_positives.counts() < 1).any() or (any_negatives.counts() < 1).any():
        raise ValueError("triplets need at least two labels and two pictures of each")
    chance = np.random.default_rng(seed).random((2, len(rows)))
    positive = np.where(
        positives.counts() > 0, by_label[clip(positives.draw(chance[0]), rows)], by_label[any_positives.draw(chance[0])]
    )
    negative = np.where(
        negatives.counts() > 0, by_other[clip(negatives.draw(chance[1]), rows)], by_label[any_negatives.draw(chance[1])]
    )
    return np.stack([rows, rows[positive], rows[negative]], axis=1)


def clip(place: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Keep the places of anchors without a candidate, which are not used, inside the list."""
    return place.clip(0, len(rows) - 1)


def find_candidates(label: np.ndarray, other: np.ndarray) -> tuple[Span, Span, Span, Span, np.ndarray, np.ndarray]:
    """Find where each anchor's candidates stand in two sorted orders of the pictures; `label`, `other` int64 [n].

    Returns the positives and the negatives, each with the content rule and without, and the two orders, int64 [n]:
    by label then other, and by other then label. Unknown contents sort before the known ones.
    """
    labels, others = label.max() + 1, other.max() + 2
    cell, key = label * others + (other + 1), (other + 1) * labels + label
    by_label, by_other = np.argsort(cell, kind="stable"), np.argsort(key, kind="stable")
    cells, keys = cell[by_label], key[by_other]
    known = other != UNKNOWN
    place = np.empty_like(by_label)
    place[by_label] = np.arange(len(by_label))

    start, stop = np.searchsorted(cells, label * others), np.searchsorted(cells, (label + 1) * others)
    known_start = np.searchsorted(cells, label * others + 1)
    cell_start, cell_stop = np.searchsorted(cells, cell), np.searchsorted(cells, cell, side="right")
    positives = Span(
        np.where(known, known_start, 0), np.where(known, stop, 0),
        np.where(known, cell_start, 0), np.where(known, cell_stop, 0),
    )  # fmt: skip
    any_positives = Span(start, stop, place, place + 1)

    other_start = np.searchsorted(keys, (other + 1) * labels)
    other_stop = np.searchsorted(keys, (other + 2) * labels)
    key_start, key_stop = np.searchsorted(keys, key), np.searchsorted(keys, key, side="right")
    negatives = Span(
        np.where(known, other_start, 0), np.where(known, other_stop, 0),
        np.where(known, key_start, 0), np.where(known, key_stop, 0),
    )  # fmt: skip
    any_negatives = Span(np.zeros_like(start), np.full_like(stop, len(label)), start, stop)
    return positives, any_positives, negatives, any_negatives, by_label, by_other


def count_fallbacks(label: np.ndarray, other: np.ndarray, rows: np.ndarray) -> tuple[int, int]:
    """How many of the anchors have no positive, and no negative, that keeps the content rule."""
    positives, _, negatives, *_ = find_candidates(label[rows], other[rows])
    return int((positives.counts() < 1).sum()), int((negatives.counts() < 1).sum())


def draw_epoch(label: np.ndarray, other: np.ndarray, rows: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """An epoch's training triplets, int64 [n, 3]: every picture is the anchor once, in a fresh order."""
    order = np.random.default_rng(derive_seed(seed, "order", epoch)).permutation(rows)
    return draw_triplets(label, other, order, derive_seed(seed, "triplets", epoch))


def draw_fixed(label: np.ndarray, other: np.ndarray, rows: np.ndarray, split_seed: int) -> np.ndarray:
    """The triplets that validation and evaluation measure, the same each time: int64 [10 n, 3].

    Ten for each of `rows`, int64 [n], as the anchor, except for pictures without a second one of their label.
    """
    counts = np.bincount(label[rows], minlength=label.max() + 1)
    usable = rows[counts[label[rows]] > 1]
    seeds = [derive_seed(split_seed, "validation triplets", part) for part in range(10)]
    return np.concatenate([draw_triplets(label, other, usable, seed) for seed in seeds])


def draw_balanced_batches(
    label: np.ndarray, other: np.ndarray, rows: np.ndarray, batch_size: int, seed: int
) -> list[np.ndarray]:
    """An epoch of batches that hold many triplets, each int64 [b, 1]: P contents x all styles x K pictures.

    A batch takes a few contents, drawn by how many pictures they have, and as many pictures of every style in each of
    them as fit, so that most anchors find positives of other contents and negatives of their own; of the styles, if two
    contents of all are more than fit, as many as fit. The batches are even, at most `batch_size` each, and as large
    together as `rows`; a picture may come more than once, or not at all.
    """
    generator = np.random.default_rng(seed)
    cells: dict[tuple[int, int], np.ndarray] = {}
    for cell in np.unique(np.stack([label[rows], other[rows]], axis=1), axis=0).tolist():
        cells[tuple(cell)] = rows[(label[rows] == cell[0]) & (other[rows] == cell[1])]
    labels = np.unique(label[rows])
    contents, counts = np.unique(other[rows], return_counts=True)
    batches = []
    for part in np.array_split(rows, -(-len(rows) // batch_size)):
        few = min(len(contents), max(2, batch_size // (2 * len(labels))))
        drawn = generator.choice(contents, few, replace=False, p=counts / counts.sum())
        some = (
            labels if 2 * len(labels) <= len(part) else generator.choice(labels, max(2, len(part) // 2), replace=False)
        )
        slots = [(a, b) for b in drawn for a in some if (a, b) in cells]
        chosen = [cells[slots[place % len(slots)]] for place in range(len(part))]
        batches.append(np.array([generator.choice(cell) for cell in chosen])[:, None])
    return batches


def read_triplets(path: Path, collection: Collection) -> dict[str, np.ndarray]:
    """Read a file of triplets `a b c`, "a is nearer to c than to b", rows counted from 0, by split.

    A triplet belongs to a split if all its three pictures do; the others are left out. Returns "train", "val" and
    "test", each int64 [n, 3] as (anchor, positive, negative) = (a, c, b).
    """
    table = read_integers(path, 3)
    outside = ((table < 0) | (table >= len(collection))).any(axis=1)
    if outside.any():
        line = int(outside.argmax()) + 1
        raise UserError(f"{path}, line {line}: names a picture outside 0..{len(collection) - 1} of {collection.source}")
    triplets = table[:, [0, 2, 1]]
    repeated = (
        (triplets[:, 0] == triplets[:, 1]) | (triplets[:, 0] == triplets[:, 2]) | (triplets[:, 1] == triplets[:, 2])
    )
    if repeated.any():
        raise UserError(f"{path}, line {int(repeated.argmax()) + 1}: names a picture twice; a triplet needs three")
    splits = collection.split[triplets]
    found = {name: triplets[(splits == name).all(axis=1)] for name in ("train", "val", "test")}
    for name in ("train", "val"):
        if not len(found[name]):
            raise UserError(f"{path}: no triplet has all its three pictures in the {name} split; add some")
    return found
