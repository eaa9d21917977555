"""The loop around both stages: epochs, batches, checkpoints, curves; on one device or under `torchrun` on many.

A stage says what is particular to it in a `Task`; everything here is the same for both. What happens in a step is a
pure function of the run's seed, the epoch and the step, so that a run that was stopped anywhere goes on exactly.
"""

from __future__ import annotations

import argparse
import copy
import math
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

import parallel
from augmentation import draw_crops, prepare
from curves import VisdomView, draw_curves, thin
from networks import check_weights, is_plain
from pictures import Pictures
from run_folder import (
    BEST,
    BEST_FORMAT,
    CURVES,
    LAST,
    LAST_FORMAT,
    METRICS,
    read_checkpoint,
    write_checkpoint,
    write_metrics,
)  # fmt: skip
from utils import Interrupted, UserError, catch_signals, derive_seed, write_whole

INTERVAL = 10  # steps between two looks at the losses; a look waits for the device
NOT_FINITE_IN_A_ROW = 3
SAVING_SHARE = 0.05  # of the time, at most, goes into checkpoints at the ends of epochs


@dataclass
class Task:
    """What is particular to a stage.

    `net` takes pictures, float [n, 3, size, size]; `plan(epoch)` gives the epoch's batches of rows, each int64
    [b, k]: k pictures make one example; `losses(outputs, rows)` turns the net's outputs and the rows into each
    example's loss, float [b], and whether it was right, bool [b]; `validate()` gives the validation columns of
    `metrics.csv`; `score` names the one by which the best epoch is chosen (the higher the better); `rebuild` is what
    `best.pt` holds besides the weights. With `active_only` a step goes by the mean loss of the batch's examples whose
    loss is not zero; otherwise by that of all.
    """

    net: nn.Module
    optimizer: torch.optim.Optimizer
    plan: Callable[[int], list[np.ndarray]]
    losses: Callable[[Any, Tensor], tuple[Tensor, Tensor]]
    validate: Callable[[], dict[str, float]]
    columns: tuple[str, ...]
    score: str
    rebuild: dict[str, Any]
    active_only: bool = False


@dataclass
class Progress:
    """How far a run is: plain data, kept in `last.pt`."""

    epoch: int = 1  # the epoch under way, counted from 1
    step: int = 0  # steps done in it
    loss_sum: float = 0.0
    right_sum: float = 0.0
    examples: int = 0
    train_seconds: float = 0.0
    best_score: float = -math.inf
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    batch_losses: list[tuple[int, float]] = field(default_factory=list)


def read_progress(stored: Any, columns: tuple[str, ...]) -> Progress:
    """A progress out of `last.pt`. Raises `ValueError` or `TypeError` for what is none."""
    progress, fresh = Progress(**stored), Progress()
    for name, value in vars(fresh).items():
        kinds = (int, float) if isinstance(value, float) else (type(value),)
        if type(getattr(progress, name)) not in kinds:
            raise TypeError(f"{name} is of another type")
    rows_fit = all(
        isinstance(row, dict) and all(type(row.get(name)) in (int, float) for name in columns)
        for row in progress.history
    )
    pairs_fit = all(
        isinstance(pair, (tuple, list)) and [type(part) for part in pair] == [int, float]
        for pair in progress.batch_losses
    )
    if not (rows_fit and pairs_fit and progress.epoch == len(progress.history) + 1 and progress.step >= 0):
        raise ValueError("its history is not one")
    return progress


def split_evenly(rows: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Cut rows, int64 [n, k], into as few batches of at most `batch_size` as possible, all but equally large.

    A small rest at the end of an epoch would make one noisy step.
    """
    return np.array_split(rows, -(-len(rows) // batch_size))


def rate_at(step: int, steps: int, peak: float, warm_up: int, decay: str) -> float:
    """The learning rate at a step of a run: linear warm-up to `peak`, then half a cosine to zero, or ("none") constant."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    if decay == "none":
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


@dataclass
class Equipment:
    """What both stages run on: the pictures, the device, the precision, and where the curves are shown."""

    pictures: Pictures
    device: torch.device
    precision: torch.dtype | None
    image_size: int
    colours: tuple[tuple[float, ...], tuple[float, ...]]  # mean and deviation of each channel, of values in [0, 1]
    view: VisdomView | None = None

    def __post_init__(self) -> None:
        self.mean, self.deviation = (torch.tensor(values, device=self.device) for values in self.colours)

    def prepare(self, squares: Tensor, crops: Tensor | None = None) -> Tensor:
        """Turn squares, uint8 [n, side, side, 3], into what the net sees, float [n, 3, image_size, image_size]."""
        return prepare(squares, self.image_size, self.mean, self.deviation, crops)


@torch.inference_mode()
def predict(net: Callable[[Tensor], Tensor], rows: np.ndarray, equipment: Equipment, batch_size: int = 256) -> Tensor:
    """Outputs of a net for the given rows, int64 [n], in full precision and without augmentation: float32 [n, d].

    The processes of a `torchrun` share the work; each returns the whole.
    """
    mine = parallel.shard(rows)
    if not len(mine):
        mine = rows[:1]  # more processes than rows: this one's output is dropped when they are put together
    batches = [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]
    outputs = [net(equipment.prepare(squares)).float() for squares in equipment.pictures.batches(batches)]
    return parallel.gather_shards(torch.cat(outputs), len(rows))


def train(task: Task, run: Path, args: argparse.Namespace, equipment: Equipment) -> Progress:
    """Train `task` to the end of its epochs, from wherever the run folder's `last.pt` stands.

    Raises `Interrupted` after saving when asked to stop, and `UserError` when the losses stop being finite.
    """
    loop = Loop(task, run, args, equipment)
    loop.restore()
    with catch_signals() as signals:
        while loop.progress.epoch <= args.epochs:
            loop.run_epoch(signals)
    if not loop.all_finite():  # of the last steps, too few to be told by their losses
        raise UserError(
            f"the weights stopped being finite in epoch {args.epochs}; what was good before is kept in {run}; "
            f"try a smaller --lr or --amp off in a new --run"
        )
    return loop.progress


class Loop:
    """A run in training: its progress, its best weights so far, and the steps that change them."""

    def __init__(self, task: Task, run: Path, args: argparse.Namespace, equipment: Equipment) -> None:
        self.task, self.run, self.args, self.equipment = task, run, args, equipment
        self.device = equipment.device
        self.progress = Progress()
        self.best_weights: dict[str, Tensor] | None = None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=equipment.precision == torch.float16)
        self.forward = parallel.wrap(task.net, self.device)
        if args.compile:
            self.forward = torch.compile(self.forward)
        self.saved_at, self.saving_seconds = time.monotonic(), 0.0
        self.not_finite = 0  # steps in a row

    # The state on disk.

    def restore(self) -> None:
        """Go on from `last.pt`, if there is one. Raises `UserError` if there was one, as `metrics.csv` shows."""
        path = self.run / LAST
        if not path.exists():
            if (self.run / METRICS).exists():
                raise UserError(f"{path}: is gone, and the run cannot go on without it; choose a new --run")
            return
        state = read_checkpoint(path, LAST_FORMAT)
        try:
            check_weights(self.task.net, state["net"], str(path))
            self.task.net.load_state_dict(state["net"])
            self.restore_optimizer(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.progress = read_progress(state["progress"], self.task.columns)
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise UserError(f"{path}: does not fit this run ({type(error).__name__}); choose a new --run") from error
        if parallel.rank() == 0:
            self.write_views()
            done = f"epoch {self.progress.epoch - 1}" + f", step {self.progress.step}" * bool(self.progress.step)
            print(f"going on after {done} of {self.args.epochs} epochs")

    def restore_optimizer(self, state: dict[str, Any]) -> None:
        """Give the optimizer its state, on memory of its own. Raises `ValueError` for one of other weights.

        Only its tensors are taken: what its settings are, the run's options say.
        """
        own = self.task.optimizer.state_dict()
        parameters = [parameter for group in self.task.optimizer.param_groups for parameter in group["params"]]
        for number, values in state["state"].items():
            for value in values.values():
                if isinstance(value, Tensor) and not (
                    is_plain(value) and value.shape in (parameters[number].shape, torch.Size([]))
                ):
                    raise ValueError(f"the state of parameter {number} has another shape")
        self.task.optimizer.load_state_dict(copy.deepcopy({**own, "state": state["state"]}))

    def save(self) -> None:
        """Write `best.pt`, if there is a better one, then `last.pt`, then the views of the history.

        In this order: a kill between the two makes the run repeat the epoch and find the same best weights again.
        """
        if parallel.rank() != 0:
            return
        began = time.monotonic()
        self.save_best()
        if not self.all_finite():
            return  # the last weights that were good stay; the losses will tell within a few steps
        state = {
            "format": LAST_FORMAT,
            "net": self.task.net.state_dict(),
            "optimizer": self.task.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "progress": asdict(self.progress),
        }
        write_checkpoint(self.run / LAST, state)
        self.write_views()
        self.saved_at = time.monotonic()
        self.saving_seconds = self.saved_at - began

    def save_best(self) -> None:
        """Write `best.pt`, if there are better weights than it holds."""
        if self.best_weights is None or parallel.rank() != 0:
            return
        best = {"format": BEST_FORMAT, **self.task.rebuild, "weights": self.best_weights}
        best |= {"epoch": self.progress.best_epoch, "score": self.progress.best_score}
        write_checkpoint(self.run / BEST, best)
        self.best_weights = None

    def all_finite(self) -> bool:
        """Whether all weights, and what batch norm has counted, are finite."""
        return all(bool(tensor.isfinite().all()) for tensor in self.task.net.state_dict().values())

    def write_views(self) -> None:
        """Write `metrics.csv` and, at the end of an epoch, `curves.png`; show the same in Visdom."""
        progress = self.progress
        write_metrics(self.run / METRICS, self.task.columns, progress.history)
        if progress.history and not progress.step:
            curves = draw_curves(self.task.columns, progress.history, progress.batch_losses)
            write_whole(self.run / CURVES, curves)
        self.show()

    def show(self) -> None:
        """Show the history in Visdom, if there is a view."""
        if self.equipment.view is not None:
            self.equipment.view.show(self.progress.history, self.progress.batch_losses)

    # An epoch.

    def run_epoch(self, signals: list[int]) -> None:
        """Train the rest of the epoch under way, validate, keep the weights if they are the best, save."""
        progress, task = self.progress, self.task
        batches = task.plan(progress.epoch)
        task.net.train()
        self.train_steps(batches, signals)
        task.net.eval()
        parallel.share_buffers(task.net)
        validating = time.monotonic()
        validated = task.validate()
        row = {
            "epoch": progress.epoch,
            "train_loss": progress.loss_sum / max(1, progress.examples),
            task.columns[2]: progress.right_sum / max(1, progress.examples),
            **validated,
            "lr": self.rate_of(progress.epoch, len(batches) - 1, len(batches)),
            "images_per_second": sum(batch.size for batch in batches) / max(1e-9, progress.train_seconds),
            "seconds": progress.train_seconds + time.monotonic() - validating,
        }
        progress.history.append(row)
        if row[task.score] > progress.best_score and self.all_finite():
            progress.best_score, progress.best_epoch = row[task.score], progress.epoch
            self.best_weights = {name: value.detach().clone() for name, value in task.net.state_dict().items()}
        progress.batch_losses = thin(progress.batch_losses)
        progress.epoch, progress.step, progress.examples = progress.epoch + 1, 0, 0
        progress.loss_sum = progress.right_sum = progress.train_seconds = 0.0
        self.end_epoch(row)

    def end_epoch(self, row: dict[str, float]) -> None:
        """Say what the epoch brought; save if it is the first or last, or if saving now takes little of the time."""
        if parallel.rank() == 0:
            numbers = "  ".join(f"{name} {row[name]:.4g}" for name in self.task.columns[1:])
            best = "  (best)" if self.progress.best_epoch == row["epoch"] else ""
            tqdm.write(f"epoch {row['epoch']}/{self.args.epochs}  {numbers}{best}")
        since = time.monotonic() - self.saved_at
        if row["epoch"] in (1, self.args.epochs) or since >= self.saving_seconds / SAVING_SHARE:
            self.save()
        elif parallel.rank() == 0:
            write_metrics(self.run / METRICS, self.task.columns, self.progress.history)
            self.show()

    def train_steps(self, batches: list[np.ndarray], signals: list[int]) -> None:
        """Train on the epoch's batches, each int64 [b, k], from the step at which the progress stands."""
        progress, equipment, device = self.progress, self.equipment, self.device
        rows = [parallel.shard(batch) for batch in batches]
        crops = self.draw_crops(batches)
        todo = range(progress.step, len(batches))
        squares = equipment.pictures.batches([rows[step].ravel() for step in todo])
        on_device = torch.from_numpy(np.concatenate(rows)).to(device).split([len(part) for part in rows])
        recent: list[Tensor] = []
        # Processes agree to stop when they look, and whoever asks waits some 30 s only: ten steps of a CPU may take longer.
        interval = 1 if device.type == "cpu" and parallel.world() > 1 else INTERVAL
        began = time.monotonic()
        with tqdm(total=len(batches), initial=progress.step, desc=f"epoch {progress.epoch}", unit="step",
                  disable=None if parallel.rank() == 0 else True, leave=False) as bar:  # fmt: skip
            for step, square in zip(todo, squares, strict=True):
                self.set_rate(self.rate_of(progress.epoch, step, len(batches)))
                # Dropout draws from the global generators: each step gets its own state, whatever came before.
                torch.manual_seed(derive_seed(self.args.seed, "step", progress.epoch, step, parallel.rank()))
                recent.append(
                    self.train_step(equipment.prepare(square, crops[step]), on_device[step], len(batches[step]))
                )
                stop_now = bool(signals) and parallel.world() == 1
                if len(recent) == interval or step == len(batches) - 1 or stop_now:
                    began = self.look(batches, recent, signals, bar, began)
                    recent = []

    def train_step(self, pictures: Tensor, rows: Tensor, examples: int) -> Tensor:
        """One optimizer step; returns the losses' and right answers' sums over this process's part, float64 [2].

        `examples` counts the whole batch, over all processes: gradients are those of its mean loss, or of the mean of
        its losses above zero.
        """
        with torch.autocast(self.device.type, self.equipment.precision, enabled=self.equipment.precision is not None):
            outputs = self.forward(pictures)
        losses, right = self.task.losses(outputs, rows)
        counted: int | Tensor = examples
        if self.task.active_only:
            counted = parallel.sum_over_processes((losses > 0).sum()).clamp(min=1)
        # DistributedDataParallel averages gradients over the processes, whose parts may differ in size by one.
        self.scaler.scale(losses.sum() * (parallel.world() / counted)).backward()
        self.scaler.step(self.task.optimizer)
        self.scaler.update()
        self.task.optimizer.zero_grad(set_to_none=True)
        return torch.stack([losses.detach().double().sum(), right.double().sum()])

    def draw_crops(self, batches: list[np.ndarray]) -> list[Tensor]:
        """The crops of the epoch's pictures, on the device: for each batch, int64 [pictures, 4]."""
        sizes = [batch.size for batch in batches]
        seed = derive_seed(self.args.seed, "augmentation", self.progress.epoch)
        drawn = draw_crops(sum(sizes), self.args.crop_area, self.equipment.pictures.side, seed).split(sizes)
        # Every process draws all, and keeps those of its part of each batch.
        width = batches[0].shape[1]
        mine = [part.unflatten(0, (-1, width))[parallel.rank() :: parallel.world()].flatten(0, 1) for part in drawn]
        return list(torch.cat(mine).to(self.device).split([len(part) for part in mine]))

    def rate_of(self, epoch: int, step: int, steps: int) -> float:
        """The learning rate of a step, counted from 0, of the `steps` in an epoch."""
        total = self.args.epochs * steps
        warm_up = min(self.args.warm_up, total // 10)
        return rate_at((epoch - 1) * steps + step, total, self.args.lr, warm_up, self.args.decay)

    def set_rate(self, rate: float) -> None:
        """Give the optimizer a learning rate; groups with a share get that share of it."""
        for group in self.task.optimizer.param_groups:
            group["lr"] = rate * group.get("share", 1.0)

    def look(
        self, batches: list[np.ndarray], recent: list[Tensor], signals: list[int], bar: tqdm, began: float
    ) -> float:
        """Read the steps' losses from the device, count them, save if it is time, stop if asked to; returns the time."""
        progress = self.progress
        table = torch.zeros(len(recent) + 1, 2, dtype=torch.float64, device=self.device)
        table[:-1] = torch.stack(recent)
        table[-1, 0] = float(max(signals, default=0))
        numbers = parallel.sum_over_processes(table).tolist()
        for loss, right in numbers[:-1]:
            batch = batches[progress.step]
            progress.step += 1
            self.watch_finite(loss, batch)
            if math.isfinite(loss):
                progress.loss_sum, progress.right_sum = progress.loss_sum + loss, progress.right_sum + right
                progress.examples += len(batch)
                step = (progress.epoch - 1) * len(batches) + progress.step
                progress.batch_losses.append((step, loss / len(batch)))
        now = time.monotonic()
        speed = sum(len(batch) for batch in batches[progress.step - len(recent) : progress.step]) / (now - began)
        progress.train_seconds += now - began
        bar.set_postfix(loss=f"{progress.batch_losses[-1][1]:.3f}" if progress.batch_losses else "?", refresh=False,
                        pictures_per_second=f"{speed * batches[0].shape[1]:.0f}")  # fmt: skip
        bar.update(len(recent))
        if numbers[-1][0]:
            self.stop(signals, len(batches))
        if now - self.saved_at > 60 * self.args.checkpoint_minutes and not self.not_finite:
            self.save()
        self.show()
        return time.monotonic()

    def watch_finite(self, loss: float, batch: np.ndarray) -> None:
        """Count steps in a row whose loss is not finite; a few end the run with the checkpoints as they are."""
        self.not_finite = 0 if math.isfinite(loss) else self.not_finite + 1
        if self.not_finite == NOT_FINITE_IN_A_ROW:
            self.save_best()
            names = [self.equipment.pictures.collection.paths[row] for row in batch.ravel()[:3].tolist()]
            raise UserError(
                f"the loss stopped being finite in epoch {self.progress.epoch}, step {self.progress.step} (pictures "
                f"{', '.join(names)} and {batch.size - len(names)} more); the weights before it are kept in {self.run}; "
                f"try a smaller --lr or --amp off in a new --run"
            )

    def stop(self, signals: list[int], steps: int) -> None:
        """Save and end the run, as a signal asked for."""
        self.save()
        done = f"step {self.progress.step} of {steps} in epoch {self.progress.epoch}"
        number = max(signals, default=signal.SIGTERM)
        raise Interrupted(f"stopped after {done} and saved; the same command with --resume goes on from there", number)
