"""From an address to a small verified picture. What a stranger's server may do to us is bounded here.

urllib3 does the asking: it tries again, keeps to Retry-After, limits the connections to each server, and sends neither
cookies nor passwords. Added is what `CarefulConnection` says.
"""

from __future__ import annotations

import errno
import io
import re
import socket
import struct
import threading
from ipaddress import ip_address
from urllib.parse import urljoin
from urllib.request import getproxies, proxy_bypass

import cv2
import simplejpeg
from PIL import Image
from urllib3 import BaseHTTPResponse, PoolManager, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError
from urllib3.util import Retry, make_headers, parse_url

from dataset import read_picture
from utils import UserError

MAX_BYTES = 32_000_000  # of an answer
MAX_SECONDS = 120.0  # for an answer, once it was asked for
MAX_PIXELS = 50_000_000
SHORT_SIDE = 256  # of the pictures that are kept
MAX_REDIRECTS = 5
LONGEST_WAIT = 60  # seconds; a server that asks for more with Retry-After is asked again after this
LATER = frozenset((408, 425, 429, *range(500, 600)))  # answers that say "later" rather than "no"
GIVEN_UP = "server given up"
NO_ANSWER = ("no connection", "connection lost", "stalled", "too slow", GIVEN_UP)
TEMPORARY = (*NO_ANSWER, *(f"status {status}" for status in LATER))  # failures that may pass
JPEG, PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"  # how their files begin


class Failure(Exception):
    """A picture that cannot be had, and why, in a few words. After this urllib3 does not try again."""


class CarefulConnection:
    """Added to urllib3's: bounds on an answer's bytes and seconds, addresses as they are written, and public ones alone."""

    allow_private = False

    def _new_conn(self) -> socket.socket:
        """Connect. Who really answers is looked at before anything is sent: names can change what they stand for."""
        connected = super()._new_conn()
        if self.proxy is None and not self.allow_private:
            address = connected.getpeername()[0]
            if not is_public(address) or address == connected.getsockname()[0]:
                connected.close()
                raise Failure("private address")
        return connected

    def request(self, method: str, url: str, *, headers: dict[str, str], **options: object) -> None:
        """Send the request for the pseudo-header `:target`, which urllib3 would spell in its own way."""
        headers = dict(headers)
        super().request(method, headers.pop(":target"), headers=headers, **options)

    def getresponse(self) -> BaseHTTPResponse:
        """Read the whole answer, `content`, within the bounds."""
        late, connected = threading.Event(), self.sock
        timer = threading.Timer(MAX_SECONDS, lambda: late.set() or connected.shutdown(socket.SHUT_RDWR))
        timer.daemon = True
        timer.start()
        try:
            response = super().getresponse()
            response.content = response.read(MAX_BYTES + 1)
            if len(response.content) > MAX_BYTES:
                raise Failure("too many bytes")
            return response
        finally:
            timer.cancel()
            if late.is_set():
                raise Failure("too slow")


class Client:
    """Asks servers, from many threads."""

    def __init__(self, user_agent: str, per_host: int, timeout: float, retries: int, allow_private: bool) -> None:
        self.allow_private = allow_private
        # Pictures do not shrink further: ask for them as they are.
        self.headers = {"User-Agent": user_agent, "Accept": "image/*, */*;q=0.5", "Accept-Encoding": "identity"}
        wait = {"backoff_factor": 0.5, "backoff_max": LONGEST_WAIT, "retry_after_max": LONGEST_WAIT}
        self.connections = {
            scheme: type("Connection", (CarefulConnection, plain), {"allow_private": allow_private})
            for scheme, plain in (("http", HTTPConnection), ("https", HTTPSConnection))
        }
        options = {"num_pools": 100, "maxsize": per_host, "block": True, "timeout": timeout}
        options["retries"] = Retry(retries, status_forcelist=LATER, raise_on_status=False, **wait)
        self.proxies = {scheme: url for scheme, url in getproxies().items() if scheme in self.connections}
        self.managers = {None: PoolManager(**options)}
        for proxy in self.proxies.values():
            password = make_headers(proxy_basic_auth=parse_url(proxy).auth)
            try:
                self.managers[proxy] = ProxyManager(proxy, proxy_headers=password, **options)
            except HTTPError as error:
                raise UserError(f"the environment's proxy {proxy}: {error}; give an http:// or https:// one") from error

    def fetch(self, url: str) -> bytes:
        """Download what lies at an address (text; bytes that are no UTF-8 as surrogates), following redirects.

        Raises `Failure` where it cannot be had, and `UserError` where that is this machine's fault.
        """
        for hop in range(MAX_REDIRECTS + 1):
            try:
                response = self.ask(url)
                if not (300 < response.status < 309 and "Location" in response.headers):
                    break
                location = response.headers["Location"].encode("latin-1").decode("utf-8", "surrogateescape")
                url = urljoin(url, location)
            except ValueError as error:  # of urllib3 and urllib, and of the encoding of host names
                raise Failure("redirect to an unusable address" if hop else "unusable address") from error
        else:
            raise Failure("too many redirects")
        if response.status != 200:
            raise Failure(f"status {response.status}")
        return response.content

    def ask(self, url: str) -> BaseHTTPResponse:
        """Ask for one address. Raises `ValueError` where it is not one, and otherwise as `fetch` does."""
        scheme, _, host, port, *_ = parts = parse_url(url)
        if scheme not in ("http", "https") or not host:
            raise ValueError(f"{url}: is no web address")
        if not self.allow_private and not is_public(host):
            raise Failure("private address")
        proxy = None if proxy_bypass(host) else self.proxies.get(scheme)
        start = f"http://{parts.netloc}/" if proxy and scheme == "http" else "/"
        target = start + spell(re.sub("^[^:]*://[^/?#]*/?", "", url).partition("#")[0])
        pool = self.managers[proxy].connection_from_host(host, port, scheme)
        pool.ConnectionCls = self.connections[pool.scheme]
        # Nothing is left to read: see `CarefulConnection`.
        how = {"redirect": False, "assert_same_host": False, "preload_content": False, "release_conn": True}
        try:
            return pool.urlopen("GET", start, headers={**self.headers, ":target": target}, **how)
        except HTTPError as error:
            reason = getattr(error, "reason", error)
            if getattr(reason.__cause__, "errno", None) in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                raise UserError(f"{reason.__cause__.strerror}; start again with a lower --per-host") from error
            words = {ReadTimeoutError: "stalled", ProtocolError: "connection lost"}
            raise Failure(words.get(type(reason), "no connection")) from error


def host_of(url: str) -> str:
    """Name the server of an address."""
    return url.partition("://")[2].partition("/")[0]


def spell(text: str) -> str:
    """Escape what is not printable ASCII, and leave the rest, escapes included, as it is written."""
    data = text.encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if 0x20 < byte < 0x7F else f"%{byte:02X}" for byte in data)


def is_public(host: str) -> bool:
    """Whether a name or an IP address stands for addresses of the public internet alone, or for none that is known."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except OSError:
        return True  # connecting will tell; a proxy may know the name
    return all(ip_address(where[0]).is_global for *_, where in found)


def verify_and_shrink(data: bytes) -> bytes:
    """Decode a picture as training will, shrink its short side to 256 pixels (never up), and encode it as JPEG.

    Raises `Failure` for what is not a whole picture: also for a JPEG that is damaged inside, where most decoders put
    grey. The size is looked at before memory is taken for pixels.
    """
    try:  # Pillow can trip over texts, profiles and the like, which say nothing about a picture's pixels
        if data.startswith(JPEG):
            size = simplejpeg.decode_jpeg_header(data, strict=False)[:2]
        else:
            size = struct.unpack(">II", data[16:24]) if data.startswith(PNG) else Image.open(io.BytesIO(data)).size
    except Image.DecompressionBombError as error:
        raise Failure("too many pixels") from error
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, struct.error) as error:
        raise Failure("not a picture") from error  # Pillow's readers raise all of these
    if size[0] * size[1] > MAX_PIXELS or max(size) > 65_500:  # a JPEG ends there
        raise Failure("too many pixels")
    try:
        if data.startswith(JPEG):
            # It warns of broken colour profiles too, unless these are called otherwise.
            simplejpeg.decode_jpeg(data.replace(b"ICC_PROFILE", b"not_counted"), "GRAY", strict=True)
        picture = read_picture(data, least_side=SHORT_SIDE)
    except (UserError, ValueError) as error:
        raise Failure("damaged picture") from error
    scale = SHORT_SIDE / min(picture.shape[:2])
    if scale < 1:
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", picture[:, :, ::-1].copy())[1].tobytes()
