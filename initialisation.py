"""First weights of nets that start from nothing.

Style is colour and texture, wherever they stand. A fresh net of random filters is poor at both: all its units switch at
the same middle grey, and its filters mix places before they have told colours apart. What it then learns of a few
hundred pictures are their shapes. `spread_thresholds` lets AlexNet begin with what style is made of instead.
"""

from __future__ import annotations

import math
from collections.abc import Collection

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
    """Let an AlexNet begin as detectors of colour and texture, wherever these stand; shapes it learns if they help.

    The net has `initialise`'s weights and lies on the CPU, as do `pictures`, float [n, 3, size, size], some of those
    that it is to learn from. Then

    - half of the first layer's filters look at one random direction of colour each, through a round window; the others
      stay random, but for their means: they see no colour, only how it changes;
    - further convolutions look at the middle of their windows only (as delta-orthogonal ones do: Xiao et al., ICML
      2018), and so hand on what was seen there;
    - each other unit of a convolution is off at a random share of the places in `pictures`, few to nearly all, and
      its outputs there vary by one (data-dependent, as in Mishkin and Matas, ICLR 2016): the thresholds of a layer lie
      spread over what it sees, and together its units tell narrow ranges of colours apart;
    - the first linear layer weighs all places alike.

    Draws from the global generator.
    """
    first, *further = [layer for layer in alexnet.features if isinstance(layer, nn.Conv2d)]
    look_at_colours_and_changes(first)
    for layer in further:
        look_at_the_middle(layer)
    seen = pictures
    for layer in alexnet.features:
        if isinstance(layer, nn.Conv2d):
            set_thresholds(layer, seen, len(layer.weight) // 2 if layer is first else len(layer.weight))
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


def look_at_the_middle(layer: nn.Conv2d) -> None:
    """Let a convolution start with weights in the middle of its window only, at He's scale for so many inputs."""
    units, channels, size, _ = layer.weight.shape
    layer.weight.zero_()
    layer.weight[:, :, size // 2, size // 2] = torch.randn(units, channels) * math.sqrt(2 / channels)


def set_thresholds(layer: nn.Conv2d, seen: Tensor, count: int) -> None:
    """Give a convolution's outputs a deviation of one, and its first `count` units random thresholds.

    Both on what the layer sees, float [n, channels, y, x].
    """
    outputs = layer(seen).transpose(0, 1).flatten(1)
    outputs = outputs[:, torch.randperm(outputs.shape[1])[:PLACES]]
    deviation = outputs.std(dim=1).clamp(min=1e-3)  # of a unit that nothing reaches it is none
    order = (outputs / deviation[:, None]).sort(dim=1).values
    silent = torch.empty(len(order), 1).uniform_(*SILENT)
    thresholds = order.gather(1, (silent * (order.shape[1] - 1)).long())[:, 0]
    layer.weight.div_(deviation[:, None, None, None])
    layer.bias[:count] = -thresholds[:count]


def weigh_places_alike(classifier: nn.Sequential, channels: int) -> None:
    """Make the first linear layer of a classifier on [channels, y, x] a mean over the places, at He's scale."""
    layer = next(layer for layer in classifier if isinstance(layer, nn.Linear))
    places = layer.in_features // channels
    weights = torch.randn(layer.out_features, channels, 1) * math.sqrt(2 / channels) / places
    layer.weight.copy_(weights.expand(-1, -1, places).flatten(1))
