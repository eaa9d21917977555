"""First weights of nets that start from nothing.

Style is colour and texture, wherever they stand. A fresh net of random filters is poor at both: all its units switch at
the same middle grey, and its filters mix places before they have told colours apart. What it then learns of a few
hundred pictures are their shapes. `spread_thresholds` lets AlexNet begin with what style is made of instead.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from itertools import pairwise

import torch
from torch import Tensor, nn

BLUR = (0.5, 3.0)  # deviation of the colour filters' windows, in pixels, from and to
SILENT = (0.3, 0.98)  # share of the places at which a fresh unit is off, from and to
PLACES = 20_000  # in the pictures, on which a unit's threshold is measured
PICTURES = 128  # of the training split, that these places are in


def initialise(net: nn.Module, straight: Collection[nn.Module]) -> None:
    """Draw weights so that signals keep their scale from layer to layer, biases zero.

    He et al.'s scale before a ReLU (ICCV 2015), 1 / sqrt(inputs) in the layers of `straight`, after which none comes.
    torchvision's own initialisation shrinks AlexNet's signals by a thousand.
    """
    for layer in net.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear" if layer in straight else "relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


@torch.no_grad()
def spread_thresholds(alexnet: nn.Module, pictures: Tensor) -> None:
    """Let an AlexNet begin as a detector of colours and of textures, wherever these stand.

    The net (`alexnet` or `alexnet_bn`) has `initialise`'s weights and lies on the CPU, as do `pictures`, float
    [n, 3, size, size], some of those that it is to learn from. Its convolutions begin as two streams, as the two
    halves of Krizhevsky et al.'s net (NIPS 2012, section 6.1) came to be by themselves, one for colour, one for the
    rest. Each unit sees its own half of the layer below; weights between the streams begin at zero and learn like all
    others. In the first half, for colours,

    - the first filters look at one random direction of colour each, through a round window; further ones look at the
      middle of their windows only (as delta-orthogonal ones do: Xiao et al., ICML 2018), and so hand on what was seen
      there;
    - each unit is off at a random share of the places in `pictures`, few to nearly all: the thresholds of a layer lie
      spread over what it sees, and together its units tell narrow ranges of colours apart.

    In the second, for textures, weights stay random and thresholds zero, but the first filters lose their means: they
    see no colour, only how it changes. All units' outputs vary by one over the pictures (data-dependent, as in Mishkin
    and Matas, ICLR 2016), and the first linear layer weighs all places alike. Draws from the global generator.
    """
    first, *further = [layer for layer in alexnet.features if isinstance(layer, nn.Conv2d)]
    look_at_colours_and_changes(first)
    for layer in further:
        separate_streams(layer)
    before_relus = [layer for layer, after in pairwise(alexnet.features) if isinstance(after, nn.ReLU)]
    seen = pictures
    for layer in alexnet.features:
        if layer in before_relus:
            set_thresholds(layer, seen)
        seen = layer(seen)
    weigh_places_alike(alexnet.classifier, seen.shape[1])


def look_at_colours_and_changes(layer: nn.Conv2d) -> None:
    """Make half of a convolution's filters directions of colour under Gaussian windows, and take the others' means."""
    layer.weight -= layer.weight.mean(dim=(2, 3), keepdim=True)
    filters, channels, size, _ = layer.weight[: len(layer.weight) // 2].shape
    colours = nn.functional.normalize(torch.randn(filters, channels), dim=1)
    deviation = torch.empty(filters, 1).uniform_(*BLUR)
    window = torch.exp(-((torch.arange(size) - size // 2) ** 2) / (2 * deviation**2))
    layer.weight[:filters] = torch.einsum("fc,fy,fx->fcyx", colours, window, window)


def separate_streams(layer: nn.Conv2d) -> None:
    """Let each half of a convolution see its own half of the inputs, the first only in the middle of its window."""
    units, channels, size, _ = layer.weight.shape
    seen = torch.zeros_like(layer.weight)
    seen[: units // 2, : channels // 2, size // 2, size // 2] = 1
    seen[units // 2 :, channels // 2 :] = 1
    layer.weight *= seen


def set_thresholds(layer: nn.Conv2d | nn.BatchNorm2d, seen: Tensor) -> None:
    """Give a layer's outputs a deviation of one, and its first half of units random thresholds.

    Both on what the layer sees, float [n, channels, y, x].
    """
    outputs = layer(seen).transpose(0, 1).flatten(1)
    outputs = outputs[:, torch.randperm(outputs.shape[1])[:PLACES]]
    deviation = outputs.std(dim=1).clamp(min=1e-3)  # of a unit that nothing reaches it is none
    layer.weight /= deviation.view(-1, *[1] * (layer.weight.dim() - 1))
    half = len(outputs) // 2
    order = (outputs / deviation[:, None])[:half].sort(dim=1).values
    silent = torch.empty(half, 1).uniform_(*SILENT)
    layer.bias[:half] = -order.gather(1, (silent * (order.shape[1] - 1)).long())[:, 0]


def weigh_places_alike(classifier: nn.Sequential, channels: int) -> None:
    """Make the first linear layer of a classifier on [channels, y, x] a mean over the places, at He's scale."""
    layer = next(layer for layer in classifier if isinstance(layer, nn.Linear))
    places = layer.in_features // channels
    weights = torch.randn(layer.out_features, channels, 1) * math.sqrt(2 / channels) / places
    layer.weight.copy_(weights.expand(-1, -1, places).flatten(1))
