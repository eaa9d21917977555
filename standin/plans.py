"""From a drawing's shapes to pixels, and the tools that every style paints with: noise, outlines, relief, light.

Pictures are float32 [S, S, 3], red, green, blue from 0 to 1, and masks float32 [S, S] from 0 to 1.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from standin.drawings import Drawing, Rng, pick

Picture = np.ndarray
Mask = np.ndarray


class Plan(NamedTuple):
    """A drawing as pixels, still without a style.

    areas: int16 [S, S], the index of the shape on top, thin lines left out; ids: the same with thin lines.
    colours: float32 [n, 3]; depth: float32 [n]; glossy: bool [n]; thin: mask of the thin lines; thing: mask of the
    object; unit: S / 384.
    """

    areas: np.ndarray
    ids: np.ndarray
    colours: np.ndarray
    depth: np.ndarray
    glossy: np.ndarray
    thin: Mask
    thing: Mask
    sky: Mask
    unit: float
    drawing: Drawing


def make_plan(drawing: Drawing, size: int) -> Plan:
    """Paint the indices of the drawing's shapes on a square of `size` pixels."""
    areas = np.zeros((size, size), np.int16)
    ids = np.zeros((size, size), np.int16)
    thin = np.zeros((size, size), np.uint8)
    solid = np.array([s.material not in ("sky", "land") for s in drawing.shapes])
    for index, shape in enumerate(drawing.shapes):
        points = [np.round(shape.points * size * 16).astype(np.int32)]
        if shape.width == 0:
            cv2.fillPoly(areas, points, index, shift=4)
            cv2.fillPoly(ids, points, index, shift=4)
            cv2.fillPoly(thin, points, 0, shift=4)
            continue
        width = max(1, round(shape.width * size))
        cv2.polylines(ids, points, False, index, width, shift=4)
        if shape.width > 0.011:
            cv2.polylines(areas, points, False, index, width, shift=4)
            cv2.polylines(thin, points, False, 0, width, shift=4)
        else:
            cv2.polylines(thin, points, False, 255, width, cv2.LINE_AA, shift=4)
    return Plan(
        areas,
        ids,
        np.array([s.colour for s in drawing.shapes], np.float32),
        np.array([s.depth for s in drawing.shapes], np.float32),
        np.array([s.material == "glossy" for s in drawing.shapes]),
        thin.astype(np.float32) / 255,
        solid[ids].astype(np.float32),
        np.array([s.material == "sky" for s in drawing.shapes])[ids].astype(np.float32),
        size / 384,
        drawing,
    )


def blur(image: np.ndarray, radius: float) -> np.ndarray:
    """Gaussian blur with the standard deviation `radius` in pixels; large ones at a quarter of the resolution."""
    if radius < 0.3:
        return image
    if radius < 8:
        return cv2.GaussianBlur(image, (0, 0), radius)
    small = cv2.resize(image, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    return cv2.resize(cv2.GaussianBlur(small, (0, 0), radius / 4), image.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def noise(rng: Rng, size: int, cells: float, octaves: int = 1) -> Mask:
    """Smooth noise of mean 0 and about unit spread, `cells` bumps across the picture, finer octaves half as strong."""
    total = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        n = int(min(size, max(2, cells * 2**octave))) + 2
        grid = rng.standard_normal((n, n), dtype=np.float32)
        total += cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC) * 0.6**octave
    return total


def warp(image: np.ndarray, dx: Mask, dy: Mask) -> np.ndarray:
    """The image with each pixel fetched from (dx, dy) pixels away; indices are never mixed."""
    y, x = np.indices(image.shape[:2], dtype=np.float32)
    how = cv2.INTER_NEAREST if image.dtype == np.int16 else cv2.INTER_LINEAR
    return cv2.remap(image, x + dx, y + dy, how, borderMode=cv2.BORDER_REFLECT)


def shaky(plan: Plan, rng: Rng, amount: float, cells: float = 6) -> Plan:
    """The plan as an unsteady hand would draw it: everything shifted by up to about `amount` units."""
    size = len(plan.ids)
    dx, dy = (noise(rng, size, cells, 2) * amount * plan.unit for _ in range(2))
    maps = {name: warp(getattr(plan, name), dx, dy) for name in ("areas", "ids", "thin", "thing", "sky")}
    return plan._replace(**maps)


def outline(ids: np.ndarray, width: float) -> Mask:
    """Lines of `width` pixels along the borders between indices."""
    edge = np.zeros(ids.shape, np.uint8)
    edge[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    edge[1:] |= ids[1:] != ids[:-1]
    far = cv2.distanceTransform(1 - edge, cv2.DIST_L2, 3)
    return np.clip(width / 2 + 0.5 - far, 0, 1)


def relief(plan: Plan, bulge: float = 16) -> tuple[Mask, Mask, Mask]:
    """Unit normals (x right, y down, z to the viewer) as if each part of the object were blown up like a cushion."""
    edge = np.zeros(plan.areas.shape, np.uint8)
    edge[:, 1:] |= plan.areas[:, 1:] != plan.areas[:, :-1]
    edge[1:] |= plan.areas[1:] != plan.areas[:-1]
    height = np.zeros(edge.shape, np.float32)
    # Small cushions for the parts on one large cushion for the whole, so that bodies are round and not only bevelled.
    for area, radius, share in (
        (1 - edge, bulge * plan.unit, 0.5),
        ((plan.thing > 0).astype(np.uint8), 48 * plan.unit, 0.75),
    ):
        inside = np.minimum(cv2.distanceTransform(area, cv2.DIST_L2, 5), radius)
        height += share * np.sqrt(np.maximum(radius**2 - (radius - inside) ** 2, 0))
    height = blur(height * plan.thing, 3 * plan.unit)
    x, y = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=-1 / 8), cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=-1 / 8)
    length = np.sqrt(x * x + y * y + 1)
    return x / length, y / length, 1 / length


def lit(plan: Plan, light: tuple[float, float, float], bulge: float = 16) -> Mask:
    """How much light each pixel gets: 1 where it faces the viewer in the background, about 0.3 to 1.3 on the object."""
    x, y, z = relief(plan, bulge)
    u, v, w = np.array(light) / np.linalg.norm(light)
    return np.where(plan.thing > 0, 0.35 + 0.95 * np.clip(x * u + y * v + z * w, 0, 1), 1).astype(np.float32)


def some_light(rng: Rng) -> tuple[float, float, float]:
    """Light from above, from the left or the right."""
    return (float(pick(rng, -1, 1) * rng.uniform(0.3, 1)), float(rng.uniform(-1.1, -0.5)), float(rng.uniform(0.6, 1)))


def cast_shadow(plan: Plan, rng: Rng, soft: float, lean: float) -> Mask:
    """The object's shadow on the ground below it (1 = darkest), falling sideways by `lean`."""
    size, floor = len(plan.ids), min(plan.drawing.floor, 0.98)
    flat = rng.uniform(0.15, 0.3)
    matrix = np.float32([[1, lean, -lean * floor * size], [0, flat, floor * size * (1 - flat)]])
    shadow = blur(cv2.warpAffine(plan.thing, matrix, (size, size)), soft * plan.unit)
    return shadow * (1 - plan.thing)


def luminance(picture: Picture) -> Mask:
    """Brightness of a picture from 0 to 1."""
    return picture @ np.float32([0.3, 0.59, 0.11])


def mix(a: Picture, b, amount) -> Picture:
    """Blend from a (amount 0) to b (amount 1); the amount may be a mask, b a picture or one colour."""
    if isinstance(amount, np.ndarray) and amount.ndim == 2:
        amount = amount[..., None]
    return (a + (np.asarray(b, np.float32) - a) * np.float32(amount)).astype(np.float32)
