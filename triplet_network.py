"""Stage 2's net: three branches that share all their weights, their distances, and the loss on them (section 3.2.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from networks import EmbeddingNet


class TripletNet(nn.Module):
    """Anchor, positive and negative through one and the same embedding net.

    The branches share every weight, so they are one net that sees the three pictures in one forward pass.
    """

    def __init__(self, embedding: EmbeddingNet) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Embed triplets.

        `pictures` is float [3 n, 3, size, size]: anchor, positive, negative of the first triplet, then of the second,
        and so on. Returns the embeddings of anchors, positives and negatives, each float [n, embedding_dim].
        """
        embeddings = embed(self.embedding, pictures)
        anchor, positive, negative = embeddings.unflatten(0, (-1, 3)).unbind(dim=1)
        return anchor, positive, negative


def embed(net: EmbeddingNet, pictures: Tensor) -> Tensor:
    """Embeddings as distances are measured on them: float32 [n, embedding_dim], of length 1."""
    return functional.normalize(net(pictures).float(), dim=1)


def distances(first: Tensor, second: Tensor) -> Tensor:
    """Euclidean distances between the rows of two float [n, d]: float [n], in [0, 2] for embeddings of length 1."""
    return functional.pairwise_distance(first, second)


def triplet_losses(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """Margin ranking loss of each triplet, and whether its positive is nearer than its negative.

    max(0, d(anchor, positive) - d(anchor, negative) + margin), of embeddings float [n, d].
    Returns float [n] and bool [n].
    """
    near, far = distances(anchor, positive), distances(anchor, negative)
    # The target 1 says that the first input, the distance to the negative, should be the larger.
    losses = nn.MarginRankingLoss(margin, reduction="none")(far, near, torch.ones_like(far))
    return losses, near < far
