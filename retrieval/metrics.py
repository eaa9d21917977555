"""What an embedding is worth as a way to find pictures of the same style: every picture queries all the others.

Distances are exact and come in blocks, so that memory grows with the number of pictures and not with its square.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from triplet_network import average_precisions, squared_distances, triplet_losses

DEFINITIONS = {
    "accuracy": "stage 1: share of the pictures whose own class has the highest score, of those whose class the net knows",
    "accuracy_over_classes": "the same as a mean over the classes, large or small",
    "map": "mean average precision: over the pictures of the query's style, that style's share among all at most as far",
    "map_cross_content": "map without the pictures of the query's style and content, so that content cannot help",
    "map_at_100": "map of the 100 nearest alone: the shares at each find summed, divided by R or 100, whichever is less",
    "precision_at_1": "share of the queries whose nearest picture has their style",
    "precision_at_10": "the query's style's share among the 10 nearest",
    "r_precision": "the query's style's share among the R nearest, R being the number of other pictures of its style",
    "recall_at_1": "share of the queries with their style among the 1 nearest, which is precision_at_1",
    "recall_at_5": "share of the queries with their style among the 5 nearest",
    "recall_at_10": "share of the queries with their style among the 10 nearest",
    "triplet_accuracy": "share of the triplets whose positive is nearer to the anchor than their negative",
    "content_precision_at_1": "share of the pictures whose nearest has their content, which style should not know",
}


def measure(embeddings: Tensor, label: Tensor, other: Tensor, triplets: Tensor, right: Tensor) -> dict[str, Tensor]:
    """Every metric of `DEFINITIONS` but `accuracy_over_classes` for each picture, and `triplet_accuracy` for each triplet.

    `embeddings` float32 [n, d]; `label` and `other`, int64 [n], style and content (or content and style), other being -1
    where it is unknown; `triplets` int64 [m, 3] of the n; `right` float64 [n], whether the class scores are, NaN without.
    All on one device. Returns float64 [n] and [m], NaN for a picture on which the metric says nothing.
    """
    found = {"accuracy": right, "map": average_precisions(embeddings, label)}
    found["map_cross_content"] = average_precisions(embeddings, label, other).where(other >= 0, torch.nan)
    found |= measure_neighbours(embeddings, label)
    nearer = [triplet_losses(*embeddings[part].unbind(dim=1), 0.0)[1] for part in triplets.split(4096)]
    found["triplet_accuracy"] = torch.cat(nearer).double()
    found["content_precision_at_1"] = torch.full_like(label, torch.nan, dtype=torch.float64)
    known = other >= 0
    if known.sum() > 1:
        found["content_precision_at_1"][known] = nearest_is_same(embeddings[known], other[known])
    return found


def measure_neighbours(embeddings: Tensor, label: Tensor) -> dict[str, Tensor]:
    """The metrics that look at the nearest alone, float64 [n] each; NaN for a picture that is alone in its style.

    Of equally near pictures those of another style come first: an embedding of one single point earns nothing.
    """
    others = torch.bincount(label)[label] - 1
    k = min(len(label) - 1, max(100, int(others.max())))
    place = torch.arange(1, k + 1, device=label.device)
    found = []
    for rows, far in squared_distances(embeddings):
        same, wanted = label[rows, None] == label, others[rows, None]
        far = torch.where(same, torch.nextafter(far, far.new_tensor(torch.inf)), far)
        hits = same.gather(1, far.topk(k, largest=False).indices)
        share = hits.cumsum(dim=1).double() / place
        values = {
            "map_at_100": (share * hits)[:, :100].sum(dim=1) / wanted[:, 0].clamp(max=100),
            "precision_at_1": share[:, 0],
            "precision_at_10": share[:, min(10, k) - 1],
            "r_precision": share.gather(1, wanted.clamp(min=1) - 1)[:, 0],
            **{f"recall_at_{most}": hits[:, :most].any(dim=1).double() for most in (1, 5, 10)},
        }
        found.append({name: value.where(wanted[:, 0] > 0, torch.nan) for name, value in values.items()})
    return {name: torch.cat([block[name] for block in found]) for name in found[0]}


def nearest_is_same(embeddings: Tensor, value: Tensor) -> Tensor:
    """Whether each picture's nearest has the same value, int64 [n], as it has itself: float64 [n]."""
    return torch.cat([value[far.argmin(dim=1)] == value[rows] for rows, far in squared_distances(embeddings)]).double()


def summarise(found: dict[str, Tensor], label: np.ndarray, triplets: np.ndarray, names: list[str]) -> dict[str, object]:
    """What metrics.json has of `measure`'s values: their means over all pictures, and in `per_style` over each class's.

    `label`, int64 [n], numbers `names`. A metric that says nothing is None.
    """
    values = {name: value.cpu().numpy() for name, value in found.items()}
    owner = {name: label[triplets[:, 0]] if name == "triplet_accuracy" else label for name in values}

    def means(which: int | None) -> dict[str, float | None]:
        chosen = {name: value if which is None else value[owner[name] == which] for name, value in values.items()}
        known = {name: value[~np.isnan(value)] for name, value in chosen.items()}
        means = {name: float(value.mean()) if len(value) else None for name, value in known.items()}
        return means | {"n_queries": len(known["map"])}

    per_style = {names[which]: means(which) for which in np.unique(label).tolist()}
    shares = [row["accuracy"] for row in per_style.values() if row["accuracy"] is not None]
    over_classes = float(np.mean(shares)) if shares else None
    return {**means(None), "accuracy_over_classes": over_classes, "per_style": per_style}
