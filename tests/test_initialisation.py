"""First weights: thresholds spread over what training pictures show, and when they are refused."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from conftest import QUIET, run_main
from torch import Tensor, nn

import classification_net
from initialisation import SILENT, spread_thresholds
from networks import build_embedding
from utils import UserError


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    """Pictures of four flat colours each: float [16, 3, 64, 64]."""
    colours = torch.randn(16, 3, 2, 2, generator=torch.Generator().manual_seed(3))
    return nn.functional.interpolate(colours, size=64)


def fresh_alexnet(pictures: Tensor, seed: int = 0, arch: str = "alexnet") -> nn.Module:
    torch.manual_seed(seed)
    backbone = build_embedding(arch, 256, "none", 0.0, 64, "he").backbone
    spread_thresholds(backbone, pictures)
    return backbone


@pytest.mark.parametrize("arch", ["alexnet", "alexnet_bn"])
def test_colour_units_are_off_at_shares_of_the_places_from_few_to_nearly_all_and_none_is_dead(pictures, arch):
    seen, features = pictures, fresh_alexnet(pictures, arch=arch).features
    for layer, after in pairwise(features):
        seen = layer(seen)
        if isinstance(after, nn.ReLU):
            outputs = seen.transpose(0, 1).flatten(1)
            assert torch.allclose(outputs.std(dim=1), torch.ones(len(outputs)), atol=0.1)
            off = (outputs < 0).float().mean(dim=1)[: len(outputs) // 2]
            assert off.min() >= SILENT[0] - 0.05 and off.max() <= SILENT[1] + 0.05
            assert off.max() - off.min() > 0.4, "thresholds differ from unit to unit"


def test_the_first_filters_look_at_one_colour_each_or_at_none(pictures):
    first = fresh_alexnet(pictures).features[0]
    ranks = torch.linalg.matrix_rank(first.weight.flatten(2), rtol=1e-4).tolist()
    assert ranks == [1] * 32 + [3] * 32
    flat = torch.rand(8, 3, 1, 1).expand(-1, -1, 11, 11)
    answers = nn.functional.conv2d(flat, first.weight, first.bias)[:, :, 0, 0]
    assert (answers[:, 32:].abs() < 1e-4).all(), "where colour does not change, these say nothing"
    assert (answers[:, :32].std(dim=0) > 0.01).all()


def test_two_streams_begin_apart_and_that_of_colours_looks_at_the_middle_only(pictures):
    features = fresh_alexnet(pictures).features
    for layer in (features[3], features[6], features[8], features[10]):
        units, channels, middle = len(layer.weight) // 2, layer.weight.shape[1] // 2, layer.weight.shape[2] // 2
        wanted = torch.zeros_like(layer.weight, dtype=torch.bool)
        wanted[:units, :channels, middle, middle] = True
        wanted[units:, channels:] = True
        assert torch.equal(layer.weight != 0, wanted)


def test_the_streams_may_join_as_they_learn(pictures):
    backbone = fresh_alexnet(pictures)
    backbone(pictures).square().mean().backward()
    assert (backbone.features[3].weight.grad[:96, 32:] != 0).any() and (
        backbone.features[3].weight.grad[96:, :32] != 0
    ).any()


def test_a_fresh_net_does_not_mind_where_things_stand(pictures):
    first = next(layer for layer in fresh_alexnet(pictures).classifier if isinstance(layer, nn.Linear))
    maps = torch.rand(2, 256, 36)
    moved = maps[:, :, torch.randperm(36)]
    assert torch.allclose(first(maps.flatten(1)), first(moved.flatten(1)), atol=1e-5)


def test_first_weights_are_those_of_the_seed(pictures):
    one, same, other = (fresh_alexnet(pictures, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["features.0.weight"], other["features.0.weight"])


@pytest.mark.parametrize("options", [("--arch", "resnet18"), ("--weights", "imagenet")])
def test_thresholds_are_spread_only_in_an_alexnet_that_starts_from_nothing(collection, tmp_path, options):
    with pytest.raises(UserError, match="--init spread: is for an alexnet or alexnet_bn that starts from"):
        run_main(classification_net, "--data", collection, "--run", tmp_path / "run", "--init", "spread",
                 "--image-size", 64, *options, *QUIET)  # fmt: skip
    assert not (tmp_path / "run").exists(), "the corrected command can take the same folder"
