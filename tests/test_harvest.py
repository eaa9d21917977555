"""harvest.py against a real web server that misbehaves: what is taken, refused, retried, replaced and kept."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import filelock
import pytest
from harvest_stand import PictureServer, huge_png, make_database
from PIL import Image

import download
import harvest
import harvest_folder
from dataset import read_collection
from decoding import decode
from utils import Interrupted, UserError

ROOT = Path(__file__).resolve().parent.parent
QUICK = ("--timeout", "2", "--deadline", "5", "--retries", "1", "--max-megabytes", "1", "--per-host", "32")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[bytes]:
    """99 pictures of the stand-in collection, as JPEG files."""
    folder = tmp_path_factory.mktemp("demo") / "demo"
    command = [sys.executable, "demo.py", str(folder), "--per-cell", "1", "--size", "64", "--seed", "0"]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    return [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))]


@pytest.fixture
def server(pictures):
    with PictureServer({f"{number}.jpg": pictures[number % len(pictures)] for number in range(300)}) as server:
        yield server


def make_pictures(server: PictureServer, behaviours: list[str], style="media_comic", content="content_cat", first=0):
    """One database row for each behaviour, the earlier the surer; three pictures to a project."""
    return [
        {"mid": first + place, "project": (first + place) // 3, "license": "CC BY-NC, 4.0",
         "url": behaviour if "://" in behaviour else f"{server.url}/{behaviour}/{first + place}.jpg",
         "scores": {style: 100.0 - place / 8, content: 1.0}}
        for place, behaviour in enumerate(behaviours)
    ]  # fmt: skip


def run(db: Path, out: Path, *options: object) -> dict:
    """Harvest within this process; return what harvest.json says."""
    harvest.main(harvest.get_parser().parse_args(["--db", str(db), "--out", str(out), *map(str, options)]))
    return json.loads((out / "harvest.json").read_text())


def start(db: Path, out: Path, *options: object) -> subprocess.Popen:
    command = [sys.executable, "harvest.py", "--db", db, "--out", out, *options]
    return subprocess.Popen(
        list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def read_index(out: Path) -> list[dict[str, str]]:
    with (out / "index.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_folder(out: Path) -> dict[str, bytes]:
    """Every file of a finished harvest but the lock, by path."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*"))
            if path.is_file() and path.name != "lock"}  # fmt: skip


# Faults.

FINE = ("ok", "429-once", "429-date", "500-once", "reset-once", "to-port", "wrong-type")
FAULTS = {
    "404": "status 404", "410": "status 410", "403": "status 403", "204": "status 204",
    "503": "status 503", "429": "status 429", "reset": "connection lost", "short": "connection lost",
    "stall": "stalled", "drip": "too slow", "truncated": "damaged picture", "html": "not a picture",
    "huge": "too many pixels", "endless": "too many bytes", "long": "too many bytes",
    "to-file": "redirect to an unusable address", "loop": "too many redirects",
    "http://127.0.0.1:1/": "no connection", "file:///etc/hostname": "unusable address",
    "ftp://127.0.0.1/a.jpg": "unusable address", "http://[broken/a.jpg": "unusable address",
}  # fmt: skip
TEMPORARY = {"503", "429", "reset", "short", "stall", "drip", "http://127.0.0.1:1/"}


def test_every_fault_is_counted_exactly_and_replaced_by_the_next_spare(tmp_path, pictures, server):
    # Each fault and each oddity twice, the surest of all; then 60 good ones, of which only some are needed.
    odd = [behaviour for behaviour in (*FAULTS, *FINE) for _ in range(2)]
    random.Random(0).shuffle(odd)
    rows = make_pictures(server, odd + ["ok"] * 60)
    db = make_database(tmp_path / "bam.sqlite", rows)
    wanted = len(odd)
    huge_png()  # made beforehand: it takes longer than the time-out
    with PictureServer(server.files) as other:
        server.other = other.url
        result = run(db, tmp_path / "out", "--per-style", wanted, "--styles", "comic", *QUICK)["styles"]["Comic"]
    replaced = 2 * len(FAULTS)
    assert {name: result[name] for name in ("wanted", "taken", "replaced", "failed")} == {
        "wanted": wanted, "taken": wanted, "replaced": replaced, "failed": replaced,
    }  # fmt: skip
    assert result["reasons"] == {reason: 2 * count for reason, count in Counter(FAULTS.values()).items()}
    good = [row["mid"] for row, behaviour in zip(rows, odd, strict=False) if behaviour in FINE]
    assert [int(row["mid"]) for row in read_index(tmp_path / "out")] == good + list(range(wanted, wanted + replaced))
    # Asked once where the answer is clear, twice where it may pass (--retries 1), never for spares not needed.
    tries = {"ok": 1, "wrong-type": 1, "to-port": 1, "loop": 5, **dict.fromkeys(FINE[1:5], 2)}
    expected = {f"/{name}/{row['mid']}.jpg": tries.get(name, 2 if name in TEMPORARY else 1)
                for row, name in zip(rows, [*odd, *["ok"] * replaced], strict=False) if "://" not in name}  # fmt: skip
    expected |= {path: 1 for path in expected if path.startswith("/drip/")}  # its time is up after the first try
    assert dict(server.requests) == expected
    assert sum(other.requests.values()) == 2
    assert not (tmp_path / "out/.harvest/parts").exists()
    assert len(list((tmp_path / "out/Comic").iterdir())) == wanted
    journal = [json.loads(line) for line in (tmp_path / "out/.harvest/failed.jsonl").read_text().splitlines()]
    assert sum(entry["temporary"] for entry in journal) == 2 * len(TEMPORARY)


def test_retry_after_is_kept_to_in_both_forms(tmp_path, server):
    db = make_database(tmp_path / "bam.sqlite", make_pictures(server, ["429-once", "429-date"]))
    begin = time.monotonic()
    result = run(db, tmp_path / "out", "--per-style", 2, "--styles", "Comic", *QUICK)
    assert result["pictures"] == 2 and 1 <= time.monotonic() - begin < 60


def test_a_server_that_asks_to_come_back_tomorrow_is_asked_again_after_a_minute_at_most(tmp_path, monkeypatch, server):
    assert download.LONGEST_WAIT == 60
    monkeypatch.setattr(download, "LONGEST_WAIT", 0.5)
    db = make_database(tmp_path / "bam.sqlite", make_pictures(server, ["429-long"]))
    assert run(db, tmp_path / "out", "--per-style", 1, "--styles", "Comic", *QUICK)["pictures"] == 1


def test_when_nothing_is_left_the_style_stays_short_and_the_others_are_full(tmp_path, capsys, server):
    rows = make_pictures(server, ["404"] * 5 + ["ok"] * 3)
    rows += make_pictures(server, ["404", *["ok"] * 9], style="emotion_happy", content="content_dog", first=50)
    db = make_database(tmp_path / "bam.sqlite", rows)
    styles = run(db, tmp_path / "out", "--per-style", 6, "--styles", "Comic", "Happy", *QUICK)["styles"]
    assert (styles["Comic"]["taken"], styles["Comic"]["failed"], styles["Comic"]["replaced"]) == (3, 5, 2)
    assert (styles["Happy"]["taken"], styles["Happy"]["failed"], styles["Happy"]["replaced"]) == (6, 1, 1)
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["Comic", "6", "3", "2", "5", "status", "404:", "5"] in table
    assert ["all", "12", "9", "3", "6"] in table


def test_where_not_one_picture_can_be_had_one_line_says_so(tmp_path, server):
    db = make_database(tmp_path / "bam.sqlite", make_pictures(server, ["404"] * 4))
    with pytest.raises(UserError, match=r"not one picture.*failed\.jsonl"):
        run(db, tmp_path / "out", "--per-style", 2, "--styles", "Comic", *QUICK)
    assert not (tmp_path / "out/index.csv").exists()


def test_a_dead_link_is_replaced_in_its_own_cell_and_by_other_contents_only_when_that_is_empty(tmp_path, server):
    rows = make_pictures(server, ["404", "ok", "ok", "ok"], content="content_cat")
    rows += make_pictures(server, ["404", "404", "ok"], content="content_dog", first=10)
    rows += make_pictures(server, ["ok"] * 5, content="content_tree", first=20)
    db = make_database(tmp_path / "bam.sqlite", rows)
    result = run(db, tmp_path / "out", "--per-style", 7, "--styles", "Comic", *QUICK)["styles"]["Comic"]
    assert {name: number for name, number in result["contents"].items() if number} == {"cat": 3, "dog": 1, "tree": 3}
    assert [int(row["mid"]) for row in read_index(tmp_path / "out")] == [1, 2, 3, 12, 20, 21, 22]


def test_a_huge_picture_is_refused_in_little_memory(tmp_path, server):
    db = make_database(tmp_path / "bam.sqlite", make_pictures(server, ["huge"] * 8 + ["ok"]))
    process = start(db, tmp_path / "out", "--per-style", 1, "--styles", "Comic")
    process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, process.stderr.read()
    # One decoded would take 2.7 GB. The program with its packages takes about 0.4, but the largest size that the system
    # reports of a process can be its parent's, the tests', at the moment it was forked.
    assert usage.ru_maxrss < 2_000_000
    assert json.loads((tmp_path / "out/harvest.json").read_text())["styles"]["Comic"]["reasons"] == {
        "too many pixels": 8
    }


def test_a_network_that_is_down_stops_the_harvest_instead_of_using_up_the_spares(tmp_path, monkeypatch, server):
    monkeypatch.setattr(harvest_folder, "OUTAGE", 20)
    db = make_database(tmp_path / "bam.sqlite", make_pictures(server, ["ok"] * 100))
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match="last 20 pictures all failed.*nothing is lost"):
        run(db, tmp_path / "out", "--per-style", 50, "--styles", "Comic", "--retries", "0", *QUICK[:2])
    assert not (tmp_path / "out/.harvest/failed.jsonl").exists()


def test_retry_failed_asks_again_only_for_what_may_have_passed(tmp_path, pictures, server):
    rows = make_pictures(server, ["503", "404", "ok", "ok", "ok"])
    db = make_database(tmp_path / "bam.sqlite", rows)
    options = ("--per-style", 3, "--styles", "Comic", *QUICK)
    run(db, tmp_path / "out", *options)
    assert [int(row["mid"]) for row in read_index(tmp_path / "out")] == [2, 3, 4]
    server.requests.clear()
    run(db, tmp_path / "out", *options)
    assert not server.requests
    # The server recovers: what was 503 is there now.
    server.RequestHandlerClass = type("Recovered", (server.RequestHandlerClass,), {
        "behave": lambda self, behaviour, name, number: self.answer(200, self.server.files[name])})  # fmt: skip
    result = run(db, tmp_path / "out", *options, "--retry-failed")["styles"]["Comic"]
    assert dict(server.requests) == {"/503/0.jpg": 1}
    assert [int(row["mid"]) for row in read_index(tmp_path / "out")] == [0, 2, 3]
    assert sorted(path.name for path in (tmp_path / "out/Comic").iterdir()) == ["0.jpg", "2.jpg", "3.jpg"]
    assert result["reasons"] == {"status 404": 1}


# What is stored.


def encode(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def harvest_one(tmp_path: Path, server: PictureServer, data: bytes, *options: object) -> Path:
    server.files["0.jpg"] = data
    tmp_path.mkdir(exist_ok=True)
    db = make_database(tmp_path / "bam.sqlite", make_pictures(server, ["ok"]))
    run(db, tmp_path / "out", "--per-style", 1, "--styles", "Comic", *options)
    return tmp_path / "out" / read_index(tmp_path / "out")[0]["path"]


@pytest.mark.parametrize(
    ("size", "shrink", "expected"),
    [
        ((640, 480), 256, (341, 256)), ((300, 900), 256, (256, 768)), ((200, 100), 256, (200, 100)),
        ((64, 80), 32, (32, 40)), ((3, 2000), 256, (3, 2000)),
    ],
)  # fmt: skip
def test_the_short_side_is_shrunk_and_never_enlarged(tmp_path, server, size, shrink, expected):
    path = harvest_one(tmp_path, server, encode(Image.new("RGB", size, "red"), "PNG"), "--shrink", shrink)
    with Image.open(path) as image:
        assert (image.format, image.size, path.suffix) == ("JPEG", expected, ".jpg")
        # Quality 95: the first step of the luminance table is 2 (it is 16 at quality 50).
        assert image.quantization[0][0] == 2


@pytest.mark.parametrize(("kind", "suffix"), [("JPEG", ".jpg"), ("PNG", ".png"), ("GIF", ".gif"), ("WEBP", ".webp")])
def test_shrink_0_keeps_the_file_as_it_came_under_its_true_suffix(tmp_path, server, kind, suffix):
    data = encode(Image.new("RGB", (300, 400), "red"), kind)
    path = harvest_one(tmp_path, server, data, "--shrink", 0)
    assert path.read_bytes() == data and path.name == f"0{suffix}"
    assert decode(path).shape == (400, 300, 3)


def test_a_picture_is_stored_upright_and_on_white(tmp_path, server):
    half = Image.new("RGB", (80, 40), "white")
    half.paste("red", (0, 0, 40, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter to the right: the left half comes to lie on top
    path = harvest_one(tmp_path / "a", server, encode(half, "JPEG", exif=exif, quality=95))
    picture = decode(path)
    assert picture.shape == (80, 40, 3)
    assert picture[5, 20, 1] < 50 and picture[75, 20, 1] > 200
    path = harvest_one(tmp_path / "b", server, encode(Image.new("RGBA", (40, 40), (255, 0, 0, 0)), "PNG"))
    assert decode(path).min() > 250


# The result.


def test_the_result_is_a_data_folder_that_keeps_projects_together(tmp_path, pictures, server):
    rows = []
    for number, style in enumerate(("media_comic", "media_pen_ink", "emotion_happy")):
        for place, content in enumerate(("content_cat", "content_dog")):
            rows += make_pictures(server, ["ok"] * 30, style, content, first=60 * number + 30 * place)
    rows[0]["project"] = None
    rows[0]["scores"] |= {"content_cat": -1.0}
    db = make_database(tmp_path / "bam.sqlite", rows)
    result = run(db, tmp_path / "out", "--per-style", 60, "--styles", "Comic", "Pen Ink", "Happy", "--shrink", 32)
    collection = read_collection(tmp_path / "out")
    assert len(collection) == result["pictures"] == 180
    assert [collection.styles[number] for number in sorted(set(collection.style))] == ["Comic", "Pen Ink", "Happy"]
    assert Counter(collection.content_name(row) for row in range(180)) == {"cat": 89, "dog": 90, "": 1}
    splits = {}
    for row in range(180):
        splits.setdefault(collection.group[row], set()).add(collection.split[row])
    assert len(splits) == 61 and all(len(found) == 1 for found in splits.values())
    first = next(row for row in read_index(tmp_path / "out") if row["mid"] == "1")
    assert first == {
        "path": "Comic/1.jpg", "style": "Comic", "content": "cat", "group": "0", "mid": "1",
        "url": f"{server.url}/ok/1.jpg", "license": "CC BY-NC, 4.0", "style_score": "99.875",
    }  # fmt: skip


def test_dry_run_prints_the_cells_with_their_spares_and_touches_nothing(tmp_path, capsys, server):
    rows = make_pictures(server, ["ok"] * 9) + make_pictures(server, ["ok"] * 2, content="content_dog", first=20)
    db = make_database(tmp_path / "bam.sqlite", rows)
    options = ["--db", str(db), "--out", str(tmp_path / "out"), "--per-style", "5", "--styles", "comic", "--dry-run"]
    harvest.main(harvest.get_parser().parse_args(options))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    header = next(line for line in lines if line[0] == "style")
    comic = dict(zip(header, next(line for line in lines if line[0] == "Comic"), strict=True))
    assert comic["cat"] == "3+6" and comic["dog"] == "2+0" and comic["bird"] == "0+0" and comic["all"] == "5"
    assert not server.requests and not (tmp_path / "out").exists()


# Restart.


def make_mixture(server: PictureServer) -> list[dict]:
    """Two styles that share pictures, four contents, a third of the links dead."""
    rng = random.Random(3)
    rows = []
    for mid in range(198):
        behaviour = rng.choice(["ok"] * 8 + ["404", "410", "truncated", "html"])
        scores = {"media_comic": rng.gauss(1, 1), "emotion_happy": rng.gauss(0, 1)}
        scores |= {f"content_{name}": rng.gauss(-0.5, 1) for name in ("cat", "dog", "tree", "bird")}
        rows.append({"mid": mid, "project": mid // 3, "url": f"{server.url}/{behaviour}/{mid}.jpg", "scores": scores})
    return rows


def test_killed_at_random_moments_and_restarted_it_gives_the_same_folder_and_downloads_nothing_twice(tmp_path, server):
    db = make_database(tmp_path / "bam.sqlite", make_mixture(server))
    options = ("--per-style", 50, "--styles", "Comic", "Happy", "--workers", 4)
    run(db, tmp_path / "whole", *options)
    assert sum(server.requests.values()) > 110
    whole = read_folder(tmp_path / "whole")
    server.requests.clear()
    server.delay = 0.2
    rng = random.Random(time.time_ns())
    kills = 0
    while True:
        process = start(db, tmp_path / "out", *options)
        before = sum(server.requests.values())
        while process.poll() is None and sum(server.requests.values()) == before:
            time.sleep(0.01)
        # From the first request on, so that every life gets something done.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.1, 1.0) if kills < 3 else 60)
        if process.poll() is not None:
            break
        process.kill()
        process.communicate()
        kills += 1
        server.delay = 0.2 if kills < 3 else 0
        for path in (tmp_path / "out").glob("[!.]*/*"):
            assert decode(path).size  # whole, wherever the kill struck
        assert not (tmp_path / "out/index.csv").exists()
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert kills >= 3
    out = read_folder(tmp_path / "out")
    # Which spares were asked for in vain can differ with the timing, where styles share pictures; the result cannot.
    journals = [folder.pop(".harvest/failed.jsonl").splitlines() for folder in (out, whole)]
    assert out == whole
    assert all(len(set(journal)) == len(journal) for journal in journals)
    # A request that was under way when the process was killed is made again: at most one for each worker and kill.
    assert sum(server.requests.values()) - len(server.requests) <= 4 * kills
    assert max(server.requests.values()) <= 1 + kills


def test_running_a_finished_harvest_again_asks_for_nothing_and_changes_nothing(tmp_path, server):
    db = make_database(tmp_path / "bam.sqlite", make_mixture(server))
    options = ("--per-style", 20, "--styles", "Comic", "Happy")
    run(db, tmp_path / "out", *options)
    before = read_folder(tmp_path / "out")
    server.requests.clear()
    run(db, tmp_path / "out", *options)
    assert not server.requests and read_folder(tmp_path / "out") == before


def test_a_picture_that_was_deleted_is_fetched_again_and_foreign_files_are_left_alone(tmp_path, server):
    db = make_database(tmp_path / "bam.sqlite", make_pictures(server, ["ok"] * 5))
    options = ("--per-style", 3, "--styles", "Comic")
    run(db, tmp_path / "out", *options)
    server.requests.clear()
    (tmp_path / "out/Comic/1.jpg").unlink()
    for name in ("notes.txt", "99999.jpg", "9" * 30 + ".jpg", "4.jpg.part"):
        (tmp_path / "out/Comic" / name).write_text("mine")
    run(db, tmp_path / "out", *options)
    assert dict(server.requests) == {"/ok/1.jpg": 1}
    assert len(list((tmp_path / "out/Comic").iterdir())) == 3 + 4


def test_a_journal_that_ends_in_half_a_line_is_read_and_mended(tmp_path, server):
    db = make_database(tmp_path / "bam.sqlite", make_pictures(server, ["404", "410", *["ok"] * 5]))
    options = ("--per-style", 3, "--styles", "Comic")
    run(db, tmp_path / "out", *options)
    journal = tmp_path / "out/.harvest/failed.jsonl"
    lines = sorted(journal.read_text().splitlines(keepends=True))
    journal.write_text(lines[0] + lines[1][:20])
    server.requests.clear()
    run(db, tmp_path / "out", *options)
    assert dict(server.requests) == {"/410/1.jpg": 1}
    assert sorted(journal.read_text().splitlines(keepends=True)) == lines


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_end_it_with_one_line_that_says_how_to_go_on(tmp_path, server, number):
    db = make_database(tmp_path / "bam.sqlite", make_pictures(server, ["ok"] * 100))
    server.delay = 0.3
    process = start(db, tmp_path / "out", "--per-style", 90, "--styles", "Comic", "--workers", 2)
    while not list((tmp_path / "out").glob("Comic/*.jpg")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert len(errors.splitlines()) == 1 and "the same command goes on" in errors
    assert not list((tmp_path / "out/.harvest/parts").glob("*"))


def test_stopped_while_it_reads_the_database_it_says_so_too(tmp_path):
    with harvest.stoppable(tmp_path), pytest.raises(Interrupted) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    assert stop.value.signal_number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


# What is refused.


def test_another_harvest_in_the_same_folder_is_refused(tmp_path, server):
    db = make_database(tmp_path / "bam.sqlite", make_pictures(server, ["ok"] * 3))
    (tmp_path / "out/.harvest").mkdir(parents=True)
    with filelock.FileLock(tmp_path / "out/.harvest/lock"):
        process = start(db, tmp_path / "out", "--per-style", 2, "--styles", "Comic")
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2 and "another harvest.py" in errors and len(errors.splitlines()) == 1
    assert not server.requests


def test_other_options_or_another_database_are_refused_in_a_folder_that_holds_a_harvest(tmp_path, server):
    rows = make_pictures(server, ["ok"] * 5)
    db = make_database(tmp_path / "bam.sqlite", rows)
    options = ("--styles", "Comic", "--per-style")
    run(db, tmp_path / "out", *options, 2)
    before = read_folder(tmp_path / "out")
    for changed in ((3,), (2, "--shrink", 0), (2, "--seed", 1), (2, "--min-score", 0), (2, "--contents", "cat")):
        with pytest.raises(UserError, match="same options again or another --out"):
            run(db, tmp_path / "out", *options, *changed)
    other = make_database(tmp_path / "other.sqlite", rows[1:])
    with pytest.raises(UserError, match="another database"):
        run(other, tmp_path / "out", *options, 2)
    run(db, tmp_path / "out", *options, 2, "--workers", 1, "--timeout", 5)
    assert read_folder(tmp_path / "out") == before


def test_a_data_folder_that_harvest_did_not_make_is_left_alone(tmp_path, server):
    db = make_database(tmp_path / "bam.sqlite", make_pictures(server, ["ok"]))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/index.csv").write_text("path,style\n")
    with pytest.raises(UserError, match="did not make"):
        run(db, tmp_path / "out", "--per-style", 1, "--styles", "Comic")
    (tmp_path / "own/Comic").mkdir(parents=True)
    for number in range(3):  # called as harvest.py calls pictures, and no pictures of its making
        (tmp_path / f"own/Comic/{number}.jpg").write_text("mine")
    with pytest.raises(UserError, match="did not make .Comic."):
        run(db, tmp_path / "own", "--per-style", 1, "--styles", "Comic")
    assert len(list((tmp_path / "own").rglob("*"))) == 4
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        run(db, tmp_path / "file", "--per-style", 1, "--styles", "Comic")


@pytest.mark.parametrize(
    "options",
    [["--per-style", "0"], ["--workers", "0"], ["--shrink", "-1"], ["--timeout", "nan"], ["--min-score", "inf"],
     ["--max-megapixels", "101"], ["--max-megabytes", "0"], ["--styles", "Baroque"], ["--contents", "house"],
     ["--min-score", "1000"]],
)  # fmt: skip
def test_a_wrong_option_is_named_in_one_line(tmp_path, options, server):
    db = make_database(tmp_path / "bam.sqlite", make_pictures(server, ["ok"]))
    with pytest.raises(UserError, match=options[0]):
        run(db, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_styles_are_known_by_their_names_and_by_bams(tmp_path, server):
    assert harvest.find_names("--styles", ["pencil sketch,media_comic", "Graphite"], harvest.BAM_STYLES) == (
        "Comic", "Pencil Sketch",
    )  # fmt: skip
    assert harvest.find_names("--contents", ["content_dog", "CAT"], harvest.BAM_CONTENTS) == ("cat", "dog")
