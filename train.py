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
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import distributed, nn

import triplet_network as triplet
from dataset import batches, draw_crops, load_pictures, predict, read_collection, split_batches
from networks import load_net
from utils import (
    CONFIG,
    SPLIT,
    Run,
    UserError,
    choose_device,
    mean_over_batch,
    rate_at,
    read_table,
    run_script,
    stage_parser,
)

# Where we depart: our choice, and what the description or else the libraries have, which --plain takes. To take one
# entry back, copy its second value over its first. experiments/README.md has what each is worth.
DEPARTURES = {
    "length": (0.25, None),  # to which every embedding is scaled, before distances are measured; None: as it comes
    "bottleneck_length": (1.5, None),  # mean length to which the bottleneck's outputs are scaled before training
    "average": ("active", "all"),  # a batch's loss: the mean over the triplets that do not keep the margin yet
    "momentum": (0.9, 0.0),  # of SGD
    "warm_up": (100, 0),  # steps in which the rate rises
    "decay": ("cosine", "none"),  # of the rate after that
    "crop_area": (0.4, 1.0),  # least share of a square that a training crop shows; validation sees its middle
    "mirror": (True, False),  # half of the training crops
    "even_batches": (True, False),  # no small batch at the end of an epoch
    "squared": (
        False,
        False,
    ),  # no departure: the paper's figure squares the loss's distances, its re-implementation not
}


def get_parser() -> argparse.ArgumentParser:
    """The options of stage 2."""
    parser = stage_parser(__doc__, run="runs/stage2", epochs=50)
    add = parser.add_argument
    add("--data", type=Path, metavar="DIR", help="folder of pictures; default: stage 1's")
    add(
        "--stage1", type=Path, default=Path("runs/stage1"), metavar="RUN", help="run to start from; default runs/stage1"
    )
    add("--margin", type=float, default=0.2, help="of the loss; default 0.2, as in the public re-implementation")
    add("--triplets", type=Path, nargs="+", metavar="FILE", help="lists of triplets, instead of drawing them")
    return parser


def main(args: argparse.Namespace) -> None:
    """Train the embedding; leave everything in `args.run`. Raises `UserError`."""
    choice = SimpleNamespace(**{name: columns[args.plain] for name, columns in DEPARTURES.items()})
    device, precision = choose_device(args)

    # Data: the pictures, splits and classes of stage 1; their decoded squares, uint8 [n, side, side, 3].
    stage1, embedding, _ = load_net(args.stage1)
    label, view = stage1["label"], (device, stage1["image_size"], stage1["colours"])
    folder = args.data or Path(json.loads((args.stage1 / CONFIG).read_text(encoding="utf-8"))["data"]["folder"])
    collection = read_collection(folder, known={row["path"]: row["split"] for row in read_table(args.stage1 / SPLIT)})
    collection, squares = load_pictures(collection, stage1["image_size"], device, args.cache, args.skip_unreadable)
    classes, number = collection.classes[label], collection.number[label]
    other = collection.number["content" if label == "style" else "style"]
    if classes != stage1["classes"]:
        raise UserError(
            f"--stage1 {args.stage1}: knows {', '.join(stage1['classes'])}; {folder} has {', '.join(classes)}"
        )
    train_rows, val_rows = (np.flatnonzero((collection.split == part) & (number >= 0)) for part in ("train", "val"))
    given = triplet.read_triplets(args.triplets, np.where(number >= 0, collection.split, "")) if args.triplets else {}
    val_triplets = given["val"] if given else triplet.draw_fixed_triplets(number, other, val_rows)
    places = torch.from_numpy(np.searchsorted(val_rows, val_triplets)).to(device)
    val_labels = torch.from_numpy(number[val_rows]).to(device)

    # Net and optimizer.
    embedding.to(device)
    if choice.bottleneck_length:
        # This leaves scaled embeddings as they are but makes the steps larger: gradients are divided by the outputs'
        # length, which is some 40 after stage 1, and with SGD at 0.001 little would move. (At a length of 1 the first
        # steps undo what stage 1 learnt.)
        sample = np.random.default_rng(args.seed).permutation(train_rows)[:512]
        outputs = predict(embedding, squares, sample, *view, batch_size=args.batch_size)
        scale = choice.bottleneck_length / outputs.norm(dim=1).mean()
        for parameter in embedding.bottleneck.parameters():
            parameter.data *= scale
    net = triplet.TripletNet(embedding, choice.length)
    # Not fused for float16, whose first steps overflow: a fused step that is skipped leaves the momentum undefined.
    fused = precision != torch.float16 or None
    optimizer = torch.optim.SGD(net.parameters(), lr=args.lr, momentum=choice.momentum, fused=fused)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)

    # The run: its folder, its curves, and how far it is.
    facts = {"net": {**stage1, "stage": 2}, "departures": vars(choice), "precision": str(precision)}
    facts["data"] = {**collection.facts, "pictures": Counter(collection.split.tolist())}
    run = Run(args, facts, zip(collection.paths, collection.split.tolist(), strict=True), score="val_map")
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
        if given:
            triplets, fallbacks = generator.permutation(given["train"]), 0
        else:  # every picture is the anchor once
            triplets, fallbacks = triplet.draw_triplets(number, other, generator.permutation(train_rows), generator)
        if epoch == 1 and fallbacks:
            print(
                f"note: {fallbacks} of {len(triplets)} anchors find no picture that keeps the content rule; any will do"
            )
        examples = draw_crops(triplets, choice.crop_area, choice.mirror, squares.shape[1], generator)
        torch.manual_seed(int(generator.integers(2**63)))  # of dropout
        plan = split_batches(examples, args.batch_size, choice.even_batches)

        net.train()
        for step, (_, pictures) in run.watch(batches(squares, plan, *view), len(plan)):
            rate = rate_at(step, args.epochs * len(plan), args.lr, choice.warm_up, choice.decay)
            for group in optimizer.param_groups:
                group["lr"] = rate
            with torch.autocast(device.type, precision, enabled=precision != torch.float32):
                anchor, positive, negative = forward(pictures)
            losses, right = triplet.triplet_losses(anchor, positive, negative, args.margin, choice.squared)
            # Triplets that keep the margin have no gradient. Most do, late in training: a mean over all would fade away.
            active = losses > 0 if choice.average == "active" else torch.ones_like(losses, dtype=torch.bool)
            loss = mean_over_batch(losses, active)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            run.note(losses, right)

        net.eval()
        embeddings = predict(net.branch, squares, val_rows, *view, batch_size=args.batch_size)
        losses, right = triplet.triplet_losses(*embeddings[places].unbind(dim=1), args.margin, choice.squared)
        validated = {"val_loss": losses.mean().item(), "val_triplet_accuracy": right.float().mean().item()}
        validated["val_map"] = triplet.average_precisions(embeddings, val_labels).nanmean().item()
        run.end_epoch(validated, rate, triplets.size)

    if run.history[-1]["train_loss"] > 0.95 * args.margin:
        print("warning: the loss ended at the margin: all embeddings are about the same, or nothing was learnt")
    print(f"done: validation mAP {run.history[-1]['val_map']:.3f}")
    print(f"next: python -m retrieval.evaluate {args.stage1} {args.run}")
    print(f"      python -m retrieval.search {args.run} PICTURE")


if __name__ == "__main__":
    raise SystemExit(run_script(main, get_parser()))
