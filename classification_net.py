"""Stage 1: a softmax classifier over the styles, whose bottleneck becomes the embedding that stage 2 starts from.

    python classification_net.py --data DIR                       # writes runs/stage1
    python classification_net.py --data DIR --resume              # goes on with it after it was stopped
    python classification_net.py --data DIR --label content --run runs/content1     # the content pipeline
    torchrun --nproc_per_node=8 -- classification_net.py --data DIR  # on eight GPUs

AlexNet -> 256-d bottleneck -> softmax, categorical cross-entropy, Adam at 0.001, 30 epochs: the pre-training of the
style half of "Sketching with Style" (Collomosse et al., ICCV 2017). Then run `train.py`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor
from torch.nn import functional

from dataset import Collection, classes_of
from initialisation import PICTURES, spread_thresholds
from networks import (
    BACKBONES,
    COLOURS,
    HAVE_DROPOUT,
    MAX_EMBEDDING_DIM,
    EmbeddingNet,
    StyleClassifier,
    build_embedding,
    rate_shares,
)
from run_folder import BEST, settle_options
from session import Session, get_stage_parser, open_session, positive_integer, share_below_one, whole_number
from training import Progress, Task, predict, split_evenly, train
from utils import UserError, derive_seed, run_script

COLUMNS = (
    "epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "images_per_second", "seconds",
)  # fmt: skip
SMALL = 300  # pictures a class under which a net from nothing learns poorly


def get_parser() -> argparse.ArgumentParser:
    """The options of stage 1."""
    parser = get_stage_parser(__doc__, run="runs/stage1", epochs=30)
    net = parser.add_argument_group("net")
    net.add_argument(
        "--label", choices=("style", "content"), default="style", help="what the classes are; default %(default)s"
    )
    net.add_argument(
        "--arch", choices=tuple(BACKBONES), default="alexnet", help="the backbone; default %(default)s, as published"
    )
    net.add_argument("--embedding-dim", type=embedding_width, default=256, metavar="D", help="default %(default)s; the "
                     "paper has 128 and saw little difference")  # fmt: skip
    net.add_argument(
        "--rate-width", type=whole_number, default=256, metavar="INPUTS",
        help="layers with more inputs than this learn proportionally slower than --lr; default %(default)s. 0: all at "
        "--lr, at which AlexNet's wide layers learn badly from nothing",
    )  # fmt: skip
    net.add_argument(
        "--init", choices=("auto", "spread", "he", "torchvision"), default="auto",
        help="how weights are drawn that start from nothing. spread: thresholds spread over what training pictures "
        "show, for alexnet and alexnet_bn; he: at He's scale. Default auto: spread where it can be, else he",
    )  # fmt: skip
    net.add_argument(
        "--colours", choices=tuple(COLOURS), default="centred",
        help="colours centred and scaled (default), or from 0 to 1 as they are",
    )  # fmt: skip
    net.add_argument(
        "--dropout",
        type=share_below_one,
        default=0.0,
        metavar="P",
        help="in the backbone's classifier, if it has any there (resnets do not); default %(default)s",
    )
    net.add_argument("--weights", default="none", metavar="none|imagenet|FILE", help="what the backbone starts from: "
                     "nothing (default), ImageNet's weights, which torchvision downloads, or a file of weights")  # fmt: skip
    net.add_argument("--image-size", type=positive_integer, default=224, metavar="PIXELS", help="side of what the net "
                     "sees; default %(default)s. 96 is five times faster on a CPU")  # fmt: skip
    return parser


def main(args: argparse.Namespace) -> None:
    """Train the classifier; leave everything in `args.run`."""
    args = settle_options(args, get_parser())
    wants_spread(args)  # refuses before there is a run
    if args.dropout and args.arch not in HAVE_DROPOUT:
        raise UserError(f"--dropout: {args.arch} has no place for it; leave it out, or choose another --arch")
    with open_session(
        args, stage=1, label=args.label, image_size=args.image_size, colours=COLOURS[args.colours], columns=COLUMNS
    ) as session:
        classes, number = classes_of(session.collection, args.label)
        warn_if_small(session.collection, number, args)

        torch.manual_seed(derive_seed(args.seed, "weights"))
        embedding = start_embedding(args, session)
        net = StyleClassifier(embedding, len(classes)).to(session.device, memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(rate_shares(net, args.rate_width), lr=args.lr, fused=True)

        target = torch.from_numpy(number).to(session.device)
        train_rows, val_rows = (rows[number[rows] >= 0] for rows in map(session.collection.rows, ("train", "val")))

        def plan(epoch: int) -> list[np.ndarray]:
            order = np.random.default_rng(derive_seed(args.seed, "order", epoch)).permutation(train_rows)
            return split_evenly(order[:, None], args.batch_size)

        def losses(scores: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            wanted = target[rows[:, 0]]
            return functional.cross_entropy(scores.float(), wanted, reduction="none"), scores.argmax(dim=1) == wanted

        def validate() -> dict[str, float]:
            loss, right = losses(predict(net, val_rows, session.equipment), torch.from_numpy(val_rows[:, None]))
            return {"val_loss": loss.mean().item(), "val_accuracy": right.float().mean().item()}

        rebuild = describe_net(session.collection, args, classes)
        task = Task(net, optimizer, plan, losses, validate, COLUMNS, "val_accuracy", rebuild)
        progress = train(task, session.run, args, session.equipment)
        report(progress, session.run)


def embedding_width(text: str) -> int:
    """A number of dimensions that a checkpoint may have."""
    number = positive_integer(text)
    if number > MAX_EMBEDDING_DIM:
        raise argparse.ArgumentTypeError(f"{text} is more than {MAX_EMBEDDING_DIM}")
    return number


def wants_spread(args: argparse.Namespace) -> bool:
    """Whether the net starts with thresholds spread over training pictures. Raises `UserError` where it cannot."""
    fits = args.arch in ("alexnet", "alexnet_bn") and args.weights == "none"
    if args.init == "spread" and not fits:
        raise UserError("--init spread: is for an alexnet or alexnet_bn that starts from --weights none; leave it out")
    return fits and args.init in ("auto", "spread")


def start_embedding(args: argparse.Namespace, session: Session) -> EmbeddingNet:
    """Make the embedding net with its first weights, as `--init` and `--weights` say, on the CPU."""
    basis = "torchvision" if args.init == "torchvision" else "he"
    net = build_embedding(args.arch, args.embedding_dim, args.weights, args.dropout, args.image_size, basis)
    if wants_spread(args):
        generator = np.random.default_rng(derive_seed(args.seed, "first pictures"))
        rows = generator.permutation(session.collection.rows("train"))[:PICTURES]
        pictures = [session.equipment.prepare(squares) for squares in session.equipment.pictures.batches([rows])]
        spread_thresholds(net.backbone, torch.cat(pictures).cpu())
    return net


def describe_net(collection: Collection, args: argparse.Namespace, classes: tuple[str, ...]) -> dict[str, Any]:
    """What `best.pt` holds besides the weights: all that rebuilds the net and says what its outputs mean."""
    return {
        "stage": 1,
        "arch": args.arch,
        "embedding_dim": args.embedding_dim,
        "dropout": args.dropout,
        "image_size": args.image_size,
        "colour_mean": list(COLOURS[args.colours][0]),
        "colour_deviation": list(COLOURS[args.colours][1]),
        "label": args.label,
        "classes": list(classes),
        "styles": list(collection.styles),
        "contents": list(collection.contents),
    }


def warn_if_small(collection: Collection, number: np.ndarray, args: argparse.Namespace) -> None:
    """Recommend ImageNet's weights for collections on which a net from nothing learns poorly."""
    rows = collection.rows("train")
    smallest = int(np.bincount(number[rows][number[rows] >= 0]).min())
    if smallest < SMALL and args.weights == "none" and args.arch in torchvision.models.list_models():
        print(
            f"note: the smallest {args.label} has {smallest} training pictures; below {SMALL}, --weights imagenet "
            f"should give a better embedding, as a net from nothing has too little to learn its first layers from"
        )


def report(progress: Progress, run: Path) -> None:
    """Say how the run ended and what comes next."""
    print(
        f"done: best validation accuracy {progress.best_score:.3f} in epoch {progress.best_epoch}; weights in {run / BEST}"
    )
    print(f"next: python train.py --data DIR --stage1 {run}")


if __name__ == "__main__":
    raise SystemExit(run_script(get_parser, main))
