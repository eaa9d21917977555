"""Stage 2: the triplet embedding, in which distance means difference in style.

    python train.py --data DIR                         # starts from runs/stage1, writes runs/stage2
    python train.py --data DIR --resume                # goes on with it after it was stopped
    python train.py --filenames F --triplets T         # triplets from a file: lines `a b c`, a nearer to c than to b
    torchrun --nproc_per_node=8 -- train.py --data DIR    # on eight GPUs

Three branches that share all their weights, margin ranking loss on Euclidean distances, SGD at 0.001, 50 epochs.
Anchor and positive share the style and differ in content; the negative has another style and the anchor's content
(section 3.2.1 of "Sketching with Style", Collomosse et al., ICCV 2017). Run `classification_net.py` first.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import parallel
from dataset import SPLITS, Collection, classes_of
from networks import EmbeddingNet, rebuild
from retrieval import mean_average_precision
from run_folder import BEST, BEST_FORMAT, read_checkpoint, read_split, settle_options
from session import Session, get_stage_parser, open_session, positive_number, share_below_one
from trained import check_description
from training import Progress, Task, predict, split_evenly, train
from triplet_network import Branch, TripletNet, batch_losses, triplet_losses
from triplets import count_fallbacks, draw_balanced_batches, draw_epoch, draw_fixed, read_triplets
from utils import UserError, derive_seed, run_script

COLUMNS = (
    "epoch", "train_loss", "train_triplet_accuracy", "val_loss", "val_triplet_accuracy", "val_map", "lr",
    "images_per_second", "seconds",
)  # fmt: skip
OF_ITS_OWN = {"format", "stage", "weights", "epoch", "score"}  # what a stage's best.pt does not share with the other's
BOTTLENECK_LENGTH = 1.5  # of stage 1's embeddings, on average, when stage 2 starts
SCALING_PICTURES = 512  # on which that average is taken


def get_parser() -> argparse.ArgumentParser:
    """The options of stage 2."""
    parser = get_stage_parser(__doc__, run="runs/stage2", epochs=50)
    parser.add_argument("--stage1", default="runs/stage1", metavar="DIR", help="run of stage 1 to start from; it decides "
                        "the net, the picture size and the classes; default %(default)s")  # fmt: skip
    triplet = parser.add_argument_group("triplets")
    triplet.add_argument(
        "--margin", type=positive_number, default=0.2,
        help="by which a negative should be farther away than a positive; default %(default)s, as published",
    )  # fmt: skip
    triplet.add_argument(
        "--length", type=positive_number, default=0.25, metavar="L",
        help="embeddings get this length before distances are measured, so that the largest distance is twice it; "
        "default %(default)s. At 1 most triplets of a trained stage 1 keep the margin of 0.2 already and teach nothing",
    )  # fmt: skip
    triplet.add_argument(
        "--normalise", action=argparse.BooleanOptionalAction, default=True,
        help="default yes; without it embeddings keep the length that the net gives them, and tend to collapse",
    )  # fmt: skip
    triplet.add_argument(
        "--momentum", type=share_below_one, default=0.9, metavar="M",
        help="of SGD; default %(default)s. Much more of it undoes what stage 1 learnt",
    )  # fmt: skip
    triplet.add_argument(
        "--average", choices=("active", "all"), default="active",
        help="a batch's loss is the mean over its active triplets, those that do not keep the margin yet, or over all: "
        "late in training most keep it, and their zeros make the steps small. Default %(default)s",
    )  # fmt: skip
    triplet.add_argument(
        "--mining", choices=("none", "batch"), default="none",
        help="batch: instead of drawing triplets, draw batches of a few contents in all styles and use every triplet "
        "in them; no part of the method, a third of the work, and in one process only. Default %(default)s",
    )  # fmt: skip
    triplet.add_argument("--triplets", metavar="FILE", help="take the triplets from a file instead of drawing them: "
                         "lines `a b c` of picture numbers counted from 0, a nearer to c than to b")  # fmt: skip
    return parser


def main(args: argparse.Namespace) -> None:
    """Train the embedding; leave everything in `args.run`."""
    args = settle_options(args, get_parser())
    check_options(args)
    stage1 = read_checkpoint(Path(args.stage1) / BEST, BEST_FORMAT)
    embedding, _ = rebuild(stage1, str(Path(args.stage1) / BEST))
    check_description(stage1, str(Path(args.stage1) / BEST))
    check_same_stage1(stage1, args)
    label, colours = stage1["label"], (tuple(stage1["colour_mean"]), tuple(stage1["colour_deviation"]))
    # Triplets on pictures of unknown style: only stage 1 can say what was for training.
    known = read_split(Path(args.stage1)) if args.triplets and args.filenames and not args.labels else None
    with open_session(
        args,
        stage=2,
        label=label,
        image_size=stage1["image_size"],
        colours=colours,
        columns=COLUMNS,
        known_splits=known,
    ) as session:
        collection, device = session.collection, session.device
        check_stage1(collection, stage1, Path(args.stage1))
        embedding.requires_grad_(True).to(device, memory_format=torch.channels_last)
        if args.normalise:
            scale_bottleneck(embedding, session, args.seed)
        length = args.length if args.normalise else None
        net = (TripletNet if args.mining == "none" else Branch)(embedding, length)
        optimizer = torch.optim.SGD(net.parameters(), lr=args.lr, momentum=args.momentum, fused=True)

        draw, val_triplets = choose_triplets(collection, label, args)
        val_rows = collection.rows("val")
        places = torch.from_numpy(np.searchsorted(val_rows, val_triplets)).to(device)
        val_labels = torch.from_numpy(classes_of(collection, label)[1][val_rows]).to(device)

        label_of, other_of = (torch.from_numpy(numbers).to(device) for numbers in label_and_other(collection, label))

        def losses(outputs: Any, rows: Tensor) -> tuple[Tensor, Tensor]:
            if args.mining == "batch":
                anchors = rows[:, 0]
                return batch_losses(
                    outputs, label_of[anchors], other_of[anchors], args.margin, args.average == "active"
                )
            return triplet_losses(*outputs, args.margin)

        def validate() -> dict[str, float]:
            embeddings = predict(lambda pictures: Branch.forward(net, pictures), val_rows, session.equipment)
            loss, right = triplet_losses(*embeddings[places].unbind(dim=1), args.margin)
            return {
                "val_loss": loss.mean().item(),
                "val_triplet_accuracy": right.float().mean().item(),
                "val_map": mean_average_precision(embeddings, val_labels),
            }

        # With triplets from a file there may be no style of two validation pictures, and so no retrieval to score.
        pairs = bool((torch.bincount(val_labels[val_labels >= 0]) > 1).any())
        score = "val_map" if pairs else "val_triplet_accuracy"
        kept = {name: value for name, value in stage1.items() if name not in OF_ITS_OWN}
        task = Task(
            net, optimizer, draw, losses, validate, COLUMNS, score, {**kept, "stage": 2}, args.average == "active"
        )
        progress = train(task, session.run, args, session.equipment)
        report(progress, args, score, session.run)


def check_options(args: argparse.Namespace) -> None:
    """Refuse options that do not go together. Raises `UserError`."""
    if args.mining == "batch" and args.triplets:
        raise UserError("--mining batch: makes its own triplets; leave it or --triplets out")
    if args.mining == "batch" and args.batch_size < 4:
        raise UserError(f"--batch-size {args.batch_size}: holds no triplets; --mining batch takes 4 at least")
    if args.mining == "batch" and parallel.launched() > 1:
        raise UserError("--mining batch: compares all pictures of a batch in one process; start it without torchrun")
    if not args.normalise and args.length != get_parser().get_default("length"):
        raise UserError("--length: embeddings keep their own with --no-normalise; leave one of the two out")


def check_stage1(collection: Collection, stage1: dict[str, Any], run: Path) -> None:
    """Refuse a stage 1 with other classes, or whose training pictures are now used to validate or test.

    Raises `UserError`.
    """
    names, _ = classes_of(collection, stage1["label"])
    if names and list(names) != stage1["classes"]:
        raise UserError(
            f"--stage1 {run}: was trained on the {stage1['label']}s {', '.join(stage1['classes'])}; {collection.source} "
            f"has {', '.join(names)}; train stage 1 on the same data"
        )
    before = read_split(run)
    leaked = [
        path for path, now in zip(collection.paths, collection.split, strict=True)
        if before.get(path) == "train" and now in SPLITS[1:]
    ]  # fmt: skip
    if leaked:
        raise UserError(
            f"--stage1 {run}: {len(leaked)} pictures that it was trained on are now for validation or test, first "
            f"{leaked[0]}; use the same data and --split-seed for both stages"
        )


def check_same_stage1(stage1: dict[str, Any], args: argparse.Namespace) -> None:
    """Refuse to go on with another stage 1 than the run began with. Raises `UserError`."""
    path = Path(args.run) / BEST
    if args.resume and path.exists():
        before = read_checkpoint(path, BEST_FORMAT)
        changed = [name for name in before.keys() & stage1.keys() - OF_ITS_OWN if before[name] != stage1[name]]
        if changed:
            raise UserError(
                f"--stage1 {args.stage1}: has {min(changed)} {stage1[min(changed)]}, the one that {args.run} began with "
                f"{before[min(changed)]}; give that one"
            )


def label_and_other(collection: Collection, label: str) -> tuple[np.ndarray, np.ndarray]:
    """What the embedding should know of each picture and what it should not: style and content, or the reverse."""
    other = "content" if label == "style" else "style"
    return classes_of(collection, label)[1], classes_of(collection, other)[1]


def scale_bottleneck(embedding: EmbeddingNet, session: Session, seed: int) -> None:
    """Scale the bottleneck so that stage 1's embeddings have a mean length of 1.5 before they get their set length.

    That changes no embedding of a set length, but the steps: normalising divides gradients by the length, which stage 1
    leaves at some 40, and with SGD at 0.001 little would move. (At a length of 1 the first steps undo what it learnt.)
    """
    generator = np.random.default_rng(derive_seed(seed, "scaling"))
    rows = generator.permutation(session.collection.rows("train"))[:SCALING_PICTURES]
    length = predict(embedding.eval(), rows, session.equipment).norm(dim=1).mean()
    with torch.no_grad():
        for parameter in embedding.bottleneck.parameters():
            parameter.mul_(BOTTLENECK_LENGTH / length)


def choose_triplets(
    collection: Collection, label: str, args: argparse.Namespace
) -> tuple[Callable[[int], list[np.ndarray]], np.ndarray]:
    """How an epoch's training batches are made, each int64 [b, 3] (mining: [b, 1]), and the fixed validation triplets.

    Those are int64 [n, 3]. Raises `UserError` where there are too few pictures to make any.
    """
    if args.triplets:
        given = read_triplets(Path(args.triplets), collection)
        counts = ", ".join(f"{len(rows)} {split}" for split, rows in given.items())
        print(f"triplets: {counts}; those of {args.triplets} whose three pictures are not in one split are left out")

        def shuffle(epoch: int) -> list[np.ndarray]:
            order = np.random.default_rng(derive_seed(args.seed, "order", epoch)).permutation(given["train"])
            return split_evenly(order, args.batch_size)

        return shuffle, given["val"]
    number, other = label_and_other(collection, label)
    train_rows, val_rows = (rows[number[rows] >= 0] for rows in map(collection.rows, ("train", "val")))
    if (np.bincount(number[val_rows]) > 1).sum() < 2:
        raise UserError(
            f"{collection.source}: has too few pictures to validate triplets on, which takes two {label}s with two "
            f"validation pictures each; add pictures"
        )
    if args.mining == "none":
        warn_of_fallbacks(number, other, train_rows)
    elif len(np.unique(other[train_rows])) == 1 and other[train_rows[0]] >= 0:
        raise UserError(
            "--mining batch: takes positives of another content, and all pictures have the same; leave it out"
        )

    def draw(epoch: int) -> list[np.ndarray]:
        if args.mining == "batch":
            seed = derive_seed(args.seed, "batches", epoch)
            return draw_balanced_batches(number, other, train_rows, args.batch_size, seed)
        return split_evenly(draw_epoch(number, other, train_rows, args.seed, epoch), args.batch_size)

    return draw, draw_fixed(number, other, val_rows, args.split_seed)


def warn_of_fallbacks(number: np.ndarray, other: np.ndarray, rows: np.ndarray) -> None:
    """Say for how many anchors the rule of section 3.2.1 cannot be kept."""
    positives, negatives = count_fallbacks(number, other, rows)
    if positives or negatives:
        print(f"note: of {len(rows)} anchors {positives} have no positive of another content and {negatives} no negative "
              f"of their own content; they get any picture of the same, or of another, class")  # fmt: skip


def report(progress: Progress, args: argparse.Namespace, score: str, run: Path) -> None:
    """Say how the run ended, whether it collapsed, and what comes next."""
    best = f"{score} {progress.best_score:.3f} in epoch {progress.best_epoch}"
    print(f"done: best {best}; weights in {run / BEST}")
    if progress.history[-1]["train_loss"] > 0.95 * args.margin:
        print(f"warning: the loss ended at the margin ({args.margin}): all embeddings are about the same (collapse), or "
              f"nothing was learnt; try more epochs or another --lr, and look at val_triplet_accuracy")  # fmt: skip
    print(f"next: python evaluate.py {args.stage1} {run}")


if __name__ == "__main__":
    raise SystemExit(run_script(get_parser, main))
