"""How fast training is, beside the plain recipe and beside the ceiling, measured in turns in one run.

    python benchmark.py                                 # on stand-in pictures, needs no data
    python benchmark.py --data DIR --json speed.json    # on your own
    python benchmark.py --whole 121000                  # 30 + 50 epochs on a made-up collection of BAM's size, for GPUs
    python benchmark.py --whole 121000 --epochs 3 3     # the same, extrapolated from three epochs each

The plain recipe (`plain_recipe.py`) is what one would write first. It gets the same net, batch and pictures, the number
of workers that suits it best, and no augmentation.
"Ours" are this project's defaults through its own loop. The ceiling is the loop's step alone, again and again on a batch
of uint8 pictures that lies on the device; cropping and centring, which are the device's work, are part of the step.
"Net" is the same without them: a batch that is ready for the net.

"Input" is the way of the pictures alone: in the plain recipe until float batches lie on the device, in this project
until uint8 batches do; "prepared" adds cropping and centring, which here is the device's work. The first reading, when
pictures are decoded once for all epochs, is reported on its own.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import gc
import io
import itertools
import multiprocessing
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import classification_net
import train
from augmentation import draw_crops
from dataset import BAM_CONTENTS, BAM_STYLES, Collection, check_trainable, read_collection
from networks import COLOURS, EmbeddingNet, StyleClassifier, build_embedding, rate_shares
from pictures import Pictures, count_processors, open_pictures
from plain_recipe import PlainPictures, endless_batches, read_only, train_stage1, train_stage2
from session import positive_integer, positive_number, workers_number
from training import Equipment, Loop, Task, split_evenly
from triplet_network import TripletNet, triplet_losses
from triplets import draw_epoch
from utils import UserError, choose_device, choose_precision, derive_seed, keep_freed_memory, run_script, write_json

HERE = Path(__file__).resolve().parent
CONTENDERS = ("plain", "ours", "ceiling", "net")
SIZES = ((256, 256), (640, 480))  # of stand-in pictures, width and height in pixels
DISTINCT = 1000  # made-up pictures that differ; larger collections repeat their files
IN_MEMORY = 2048  # pictures that the ceiling of the input takes its batches from
METHOD_EPOCHS = (30, 50)


def get_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="DIR", help="a data folder; default: stand-in pictures in a folder that is "
                        "deleted afterwards")  # fmt: skip
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda|cuda:N", help="default auto: CUDA if there")
    parser.add_argument("--amp", choices=("auto", "off", "bf16", "fp16"), default="auto", help="our mixed precision; "
                        "default auto. The plain recipe has none")  # fmt: skip
    parser.add_argument("--cache", choices=("auto", "none", "disk", "device"), default="auto", help="default auto")
    parser.add_argument("--compile", action="store_true", help="compile our net")
    parser.add_argument("--batch-size", type=positive_integer, default=64, metavar="N", help="default %(default)s")
    parser.add_argument(
        "--image-size", type=positive_integer, default=224, metavar="PIXELS", help="default %(default)s"
    )
    parser.add_argument("--repeats", type=positive_integer, default=5, metavar="N", help="rounds in which everything "
                        "takes its turn, and over which medians are taken; default %(default)s")  # fmt: skip
    parser.add_argument("--seconds", type=positive_number, default=3, metavar="S", help="of each turn, at least; default "
                        "%(default)s. Three steps are the least, whatever they take")  # fmt: skip
    parser.add_argument("--workers", type=workers_number, default=None, metavar="N|auto", help="of the plain recipe's "
                        "DataLoader; default auto: tries some and takes the best")  # fmt: skip
    parser.add_argument("--only", nargs="+", choices=("input", "stage1", "stage2"), default=["input", "stage1", "stage2"],
                        help="default: all three")  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="write the numbers to a file as well")
    parser.add_argument("--whole", type=positive_integer, metavar="N", help="instead: train both stages by their "
                        "commands on a made-up collection of N pictures (or on --data) and say what they took")  # fmt: skip
    parser.add_argument("--epochs", type=positive_integer, nargs=2, default=METHOD_EPOCHS, metavar=("E1", "E2"),
                        help="of --whole; fewer than 30 50 are extrapolated")  # fmt: skip
    return parser


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Measure, print a table, write the JSON file if asked to; return what it holds."""
    choose_device(args.device)  # complain before the pictures are drawn
    with tempfile.TemporaryDirectory(prefix="benchmark-", ignore_cleanup_errors=True) as scratch:
        folder = Path(args.data) if args.data else write_pictures(Path(scratch) / "pictures", args.whole)
        found = (measure_whole if args.whole else measure_all)(args, folder, Path(scratch))
    if args.json:
        write_json(Path(args.json), found)
    return found


def describe_machine(device: torch.device) -> str:
    """Processor, GPU and versions in words."""
    names = [platform.processor() or platform.machine()]
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")][:1] or names
    gpu = f"{torch.cuda.get_device_name(device)}, " if device.type == "cuda" else ""
    return f"{gpu}{count_processors()} cores of {names[0]}, torch {torch.__version__}"


# Stand-in pictures.


def write_pictures(folder: Path, count: int | None) -> Path:
    """Write made-up JPEG files in folders of 11 styles x 9 contents; returns the folder.

    Without a `count`, 12 of each, half of them 256 x 256 pixels and half 640 x 480. With one, `count` files of 256 x
    256 pixels, of which 1000 differ: enough for the decoder and the disk, whose work repeats.
    """
    sizes = SIZES[:1] if count else SIZES
    total = count or 12 * len(BAM_STYLES) * len(BAM_CONTENTS)
    cells = list(itertools.product(BAM_STYLES, BAM_CONTENTS))
    for style, content in cells:
        (folder / style / content).mkdir(parents=True)
    generator = np.random.default_rng(0)
    distinct = [make_up(generator, *sizes[number % len(sizes)]) for number in range(min(total, DISTINCT))]
    for number in range(total):
        style, content = cells[number % len(cells)]
        (folder / style / content / f"{number:06d}.jpg").write_bytes(distinct[number % len(distinct)])
    return folder


def make_up(generator: np.random.Generator, width: int, height: int) -> bytes:
    """A JPEG file of clouds in three sizes: about as many bytes a pixel as a painting."""
    picture = np.zeros((height, width, 3), np.float32)
    for grain, strength in ((width, 0.5), (16, 0.3), (3, 0.2)):
        noise = generator.random((max(2, height // grain), max(2, width // grain), 3), dtype=np.float32)
        picture += strength * cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", (255 * picture.clip(0, 1)).astype(np.uint8))[1].tobytes()


# The contenders.


@dataclass
class Contender:
    """Something whose speed is measured. `run(n)` does n steps, waits for the device, and returns pictures seen."""

    run: Callable[[int], int]
    warm_up: int = 1  # steps before each turn's clock starts
    speeds: list[float] = field(default_factory=list)  # pictures a second, one for each turn
    step_seconds: float = 0.0


@dataclass
class Bench:
    """What all measures share."""

    args: argparse.Namespace
    device: torch.device
    collection: Collection
    equipment: Equipment
    scratch: Path

    @property
    def rows(self) -> np.ndarray:
        """The training pictures."""
        return self.collection.rows("train")

    @property
    def pictures(self) -> Pictures:
        """The collection's pictures as this project keeps them."""
        return self.equipment.pictures

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def settings(self, stage: int) -> argparse.Namespace:
        """A stage script's defaults, with this benchmark's batch size and compilation."""
        settings = (classification_net if stage == 1 else train).get_parser().parse_args([])
        settings.batch_size, settings.compile = self.args.batch_size, self.args.compile
        settings.checkpoint_minutes = float("inf")
        return settings

    def embedding(self) -> EmbeddingNet:
        """A fresh net, the same for all."""
        torch.manual_seed(0)
        return build_embedding("alexnet", 256, "none", 0.0, self.args.image_size)


def plain(bench: Bench, what: str, workers: int) -> Contender:
    """The plain recipe of "input", "stage1" or "stage2"."""
    args, device = bench.args, bench.device
    dataset = PlainPictures(bench.collection, bench.rows, args.image_size, triplets=what == "stage2")
    batches = endless_batches(dataset, args.batch_size, workers, device)
    if what == "input":
        steps = read_only(batches, device)
    elif what == "stage1":
        steps = train_stage1(bench.embedding(), len(bench.collection.styles), batches, bench.settings(1).lr, device)
    else:
        settings = bench.settings(2)
        steps = train_stage2(bench.embedding(), batches, settings.lr, settings.momentum, settings.margin, device)

    def run(number: int) -> int:
        seen = sum(itertools.islice(steps, number))
        bench.wait()
        return seen

    return Contender(run, warm_up=1 + 2 * workers)


def make_task(bench: Bench, stage: int, settings: argparse.Namespace) -> Task:
    """The stage as its script sets it up, with the project's own parts."""
    collection, rows = bench.collection, bench.rows
    style, content = collection.style, collection.content
    target = torch.from_numpy(style).to(bench.device)
    if stage == 1:
        net: nn.Module = StyleClassifier(bench.embedding(), len(collection.styles))
        net.to(bench.device, memory_format=torch.channels_last)
        optimizer: torch.optim.Optimizer = torch.optim.Adam(
            rate_shares(net, settings.rate_width), settings.lr, fused=True
        )
    else:
        net = TripletNet(bench.embedding(), settings.length)
        net.to(bench.device, memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(net.parameters(), settings.lr, momentum=settings.momentum, fused=True)

    def plan(epoch: int) -> list[np.ndarray]:
        if stage == 2:
            return split_evenly(draw_epoch(style, content, rows, settings.seed, epoch), settings.batch_size)
        order = np.random.default_rng(derive_seed(settings.seed, "order", epoch)).permutation(rows)
        return split_evenly(order[:, None], settings.batch_size)

    def losses(outputs: Any, rows: Tensor) -> tuple[Tensor, Tensor]:
        if stage == 2:
            return triplet_losses(*outputs, settings.margin)
        wanted = target[rows[:, 0]]
        return functional.cross_entropy(outputs.float(), wanted, reduction="none"), outputs.argmax(dim=1) == wanted

    return Task(net, optimizer, plan, losses, dict, ("epoch",), "", {}, active_only=stage == 2)


def ours_and_ceilings(bench: Bench, stage: int) -> tuple[Contender, Contender, Contender]:
    """This project's loop as it trains; the step in it alone on a batch on the device; and on one that is ready."""
    settings = bench.settings(stage)
    task = make_task(bench, stage, settings)
    settings.epochs = 10**6
    loop = Loop(task, bench.scratch, settings, bench.equipment)
    task.net.train()

    def run(steps: int) -> int:
        """Steps of the loop as it trains: from rows to new weights."""
        batches: list[np.ndarray] = []
        while len(batches) < steps:
            batches += task.plan(loop.progress.epoch)
            loop.progress.epoch += 1
        loop.progress.step = 0
        loop.progress.batch_losses.clear()
        loop.train_steps(batches[:steps], [])
        bench.wait()
        return sum(batch.size for batch in batches[:steps])

    batch = task.plan(1)[0]
    squares, crops = next(iter(bench.pictures.batches([batch.ravel()]))), loop.draw_crops([batch])[0]
    ready = bench.equipment.prepare(squares, crops)
    rows = torch.from_numpy(batch).to(bench.device)

    def run_ceiling(steps: int) -> int:
        """The same steps on one batch of squares that lies on the device, which are still cropped and centred."""
        for _ in range(steps):
            loop.train_step(bench.equipment.prepare(squares, crops), rows, len(batch))
        bench.wait()
        return steps * batch.size

    def run_net(steps: int) -> int:
        """The same steps on one batch that is cropped and centred already: the net alone."""
        for _ in range(steps):
            loop.train_step(ready, rows, len(batch))
        bench.wait()
        return steps * batch.size

    return Contender(run), Contender(run_ceiling), Contender(run_net)


def ours_input(bench: Bench) -> dict[str, Contender]:
    """This project's pictures until they lie on the device; the same and prepared; an indexing in memory alone."""
    pictures, generator, size = bench.pictures, np.random.default_rng(0), bench.args.batch_size
    area = classification_net.get_parser().get_default("crop_area")
    crops = draw_crops(size, area, pictures.side, 0).to(bench.device)

    def draw(steps: int) -> list[np.ndarray]:
        return [generator.choice(bench.rows, size) for _ in range(steps)]

    def run(steps: int) -> int:
        seen = sum(len(squares) for squares in pictures.batches(draw(steps)))
        bench.wait()
        return seen

    def run_prepared(steps: int) -> int:
        seen = sum(len(bench.equipment.prepare(squares, crops)) for squares in pictures.batches(draw(steps)))
        bench.wait()
        return seen

    held = torch.cat(list(pictures.batches(split_evenly(bench.rows[:IN_MEMORY], size))))
    places = torch.from_numpy(generator.choice(len(held), (IN_MEMORY, size))).to(bench.device)

    def run_ceiling(steps: int) -> int:
        for step in range(steps):
            held.index_select(0, places[step % IN_MEMORY])
        bench.wait()
        return steps * size

    return {"ours": Contender(run), "prepared": Contender(run_prepared), "ceiling": Contender(run_ceiling)}


# Taking turns.


def peak_memory(args: argparse.Namespace, folder: Path, scratch: Path, what: str, name: str, workers: int) -> int:
    """Bytes that the plain recipe or ours takes at the peak of two steps, with its net; measured in a new process.

    Of the GPU's memory, without pictures that are kept there; or of the main process's, where there is no GPU.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(peak_memory_here, args, folder, scratch, what, name, workers).result()


def peak_memory_here(args: argparse.Namespace, folder: Path, scratch: Path, what: str, name: str, workers: int) -> int:
    """What `peak_memory` has its process do."""
    with contextlib.redirect_stdout(io.StringIO()):
        bench, _ = get_ready(args, folder, scratch)
    before = memory_until_now(bench.device)
    contender = plain(bench, what, workers) if name == "plain" else ours_and_ceilings(bench, int(what[-1]))[0]
    contender.run(2)
    return memory_until_now(bench.device) - before


def memory_until_now(device: torch.device) -> int:
    """Bytes in use at the peak of this process: of the GPU's memory, or of its own where there is none (on Linux)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    return 1024 * next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))


def take_turn(contender: Contender, seconds: float) -> None:
    """Warm up, then measure for at least `seconds` and three steps."""
    began, done = time.perf_counter(), 0
    while done < contender.warm_up and (done == 0 or time.perf_counter() - began < seconds):
        contender.run(1)
        done += 1
    estimate = contender.step_seconds or (time.perf_counter() - began) / done
    steps = max(3, round(seconds / estimate))
    began = time.perf_counter()
    seen = contender.run(steps)
    took = time.perf_counter() - began
    contender.step_seconds = took / steps
    contender.speeds.append(seen / took)


def choose_workers(bench: Bench) -> int:
    """The number of workers with which the plain recipe reads fastest here."""
    if bench.args.workers:
        return bench.args.workers
    speeds = {}
    for workers in sorted({max(1, count_processors() // 2), count_processors(), 2 * count_processors()}):
        contender = plain(bench, "input", workers)
        take_turn(contender, bench.args.seconds)
        take_turn(contender, bench.args.seconds)
        speeds[workers] = contender.speeds[-1]
        del contender
        gc.collect()  # ends its workers
    return max(speeds, key=speeds.__getitem__)


def measure(bench: Bench, what: str, workers: int) -> dict[str, Contender]:
    """Set up and measure the contenders of "input", "stage1" or "stage2" in turns."""
    if what == "input":
        contenders = ours_input(bench)
    else:
        contenders = dict(zip(CONTENDERS[1:], ours_and_ceilings(bench, int(what[-1])), strict=True))
    contenders["plain"] = plain(bench, what, workers)
    for contender in contenders.values():
        contender.run(2)
    for _ in range(bench.args.repeats):
        for contender in contenders.values():
            take_turn(contender, bench.args.seconds)
        time.sleep(min(1.0, bench.args.seconds))  # while the plain recipe's workers fill their queue again
    return contenders


def ratio(first: Contender, second: Contender) -> float:
    """Median over the rounds of how many times faster the first was."""
    return statistics.median(one / other for one, other in zip(first.speeds, second.speeds, strict=True))


def get_ready(args: argparse.Namespace, folder: Path, scratch: Path) -> tuple[Bench, float]:
    """Open the pictures on the device; also returns the seconds that it took."""
    device = choose_device(args.device)
    if device.type == "cpu":
        keep_freed_memory()  # as training does; the plain recipe gains a little by it too
    precision = choose_precision(args.amp, device)
    collection = read_collection(folder)
    check_trainable(collection, "style")
    cache = None if args.data else scratch / "cache"
    began = time.perf_counter()
    pictures, unreadable = open_pictures(collection, args.image_size, device, cache=args.cache, cache_dir=cache)
    opening = time.perf_counter() - began
    equipment = Equipment(pictures, device, precision, args.image_size, COLOURS["centred"])
    return Bench(args, device, collection.without(unreadable), equipment, scratch), opening


def measure_all(args: argparse.Namespace, folder: Path, scratch: Path) -> dict[str, Any]:
    """Measure the input and both stages; print the table; return the numbers."""
    bench, opening = get_ready(args, folder, scratch)
    precision = bench.equipment.precision
    name = "full precision" if precision is None else str(precision).removeprefix("torch.")
    workers = choose_workers(bench)
    found: dict[str, Any] = {"machine": describe_machine(bench.device), "precision": name, "plain_workers": workers,
                             "batch_size": args.batch_size, "image_size": args.image_size, "opening_seconds": opening,
                             "pictures": len(bench.collection)}  # fmt: skip
    print(f"{found['machine']}\n{len(bench.collection)} pictures, batches of {args.batch_size} at {args.image_size} px; ours "
          f"in {name}; the plain recipe with {workers} workers\nopening the pictures, once: {opening:.1f} s\n"
          f"pictures a second, medians of {args.repeats} rounds:\n")  # fmt: skip
    names = "".join(f"{name:>10}" for name in CONTENDERS)
    print(f"{'':10}{names}{'ours/plain':>12}{'ours/ceiling':>14}{'ours/net':>10}   peak memory")
    for what in args.only:
        contenders = measure(bench, what, workers)
        numbers = report(what, contenders)
        del contenders
        gc.collect()
        memory = {}
        if what != "input":
            memory = {each: peak_memory(args, folder, scratch, what, each, workers) for each in CONTENDERS[:2]}
        print("   " + ", ".join(f"{each} {size / 1e9:.2f} GB" for each, size in memory.items() if size), flush=True)
        found[what] = numbers | {"peak_bytes": memory}
    bench.pictures.close()
    return found


def report(what: str, contenders: dict[str, Contender]) -> dict[str, Any]:
    """Print what the table says of speed, without the line's end; return the numbers."""
    numbers: dict[str, Any] = {name: statistics.median(contender.speeds) for name, contender in contenders.items()}
    pairs = [("ours", "plain"), ("ours", "ceiling"), ("ours", "net")]
    ratios = {
        f"{one}/{other}": ratio(contenders[one], contenders[other]) for one, other in pairs if other in contenders
    }
    if "prepared" in contenders:
        gain = ratio(contenders["prepared"], contenders["plain"])
        print(f"{'prepared':10}{numbers['plain']:10.0f}{numbers['prepared']:10.0f}{'':20}{gain:11.2f}x")
    speeds = "".join(f"{numbers[name]:10.0f}" if name in numbers else f"{'':10}" for name in CONTENDERS)
    print(f"{what:10}{speeds}{ratios['ours/plain']:11.2f}x{ratios['ours/ceiling']:14.3f}", end="")
    print(f"{ratios['ours/net']:10.3f}" if "net" in contenders else f"{'':10}", end="")
    return {**numbers, **ratios, "rounds": {name: contender.speeds for name, contender in contenders.items()}}


# The whole method.


def measure_whole(args: argparse.Namespace, folder: Path, scratch: Path) -> dict[str, Any]:
    """Train both stages by their commands; print and return what they took, the first reading of the pictures apart."""
    device = choose_device(args.device)
    began = time.perf_counter()
    collection = read_collection(folder)
    indexing = time.perf_counter() - began
    began = time.perf_counter()
    pictures, _ = open_pictures(collection, args.image_size, torch.device("cpu"), cache="disk", cache_dir=scratch)
    pictures.close()
    reading = time.perf_counter() - began
    print(f"{describe_machine(device)}\n{len(collection)} pictures: index and split {indexing:.1f} s, first reading "
          f"{reading:.0f} s")  # fmt: skip
    found: dict[str, Any] = {"machine": describe_machine(device), "pictures": len(collection),
                             "index_seconds": indexing, "first_reading_seconds": reading}  # fmt: skip
    scripts = (("classification_net.py", "--image-size", args.image_size), ("train.py", "--stage1", scratch / "stage1"))
    for stage, (script, epochs, wanted) in enumerate(zip(scripts, args.epochs, METHOD_EPOCHS, strict=True), 1):
        run = scratch / f"stage{stage}"
        options = ("--data", folder, "--cache-dir", scratch, "--run", run, "--epochs", epochs, "--device", device,
                   "--amp", args.amp, "--cache", args.cache, "--batch-size", args.batch_size, "--no-visdom")  # fmt: skip
        command = [sys.executable, *map(str, (HERE / script[0], *script[1:], *options))]
        began = time.perf_counter()
        if subprocess.run(command + ["--compile"] * args.compile, check=False).returncode:
            raise UserError(f"{script[0]}: did not finish; see its own line above")
        took = time.perf_counter() - began
        with (run / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        epoch = statistics.median(float(row["seconds"]) for row in rows[1:] or rows)
        whole = took + (wanted - epochs) * epoch
        speed = statistics.median(float(row["images_per_second"]) for row in rows[1:] or rows)
        found[f"stage{stage}"] = {"seconds": took, "epochs": epochs, "epoch_seconds": epoch, "whole_seconds": whole,
                                  "ours": speed}  # fmt: skip
        print(f"stage {stage}: {epochs} epochs took {took:.0f} s, an epoch {epoch:.1f} s with its validation, training at "
              f"{speed:.0f} pictures a second; {wanted} epochs: {whole / 60:.1f} minutes")  # fmt: skip
    total = found["stage1"]["whole_seconds"] + found["stage2"]["whole_seconds"]
    print(f"{METHOD_EPOCHS[0]} + {METHOD_EPOCHS[1]} epochs: {total / 60:.1f} minutes, the first reading not counted")
    return found | {"whole_seconds": total}


if __name__ == "__main__":
    raise SystemExit(run_script(get_parser, main))
