"""The nets: a backbone, the bottleneck on it whose output is the embedding, and stage 1's classifier head.

    pictures -> backbone (AlexNet) -> bottleneck (256) -> embedding         EmbeddingNet, what both stages train
                                                          -> PReLU -> linear -> class scores    StyleClassifier, stage 1

To change the backbone, add a line to `BACKBONES`: any net that turns pictures into 1000 numbers will do.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor, nn

from initialisation import initialise
from utils import UserError

# Mean and deviation by which colours in [0, 1] are centred: ImageNet's, which torchvision's weights expect (for nets
# that start from nothing any centring will do), or none at all.
COLOURS = {
    "centred": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


def alexnet_bn(**options: Any) -> nn.Module:
    """AlexNet with batch normalisation after each convolution: no part of the method, an option to compare with."""
    net = torchvision.models.alexnet(**options)
    layers: list[nn.Module] = []
    for layer in net.features:
        layers.append(layer)
        if isinstance(layer, nn.Conv2d):
            layers.append(nn.BatchNorm2d(layer.out_channels))
    net.features = nn.Sequential(*layers)
    return net


# Name of --arch: what makes the net, with 1000 outputs as on ImageNet.
BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "alexnet": torchvision.models.alexnet,
    "alexnet_bn": alexnet_bn,
    "googlenet": partial(torchvision.models.googlenet, aux_logits=False, init_weights=False, transform_input=True),
    "resnet18": torchvision.models.resnet18,
    "resnet50": torchvision.models.resnet50,
    "vgg16": torchvision.models.vgg16,
}
# Those that take a share of dropout in their classifier.
HAVE_DROPOUT = ("alexnet", "alexnet_bn", "googlenet", "vgg16")
BACKBONE_OUTPUTS = 1000


MAX_EMBEDDING_DIM, MAX_CLASSES = 2**14, 2**16  # that a checkpoint may claim


class EmbeddingNet(nn.Module):
    """A backbone and the bottleneck on its outputs: the net that stage 1 pre-trains and stage 2's branches share."""

    def __init__(self, arch: str, embedding_dim: int = 256, dropout: float = 0.0) -> None:
        super().__init__()
        options = {"dropout": dropout} if arch in HAVE_DROPOUT else {}
        self.backbone = BACKBONES[arch](**options)
        self.bottleneck = nn.Linear(BACKBONE_OUTPUTS, embedding_dim)

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures, float [n, 3, size, size] with centred colours, to embeddings, float [n, embedding_dim]."""
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


def rebuild(checkpoint: dict[str, Any], where: str) -> tuple[EmbeddingNet, StyleClassifier | None]:
    """Rebuild the embedding net of a `best.pt`, and stage 1's classifier if it is one, on the CPU.

    The net is made without memory of its own, compared with the weights in the file, and only then filled.
    Raises `UserError` for a checkpoint that does not describe a net of this project or does not fit it.
    """
    arch, width, dropout = (checkpoint.get(name) for name in ("arch", "embedding_dim", "dropout"))
    classes, weights, stage = (checkpoint.get(name) for name in ("classes", "weights", "stage"))
    if (
        not (type(stage) is int and stage in (1, 2))
        or not (isinstance(arch, str) and arch in BACKBONES)
        or not (type(width) is int and 0 < width <= MAX_EMBEDDING_DIM)
        or not (type(dropout) is float and 0 <= dropout < 1)
        or not (isinstance(classes, list) and len(classes) <= MAX_CLASSES)
    ):
        raise UserError(f"{where}: does not say which net it holds; is it a best.pt of this project?")
    with torch.device("meta"):
        classifier = StyleClassifier(EmbeddingNet(arch, width, dropout), len(classes))
        stage2 = nn.ModuleDict({"embedding": classifier.embedding})
    net = classifier if stage == 1 else stage2
    check_weights(net, weights, where)
    net.load_state_dict({name: value.clone() for name, value in weights.items()}, assign=True)
    embedding = classifier.embedding.eval().requires_grad_(False)
    return embedding, classifier.eval() if stage == 1 else None


def check_weights(module: nn.Module, state: Any, where: str) -> None:
    """Compare a state dict's names, shapes and types with a net's, which may lie on the meta device.

    So nothing is allocated for a file that does not fit. Raises `UserError`.
    """
    if not isinstance(state, dict) or not all(is_plain(value) for value in state.values()):
        raise UserError(f"{where}: holds no weights")
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if found != expected:
        odd = min((name for name in expected | found if expected.get(name) != found.get(name)), key=str)
        raise UserError(
            f"{where}: does not fit the net, first at {odd} (net {expected.get(odd)}, file {found.get(odd)}); was it "
            f"trained with another --arch or --embedding-dim?"
        )
    for name, value in module.state_dict().items():
        if state[name].dtype != value.dtype or not bool(state[name].isfinite().all()):
            wrong = "holds values that are not finite" if state[name].dtype == value.dtype else str(state[name].dtype)
            raise UserError(f"{where}: {name} is {wrong}; the net needs finite {value.dtype}; take another checkpoint")


def is_plain(value: Any) -> bool:
    """Whether something is a tensor whose values all lie in the file: one number may pose as a huge tensor."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and value.untyped_storage().nbytes() >= value.numel() * value.element_size()
    )


def build_embedding(
    arch: str, embedding_dim: int, weights: str, dropout: float, image_size: int, init: str = "he"
) -> EmbeddingNet:
    """Make a fresh embedding net for stage 1, its backbone with `weights`: none, imagenet, or a file.

    `init` is how weights that come from nowhere are drawn: "he" (`initialise`) or "torchvision". Raises `UserError`
    for pictures too small for the backbone and for weights that cannot be had or do not fit.
    """
    check_image_size(arch, image_size)
    net = EmbeddingNet(arch, embedding_dim, dropout)
    if init == "he":
        outputs = [layer for layer in net.modules() if getattr(layer, "out_features", None) == BACKBONE_OUTPUTS]
        initialise(net, straight=[net.bottleneck, *outputs])
    if weights == "imagenet":
        net.backbone.load_state_dict(download_imagenet(arch))
    elif weights != "none":
        load_backbone(net, Path(weights))
    return net


def check_image_size(arch: str, image_size: int) -> None:
    """Try a picture's shape on a net without memory. Raises `UserError` if it is too small for the backbone."""
    with torch.device("meta"):
        net = EmbeddingNet(arch).eval()
        try:
            net(torch.empty(1, 3, image_size, image_size))
        except RuntimeError as error:
            raise UserError(f"--image-size {image_size}: is too small for {arch}; try 96 or more") from error


def download_imagenet(arch: str) -> dict[str, Tensor]:
    """Have torchvision download its ImageNet weights of a backbone, or take them from its cache.

    Raises `UserError` where torchvision has none, or the download fails.
    """
    if arch not in torchvision.models.list_models():
        raise UserError(f"--weights imagenet: there are none for {arch}; use --weights none or another --arch")
    weights = torchvision.models.get_model_weights(arch).DEFAULT
    try:
        state = weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise UserError(
            f"--weights imagenet: {weights.url} could not be downloaded ({error}); without internet, fetch it on "
            f"another machine and put it into {folder}"
        ) from error
    return {name: value for name, value in state.items() if not name.startswith("aux")}


def load_backbone(net: EmbeddingNet, path: Path) -> None:
    """Load a backbone's weights from a file: a torchvision state dict, or a run's `best.pt` (then the bottleneck too)."""
    state = load_safely(path)
    if "weights" in state:
        source, _ = rebuild(state, str(path))
        check_weights(net, source.state_dict(), str(path))
        net.load_state_dict(source.state_dict())
        return
    # torchvision's files have the heads that only training needs, and lack counters that are newer than they are.
    counters = {name: value for name, value in net.backbone.state_dict().items() if name.endswith("batches_tracked")}
    state = counters | {name: value for name, value in state.items() if not str(name).startswith("aux")}
    check_weights(net.backbone, state, str(path))
    net.backbone.load_state_dict(state)


def load_safely(path: Path) -> dict[str, Any]:
    """Read a file of tensors and plain data without running any code that it may hold, memory-mapped on the CPU.

    Nothing larger than the file is taken from memory. Raises `UserError` for a file that is missing, damaged or unsafe.
    """
    try:
        check_uncompressed(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; train it first, or correct the path") from error
    except Exception as error:
        # torch.load raises all kinds of things for damaged and foreign files; its texts are long and advise unsafe
        # loading.
        raise UserError(
            f"{path}: is damaged, or no file of weights as torch.save writes them since torch 1.6 "
            f"({type(error).__name__}); take another, save an old one anew, or train it anew"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no weights; is it a checkpoint of something else?")
    return content


def check_uncompressed(path: Path) -> None:
    """See that a checkpoint's parts lie in it as they are, as torch writes them; compressed, a few bytes hold a flood.

    Raises `OSError` or `zipfile.BadZipFile`.
    """
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise zipfile.BadZipFile("compressed")
    if sum(part.file_size for part in parts) > path.stat().st_size:
        raise zipfile.BadZipFile("parts overlap")


def rate_shares(net: nn.Module, width: int) -> list[dict[str, Any]]:
    """Parameter groups for Adam in which layers with more than `width` inputs learn proportionally slower.

    Adam moves every weight by about the learning rate in each step whatever its gradient, so what a layer's output
    moves grows with the number of its inputs: at one rate for all, AlexNet's 9216-input layer is thrown about while
    its head hardly moves. A `width` of 0 gives every layer the same rate.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in net.parameters():
        inputs = parameter[0].numel() if parameter.dim() > 1 else 1
        groups.setdefault(min(1.0, width / inputs) if width else 1.0, []).append(parameter)
    return [{"params": parameters, "share": part} for part, parameters in groups.items()]
