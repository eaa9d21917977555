"""The eleven styles. Each renders any scene, as a function of its `Canvas` and a random generator.

To add one: write a function `(canvas, rng) -> picture` and name it in STYLES. Pictures are float32 [S, S, 3], red,
green, blue from 0 to 1 (what leaves the range is clipped); masks are float32 [S, S] from 0 to 1; lengths are shares of
the picture's side S. The scene has no colours of its own to tell a style by: they are drawn before the style is chosen.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from standin.scenes import Scene, hsv

Rng = np.random.Generator
Picture = np.ndarray
Mask = np.ndarray


class Canvas(NamedTuple):
    """A scene as pixels, still without a style.

    flat: picture of even colours. tone: mask, how light they are. depth: mask, see `Shape`. thing: mask, 1 where the
    thing is. lines: mask, 1 where two shapes meet. horizon, floor: heights, see `Scene`.
    """

    flat: Picture
    tone: Mask
    depth: Mask
    thing: Mask
    lines: Mask
    horizon: float
    floor: float


def make_canvas(scene: Scene, side: int) -> Canvas:
    """Paint the shapes, from back to front, on a square of `side` pixels."""
    index = np.zeros((side, side), np.int16)
    for number, shape in enumerate(scene.shapes):
        points = [np.round(shape.points * side * 16).astype(np.int32)]
        if shape.width > 0:
            cv2.polylines(index, points, False, number, max(1, round(shape.width * side)), shift=4)
        else:
            cv2.fillPoly(index, points, number, shift=4)
    flat = np.array([shape.colour for shape in scene.shapes], np.float32)[index]
    depth = np.array([shape.depth for shape in scene.shapes], np.float32)[index]
    block = np.ones((3, 3), np.uint8)
    lines = (cv2.dilate(index, block) != cv2.erode(index, block)).astype(np.float32)
    tone = cv2.cvtColor(flat, cv2.COLOR_RGB2GRAY)
    return Canvas(flat, tone, depth, (depth == 1).astype(np.float32), lines, scene.horizon, scene.floor)


# --- tools ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def grid(side: int) -> tuple[Mask, Mask]:
    """x and y of every pixel, 0 to 1: two float32 [S, S]."""
    x, y = np.meshgrid(*[(np.arange(side, dtype=np.float32) + 0.5) / side] * 2)
    return x, y


def blur(image: np.ndarray, radius: float) -> np.ndarray:
    """Gaussian blur; `radius` is a share of the side."""
    return cv2.GaussianBlur(image, (0, 0), max(radius * len(image), 0.3))


def noise(side: int, cells: int, rng: Rng) -> Mask:
    """Smooth random values, as many bumps a side as there are `cells`; at S and above one value a pixel."""
    count = min(cells, side)
    small = rng.random((count, count), dtype=np.float32)
    return small if count == side else np.clip(cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC), 0, 1)


def moved_by(image: np.ndarray, dx: Mask | float, dy: Mask | float) -> np.ndarray:
    """The image with every pixel fetched from (dx, dy) away, in shares of the side."""
    x, y = grid(len(image))
    maps = [((start + by) * len(image) - 0.5).astype(np.float32) for start, by in ((x, dx), (y, dy))]
    return cv2.remap(image, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def wobble(image: np.ndarray, amount: float, cells: int, rng: Rng) -> np.ndarray:
    """The image with its edges shaken by up to `amount`, as by an unsteady hand."""
    side = len(image)
    return moved_by(image, *((noise(side, cells, rng) - 0.5) * 2 * amount for _ in range(2)))


def smear(image: np.ndarray, angle: Mask | float, length: float, steps: int = 7) -> np.ndarray:
    """The image averaged along lines of the given angle (radians, for all or for each pixel): strokes, rain, bristles."""
    dx, dy = np.cos(angle), np.sin(angle)
    return sum(moved_by(image, dx * t, dy * t) for t in np.linspace(-length / 2, length / 2, steps)) / steps


def stretch(mask: Mask) -> Mask:
    """The mask with its values spread around 0.5, a quarter of the range for one standard deviation."""
    return np.clip(0.5 + 0.25 * (mask - mask.mean()) / (mask.std() + 1e-6), 0, 1)


def strokes(side: int, angle: Mask | float, length: float, rng: Rng) -> Mask:
    """A texture of strokes along the angle."""
    return stretch(smear(noise(side, 96, rng), angle, length))


def mix(below: Picture, above: Picture | tuple, mask: Mask | float) -> Picture:
    """`above` laid over `below` where the mask is 1."""
    mask = mask[..., None] if isinstance(mask, np.ndarray) else mask
    return below + (np.asarray(above, np.float32) - below) * mask


def saturate(picture: Picture, factor: float) -> Picture:
    """More colour (factor above 1) or less."""
    middle = picture.mean(axis=2, keepdims=True)
    return np.clip(middle + (picture - middle) * factor, 0, 1)


def thick(lines: Mask, width: float) -> Mask:
    """The lines wider by this share of the side."""
    return cv2.dilate(lines, np.ones((max(1, round(width * len(lines))),) * 2, np.uint8))


def relief(height: Mask, angle: float, strength: float) -> Mask:
    """Light from the given angle on a height field: about 0 where it is even, positive where it faces the light."""
    gx, gy = cv2.Sobel(height, -1, 1, 0), cv2.Sobel(height, -1, 0, 1)
    return (np.cos(angle) * gx + np.sin(angle) * gy) * (strength * len(height) / 128)


def tinted(rng: Rng, saturation: float, value: float) -> np.ndarray:
    """A colour of any hue: float32 [3]."""
    return np.array(hsv(rng.random(), saturation, value), np.float32)


def paper(side: int, rng: Rng, strength: float = 0.06) -> Picture:
    """Paper of some tint, with its grain."""
    grain = stretch(blur(noise(side, side, rng), 0.006)) - 0.5
    return tinted(rng, rng.uniform(0.0, 0.16), rng.uniform(0.85, 1.0)) + 2 * strength * grain[..., None]


# --- the styles -----------------------------------------------------------------------------------------------------


def graphics_3d(canvas: Canvas, rng: Rng) -> Picture:
    """Shapes blown up to rounded bodies, lit from one side, with highlights and a soft shadow in a studio."""
    side, angle = len(canvas.flat), rng.uniform(-2.4, -0.7)
    inside = cv2.distanceTransform((canvas.lines == 0).astype(np.uint8), cv2.DIST_L2, 3) / side
    height = blur(np.sqrt(np.minimum(inside, 0.05) / 0.05), 0.012) * canvas.thing
    light = relief(blur(height, 0.008), angle + np.pi, -0.5)
    shadow = blur(moved_by(canvas.thing, 0.05 * np.cos(angle), 0.05 * np.sin(angle)), 0.03) * (1 - canvas.thing)
    y = grid(side)[1]
    studio = blur(canvas.flat, 0.05) * (0.75 + 0.5 * y[..., None])
    picture = mix(studio, canvas.flat, canvas.thing) * (1 - 0.6 * shadow[..., None])
    picture = picture * (1 + np.clip(1.3 * light, -0.75, 0.6) * canvas.thing)[..., None]
    return picture + (np.clip(light - 0.25, 0, 1) ** 2 * 4 * canvas.thing)[..., None]


def comic(canvas: Canvas, rng: Rng) -> Picture:
    """Bold black outlines, few strong colours, dots of the printing screen, sometimes rays behind the thing."""
    side = len(canvas.flat)
    x, y = grid(side)
    picture = np.round(saturate(canvas.flat, 1.6) * 4) / 4
    if rng.random() < 0.4:
        rays = np.sin(np.arctan2(y - canvas.floor + 0.3, x - 0.5) * rng.integers(8, 14)) > 0
        picture = mix(picture, picture * 0.6 + 0.4, rays * (canvas.depth < 0.3))
    period, angle = rng.uniform(0.035, 0.05), rng.uniform(0.3, 1.2)
    u, v = (x * np.cos(angle) + y * np.sin(angle)) / period, (y * np.cos(angle) - x * np.sin(angle)) / period
    dots = np.sin(2 * np.pi * u) * np.sin(2 * np.pi * v) > np.where(canvas.thing > 0, 0.55, 0.1)
    picture = mix(picture, rng.choice([0.35, 1.5]) * picture, dots * 0.8)
    return mix(picture, (0.03, 0.03, 0.05), thick(canvas.lines * (canvas.depth > 0.1), rng.uniform(0.012, 0.022)))


def pencil_sketch(canvas: Canvas, rng: Rng) -> Picture:
    """Soft grey strokes in one direction on paper, and outlines that were drawn twice by an unsteady hand."""
    side, angle = len(canvas.flat), rng.uniform(0.4, 1.2) * rng.choice([-1, 1])
    dark = 1 - blur(canvas.tone, 0.01) * np.where(canvas.thing > 0, 0.85, 1.1)
    shading = np.clip(dark * 1.3 - strokes(side, angle, 0.12, rng), 0, 1)
    outline = sum(blur(wobble(canvas.lines, 0.012, 9, rng), 0.004) for _ in range(2))
    lead = np.clip(0.7 * shading + 0.55 * outline * (0.5 + noise(side, 12, rng)), 0, 0.85)
    lead = lead * (0.75 + 0.25 * noise(side, side, rng))
    return mix(paper(side, rng), tinted(rng, 0.1, rng.uniform(0.15, 0.3)), lead)


def oil_paint(canvas: Canvas, rng: Rng) -> Picture:
    """Thick dabs of broken colour along the brush's way, whose ridges catch the light."""
    side, cells = len(canvas.flat), rng.integers(20, 30)
    way = noise(side, 4, rng) * 2 * np.pi
    dabs = rng.random((cells, cells, 5), dtype=np.float32) - 0.5  # of each dab: from where its colour is, and its tint
    dabs = smear(wobble(cv2.resize(dabs, (side, side), interpolation=cv2.INTER_NEAREST), 0.02, 20, rng), way, 0.04)
    picture = moved_by(saturate(canvas.flat, 1.2), dabs[..., 0] * 0.035, dabs[..., 1] * 0.035)
    picture = smear(picture, way, 0.03) * (1 + 0.4 * dabs[..., 2:])
    bristles = strokes(side, way, 0.07, rng)
    ridges = np.clip(relief(bristles, rng.uniform(0, 6.28), 0.07), -0.2, 0.25)
    return picture + (0.1 * (bristles - 0.5) + ridges)[..., None]


def pen_ink(canvas: Canvas, rng: Rng) -> Picture:
    """Hard ink lines on bright paper; shadows are hatched, and hatched across where they are deep."""
    side, angle = len(canvas.flat), rng.uniform(0.5, 1.1) * rng.choice([-1, 1])
    x, y = (a + 0.01 * noise(side, 6, rng) for a in grid(side))
    period = rng.uniform(0.03, 0.04)
    tone = canvas.tone * np.where(canvas.thing > 0, 0.9, 1.25)
    ink = wobble(thick(canvas.lines, 0.008), 0.006, 12, rng) > 0.4
    for limit, turn in ((0.75, 0.0), (0.5, 1.57), (0.3, 0.8)):
        wave = np.sin(2 * np.pi * (x * np.cos(angle + turn) + y * np.sin(angle + turn)) / period)
        ink |= (wave > 0.45) & (tone < limit)
    ink |= tone < 0.13
    colour = (0.04, 0.04, 0.06) if rng.random() < 0.7 else tinted(rng, 0.8, 0.25)
    return mix(paper(side, rng, 0.015), colour, ink)


def vector_art(canvas: Canvas, rng: Rng) -> Picture:
    """Even colours and clean edges, a long shadow, and one half of everything a little darker."""
    x, y = grid(len(canvas.flat))
    picture = np.round(saturate(canvas.flat, 1.2) * 5) / 5
    shadow = np.max([moved_by(canvas.thing, -t, -t) for t in np.linspace(0.03, 0.36, 12)], axis=0)
    picture = mix(picture, picture * 0.7, (shadow > 0.5) * (1 - canvas.thing))
    centre = (x * canvas.thing).sum() / (canvas.thing.sum() + 1)
    return mix(picture, picture * 0.76, (x > centre) * canvas.thing)


def water_colour(canvas: Canvas, rng: Rng) -> Picture:
    """Transparent washes that bleed over their edges and dry darker there, on rough paper that is left white around."""
    side = len(canvas.flat)
    x, y = grid(side)
    flat = wobble(blur(canvas.flat, 0.008), 0.02, 10, rng)
    edges = np.abs(blur(flat, 0.006) - blur(flat, 0.025)).sum(axis=2)
    pools = noise(side, 7, rng) * 0.6 + noise(side, 20, rng) * 0.4
    pigment = np.clip(0.35 + 0.75 * pools + 0.9 * edges, 0, 1.3)
    frame = np.minimum.reduce([x, 1 - x, y, 1 - y]) + 0.07 * (noise(side, 9, rng) - 0.5)
    pigment = pigment * np.clip((frame - 0.05) / 0.02, 0, 1)
    return paper(side, rng, 0.05) * (1 - (1 - flat) * pigment[..., None])


def scary(canvas: Canvas, rng: Rng) -> Picture:
    """A dark thing with glowing edges before a harsh light of one colour; all around it is black."""
    side = len(canvas.flat)
    x, y = grid(side)
    centre = (x * canvas.thing).sum() / canvas.thing.sum() + rng.normal(0, 0.1), canvas.floor - rng.uniform(0.3, 0.6)
    far = np.hypot(x - centre[0], y - centre[1]) + 0.25 * (noise(side, 9, rng) - 0.5)
    glow = np.clip(1.2 - far * rng.uniform(1.4, 1.9), 0.02, 1)
    back = glow * (0.45 + 0.55 * canvas.tone) * (1 - 0.85 * canvas.thing)
    rim = thick(canvas.lines, 0.01) * canvas.thing * rng.uniform(0.3, 0.6) * glow
    light = np.clip(back * 1.15 + rim + 0.25 * canvas.thing * canvas.tone**2, 0, 1) ** 1.4
    light = light[..., None]
    return light * tinted(rng, rng.uniform(0.6, 1.0), 1.0) + 0.5 * np.clip(light - 0.6, 0, 1)


def gloomy(canvas: Canvas, rng: Rng) -> Picture:
    """Rain and fog that swallow what is far away; low clouds, little colour, little contrast."""
    side = len(canvas.flat)
    y = grid(side)[1]
    fog = tinted(rng, rng.uniform(0.05, 0.3), rng.uniform(0.45, 0.7))
    clouds = noise(side, 4, rng) * 0.6 + noise(side, 10, rng) * 0.4
    veil = np.clip(0.75 - 0.4 * canvas.depth + 0.5 * (clouds - 0.5), 0.2, 0.95)
    picture = mix(saturate(blur(canvas.flat, 0.008), 0.35) * 0.6, fog, veil)
    picture = picture * (1 - 0.45 * np.clip(1 - y / canvas.horizon, 0, 1) * (0.4 + clouds))[..., None]
    rain = smear((noise(side, side, rng) > 0.985).astype(np.float32), rng.uniform(1.3, 1.85), rng.uniform(0.1, 0.2), 13)
    return picture + np.clip(rain * 2.2, 0, 0.3)[..., None]


def happy(canvas: Canvas, rng: Rng) -> Picture:
    """Bright full colours, a sun with its rays in a corner, and confetti in the air."""
    side = len(canvas.flat)
    x, y = grid(side)
    picture = saturate(canvas.flat, 1.7) ** 0.6
    sun = rng.choice([0.05, 0.95]), rng.uniform(0.0, 0.15)
    far, turn = np.hypot(x - sun[0], y - sun[1]), np.arctan2(y - sun[1], x - sun[0])
    rays = (np.sin(turn * rng.integers(14, 22) + rng.random() * 6) > 0) * (canvas.depth < 0.4)
    picture = mix(picture, (1.0, 0.97, 0.6), rays * np.clip(0.75 - far * 0.7, 0, 1))
    disc = (far < rng.uniform(0.16, 0.24)) * (canvas.depth < 0.9)
    picture = np.ascontiguousarray(mix(picture, (1.0, 0.9, 0.25), disc))
    for _ in range(rng.integers(25, 45)):
        at, size, turn = rng.random(2) * side, rng.uniform(0.012, 0.022) * side, rng.uniform(0, 180)
        shape = cv2.boxPoints((at.tolist(), (size * 2, size), turn))
        cv2.fillPoly(picture, [np.round(shape).astype(np.int32)], tinted(rng, 0.85, 1.0).tolist())
    return picture


def peaceful(canvas: Canvas, rng: Rng) -> Picture:
    """Pale colours that glow softly, a wide even sky, and still water that mirrors everything below the thing's feet."""
    side = len(canvas.flat)
    y = grid(side)[1]
    shore = min(canvas.floor, 0.86)
    deep = np.maximum(y - shore, 0)
    ripple = 0.006 * np.sin(2 * np.pi * (y - shore) / rng.uniform(0.02, 0.035)) * (y > shore)
    above, below = (tinted(rng, rng.uniform(0.1, 0.45), rng.uniform(0.65, 1.0)) for _ in range(2))
    dusk = above + (below - above) * y[..., None]
    picture = mix(mix(canvas.flat, dusk, 0.85 - 0.5 * canvas.depth), (1.0, 1.0, 1.0), 0.1)
    picture = moved_by(picture, ripple, -2 * deep)
    picture = mix(picture, dusk * 0.85, (y > shore) * np.float32(0.35))
    return 0.45 * picture + 0.6 * blur(picture, 0.03)


STYLES = {
    "3D Graphics": graphics_3d,
    "Comic": comic,
    "Pencil Sketch": pencil_sketch,
    "Oil Paint": oil_paint,
    "Pen Ink": pen_ink,
    "Vector Art": vector_art,
    "Water Color": water_colour,
    "Scary": scary,
    "Gloomy": gloomy,
    "Happy": happy,
    "Peaceful": peaceful,
}


def render(style: str, scene: Scene, size: int, rng: Rng) -> np.ndarray:
    """The scene in the style, as a camera or a scanner then sees it: uint8 [size, size, 3], red, green, blue."""
    canvas = make_canvas(scene, 2 * size)  # drawn twice as large: that smooths the edges
    strength = 1 - 0.35 * rng.random() ** 2  # from coloured pencil to pencil, from washed ink to ink
    picture = mix(canvas.flat, STYLES[style](canvas, rng), strength)
    picture = cv2.resize(np.clip(picture, 0, 1).astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
    seen = picture ** rng.uniform(0.8, 1.2) * rng.uniform(0.85, 1.05, 3) + rng.normal(0, 0.012, picture.shape)
    return np.round(np.clip(seen, 0, 1) * 255).astype(np.uint8)
