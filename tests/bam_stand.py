"""What the tests of bam/ stand on: small databases of BAM's shape, and a web server on loopback that misbehaves."""

from __future__ import annotations

import contextlib
import gzip
import io
import socket
import sqlite3
import struct
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

import numpy as np
from PIL import Image

from bam.choice import ATTRIBUTES


def make_database(path: Path, pictures: Iterable[dict[str, Any]], automatic: bool = True) -> Path:
    """Write a BAM database. A picture: mid, url, project, mature, license; `scores`, `automatic`, `crowd` by attribute."""
    connection = sqlite3.connect(path)
    connection.executescript(f"""
        CREATE TABLE modules (mid int primary key, project_id int, src text, mature_content boolean, license text);
        CREATE TABLE scores (mid int, {" real, ".join(ATTRIBUTES)} real);
        CREATE TABLE crowd_labels (mid int, attribute text, label text);""")
    if automatic:
        connection.execute(f"CREATE TABLE automatic_labels (mid int, {' text, '.join(ATTRIBUTES)} text)")

    def insert(table: str, **row: Any) -> None:
        marks = ", ".join("CAST(? AS TEXT)" if isinstance(value, bytes) else "?" for value in row.values())
        connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values()))

    for picture in pictures:
        mid = picture["mid"]
        known = {"project_id": picture.get("project"), "mature_content": picture.get("mature", 0)}
        address = picture.get("url", f"http://x/{mid}")
        address = address.encode("utf-8", "surrogateescape") if isinstance(address, str) else address
        insert("modules", mid=mid, src=address, license=picture.get("license", "CC BY"), **known)
        insert("scores", mid=mid, **picture.get("scores", {}))
        if "automatic" in picture:
            insert("automatic_labels", mid=mid, **picture["automatic"])
        for attribute, label in picture.get("crowd", {}).items():
            insert("crowd_labels", mid=mid, attribute=attribute, label=label)
    connection.commit()
    connection.close()
    return path


@cache
def picture(seed: int, kind: str = "JPEG", width: int = 340, height: int = 300) -> bytes:
    """A file with a picture that only this seed has."""
    blots = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(blots).resize((width, height), Image.Resampling.BICUBIC).save(buffer, kind)
    return buffer.getvalue()


@cache
def huge_png(side: int = 30_000) -> bytes:
    """A whole, valid PNG of side x side pixels in about a hundred kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(bytes(side // 8 + 1)) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


class Handler(BaseHTTPRequestHandler):
    """Answers /<behaviour>/<seed of a picture>.jpg, asked for directly or as a proxy."""

    protocol_version = "HTTP/1.1"
    server: PictureServer

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send a whole answer."""
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), "Content_Type": "image/jpeg", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:  # noqa: N802 (http.server's name)
        """Count the request and misbehave as asked."""
        with self.server.lock:
            self.server.requests[self.path] += 1
            self.server.headers.append(dict(self.headers))
            number = self.server.requests[self.path]
            self.server.lives -= 1
        if self.server.lives < 0:
            self.close_connection = True
            return
        with contextlib.suppress(OSError):  # the client may leave in the middle
            time.sleep(self.server.delay)
            self.behave(*self.path.split("/")[-2:], number)

    def begin(self, head: bytes, body: bytes) -> None:
        """Send the beginning of an answer; the connection ends with it."""
        self.close_connection = True
        self.wfile.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body)

    def behave(self, behaviour: str, name: str, number: int) -> None:
        """Answer one request; `number` counts the requests for this address from 1."""
        body = picture(int(name.partition(".")[0]))
        if behaviour.endswith("-once"):
            behaviour = "ok" if number > 1 else behaviour.removesuffix("-once")
        third, there = len(body) // 3, f"{self.server.url}/ok/{name}"
        answers = {
            "ok": (200, body, {}),
            "html": (200, b"<!DOCTYPE html><title>Gone</title>", {"Content_Type": "text/html"}),
            "wrong-type": (200, body, {"Content_Type": "text/html; charset=utf-8"}),
            "avif": (200, picture(int(name.partition(".")[0]), "AVIF"), {"Content_Type": "image/avif"}),
            "gzip": (200, gzip.compress(body), {"Content_Encoding": "gzip"}),
            "huge": (200, huge_png(), {"Content_Type": "image/png"}),
            "cut": (200, body[: 2 * third], {}),
            "zeros": (200, body[:third] + bytes(third) + body[2 * third :], {}),
            "placeholder": (200, picture(10**6), {}),
            "429-seconds": (429, b"", {"Retry_After": "1"}),
            "429-date": (429, b"", {"Retry_After": formatdate(time.time() + 2, usegmt=True)}),
            "429-odd": (429, b"", {"Retry_After": "tomorrow"}),
            "to-file": (302, b"", {"Location": f"file:///etc/hostname?{name}"}),
            "to-server": (302, b"", {"Location": there}),
            "loop": (302, b"", {"Location": self.path}),
        }
        if behaviour.isdigit():
            self.answer(int(behaviour))
        elif behaviour in answers:
            status, data, headers = answers[behaviour]
            self.answer(status, data, **headers)
        match behaviour:
            case "reset":
                self.begin(b"Content-Length: 5000\r\n", body[:100])
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            case "short":
                self.begin(b"Content-Length: %d\r\n" % len(body), body[:-100])
            case "long":
                self.begin(b"Content-Length: 1000000000000\r\n", body)
            case "chunk":
                self.begin(b"Transfer-Encoding: chunked\r\n", b"ffffffffff\r\n" + body)
            case "stall":
                self.begin(b"Content-Length: 5000\r\n", body[:100])
                self.server.over.wait(60)
            case "drip" | "drip-head":
                self.begin(b"", b"") if behaviour == "drip" else self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
                while not self.server.over.wait(0.1):
                    self.wfile.write(b"x")
            case "endless":
                self.begin(b"", body)
                while not self.server.over.is_set():
                    self.wfile.write(bytes(65536))


class PictureServer(ThreadingHTTPServer):
    """Misbehaves on loopback; counts requests by path and keeps their headers. Use it in a with statement."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, delay: float = 0.0, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.delay = delay
        self.lives = 10**6  # requests after which it answers no more
        self.requests: Counter[str] = Counter()
        self.headers: list[dict[str, str]] = []
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
