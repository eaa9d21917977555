"""What makes it fast changes nothing: one forward pass for three, mixed precision where it is native, a compiled net."""

from __future__ import annotations

import shutil

import pytest
import torch
from conftest import QUIET, run_main
from running import TINY, tiny

import classification_net
import networks
import utils
from networks import build_embedding
from training import INTERVAL, Loop
from triplet_network import Branch, TripletNet, triplet_losses
from utils import UserError, choose_precision


def test_one_forward_pass_gives_the_gradients_of_three():
    torch.manual_seed(0)
    embedding = build_embedding("alexnet", 256, "none", 0.0, 64)
    one, branch = TripletNet(embedding, 0.25), Branch(embedding, 0.25)
    pictures = torch.randn(5, 3, 3, 64, 64)  # triplet, place in it, channel, height, width
    losses, right = triplet_losses(*one(pictures.flatten(0, 1)), 0.2)
    losses.mean().backward()
    gradients = {name: parameter.grad.clone() for name, parameter in embedding.named_parameters()}
    embedding.zero_grad()
    others, right_too = triplet_losses(*(branch(pictures[:, place]) for place in range(3)), 0.2)
    others.mean().backward()
    assert losses.min() > 0 and torch.allclose(losses, others, atol=1e-5) and torch.equal(right, right_too)
    for name, parameter in embedding.named_parameters():
        assert parameter.grad.norm() > 0
        assert (parameter.grad - gradients[name]).norm() < 1e-3 * parameter.grad.norm(), name


def test_bfloat16_is_chosen_on_a_cpu_only_where_it_is_native(monkeypatch):
    cpu = torch.device("cpu")
    for native, chosen in ((True, torch.bfloat16), (False, None)):
        monkeypatch.setattr(utils, "processor_has_matrix_bfloat16", lambda native=native: native)
        assert choose_precision("auto", cpu) is chosen
    assert choose_precision("off", cpu) is None and choose_precision("bf16", cpu) is torch.bfloat16
    with pytest.raises(UserError, match="needs a CUDA device"):
        choose_precision("fp16", cpu)


@pytest.mark.parametrize(
    ("capability", "chosen"), [(9, torch.bfloat16), (8, torch.bfloat16), (7, torch.float16), (6, None)]
)
def test_gpus_get_what_they_have(monkeypatch, capability, chosen):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (capability, 0))
    assert choose_precision("auto", torch.device("cuda", 0)) is chosen


def test_losses_are_read_once_an_interval(collection, tmp_path, monkeypatch):
    monkeypatch.setitem(networks.BACKBONES, "tiny", tiny)
    read, look = [], Loop.look

    def count(self, batches, recent, *others):
        read.append(len(recent))
        return look(self, batches, recent, *others)

    monkeypatch.setattr(Loop, "look", count)
    run_main(classification_net, "--data", collection, "--run", tmp_path / "run", "--epochs", 1, *TINY, *QUIET)
    assert sum(read) > INTERVAL and set(read[:-1]) == {INTERVAL} and 0 < read[-1] <= INTERVAL


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="needs a C++ compiler")
def test_a_compiled_net_is_saved_as_the_plain_one(collection, tmp_path, monkeypatch):
    monkeypatch.setitem(networks.BACKBONES, "tiny", tiny)
    weights = []
    for extra in ((), ("--compile",)):
        run = tmp_path / f"run{len(extra)}"
        run_main(
            classification_net, "--data", collection, "--run", run, "--epochs", 2, "--dropout", 0, *extra, *TINY, *QUIET
        )
        weights.append(torch.load(run / "best.pt", weights_only=True)["weights"])
    assert weights[0].keys() == weights[1].keys()
