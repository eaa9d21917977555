"""From an address to a verified picture on disk, with limits, retries, and a reason where it fails."""

from __future__ import annotations

import asyncio
import os
import random
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import monotonic

import aiohttp
import cv2
import numpy as np
from PIL import Image
from yarl import URL

from decoding import UnreadablePicture, decode
from utils import UserError

# Answers below 500 that say "later" rather than "no": request time-out, too early, too many requests.
LATER = (408, 425, 429)
JPEG_QUALITY = 95
LONGEST_WAIT = 60.0  # seconds; a server that asks for more with Retry-After is asked again after this
CHUNK = 64 * 1024  # bytes
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "GIF": ".gif", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif", "MPO": ".jpg"}


@dataclass(frozen=True)
class Limits:
    """How long to wait, how often to try and how much to accept; times in seconds."""

    timeout: float = 20.0
    deadline: float = 120.0
    retries: int = 4
    backoff: float = 0.5
    max_bytes: int = 32_000_000
    max_pixels: int = 50_000_000


class Failure(Exception):
    """A picture that cannot be had. `reason` is a few words to count by; `temporary` says that it may pass."""

    def __init__(self, reason: str, temporary: bool = False, wait: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.temporary = temporary
        self.wait = wait  # seconds, where the server said how long


@asynccontextmanager
async def open_session() -> AsyncIterator[aiohttp.ClientSession]:
    """Open an HTTP session without cookies that uses the system's proxy settings. The caller limits the connections."""
    connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=300)
    cookies = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(connector=connector, cookie_jar=cookies, trust_env=True) as session:
        yield session


async def fetch(session: aiohttp.ClientSession, url: str, part: Path, limits: Limits) -> None:
    """Download `url` into the file `part`, trying again after failures that may pass.

    `limits.deadline` bounds the time spent in all tries together, without the pauses between them. Raises `Failure`,
    and `UserError` where the disk cannot take the file.
    """
    left = limits.deadline
    for number in range(limits.retries + 1):
        start = monotonic()
        try:
            return await fetch_once(session, url, part, limits, left)
        except Failure as failure:
            left -= monotonic() - start
            if not failure.temporary or number == limits.retries or left <= 0:
                raise
            pause = limits.backoff * 2**number * random.uniform(1, 1.5)
            await asyncio.sleep(max(pause, min(failure.wait or 0, LONGEST_WAIT)))
    raise AssertionError("the last try returns or raises")


async def fetch_once(session: aiohttp.ClientSession, url: str, part: Path, limits: Limits, seconds: float) -> None:
    """Try once, for at most so many seconds. http and https only, redirects included; stops at `limits.max_bytes`."""
    try:
        address = URL(url)
    except ValueError as error:
        raise Failure("unusable address") from error
    if address.scheme not in ("http", "https") or not address.host:
        raise Failure("unusable address")
    timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=limits.timeout, sock_read=limits.timeout)
    try:
        # Pictures do not shrink further: ask for them as they are.
        headers = {"Accept": "image/*, */*;q=0.5", "Accept-Encoding": "identity"}
        async with session.get(address, timeout=timeout, max_redirects=5, headers=headers) as response:
            if response.status != 200:
                temporary = response.status >= 500 or response.status in LATER
                raise Failure(f"status {response.status}", temporary, read_retry_after(response))
            if (response.content_length or 0) > limits.max_bytes:
                raise Failure("too many bytes")
            await save_body(response, part, limits.max_bytes)
    except (aiohttp.NonHttpUrlRedirectClientError, aiohttp.InvalidUrlRedirectClientError) as error:
        raise Failure("redirect to an unusable address") from error
    except aiohttp.TooManyRedirects as error:
        raise Failure("too many redirects") from error
    except ValueError as error:  # yarl, idna and aiohttp.InvalidURL
        raise Failure("unusable address") from error
    except aiohttp.ServerTimeoutError as error:
        raise Failure("stalled", temporary=True) from error
    except asyncio.TimeoutError as error:
        raise Failure("too slow", temporary=True) from error
    except (aiohttp.ClientConnectorError, aiohttp.ClientProxyConnectionError) as error:
        raise Failure("no connection", temporary=True) from error
    except (aiohttp.ClientError, OSError) as error:
        raise Failure("connection lost", temporary=True) from error


async def save_body(response: aiohttp.ClientResponse, part: Path, max_bytes: int) -> None:
    """Write the body as it comes, whatever its declared type, and stop with a `Failure` at more than `max_bytes`."""
    size = 0
    try:
        file = part.open("wb")
    except OSError as error:
        raise disk_error(part, error) from error
    with file:
        async for piece in response.content.iter_chunked(CHUNK):
            size += len(piece)
            if size > max_bytes:
                raise Failure("too many bytes")
            try:
                file.write(piece)
            except OSError as error:
                raise disk_error(part, error) from error


def read_retry_after(response: aiohttp.ClientResponse) -> float | None:
    """Seconds that the server asks us to wait, from its Retry-After in either form; None without a readable one."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    return max(0.0, (date - datetime.now(timezone.utc)).total_seconds())


def store(part: Path, target: Path, shrink: int, max_pixels: int) -> Path:
    """Verify the downloaded file `part` and move it to `target` plus its suffix, whole; return where it is.

    It is decoded exactly as training will decode it: header first, then all pixels. `shrink` > 0 brings the short
    side down to so many pixels (never up), upright and on white, as a JPEG of quality 95; 0 keeps the file as it came.
    Raises `Failure` for what is not a whole picture, `UserError` where the disk cannot take it.
    """
    suffix = check_header(part, max_pixels)
    try:
        picture = decode(part, max_pixels)
    except UnreadablePicture as error:
        raise Failure("damaged picture") from error
    if shrink:
        data = encode_jpeg(shrink_picture(picture, shrink))
        target = target.with_name(f"{target.name}.jpg")
    else:
        data = None
        target = target.with_name(f"{target.name}{suffix}")
    try:
        with part.open("rb+") as file:
            if data is not None:
                file.write(data)
                file.truncate()
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        raise disk_error(target, error) from error
    return target


def check_header(part: Path, max_pixels: int) -> str:
    """Return the suffix that belongs to a picture file's true format; decodes no pixels, so it needs little memory.

    Raises `Failure` for what is no picture in a known format or has more than `max_pixels` pixels.
    """
    try:
        with Image.open(part, formats=tuple(SUFFIXES)) as image:
            if image.width * image.height > max_pixels:
                raise Failure("too many pixels")
            return SUFFIXES[image.format]
    except Image.DecompressionBombError as error:
        raise Failure("too many pixels") from error
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, struct.error) as error:
        # Pillow's readers raise all of these on what only looks like a picture.
        raise Failure("not a picture") from error


def shrink_picture(picture: np.ndarray, side: int) -> np.ndarray:
    """Bring the short side of uint8 [height, width, 3] down to `side` pixels, keeping the proportion; never up."""
    height, width = picture.shape[:2]
    short = min(height, width)
    if short <= side:
        return picture
    size = (max(side, round(width * side / short)), max(side, round(height * side / short)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def encode_jpeg(picture: np.ndarray) -> bytes:
    """Encode uint8 RGB [height, width, 3]. Raises `Failure` for what JPEG cannot hold (a side above 65,500)."""
    try:
        done, data = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    except cv2.error as error:
        raise Failure("too many pixels") from error
    if not done:
        raise Failure("too many pixels")
    return data.tobytes()


def disk_error(path: Path, error: OSError) -> UserError:
    """Say in one line that a file could not be written."""
    return UserError(f"{path}: cannot be written: {error.strerror or error}; free some space or check the folder's "
                     f"rights, then run the same command again")  # fmt: skip
