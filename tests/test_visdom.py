"""Visdom is a view: whatever becomes of its server, training goes on as before and the final windows hold everything."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from running import PLAIN, TINY, assert_same_run, finish, read_rows, start

import classification_net
import curves
from curves import VisdomView, environment_name

COLUMNS = classification_net.COLUMNS
HISTORY = [
    {"epoch": epoch, "train_loss": 2 / epoch, "train_accuracy": 0.1 * epoch, "val_loss": 2.5 / epoch,
     "val_accuracy": 0.05 * epoch, "lr": 0.001, "images_per_second": 99.0, "seconds": 1.0}
    for epoch in range(1, 6)
]  # fmt: skip
LOSSES = [(step, 3.0 - step / 100) for step in range(1, 101)]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """A real Visdom server on loopback."""

    def __init__(self, folder: Path, port: int | None = None, *flags: str) -> None:
        self.folder, self.port, self.flags = folder, port or free_port(), flags
        self.start()

    def start(self) -> None:
        words = ["-c", "from visdom.server.run_server import main; main()", "-port", str(self.port), "-bind_local"]
        login = {"VISDOM_USE_ENV_CREDENTIALS": "1", "VISDOM_USERNAME": "someone", "VISDOM_PASSWORD": "secret"}
        login |= {"VISDOM_COOKIE": "crumbs", "HOME": str(self.folder)}
        (self.folder / ".visdom").mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, *words, "-env_path", str(self.folder), *self.flags], env={**os.environ, **login},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            assert self.process.poll() is None
            time.sleep(0.05)
        raise AssertionError("the server did not start")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def post(self, path: str, **content: object) -> str:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{path}", json.dumps(content).encode())
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.read().decode()

    def windows(self, env: str) -> dict[str, dict[str, tuple[list, list]]]:
        """The curves in each window, read back from the server: title to curve to x and y."""
        found = json.loads(self.post("win_data", eid=env, win=None))
        return {
            window["title"]: {curve["name"]: (curve["x"], curve["y"]) for curve in window["content"]["data"]}
            for window in found.values()
        }


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "visdom").mkdir()
    server = Server(tmp_path / "visdom")
    yield server
    server.kill()


@pytest.fixture
def stalled() -> Iterator[int]:
    """The port of a server that accepts connections and never answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    accepted: list[socket.socket] = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted.append(listener.accept()[0])

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()
    for connection in accepted:
        connection.close()


def view_on(port: int, said: list[str], env: str = "some-run") -> VisdomView:
    return VisdomView("http://localhost", port, env, COLUMNS, said.append)


def test_the_windows_hold_the_history(server):
    said: list[str] = []
    view = view_on(server.port, said)
    view.show(HISTORY[:1], LOSSES[:1])
    view.show(HISTORY, LOSSES)
    view.close()
    windows = server.windows("some-run")
    assert set(windows) == {"loss", "accuracy", "learning rate", "pictures per second", "batch loss"}
    epochs = [1, 2, 3, 4, 5]
    assert windows["loss"]["train_loss"] == (epochs, [row["train_loss"] for row in HISTORY])
    assert windows["loss"]["val_loss"] == (epochs, [row["val_loss"] for row in HISTORY])
    assert set(windows["accuracy"]) == {"train_accuracy", "val_accuracy"}
    assert windows["learning rate"]["lr"] == (epochs, [0.001] * 5)
    (batch,) = windows["batch loss"].values()
    assert batch == ([step for step, _ in LOSSES], [loss for _, loss in LOSSES])
    assert said == []


def test_curves_have_legends_markers_and_gaps_where_a_value_is_not_finite(server):
    history = [dict(row) for row in HISTORY]
    history[1]["val_loss"], history[2]["val_loss"], history[3]["lr"] = math.nan, math.inf, -math.inf
    view = view_on(server.port, [])
    view.show(history, [(1, math.inf), (2, 1.0)])
    view.close()
    windows = server.windows("some-run")
    assert windows["loss"]["val_loss"][1] == [2.5, None, None, 0.625, 0.5]
    assert windows["learning rate"]["lr"][1][3] is None
    found = json.loads(server.post("win_data", eid="some-run", win="loss"))
    assert found["content"]["layout"]["showlegend"] and found["content"]["layout"]["xaxis"]["title"] == "epoch"
    assert {curve["mode"] for curve in found["content"]["data"]} == {"lines+markers"}


def test_a_window_or_an_environment_that_is_deleted_comes_back(server):
    view = view_on(server.port, [])
    view.show(HISTORY[:2], LOSSES)
    deadline = time.monotonic() + 20
    while not list(server.folder.glob("some-run.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    server.post("close", eid="some-run", win="loss")
    server.post("delete_env", eid="some-run")
    view.show(HISTORY, LOSSES)
    view.close()
    assert server.windows("some-run")["loss"]["train_loss"][0] == [1, 2, 3, 4, 5]


def test_a_server_that_ends_has_kept_what_it_was_shown(server):
    view = view_on(server.port, [])
    view.show(HISTORY, LOSSES)
    view.close()
    server.kill()
    server.start()
    server.post("env/some-run", eid="some-run")
    assert server.windows("some-run")["loss"]["train_loss"][0] == [1, 2, 3, 4, 5]


def timed_close(view: VisdomView) -> float:
    began = time.monotonic()
    view.close()
    return time.monotonic() - began


@pytest.fixture(scope="module")
def web_page() -> Iterator[int]:
    """The port of a web server that is no Visdom but answers everything with a page."""
    code = (
        "import http.server as h, sys\n"
        "class Page(h.BaseHTTPRequestHandler):\n"
        "    def do_POST(self): self.send_response(200); self.end_headers(); self.wfile.write(b'<html>')\n"
        "h.HTTPServer(('127.0.0.1', int(sys.argv[1])), Page).serve_forever()"
    )
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", code, str(port)], stderr=subprocess.DEVNULL)
    for _ in range(200):
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        time.sleep(0.05)
    yield port
    process.kill()
    process.wait()


@pytest.mark.parametrize("kind", ["down", "stalled", "a page", "nonsense"])
def test_what_is_no_visdom_is_said_once_and_waited_for_no_longer_than_promised(stalled, web_page, kind):
    said: list[str] = []
    port = {"down": free_port(), "stalled": stalled, "a page": web_page, "nonsense": 99999}[kind]
    view = view_on(port, said)
    for end in range(1, 4):
        began = time.monotonic()
        view.show(HISTORY[:end], LOSSES)
        assert time.monotonic() - began < 0.05
        time.sleep(0.2)
    assert timed_close(view) < curves.SECONDS_AT_THE_END + 1
    assert len(said) == 1 and "training goes on" in said[0] and f"-port {port} -bind_local" in said[0], said
    assert ("no Visdom" in said[0]) == (kind == "a page")


def test_a_server_that_demands_a_login_is_named(tmp_path):
    server, said = Server(tmp_path, None, "-enable_login"), []
    try:
        view = view_on(server.port, said)
        view.show(HISTORY, LOSSES)
        assert timed_close(view) < curves.SECONDS_AT_THE_END
    finally:
        server.kill()
    assert len(said) == 1 and "demands a login" in said[0], said


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(server, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    view = view_on(server.port, [])
    view.show(HISTORY, LOSSES)
    view.close()
    monkeypatch.delenv("http_proxy")
    assert "loss" in server.windows("some-run")


def run_with(
    port: int | None, epochs: int, collection: Path, run: Path, pause: float = 0.0, resume: bool = False
) -> Path:
    """Start a run that shows itself on a port; returns its log. The process is kept in `RUNS`."""
    log = run.parent / f"{run.name}.log"
    options = ["--data", collection, "--run", run, "--epochs", epochs, *TINY, *PLAIN]
    if port is not None:
        options.remove("--no-visdom")
        options += ["--visdom-port", port]
    options += ["--resume"] * resume
    before = (slow_down, pause, str(run.parent / "gate")) if pause else ()
    RUNS[run] = start("classification_net.py", options, log, *before)
    return log


RUNS: dict[Path, object] = {}


def slow_down(seconds: float, gate: str) -> None:
    """Let each epoch take this much longer, and the last one until the file `gate` is there."""
    import training

    original = training.Loop.run_epoch

    def slowly(loop: training.Loop, signals: list[int]) -> None:
        time.sleep(seconds)
        while loop.progress.epoch == loop.args.epochs and not Path(gate).exists():
            time.sleep(0.05)
        original(loop, signals)

    training.Loop.run_epoch = slowly


def shown(server: Server, run: Path) -> list[float]:
    return server.windows(environment_name(run))["loss"]["train_loss"][1]


def in_table(run: Path) -> list[float]:
    return [float(row["train_loss"]) for row in read_rows(run)]


@pytest.mark.slow
def test_a_server_that_is_killed_and_started_again_five_times_shows_the_whole_run_at_the_end(
    server, collection, tmp_path
):
    killed_and_restarted(server, collection, tmp_path, 5)


def test_a_server_that_is_killed_and_started_again_shows_the_whole_run_at_the_end(server, collection, tmp_path):
    killed_and_restarted(server, collection, tmp_path, 2)


def killed_and_restarted(server: Server, collection: Path, tmp_path: Path, restarts: int) -> None:
    run, epochs = tmp_path / "läufe und mehr", 3 * restarts
    log = run_with(server.port, epochs, collection, run, pause=0.6)
    for restart in range(restarts):
        time.sleep(1.5)
        server.kill()
        if restart % 2:
            for path in server.folder.glob("*.json"):
                path.unlink()  # and it has forgotten everything
        time.sleep(0.7)
        assert RUNS[run].is_alive(), log.read_text()
        server.start()
    (tmp_path / "gate").touch()
    said = finish(RUNS[run], log)
    assert len(in_table(run)) == epochs
    assert shown(server, run) == pytest.approx(in_table(run), rel=1e-4)
    assert said.count("training goes on") <= restarts and said.count("again") <= restarts
    assert "Traceback" not in said


def test_a_resumed_run_shows_what_came_before_on_a_server_that_never_saw_it(server, collection, tmp_path):
    run, plain = tmp_path / "run", tmp_path / "plain"
    options = ["--data", collection, "--epochs", 4, *TINY, *PLAIN]
    finish(start("classification_net.py", (*options, "--run", plain), tmp_path / "l"), tmp_path / "l")
    finish(start("classification_net.py", (*options, "--run", run), tmp_path / "l"), tmp_path / "l")
    log = run_with(server.port, 4, collection, run, resume=True)
    finish(RUNS[run], log)
    assert shown(server, run) == pytest.approx(in_table(run), rel=1e-4) and len(in_table(run)) == 4
    assert_same_run(run, plain)


def test_the_environment_name_is_one_that_visdom_takes(tmp_path):
    names = {environment_name(tmp_path / name) for name in ("a b", "a-b", "a_b", "a/b", "日本", "-", "x" * 300)}
    assert len(names) == 7 and all(re.fullmatch("[A-Za-z0-9][A-Za-z0-9-]*", name) for name in names)


def test_what_the_readme_and_the_messages_start_listens_on_loopback_only(server):
    for path in (*ROOT.glob("*.py"), *ROOT.glob("*.md"), ROOT / "Makefile"):
        for line in path.read_text().splitlines():
            if "visdom.server" in line and "-port" in line:
                assert "-bind_local" in line, f"{path}: {line}"
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", server.port)) == 0
    listening = [
        line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"
    ]
    assert f"0100007F:{server.port:04X}" in listening and f"00000000:{server.port:04X}" not in listening


def weigh(path: str) -> None:
    """Write down which share of the run's time the view's thread computes, once it has begun (it imports a lot first)."""
    import training

    original, samples = training.Loop.run_epoch, []

    def weighed(loop: training.Loop, signals: list[int]) -> None:
        if loop.progress.epoch == 2:
            time.sleep(6)
        (thread,) = [thread for thread in threading.enumerate() if thread.name == "visdom"]
        samples.append((time.clock_gettime(time.pthread_getcpuclockid(thread.ident)), time.monotonic()))
        original(loop, signals)
        if loop.progress.epoch > loop.args.epochs:
            (computed, began), (computed_last, ended) = samples[2], samples[-1]
            Path(path).write_text(json.dumps([computed_last - computed, ended - began]))

    training.Loop.run_epoch = weighed


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["up", "stalled", "down", "login", "a page"])
def test_the_view_takes_less_than_two_percent_of_the_time(server, stalled, web_page, collection, tmp_path, kind):
    """Training shares the interpreter with the view's thread, which so can delay it by what it computes and no more."""
    (tmp_path / "login").mkdir()
    login = Server(tmp_path / "login", None, "-enable_login") if kind == "login" else None
    ports = {
        "up": server.port,
        "stalled": stalled,
        "down": free_port(),
        "login": login and login.port,
        "a page": web_page,
    }
    log, options = tmp_path / "log", ["--data", collection, "--run", tmp_path / "run", "--epochs", 250, *TINY, *PLAIN]
    options[options.index("--no-visdom")] = "--visdom"
    try:
        process = start(
            "classification_net.py", (*options, "--visdom-port", ports[kind]), log, weigh, str(tmp_path / "weight")
        )
        finish(process, log)
    finally:
        if login:
            login.kill()
    computed, lasted = json.loads((tmp_path / "weight").read_text())
    print(f"{kind}: {computed:.3f} s of {lasted:.1f} s, {100 * computed / lasted:.2f} %")
    assert computed < 0.02 * lasted
