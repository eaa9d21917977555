"""bam/ against databases of BAM's shape and a real web server that misbehaves: what is chosen, taken, refused and kept."""

from __future__ import annotations

import random
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from math import log
from pathlib import Path

import numpy as np
import pytest
from bam_stand import PictureServer, huge_png, make_database, picture

from bam import download, harvest, lists
from bam.choice import Candidates, choose, open_database, read_candidates, share_out
from bam.download import Client, Failure, is_public, verify_and_shrink
from dataset import BAM_STYLES, read_picture
from utils import UserError, read_table

ROOT = Path(__file__).resolve().parent.parent
QUICK = ("--styles", "Comic", "--timeout", 20, "--retries", 1)


def comic(mid: int, score: float = 1.0, **more) -> dict:
    return {"mid": mid, "scores": {"media_comic": score, **more.pop("scores", {})}, **more}


def read(path: Path, **options) -> Candidates:
    with open_database(path) as connection:
        return read_candidates(connection, **options)


def pick(path: Path, per_style: int = 99, **options) -> dict[int, tuple[str, str]]:
    """The choice by BAM's number: {mid: (style, content)}."""
    candidates = read(path, **options)
    rows = choose(candidates, per_style, np.zeros(len(candidates.mid), bool))
    names = (*candidates.contents, "")
    return {
        int(candidates.mid[row]): (candidates.styles[candidates.style[row]], names[candidates.content[row]])
        for row in rows
    }


# Which pictures.


@pytest.mark.parametrize(
    ("crowd", "automatic", "score", "counts"),
    [
        *[(None, None, 0.5, True), (None, None, 0.4, False), (None, None, None, False), ("no idea", None, 2, True)],
        *[(None, "positive", -9, True), (None, "negative", 9, False), (None, "unsure", 9, False)],
        *[("positive", "negative", -9, True), ("negative", "positive", 9, False), ("unsure", "positive", 9, False)],
    ],
)
def test_a_crowd_label_outranks_an_automatic_label_which_outranks_a_score(tmp_path, crowd, automatic, score, counts):
    known = {"automatic": {"media_comic": automatic, "content_cat": automatic}}
    known["crowd"] = {"media_comic": crowd, "content_cat": crowd} if crowd else {}
    pictures = [comic(5, score, scores={"content_cat": score}, **known), comic(6)]
    chosen = pick(make_database(tmp_path / "bam.sqlite", pictures))
    assert chosen == {6: ("Comic", "")} | ({5: ("Comic", "cat")} if counts else {})


def test_surer_pictures_come_first(tmp_path):
    label = {"media_comic": "positive"}
    pictures = [comic(1, 0.9), comic(2, 7), comic(3, -2, automatic=label), comic(4, 3, automatic=label)]
    path = make_database(tmp_path / "bam.sqlite", [*pictures, comic(5, -5, crowd=label)])
    assert [list(pick(path, count)) for count in (1, 3, 5)] == [[5], [5, 4, 3], [5, 4, 3, 2, 1]]


def test_scores_below_zero_are_logarithms_of_probabilities_and_the_notes_say_what_counted(tmp_path):
    pictures = [
        comic(1, -0.6, scores={"content_dog": -0.1}),
        comic(2, -0.8),
        comic(3, -5, crowd={"media_comic": "positive"}),
    ]
    path = make_database(tmp_path / "bam.sqlite", pictures, automatic=False)
    assert pick(path) == {1: ("Comic", "dog"), 3: ("Comic", "")}
    assert set(pick(path, min_score=log(0.4))) == {1, 2, 3}
    notes = " ".join(read(path).notes)
    assert "from -5 to -0.1 (logarithms of probabilities) and count from -0.6931" in notes
    assert "Style known by crowd label: 1, by automatic label: 0, by score: 1." in notes
    assert "Content known by crowd label: 0, by automatic label: 0, by score: 1." in notes


def test_mature_pictures_and_those_without_address_are_left_out_and_styles_and_contents_can_be_chosen(tmp_path):
    pictures = [comic(1), comic(2, mature=1), comic(3, mature="true"), comic(4, mature=None), comic(6, url="")]
    pictures += [comic(7, scores={"content_dog": 1}), {"mid": 8, "scores": {"emotion_happy": 2, "content_dog": 1}}]
    path = make_database(tmp_path / "bam.sqlite", pictures)
    assert set(pick(path)) == {1, 4, 7, 8}
    assert set(pick(path, include_mature=True)) == {1, 2, 3, 4, 7, 8}
    assert pick(path, styles=["Comic"], contents=["dog"]) == {7: ("Comic", "dog")}


def test_a_picture_that_fits_several_styles_or_contents_goes_to_the_scarcest():
    both, first, second = (True, True), (True, False), (False, True)
    assert np.bincount(share_out(np.array([both] * 3 + [first] * 20))).tolist() == [20, 3]
    assert np.bincount(share_out(np.array([both, both, first, second]))).tolist() == [2, 2]


@pytest.mark.parametrize(
    ("supplies", "wanted", "shares"), [([3], 5, [3]), ([2, 10, 10], 13, [2, 6, 5]), ([9, 0, 9], 1, [1, 0, 0])]
)
def test_contents_are_as_even_as_the_data_allow(supplies, wanted, shares):
    bounds = np.cumsum([0, *supplies, 0])  # none of no known content
    candidates = Candidates(["a"], "xyz"[: len(supplies)], *[np.arange(bounds[-1])] * 3, bounds[None], [])
    chosen = choose(candidates, wanted, np.zeros(bounds[-1], bool))
    assert np.diff(np.searchsorted(chosen, bounds)).tolist() == [*shares, 0]


def test_the_choice_depends_on_which_pictures_can_be_had_and_not_on_when_that_is_found_out():
    rng = random.Random(0)
    for _ in range(300):
        cuts = np.cumsum([0, *(rng.randint(0, 9) for _ in range(8))])
        candidates = Candidates(["a", "b"], "xyz", *[np.arange(cuts[-1])] * 3, np.array([cuts[:5], cuts[4:]]), [])
        value = np.array([rng.choice([0, 1, *range(2, 99)]) for _ in range(cuts[-1])])  # 0: dead; equal: a placeholder
        wanted, results = rng.randint(1, 15), set()
        for _ in range(4):
            failed, have = np.zeros(cuts[-1], bool), set()
            while missing := set(choose(candidates, wanted, failed).tolist()) - have:
                for row in rng.sample(sorted(missing), rng.randint(1, len(missing))):
                    same = [other for other in {*have, *np.flatnonzero(failed)} if value[other] == value[row]]
                    have.add(row)
                    for bad in [row, *same] if same or not value[row] else []:
                        failed[bad] = True
                        have.discard(bad)
            results.add(tuple(choose(candidates, wanted, failed)))
        assert len(results) == 1


# Downloading.


@pytest.fixture
def server():
    with PictureServer() as server:
        yield server


def address(server: PictureServer, behaviours: list[str], first: int = 0, content: str = "content_cat") -> list[dict]:
    """A database row for each behaviour or address, the earlier the surer; three pictures to a project."""
    return [
        comic(mid, 100 - mid / 8, scores={content: 1}, project=mid // 3,
              url=behaviour if "://" in str(behaviour) else f"{server.url}/{behaviour}/{mid}.jpg")
        for mid, behaviour in enumerate(behaviours, first)
    ]  # fmt: skip


def run(db: Path, out: Path, per_style: int, *options: object) -> list[int]:
    """Harvest within this process; return BAM's numbers in the order of the index."""
    command = ["--db", db, "--out", out, "--per-style", per_style, "--allow-private-hosts", *QUICK, *options]
    harvest.main(harvest.get_parser().parse_args(list(map(str, command))))
    return [int(line["mid"]) for line in read_table(out / "index.csv")]


FINE = ("ok", "429-seconds-once", "429-date-once", "500-once", "reset-once", "to-server", "wrong-type", "avif", "gzip")
FAULTS = {
    "404": "status 404", "403": "status 403", "204": "status 204", "503": "status 503", "429": "status 429",
    "reset": "connection lost", "short": "connection lost", "stall": "stalled", "drip": "too slow",
    "drip-head": "too slow", "429-odd": "no connection", "http://127.0.0.1:1/": "no connection",
    "cut": "damaged picture", "zeros": "damaged picture", "html": "not a picture", "huge": "too many pixels",
    "endless": "too many bytes", "long": "connection lost", "chunk": "connection lost",
    "placeholder": "same as another", "to-file": "redirect to an unusable address", "loop": "too many redirects",
    "file:///etc/hostname": "unusable address", "http://[broken/a.jpg": "unusable address",
    "http://xn--\udc80.example/a.jpg": "unusable address",
}  # fmt: skip


def test_every_fault_is_counted_exactly_and_replaced_by_the_next_spare(tmp_path, server, monkeypatch):
    monkeypatch.setattr(download, "MAX_SECONDS", 6)
    monkeypatch.setattr(download, "MAX_BYTES", 1_000_000)
    huge_png()  # made beforehand: it takes longer than the time-out
    odd = [behaviour for behaviour in (*FAULTS, *FINE) for _ in range(2)]
    random.Random(0).shuffle(odd)
    db = make_database(tmp_path / "bam.sqlite", address(server, odd + ["ok"] * 60))
    taken = run(db, tmp_path / "out", len(odd), "--timeout", 4)
    good = [mid for mid, behaviour in enumerate(odd) if behaviour in FINE]
    assert taken == good + list(range(len(odd), len(odd) + 2 * len(FAULTS)))
    failures = read_table(tmp_path / "out/failures.csv")
    assert Counter(line["reason"] for line in failures) == {why: 2 * n for why, n in Counter(FAULTS.values()).items()}
    assert len(list((tmp_path / "out/Comic").iterdir())) == len(odd)
    # Asked once where the answer is clear, twice where it may pass, never for spares that are not needed.
    twice = {kind for kind in FINE if "once" in kind} | {"503", "429", "reset", "short", "stall", "long", "chunk"}
    for mid, behaviour in enumerate([*odd, *["ok"] * 2 * len(FAULTS)]):
        tries = 0 if "://" in behaviour else 6 if behaviour == "loop" else 2 if behaviour in twice else 1
        assert server.requests.pop(f"/{behaviour}/{mid}.jpg", 0) == tries
    assert all("to-server" not in path for path in server.requests) and server.requests.total() == 2


def test_addresses_go_out_as_they_are_written_under_a_name_of_ones_own_and_without_the_netrc_password(
    tmp_path, server, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").write_text("default login me password secret\n")
    target = "/a%28b%29%2Cc%2f..//d'e%7E|f%zz.jpg?x%2Fy%3D&k=a%2cb/ok/7.jpg"
    rows = [
        comic(1, url=f"{server.url}{target}#end"),
        comic(2, url=f" {server.url}/\xe9 \r/ok/8.jpg".encode("latin-1")),
    ]
    db = make_database(tmp_path / "bam.sqlite", rows)
    assert set(run(db, tmp_path / "out", 2, "--user-agent", "me@here")) == {1, 2}
    assert set(server.requests) == {target, "/%E9%20%0D/ok/8.jpg"}
    assert all(headers["User-Agent"] == "me@here" and "Authorization" not in headers for headers in server.headers)


def test_no_address_of_this_machine_or_its_network_is_asked(tmp_path, server, monkeypatch):
    client = Client("test", per_host=2, timeout=1, retries=0, allow_private=False)
    for host in ("127.0.0.1", "localhost", "[::1]", "0.0.0.0", "10.0.0.1", "169.254.169.254", "[::ffff:127.0.0.1]"):
        with pytest.raises(Failure, match="private address"):
            client.fetch(f"http://{host}:{server.server_port}/ok/1.jpg")
    assert is_public("8.8.8.8") and is_public("[2001:4860:4860::8888]") and not is_public("100.64.0.1")
    # A name that changes what it stands for after it was looked at: the connection itself is looked at too.
    answers, ask = ["127.0.0.1", "8.8.8.8"], socket.getaddrinfo

    def change(host: str, *more, **options):
        return ask(answers.pop() if host == "changing.example" else host, *more, **options)

    with monkeypatch.context() as patch, pytest.raises(Failure, match="private address"):
        patch.setattr(socket, "getaddrinfo", change)
        client.fetch(f"http://changing.example:{server.server_port}/ok/1.jpg")
    assert not server.requests and not answers
    # What is redirected, here through a proxy, which is the user's own choice and may be anywhere.
    monkeypatch.setenv("http_proxy", server.url)
    client = Client("test", per_host=2, timeout=1, retries=0, allow_private=False)
    assert client.fetch("http://pictures.invalid/ok/1.jpg") == picture(1)
    with pytest.raises(Failure, match="private address"):
        client.fetch("http://pictures.invalid/to-server/2.jpg")
    assert set(server.requests) == {f"http://pictures.invalid/{path}.jpg" for path in ("ok/1", "to-server/2")}


def test_a_dead_server_at_the_head_of_the_ranking_does_not_stop_the_harvest(tmp_path, server):
    rows = address(server, ["http://127.0.0.1:9/"] * 230 + ["ok"] * 40)
    db = make_database(tmp_path / "bam.sqlite", rows)
    assert run(db, tmp_path / "out", 20, "--retries", 0) == list(range(230, 250))
    assert len(read_table(tmp_path / "out/failures.csv")) >= harvest.PATIENCE


def test_when_the_network_goes_down_it_says_so_and_the_same_command_brings_the_same_pictures(tmp_path, server):
    rows = address(server, ["ok", "404"] * 100 + ["ok"] * 500)
    db = make_database(tmp_path / "bam.sqlite", rows)
    whole = run(db, tmp_path / "whole", 300)
    server.lives = 150
    with pytest.raises(UserError, match="network seems to be down"):
        run(db, tmp_path / "out", 300, "--retries", 0)
    failures = read_table(tmp_path / "out/failures.csv")
    assert sum(line["reason"] == "connection lost" for line in failures) >= harvest.PATIENCE
    with pytest.raises(UserError, match="network seems to be down"):  # also when it starts
        run(db, tmp_path / "out", 300, "--retries", 0)
    server.lives = 1000
    assert run(db, tmp_path / "out", 300) == whole


def test_killed_and_restarted_it_gives_the_same_pictures_and_downloads_nothing_twice(tmp_path, server):
    rng = random.Random(3)
    kinds = ["ok"] * 8 + ["404", "zeros", "html", "placeholder"]
    db = make_database(tmp_path / "bam.sqlite", address(server, [rng.choice(kinds) for _ in range(250)]))
    whole = run(db, tmp_path / "whole", 120, "--per-host", 4)
    server.requests.clear()
    server.delay = 0.1
    command = [sys.executable, "-m", "bam.harvest", "--db", db, "--out", tmp_path / "out", "--per-style", 120]
    command += ["--allow-private-hosts", "--per-host", 4, *QUICK]
    for wait in (0.7, 60):
        before = sum(server.requests.values())
        process = subprocess.Popen(
            list(map(str, command)), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and sum(server.requests.values()) == before:
            time.sleep(0.01)
        if wait < 60:
            time.sleep(wait)
            process.kill()
            assert not (tmp_path / "out/index.csv").exists()
        process.wait(timeout=60)
        for path in (tmp_path / "out/Comic").glob("*.jpg"):
            assert read_picture(path).size
    assert process.returncode == 0
    assert [int(line["mid"]) for line in read_table(tmp_path / "out/index.csv")] == whole
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / out / "Comic").glob("*.jpg")} for out in ("whole", "out")
    ]
    assert files[0] == files[1] and max(server.requests.values()) <= 2
    assert sum(server.requests.values()) - len(server.requests) <= 8  # those that were under way when it was killed
    server.requests.clear()
    assert run(db, tmp_path / "out", 120) == whole and not server.requests


def test_what_failed_for_want_of_an_answer_is_asked_for_again_by_the_same_command(tmp_path, server):
    db = make_database(tmp_path / "bam.sqlite", address(server, ["503", "404", "500-once", "ok", "ok"]))
    assert run(db, tmp_path / "out", 2, "--retries", 0) == [3, 4]
    assert run(db, tmp_path / "out", 2, "--retries", 0) == [2, 3]
    assert server.requests == {"/503/0.jpg": 2, "/404/1.jpg": 1, "/500-once/2.jpg": 2, "/ok/3.jpg": 1, "/ok/4.jpg": 1}


def test_odd_text_in_a_database_ends_nothing_and_the_index_can_be_read(tmp_path, server, capsys):
    rows = address(server, ["ok"] * 3 + ["404"])
    rows[0] |= {"license": "by\rnc\n\x00", "project": None}
    rows[1] |= {"license": b"\xff\xfe\x80"}
    rows[2] |= {"scores": {"media_comic": b"\xff", "emotion_happy": "much"}, "crowd": {"media_comic": "positive"}}
    db = make_database(tmp_path / "bam.sqlite", rows)
    assert set(run(db, tmp_path / "out", 9)) == {0, 1, 2}
    lines = {int(line["mid"]): line for line in read_table(tmp_path / "out/index.csv")}
    assert lines[1] | {"license": ""} == {
        "path": "Comic/1.jpg", "style": "Comic", "content": "cat", "group": "0", "mid": "1",
        "url": f"{server.url}/ok/1.jpg", "license": "",
    }  # fmt: skip
    assert lines[0]["group"] == "mid-0" and lines[0]["license"].startswith("by nc")
    output = capsys.readouterr().out
    assert "Failed: 1, status 404: 1" in output and f"classification_net.py --data {tmp_path / 'out'}\n" in output


def test_a_shortage_of_this_machine_is_not_the_pictures_fault(tmp_path, server):
    server.delay = 1
    db = make_database(tmp_path / "bam.sqlite", address(server, ["ok"] * 60))
    command = f"ulimit -n 40; exec {sys.executable} -m bam.harvest --db {db} --out {tmp_path}/out --per-style 60"
    command += " --allow-private-hosts --per-host 60 --retries 0 --styles Comic"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode and "oo many open files" in done.stderr.splitlines()[-1]
    assert not read_table(tmp_path / "out/failures.csv")


def test_a_database_that_is_locked_or_not_bam_s_and_a_folder_of_others_are_refused_in_one_line(tmp_path, server):
    db = make_database(tmp_path / "bam.sqlite", address(server, ["ok"]))
    (tmp_path / "mine/Comic").mkdir(parents=True)
    with pytest.raises(UserError, match="files that are not this command's"):
        run(db, tmp_path / "mine", 1)
    with pytest.raises(UserError, match="no picture counts .* lower --min-score"):
        run(db, tmp_path / "out", 1, "--min-score", 1000)
    with sqlite3.connect(db) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError, match="locked.*no other program"):
            run(db, tmp_path / "out", 1)
    (tmp_path / "text").write_text("not a database, but long enough to look at" * 50)
    sqlite3.connect(tmp_path / "empty").execute("CREATE TABLE modules (mid int)").connection.close()
    for name in ("text", "absent", "empty"):
        with pytest.raises(UserError, match="cannot be read as BAM's database"):
            run(tmp_path / name, tmp_path / "out", 1)


def test_dry_run_prints_the_cells_with_their_spares_and_touches_nothing(tmp_path, capsys, server):
    rows = address(server, ["ok"] * 9) + address(server, ["ok"] * 2, first=20, content="content_dog")
    db = make_database(tmp_path / "bam.sqlite", rows)
    command = ["--db", str(db), "--out", str(tmp_path / "out"), "--per-style", "5", "--styles", "Comic", "--dry-run"]
    harvest.main(harvest.get_parser().parse_args(command))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    counts = dict(zip(lines[-2][1:], lines[-1][1:], strict=True))
    assert (counts["all"], counts["cat"], counts["dog"], counts["bird"]) == ("5+6", "3+6", "2+0", "0+0")
    assert not server.requests and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("size", "stored"), [((640, 480), (341, 256)), ((300, 900), (256, 768)), ((200, 100), (200, 100))]
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_pictures_are_shrunk_to_the_short_side_and_never_enlarged(kind, size, stored):
    shape = read_picture(verify_and_shrink(picture(1, kind, *size))).shape
    assert shape == (stored[1], stored[0], 3)


@pytest.mark.parametrize(
    "odd", [b"\xff\xe2\0\x10ICC_PROFILE\0\0\0", b"\xff\xe2\0\x0eICC_PROFILE\0", b"\xff\xe0\0\x06JFIF"]
)
def test_odd_metadata_does_not_decide_whether_a_jpeg_is_a_picture(odd):
    data = picture(1, "JPEG", 40, 30)
    assert read_picture(verify_and_shrink(data[:2] + odd + data[2:])).shape == (30, 40, 3)


# The lists of the earlier implementation.


def make_index(tmp_path: Path, *options: object, **files: str) -> list[tuple[str, ...]]:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    words = [str(tmp_path / word) if word in files else str(word) for word in options]
    lists.main(lists.get_parser().parse_args([*words, "--out", str(tmp_path / "data")]))
    return [tuple(line.values()) for line in read_table(tmp_path / "data/index.csv")]


PAIR = {"f": "a.jpg\nb c.jpg\n", "l": "10\n2\n"}


def test_lists_become_one_index_with_their_split_in_the_order_that_triplets_count_in(tmp_path):
    files = {**PAIR, "g": "d.jpg\n", "m": "0", "all": "x.jpg\nd.jpg\nb c.jpg\na.jpg\n"}
    options = ("--filenames", "f", "g", "--labels", "l", "m", "--splits", "train", "test", "--order", "all")
    expected = [("x.jpg", "", ""), ("d.jpg", "00", "test"), ("b c.jpg", "02", "train"), ("a.jpg", "10", "train")]
    assert make_index(tmp_path, *options, **files) == expected


def test_labels_stay_numbers_unless_they_are_named(tmp_path):
    one = ("--filenames", "f", "--labels", "l", "--class-names")
    assert make_index(tmp_path, *one[:-1], **PAIR)[0] == ("a.jpg", "10", "")
    (tmp_path / "data/index.csv").unlink()
    assert [row[1] for row in make_index(tmp_path, *one, "bam", **PAIR)] == [BAM_STYLES[10], BAM_STYLES[2]]
    (tmp_path / "data/index.csv").unlink()
    with pytest.raises(UserError, match="names no class 10"):
        make_index(tmp_path, *one, "n", n="x\ny\n", **PAIR)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"l": "1\n"}, "1 labels for the 2 pictures"), ({"l": "1\n-2\n"}, "line 2: '-2' is no label"),
        ({"f": "a.jpg\na.jpg\n"}, "2: 'a.jpg' .* listed twice"), ({"f": "/a.jpg\nb.jpg\n"}, "1: '/a.jpg' is no path"),
        ({"all": "a.jpg\n"}, "lacks 1 of the pictures, for example b c.jpg"),
    ],
)  # fmt: skip
def test_lists_that_do_not_pair_up_are_refused_in_one_line(tmp_path, files, message):
    files = {**PAIR, "all": PAIR["f"], **files}
    with pytest.raises(UserError, match=message):
        make_index(tmp_path, "--filenames", "f", "--labels", "l", "--order", "all", **files)
