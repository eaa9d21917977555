"""What both stages do before they train: options, devices, the data, the run folder, the live curves."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

import curves
import parallel
from dataset import Collection, check_trainable, classes_of, read_collection
from pictures import open_pictures
from run_folder import begin_or_continue, describe_device, describe_run, lock_run
from training import Equipment
from utils import UserError, choose_device, choose_precision, keep_freed_memory


@dataclass
class Session:
    """A stage about to train: its run folder, its data, and what it runs on."""

    run: Path
    collection: Collection
    equipment: Equipment

    @property
    def device(self) -> torch.device:
        """The device that this process trains on."""
        return self.equipment.device


def positive_integer(text: str) -> int:
    """An option's value that counts something: 1, 2, 3, ..."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def whole_number(text: str) -> int:
    """An option's value that counts something and may be none: 0, 1, 2, ..."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is less than 0")
    return value


def positive_number(text: str) -> float:
    """An option's value that measures something: a finite number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def share(text: str) -> float:
    """An option's value that is a share of a whole: above 0, at most 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def share_below_one(text: str) -> float:
    """An option's value from 0 to just below 1, such as a momentum or a dropout rate."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def workers_number(text: str) -> int | None:
    """`--workers`: a number, or None for auto."""
    return None if text == "auto" else positive_integer(text)


def get_stage_parser(description: str, *, run: str, epochs: int) -> argparse.ArgumentParser:
    """The options that both stages have; each stage adds its own."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="data folder: index.csv, or <style>/<content>/<picture>, or <style>/<picture>; default data/bam",
    )
    parser.add_argument(
        "--run", default=run, metavar="DIR", help="folder that the run leaves everything in; default %(default)s"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --run where it was stopped; starts it if it has not begun",
    )
    method = parser.add_argument_group("method")
    method.add_argument(
        "--epochs", type=positive_integer, default=epochs, metavar="N", help="default %(default)s, as published"
    )
    method.add_argument(
        "--batch-size",
        type=positive_integer,
        default=64,
        metavar="N",
        help="over all processes; default %(default)s. Batches of an epoch are evened out, so that none is tiny",
    )
    method.add_argument(
        "--lr",
        type=positive_number,
        default=0.001,
        metavar="RATE",
        help="peak learning rate; default %(default)s, as published. Lower it where the loss jumps",
    )
    method.add_argument(
        "--decay", choices=("cosine", "none"), default="cosine",
        help="how the learning rate falls from its peak over the run; default %(default)s, to zero",
    )  # fmt: skip
    method.add_argument(
        "--crop-area", type=share, default=0.4, metavar="SHARE",
        help="training crops show at least this share of a picture; default %(default)s. 1 switches crops off, which "
        "takes hundreds of pictures a style not to be learnt by heart",
    )  # fmt: skip
    method.add_argument(
        "--warm-up",
        type=whole_number,
        default=100,
        metavar="STEPS",
        help="steps in which the learning rate rises to its peak, at most a tenth of the run; default %(default)s",
    )
    method.add_argument("--seed", type=int, default=0, help="of weights, order and augmentation; default %(default)s")
    method.add_argument(
        "--split-seed",
        type=int,
        default=0,
        metavar="SEED",
        help="which pictures are for training, validation and test; the same in both stages; default %(default)s",
    )
    add_data_options(parser)
    parser.add_argument_group("machine").add_argument(
        "--checkpoint-minutes",
        type=positive_number,
        default=10,
        metavar="M",
        help="save inside long epochs this often; default %(default)s",
    )
    curves.add_visdom_options(parser)
    return parser


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Options on reading pictures and on the machine, which the stages share with evaluation and search."""
    lists = parser.add_argument_group("other data")
    lists.add_argument(
        "--filenames",
        metavar="FILE",
        help="text list of pictures, one path a line, instead of a data "
        "folder; relative to --data if given, else to the list's folder",
    )
    lists.add_argument("--labels", metavar="FILE", help="their styles: one integer a line, counted from 0")
    lists.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="leave pictures that cannot be decoded out instead of stopping at the first",
    )
    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--device", default="auto", metavar="auto|cpu|cuda|cuda:N", help="default auto: CUDA where there is one"
    )
    machine.add_argument(
        "--amp",
        choices=("auto", "off", "bf16", "fp16"),
        default="auto",
        help="mixed precision; default auto: bfloat16 where the device computes it natively. off to "
        "compare runs of different machines",
    )
    machine.add_argument(
        "--workers",
        type=workers_number,
        default=None,
        metavar="N|auto",
        help="threads that decode pictures; default auto: one a processor",
    )
    machine.add_argument(
        "--cache",
        choices=("auto", "none", "disk", "device"),
        default="auto",
        help="where decoded pictures are kept: in the device's memory, in a memory map on disk, or "
        "nowhere; default auto: the first of these that has room. The numbers are the same",
    )
    machine.add_argument(
        "--cache-dir", metavar="DIR", help="folder of the memory map; default .pictures in the data folder"
    )
    machine.add_argument(
        "--compile", action="store_true", help="compile the net first: a minute's wait that pays in long runs"
    )


@contextlib.contextmanager
def open_session(
    args: argparse.Namespace,
    *,
    stage: int,
    label: str,
    image_size: int,
    colours: tuple[tuple[float, ...], tuple[float, ...]],
    columns: tuple[str, ...],
    known_splits: dict[str, str] | None = None,
) -> Iterator[Session]:
    """Get everything ready for a stage: device, run folder, data, pictures, curves; put it away afterwards.

    `label` is what the classes are, "style" or "content"; `colours` are the mean and deviation of the channels.
    `known_splits` gives the split of pictures whose classes are not known, by path; then the collection is not checked
    for trainable classes. Raises `UserError` for whatever the user must change.
    """
    with contextlib.ExitStack() as stack:
        device = choose_device(parallel.start(args.device))
        stack.callback(parallel.finish)
        precision = choose_precision(args.amp, device)
        if device.type == "cpu":
            keep_freed_memory()
        if args.batch_size < 2 * parallel.world() > 2:  # evened out, a batch may be half as large
            raise UserError(f"--batch-size {args.batch_size}: is less than two for each of the processes")
        run = Path(args.run)
        if parallel.rank() == 0:
            lock = lock_run(run)
            stack.callback(lock.release)
        else:  # one process speaks for all
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(Path(os.devnull).open("w"))))
        collection = read_collection(
            args.data,
            filenames=args.filenames,
            labels=args.labels,
            split_seed=args.split_seed,
            known_splits=known_splits,
        )
        pictures, unreadable = open_pictures(
            collection,
            image_size,
            device,
            cache=args.cache,
            cache_dir=args.cache_dir,
            workers=args.workers,
            skip_unreadable=args.skip_unreadable,
        )
        stack.callback(pictures.close)
        collection = collection.without(unreadable)
        if known_splits is None:
            check_trainable(collection, label)
        view = None
        if parallel.rank() == 0:
            name = "full precision" if precision is None else str(precision).removeprefix("torch.")
            config = describe_run(args, stage, label, collection, device, name)
            begin_or_continue(run, config, collection)
            print_summary(collection, label, device, name)
            view = curves.open_view(args, run, columns, tqdm.write)
            if view is not None:
                stack.callback(view.close)
        yield Session(run, collection, Equipment(pictures, device, precision, image_size, colours, view))


def print_summary(collection: Collection, label: str, device: torch.device, precision: str) -> None:
    """Say what is about to be trained on what."""
    names, _ = classes_of(collection, label)
    counts = ", ".join(f"{len(collection.rows(split))} {split}" for split in ("train", "val", "test"))
    print(f"data: {len(collection)} pictures ({counts}), {len(names)} {label}s: {', '.join(names)}")
    print(f"device: {describe_device(device)}, {precision}, {parallel.world()} process(es)")
