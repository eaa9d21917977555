"""Stage 2's net: three branches that share all their weights, their distances, and the loss on them (section 3.2.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from networks import EmbeddingNet


class Branch(nn.Module):
    """One branch: the embedding net, and the length that its embeddings get before distances are measured.

    `length` None leaves them as the net gives them.
    """

    def __init__(self, embedding: EmbeddingNet, length: float | None = 1.0) -> None:
        super().__init__()
        self.embedding, self.length = embedding, length

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures, float [n, 3, size, size], to embeddings, float32 [n, embedding_dim]."""
        if self.length is None:
            return self.embedding(pictures).float()
        return self.length * embed(self.embedding, pictures)


class TripletNet(Branch):
    """Anchor, positive and negative through one and the same branch.

    The three branches share every weight, so they are one net that sees the three pictures in one forward pass.
    """

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Embed triplets.

        `pictures` is float [3 n, 3, size, size]: anchor, positive, negative of the first triplet, then of the second,
        and so on. Returns the embeddings of anchors, positives and negatives, each float32 [n, embedding_dim].
        """
        anchor, positive, negative = super().forward(pictures).unflatten(0, (-1, 3)).unbind(dim=1)
        return anchor, positive, negative


def embed(net: EmbeddingNet, pictures: Tensor) -> Tensor:
    """Embeddings as everybody but the loss sees them: float32 [n, embedding_dim], of length 1."""
    return functional.normalize(net(pictures).float(), dim=1)


def distances(first: Tensor, second: Tensor) -> Tensor:
    """Euclidean distances between the rows of two float [n, d]: float [n]; at most twice the embeddings' length."""
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


def batch_losses(
    embeddings: Tensor, label: Tensor, other: Tensor, margin: float, active_only: bool
) -> tuple[Tensor, Tensor]:
    """The same loss over all triplets that a batch holds, for each picture as the anchor (`--mining batch`).

    `embeddings` is float [n, d]; `label` and `other`, int64 [n], are style and content, -1 where unknown. A positive
    has the anchor's style and another content, a negative another style and the anchor's content, as when triplets are
    drawn; an anchor whose content is unknown takes any content. Returns the mean over each anchor's triplets, or over
    those whose loss is not zero, and the share of its triplets that are right; float [n] each, 0 for an anchor without.
    """
    near = torch.cdist(embeddings, embeddings, compute_mode="donot_use_mm_for_euclid_dist")
    same_label, same_other = label[:, None] == label, other[:, None] == other
    unknown = (other < 0)[:, None]
    positive = same_label & (~same_other & (other >= 0) | unknown)
    positive = positive & ~torch.eye(len(label), dtype=torch.bool, device=label.device)
    negative = ~same_label & (same_other | unknown)
    valid = positive[:, :, None] & negative[:, None, :]
    losses = functional.relu(near[:, :, None] - near[:, None, :] + margin) * valid
    count = valid.sum(dim=(1, 2)).clamp(min=1)
    right = ((near[:, :, None] < near[:, None, :]) & valid).sum(dim=(1, 2))
    counted = (losses > 0).sum(dim=(1, 2)).clamp(min=1) if active_only else count
    return losses.sum(dim=(1, 2)) / counted, right / count
