"""Stage 2: the triplet embedding, in which distance means difference in style.

    python train.py                                    # starts from runs/stage1, leaves everything in runs/stage2
    python train.py --resume                           # goes on with it after it was stopped
    python train.py --triplets train.txt val.txt       # triplets from files: `a b c`, a is nearer to c than to b
    torchrun --nproc_per_node=8 -- train.py            # on eight GPUs

Three branches that share all their weights, margin ranking loss on Euclidean distances, SGD at 0.001, 50 epochs.
Anchor and positive share the style and differ in content; the negative has another style and the anchor's content
(section 3.2.1 of "Sketching with Style", Collomosse et al., ICCV 2017). Run `classification_net.py` first.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dataset import batches, draw_crops, load_pictures, my_part, predict, read_collection, split_batches
from networks import EmbeddingNet, load_net
from triplet_network import (
    TripletNet,
    average_precisions,
    draw_fixed_triplets,
    draw_triplets,
    read_triplets,
    triplet_losses,
)
from utils import (
    CONFIG,
    LOOK_STEPS,
    SPLIT,
    Run,
    UserError,
    choose,
    choose_device,
    choose_precision,
    get_stage_parser,
    rate_at,
    read_table,
    run_script,
    total,
    world,
    wrap,
)

# What the description leaves open: ours, and what the libraries do by themselves (--plain). experiments/README.md has
# what each is worth.
DEPARTURES = {
    "length": (0.25, None),  # that embeddings get before distances are measured; None: as they come
    "bottleneck_length": (1.5, None),  # that embeddings have on average at the start, before they get that: see below
    "average": ("active", "all"),  # a batch's loss: the mean over the triplets that do not keep the margin yet
    "momentum": (0.9, 0.0),  # of SGD
    "warm_up": (100, 0),  # steps in which the rate rises
    "decay": ("cosine", "none"),  # of the rate after that
    "crop_area": (0.4, 1.0),  # the least share of a picture that is seen in training
    "mirror": (True, False),  # half of the training crops
    "even_batches": (True, False),  # no small batch at the end of an epoch
    "squared": (False, False),  # distances in the loss; the paper's figure squares them, its re-implementation does not
}


def get_parser() -> argparse.ArgumentParser:
    """The options of stage 2."""
    parser = get_stage_parser(__doc__, run="runs/stage2", epochs=50)
    add = parser.add_argument
    add("--data", type=Path, metavar="DIR", help="folder of pictures; default: stage 1's")
    add(
        "--stage1",
        type=Path,
        default=Path("runs/stage1"),
        metavar="DIR",
        help="run to start from, which decides the net, the classes and the splits; default runs/stage1",
    )
    add(
        "--margin",
        type=float,
        default=0.2,
        help="by which a negative should be farther away than a positive; default "
        "0.2, as in the public re-implementation",
    )
    add(
        "--triplets",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="take the triplets from these lists instead of drawing "
        "them: `a b c`, rows counted from 0, a nearer to c than to b",
    )
    return parser


def main(args: argparse.Namespace) -> None:
    """Train the embedding; leave everything in `args.run`. Raises `UserError`."""
    choice = choose(DEPARTURES, args.plain)
    device = choose_device(args.device)
    precision = choose_precision(args.amp, device)

    # Data: the pictures, splits and classes of stage 1; their decoded squares; the triplets of validation.
    stage1, embedding, _ = load_net(args.stage1)
    size, colours, label = stage1["image_size"], stage1["colours"], stage1["label"]
    folder = args.data or Path(json.loads((args.stage1 / CONFIG).read_text(encoding="utf-8"))["data"]["folder"])
    known = {row["path"]: row["split"] for row in read_table(args.stage1 / SPLIT)}
    collection = read_collection(folder, known=known)
    collection, squares = load_pictures(collection, size, device, args.cache, args.skip_unreadable)
    (classes, number), (_, other) = (
        collection.classes(name) for name in sorted(("style", "content"), key=label.__ne__)
    )
    if classes != stage1["classes"]:
        raise UserError(
            f"--stage1 {args.stage1}: knows {', '.join(stage1['classes'])}; {folder} has {', '.join(classes)}"
        )
    train_rows, val_rows = (collection.rows(split, label) for split in ("train", "val"))
    given = read_triplets(args.triplets, collection.split) if args.triplets else None
    val_triplets = given["val"] if given else draw_fixed_triplets(number, other, val_rows)
    places = torch.from_numpy(np.searchsorted(val_rows, val_triplets)).to(device)
    val_labels = torch.from_numpy(number[val_rows]).to(device)

    # Net and optimizer.
    embedding.to(device, memory_format=torch.channels_last)
    if choice.bottleneck_length:
        sample = np.random.default_rng(args.seed).permutation(train_rows)[:512]
        scale_bottleneck(
            embedding, predict(embedding, squares, sample, device, size, colours), choice.bottleneck_length
        )
    net = TripletNet(embedding, choice.length)
    optimizer = torch.optim.SGD(net.parameters(), lr=args.lr, momentum=choice.momentum, fused=True)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)

    # The run: its folder, its curves, and how far it is.
    net_facts = {name: value for name, value in stage1.items() if name != "epoch"} | {"stage": 2}
    facts = {"net": net_facts, "departures": vars(choice), "data": collection.facts(), "precision": str(precision)}
    run = Run(args, facts, zip(collection.paths, collection.split.tolist(), strict=True), score="val_map")
    done = run.restore(net, optimizer, scaler)
    forward = wrap(net, device, args.compile)

    for epoch in range(done + 1, args.epochs + 1):
        # What is drawn in an epoch is a pure function of the seed and the epoch.
        generator = np.random.default_rng([args.seed, epoch])
        if given:
            triplets = generator.permutation(given["train"])
        else:
            triplets, fallbacks = draw_triplets(number, other, generator.permutation(train_rows), generator)
            if epoch == 1 and fallbacks:
                print(
                    f"note: for {fallbacks} of {len(triplets)} anchors no picture keeps the content rule; any will do"
                )
        triplets = torch.from_numpy(triplets)
        crops = draw_crops(triplets.shape, choice.crop_area, choice.mirror, squares.shape[1], generator)
        plan, crops = (split_batches(part, args.batch_size, choice.even_batches) for part in (triplets, crops))
        steps, began = args.epochs * len(plan), time.monotonic()
        seen, recent = torch.zeros(2, dtype=torch.float64, device=device), []
        net.train()
        shown = batches(squares, my_part(plan), device, size, colours, my_part(crops))
        bar = tqdm(shown, f"epoch {epoch}", len(plan), leave=False, file=sys.stdout, disable=None)
        for step, (_, pictures) in enumerate(bar, (epoch - 1) * len(plan)):
            rate = rate_at(step, steps, args.lr, choice.warm_up, choice.decay)
            for group in optimizer.param_groups:
                group["lr"] = rate
            with torch.autocast(device.type, precision, enabled=precision is not None):
                anchor, positive, negative = forward(pictures)
            losses, right = triplet_losses(anchor, positive, negative, args.margin, choice.squared)
            # The mean over all triplets, or over those that do not keep the margin yet: late in training most do. With
            # several processes each has its part of the batch, and gradients become the mean over the processes.
            batch = len(plan[step % len(plan)])
            counted = total((losses > 0).sum()).clamp(min=1) if choice.average == "active" else batch
            optimizer.zero_grad()
            scaler.scale(losses.sum() / counted * world()).backward()
            scaler.step(optimizer)
            scaler.update()

            recent.append(losses.detach().sum() / batch)
            seen += torch.stack([losses.detach().sum(), right.sum()])
            if len(recent) == LOOK_STEPS or (step + 1) % len(plan) == 0:
                run.note(recent, len(plan))  # the device is waited for here alone
                recent = []
        train_loss, train_accuracy = (total(seen) / len(triplets)).tolist()
        trained = time.monotonic() - began

        net.eval()
        embeddings = predict(net.branch, squares, val_rows, device, size, colours, args.batch_size)
        losses, right = triplet_losses(*embeddings[places].unbind(dim=1), args.margin, choice.squared)
        row = {
            "epoch": epoch,
            "train_loss": train_loss,
            "train_triplet_accuracy": train_accuracy,
            "val_loss": losses.mean().item(),
            "val_triplet_accuracy": right.float().mean().item(),
            "val_map": average_precisions(embeddings, val_labels).nanmean().item(),
            "lr": rate,
            "images_per_second": triplets.numel() / trained,
            "seconds": time.monotonic() - began,
        }
        run.end_epoch(row, net, optimizer, scaler)

    if run.history[-1]["train_loss"] > 0.95 * args.margin:
        print("warning: the loss ended at the margin: all embeddings are about the same, or nothing was learnt")
    print(f"done: validation mAP {run.history[-1]['val_map']:.3f} across {label}s")
    print(f"next: python -m retrieval.evaluate {args.stage1} {args.run}")
    print(f"      python -m retrieval.search {args.run} PICTURE --data {folder}")


@torch.no_grad()
def scale_bottleneck(embedding: EmbeddingNet, embeddings: Tensor, length: float) -> None:
    """Scale the bottleneck so that these embeddings, float [n, d], would have a mean length of `length`.

    That changes no embedding of a set length, but the steps: normalising divides gradients by the length, which stage 1
    leaves at some 40, and with SGD at 0.001 little would move. (At a length of 1 the first steps undo what it learnt.)
    """
    for parameter in embedding.bottleneck.parameters():
        parameter.mul_(length / embeddings.norm(dim=1).mean())


if __name__ == "__main__":
    raise SystemExit(run_script(main, get_parser()))
