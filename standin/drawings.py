"""Drawings of the stand-in collection: coloured shapes, the backgrounds, and how an object is placed in front of one.

A `Drawing` is a list of shapes painted from the back to the front. `contents.py` models the objects out of them and
`media.py` renders any drawing in any style.

While an object is modelled, x runs to the right and y *up* from its feet. `place` turns that into the picture's
coordinates: both from 0 to 1, y running down.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Colour = tuple[float, float, float]
Rng = np.random.Generator


class Shape(NamedTuple):
    """One coloured shape: a filled polygon, or a stroke along a path.

    points: float64 [n, 2], units of the picture's side. colour: red, green, blue from 0 to 1. width: 0 for a filled
    polygon, else the stroke's width in the same units. depth: 0 far away (sky) to 1 near. material: "sky", "land"
    (anything else of the background), "matte" or "glossy" (parts of the object).
    """

    points: np.ndarray
    colour: Colour
    width: float = 0.0
    depth: float = 0.8
    material: str = "matte"


class Drawing(NamedTuple):
    """A picture before anybody has chosen a style: shapes from back to front and the heights of two lines.

    horizon: where the ground meets the sky; floor: where the object stands (both 0 top to 1 bottom).
    """

    shapes: list[Shape]
    horizon: float
    floor: float


# --- geometry -------------------------------------------------------------------------------------------------------


def smooth(points: Sequence, closed: bool = True, steps: int = 8) -> np.ndarray:
    """A Catmull-Rom curve through `points` [n, 2]: float64 [m, 2], `steps` points between two neighbours."""
    p = np.asarray(points, dtype=float)
    if closed:
        a, b, c, d = (np.roll(p, k, axis=0) for k in (1, 0, -1, -2))
    else:
        q = np.vstack([p[:1], p, p[-1:]])
        a, b, c, d = q[:-3], q[1:-2], q[2:-1], q[3:]
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    a, b, c, d = (v[:, None] for v in (a, b, c, d))
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - 3 * c + d - a) * t**3)
    curve = curve.reshape(-1, 2)
    return curve if closed else np.vstack([curve, p[-1:]])


def arc(x: float, y: float, rx: float, ry: float, start: float = 0, end: float = 360, turn: float = 0) -> np.ndarray:
    """Points on an ellipse around (x, y) from angle `start` to `end`, turned by `turn` (degrees): float64 [33, 2]."""
    t = np.radians(np.linspace(start, end, 33))
    s, c = np.sin(np.radians(turn)), np.cos(np.radians(turn))
    u, v = rx * np.cos(t), ry * np.sin(t)
    return np.stack([x + c * u - s * v, y + s * u + c * v], axis=1)


def disc(x: float, y: float, rx: float, colour: Colour, ry: float | None = None, turn: float = 0, **more) -> Shape:
    """A filled ellipse; `ry` None makes it a circle."""
    return Shape(arc(x, y, rx, rx if ry is None else ry, turn=turn), colour, **more)


def area(points: Sequence, colour: Colour, round_off: bool = False, **more) -> Shape:
    """A filled polygon with straight sides, or through the same points as one smooth curve."""
    return Shape(smooth(points) if round_off else np.asarray(points, dtype=float), colour, **more)


def box(x0: float, y0: float, x1: float, y1: float, colour: Colour, **more) -> Shape:
    """A filled upright rectangle."""
    return Shape(np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=float), colour, **more)


def line(points: Sequence, colour: Colour, width: float, bend: bool = False, **more) -> Shape:
    """A stroke of even width along a path; `bend` runs a smooth curve through the points."""
    return Shape(smooth(points, closed=False) if bend else np.asarray(points, dtype=float), colour, width, **more)


def limb(points: Sequence, widths: Sequence[float], colour: Colour, **more) -> Shape:
    """A tapered, round-ended, bent shape along `points`: arms, tails, stems, trunks. `widths`: one per point."""
    path = smooth(points, closed=False)
    half = np.interp(np.linspace(0, 1, len(path)), np.linspace(0, 1, len(widths)), widths)[:, None] / 2
    along = np.gradient(path, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    side = np.stack([-along[:, 1], along[:, 0]], axis=1)
    t = np.linspace(0, np.pi, 7)[1:-1, None]
    tip = path[-1] + half[-1] * (np.cos(t) * side[-1] + np.sin(t) * along[-1])
    foot = path[0] - half[0] * (np.cos(t) * side[0] + np.sin(t) * along[0])
    return Shape(np.vstack([path + half * side, tip, (path - half * side)[::-1], foot]), colour, **more)


def moved(shapes: list[Shape], dx: float, dy: float, scale: float = 1.0, depth: float = 0.0) -> list[Shape]:
    """The shapes scaled about the origin, then shifted, then brought nearer by `depth`."""
    return [
        s._replace(points=s.points * scale + (dx, dy), width=s.width * scale, depth=s.depth + depth) for s in shapes
    ]


# --- colours --------------------------------------------------------------------------------------------------------


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Hue, saturation and value (hue wraps around, the others are clipped to 0..1) as red, green, blue."""
    return colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0))


def shade(colour: Colour, factor: float) -> Colour:
    """Darker for a factor below 1, nearer to white above it."""
    if factor <= 1:
        return tuple(c * factor for c in colour)
    return tuple(1 - (1 - c) / factor for c in colour)


def any_colour(rng: Rng) -> Colour:
    """A colour of any hue, neither black nor white."""
    return hsv(rng.random(), rng.uniform(0.25, 0.95), rng.uniform(0.4, 0.95))


def pick(rng: Rng, *things):
    """One of the things, evenly."""
    return things[rng.integers(len(things))]


def near(rng: Rng, *colours: Colour) -> Colour:
    """One of the colours, moved a little."""
    return tuple(float(np.clip(c + rng.uniform(-0.07, 0.07), 0, 1)) for c in pick(rng, *colours))


DARK: Colour = (0.12, 0.12, 0.14)
WHITE: Colour = (0.97, 0.97, 0.95)
GREEN = ((0.3, 0.55, 0.22), (0.45, 0.62, 0.25), (0.2, 0.42, 0.25), (0.55, 0.6, 0.28))
LEAF = (*GREEN, (0.85, 0.5, 0.18), (0.75, 0.28, 0.2), (0.9, 0.72, 0.25), (0.92, 0.7, 0.78))


# --- the background and the object in front of it ---------------------------------------------------------------------


def far_away(rng: Rng, kind: str, horizon: float, sky: Colour, ground: Colour) -> list[Shape]:
    """What stands above the horizon: sun, clouds, hills, mountains or a town."""
    shapes: list[Shape] = []
    more = {"material": "land"}
    if kind in ("country", "mountains", "sea", "town") and rng.random() < 0.75:
        if rng.random() < 0.4:
            shapes.append(
                disc(
                    rng.uniform(0.1, 0.9),
                    rng.uniform(0.08, 0.3),
                    rng.uniform(0.05, 0.1),
                    (1.0, 0.93, 0.7),
                    depth=0.02,
                    **more,
                )
            )
        for _ in range(rng.integers(0, 4)):
            x, y, r = rng.uniform(0, 1), rng.uniform(0.05, horizon - 0.2), rng.uniform(0.04, 0.07)
            puff = [(-2.2, 0.5), (-1.6, -0.4), (-0.5, -0.9), (0.6, -0.8), (1.6, -0.3), (2.3, 0.5)]
            shapes.append(
                area(np.array(puff) * r + (x, y), shade(sky, pick(rng, 1.7, 2.5)), round_off=True, depth=0.05, **more)
            )
    if kind in ("country", "mountains"):
        for layer in range(rng.integers(1, 3)):
            tint, n = shade(ground if kind == "country" else (0.5, 0.53, 0.62), 1.7 - 0.4 * layer), 7
            high = rng.uniform(0.02, 0.16, n) if kind == "country" else rng.uniform(0.05, 0.32, n)
            ridge = np.stack([np.linspace(-0.15, 1.15, n), horizon + 0.02 - high / (layer + 1)], axis=1)
            ridge = smooth(ridge, closed=False) if kind == "country" else ridge
            shapes.append(area([*ridge, (1.15, 1), (-0.15, 1)], tint, depth=0.1 + 0.1 * layer, **more))
    if kind == "town":
        x, wall = -0.05, near(rng, (0.7, 0.65, 0.62), (0.55, 0.6, 0.68), sky)
        while x < 1.05:
            w, h = rng.uniform(0.07, 0.18), rng.uniform(0.1, 0.35)
            shapes.append(
                box(x, horizon - h, x + w, horizon + 0.02, shade(wall, rng.uniform(0.75, 1.3)), depth=0.2, **more)
            )
            x += w
    return shapes


def on_the_ground(rng: Rng, kind: str, horizon: float, sky: Colour, ground: Colour) -> list[Shape]:
    """What lies below the horizon: water, a road, a room's floor and its wall, or grass."""
    shapes: list[Shape] = []
    more = {"material": "land"}
    if kind == "sea":
        water = near(rng, (0.3, 0.52, 0.68), (0.35, 0.6, 0.6), (0.25, 0.35, 0.5))
        shore = horizon + (1 - horizon) * rng.uniform(0.3, 0.6)
        shapes.append(box(-0.1, horizon, 1.1, shore, water, depth=0.3, **more))
        for y in np.linspace(horizon + 0.02, shore - 0.01, 5):
            x = rng.uniform(0, 0.8)
            shapes.append(line([(x, y), (x + rng.uniform(0.1, 0.3), y)], shade(water, 1.6), 0.006, depth=0.31, **more))
    elif kind == "town":
        edge = horizon + rng.uniform(0.03, 0.1)
        shapes.append(box(-0.1, edge, 1.1, 1.1, shade(ground, 0.75), depth=0.36, **more))
        shapes += [
            box(x, edge + 0.12, x + 0.12, edge + 0.135, WHITE, depth=0.37, **more)
            for x in np.arange(rng.uniform(-0.1, 0.1), 1.1, 0.25)
        ]
    elif kind == "room":
        x, w = rng.uniform(0.05, 0.7), rng.uniform(0.18, 0.3)
        shapes.append(box(x, 0.08, x + w, 0.08 + w * 1.2, shade(sky, 0.6), depth=0.1, **more))
        shapes.append(box(x + 0.02, 0.1, x + w - 0.02, 0.06 + w * 1.2, any_colour(rng), depth=0.12, **more))
        shapes.append(box(-0.1, horizon - 0.035, 1.1, horizon, shade(sky, 1.6), depth=0.3, **more))
        shapes += [
            line([(x, horizon), (0.5 + (x - 0.5) * 2.2, 1.1)], shade(ground, 0.8), 0.005, depth=0.36, **more)
            for x in np.linspace(-0.2, 1.2, 9)
        ]
    elif kind != "plain":
        for x, y in zip(rng.uniform(0, 1, 14), rng.uniform(horizon + 0.03, 1, 14), strict=True):
            size = 0.015 + 0.05 * (y - horizon)
            tuft = [
                (x - size, y - size * 1.4),
                (x, y),
                (x + size * 0.2, y - size * 2),
                (x + size * 0.4, y),
                (x + size * 1.3, y - size * 1.2),
            ]
            shapes.append(line(tuft, shade(ground, pick(rng, 0.7, 1.25)), 0.007, depth=0.4, **more))
    return shapes


def scene(rng: Rng) -> tuple[list[Shape], float]:
    """A background and the height of its horizon: open country, town, sea, a room, or next to nothing."""
    horizon = rng.uniform(0.45, 0.78)
    kind = pick(rng, "country", "country", "mountains", "town", "sea", "room", "plain", "plain")
    sky = near(
        rng,
        (0.62, 0.8, 0.93),
        (0.95, 0.82, 0.65),
        (0.85, 0.87, 0.88),
        (0.7, 0.72, 0.85),
        (0.3, 0.36, 0.55),
        (0.9, 0.9, 0.82),
    )
    ground = near(rng, *GREEN, (0.78, 0.68, 0.48), (0.6, 0.58, 0.56), (0.85, 0.8, 0.7))
    if kind == "plain":
        sky = any_colour(rng) if rng.random() < 0.5 else near(rng, WHITE, (0.8, 0.78, 0.74))
        ground = shade(sky, pick(rng, 0.75, 0.9, 1.4))
    shapes = [box(-0.1, -0.1, 1.1, 1.1, sky, depth=0.0, material="sky")]
    shapes += far_away(rng, kind, horizon, sky, ground)
    shapes.append(box(-0.1, horizon, 1.1, 1.1, ground, depth=0.35, material="land"))
    shapes += on_the_ground(rng, kind, horizon, sky, ground)
    return shapes, horizon


def place(rng: Rng, shapes: list[Shape], stand: str, horizon: float) -> tuple[list[Shape], float]:
    """The object in the picture: mirrored or not, stretched, leaning, larger or smaller; and the height of its floor.

    `stand`: "standing" on the ground, "flying" above it, or "close" enough that the lower edge cuts it.
    """
    stretch, lean = rng.uniform(0.85, 1.12), rng.normal(0, 0.06)
    turn = np.array([[pick(rng, -1, 1) * stretch, 0.0], [lean, -1.0]])  # (x, y up) @ turn = (x, y down)
    points = np.vstack([s.points @ turn for s in shapes if s.depth >= 0.6])
    low, high = points.min(axis=0), points.max(axis=0)
    size = {"standing": (0.68, 0.94), "flying": (0.65, 0.9), "close": (0.8, 1.0)}[stand]
    scale = rng.uniform(*size) / max(high - low)
    w, h = (high - low) * scale
    x = rng.uniform(0.04, max(0.041, 0.96 - w)) if w < 0.92 else (1 - w) / 2
    if stand == "standing":
        floor = float(np.clip(rng.uniform(horizon + 0.06, 0.97), h + 0.03, 0.97))
    elif stand == "flying":
        floor = rng.uniform(h + 0.04, max(h + 0.05, 0.85))
    else:
        floor = rng.uniform(1.0, 1.08) if h > 0.7 else 0.97
    shift = (x, floor) - np.array([low[0], high[1]]) * scale
    return [s._replace(points=s.points @ turn * scale + shift, width=s.width * scale) for s in shapes], floor
