"""From a picture file to a uint8 square: the same way in training, evaluation and search.

A picture is turned upright, laid on white where it is transparent, cropped to its central square and resized. What is
not a whole picture is refused by name: never replaced, never half decoded.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

# More pixels than any photograph worth training on, and at three bytes each still a bounded piece of memory.
MAX_PIXELS = 100_000_000
STRIP = 4_000_000  # pixels that are converted at a time
MAX_BYTES = 1_000_000_000  # of a file: above any picture of that many pixels

# The pictures that are tried, whatever a file calls itself. Pillow knows more, some of which run other programs.
Image.init()
FORMATS = tuple(name for name in ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF") if name in Image.OPEN)
# Sizes are checked here, before Pillow would warn of them.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


class UnreadablePicture(Exception):
    """A file that cannot be decoded. Its message says why."""


def decode(path: Path | str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a picture file: upright, the first frame, on white where transparent, uint8 RGB [height, width, 3].

    The size is read from the header and checked before any memory is taken for pixels. Raises `UnreadablePicture`
    for whatever is not a whole picture of at most `max_pixels` pixels.
    """
    data = read_bytes(path)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise UnreadablePicture(f"has {width} x {height} pixels, more than {max_pixels // 1_000_000} million")
            if image.format == "JPEG" and image.mode in ("RGB", "L"):
                return decode_jpeg(data)
            return decode_other(image)
    except UnreadablePicture:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadablePicture("has far too many pixels") from error
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError, cv2.error,
            AttributeError, AssertionError, RuntimeError, MemoryError, struct.error, zlib.error) as error:  # fmt: skip
        # Pillow's readers raise all of these on mangled files of one format or another.
        raise UnreadablePicture(f"cannot be decoded ({type(error).__name__})") from error


def read_bytes(path: Path | str) -> bytes:
    """Read a picture's file. Raises `UnreadablePicture` for what is no file, is empty or is far too large."""
    try:
        status = os.stat(path)  # noqa: PTH116 (called for every picture: a Path would cost more than the call)
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for good
            raise UnreadablePicture("is no file")
        if status.st_size > MAX_BYTES:
            raise UnreadablePicture(f"has {status.st_size} bytes, more than {MAX_BYTES // 1_000_000} million")
        with open(path, "rb") as file:  # noqa: PTH123
            data = file.read(status.st_size)
    except OSError as error:
        raise UnreadablePicture(f"cannot be read: {error.strerror}") from error
    except ValueError as error:  # a name that no file can have
        raise UnreadablePicture("cannot be read: no such file") from error
    if not data:
        raise UnreadablePicture("is an empty file")
    return data


def decode_jpeg(data: bytes) -> np.ndarray:
    """Decode a grey or colour JPEG with OpenCV, which is the fastest and turns it upright itself."""
    if jpeg_is_cut_short(data):
        raise UnreadablePicture("is cut short")
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise UnreadablePicture("cannot be decoded")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def jpeg_is_cut_short(data: bytes) -> bool:
    """Whether a JPEG has no end after its first scan begins: decoders would fill the rest with grey without a word."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xDA:  # start of scan; a thumbnail's own end lies before it
            return data.rfind(b"\xff\xd9") < place
        # Fill bytes and markers without a length stand alone.
        place += 1 if marker == 0xFF else 2 if 0xD0 <= marker <= 0xD8 or marker == 0x01 else (
            2 + int.from_bytes(data[place + 2 : place + 4], "big")
        )  # fmt: skip
    return data.rfind(b"\xff\xd9") < 0


def decode_other(image: Image.Image) -> np.ndarray:
    """Decode what is no plain JPEG with Pillow, which knows palettes, transparency, 16 bits, CMYK and frames."""
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return np.repeat(to_eight_bits(np.asarray(image))[:, :, None], 3, axis=2)
    width, height = image.size
    picture = np.empty((height, width, 3), dtype=np.uint8)
    rows = max(1, STRIP // width)  # at a time: each step below is a copy
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        picture[top:bottom] = np.asarray(lay_on_white(image.crop((0, top, width, bottom))))
    return picture


def lay_on_white(image: Image.Image) -> Image.Image:
    """Turn a picture of any mode into RGB, on white where it is transparent."""
    if not (image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info):
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white


def to_eight_bits(grey: np.ndarray) -> np.ndarray:
    """Scale grey values of another type than uint8, [height, width], to uint8.

    White is 65535, or the largest value if that is more; of fractions (float) that stay below, 1 or 255.
    """
    largest = float(np.max(grey, initial=0, where=np.isfinite(grey)))
    white = max(65535.0, largest)
    if grey.dtype.kind == "f" and largest <= 255:
        white = 1.0 if largest <= 1 else 255.0
    scaled = np.empty(grey.shape, dtype=np.uint8)
    for top in range(0, len(grey), 64):  # a few rows at a time: as float64 the whole would take eight times the memory
        rows = np.nan_to_num(grey[top : top + 64].astype(np.float64), posinf=white)
        scaled[top : top + 64] = np.rint((rows * (255 / white)).clip(0, 255))
    return scaled


def to_square(picture: np.ndarray, side: int) -> np.ndarray:
    """Crop uint8 [height, width, 3] to its central square and resize that to [side, side, 3]."""
    height, width = picture.shape[:2]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    square = picture[top : top + short, left : left + short]
    if short == side:
        return np.ascontiguousarray(square)
    return cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA if short > side else cv2.INTER_LINEAR)
