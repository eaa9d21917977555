"""What surrounds the training of both stages: files, options, devices, processes, the run folder, curves in Visdom.

What decides weights here is `rate_at` and `mean_over_batch`, which both loops call, and the type that nets train in.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import errno
import io
import json
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
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any

import filelock
import torch
from torch import Tensor, distributed, nn
from torch.utils._pytree import tree_map_only
from tqdm import tqdm

CONFIG, SPLIT, METRICS, WEIGHTS, RESUME = "config.json", "split.csv", "metrics.csv", "weights.pt", "resume.pt"
# First words of the options that say where and how a run is computed, not what: a resumed run may change these.
FREE = {"run", "resume", "data", "stage1", "cache", "device", "amp", "compile", "visdom", "env"}
NOT_FINITE = "the loss is not finite in epoch {}; {} keeps what was saved; try a smaller --lr or --amp off in a new run"
ADVICE = "; start one by `python -m visdom.server -bind_local`, or lend yours by `ssh -R 8097:localhost:8097 gpu-box`"


class UserError(Exception):
    """Something that the user can change. Its message is one line: what is wrong, and the remedy."""


class Output(io.TextIOBase):
    """A stream that nobody needs to read: where it is closed, or its disk is full, training goes on in silence."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.isatty = stream, getattr(stream, "isatty", super().isatty)
        if stream:
            stream.reconfigure(errors="backslashreplace")  # a picture's name may not fit the terminal's encoding

    def write(self, text: str) -> int:
        """Write at once."""
        with suppress(OSError, ValueError, AttributeError):
            self.stream.write(text)
            self.stream.flush()
        return len(text)


def run_script(main: Callable[[argparse.Namespace], Any], parser: argparse.ArgumentParser) -> int:
    """Run `main` with the command line's options. Returns 0, or 1, or 130 if it was stopped, with one line that says why."""
    sys.stdout, sys.stderr = Output(sys.stdout), Output(sys.stderr)
    for number in {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` has it
            signal.signal(number, signal.default_int_handler)
    args, status = parser.parse_args(), 1
    try:
        main(args)
        return 0
    except (UserError, OSError) as error:  # the system's errors name their file
        message = str(error)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # once is enough
        status, message = 130, "stopped"
        if "resume" in args and (args.run / RESUME).exists():
            done = len(torch.load(args.run / RESUME, map_location="cpu", weights_only=True, mmap=True)["history"])
            message += f"; the same command with --resume goes on after epoch {done}"
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate" not in str(error):
            raise
        message = "the memory is full; a smaller --batch-size takes less of it"
    print(f"{parser.prog}: {' '.join(message.split())}", file=sys.stderr)
    return status


def write_whole(path: Path, content: bytes | Callable[[Any], Any]) -> None:
    """Write a file whole or not at all: beside it, synced, then renamed. `content` is bytes, or writes into the file."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            content(file) if callable(content) else file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as error:  # the latter from torch.save; neither names the file
        number, name = getattr(error, "errno", None) or errno.ENOSPC, getattr(error, "filename", None) or path
        raise OSError(number, f"{os.strerror(number)} (mend that, or choose another folder)", str(name)) from error
    finally:
        part.unlink(missing_ok=True)


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file whole or not at all; text may hold any bytes that a file's name can."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([columns, *rows])  # quotes what holds any end of a line
    write_whole(path, text.getvalue().replace("\r\n", "\n").encode("utf-8", "surrogateescape"))


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a CSV file, a dictionary for each row. Raises `UserError` where it is none."""
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            return list(csv.DictReader(file, strict=True, restval=""))
    except csv.Error as error:
        raise UserError(f"{path}: is not valid CSV: {error}") from error


def take_lock(path: Path, wait: bool) -> filelock.FileLock:
    """Lock a file until it is released or this process ends. Raises `UserError` where another process has it."""
    lock = filelock.FileLock(path, timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise UserError(f"{path.parent}: another process trains in it; wait for it, or choose another") from error
    except (OSError, NotImplementedError) as error:
        if getattr(error, "errno", errno.ENOSYS) not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        print(f"note: {path.parent} is on a file system without locks; start nothing else there meanwhile")
    return lock


def stage_parser(description: str, run: str, epochs: int) -> argparse.ArgumentParser:
    """The options that both stages have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--run", type=Path, default=Path(run), metavar="DIR", help=f"where the run leaves everything; default {run}")
    add("--resume", action="store_true", help="with the same options: go on after the last epoch that was saved")
    add("--epochs", type=int, default=epochs, metavar="N", help=f"default {epochs}, by the public description")
    add("--lr", type=float, default=0.001, metavar="X", help="peak rate; default 0.001, by the public description")
    add("--batch-size", type=int, default=64, metavar="N", help="over all processes together; default 64")
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
    """The learning rate at a step of the run, from 0: linear warm-up, a tenth of the run at most, then half a cosine."""
    warm_up = min(warm_up, steps // 10)
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak if decay == "none" else peak * (0.5 + 0.5 * math.cos(math.pi * (step - warm_up) / (steps - warm_up)))


def mean_over_batch(losses: Tensor, counted: Tensor) -> Tensor:
    """The mean of a batch's losses, float [b], over those that are `counted`, bool [b], in all processes together.

    Each process returns its share, scaled so that the mean of their gradients is the gradient of the whole batch's.
    """
    number = counted.sum()
    if distributed.is_initialized():
        distributed.all_reduce(number)
        losses = losses * distributed.get_world_size()
    return (losses * counted).sum() / number.clamp(min=1)


def choose_device(args: argparse.Namespace) -> tuple[torch.device, torch.dtype]:
    """By --device and --amp, this process's device and the type that it trains in; joins others. Raises `UserError`."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # float32 is float32 on every card
    torch.backends.cudnn.deterministic = True  # the same numbers for the same seed
    name, amp, many = args.device, args.amp, distributed.is_torchelastic_launched()
    device, types = torch.device("cpu"), {"off": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if name != "cpu":
        try:
            torch.cuda.init()
            number = os.environ["LOCAL_RANK"] if many else "0"
            device = torch.device(f"cuda:{number}" if many or name in ("auto", "cuda") else name)
            torch.cuda.set_device(device)
            torch.ones(1, device=device).item()
        except (RuntimeError, AssertionError, ValueError) as error:
            reason = str(error).split(". ")[0].splitlines()[0]
            if name != "auto" or torch.cuda.is_initialized():
                raise UserError(f"--device {name}: {reason}; choose another, or --device cpu") from error
            print(f"device: the CPU ({reason})")
    if many and not distributed.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, timeout=timedelta(hours=6))  # for the first to decode all pictures
        sys.stdout = Output(None) if distributed.get_rank() else sys.stdout
    if amp == "auto" and device.type == "cuda":
        major, _ = torch.cuda.get_device_capability()
        amp = "bf16" if major >= 8 else "fp16" if major >= 7 else "off"
    elif amp == "auto":
        cpuinfo = Path("/proc/cpuinfo")
        amp = "bf16" if cpuinfo.exists() and "amx_bf16" in cpuinfo.read_text() else "off"
    if device.type == "cpu" and platform.libc_ver()[0] == "glibc":
        # Freed memory is kept: clearing it anew for each large tensor takes a quarter of the time in bfloat16.
        for parameter, value in ((-4, 0), (-1, 2**31 - 1)):  # M_MMAP_MAX and M_TRIM_THRESHOLD in malloc.h
            ctypes.CDLL("libc.so.6").mallopt(parameter, value)
    print(f"device: {torch.cuda.get_device_name() if device.type == 'cuda' else 'CPU'}, {types[amp]}")
    return device, types[amp]


class Run:
    """A run and its folder, which README.md describes. `facts` are in its config.json, "net" of them in weights.pt too.

    `split` has split.csv's rows; `score` names the column of metrics.csv that tells the best epoch. Raises `UserError`.
    """

    def __init__(self, args: argparse.Namespace, facts: dict[str, Any], split: Iterable, score: str) -> None:
        self.args, self.folder, self.facts, self.score = args, args.run, facts, score
        self.history, self.losses = [], []  # rows of metrics.csv, and the mean loss of each step
        self.epoch_steps, self.recent, self.next_save = 0, [], 0.0
        self.curves = Curves(self)
        self.leads = not distributed.is_initialized() or distributed.get_rank() == 0  # writes, plots and prints
        if not self.leads:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock = take_lock(self.folder / ".lock", wait=False)
        options = json.loads(json.dumps(vars(args), default=lambda path: str(path.resolve())))  # paths in full
        if not any((self.folder / name).exists() for name in (METRICS, RESUME)):
            write_table(self.folder / SPLIT, ("path", "split"), split)
            config = {"options": options, **facts, "torch": torch.__version__}
            write_whole(self.folder / CONFIG, json.dumps(config, indent=2).encode())
            return
        before = json.loads((self.folder / CONFIG).read_text(encoding="utf-8"))
        began = {name: before["options"].get(name) for name in options if name.split("_")[0] not in FREE}
        other = [f"--{name.replace('_', '-')} {value}" for name, value in began.items() if value != options[name]]
        if not other and (before["data"]["fingerprint"], before["net"]) != (facts["data"]["fingerprint"], facts["net"]):
            other.append("other pictures, labels or splits, or another --stage1")
        if other or not args.resume:
            problem = f"began with {', '.join(other)}; give the same" if args.resume else "holds a run; add --resume"
            start = f"start from its weights by --{'weights' if 'weights' in options else 'stage1'} {self.folder}"
            raise UserError(f"--run {self.folder}: {problem}, or {start} and another --run")

    def restore(self, net: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> int:
        """Go on from resume.pt if the run has begun; returns how many epochs are done. From then on these are saved."""
        self.parts = {"net": net, "optimizer": optimizer, "scaler": scaler}
        if (self.folder / RESUME).exists():
            state = torch.load(self.folder / RESUME, map_location="cpu", weights_only=True)
            for name, part in self.parts.items():
                if saved := state.pop(name):  # nothing of a scaler that was not needed on another kind of GPU
                    part.load_state_dict(saved)
            vars(self).update(state)
            print(f"going on after epoch {len(self.history)} of {self.args.epochs}")
        self.curves.show()
        return len(self.history)

    def watch(self, batches: Iterable[Any], count: int) -> Iterator[tuple[int, Any]]:
        """Go through an epoch's `count` batches behind a bar; with each comes the step of the run, counted from 0.

        Every ten steps what `note` took is read from the device. Raises `UserError` for a loss that is not finite.
        """
        epoch, self.epoch_steps, self.recent = len(self.history) + 1, count, []
        self.began, self.sums = time.monotonic(), torch.zeros(3, dtype=torch.float64)
        bar = tqdm(batches, f"epoch {epoch}", count, leave=False, file=sys.stdout, disable=None)
        for step, batch in enumerate(bar, (epoch - 1) * count):
            yield step, batch
            if len(self.recent) == 10 or step + 1 == epoch * count:
                sums, self.recent = torch.stack(self.recent).double(), []
                if distributed.is_initialized():
                    distributed.all_reduce(sums)
                sums = sums.cpu()
                self.losses += (sums[:, 0] / sums[:, 2]).tolist()
                self.sums += sums.sum(dim=0)
                if not self.sums.isfinite().all():
                    raise UserError(NOT_FINITE.format(epoch, self.folder))
                self.curves.show()
        self.seconds = time.monotonic() - self.began

    def note(self, losses: Tensor, right: Tensor) -> None:
        """Take a step's losses, float [b], and which examples were right, bool [b], and do not wait for them."""
        self.recent.append(torch.stack([losses.detach(), right.to(losses.dtype), torch.ones_like(losses)]).sum(dim=1))

    def end_epoch(self, validated: dict[str, float], rate: float, pictures: int) -> None:
        """Add a row to metrics.csv; save in the first and last epoch, and where that takes little of the time.

        `validated` has the columns val_loss, val_<right> and more; `pictures` is how many were trained on.
        """
        epoch, right = len(self.history) + 1, list(validated)[1].replace("val", "train")
        if not math.isfinite(validated["val_loss"]):
            raise UserError(NOT_FINITE.format(epoch, self.folder))
        loss, accuracy, _ = (self.sums / self.sums[2]).tolist()
        row = {"epoch": epoch, "train_loss": loss, right: accuracy, **validated, "lr": rate}
        row |= {"images_per_second": pictures / self.seconds, "seconds": time.monotonic() - self.began}
        better = all(row[self.score] > before[self.score] for before in self.history)
        self.history.append(row)
        if not self.leads:
            return
        write_table(self.folder / METRICS, list(row), ([f"{x:.6g}" for x in one.values()] for one in self.history))
        began = time.monotonic()
        due = began > self.next_save or epoch in (1, self.args.epochs)
        if (self.args.keep == "best" and better) or (self.args.keep == "last" and due):
            weights = {name: part.state_dict() for name, part in self.parts["net"].named_children()}  # embedding, head
            weights = tree_map_only(Tensor, Tensor.cpu, {**self.facts["net"], "epoch": epoch, **weights})
            write_whole(self.folder / WEIGHTS, lambda file: torch.save(weights, file))
        if due:  # after the weights: a kill in between has this epoch come again, with the same ones
            state = {name: vars(self)[name] for name in ("history", "losses", "epoch_steps")}
            state |= tree_map_only(Tensor, Tensor.cpu, {name: part.state_dict() for name, part in self.parts.items()})
            write_whole(self.folder / RESUME, lambda file: torch.save(state, file))
            self.next_save = time.monotonic() + (time.monotonic() - began) / 0.05  # of the time
        print("  ".join(f"{name} {value:.4g}" for name, value in row.items()), "(best)" * better)
        self.curves.show()


class Curves:
    """A run's windows in Visdom, in an environment of its own, its traces among other runs' in `all`, its line in `main`.

    Each time they are drawn afresh from the run's whole record: a server may come late, go, and come back.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.client, self.next, self.said = run, None, 0.0, set()
        self.title = f"<b>{escape(f'{platform.node()}:{run.folder.resolve()}')}</b>"
        self.address = re.sub(r"(//[^/:]+)(?=/|$)", rf"\1:{run.args.visdom_port}", run.args.visdom_server).rstrip("/")

    def show(self) -> None:
        """Draw the run, if that takes little of the time. Whatever goes wrong is one line, said once."""
        began, args, running = time.monotonic(), self.run.args, len(self.run.history) < self.run.args.epochs
        if not self.run.leads or not args.visdom or (began < self.next and running):
            return
        try:
            self.client = self.client or self.connect()
            began = time.monotonic()
            self.draw()
        except Exception as error:  # of whatever kind: this is a view, and training goes on
            self.client = None
            if str(error) not in self.said:
                print(f"visdom: no curves at {self.address}: {error}")
            self.said.add(str(error))
        self.next = time.monotonic() + (time.monotonic() - began) / 0.01  # of the time, at most

    def connect(self) -> Any:
        """Find the server and an environment that is no other run's; a new run clears it. Raises what tells the reason."""
        import visdom

        class Client(visdom.Visdom):
            """Visdom's client, waiting two seconds at most for each answer, and raising what is not an answer."""

            def _handle_post(self, url: str, data: Any = None) -> str:
                self.session.trust_env = not re.search("//(localhost|127.0.0.1):", url)  # no proxy to oneself
                try:
                    answer = self.session.post(url, data=data or {}, timeout=2, allow_redirects=False)
                except OSError as error:  # all of requests' errors are
                    while error.__context__:  # down to what the system said
                        error = error.__context__
                    raise UserError(f"{error}{ADVICE if isinstance(error, ConnectionRefusedError) else ''}") from error
                if answer.status_code != 200:
                    raise UserError(f"status {answer.status_code}: it wants a login, has another path, or is no Visdom")
                return answer.text

            def text_in(self, win: str, env: str) -> str:
                return json.loads(self.get_window_data(win, env))["content"] if self.win_exists(win, env) else ""

        visdom.logger.setLevel("CRITICAL")
        server, port, path = re.split(r":(\d+)(?=/|$)", self.address, maxsplit=1)
        client = Client(server, None, port, path, env="all", raise_exceptions=True, use_incoming_socket=False)
        if client.win_exists("run") is None:
            raise UserError("it is no Visdom")
        parts, env = self.run.folder.resolve().parts, self.run.args.env
        names = [re.sub(r"[\W_]+", "-", env or "-".join(parts[-count:]))[-80:].strip("-") for count in (2, 3)]
        names.append(f"{names[-1]}-{sha256(self.title.encode()).hexdigest()[:4]}")
        self.env = next(name for name in names if self.title in (client.text_in("run", name) or self.title))
        print(f"visdom: {self.address}/env/{self.env}, beside other runs in {self.address}/env/all")
        if not (self.run.folder / METRICS).exists():
            client.text(self.title, "run", self.env)  # what is to be cleared must be there
            client.close(env=self.env)
        return client

    def draw(self) -> None:
        """Draw the run's text and curves, its traces beside other runs' and its line in the list, newest first."""
        run, args, facts, history, client = self.run, self.run.args, self.run.facts, self.run.history, self.client
        state = f"is in epoch {len(history) + 1} of {args.epochs}" if len(history) < args.epochs else "is done"
        if history:
            best = max(history, key=lambda row: row[run.score])
            state += f", best {run.score} {best[run.score]:.3f} in epoch {best['epoch']}"
        state += time.strftime(" (%H:%M)")  # of a run that was stopped, the last that was seen
        parts = vars(args), facts["data"], facts["departures"]
        rows = [escape(", ".join(f"{name} {value}" for name, value in part.items())) for part in parts]
        opts = {"title": "run", "width": 450, "height": 350}
        client.text("<p>".join([f"{self.title} {state}", *rows]), "run", self.env, opts)
        epochs = range(1, len(history) + 1)
        for name in ("train_loss", "val_loss", run.score):  # a run that begins has traces without points here
            title = f"stage {facts['net']['stage']} {name}"
            self.draw_line("all", title, self.env, "epoch", epochs, [row[name] for row in history])
        for name in [name for name in (history or [()])[0] if name not in ("epoch", "lr", "seconds")]:
            title = re.sub("^(train|val)_", "", name)
            self.draw_line(self.env, title, name, "epoch", epochs, [row[name] for row in history])
        if run.losses:
            width = 1 << ((len(run.losses) - 1) // 1000).bit_length()  # steps that are one point, all along the curve
            at, steps, choice = range(0, len(run.losses), width), run.epoch_steps, facts["departures"]
            losses = [part.mean().item() for part in torch.tensor(run.losses).split(width)]
            self.draw_line(self.env, "batch loss", "batch loss", "epochs", [(step + 1) / steps for step in at], losses)
            rates = [rate_at(step, args.epochs * steps, args.lr, choice["warm_up"], choice["decay"]) for step in at]
            self.draw_line(self.env, "learning rate", "lr", "step", [step + 1 for step in at], rates)
        lines = [line for line in client.text_in("runs", "main").split("<br>") if f">{self.env}<" not in line]
        link = f'<a href="{client.base_url}/env/{{0}}">{{0}}</a>'.format
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime((run.folder / CONFIG).stat().st_mtime))
        lines = sorted({*lines, f"{began} {link(self.env)} {state}", link("all") + " runs in one plot"}, reverse=True)
        client.text("<br>".join(lines), "runs", "main", {"title": "runs", "width": 900, "height": 600})
        client.save([self.env, "all", "main"])

    def draw_line(self, env: str, title: str, name: str, xlabel: str, x: Iterable, y: Iterable) -> None:
        """Draw a trace in a window, whose title is that of y too."""
        xaxis = {"title": xlabel, "type": "category" if xlabel == "epoch" else "linear"}  # whole numbers
        layout = {"xaxis": xaxis, "yaxis": {"title": title, "rangemode": "normal" if "loss" in title else "tozero"}}
        opts = {"title": title, "showlegend": True, "markers": xlabel == "epoch", "markersize": 4}
        opts["layoutopts"] = {"plotly": layout}
        x, y = ([float(f"{value:.6g}") for value in values] for values in (x or [1], y or [math.nan]))
        self.client.line(y, x, title, env, opts, "replace" if self.client.win_exists(title, env) else None, name)
