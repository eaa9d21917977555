"""How fast training is: this project, the plain recipe, and the net alone, in turns in one run, on made-up pictures.

    python -m experiments.speed --json speed.json                 # a table of pictures a second, for both stages
    python -m experiments.speed --gpu-report report.md            # for a fresh machine with a card: at most ten minutes

"This project" is the stage scripts' own `main`, by images_per_second in metrics.csv from the second epoch on. "The net
alone" is the same loop, whose pictures are one batch that lies cropped and centred on the device. The plain recipe
is how one would write both stages first: a DataLoader with a worker for each processor that decodes, makes floats and
resizes, a forward pass for each branch, full precision, PyTorch's own layout and optimizers, no augmentation.

The report adds: losses beside the CPU's, bf16 beside fp32, resuming, compilation, memory, the largest kernels, and what
the whole method takes on as many pictures as BAM has. Those are links to the stand-in's; all fills 35 GB of TMPDIR.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain, cycle, islice, repeat
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cross_entropy, triplet_margin_loss
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

import dataset
import utils
from experiments import SCRIPTS, call, markdown
from networks import EmbeddingNet, StyleClassifier, load_net
from triplet_network import draw_triplets

SMALL, MIDDLE, WHOLE = 990, 22_000, 121_000  # pictures: for a CPU, for a card, of BAM
PLAIN_SECONDS = 3  # of a turn of the plain recipe, at least
LEARNING_EPOCHS = (30, 10)  # of both stages, in fp32 and in bf16


def get_parser() -> argparse.ArgumentParser:
    """The options."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m experiments.speed", description=__doc__, formatter_class=layout)
    add = parser.add_argument
    add("--image-size", type=int, default=224, metavar="PIXELS", help="default 224")
    add("--batch-size", type=int, default=64, metavar="N", help="default 64")
    add("--arch", default="alexnet", metavar="NAME", help="default alexnet")
    add("--repeats", type=int, default=5, metavar="N", help="rounds, over which medians are taken; default 5")
    add("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    add("--amp", choices=("auto", "off", "bf16", "fp16"), default="auto", help="not of the plain recipe; default auto")
    add("--pictures", type=int, metavar="N", help=f"default {SMALL}, on a card {MIDDLE}, in its report {WHOLE}")
    add("--json", type=Path, metavar="FILE", help="write every round's numbers to a file too")
    add("--gpu-report", type=Path, metavar="FILE", help="write a report in Markdown instead")
    return parser


def main(args: argparse.Namespace) -> None:
    """Measure and print a table, or write the report. Raises `UserError`."""
    args.device, precision = map(str, utils.choose_device(args))
    cores, name = os.cpu_count(), "CPU" if args.device == "cpu" else torch.cuda.get_device_name()
    machine = f"{name}, {cores} cores, torch {torch.__version__}, {args.arch}, {args.image_size} px, {precision}"
    count = args.pictures or (SMALL if args.device == "cpu" else WHOLE if args.gpu_report else MIDDLE)
    with tempfile.TemporaryDirectory(prefix="speed-", ignore_cleanup_errors=True) as scratch:
        if args.gpu_report:
            write_report(args, machine, Path(scratch), count)
            return
        speeds = measure(args, make_collection(Path(scratch), count), args.repeats)
    print(f"\n{machine}; pictures a second, medians of {args.repeats} rounds:\n\n{tabulate(speeds)}")
    if args.json:
        utils.write_whole(args.json, json.dumps({"machine": machine, **speeds}, indent=2).encode())


def make_collection(scratch: Path, count: int) -> Path:
    """A folder of `count` stand-in pictures of 256 pixels, in all styles by turns, with its index and 80:10:10 splits.

    Up to 990 are drawn, and are there several times; each is always in the same split.
    """
    folder, drawn, rows = scratch / f"pictures-{count}", scratch / "drawn", []
    if folder.exists():
        return folder
    if not drawn.exists():
        options = ["--size", "256", "--per-cell", str(max(2, min(10, count // 99)))]
        subprocess.run([sys.executable, "-m", "standin", str(drawn), *options], check=True, stdout=subprocess.DEVNULL)
    files = sorted(drawn.glob("*/*/*.jpg"), key=lambda path: path.parts[:-4:-1])
    folder.mkdir()
    for number, place in zip(range(count), cycle(range(len(files)))):
        split = {8: "val", 9: "test"}.get(place % 10, "train")
        rows.append((f"{number:06d}.jpg", *files[place].parts[-3:-1], split))
        os.link(files[place], folder / rows[-1][0])
    utils.write_table(folder / "index.csv", ("path", "style", "content", "split"), rows)
    return folder


def train(args: argparse.Namespace, data: Path, name: str, stage: int, *options: object) -> list[dict[str, float]]:
    """Train a stage by its script, in the folder NAME-STAGE; stage 2 from NAME-1. Returns the rows of metrics.csv."""
    run = data.parent / f"{name}-{stage}"
    if "--resume" not in options:
        shutil.rmtree(run, ignore_errors=True)
    fresh = ("--arch", args.arch, "--image-size", args.image_size)
    net = ("--stage1", run.with_name(f"{name}-1")) if stage == 2 else fresh
    common = ("--device", args.device, "--amp", args.amp, "--batch-size", args.batch_size, "--no-visdom")
    call(SCRIPTS[stage], *net, *common, "--data", data, "--run", run, *options, log=run.with_suffix(".log"))
    (run / utils.RESUME).unlink()
    return [{key: float(value) for key, value in row.items()} for row in utils.read_table(run / utils.METRICS)]


# Pictures a second.


def measure(args: argparse.Namespace, data: Path, repeats: int, compiled: bool = False) -> dict[str, dict[str, list]]:
    """Pictures a second by stage and contender, in turns, a number for each round."""
    collection = dataset.read_collection(data)
    speeds: dict[str, dict[str, list]] = {f"stage {stage}": defaultdict(list) for stage in SCRIPTS}
    for stage, found in list(zip(SCRIPTS, speeds.values(), strict=True)) * repeats:
        found["plain recipe"].append(time_plain_recipe(args, collection, stage))
        found["this project"].append(time_script(args, data, "ours", stage))
        with patch.object(SCRIPTS[stage], "batches", ready_batches):
            found["net alone"].append(time_script(args, data, "alone", stage))
        if compiled:
            found["compiled"].append(time_script(args, data, "compiled", stage, "--compile"))
    return speeds


def time_script(args: argparse.Namespace, data: Path, name: str, stage: int, *options: str) -> float:
    """Pictures a second of a stage's script, of which the first epoch does not count."""
    rows = train(args, data, name, stage, "--epochs", 3, *options)
    return statistics.median(row["images_per_second"] for row in rows[1:])


def ready_batches(squares: Tensor, plan: Sequence[Tensor], *view: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """As `dataset.batches`, but that every batch has the pictures of the first one, which is the largest."""
    _, pictures = next(dataset.batches(squares, plan[:1], *view))
    for rows in torch.cat(list(plan))[..., 0].to(pictures.device).split([len(batch) for batch in plan]):
        yield rows, pictures[: rows.numel()]


class PlainPictures(Dataset):
    """Examples: the pictures of `rows`, int64 [n, k], float [3, size, size] each, and the style of the first."""

    def __init__(self, collection: dataset.Collection, rows: np.ndarray, size: int) -> None:
        self.collection, self.rows = collection, rows
        centre = transforms.Normalize(*dataset.COLOURS["centred"])
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Resize((size, size)), centre])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> tuple[Any, ...]:
        files = [self.collection.folder / self.collection.paths[row] for row in self.rows[place]]
        pictures = [self.transform(Image.open(file).convert("RGB")) for file in files]
        return *pictures, self.collection.number["style"][self.rows[place, 0]]


def train_plainly(args: argparse.Namespace, collection: dataset.Collection, stage: int, workers: int) -> Iterator[int]:
    """Train by the plain recipe, epoch after epoch; yields the number of pictures after each step, its loss read."""
    torch.backends.cudnn.allow_tf32 = True  # as PyTorch has it by itself
    device, net = torch.device(args.device), EmbeddingNet(args.arch)
    net = (StyleClassifier(net, len(collection.classes["style"])) if stage == 1 else net).to(device).train()
    optimizer = (torch.optim.Adam if stage == 1 else torch.optim.SGD)(net.parameters(), lr=0.001)
    rows = np.flatnonzero(collection.split == "train")
    triplets, _ = draw_triplets(*collection.number.values(), rows, np.random.default_rng(0))
    examples = PlainPictures(collection, rows[:, None] if stage == 1 else triplets, args.image_size)
    how = {"num_workers": workers, "persistent_workers": True, "pin_memory": device.type == "cuda"}
    loader = DataLoader(examples, args.batch_size, shuffle=True, **how)
    for *pictures, styles in chain.from_iterable(repeat(loader)):
        outputs = [net(part.to(device, non_blocking=True)) for part in pictures]
        loss = cross_entropy(*outputs, styles.to(device)) if stage == 1 else triplet_margin_loss(*outputs, margin=0.2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
        yield len(pictures) * len(styles)


def time_plain_recipe(args: argparse.Namespace, collection: dataset.Collection, stage: int) -> float:
    """Pictures a second of the plain recipe, after those that its workers have fetched ahead."""
    workers, seen, began = len(os.sched_getaffinity(0)), 0, 0.0
    steps = train_plainly(args, collection, stage, workers)
    for _ in islice(steps, 1 + 2 * workers):
        began = time.perf_counter()
    while time.perf_counter() - began < PLAIN_SECONDS:
        seen += next(steps)
    return seen / (time.perf_counter() - began)


def tabulate(speeds: dict[str, dict[str, list]]) -> str:
    """The contenders side by side, and the medians of each round's ratios."""
    rows = []
    for stage, found in speeds.items():
        plain, ours, alone, *_ = found.values()
        times, share = (np.median(np.divide(ours, other)) for other in (plain, alone))
        rows.append([stage, *(f"{np.median(one):,.0f}" for one in found.values()), f"{times:.2f}", f"{share:.3f}"])
    return markdown(["", *found, "times plain", "of the net"], rows)


# The report.


def write_report(args: argparse.Namespace, machine: str, scratch: Path, count: int) -> None:
    """Write FILE section by section; one that fails leaves its traceback there, and the others go on."""
    small, middle = (make_collection(scratch, min(count, size)) for size in (SMALL, MIDDLE))
    here, cpu, bf16 = ("--amp", "off"), ("--amp", "off", "--device", "cpu"), ("--amp", "bf16")
    sections = {
        "Beside the CPU": partial(compare, args, small, {"CPU": cpu, "here": here}, (2, 2)),
        "Learning in bf16": partial(compare, args, small, {"fp32": here, "bf16": bf16}, LEARNING_EPOCHS),
        "Stopped and resumed": partial(compare_resumed, args, small),
        "Pictures a second": lambda: tabulate(measure(args, middle, 1, compiled=args.device != "cpu")),
        "The whole method": partial(extrapolate, args, scratch, count),
        "The ten largest kernels": partial(find_kernels, args, small),
    }
    text = f"# Speed report\n\n{machine}.\n"
    for title, section in sections.items():
        began = time.perf_counter()
        try:
            body = section()
        except Exception:  # of whatever kind: what else can be measured is worth having
            body = f"```\n{traceback.format_exc()}```\n"
        text += f"\n## {title}\n\n{body}\n*{time.perf_counter() - began:.0f} s*\n"
        utils.write_whole(args.gpu_report, text.encode())
        print(f"{args.gpu_report}: {title}")


def compare(args: argparse.Namespace, data: Path, ways: dict[str, tuple[str, ...]], epochs: tuple[int, int]) -> str:
    """Both stages on the stand-in in several ways: what their last epochs say."""
    columns, rows = ("train_loss", "val_loss", "val_accuracy", "val_map"), []
    for way, options in ways.items():
        for stage in SCRIPTS:
            last = train(args, data, way, stage, "--epochs", epochs[stage - 1], *options)[-1]
            numbers = [f"{last[name]:.5f}" if name in last else "" for name in columns]
            rows.append([stage, epochs[stage - 1], way, *numbers])
    return markdown(["stage", "epochs", "", *columns], sorted(rows, key=lambda row: row[0]))


def compare_resumed(args: argparse.Namespace, data: Path) -> str:
    """Three epochs of stage 1, stopped after the first and resumed, beside the same without."""
    end_epoch = utils.Run.end_epoch

    def end_and_stop(run: utils.Run, *values: Any) -> None:
        end_epoch(run, *values)
        raise KeyboardInterrupt

    train(args, data, "straight", 1, "--epochs", 3)
    with suppress(KeyboardInterrupt), patch.object(utils.Run, "end_epoch", end_and_stop):
        train(args, data, "stopped", 1, "--epochs", 3)
    train(args, data, "stopped", 1, "--epochs", 3, "--resume")
    straight, stopped = (load_net(data.parent / f"{name}-1")[1].state_dict() for name in ("straight", "stopped"))
    off = max((straight[name].double() - stopped[name]).abs().max().item() for name in straight)
    return f"The largest difference of a weight is {off:.3g}.\n"


def extrapolate(args: argparse.Namespace, scratch: Path, count: int) -> str:
    """Three epochs of each stage on `count` pictures, and what the whole method would take."""
    data = make_collection(scratch, count)
    collection, began = dataset.read_collection(data), time.perf_counter()
    dataset.load_pictures(collection, args.image_size, torch.device("cpu"), None)
    reading, whole, rows = time.perf_counter() - began, 0.0, []
    for stage, epochs in (1, 30), (2, 50):
        began, found = time.perf_counter(), train(args, data, "whole", stage, "--epochs", 3)
        start = time.perf_counter() - began - sum(row["seconds"] for row in found)
        epoch, speed = (statistics.median(row[name] for row in found[1:]) for name in ("seconds", "images_per_second"))
        whole += start + epochs * epoch
        memory = torch.cuda.max_memory_allocated() / 1e9  # 0 without a card
        rows.append([stage, epochs, f"{speed:,.0f}", f"{start:.0f}", f"{epoch:.1f}", f"{memory:.1f}"])
    table = markdown(["stage", "epochs", "pictures/s", "start (s)", "epoch (s)", "peak memory of the card (GB)"], rows)
    said = f"{whole / 60:.1f} minutes, after {reading:.0f} s of reading them once ({count / reading:,.0f} pictures/s)"
    return f"{table}\n{count:,} pictures, both stages: {said}.\n"


def find_kernels(args: argparse.Namespace, data: Path) -> str:
    """What takes most of the device's time in two epochs of each stage."""
    kind, text = args.device.split(":")[0], ""
    for stage in SCRIPTS:
        with profile(activities=[getattr(ProfilerActivity, kind.upper())]) as found:
            train(args, data, "profiled", stage, "--epochs", 2)
        table = found.key_averages().table(f"self_{kind}_time_total", row_limit=10, max_name_column_width=60)
        text += f"Stage {stage}:\n\n```\n{table}\n```\n"
    return text


if __name__ == "__main__":
    raise SystemExit(utils.run_script(main, get_parser()))
