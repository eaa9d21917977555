"""What somebody sees in Visdom, read back from real servers; whatever becomes of these, training goes on."""

import contextlib
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import requests
import torch
from running import run_main, stage1
from torch import nn

import classification_net
import train
from retrieval import evaluate
from utils import Run, rate_at

SCRIPTS = {1: classification_net, 2: train}
SCORES = {1: "val_accuracy", 2: "val_map"}
NET = nn.ModuleDict({"embedding": nn.Linear(1, 1)})
PARTS = NET, torch.optim.SGD(NET.parameters()), torch.amp.GradScaler("cpu", enabled=False)


class Server:
    """A real Visdom server on loopback."""

    def __init__(self, folder: Path, *flags: str, path: str = "") -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self.folder, self.flags, self.url = folder, flags, f"http://localhost:{self.port}{path}"
        self.start()

    def start(self) -> None:
        (self.folder / ".visdom").mkdir(parents=True, exist_ok=True)
        code = "from visdom.server.run_server import main; main()"
        flags = "-port", str(self.port), "-bind_local", "-env_path", str(self.folder), *self.flags
        home = os.environ | {"HOME": str(self.folder)}
        self.process = subprocess.Popen([sys.executable, "-c", code, *flags], stdout=-3, stderr=-3, env=home)
        for _ in range(2400):
            with contextlib.suppress(OSError):
                return socket.create_connection(("127.0.0.1", self.port), 1).close()
            time.sleep(0.05)
        raise AssertionError("the server did not start")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def ask(self, path: str, **content: object) -> str:
        answer = requests.request("POST" if content else "GET", f"{self.url}/{path}", json=content, timeout=20)
        answer.raise_for_status()
        return answer.text

    def windows(self, env: str) -> dict[str, dict]:
        """The windows of an environment, by title."""
        return {window["title"]: window for window in json.loads(self.ask("win_data", eid=env, win=None)).values()}

    def curves(self, env: str, title: str) -> dict[str, tuple[list, list]]:
        """The curves in a window: name to x and y."""
        return {curve["name"]: (curve["x"], curve["y"]) for curve in self.windows(env)[title]["content"]["data"]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield (server := Server(tmp_path_factory.mktemp("visdom"), "-base_url", "/of/all", path="/of/all"))
    server.kill()


def begin(folder: Path, url: str, *options: object, stage: int = 1, epochs: int = 3) -> Run:
    """A run before its first step, shown at a server."""
    words = ["--run", folder, "--visdom-server", url, "--epochs", epochs, *options]
    args = SCRIPTS[stage].get_parser().parse_args([str(word) for word in words])
    data = {"folder": "/data/bam", "pictures": {"train": 96800, "val": 12100}, "fingerprint": "f00d"}
    departures = {name: ours for name, (ours, _) in SCRIPTS[stage].DEPARTURES.items()}
    facts = {"net": {"stage": stage}, "departures": departures, "data": data}
    run = Run(args, facts, [("a.jpg", "train")], SCORES[stage])
    run.began, run.seconds = time.monotonic(), 1.0
    run.restore(*PARTS)
    return run


def take_steps(run: Run, steps: int, in_epoch: int = 10) -> None:
    """Steps whose losses are their numbers in the run, from 1; what they lead to is shown at once."""
    run.curves.next, first = math.inf, len(run.losses) + 1
    for _, number in run.watch(range(first, first + steps), steps):
        run.note(torch.tensor([float(number)]), torch.tensor([True]))
    run.epoch_steps, run.curves.next = in_epoch, 0.0
    run.curves.show()


def end_epoch(run: Run, value: float) -> None:
    """An epoch that ends with `value` in all columns."""
    run.sums, run.curves.next = torch.tensor([value, value, 1.0], dtype=torch.float64), 0.0
    right = "val_accuracy" if run.score == "val_accuracy" else "val_triplet_accuracy"
    run.end_epoch(dict.fromkeys(("val_loss", right, run.score), value), value, 1)


@pytest.mark.parametrize("steps", [10, 1000, 1001, 12_345, 100_000])
def test_the_batch_loss_is_of_one_width_from_the_first_step_to_the_last(server, tmp_path, steps):
    run = begin(tmp_path / "batches" / str(steps), server.url)
    take_steps(run, steps, in_epoch=1500)
    ((epochs, losses),) = server.curves(f"batches-{steps}", "batch loss").values()
    starts = [epoch * 1500 for epoch in epochs]
    width = round(starts[1] - starts[0])
    assert starts == pytest.approx([1 + width * place for place in range(len(starts))], rel=1e-3)
    assert min(steps, 500) <= len(starts) <= 1000 and starts[-1] + width > steps
    means = [(a + b - 1) / 2 for a, b in zip(starts, [*starts[1:], steps + 1], strict=True)]
    assert losses == pytest.approx(means, rel=1e-3)


def test_a_page_that_is_opened_before_the_first_step_has_the_run_in_it(server, tmp_path, capsys):
    begin(tmp_path / "Größe 1" / "运行", server.url, "--lr", 0.07)
    (page,) = re.findall(r"visdom: (\S+), beside other runs in \S+/all\n", capsys.readouterr().out)
    assert page == f"{server.url}/env/Größe-1-运行" and server.ask("env/Größe-1-运行")
    (window,) = server.windows("Größe-1-运行").values()
    texts = str(tmp_path / "Größe 1" / "运行"), "is in epoch 1 of 3", "lr 0.07", "/data/bam", "96800"
    assert all(text in window["content"] for text in texts)


def test_main_lists_all_runs_newest_first_with_state_and_best_number(server, tmp_path):
    for name, age in (("old", 7200), ("older", 10_000), ("new", 0)):
        run = begin(tmp_path / "listed" / name, server.url)
        os.utime(run.folder / "config.json", (time.time() - age,) * 2)
        take_steps(run, 10)
        end_epoch(run, 0.25)
    lines = [line for line in server.windows("main")["runs"]["content"].split("<br>") if "listed" in line]
    links = [re.search('href="/of/all/(env/.*?)">', line).group(1) for line in lines]
    assert links == ["env/listed-new", "env/listed-old", "env/listed-older"]
    state = "is in epoch 2 of 3, best val_accuracy 0.250 in epoch 1"
    assert all(server.ask(link) for link in links) and all(state in line for line in lines)


def test_all_has_a_named_curve_for_each_run_and_windows_for_each_stage(server, tmp_path):
    runs = [begin(tmp_path / f"lr{rate}" / "stage1", server.url) for rate in (0.1, 0.01, 0.001)]
    other = begin(tmp_path / "lr0.1" / "stage2", server.url, stage=2)
    for value in (4.0, 5.0):
        for run in (*runs, other):
            end_epoch(run, value)
    for title in ("stage 1 train_loss", "stage 1 val_loss", "stage 1 val_accuracy"):
        curves = server.curves("all", title)
        assert [curves[f"lr{rate}-stage1"] for rate in ("0-1", "0-01", "0-001")] == [([1, 2], [4, 5])] * 3
    assert server.curves("all", "stage 2 val_map") == {"lr0-1-stage2": ([1, 2], [4, 5])}


def test_a_new_run_takes_away_what_an_earlier_one_left_and_a_resumed_one_does_not(server, tmp_path):
    folder = tmp_path / "again" / "stage1"
    for _ in range(2):
        run = begin(folder, server.url, "--resume")
        take_steps(run, 10)
        end_epoch(run, 0.5)
        run.lock.release()
    server.ask("events", eid="again-stage1", data=[{"content": "mine", "type": "text"}], opts={"title": "note"})
    begin(folder, server.url, "--resume").lock.release()
    assert {"note", "loss", "batch loss", "learning rate"} < set(server.windows("again-stage1"))
    assert server.curves("again-stage1", "loss")["val_loss"] == ([1, 2], [0.5, 0.5])
    shutil.rmtree(folder)
    begin(folder, server.url, "--resume")
    assert set(server.windows("again-stage1")) == {"run"}
    assert server.curves("all", "stage 1 val_loss")["again-stage1"] == ([1], [None])


def test_environments_are_named_after_the_end_of_the_path_and_longer_only_where_that_is_taken(server, tmp_path):
    folders = ["a/x/run-1", "b/x/run_1", "b/x/run 1"]
    names = [begin(tmp_path / folder, server.url).curves.env for folder in folders]
    assert names[:2] == ["x-run-1", "b-x-run-1"] and re.fullmatch("b-x-run-1-[0-9a-f]{4}", names[2])
    assert begin(tmp_path / "c", server.url, "--env", "mine").curves.env == "mine"


def test_a_run_and_its_evaluation_stand_in_one_environment_whose_axes_say_what_they_show(server, collection, tmp_path):
    run = tmp_path / "whole" / "run"
    rows = stage1(collection, run, "--visdom", "--visdom-server", server.url)
    run_main(evaluate, run, "--device", "cpu")
    windows = server.windows("whole-run")
    assert "map_cross_content" in windows.pop("evaluation")["content"] and "is done" in windows.pop("run")["content"]
    layouts = {title: window["content"]["layout"] for title, window in windows.items()}
    assert all(layout["xaxis"]["title"] and layout["yaxis"]["title"] for layout in layouts.values())
    assert layouts["loss"]["xaxis"]["type"] == "category"  # whole numbers only
    assert layouts["learning rate"]["yaxis"]["rangemode"] == "tozero"
    for name in ("train_loss", "val_loss"):
        assert server.curves("whole-run", "loss")[name] == ([1, 2, 3], [float(row[name]) for row in rows])
    rates = [rate_at(step, 27, 0.001, 100, "cosine") for step in range(27)]  # from the first step of the warm-up on
    assert server.curves("whole-run", "learning rate")["lr"] == (list(range(1, 28)), pytest.approx(rates, rel=1e-5))


def test_drawing_takes_a_hundredth_of_the_time_and_150_kilobytes(server, tmp_path):
    run, sizes = begin(tmp_path / "long" / "run", server.url, epochs=51), []
    take_steps(run, 50 * 1500, in_epoch=1500)
    row = {"train_loss": 1 / 3, "val_loss": 1 / 3, run.score: 1 / 3}
    run.history, run.curves.next = [{"epoch": epoch, **row} for epoch in range(1, 51)], 0.0
    run.curves.client.session.hooks["response"].append(lambda answer, **_: sizes.append(len(answer.request.body)))
    began = time.monotonic()
    run.curves.show()
    assert 10_000 < sum(sizes) < 150_000 and run.curves.next - began > 99 * (time.monotonic() - began)


def test_a_server_that_is_killed_and_comes_back_empty_gets_all(tmp_path, capsys):
    server = Server(tmp_path / "visdom")
    run = begin(tmp_path / "run", server.url)
    take_steps(run, 10)
    end_epoch(run, 0.5)
    server.kill()
    take_steps(run, 5)
    take_steps(run, 5)
    (line,) = re.findall("visdom: no curves.*", capsys.readouterr().out)
    assert all(part in line for part in (server.url, "refused", "python -m visdom.server", "ssh -R"))
    shutil.rmtree(server.folder)
    server.start()
    end_epoch(run, 0.25)
    assert server.curves(run.curves.env, "loss")["val_loss"] == ([1, 2], [0.5, 0.25])
    assert len(server.curves(run.curves.env, "batch loss")["batch loss"][0]) == 20
    server.kill()


class Page(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n<html>")


def test_the_real_reason_is_said_once_where_there_is_no_visdom_and_waiting_costs_two_seconds(server, tmp_path, capsys):
    page, stalled = HTTPServer(("127.0.0.1", 0), Page), socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=page.serve_forever, daemon=True).start()
    reasons = {
        f"http://localhost:{server.port}": "status 404: it wants a login, has another path",
        f"http://localhost:{page.server_port}": "it is no Visdom",
        "http://no-such-host.invalid": "[Nn]ame|resol",
        "http://localhost:99999": "Failed to parse",
        f"http://localhost:{stalled.getsockname()[1]}": "timed out",
    }
    for url, reason in reasons.items():
        run, began = begin(tmp_path / reason[:9], url), time.monotonic()
        take_steps(run, 10)
        (line,) = re.findall("visdom: .*", capsys.readouterr().out)
        assert re.search(f"no curves at {url}.*: .*({reason})", line) and "visdom.server" not in line
    assert time.monotonic() - began < 4 and run.curves.next - began > 100, "it is left alone for minutes"
    page.server_close()
    stalled.close()
