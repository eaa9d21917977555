"""What surrounds the training of both stages: files, options, devices, processes, the run folder, curves in Visdom.

What decides weights here is `rate_at` and `mean_over_batch`, which both loops call, and the type that nets train in.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import errno
import hashlib
import io
import json
import logging
import math
import os
import platform
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import filelock
import torch
from torch import Tensor, distributed, nn
from tqdm import tqdm

CONFIG, SPLIT, METRICS, WEIGHTS, RESUME = "config.json", "split.csv", "metrics.csv", "weights.pt", "resume.pt"
# Options that say where and how a run is computed, not what: it may go on with others.
FREE = {"run", "resume", "data", "stage1", "cache", "device", "amp", "compile"}
FREE |= {"visdom", "visdom_server", "visdom_port", "env"}
SAVING_SHARE, SHOWING_SHARE = 0.05, 0.01  # of the time, at most, that goes into checkpoints and into Visdom
ADVICE = "; `python -m visdom.server -bind_local` starts one (the first start needs internet), "
ADVICE += "`ssh -R 8097:localhost:8097 gpu-box` lends gpu-box the one on your own machine"


class UserError(Exception):
    """Something that the user can change. Its message is one line: what is wrong, and the remedy."""


class Output(io.TextIOBase):
    """A stream that nobody needs to read: where it is closed, or its disk is full, training goes on in silence."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.isatty = getattr(stream, "isatty", super().isatty)
        if stream:
            stream.reconfigure(errors="backslashreplace")  # a picture's name may not fit the terminal's encoding

    def write(self, text: str) -> int:
        """Write at once."""
        with suppress(OSError, ValueError, AttributeError):
            self.stream.write(text)
            self.stream.flush()
        return len(text)


def run_script(main: Callable[[argparse.Namespace], Any], parser: argparse.ArgumentParser) -> int:
    """Run a script's `main` with the options of the command line; returns its exit status.

    0: done. 1: one line on stderr names what the user can change. 128 + n: stopped by signal n, said likewise.
    """
    sys.stdout, sys.stderr = Output(sys.stdout), Output(sys.stderr)
    stopped_by = [signal.SIGINT]

    def stop(number: int, _: Any) -> None:
        stopped_by[0] = number
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` has it
            signal.signal(number, stop)
    args, status = parser.parse_args(), 1
    try:
        main(args)
        return 0
    except (UserError, OSError) as error:  # the system's errors name their file
        message = str(error)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # once is enough
        status, message = 128 + stopped_by[0], "stopped"
        if "resume" in args and (args.run / RESUME).exists():
            done = len(torch.load(args.run / RESUME, map_location="cpu", weights_only=True, mmap=True)["history"])
            message += f"; the same command with --resume goes on after epoch {done}"
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and "DefaultCPUAllocator" not in str(error):
            raise
        message = "the memory is full; a smaller --batch-size takes less of it"
    print(f"{parser.prog}: {' '.join(message.split())}", file=sys.stderr)
    return status


def write_whole(path: Path, content: bytes | Callable[[BinaryIO], Any]) -> None:
    """Write a file whole or not at all: beside it, synced, then renamed. `content` is bytes, or writes into the file."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            content(file) if callable(content) else file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as error:  # the latter from torch.save; neither names the file
        number = getattr(error, "errno", None) or errno.ENOSPC
        raise OSError(number, os.strerror(number), str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file whole or not at all; text may hold any bytes that a file's name can."""
    text = io.StringIO()
    plain, quoting = (csv.writer(text, lineterminator="\n", quoting=how) for how in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    plain.writerow(columns)
    for row in rows:  # readers begin a new line at a carriage return that is not quoted
        (quoting if any("\r" in str(cell) for cell in row) else plain).writerow(row)
    write_whole(path, text.getvalue().encode("utf-8", "surrogateescape"))


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a CSV file, a dictionary for each row. Raises `UserError` where it is none."""
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            return list(csv.DictReader(file, strict=True, restval=""))
    except csv.Error as error:
        raise UserError(f"{path}: is not valid CSV: {error}") from error


def shown_names(folder: Path) -> set[str]:
    """The names in a folder, without hidden ones and the one that file systems put into their root."""
    return {path.name for path in folder.iterdir() if path.name[0] != "."} - {"lost+found"}


def take_lock(path: Path, wait: bool) -> filelock.FileLock:
    """Lock a file until it is released or this process ends. Raises `filelock.Timeout` where another process has it."""
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except (OSError, NotImplementedError) as error:
        if getattr(error, "errno", errno.ENOSYS) not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        print(f"note: {path.parent} is on a file system without locks; start nothing else there meanwhile")
    return lock


def positive(text: str) -> int:
    """A whole number from 1 on, as argparse takes it. Raises `ValueError` for others."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def stage_parser(description: str, run: str, epochs: int) -> argparse.ArgumentParser:
    """The options that both stages have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--run", type=Path, default=Path(run), metavar="DIR", help=f"where the run leaves everything; default {run}")
    add("--resume", action="store_true", help="with the same options: go on after the last epoch that was saved")
    add("--epochs", type=positive, default=epochs, metavar="N", help=f"default {epochs}, by the public description")
    add("--lr", type=float, default=0.001, metavar="X", help="peak rate; default 0.001, by the public description")
    add("--batch-size", type=positive, default=64, metavar="N", help="over all processes together; default 64")
    add("--seed", type=int, default=0, metavar="N", help="of weights, order, crops and triplets; default 0")
    add("--plain", action="store_true", help="take back all of DEPARTURES, the table at the head of this script")
    add("--keep", choices=("last", "best"), default="last", help="weights of which epoch; the method's is the last")
    add("--skip-unreadable", action="store_true", help="leave out pictures that cannot be decoded, instead of stopping")
    add("--cache", type=Path, metavar="DIR", help="where decoded pictures are kept; default: beside the data")
    add("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    add("--amp", choices=("auto", "off", "bf16", "fp16"), default="auto", help="mixed precision; default: where native")
    add("--compile", action="store_true", help="compile the net first, which pays in long runs")
    add("--visdom", action=argparse.BooleanOptionalAction, default=True, help="show the curves in Visdom")
    add("--visdom-server", default="http://localhost", metavar="URL", help="default http://localhost")
    add("--visdom-port", type=int, default=8097, metavar="N", help="where the URL names none; default 8097")
    add("--env", metavar="NAME", help="Visdom environment; default: the end of the run folder's path")
    return parser


def rate_at(step: int, steps: int, peak: float, warm_up: int, decay: str) -> float:
    """The learning rate at a step of the run, from 0: linear warm-up, a tenth of the run at most, then half a cosine.

    With `decay` "none" it stays at `peak`.
    """
    warm_up = min(warm_up, steps // 10)
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak if decay == "none" else peak * (0.5 + 0.5 * math.cos(math.pi * (step - warm_up) / (steps - warm_up)))


def rank() -> int:
    """This process's number among those that `torchrun` started; 0 writes, plots and prints."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """How many processes `torchrun` started; 1 without it."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def total(values: Tensor) -> Tensor:
    """Sum a tensor over all processes, in place."""
    if world() > 1:
        distributed.all_reduce(values)
    return values


def mean_over_batch(losses: Tensor, counted: Tensor) -> Tensor:
    """The mean of a batch's losses, float [b], over those that are `counted`, bool [b], in all processes together.

    Each process returns its own part, so large that the mean of their gradients is the gradient of the whole.
    """
    return (losses * counted).sum() / total(counted.sum()).clamp(min=1) * world()


def wrap(net: nn.Module, device: torch.device, compiled: bool) -> nn.Module:
    """The net as a loop calls it: its gradients are the mean over all processes; compiled if asked for."""
    if world() > 1:
        ids = [device] if device.type == "cuda" else None
        net = nn.parallel.DistributedDataParallel(nn.SyncBatchNorm.convert_sync_batchnorm(net) if ids else net, ids)
    return torch.compile(net) if compiled else net


def choose_device(args: argparse.Namespace) -> tuple[torch.device, torch.dtype]:
    """Turn --device and --amp into this process's device and the type that it trains in; join the other processes.

    Raises `UserError` for a GPU that is missing, busy, or too old for this torch; `auto` takes the CPU if there is none,
    and mixed precision where the device has units for it.
    """
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # float32 is float32 on every card
    torch.backends.cudnn.deterministic = True  # the same numbers for the same seed
    name, amp, many = args.device, args.amp, distributed.is_torchelastic_launched()
    device, types = torch.device("cpu"), {"off": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if name != "cpu":
        try:
            torch.cuda.init()
            device = torch.device(
                f"cuda:{os.environ['LOCAL_RANK']}" if many else "cuda:0" if name in ("auto", "cuda") else name
            )
            torch.cuda.set_device(device)
            torch.ones(1, device=device).item()
        except (RuntimeError, AssertionError, ValueError) as error:
            reason = str(error).split(". ")[0].splitlines()[0]
            if name != "auto" or torch.cuda.is_initialized():
                raise UserError(f"--device {name}: {reason}; choose another, or --device cpu") from error
            print(f"device: the CPU ({reason})")
    if many and not distributed.is_initialized():
        # Time enough for the first process to decode all pictures.
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(hours=6))
        sys.stdout = sys.stdout if rank() == 0 else Output(None)
    if amp == "auto" and device.type == "cuda":
        major, _ = torch.cuda.get_device_capability()
        amp = "bf16" if major >= 8 else "fp16" if major >= 7 else "off"
    elif amp == "auto":
        cpuinfo = Path("/proc/cpuinfo")
        amp = "bf16" if cpuinfo.exists() and "amx_bf16" in cpuinfo.read_text() else "off"
    if amp == "fp16" and device.type == "cpu":
        raise UserError("--amp fp16: needs a GPU; take --amp auto")
    if device.type == "cpu" and platform.libc_ver()[0] == "glibc":
        # Freed memory is kept: clearing it anew for each large tensor takes a quarter of the time in bfloat16.
        for parameter, value in ((-4, 0), (-1, 2**31 - 1)):  # M_MMAP_MAX and M_TRIM_THRESHOLD in malloc.h
            ctypes.CDLL("libc.so.6").mallopt(parameter, value)
    print(f"device: {torch.cuda.get_device_name() if device.type == 'cuda' else 'CPU'}, {types[amp]}")
    return device, types[amp]


class Run:
    """A run and its folder: config.json, split.csv, metrics.csv, weights.pt, resume.pt; see README.md.

    `facts` has the parts of config.json beside the options; its "net" is in weights.pt too. `split` has the rows of
    split.csv. `score` names the column of metrics.csv that tells the best epoch.
    """

    def __init__(
        self, args: argparse.Namespace, facts: dict[str, Any], split: Iterable[Sequence[str]], score: str
    ) -> None:
        self.args, self.folder, self.facts, self.score = args, args.run, facts, score
        self.history: list[dict[str, float]] = []
        self.best: dict[str, float] = {"epoch": 0, score: -math.inf}
        self.losses: list[float] = []  # of each step, as the mean over its batch
        self.epoch_steps, self.recent, self.sums = 0, [], torch.zeros(3, dtype=torch.float64)
        self.saved_at, self.saving_seconds = time.monotonic(), 0.0
        if rank() == 0:
            self.open_folder(split)
        self.curves = Curves(self)

    def open_folder(self, split: Iterable[Sequence[str]]) -> None:
        """Make the folder of a new run, or see that it holds this run. Raises `UserError`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # Paths in full: the next start may be from another folder.
        options = json.loads(json.dumps(vars(self.args), default=lambda path: str(path.resolve())))
        there = shown_names(self.folder) - {CONFIG, SPLIT}
        problem = "" if METRICS in there or not there else "holds something else; empty it"
        if METRICS in there and not self.args.resume:
            problem = "holds a run already; go on with it by --resume"
        elif METRICS in there:
            before = json.loads((self.folder / CONFIG).read_text(encoding="utf-8"))
            other = {name: before["options"].get(name) for name in options.keys() - FREE}
            other = [f"--{name} {value}" for name, value in other.items() if value != options[name]]
            start = f"{'--weights' if 'weights' in options else '--stage1'} {self.folder}"
            if other:
                began = " ".join(other).replace("_", "-")
                problem = f"began with {began}; give the same, or start from its weights by {start}"
            elif before["data"]["fingerprint"] != self.facts["data"]["fingerprint"]:
                problem = "began with other pictures, labels or splits; restore these"
            elif before["net"] != self.facts["net"]:
                problem = "began from another --stage1; give that"
        try:
            self.lock = None if problem else take_lock(self.folder / ".lock", wait=False)
        except filelock.Timeout:
            problem = "another process trains in it; wait for it"
        if problem:
            raise UserError(f"--run {self.folder}: {problem}, or choose another folder")
        if not there:
            write_table(self.folder / SPLIT, ("path", "split"), split)
            config = {"options": options, **self.facts, "torch": torch.__version__}
            write_whole(self.folder / CONFIG, json.dumps(config, indent=2).encode())

    def restore(self, net: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> int:
        """Go on from resume.pt if the run has begun; returns how many epochs are done."""
        if (self.folder / RESUME).exists():
            state = torch.load(self.folder / RESUME, map_location="cpu", weights_only=True)
            net.load_state_dict(state.pop("net"))
            optimizer.load_state_dict(state.pop("optimizer"))
            scaling = state.pop("scaler")
            if scaling and scaler.is_enabled():  # a run may go on on another kind of GPU
                scaler.load_state_dict(scaling)
            vars(self).update(state)
            print(f"going on after epoch {len(self.history)} of {self.args.epochs}")
        self.curves.show()
        return len(self.history)

    def watch(self, batches: Iterable[Any], count: int) -> Iterator[tuple[int, Any]]:
        """Go through an epoch's `count` batches behind a bar; with each comes the step of the run, counted from 0."""
        epoch, self.epoch_steps = len(self.history) + 1, count
        self.began, self.recent, self.sums = time.monotonic(), [], torch.zeros(3, dtype=torch.float64)
        bar = tqdm(batches, f"epoch {epoch}", count, leave=False, file=sys.stdout, disable=None)
        yield from enumerate(bar, (epoch - 1) * count)
        self.look()
        self.seconds = time.monotonic() - self.began

    def note(self, losses: Tensor, right: Tensor) -> None:
        """Take a step's losses, float [b], and which examples were right, bool [b]; they are read every ten steps."""
        self.recent.append(torch.stack([losses.detach(), right.to(losses.dtype), torch.ones_like(losses)]).sum(dim=1))
        if len(self.recent) == 10:
            self.look()

    def look(self, val_loss: float = 0.0) -> None:
        """Read the last steps' losses from the device, which waits for it. Raises `UserError` if they are not finite."""
        recent, self.recent, epoch = self.recent, [], len(self.history) + 1
        for step in total(torch.stack(recent).double()).cpu() if recent else []:
            self.losses.append((step[0] / step[2]).item())
            self.sums += step
        if not math.isfinite(self.sums[0].item() + val_loss):
            raise UserError(
                f"the loss is not finite in epoch {epoch}; {self.folder} keeps what was saved before; try a smaller --lr, "
                f"or --amp off, in a new --run"
            )
        if recent:
            self.curves.show()

    def end_epoch(
        self, validated: dict[str, float], rate: float, pictures: int, net: nn.Module, optimizer: Any, scaler: Any
    ) -> None:
        """Add a row to metrics.csv; save in the first and last epoch, and where that takes little of the time.

        `validated` has the columns val_loss, val_<right> and more; `net` an `embedding` and, in stage 1, a `head`.
        `pictures` is how many were trained on. Raises `UserError` for a loss that is not finite.
        """
        self.look(validated["val_loss"])
        epoch, right = len(self.history) + 1, list(validated)[1].replace("val", "train")
        loss, accuracy, _ = (self.sums / self.sums[2]).tolist()
        row = {"epoch": epoch, "train_loss": loss, right: accuracy, **validated, "lr": rate}
        row |= {"images_per_second": pictures / self.seconds, "seconds": time.monotonic() - self.began}
        self.history.append(row)
        if rank():
            return
        better = row[self.score] > self.best[self.score]
        if better:
            self.best = row
        rows = ([f"{value:.6g}" for value in one.values()] for one in self.history)
        write_table(self.folder / METRICS, list(row), rows)
        began = time.monotonic()
        due = (began - self.saved_at) * SAVING_SHARE > self.saving_seconds or epoch in (1, self.args.epochs)
        if better if self.args.keep == "best" else due:
            parts = {name: part.state_dict() for name, part in net.named_children()}
            weights = on_cpu({**self.facts["net"], "epoch": epoch, **parts})
            write_whole(self.folder / WEIGHTS, lambda file: torch.save(weights, file))
        if due:  # after the weights: a kill in between has this epoch come again, with the same ones
            state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "scaler": scaler.state_dict()}
            state = on_cpu(state) | {name: vars(self)[name] for name in ("history", "best", "losses", "epoch_steps")}
            write_whole(self.folder / RESUME, lambda file: torch.save(state, file))
            self.saved_at, self.saving_seconds = time.monotonic(), time.monotonic() - began
        print("  ".join(f"{name} {value:.4g}" for name, value in row.items()), "(best)" * better)
        self.curves.show()


def on_cpu(value: Any) -> Any:
    """Plain data with its tensors on the CPU, where every machine can load them."""
    if isinstance(value, dict):
        return {name: on_cpu(part) for name, part in value.items()}
    return value.cpu() if isinstance(value, Tensor) else value


# The curves in Visdom, drawn afresh from the run's record each time: a server may come late, go, and come back.


def connect_visdom(address: str) -> Any:
    """Connect for plotting to the Visdom server at a URL with a port. Raises, of whatever kind, what tells the reason."""
    import requests
    import visdom

    class Client(visdom.Visdom):
        """Visdom's client, waiting two seconds at most for each answer, and raising what is not an answer."""

        def _handle_post(self, url: str, data: Any = None) -> str:
            self.session.trust_env = urlsplit(url).hostname not in ("localhost", "127.0.0.1")  # no proxy to oneself
            try:
                answer = self.session.post(url, data=data or {}, timeout=2, allow_redirects=False)
            except requests.RequestException as error:
                reason: BaseException = error
                while reason.__context__:  # down to what the system said
                    reason = reason.__context__
                raise UserError(f"{reason}{ADVICE if isinstance(reason, ConnectionRefusedError) else ''}") from error
            if answer.status_code != requests.codes.ok:
                raise UserError(f"status {answer.status_code}: it wants a login, has another path, or is no Visdom")
            return answer.text

        def text_in(self, win: str, env: str) -> str:
            """What a window of text says; nothing if it is not there."""
            return json.loads(self.get_window_data(win, env))["content"] if self.win_exists(win, env) else ""

    logging.getLogger("visdom").setLevel(logging.CRITICAL)
    url = urlsplit(address)
    place, path = f"{url.scheme}://{url.netloc.removesuffix(f':{url.port}')}", url.path or "/"
    return Client(place, None, url.port, path, env="all", raise_exceptions=True, use_incoming_socket=False)


class Curves:
    """A run's windows in an environment of its own, its traces among other runs' in `all`, its line in `main`."""

    def __init__(self, run: Run) -> None:
        self.run, self.client, self.env, self.next, self.said = run, None, "", 0.0, set()
        self.title = f"<b>{escape(f'{platform.node()}:{run.folder.resolve()}')}</b>"
        self.address = re.sub("(//[^/:]+)(?=/|$)", rf"\1:{run.args.visdom_port}", run.args.visdom_server).rstrip("/")

    def show(self) -> None:
        """Draw the run, if that takes little of the time. Whatever goes wrong is one line, said once."""
        began, args, running = time.monotonic(), self.run.args, len(self.run.history) < self.run.args.epochs
        if rank() or not args.visdom or (began < self.next and running):
            return
        try:
            if self.client is None:
                self.client = self.connect()
                began = time.monotonic()
            self.draw()
        except Exception as error:  # of whatever kind: this is a view, and training goes on
            self.client = None
            if str(error) not in self.said:
                print(f"visdom: no curves at {self.address}: {error}")
            self.said.add(str(error))
        self.next = time.monotonic() + (time.monotonic() - began) / SHOWING_SHARE

    def connect(self) -> Any:
        """Find the server and an environment that is no other run's; a new run clears it."""
        args, folders = self.run.args, self.run.folder.resolve().parts[1:]
        client = connect_visdom(self.address)
        if client.win_exists("run") is None:
            raise UserError("it is no Visdom")
        if not self.env:
            names = ["-".join(folders[-2:]), "-".join(folders[-3:])] if args.env is None else [args.env]
            names = [re.sub(r"[\W_]+", "-", name)[-80:].strip("-") for name in names]
            names.append(f"{names[-1]}-{hashlib.sha256(self.title.encode()).hexdigest()[:4]}")
            self.env = next(name for name in names if self.title in (client.text_in("run", name) or self.title))
            print(f"visdom: {self.address}/env/{self.env}, beside other runs in {self.address}/env/all")
        if not (self.run.folder / METRICS).exists():
            client.text(self.title, "run", self.env)  # what is to be cleared must be there
            client.close(env=self.env)
        return client

    def draw(self) -> None:
        """Draw the run's text and curves, its traces beside other runs' and its line in the list, newest first."""
        run, args, history, client = self.run, self.run.args, self.run.history, self.client
        state = f"is in epoch {len(history) + 1} of {args.epochs}" if len(history) < args.epochs else "is done"
        state += f", best {run.score} {run.best[run.score]:.3f} in epoch {run.best['epoch']}" if history else ""
        state += time.strftime(" (%H:%M)")  # of a run that was stopped, the last that was seen
        parts = vars(args), run.facts["data"], run.facts["departures"]
        rows = [escape(", ".join(f"{name} {value}" for name, value in part.items())) for part in parts]
        opts = {"title": "run", "width": 450, "height": 350}
        client.text("<p>".join([f"{self.title} {state}", *rows]), "run", self.env, opts)
        if run.losses:
            width = 1 << ((len(run.losses) - 1) // 1000).bit_length()  # steps that are one point, all along the curve
            at, steps, choice = range(0, len(run.losses), width), run.epoch_steps, run.facts["departures"]
            losses = [fmean(run.losses[step : step + width]) for step in at]
            self.line(self.env, "batch loss", "batch loss", "epochs", [(step + 1) / steps for step in at], losses)
            rates = [rate_at(step, args.epochs * steps, args.lr, choice["warm_up"], choice["decay"]) for step in at]
            self.line(self.env, "learning rate", "lr", "step", [step + 1 for step in at], rates)
        shared = "train_loss", "val_loss", run.score
        lines = [("all", f"stage {run.facts['net']['stage']} {name}", self.env, name) for name in shared]
        names = [name for name in (history or [()])[0] if name not in ("epoch", "lr", "seconds")]
        lines += [(self.env, re.sub("^(train|val)_", "", name), name, name) for name in names]
        for env, title, trace, name in lines:  # in `all`, a run that begins has traces without points
            self.line(env, title, trace, "epoch", range(1, len(history) + 1), [row[name] for row in history])
        lines = [line for line in client.text_in("runs", "main").split("<br>") if f">{self.env}<" not in line]
        link = f'<a href="{client.base_url}/env/{{0}}">{{0}}</a>'.format
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime((run.folder / CONFIG).stat().st_mtime))
        lines = sorted({*lines, f"{began} {link(self.env)} {state}", link("all") + " runs in one plot"}, reverse=True)
        client.text("<br>".join(lines), "runs", "main", {"title": "runs", "width": 900, "height": 600})
        client.save([self.env, "all", "main"])

    def line(self, env: str, title: str, trace: str, xlabel: str, x: Iterable, y: Iterable) -> None:
        """Draw one trace of a window, which may have others; an x that is called epoch is whole numbers."""
        xaxis = {"title": xlabel, "type": "category" if xlabel == "epoch" else "linear"}
        yaxis = {"title": title, "rangemode": "normal" if "loss" in title else "tozero"}
        opts = {"title": title, "showlegend": True, "markers": xlabel == "epoch", "markersize": 4}
        opts["layoutopts"] = {"plotly": {"xaxis": xaxis, "yaxis": yaxis}}
        x, y = ([float(f"{value:.6g}") for value in values] for values in (x or [1], y or [math.nan]))
        update = "replace" if self.client.win_exists(title, env) else None
        self.client.line(y, x, title, env, opts, update, trace)
