"""Stage 1: a softmax classifier over the styles, whose bottleneck becomes the embedding that stage 2 starts from.

    python classification_net.py --data DIR                       # leaves everything in runs/stage1
    python classification_net.py --data DIR --resume              # goes on with it after it was stopped
    python classification_net.py --data DIR --label content --run runs/content1     # the content pipeline
    torchrun --nproc_per_node=8 -- classification_net.py --data DIR                 # on eight GPUs

AlexNet -> 256-d bottleneck -> softmax, categorical cross-entropy, Adam at 0.001, 30 epochs: the pre-training of the
style network of "Sketching with Style" (Collomosse et al., ICCV 2017), as its public re-implementation describes it.
Then run `train.py`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import distributed, nn
from torch.nn.functional import cross_entropy

import networks
from dataset import batches, draw_crops, load_pictures, predict, read_collection, split_batches
from networks import EmbeddingNet, StyleClassifier
from utils import Run, UserError, choose_device, mean_over_batch, rate_at, run_script, stage_parser

# Where we depart: our choice, and what the description or else the libraries have, which --plain takes. To take one
# entry back, copy its second value over its first. experiments/README.md has what each is worth.
DEPARTURES = {
    "first_weights": ("spread", "torchvision"),  # of an AlexNet from nothing: networks.spread_thresholds; or "he"
    "colours": ("centred", "unit"),  # around ImageNet's mean, or from 0 to 1
    "rate_width": (256, None),  # layers with more inputs learn more slowly: adam_groups
    "warm_up": (100, 0),  # steps in which the rate rises; Adam's first steps go by few gradients
    "decay": ("cosine", "none"),  # of the rate after that
    "dropout": (0.0, None),  # in the backbone; None is torchvision's, 0.5 in AlexNet
    "crop_area": (0.4, 1.0),  # least share of a square that a training crop shows; validation sees its middle
    "mirror": (True, False),  # half of the training crops
    "even_batches": (True, False),  # no small batch at the end of an epoch
}


def get_parser() -> argparse.ArgumentParser:
    """The options of stage 1."""
    parser = stage_parser(__doc__, run="runs/stage1", epochs=30)
    add = parser.add_argument
    add("--data", type=Path, default=Path("data/bam"), metavar="DIR", help="folder of pictures; default data/bam")
    add("--split-seed", type=int, default=0, metavar="N", help="of the 80:10:10 split where the data have none")
    add("--label", choices=("style", "content"), default="style", help="what the classes are; default style")
    add("--arch", default="alexnet", metavar="NAME", help="any of torchvision's classifiers; the paper has googlenet")
    add("--weights", default="none", metavar="imagenet|FILE", help="what the net starts from; default nothing")
    add("--embedding-dim", type=int, default=256, metavar="D", help="default 256; the paper has 128")
    add("--image-size", type=int, default=224, metavar="PX", help="default 224; 96 is five times faster on a CPU")
    return parser


def main(args: argparse.Namespace) -> None:
    """Train the classifier; leave everything in `args.run`. Raises `UserError`."""
    choice = SimpleNamespace(**{name: columns[args.plain] for name, columns in DEPARTURES.items()})
    device, precision = choose_device(args)

    # Data: which pictures there are, and their decoded squares, uint8 [n, side, side, 3].
    collection = read_collection(args.data, args.split_seed)
    collection, squares = load_pictures(collection, args.image_size, device, args.cache, args.skip_unreadable)
    classes, number = collection.classes[args.label], collection.number[args.label]
    train_rows, val_rows = (np.flatnonzero((collection.split == part) & (number >= 0)) for part in ("train", "val"))
    check_classes(args, classes, number[train_rows], number[val_rows])
    target = torch.from_numpy(number).to(device)
    view = device, args.image_size, choice.colours

    # Net and optimizer.
    torch.manual_seed(args.seed)
    embedding = EmbeddingNet(args.arch, args.embedding_dim, choice.dropout)
    try:
        embedding.eval()(torch.zeros(1, 3, args.image_size, args.image_size))
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--image-size {args.image_size}: does not fit the net ({error}); 224 fits all") from error
    plan = split_batches(torch.from_numpy(train_rows), args.batch_size, choice.even_batches)
    if min(map(len, plan)) == 1 and any(isinstance(layer, nn.BatchNorm2d) for layer in embedding.modules()):
        raise UserError(f"--batch-size {args.batch_size}: leaves a batch of one, which batch norm cannot train on")
    if args.weights != "none":
        networks.load_weights(embedding, args.weights, args.arch)
    elif args.arch == "alexnet" and choice.first_weights != "torchvision":
        networks.draw_he_weights(embedding)
        if choice.first_weights == "spread":
            sample = torch.from_numpy(np.random.default_rng(args.seed).permutation(train_rows)[:128])
            networks.spread_thresholds(embedding.backbone, next(batches(squares, [sample[:, None]], *view))[1].cpu())
    net = StyleClassifier(embedding, len(classes)).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(adam_groups(net, choice.rate_width), lr=args.lr, fused=True)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)

    # The run: its folder, its curves, and how far it is.
    facts = {name: getattr(args, name) for name in ("arch", "embedding_dim", "image_size", "label")}
    facts |= {"stage": 1, "dropout": choice.dropout, "colours": choice.colours, "classes": classes}
    data = {**collection.facts, "pictures": Counter(collection.split.tolist())}
    facts = {"net": facts, "departures": vars(choice), "data": data, "precision": str(precision)}
    run = Run(args, facts, zip(collection.paths, collection.split.tolist(), strict=True), score="val_accuracy")
    done = run.restore(net, optimizer, scaler)
    # Under torchrun each process trains on its part of every batch, with the mean of all processes' gradients.
    forward = net
    if distributed.is_initialized():
        on_card = device.type == "cuda"
        synced = nn.SyncBatchNorm.convert_sync_batchnorm(net) if on_card else net
        forward = nn.parallel.DistributedDataParallel(synced, [device] if on_card else None)
    forward = torch.compile(forward) if args.compile else forward

    for epoch in range(done + 1, args.epochs + 1):
        # What is drawn in an epoch is a pure function of the seed and the epoch.
        generator = np.random.default_rng([args.seed, epoch])
        order = generator.permutation(train_rows)
        examples = draw_crops(order, choice.crop_area, choice.mirror, squares.shape[1], generator)
        torch.manual_seed(int(generator.integers(2**63)))  # of dropout
        plan = split_batches(examples, args.batch_size, choice.even_batches)

        net.train()
        for step, (rows, pictures) in run.watch(batches(squares, plan, *view), len(plan)):
            rate = rate_at(step, args.epochs * len(plan), args.lr, choice.warm_up, choice.decay)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["share"]
            with torch.autocast(device.type, precision, enabled=precision != torch.float32):
                scores = forward(pictures)
            losses = cross_entropy(scores.float(), target[rows], reduction="none")
            loss = mean_over_batch(losses, torch.ones_like(losses, dtype=torch.bool))
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            run.note(losses, scores.argmax(dim=1) == target[rows])

        net.eval()
        scores = predict(net, squares, val_rows, *view, batch_size=args.batch_size)
        right = (scores.argmax(dim=1) == target[val_rows]).float()
        validated = {"val_loss": cross_entropy(scores, target[val_rows]).item(), "val_accuracy": right.mean().item()}
        run.end_epoch(validated, rate, order.size)

    if done < args.epochs:
        by_class = torch.stack([right[target[val_rows] == one].mean() for one in range(len(classes))])
        print(f"done: validation accuracy {right.mean():.3f}, as a mean over the classes {by_class.mean():.3f}")
    name = args.run.resolve().name
    name = name.replace("stage1", "stage2") if "stage1" in name else f"{name}-triplets"
    print(f"next: python train.py --stage1 {args.run} --run {args.run.parent / name}")


def adam_groups(net: nn.Module, width: int | None) -> list[dict[str, Any]]:
    """Parameter groups in which layers with more than `width` inputs learn at a smaller "share" of the rate, [0, 1].

    Adam moves every weight by about the rate in each step whatever its gradient, so that what a layer's output moves
    grows with the number of its inputs: at one rate for all, AlexNet's layer of 9216 inputs is thrown about.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in net.parameters():
        inputs = parameter[0].numel() if parameter.dim() > 1 else 1
        groups.setdefault(min(1.0, width / inputs) if width else 1.0, []).append(parameter)
    return [{"params": parameters, "share": share} for share, parameters in groups.items()]


def check_classes(args: argparse.Namespace, names: list[str], train: np.ndarray, val: np.ndarray) -> None:
    """See that every class has pictures in `train` and `val`, int64 [n]; say what is odd. Raises `UserError`."""
    train, val = (np.bincount(numbers, minlength=len(names)) for numbers in (train, val))
    poor = [name for name, count, check in zip(names, train, val, strict=True) if count < 2 or check < 1]
    if poor or len(names) < 2:
        raise UserError(
            f"--data {args.data}: takes two {args.label}s at least, each with two pictures for training and one for "
            f"validation; there are {len(names)}, too small {', '.join(poor) or 'none'}; of all pictures "
            f"{train.sum()} are for training and {val.sum()} for validation"
        )
    if train.max() > 10 * train.min():
        shares = ", ".join(f"{name} {share:.1%}" for name, share in zip(names, train / train.sum(), strict=True))
        print(f"note: the {args.label}s differ more than tenfold in size: {shares}")
    if (val > 1).sum() < 2:
        print(f"note: too few for stage 2, which takes two {args.label}s with two pictures for validation each")


if __name__ == "__main__":
    raise SystemExit(run_script(main, get_parser()))
