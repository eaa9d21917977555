"""The nets: a backbone, the bottleneck on it whose output is the embedding, and stage 1's classifier head.

    pictures -> backbone (AlexNet) -> bottleneck (256) -> embedding                     EmbeddingNet, in both stages
                                                          -> PReLU -> linear -> class scores     StyleClassifier, stage 1

The bottleneck on the backbone's 1000 outputs and the PReLU in the head are the public re-implementation's; the paper's
figure has GoogLeNet's layers and 128 dimensions: `--arch googlenet --embedding-dim 128`.
"""

from __future__ import annotations

import math
import pickle
import re
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from utils import WEIGHTS, UserError


class EmbeddingNet(nn.Module):
    """A backbone, which is any of torchvision's classifiers, and the bottleneck on its outputs."""

    def __init__(self, arch: str = "alexnet", embedding_dim: int = 256, dropout: float | None = None) -> None:
        super().__init__()
        others = (models.detection, models.optical_flow, models.segmentation, models.video)
        if arch.lower() not in set(models.list_models()).difference(*map(models.list_models, others)):
            raise UserError(f"--arch {arch}: torchvision has no such classifier")
        options = {}
        if arch.lower() in ("googlenet", "inception_v3"):
            # No auxiliary heads, and colours as these nets' ImageNet weights expect.
            options = {"aux_logits": False, "init_weights": True, "transform_input": True}
        self.backbone = models.get_model(arch, weights=None, **options)
        for layer in self.backbone.modules():
            if isinstance(layer, nn.Dropout) and dropout is not None:
                layer.p = dropout
        self.bottleneck = nn.Linear(1000, embedding_dim)

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures, float [n, 3, size, size], to embeddings, float [n, embedding_dim]."""
        return self.bottleneck(self.backbone(pictures))


class StyleClassifier(nn.Module):
    """Stage 1: class scores on top of the embedding."""

    def __init__(self, embedding: EmbeddingNet, classes: int) -> None:
        super().__init__()
        self.embedding = embedding
        self.head = nn.Sequential(nn.PReLU(), nn.Linear(embedding.bottleneck.out_features, classes))

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures, float [n, 3, size, size], to class scores before the softmax, float [n, classes]."""
        return self.head(self.embedding(pictures))


# First weights of an AlexNet that starts from nothing. Style is colour and texture, wherever they stand. A fresh net of
# random filters is poor at both, and what it learns of a few hundred pictures are their shapes.


@torch.no_grad()
def draw_he_weights(net: EmbeddingNet) -> None:
    """He et al.'s scale before a ReLU (ICCV 2015), 1 / sqrt(inputs) elsewhere: torchvision's own shrinks all signals."""
    for layer in net.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            before_relu = layer is not net.bottleneck and getattr(layer, "out_features", None) != 1000
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu" if before_relu else "linear")
            nn.init.zeros_(layer.bias)


@torch.no_grad()
def spread_thresholds(alexnet: nn.Module, pictures: Tensor) -> None:
    """Let an AlexNet with He's weights begin as a detector of colours and textures, wherever they stand.

    `pictures`, float [n, 3, size, size], are some that it will train on. The convolutions begin as two streams, as the
    halves of Krizhevsky et al.'s net came to be by themselves (NIPS 2012, section 6.1). The first half sees colours:
    filters of one random colour under a round window, further ones that look at the middle of their windows alone, and
    units that are each off at a random share of the places, so that together they tell narrow ranges of colours apart.
    The second half sees textures: random filters without their means. All outputs vary by one over the pictures (Mishkin
    and Matas, ICLR 2016), and the first linear layer weighs all places alike. All weights learn like any others.
    """
    first, *further = [layer for layer in alexnet.features if isinstance(layer, nn.Conv2d)]
    first.weight -= first.weight.mean(dim=(2, 3), keepdim=True)
    filters, channels, size, _ = first.weight[: len(first.weight) // 2].shape
    colours = nn.functional.normalize(torch.randn(filters, channels), dim=1)
    deviation = torch.empty(filters, 1).uniform_(0.5, 3.0)  # of the windows, in pixels
    window = torch.exp(-((torch.arange(size) - size // 2) ** 2) / (2 * deviation**2))
    first.weight[:filters] = torch.einsum("fc,fy,fx->fcyx", colours, window, window)
    for layer in further:
        units, channels, size, _ = layer.weight.shape
        seen = torch.zeros_like(layer.weight)
        seen[: units // 2, : channels // 2, size // 2, size // 2] = 1
        seen[units // 2 :, channels // 2 :] = 1
        layer.weight *= seen
    for layer, after in pairwise([*alexnet.features, nn.Identity()]):
        if isinstance(after, nn.ReLU):
            # Outputs get a deviation of one; of the first half of units each is off at a share of the places.
            outputs = layer(pictures).transpose(0, 1).flatten(1)
            outputs = outputs[:, torch.randperm(outputs.shape[1])[:20_000]]
            deviation, half = outputs.std(dim=1).clamp(min=1e-3), len(outputs) // 2
            layer.weight /= deviation.view(-1, 1, 1, 1)
            order = (outputs / deviation[:, None])[:half].sort(dim=1).values
            off = torch.empty(half, 1).uniform_(0.3, 0.98)
            layer.bias[:half] = -order.gather(1, (off * (order.shape[1] - 1)).long())[:, 0]
        pictures = layer(pictures)
    layer = next(layer for layer in alexnet.classifier if isinstance(layer, nn.Linear))
    channels, places = pictures.shape[1], layer.in_features // pictures.shape[1]
    weights = torch.randn(layer.out_features, channels, 1) * math.sqrt(2 / channels) / places
    layer.weight.copy_(weights.expand(-1, -1, places).flatten(1))


# Weights from elsewhere.


def load_weights(net: EmbeddingNet, weights: str, arch: str) -> None:
    """Fill a net with --weights: "imagenet", which torchvision downloads, or a file or run folder.

    A file is a torchvision state dict (of the backbone), a run's weights.pt, or a checkpoint of the public
    re-implementation. Raises `UserError` for weights that cannot be had or do not fit.
    """
    if weights == "imagenet":
        source = models.get_model_weights(arch).DEFAULT
        try:
            state = source.get_state_dict(progress=True, check_hash=True)
        except OSError as error:
            raise UserError(f"--weights imagenet: {error}; or give {source.url} as a file") from error
    else:
        state = load_file(Path(weights) / WEIGHTS if Path(weights).is_dir() else Path(weights))
        wrapped = (state.get(name) for name in ("embedding", "state_dict", "model"))
        state = next((inner for inner in wrapped if isinstance(inner, dict)), state)
    # DataParallel and others put "module." or the like before all names; the re-implementation's backbone is "convnet".
    before = r"^(\w+\.)*?(?=(convnet|backbone|bottleneck)\.)|^((module|model|_orig_mod)\.)+"
    state = {re.sub(before, "", name): value for name, value in state.items()}
    state = {re.sub(r"^convnet\.", "backbone.", name): value for name, value in state.items()}
    if not any(name.startswith("backbone.") for name in state):
        state = {f"backbone.{name}": value for name, value in state.items()}
    state = {name: value for name, value in state.items() if not name.lower().startswith("backbone.aux")}
    own = net.state_dict()
    # What files may lack: a bottleneck, and counters that are newer than they are. What they may have more: a head.
    lacking = {name: value for name, value in own.items() if name.startswith("bottleneck.") or name.endswith("tracked")}
    there = {name: value for name, value in state.items() if name in own or name.startswith("backbone.")}
    try:
        net.load_state_dict(lacking | there)
    except RuntimeError as error:
        raise UserError(f"--weights {weights}: does not fit --arch and --embedding-dim: {str(error)[:300]}") from error
    print(f"weights: {sum(name in state for name in own)} of {len(own)} tensors come from {weights}")


def load_file(path: Path) -> dict[str, Any]:
    """Read a dictionary that torch.save wrote, on the CPU, running nothing in it. Raises `UserError` for other files."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        if getattr(error, "filename", None):  # it is not there, or no file
            raise
        raise UserError(f"{path}: is damaged, or no file of weights ({type(error).__name__}); take another") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no weights; take another file")
    return content


def load_net(run: Path | str) -> tuple[dict[str, Any], EmbeddingNet, nn.Module | None]:
    """The net of a run, on the CPU, to be used: its facts, the embedding net, and stage 1's head, or None.

    The facts are plain data: stage, arch, embedding_dim, dropout, image_size, colours, label, classes, epoch. Raises `UserError`.
    """
    file = Path(run) / WEIGHTS
    if not file.exists():
        train = f"has no {WEIGHTS}; first train it, by python classification_net.py --data DIR, then python train.py"
        raise UserError(f"{run}: {'is a file; give the folder of a run' if Path(run).is_file() else train}")
    facts = load_file(file)
    weights, head = facts.pop("embedding"), facts.pop("head", None)
    net = StyleClassifier(EmbeddingNet(facts["arch"], facts["embedding_dim"], facts["dropout"]), len(facts["classes"]))
    net.embedding.load_state_dict(weights)
    if head:
        net.head.load_state_dict(head)
    net.to(memory_format=torch.channels_last).eval()
    return facts, net.embedding, net.head if head else None
