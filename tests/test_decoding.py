"""Every kind of picture is decoded right, or refused by name: never a crash, never a black or half picture."""

import io
import multiprocessing
import random
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from dataset import read_picture, to_square
from utils import UserError

HEIGHT, WIDTH = 48, 64


def scene() -> np.ndarray:
    """A picture without symmetry: a different colour in each corner, uint8 [48, 64, 3]."""
    picture = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    picture[:24, :32], picture[:24, 32:] = (220, 30, 30), (30, 200, 40)
    picture[24:, :32], picture[24:, 32:] = (40, 50, 210), (235, 220, 40)
    return picture


IMAGE = Image.fromarray(scene())
GREY = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def with_exif(form: str, orientation: int = 6, spoil: bytes = b"") -> bytes:
    """The scene with an orientation, or with EXIF that is none."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(IMAGE, form, exif=spoil or exif.tobytes(), quality=95)


FRAMES = {"save_all": True, "append_images": [IMAGE.transpose(Image.Transpose.ROTATE_180)]}
TITLE, LONG_TEXT, MANY_TEXTS = (PngImagePlugin.PngInfo() for _ in range(3))
TITLE.add_text("title", "checked")
LONG_TEXT.add_text("prompt", "x" * 3_000_000, zip=True)
for number in range(90):
    MANY_TEXTS.add_text(f"text {number}", "y" * 900_000, zip=True)
COLOURED = {
    "jpeg": encode(IMAGE, "JPEG", quality=95),
    "progressive jpeg": encode(IMAGE, "JPEG", quality=95, progressive=True),
    "cmyk jpeg": encode(IMAGE.convert("CMYK"), "JPEG", quality=95),
    "jpeg with odd exif": with_exif("JPEG", spoil=b"Exif\0\0no exif at all"),
    "png": encode(IMAGE, "PNG"),
    "palette": encode(IMAGE.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
    "png with a long text": encode(IMAGE, "PNG", pnginfo=LONG_TEXT),
    "png with many long texts": encode(IMAGE, "PNG", pnginfo=MANY_TEXTS),
    "png with odd exif": with_exif("PNG", spoil=b"Exif\0\0no exif at all"),
    "webp": encode(IMAGE, "WEBP", quality=95),
    "webp with odd exif": with_exif("WEBP", spoil=b"no exif at all"),
    "animated webp": encode(IMAGE, "WEBP", lossless=True, **FRAMES),
    "animated gif": encode(IMAGE, "GIF", **FRAMES),
    "bmp": encode(IMAGE, "BMP"),
    "tiff": encode(IMAGE, "TIFF"),
    "avif": encode(IMAGE, "AVIF", quality=95),
    "mpo": encode(IMAGE, "MPO", quality=95, **FRAMES),
}
GREYS = {
    "8 bits": encode(Image.fromarray(GREY), "PNG"),
    "jpeg": encode(Image.fromarray(GREY), "JPEG", quality=100),
    "16 bits": encode(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"),
    "16 bits tiff": encode(Image.fromarray(GREY.astype(np.uint16) * 257), "TIFF"),
    "32 bits tiff": encode(Image.fromarray(GREY.astype(np.int32) * 257), "TIFF"),
    "fractions": encode(Image.fromarray(GREY.astype(np.float32) / 255), "TIFF"),
    "floats": encode(Image.fromarray(GREY.astype(np.float32)), "TIFF"),
}


def assert_scene(picture: np.ndarray, expected: np.ndarray, tolerance: int = 40) -> None:
    """The centres of the four corners have the expected colours."""
    assert picture.shape == expected.shape and picture.dtype == np.uint8
    height, width = picture.shape[:2]
    for y in (height // 4, 3 * height // 4):
        for x in (width // 4, 3 * width // 4):
            assert abs(picture[y, x].astype(int) - expected[y, x].astype(int)).max() <= tolerance, (y, x, picture[y, x])


@pytest.mark.parametrize("kind", sorted(COLOURED))
def test_pictures_have_their_colours(kind):
    assert_scene(read_picture(COLOURED[kind]), scene())


@pytest.mark.parametrize("kind", sorted(GREYS))
def test_grey_pictures_keep_their_range(kind):
    picture = read_picture(GREYS[kind]).astype(int)
    assert picture.shape == (HEIGHT, WIDTH, 3) and np.abs(picture - GREY[:, :, None]).max() <= 2


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "PNG with a long text", "PNG with a wrong checksum"])
def test_transparent_parts_are_white(form):
    pixels, expected = np.dstack([scene(), np.full((HEIGHT, WIDTH), 255, np.uint8)]), scene()
    pixels[:, 32:, 3], pixels[24:, :32, 3] = 0, 128
    expected[:, 32:] = 255
    expected[24:, :32] = (expected[24:, :32].astype(int) + 255) // 2
    options = {"lossless": True} if form == "WEBP" else {"pnginfo": LONG_TEXT if "long" in form else TITLE}
    data = encode(Image.fromarray(pixels), form.split()[0], **options)
    assert_scene(read_picture(data.replace(b"checked", b"changed") if "wrong" in form else data), expected, 2)


def test_a_transparent_colour_is_white_in_palettes_colours_and_16_bit_grey():
    palette, expected = IMAGE.convert("P", palette=Image.Palette.ADAPTIVE), scene()
    expected[:24, 32:] = 255
    assert_scene(read_picture(encode(palette, "PNG", transparency=palette.getpixel((40, 8)))), expected)
    assert_scene(read_picture(encode(IMAGE, "PNG", transparency=(30, 200, 40))), expected)
    grey = np.full((HEIGHT, WIDTH), 20_000, np.uint16)
    grey[:, 32:] = 0
    picture = read_picture(encode(Image.fromarray(grey), "PNG", transparency=0))
    assert (picture[:, 32:] == 255).all() and (picture[:, :32] == 78).all()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(orientation, form):
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(with_exif("PNG", orientation))))
    assert_scene(read_picture(with_exif(form, orientation)), np.asarray(expected))


@pytest.mark.parametrize("size", [(1600, 1200), (1201, 1803)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_may_be_decoded_smaller_and_gives_the_same_square(size, orientation):
    generator = np.random.default_rng(0)
    waves = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image, exif = Image.fromarray(waves).resize(size, Image.Resampling.BICUBIC), Image.Exif()
    exif[0x0112] = orientation
    data = encode(image, "JPEG", quality=92, exif=exif)
    whole, reduced = read_picture(data), read_picture(data, least_side=128)
    assert min(reduced.shape[:2]) >= 128 and reduced.size < whole.size / 3
    difference = to_square(whole, 128).astype(int) - to_square(reduced, 128)
    assert np.abs(difference).mean() < 2 and np.abs(difference).max() < 16


def test_a_square_is_the_middle_of_its_picture_whatever_its_shape():
    square = to_square(np.dstack([np.arange(300, dtype=np.uint8)[None].repeat(100, 0)] * 3), 100)
    assert (square[:, :, 0] == np.arange(100, 200)).all()
    for size in ((1, 1), (3, 4_000), (4_000, 3)):
        picture = read_picture(encode(Image.new("RGB", size, (200, 100, 50)), "PNG"))
        assert (to_square(picture, 32) == (200, 100, 50)).all()


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"


@pytest.mark.parametrize("data", [b"", b"<html>404 Not Found</html>", POSTSCRIPT, COLOURED["jpeg"][:700]])
def test_what_is_no_whole_picture_is_refused_with_a_reason(data, tmp_path):
    (tmp_path / "picture.jpg").write_bytes(data)
    for source in (data, tmp_path / "picture.jpg"):
        with pytest.raises(UserError, match="."):
            read_picture(source)


def decode_short_of_memory(data: bytes) -> None:
    """Take all memory that this process may have, and decode again and again while it is given back."""
    import resource  # which is there wherever /proc is

    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + 2**25
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    taken, outcomes = [], set()
    with suppress(MemoryError):
        while True:
            taken.append(bytes(2**21))
    while taken:
        taken.pop()
        try:
            outcomes.add(read_picture(data).shape)
        except MemoryError:
            outcomes.add("short")
    assert outcomes == {"short", (1200, 1600, 3)}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is measured as on Linux")
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_memory_that_runs_out_is_not_the_pictures_fault(form):
    data = encode(IMAGE.resize((1600, 1200)), form)
    process = multiprocessing.get_context("fork").Process(target=decode_short_of_memory, args=(data,))
    process.start()
    process.join(60)
    assert process.exitcode == 0


SMALL = {kind: data for kind, data in (COLOURED | GREYS).items() if len(data) < 20_000}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", sorted(SMALL))
def test_a_damaged_file_is_decoded_or_refused_and_one_that_is_cut_is_refused_or_complete(kind, capfd):
    """What is lost may only be what no pixel needs: a GIF's last byte, a JPEG's end mark, a second frame."""
    data, whole, chances = SMALL[kind], read_picture(SMALL[kind]), random.Random(kind)
    refused = 0
    for way in range(40):
        place, spoilt = chances.randrange(1, len(data)), bytearray(data)
        if way < 10:  # a header that lies, a few flipped bits, a hole of zeros, or an end that is missing
            spoilt[chances.randrange(min(100, len(data)))] = chances.choice((0, 1, 127, 255))
        elif way < 20:
            for _ in range(chances.choice((1, 3, 30))):
                spoilt[chances.randrange(len(data))] ^= 1 << chances.randrange(8)
        elif way < 30:
            spoilt[place : place + 600] = bytes(len(spoilt[place : place + 600]))
        else:
            del spoilt[place:]
        try:
            square = to_square(picture := read_picture(bytes(spoilt)), 32)
        except UserError as error:
            refused += bool(str(error))
            continue
        assert square.shape == (32, 32, 3) and square.dtype == np.uint8
        assert way < 30 or np.array_equal(picture, whole), f"cut at {place} of {len(data)}"
    capfd.readouterr()  # libraries complain of each file there
    assert refused
