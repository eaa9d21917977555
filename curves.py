"""The curves of a run, seen in Visdom while it trains and in `curves.png` without it.

Both are views of the run's history and nothing else: they are drawn afresh from the whole of it each time, so that a
server that was down, restarted, or is looked at after a resume shows everything.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import logging
import math
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# Title of each window and the columns of metrics.csv that it shows against the epoch.
WINDOWS = (
    ("loss", ("train_loss", "val_loss")),
    ("accuracy", ("train_accuracy", "val_accuracy")),
    ("triplet accuracy", ("train_triplet_accuracy", "val_triplet_accuracy")),
    ("retrieval mAP", ("val_map",)),
    ("learning rate", ("lr",)),
    ("pictures per second", ("images_per_second",)),
)
BATCH_WINDOW = "batch loss"

History = list[dict[str, float]]
BatchLosses = list[tuple[int, float]]

SECONDS_BETWEEN_DRAWINGS = 1.0  # while an epoch runs
SECONDS_AT_MOST = 30.0
SHARE_OF_TIME = 0.01  # that drawing takes at most, as it shares the interpreter with training
SECONDS_TO_ANSWER = 5.0  # after which a server counts as gone
SECONDS_BETWEEN_TRIES = 3.0
SECONDS_AT_THE_END = 10.0  # to bring a slow server up to date before the script ends


def windows_of(columns: tuple[str, ...]) -> list[tuple[str, list[str]]]:
    """The windows for a run with these columns: title and the columns shown in it."""
    present = [(title, [name for name in names if name in columns]) for title, names in WINDOWS]
    return [(title, names) for title, names in present if names]


def draw_curves(columns: tuple[str, ...], history: History, batch_losses: BatchLosses) -> bytes:
    """Draw the run's windows as one PNG; returns the file's bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    windows = windows_of(columns)
    figure = Figure(figsize=(12, 3.2 * ((len(windows) + 3) // 3)), layout="constrained")
    axes = figure.subplots((len(windows) + 3) // 3, 3, squeeze=False).ravel()
    for axis, (title, names) in zip(axes, windows, strict=False):
        for name in names:
            axis.plot([row["epoch"] for row in history], [row[name] for row in history], ".-", ms=4, label=name)
        axis.set(title=title, xlabel="epoch")
        axis.legend(frameon=False)
    batch_axis = axes[len(windows)]
    batch_axis.plot([step for step, _ in batch_losses], [loss for _, loss in batch_losses], lw=0.8)
    batch_axis.set(title=BATCH_WINDOW, xlabel="step")
    for axis in axes[: len(windows) + 1]:
        axis.grid(alpha=0.3)
    for axis in axes[len(windows) + 1 :]:
        axis.axis("off")
    FigureCanvasAgg(figure)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=90)
    return picture.getvalue()


def thin(batch_losses: BatchLosses, most: int = 2000) -> BatchLosses:
    """Average neighbours while there are more than `most` points, so that a long run's curve stays small."""
    while len(batch_losses) > most:
        pairs = zip(batch_losses[0::2], batch_losses[1::2], strict=False)
        batch_losses = [(second[0], (first[1] + second[1]) / 2) for first, second in pairs]
    return batch_losses


# Visdom.


def environment_name(folder: Path) -> str:
    """An environment of its own for each run folder: its name, and four characters that tell equal names apart.

    Visdom takes letters, digits and '-' only.
    """
    place = hashlib.sha256(str(folder.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:4]
    return f"{re.sub('[^A-Za-z0-9]+', '-', folder.name).strip('-') or 'run'}-{place}"


def add_visdom_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say whether and where the curves are shown."""
    group = parser.add_argument_group("curves")
    group.add_argument(
        "--visdom", action=argparse.BooleanOptionalAction, default=True,
        help="show the curves in Visdom while training (default); training goes on where no server answers",
    )  # fmt: skip
    group.add_argument("--visdom-server", default="http://localhost", metavar="URL", help="default %(default)s")
    group.add_argument("--visdom-port", type=int, default=8097, metavar="N", help="default %(default)s")
    group.add_argument(
        "--env", default=None, metavar="NAME",
        help="Visdom environment: letters, digits and '-'; default: the run folder's name and four more characters",
    )  # fmt: skip


class VisdomView:
    """Shows a run in a Visdom server from a thread of its own; training never waits for it.

    `show` hands over the latest state. The thread draws it, tries again where the server is away, and draws the
    whole history when it is back. Problems are said once, in one line.
    """

    def __init__(self, server: str, port: int, env: str, columns: tuple[str, ...], say: Callable[[str], None]) -> None:
        self.address, self.env = f"{server}:{port}", env
        self._server, self._port, self._columns, self._say = server, port, columns, say
        self._latest: tuple[History, BatchLosses] | None = None
        self._wake, self._ending = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="visdom", daemon=True)
        self._thread.start()

    def show(self, history: History, batch_losses: BatchLosses) -> None:
        """Show this state as soon as possible; a state that was not drawn yet is replaced. Returns at once."""
        with self._lock:
            self._latest = (list(history), list(batch_losses))
        self._wake.set()

    def close(self, patience: float = SECONDS_AT_THE_END) -> None:
        """Give the thread `patience` seconds to draw the last state, then leave it behind."""
        self._ending.set()
        self._wake.set()
        self._thread.join(patience)

    def _take(self) -> tuple[History, BatchLosses] | None:
        with self._lock:
            latest, self._latest = self._latest, None
        self._wake.clear()
        return latest

    def _work(self) -> None:
        client, complained, pause = None, False, SECONDS_BETWEEN_DRAWINGS
        while True:
            self._wake.wait()
            state = self._take()
            if state is None:
                if self._ending.is_set():
                    return
                continue
            connected = client is not None
            try:
                client = client or connect(self._server, self._port, self.env)
                began = time.monotonic()
                draw_windows(client, self.env, self._columns, *state)
                took = time.monotonic() - began
                pause = min(max(SECONDS_BETWEEN_DRAWINGS, took / SHARE_OF_TIME), SECONDS_AT_MOST)
                if complained:
                    self._say(f"visdom: the curves are at {self.address}/env/{self.env} again")
                complained = False
            except ImportError:
                self._say("visdom: not installed, so no live curves; `pip install visdom` brings them")
                return
            except Exception as error:  # whatever goes wrong in a view, the next try may be right
                client = None
                with self._lock:
                    self._latest = self._latest or state
                if connected:  # the server may have been restarted: a new connection tells
                    self._wake.set()
                    continue
                if not complained:
                    self._say(
                        f"visdom: no curves at {self.address} ({reason(error)}); training goes on. Start a server with "
                        f"`python -m visdom.server -port {self._port} -bind_local` and they appear"
                    )
                complained = True
                if self._ending.is_set():
                    return
            if self._ending.wait(SECONDS_BETWEEN_TRIES if complained else pause) or complained:
                self._wake.set()


class Refusal(Exception):
    """A server answers, but does not take our plots. Its message says why."""


def reason(error: Exception) -> str:
    """Why Visdom could not be reached, in a few words."""
    if isinstance(error, Refusal):
        return str(error)
    return "no server answers" if isinstance(error, OSError) else f"{type(error).__name__}: {error}"[:80]


def connect(server: str, port: int, env: str) -> Any:
    """Connect to a Visdom server for plotting only. Raises `OSError` or `Refusal` where that fails."""
    import requests
    import visdom

    logging.getLogger("visdom").setLevel(logging.CRITICAL)  # it reports every new session

    class Client(visdom.Visdom):
        """Visdom's client with a time limit on each request, which it lacks, and with refusals made errors."""

        def _handle_post(self, url: str, data: Any = None) -> str:
            # The settings of the environment may send even this machine's own addresses to a proxy.
            self.session.trust_env = urlsplit(url).hostname not in ("localhost", "127.0.0.1", "::1")
            answer = self.session.post(url, data=data or {}, timeout=SECONDS_TO_ANSWER, allow_redirects=False)
            if answer.is_redirect or answer.status_code in (400, 401, 403):
                raise Refusal("the server there demands a login, or is no Visdom")
            if answer.status_code != requests.codes.ok:
                raise Refusal(f"the server there answers with status {answer.status_code}, as if it were no Visdom")
            return answer.text

    return Client(server, port=port, env=env, raise_exceptions=True, use_incoming_socket=False)


def draw_windows(client: Any, env: str, columns: tuple[str, ...], history: History, batch_losses: BatchLosses) -> None:
    """Draw all windows of a run from scratch and have the server keep them. Raises `Refusal` if it does not."""

    def draw(title: str, x: list, y: list, **options: Any) -> None:
        if client.line(X=x, Y=y, win=title, env=env, opts={"title": title, **options}) != title:
            raise Refusal("the server there is no Visdom")

    if history:
        epochs = [row["epoch"] for row in history]
        for title, names in windows_of(columns):
            lines = [[finite(row[name]) for name in names] for row in history]
            several = len(names) > 1
            draw(
                title, [[epoch] * len(names) for epoch in epochs] if several else epochs,
                lines if several else [line[0] for line in lines],
                xlabel="epoch", legend=list(names), markers=True, markersize=4,
            )  # fmt: skip
    if batch_losses:
        steps, losses = zip(*batch_losses, strict=True)
        draw(BATCH_WINDOW, list(steps), [finite(loss) for loss in losses], xlabel="step")
    client.save([env])


def finite(value: float) -> float:
    """The value, or not-a-number, which leaves a gap in a curve, for an infinite one, which the page cannot read."""
    return value if math.isfinite(value) else math.nan


def open_view(
    args: argparse.Namespace, folder: Path, columns: tuple[str, ...], say: Callable[[str], None]
) -> VisdomView | None:
    """The run's Visdom view as the options ask for it, or None with `--no-visdom`."""
    if not args.visdom:
        return None
    view = VisdomView(args.visdom_server, args.visdom_port, args.env or environment_name(folder), columns, say)
    print(f"curves: {view.address}/env/{view.env} and {folder / 'curves.png'}")
    return view
