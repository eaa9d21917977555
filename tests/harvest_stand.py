"""What the tests of harvest.py stand on: made BAM databases and a web server that misbehaves.

python tests/harvest_stand.py bam.sqlite --rows 2300000     a database of BAM's size, to measure the selection
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import sqlite3
import struct
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterable
from email.utils import formatdate
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bam import ATTRIBUTES  # noqa: E402


def make_big_database(path: Path, rows: int, seed: int = 0, automatic: bool = True) -> None:
    """Write a database of BAM's shape: log-odds scores, rare positives, some crowd labels."""
    rng = np.random.default_rng(seed)
    rarity = rng.uniform(-6, -1.5, len(ATTRIBUTES))
    connection = sqlite3.connect(path)
    columns = ", ".join(ATTRIBUTES)
    connection.executescript(f"""
        PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
        CREATE TABLE modules (mid int primary key, project_id int, src text, mature_content boolean, license text);
        CREATE TABLE scores (mid int, {", ".join(f"{name} real" for name in ATTRIBUTES)});
        CREATE TABLE crowd_labels (mid int, attribute text, label text, primary key (mid, attribute));
        CREATE TABLE crowd_raw_captions (mid int, caption text);
    """)
    if automatic:
        connection.execute(f"CREATE TABLE automatic_labels (mid int, {', '.join(f'{n} text' for n in ATTRIBUTES)})")
    words = np.array(["negative", "unsure", "positive"], dtype=object)
    marks = ", ".join("?" * (len(ATTRIBUTES) + 1))
    for start in range(0, rows, 50_000):
        count = min(50_000, rows - start)
        mid = np.arange(start, start + count) * 7 + 1_000_003
        score = rng.normal(rarity, 2.0, (count, len(ATTRIBUTES)))
        project = mid // 40
        mature = rng.random(count) < 0.03
        connection.executemany(
            "INSERT INTO modules VALUES (?, ?, ?, ?, ?)",
            ((m, p, f"http://127.0.0.1:9/projects/disp/{m * 7919:x}.{m:x}.jpg", int(a), "CC BY-NC-ND 4.0")
             for m, p, a in zip(mid.tolist(), project.tolist(), mature.tolist(), strict=True)),
        )  # fmt: skip
        connection.executemany(
            f"INSERT INTO scores (mid, {columns}) VALUES ({marks})", np.column_stack([mid, score]).tolist()
        )
        if automatic:
            label = words[(score > -2).astype(int) + (score > 1)]
            connection.executemany(
                f"INSERT INTO automatic_labels (mid, {columns}) VALUES ({marks})",
                ((m, *row) for m, row in zip(mid.tolist(), label.tolist(), strict=True)),
            )
        judged = np.flatnonzero(rng.random(count) < 0.15)
        attribute = rng.integers(0, len(ATTRIBUTES), len(judged))
        verdict = rng.integers(0, 3, len(judged))
        connection.executemany(
            "INSERT INTO crowd_labels VALUES (?, ?, ?)",
            ((int(mid[j]), ATTRIBUTES[a], words[v]) for j, a, v in zip(judged, attribute, verdict, strict=True)),
        )
    connection.commit()
    connection.close()


def make_database(
    path: Path, pictures: Iterable[dict[str, Any]], *, automatic: bool = True, reverse: bool = False
) -> Path:
    """Write a small BAM database. A picture: mid, url, project, mature, license, and `scores`, `automatic`, `crowd`
    by attribute. `reverse` turns the order of columns and tables round.
    """  # fmt: skip
    tables = {
        "modules": ["mid int primary key", "project_id int", "src text", "mature_content boolean", "license text"],
        "scores": ["mid int", *(f"{name} real" for name in ATTRIBUTES)],
        "crowd_labels": ["mid int", "attribute text", "label text"],
        "crowd_raw_hits": ["assignment_id text", "attribute text"],
    }
    if automatic:
        tables["automatic_labels"] = ["mid int", *(f"{name} text" for name in ATTRIBUTES)]
    connection = sqlite3.connect(path)
    for table in sorted(tables, reverse=reverse):
        columns = tables[table][::-1] if reverse else tables[table]
        connection.execute(f"CREATE TABLE {table} ({', '.join(columns)})")

    def insert(table: str, row: dict[str, Any]) -> None:
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(row.values()))

    for picture in pictures:
        mid = picture["mid"]
        url, licence = picture.get("url", f"http://x/{mid}"), picture.get("license", "CC BY")
        known = {"project_id": picture.get("project"), "mature_content": picture.get("mature", 0)}
        insert("modules", {"mid": mid, "src": url, "license": licence, **known})
        insert("scores", {"mid": mid, **picture.get("scores", {})})
        if automatic and "automatic" in picture:
            insert("automatic_labels", {"mid": mid, **picture["automatic"]})
        for attribute, label in picture.get("crowd", {}).items():
            insert("crowd_labels", {"mid": mid, "attribute": attribute, "label": label})
    connection.commit()
    connection.close()
    return path


@cache
def huge_png(side: int = 30_000) -> bytes:
    """A whole, valid, white PNG of side x side pixels in about a hundred kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    line = b"\0" + b"\xff" * ((side + 7) // 8)
    body = b"".join(packer.compress(line) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


class Handler(BaseHTTPRequestHandler):
    """Answers /<behaviour>/<file>; what each behaviour does is in `do_GET`."""

    protocol_version = "HTTP/1.1"
    server: PictureServer

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send a whole answer."""
        self.send_response(status)
        headers = {"Content_Length": str(len(body)), "Content_Type": "image/jpeg", **headers}
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def reset(self) -> None:
        """Cut the connection so that the client sees a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def do_GET(self) -> None:  # noqa: N802 (http.server's name)
        """Count the request and misbehave as asked."""
        with self.server.lock:
            self.server.requests[self.path] += 1
            number = self.server.requests[self.path]
        with contextlib.suppress(OSError):  # the client may leave in the middle
            time.sleep(self.server.delay)
            self.behave(*unquote(self.path).strip("/").split("/", 1), number)

    def behave(self, behaviour: str, name: str, number: int) -> None:
        """Answer one request; `number` counts the requests for this address from 1."""
        body = self.server.files.get(name, b"")
        if behaviour.isdigit():
            self.answer(int(behaviour))
        elif (
            behaviour in ("429-once", "429-date", "429-long", "500-once", "reset-once")
            and number > 1
            or behaviour == "ok"
        ):
            self.answer(200, body)
        elif behaviour == "429-once":
            self.answer(429, Retry_After="1")
        elif behaviour == "429-long":
            self.answer(429, Retry_After="86400")
        elif behaviour == "429-date":
            self.answer(429, Retry_After=formatdate(time.time() + 2, usegmt=True))
        elif behaviour == "500-once":
            self.answer(500)
        elif behaviour.startswith("reset"):
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + body[:100])
            self.reset()
        elif behaviour == "stall":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + body[:100])
            self.server.over.wait(60)
        elif behaviour == "drip":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while not self.server.over.wait(0.1):
                self.wfile.write(b"\xff")
        elif behaviour == "endless":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n" + body)
            while not self.server.over.is_set():
                self.wfile.write(bytes(65536))
        elif behaviour == "long":
            self.answer(200, body, Content_Length=str(10**12))
            self.close_connection = True
        elif behaviour == "truncated":
            self.answer(200, body[: len(body) * 2 // 3])
        elif behaviour == "short":
            self.answer(200, body[:-100], Content_Length=str(len(body)))
            self.close_connection = True
        elif behaviour == "html":
            self.answer(200, b"<!DOCTYPE html><title>Gone</title><p>This picture has moved.")
        elif behaviour == "wrong-type":
            self.answer(200, body, Content_Type="text/html; charset=utf-8")
        elif behaviour == "huge":
            self.answer(200, huge_png(), Content_Type="image/png")
        elif behaviour == "to-file":
            self.answer(302, Location=f"file:///etc/hostname?{name}")
        elif behaviour == "to-port":
            self.answer(302, Location=f"{self.server.other}/ok/{name}")
        elif behaviour == "loop":
            self.answer(302, Location=self.path)
        else:
            raise AssertionError(f"unknown behaviour {behaviour}")


class PictureServer(ThreadingHTTPServer):
    """Serves `files` (bytes by name) on loopback from threads; counts requests by path. Use it in a with statement."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, files: dict[str, bytes], delay: float = 0.0, other: str = "") -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.delay, self.other = files, delay, other
        self.requests: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """Keep quiet about clients that were killed."""

    def __enter__(self) -> PictureServer:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.shutdown()
        self.server_close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("database", type=Path)
    parser.add_argument("--rows", type=int, default=2_300_000)
    parser.add_argument("--no-automatic", action="store_true")
    arguments = parser.parse_args()
    make_big_database(arguments.database, arguments.rows, automatic=not arguments.no_automatic)
