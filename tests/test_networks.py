"""The nets, their first weights, and weights that come from files."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from classification_net import adam_groups
from networks import EmbeddingNet, StyleClassifier, draw_he_weights, load_net, load_weights, spread_thresholds
from utils import UserError


def test_the_papers_128_numbers_come_from_googlenet():
    with torch.no_grad():
        embeddings = EmbeddingNet("googlenet", 128)(torch.randn(2, 3, 64, 64))
    assert embeddings.shape == (2, 128) and embeddings.isfinite().all() and (embeddings[0] != embeddings[1]).any()


def test_wide_layers_get_a_share_of_adams_rate_by_their_inputs():
    net = nn.Sequential(nn.Conv2d(3, 8, 5), nn.Linear(1024, 10), nn.Linear(256, 10))
    share_of = {id(weight): group["share"] for group in adam_groups(net, 256) for weight in group["params"]}
    assert [share_of[id(layer.weight)] for layer in net] == [1, 0.25, 1]
    assert {share_of[id(layer.bias)] for layer in net} == {1} and len(share_of) == 6
    assert [group["share"] for group in adam_groups(net, None)] == [1]


# First weights.


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    """Pictures of four flat colours each: float [16, 3, 64, 64]."""
    colours = torch.randn(16, 3, 2, 2, generator=torch.Generator().manual_seed(3))
    return nn.functional.interpolate(colours, size=64)


@pytest.fixture(scope="module")
def net(pictures) -> EmbeddingNet:
    torch.manual_seed(0)
    net = EmbeddingNet(dropout=0.0)
    draw_he_weights(net)
    spread_thresholds(net.backbone, pictures)
    return net


def test_the_default_net_is_alexnet_with_a_bottleneck_of_256_and_the_public_codes_head(net):
    assert type(net.backbone).__name__ == "AlexNet" and net.bottleneck.weight.shape == (256, 1000)
    assert sum(part.numel() for part in net.parameters()) == 61_357_096, "as many as the public code's"
    assert [type(layer).__name__ for layer in StyleClassifier(net, 11).head] == ["PReLU", "Linear"]


@torch.no_grad()
def test_colour_units_are_off_at_shares_of_the_places_from_few_to_nearly_all(pictures, net):
    for layer, after in pairwise(net.backbone.features):
        pictures = layer(pictures)
        if isinstance(after, nn.ReLU):
            outputs = pictures.transpose(0, 1).flatten(1)
            assert torch.allclose(outputs.std(dim=1), torch.ones(len(outputs)), atol=0.1)
            off = (outputs < 0).float().mean(dim=1)[: len(outputs) // 2]
            assert off.min() >= 0.25 and off.max() < 1 and off.max() - off.min() > 0.4


def test_two_streams_begin_apart_colours_at_the_middle_and_textures_without_colours(net):
    first, *further = (layer for layer in net.backbone.features if isinstance(layer, nn.Conv2d))
    assert torch.linalg.matrix_rank(first.weight.flatten(2), rtol=1e-4).tolist() == [1] * 32 + [3] * 32
    assert first.weight[32:].sum(dim=(2, 3)).abs().max() < 1e-4, "where colour does not change, these say nothing"
    for layer in further:
        units, channels, middle = len(layer.weight) // 2, layer.weight.shape[1] // 2, layer.weight.shape[2] // 2
        wanted = torch.zeros_like(layer.weight, dtype=torch.bool)
        wanted[:units, :channels, middle, middle] = True
        wanted[units:, channels:] = True
        assert torch.equal(layer.weight != 0, wanted)


# Weights from elsewhere.


KINDS = ["torchvision", "DataParallel", "Lightning", "run", "run folder", "re-implementation", "its triplet net", "old"]


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_taken_from_the_files_that_people_have(kind, tmp_path: Path):
    source, net, file = EmbeddingNet("tiny", 16), EmbeddingNet("tiny", 16), tmp_path / "weights.pt"
    backbone = source.backbone.state_dict()
    renamed = {f"module.{name.replace('backbone', 'convnet')}": value for name, value in source.state_dict().items()}
    content = {
        "torchvision": {**backbone, "aux1.fc.weight": torch.zeros(3), "AuxLogits.fc.weight": torch.zeros(3)},
        "DataParallel": {f"module.{name}": value for name, value in backbone.items()},
        "Lightning": {"epoch": 3, "state_dict": {f"model._orig_mod.{name}": value for name, value in backbone.items()}},
        "run": {"stage": 1, "embedding": source.state_dict(), "head": {}},
        "run folder": {"stage": 2, "embedding": source.state_dict()},
        "re-implementation": {"epoch": 3, "state_dict": {**renamed, "module.fc.0.weight": torch.zeros(1)}},
        "its triplet net": {name.replace("module", "module.embeddingnet"): value for name, value in renamed.items()},
        "old": {name: value for name, value in backbone.items() if "tracked" not in name},
    }[kind]
    torch.save(content, file)
    load_weights(net, str(tmp_path if "folder" in kind else file), "tiny")
    assert all(map(torch.equal, net.backbone.parameters(), source.backbone.parameters()))
    same = torch.equal(net.bottleneck.weight, source.bottleneck.weight)
    assert same == (kind in ("run", "run folder", "re-implementation", "its triplet net"))


@pytest.mark.parametrize("content", [{"0.weight": torch.zeros(3)}, {"a": 1}, {}, [1, 2]])
def test_weights_that_do_not_fit_are_refused_in_a_line_that_names_the_file(content, tmp_path):
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(UserError, match=r"weights\.pt: (does not fit --arch|holds no weights)"):
        load_weights(EmbeddingNet("tiny", 16), str(tmp_path / "weights.pt"), "tiny")


def test_imagenets_weights_without_internet_say_where_they_are(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # the discard port: nothing answers
    with pytest.raises(UserError, match=r"--weights imagenet: .*https://download\.pytorch\.org/\S*squeezenet1_1"):
        load_weights(EmbeddingNet("squeezenet1_1", 16), "imagenet", "squeezenet1_1")


def test_a_file_that_is_damaged_or_would_run_something_is_refused(tmp_path):
    file = tmp_path / "weights.pt"
    torch.save({"embedding": print}, file)  # any function would do
    for content in (file.read_bytes(), file.read_bytes()[:300], b"", b"no weights"):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"weights\.pt: is damaged, or no file of weights"):
            load_net(tmp_path)
