"""The nets, the loss and its direction, and weights that come from files."""

from __future__ import annotations

import math

import pytest
import torch

from networks import BACKBONES, EmbeddingNet, StyleClassifier, build_embedding, rebuild
from triplet_network import Branch, TripletNet, batch_losses, distances, embed, triplet_losses
from utils import UserError


@pytest.mark.parametrize("arch", sorted(BACKBONES))
def test_every_backbone_gives_an_embedding_and_class_scores(arch):
    net = StyleClassifier(build_embedding(arch, 32, "none", 0.0, 64), classes=11).eval()
    pictures = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert net.embedding(pictures).shape == (2, 32)
        scores = net(pictures)
    assert scores.shape == (2, 11) and scores.isfinite().all()
    assert (scores[0] != scores[1]).any(), "the scores depend on the picture"


def test_the_default_net_is_alexnet_with_a_bottleneck_on_its_outputs():
    net = EmbeddingNet("alexnet")
    assert type(net.backbone).__name__ == "AlexNet"
    assert net.bottleneck.weight.shape == (256, 1000)


def test_signals_keep_their_scale_through_a_fresh_net():
    torch.manual_seed(0)
    net = build_embedding("alexnet", 256, "none", 0.0, 96).eval()
    with torch.no_grad():
        deviation = net(torch.randn(8, 3, 96, 96)).std().item()
    assert 0.1 < deviation < 10


def test_pictures_too_small_for_the_backbone_are_refused():
    with pytest.raises(UserError, match="--image-size 32: is too small for alexnet"):
        build_embedding("alexnet", 256, "none", 0.0, 32)


@pytest.mark.parametrize("arch", ["alexnet_bn"])
def test_imagenet_weights_that_do_not_exist_are_refused(arch):
    with pytest.raises(UserError, match="there are none for alexnet_bn"):
        build_embedding(arch, 256, "imagenet", 0.0, 96)


def test_imagenet_weights_without_internet_tell_where_to_put_the_file(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # the discard port: nothing answers
    with pytest.raises(UserError, match="could not be downloaded .* put it into"):
        build_embedding("resnet18", 256, "imagenet", 0.0, 96)


def test_a_backbone_starts_from_a_file_of_weights(tmp_path):
    source = EmbeddingNet("resnet18", 16)
    torch.save(source.backbone.state_dict(), tmp_path / "backbone.pt")
    net = build_embedding("resnet18", 16, str(tmp_path / "backbone.pt"), 0.0, 64)
    assert all(torch.equal(a, b) for a, b in zip(net.backbone.parameters(), source.backbone.parameters(), strict=True))
    with pytest.raises(UserError, match="does not fit the net"):
        build_embedding("alexnet", 16, str(tmp_path / "backbone.pt"), 0.0, 64)


def test_a_rebuilt_net_gives_the_same_numbers():
    net = StyleClassifier(EmbeddingNet("resnet18", 16), 3).eval()
    kept = {
        "stage": 1,
        "arch": "resnet18",
        "embedding_dim": 16,
        "dropout": 0.0,
        "classes": ["a", "b", "c"],
        "weights": net.state_dict(),
    }
    embedding, classifier = rebuild(kept, "here")
    pictures = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(embedding(pictures), net.embedding(pictures))
        assert torch.equal(classifier(pictures), net(pictures))


# Stage 2's net and loss.


def small_triplet_net() -> TripletNet:
    torch.manual_seed(1)
    return TripletNet(build_embedding("alexnet", 8, "none", 0.0, 64))


def test_the_three_branches_are_one_set_of_parameters():
    net = small_triplet_net()
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in net.embedding.parameters())
    pictures = torch.randn(1, 3, 64, 64).repeat(3, 1, 1, 1)
    anchor, positive, negative = net(pictures)
    assert torch.allclose(anchor, positive) and torch.allclose(anchor, negative)


def test_pictures_are_anchor_positive_negative_in_turn():
    net = small_triplet_net().eval()
    pictures = torch.randn(6, 3, 64, 64)
    with torch.no_grad():
        branches, alone = net(pictures), embed(net.embedding, pictures)
    for place, branch in enumerate(branches):
        assert torch.allclose(branch, alone[place::3], atol=1e-6)


@pytest.mark.parametrize("branch", [0, 1, 2])
def test_gradients_come_from_every_branch(branch):
    net = small_triplet_net().eval()
    pictures = torch.randn(3, 3, 64, 64, requires_grad=True)
    losses, _ = triplet_losses(*net(pictures), margin=2.0)
    losses.sum().backward()
    assert pictures.grad[branch].abs().sum() > 0


def test_the_loss_of_a_case_worked_out_by_hand():
    anchor = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    positive = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    negative = torch.tensor([[-1.0, 0.0], [-1.0, 0.0], [0.6, 0.8]])
    # Distances: sqrt(2) and 2; 0 and 2; sqrt(2) and sqrt(0.8).
    losses, right = triplet_losses(anchor, positive, negative, margin=0.7)
    expected = [math.sqrt(2) - 2 + 0.7, 0.0, math.sqrt(2) - math.sqrt(0.8) + 0.7]
    assert losses.tolist() == pytest.approx(expected, abs=1e-4)
    assert right.tolist() == [True, True, False]


def test_a_step_brings_the_positive_nearer_and_the_negative_farther():
    net = small_triplet_net().eval()
    pictures = torch.randn(12, 3, 64, 64)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)

    def measure() -> tuple[float, float, float]:
        anchor, positive, negative = net(pictures)
        losses, _ = triplet_losses(anchor, positive, negative, margin=2.0)
        loss = losses.mean()
        optimizer.zero_grad()
        loss.backward()
        return loss.item(), distances(anchor, positive).mean().item(), distances(anchor, negative).mean().item()

    before = measure()
    for _ in range(5):
        optimizer.step()
        after = measure()
    assert after[0] < before[0]
    assert after[2] - after[1] > before[2] - before[1]


def test_embeddings_have_length_one_and_distances_at_most_two():
    embeddings = embed(small_triplet_net().embedding.eval(), torch.randn(5, 3, 64, 64))
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(5))
    assert (distances(embeddings, -embeddings) - 2).abs().max() < 1e-4


def test_branches_have_the_length_that_was_set_and_none_leaves_it_alone():
    embedding = small_triplet_net().embedding.eval()
    pictures = torch.randn(3, 3, 64, 64)
    assert torch.allclose(Branch(embedding, 0.25)(pictures).norm(dim=1), torch.full((3,), 0.25))
    assert torch.equal(Branch(embedding, None)(pictures), embedding(pictures))


@pytest.mark.parametrize("active_only", [True, False])
def test_mining_in_the_batch_uses_every_valid_triplet_and_no_other(active_only):
    torch.manual_seed(3)
    embeddings = torch.nn.functional.normalize(torch.randn(12, 4), dim=1)
    label, other = (
        torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 0]),
        torch.tensor([0, 1, 1, 2, 0, 1, 2, 2, 0, 1, 0, -1]),
    )
    found, right = batch_losses(embeddings, label, other, 0.5, active_only)
    for a in range(12):
        known = other[a] >= 0
        positives = [
            p for p in range(12)
            if p != a and label[p] == label[a] and (not known or (other[p] >= 0 and other[p] != other[a]))
        ]  # fmt: skip
        negatives = [n for n in range(12) if label[n] != label[a] and (not known or other[n] == other[a])]
        triplets = [(p, n) for p in positives for n in negatives]
        rows = torch.tensor([(a, p, n) for p, n in triplets])
        losses, correct = triplet_losses(*embeddings[rows].unbind(dim=1), margin=0.5)
        counted = losses[losses > 0] if active_only else losses
        assert found[a].item() == pytest.approx(counted.mean().item() if len(counted) else 0.0, abs=1e-4)
        assert right[a].item() == pytest.approx(correct.float().mean().item())
