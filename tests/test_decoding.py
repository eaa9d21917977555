"""Pictures are decoded right, or named and refused: never a crash, a hang, a flood of memory or a black square."""

from __future__ import annotations

import io
import json
import os
import random
import resource
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from running import get_server

from dataset import read_collection
from decoding import UnreadablePicture, decode, to_square
from pictures import open_pictures
from trained import load_trained

MANGLED = 2_400  # files, in the default run
HEIGHT, WIDTH = 48, 64


def scene() -> np.ndarray:
    """A picture without symmetry: a different colour in each corner, uint8 [48, 64, 3]."""
    picture = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    picture[:24, :32], picture[:24, 32:] = (220, 30, 30), (30, 200, 40)
    picture[24:, :32], picture[24:, 32:] = (40, 50, 210), (235, 220, 40)
    return picture


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def good_files() -> dict[str, bytes]:
    """One whole file of each kind of picture, by a name that says which."""
    image = Image.fromarray(scene())
    exif = Image.Exif()
    exif[0x0112] = 6
    alpha = image.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(image.size))
    frames = [image, image.transpose(Image.Transpose.ROTATE_180)]
    return {
        "jpeg": encode(image, "JPEG", quality=95),
        "progressive.jpeg": encode(image, "JPEG", quality=95, progressive=True),
        "turned.jpeg": encode(image, "JPEG", quality=95, exif=exif),
        "grey.jpeg": encode(image.convert("L"), "JPEG", quality=95),
        "cmyk.jpeg": encode(image.convert("CMYK"), "JPEG", quality=95),
        "png": encode(image, "PNG"),
        "16-bit.png": encode(Image.fromarray(np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 21), "PNG"),
        "palette.png": encode(image.convert("P"), "PNG"),
        "alpha.png": encode(alpha, "PNG"),
        "1-bit.png": encode(image.convert("1"), "PNG"),
        "animated.gif": encode(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "animated.webp": encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True),
        "webp": encode(image, "WEBP", quality=95),
        "bmp": encode(image, "BMP"),
        "tiff": encode(image, "TIFF"),
        "lzw.tiff": encode(image, "TIFF", compression="tiff_lzw"),
        "float.tiff": encode(Image.fromarray(np.linspace(0, 1, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)), "TIFF"),
    }  # fmt: skip


GOOD = good_files()


def mangle(data: bytes, chances: random.Random) -> bytes:
    """Spoil a file in one of the ways that files get spoilt."""
    way = chances.randrange(7)
    if way == 0:
        return data[: chances.randrange(len(data))]
    if way == 1:  # flipped bits
        spoilt = bytearray(data)
        for _ in range(chances.choice((1, 3, 30))):
            spoilt[chances.randrange(len(spoilt))] ^= 1 << chances.randrange(8)
        return bytes(spoilt)
    if way == 2:  # a hole of zeros, as of an unfinished download
        start = chances.randrange(len(data))
        return data[:start] + bytes(min(chances.randrange(1, 600), len(data) - start)) + data[start + 600 :]
    if way == 3:  # a header that lies: bytes near the beginning replaced
        spoilt = bytearray(data)
        for _ in range(4):
            spoilt[chances.randrange(min(200, len(spoilt)))] = chances.choice((0, 1, 127, 128, 255))
        return bytes(spoilt)
    if way == 4:  # of another type than it begins
        other = chances.choice(list(GOOD.values()))
        cut = chances.randrange(min(len(data), len(other)))
        return data[:cut] + other[cut:]
    if way == 5:  # a piece missing or twice
        first, second = sorted(chances.randrange(len(data)) for _ in range(2))
        return data[:first] + data[second:] if chances.random() < 0.5 else data[:second] + data[first:]
    return chances.randbytes(chances.randrange(300))


def bomb(width: int, height: int) -> bytes:
    """A black PNG of 1-bit pixels, tiny as a file."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    row = bytes(1 + (width + 7) // 8)
    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def decode_all(paths: list[str], report: str, megabytes: int) -> None:
    """Decode files in a process that may take `megabytes` more than it has; write what became of each as JSON."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (taken + megabytes * 2**20,) * 2)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)  # libraries complain of each file there
    became: dict[str, list] = {}
    for path in paths:
        began = time.monotonic()
        try:
            square = to_square(decode(path), 32)
            fine = square.shape == (32, 32, 3) and square.dtype == np.uint8
            became[path] = ["decoded" if fine else "wrong", int(square.max())]
        except UnreadablePicture as error:
            became[path] = ["refused", str(error)]
        became[path].append(time.monotonic() - began)
        Path(report).write_text(json.dumps(became)) if path == paths[-1] else None


def decode_elsewhere(files: dict[str, bytes], folder: Path, megabytes: int) -> dict[str, list]:
    """What becomes of files when they are decoded in a process of its own with little memory."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
    paths, report = [str(folder / name) for name in files], folder / "report.json"
    process = get_server().Process(target=decode_all, args=(paths, str(report), megabytes), daemon=True)
    process.start()
    process.join(200)
    assert process.exitcode == 0, f"the process ended with {process.exitcode}"
    return {Path(path).name: what for path, what in json.loads(report.read_text()).items()}


def test_mangled_files_are_decoded_or_refused_in_bounded_memory_and_time(tmp_path):
    chances = random.Random(0)
    kinds = list(GOOD)
    files = {f"{number:05d}.{kinds[number % len(kinds)]}": b"" for number in range(MANGLED)}
    for name in files:
        files[name] = mangle(GOOD[name[6:]], chances)
    became = decode_elsewhere(files, tmp_path, 1200)
    assert len(became) == MANGLED
    assert {what for what, *_ in became.values()} == {"decoded", "refused"}
    assert max(seconds for *_, seconds in became.values()) < 5
    assert all(about and "\n" not in about for what, about, _ in became.values() if what == "refused")
    refused = sum(what == "refused" for what, *_ in became.values())
    print(f"{len(became)} mangled files: {refused} refused, {len(became) - refused} decoded")
    assert refused > MANGLED / 3


@pytest.mark.slow
def test_many_more_mangled_files(tmp_path):
    for seed in range(1, 9):
        chances = random.Random(seed)
        (tmp_path / str(seed)).mkdir()
        files = {f"{n:05d}": mangle(chances.choice(list(GOOD.values())), chances) for n in range(5000)}
        became = decode_elsewhere(files, tmp_path / str(seed), 1200)
        assert {what for what, *_ in became.values()} == {"decoded", "refused"}
        assert max(seconds for *_, seconds in became.values()) < 5


def test_bombs_and_giants_are_refused_without_taking_memory(tmp_path):
    jpeg = bytearray(GOOD["jpeg"])
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 65000, 65000)
    files = {
        "bomb.png": bomb(50_000, 50_000),
        "wide.png": bomb(400_000, 300),
        "liar.jpg": bytes(jpeg),
        "liar.bmp": GOOD["bmp"][:18] + struct.pack("<ii", 60_000, 60_000) + GOOD["bmp"][26:],
        "empty.jpg": b"",
    }
    became = decode_elsewhere(files, tmp_path, 300)
    assert [what for what, *_ in became.values()] == ["refused"] * len(files), became
    assert "too many pixels" in became["bomb.png"][1] or "more than 100 million" in became["bomb.png"][1]
    assert "more than 100 million" in became["wide.png"][1]


@pytest.mark.slow
def test_the_largest_pictures_that_are_taken_fit_into_bounded_memory(tmp_path):
    large = np.zeros((9_000, 11_000), dtype=np.uint8)
    large[::50] = 255
    files = {
        "alpha.png": encode(Image.merge("LA", [Image.fromarray(large)] * 2), "PNG", compress_level=1),
        "16-bit.png": encode(Image.fromarray(large.astype(np.uint16) * 257), "PNG", compress_level=1),
        "jpeg": encode(Image.fromarray(large), "JPEG", quality=50),
    }
    became = decode_elsewhere(files, tmp_path, 1600)
    assert {what for what, *_ in became.values()} == {"decoded"}, became


def test_what_is_no_picture_at_all_is_refused_by_name(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "text.png").write_text("<html>404 Not Found</html>")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "vector.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(touched) print\n")
    for path in (*tmp_path.iterdir(), tmp_path / "missing.jpg", "nul\0.jpg", tmp_path / ("long" * 200)):
        with pytest.raises(UnreadablePicture, match="."):
            decode(path)


# Every file cut anywhere.


@pytest.mark.parametrize("kind", sorted(GOOD))
def test_a_file_that_is_cut_is_refused_or_complete(kind, tmp_path):
    """What is lost may only be what no pixel needs: a GIF's last byte, a WebP's padding, a JPEG's end mark."""
    path, data = tmp_path / kind, GOOD[kind]
    path.write_bytes(data)
    whole = decode(path)
    chances = random.Random(kind)
    for length in sorted(chances.sample(range(1, len(data)), min(60, len(data) - 1))):
        path.write_bytes(data[:length])
        try:
            cut = decode(path)
        except UnreadablePicture:
            continue
        assert np.array_equal(cut, whole), f"{kind} cut at {length} of {len(data)}"


# What is decoded has the right pixels.


def assert_scene(picture: np.ndarray, expected: np.ndarray, tolerance: int = 40) -> None:
    """The centres of the four corners have the expected colours."""
    assert picture.shape == expected.shape and picture.dtype == np.uint8
    height, width = picture.shape[:2]
    for y in (height // 4, 3 * height // 4):
        for x in (width // 4, 3 * width // 4):
            assert abs(picture[y, x].astype(int) - expected[y, x].astype(int)).max() <= tolerance, (y, x, picture[y, x])


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(orientation, form, tmp_path):
    turns = {
        1: lambda x: x, 2: np.fliplr, 3: lambda x: np.rot90(x, 2), 4: np.flipud, 5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: np.rot90(x, -1), 7: lambda x: np.rot90(x, 2).transpose(1, 0, 2), 8: lambda x: np.rot90(x, 1),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "picture").write_bytes(encode(Image.fromarray(scene()), form, exif=exif, quality=95))
    assert_scene(decode(tmp_path / "picture"), turns[orientation](scene()))


@pytest.mark.parametrize(
    "kind", ["jpeg", "progressive.jpeg", "cmyk.jpeg", "png", "palette.png", "animated.gif", "animated.webp", "webp", "bmp",
             "tiff", "lzw.tiff"],
)  # fmt: skip
def test_kinds_of_pictures_have_the_right_colours(kind, tmp_path):
    (tmp_path / kind).write_bytes(GOOD[kind])
    assert_scene(decode(tmp_path / kind), scene())


def test_grey_pictures_are_grey(tmp_path):
    grey = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
    scales: dict[str, Callable[[], Image.Image]] = {
        "L": lambda: Image.fromarray(grey),
        "16-bit": lambda: Image.fromarray(grey.astype(np.uint16) * 257),
        "fraction": lambda: Image.fromarray(grey.astype(np.float32) / 255),
        "float": lambda: Image.fromarray(grey.astype(np.float32)),
        "32-bit": lambda: Image.fromarray(grey.astype(np.int32) * 257),
    }
    for name, make in scales.items():
        path = tmp_path / name
        path.write_bytes(encode(make(), "TIFF" if name in ("fraction", "float", "32-bit") else "PNG"))
        picture = decode(path)
        assert picture.shape == (HEIGHT, WIDTH, 3), name
        assert np.abs(picture.astype(int) - grey[:, :, None].astype(int)).max() <= 1, name


def test_transparent_parts_are_white(tmp_path):
    image = Image.fromarray(scene()).convert("RGBA")
    pixels = np.asarray(image).copy()
    pixels[:, 32:, 3] = 0
    pixels[24:, :32, 3] = 128
    expected = scene()
    expected[:, 32:] = 255
    expected[24:, :32] = (expected[24:, :32].astype(int) + 255) // 2
    half = Image.fromarray(pixels)
    palette = Image.fromarray(scene()).convert("P", palette=Image.Palette.ADAPTIVE)
    right = palette.getpixel((40, 8))
    for name, data in {
        "png": encode(half, "PNG"), "webp": encode(half, "WEBP", lossless=True), "tiff": encode(half, "TIFF"),
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(data)
        assert_scene(decode(tmp_path / name), expected, tolerance=2)
    (tmp_path / "p.png").write_bytes(encode(palette, "PNG", transparency=right))
    expected = scene()
    expected[:24, 32:] = 255
    assert_scene(decode(tmp_path / "p.png"), expected)
    (tmp_path / "rgb.png").write_bytes(encode(Image.fromarray(scene()), "PNG", transparency=(30, 200, 40)))
    assert_scene(decode(tmp_path / "rgb.png"), expected)


@pytest.mark.parametrize("size", [(1, 1), (3, 20_000), (20_000, 3), (1, 2), (33, 32)])
def test_odd_shapes_become_squares(size, tmp_path):
    (tmp_path / "odd.png").write_bytes(encode(Image.new("RGB", size, (200, 100, 50)), "PNG"))
    square = to_square(decode(tmp_path / "odd.png"), 32)
    assert square.shape == (32, 32, 3) and (square == (200, 100, 50)).all()


@settings(max_examples=300, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(sorted(GOOD)),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=4)), max_size=6),
    keep=st.floats(0.05, 1),
)
def test_any_edit_of_a_good_file_gives_a_picture_or_a_refusal(kind, edits, keep, tmp_path):
    data = bytearray(GOOD[kind])
    for place, new in edits:
        start = int(place * len(data))
        data[start : start + len(new)] = new
    (tmp_path / "edited").write_bytes(data[: max(1, int(keep * len(data)))])
    try:
        picture = decode(tmp_path / "edited")
    except UnreadablePicture as error:
        assert str(error)
        return
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3 and picture.size > 0


def test_training_evaluation_and_search_see_the_same_pixels(stage1_run, tmp_path):
    """Turned, transparent, CMYK and other pictures give the same square through the cache, without it, and in use."""
    kinds = ("turned.jpeg", "alpha.png", "cmyk.jpeg", "16-bit.png", "palette.png", "animated.gif")
    for kind in kinds:
        (tmp_path / "style").mkdir(exist_ok=True)
        (tmp_path / "style" / f"{kind}.png").write_bytes(GOOD[kind])
    collection = read_collection(tmp_path)
    net = load_trained(stage1_run)
    used = net.to_squares([tmp_path / path for path in collection.paths])
    for cache in ("disk", "none"):
        pictures, unreadable = open_pictures(collection, net.image_size, torch.device("cpu"), cache=cache)
        (trained_on,) = pictures.batches([np.arange(len(collection))])
        pictures.close()
        assert len(unreadable) == 0 and np.array_equal(trained_on.numpy(), used)
