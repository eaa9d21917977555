"""What a picture shows, before a style is chosen: coloured shapes from the back to the front.

A thing is modelled with x to the right and y *up* from its feet, in any unit. `place` turns that into the picture's
coordinates: both from 0 to 1, y running down.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Colour = tuple[float, float, float]


class Shape(NamedTuple):
    """One filled polygon, or a stroke along a path.

    points: float64 [n, 2]. colour: red, green, blue from 0 to 1. width: of the stroke, in the unit of the points; 0
    for a polygon. depth: 0 the sky, up to 0.5 the land, 1 the thing.
    """

    points: np.ndarray
    colour: Colour
    width: float = 0.0
    depth: float = 1.0


class Scene(NamedTuple):
    """Shapes in the picture's coordinates, and two heights in it: of the horizon, and of the thing's feet."""

    shapes: list[Shape]
    horizon: float
    floor: float


class Paint(NamedTuple):
    """The colours of one thing."""

    main: Colour
    second: Colour
    accent: Colour
    dark: Colour
    light: Colour


# --- shapes ---------------------------------------------------------------------------------------------------------


def smooth(points: Sequence, closed: bool = True, steps: int = 6) -> np.ndarray:
    """A Catmull-Rom curve through `points` [n, 2]: float64 [m, 2], `steps` points between two neighbours."""
    p = np.asarray(points, dtype=float)
    if closed:
        a, b, c, d = (np.roll(p, k, axis=0)[:, None] for k in (1, 0, -1, -2))
    else:
        q = np.vstack([p[:1], p, p[-1:]])
        a, b, c, d = q[:-3, None], q[1:-2, None], q[2:-1, None], q[3:, None]
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - 3 * c + d - a) * t**3)
    return curve.reshape(-1, 2) if closed else np.vstack([curve.reshape(-1, 2), p[-1:]])


def ellipse(x: float, y: float, rx: float, ry: float, turn: float = 0.0) -> np.ndarray:
    """Points on an ellipse around (x, y) that is turned by `turn` (radians): float64 [25, 2], the last is the first."""
    t = np.linspace(0, 2 * np.pi, 25)
    u, v, c, s = rx * np.cos(t), ry * np.sin(t), np.cos(turn), np.sin(turn)
    return np.stack([x + c * u - s * v, y + s * u + c * v], axis=1)


def disc(x: float, y: float, rx: float, colour: Colour, ry: float | None = None, turn: float = 0.0, **more) -> Shape:
    """A filled ellipse; without `ry` a circle."""
    return Shape(ellipse(x, y, rx, rx if ry is None else ry, turn), colour, **more)


def area(points: Sequence, colour: Colour, rounded: bool = False, **more) -> Shape:
    """A filled polygon, with straight sides or `rounded`."""
    return Shape(smooth(points) if rounded else np.asarray(points, dtype=float), colour, **more)


def box(x0: float, y0: float, x1: float, y1: float, colour: Colour, **more) -> Shape:
    """A filled upright rectangle."""
    return area([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour, **more)


def line(points: Sequence, colour: Colour, width: float, rounded: bool = False, **more) -> Shape:
    """A stroke of even width."""
    return Shape(smooth(points, False) if rounded else np.asarray(points, dtype=float), colour, width, **more)


def limb(points: Sequence, widths: Sequence[float], colour: Colour, **more) -> Shape:
    """A bent, tapered, round-ended shape along `points`: a leg, a tail, a trunk. `widths`: one for each point."""
    path = smooth(points, closed=False)
    half = np.interp(np.linspace(0, 1, len(path)), np.linspace(0, 1, len(widths)), widths)[:, None] / 2
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    side = np.stack([-along[:, 1], along[:, 0]], axis=1)
    t = np.linspace(0, np.pi, 6)[1:-1, None]
    tip = path[-1] + half[-1] * (np.cos(t) * side[-1] + np.sin(t) * along[-1])
    foot = path[0] - half[0] * (np.cos(t) * side[0] + np.sin(t) * along[0])
    return Shape(np.vstack([path + half * side, tip, (path - half * side)[::-1], foot]), colour, **more)


def mirrored(points: Sequence) -> np.ndarray:
    """An outline that is symmetric to x = 0, from its right half, given from below upwards: float64 [2 n, 2]."""
    right = np.asarray(points, dtype=float)
    return np.vstack([right, right[::-1] * (-1, 1)])


def moved(shapes: list[Shape], dx: float, dy: float, scale: float = 1.0) -> list[Shape]:
    """The shapes scaled about the origin, then shifted."""
    return [s._replace(points=s.points * scale + (dx, dy), width=s.width * scale) for s in shapes]


# --- colours --------------------------------------------------------------------------------------------------------


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Hue (wraps around), saturation and value (clipped to 0..1) as red, green, blue."""
    return colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0))


def shade(colour: Colour, factor: float) -> Colour:
    """Darker for a factor below 1, nearer to white above it."""
    return tuple(c * factor if factor <= 1 else 1 - (1 - c) / factor for c in colour)


def draw_paint(rng: np.random.Generator, hue: float) -> Paint:
    """The colours of one thing: about the hue or opposite to it, with a second one apart from that."""
    hue, apart = hue + rng.choice([0.0, 0.5]) + rng.normal(0, 0.05), rng.choice([0.1, 0.33, 0.5, -0.12])
    main = hsv(hue, rng.uniform(0.35, 0.95), rng.uniform(0.5, 0.95))
    second = hsv(hue + apart, rng.uniform(0.3, 0.9), rng.uniform(0.45, 0.95))
    accent = hsv(rng.random(), rng.uniform(0.6, 0.95), rng.uniform(0.7, 0.95))
    return Paint(main, second, accent, hsv(hue, 0.3, rng.uniform(0.1, 0.22)), hsv(hue, 0.07, 0.96))


# --- the background, and the thing in front of it ---------------------------------------------------------------------


def background(rng: np.random.Generator, hue: float) -> tuple[list[Shape], float]:
    """Sky, something far away, and the ground, all about the hue; and the height of the horizon."""
    horizon = rng.uniform(0.45, 0.75)
    sky = hsv(hue + rng.normal(0, 0.05), rng.uniform(0.15, 0.6), rng.uniform(0.65, 1.0))
    ground = hsv(hue + rng.choice([-0.1, 0.1]) + rng.normal(0, 0.04), rng.uniform(0.3, 0.65), rng.uniform(0.45, 0.85))
    shapes = [box(-0.1, -0.1, 1.1, 1.1, sky, depth=0.0)]
    if rng.random() < 0.4:
        x, y = rng.uniform(0.1, 0.9), rng.uniform(0.08, 0.3)
        shapes.append(disc(x, y, rng.uniform(0.05, 0.1), (1.0, 0.95, 0.72), depth=0.05))
    for _ in range(rng.integers(0, 3)):
        x, y, r = rng.random(), rng.uniform(0.08, 0.3), rng.uniform(0.03, 0.06)
        puff = np.array([(-2.4, 0.6), (-1.4, -0.5), (-0.4, -1.0), (0.8, -0.7), (1.5, -0.2), (2.4, 0.6)])
        shapes.append(area(puff * r + (x, y), shade(sky, 2.0), rounded=True, depth=0.08))
    far = rng.choice(["hills", "mountains", "town", "nothing"])
    if far == "town":
        for x in np.arange(-0.05, 1, 0.13):
            top = horizon - rng.uniform(0.05, 0.25)
            shapes.append(box(x, top, x + 0.11, horizon, shade(sky, rng.uniform(0.65, 0.85)), depth=0.2))
    elif far != "nothing":
        high = rng.uniform(0.02, 0.16 if far == "hills" else 0.3, 7)
        ridge = np.stack([np.linspace(-0.1, 1.1, 7), horizon - high], axis=1)
        ridge = smooth(ridge, False) if far == "hills" else ridge
        tint = shade(ground, 0.75) if far == "hills" else shade(sky, 0.72)
        shapes.append(area([*ridge, (1.1, 1.0), (-0.1, 1.0)], tint, depth=0.2))
    shapes.append(box(-0.1, horizon, 1.1, 1.1, ground, depth=0.4))
    edge = horizon + rng.uniform(0.06, 0.2)
    if rng.random() < 0.5:  # a road, a shore, a carpet
        strip = [(-0.1, edge), (1.1, edge + rng.normal(0, 0.05)), (1.1, edge + 0.3), (-0.1, edge + 0.3)]
        shapes.append(area(strip, shade(ground, rng.choice([0.8, 1.4])), depth=0.45))
    return shapes, horizon


def draw_scene(thing: list[Shape], hue: float, rng: np.random.Generator) -> Scene:
    """The thing before a background: mirrored or not, stretched, leaning, larger or smaller, more left or more right."""
    shapes, horizon = background(rng, hue)
    turn = np.array([[rng.choice([-1, 1]) * rng.uniform(0.88, 1.12), 0.0], [rng.normal(0, 0.05), -1.0]])
    points = np.vstack([s.points for s in thing]) @ turn
    low, high = points.min(axis=0), points.max(axis=0)
    scale = rng.uniform(0.68, 0.92) / max(high - low)
    width, height = (high - low) * scale
    x = rng.uniform(0.03, 0.97 - width)
    floor = max(rng.uniform(height + 0.03, 0.97), min(horizon + 0.1, 0.97))
    shift = np.array([x, floor]) - np.array([low[0], high[1]]) * scale
    thing = [s._replace(points=s.points @ turn) for s in thing]
    return Scene(shapes + moved(thing, *shift, scale), horizon, floor)
