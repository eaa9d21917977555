"""How it is depicted: eleven ways of rendering any drawing, named and ordered as the style classes of BAM.

A style knows nothing of contents: it gets a `Drawing` (see `drawings.py`), turns it into a `Plan` of pixels and paints.
The first seven are media. The last four are moods: each recolours the drawing, renders it in one of several media and
lays light and weather over it, so that a mood is not simply a medium or a palette. Palettes, papers, line weights and
tools vary within each style; many of them occur in several styles, so that colour alone does not tell the style.

Pictures in here are float32 [S, S, 3], red, green, blue from 0 to 1, and masks float32 [S, S] from 0 to 1; `u` is the
unit that all lengths are counted in, S / 384 pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from drawings import Drawing, Rng, any_colour, hsv, pick

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


# --- from shapes to pixels ------------------------------------------------------------------------------------------


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


# --- palettes and papers: shared by all styles -----------------------------------------------------------------------


def grade(colours: np.ndarray, rng: Rng, kind: str) -> np.ndarray:
    """Another palette for float32 colours [..., 3]: muted, vivid, pastel, dark, one hue, two hues, warm, cool, natural."""
    tone = colours @ np.float32([0.3, 0.59, 0.11])
    grey = tone[..., None]
    if kind == "muted":
        colours = grey + (colours - grey) * rng.uniform(0.25, 0.55)
    elif kind == "vivid":
        colours = 0.5 + (grey + (colours - grey) * 1.6 - 0.5) * 1.15
    elif kind == "pastel":
        colours = 0.5 + 0.5 * (grey + (colours - grey) * rng.uniform(0.7, 1.1))
    elif kind == "dark":
        colours = colours ** rng.uniform(1.4, 2) * rng.uniform(0.6, 0.85)
    elif kind == "one hue":
        hue, full = rng.random(), rng.uniform(0.15, 0.6)
        dark, light = (
            np.float32(hsv(hue, full + 0.2, 0.18)),
            np.float32(hsv(hue + rng.uniform(-0.08, 0.08), full * 0.3, 1)),
        )
        colours = dark + (light - dark) * grey
    elif kind == "two hues":
        hue = rng.random()
        dark, light = np.float32(hsv(hue, 0.7, 0.35)), np.float32(hsv(hue + rng.uniform(0.3, 0.6), 0.55, 1))
        colours = mix(dark + (light - dark) * grey, colours, 0.25)
    elif kind == "warm":
        colours = colours * np.float32([1.08, 0.97, 0.75])
    elif kind == "cool":
        colours = colours * np.float32([0.78, 0.96, 1.1])
    return np.clip(colours, 0, 1).astype(np.float32)


def regraded(plan: Plan, rng: Rng, *kinds: str) -> Plan:
    """The plan with one of these palettes."""
    return plan._replace(colours=grade(plan.colours, rng, pick(rng, *kinds)))


ANY_PALETTE = ("natural", "natural", "muted", "muted", "vivid", "pastel", "dark", "one hue", "two hues", "warm", "cool")


def paper(rng: Rng, size: int, grain: float) -> tuple[Picture, Mask]:
    """Paper of some tint with its tooth: the picture of the empty sheet and the tooth (mean 0, spread 1)."""
    tint = pick(
        rng, (0.98, 0.98, 0.96), (0.98, 0.98, 0.96), (0.95, 0.91, 0.82), (0.93, 0.93, 0.93), (0.86, 0.78, 0.64),
        (0.8, 0.82, 0.84), (0.74, 0.66, 0.54), hsv(rng.random(), rng.uniform(0.08, 0.3), rng.uniform(0.75, 0.97)),
    )  # fmt: skip
    tooth = noise(rng, size, size / 3.2) * 0.7 + noise(rng, size, 40) * 0.3
    sheet = np.float32(tint) * (1 + grain * 0.02 * tooth + 0.012 * noise(rng, size, 4, 2))[..., None]
    return np.clip(sheet, 0, 1).astype(np.float32), tooth


def ink_colour(rng: Rng) -> np.ndarray:
    """Mostly black, else sepia, blue-black or another dark ink."""
    inks = ((0.05, 0.05, 0.07), (0.05, 0.05, 0.07), (0.25, 0.14, 0.08), (0.07, 0.1, 0.3), hsv(rng.random(), 0.7, 0.3))
    return np.float32(pick(rng, *inks))


def painted(plan: Plan, light: Mask | float = 1.0) -> Picture:
    """The plainest picture of a plan: each shape in its colour, times the light, the sky a little deeper on top."""
    size = len(plan.ids)
    down = np.linspace(0.84, 1.08, size, dtype=np.float32)[:, None]
    shading = np.where(plan.sky > 0, down, 1) * light
    return np.clip(plan.colours[plan.ids] * shading[..., None], 0, 1).astype(np.float32)


# --- seven media -----------------------------------------------------------------------------------------------------


def graphics_3d(plan: Plan, rng: Rng) -> Picture:
    """Rounded bodies under lamps: diffuse and specular light, a rim light, contact and cast shadows, blurred distance."""
    u, size = plan.unit, len(plan.ids)
    x, y, z = relief(plan, rng.uniform(14, 26))
    lamp = np.array(some_light(rng))
    lamp /= np.linalg.norm(lamp)
    if rng.random() < 0.4:  # a studio: clay or plastic in front of a seamless backdrop
        back = np.float32(any_colour(rng) if rng.random() < 0.6 else (rng.uniform(0.55, 0.9),) * 3)
        clay = rng.random() < 0.4
        colours = plan.colours * 0.25 + np.float32(any_colour(rng)) * 0.65 if clay else plan.colours
        down = np.linspace(0, 1, size, dtype=np.float32)
        ramp = 0.75 + 0.4 * np.exp(-(((down - plan.drawing.horizon) / 0.3) ** 2))
        scene = back * np.repeat(ramp[:, None, None], size, axis=1)
        plan = plan._replace(colours=np.clip(colours, 0, 1).astype(np.float32))
    else:
        scene = blur(painted(plan), rng.uniform(3, 7) * u)
        depth = blur(plan.depth[plan.ids] * (1 - plan.thing), 8 * u)
        scene = scene * (0.8 + 0.35 * depth[..., None])
    if plan.drawing.floor <= 1:
        scene = (
            scene * (1 - rng.uniform(0.45, 0.65) * cast_shadow(plan, rng, rng.uniform(3, 8), -lamp[0] * 1.2))[..., None]
        )
    scene = scene * (1 - 0.35 * blur(plan.thing, 9 * u))[..., None]
    base = blur(plan.colours[plan.areas], 0.8 * u)
    base = mix(base, plan.colours[plan.ids], plan.thin * 0.9)
    diffuse = np.clip(x * lamp[0] + y * lamp[1] + z * lamp[2], 0, 1)
    body = base * (0.28 + 0.85 * diffuse + 0.1 * (1 - y))[..., None]
    half = lamp + (0, 0, 1)
    half /= np.linalg.norm(half)
    gloss = np.where(plan.glossy[plan.areas], 1.0, rng.uniform(0.25, 0.8)).astype(np.float32)
    shine = np.clip(x * half[0] + y * half[1] + z * half[2], 0, 1) ** rng.uniform(18, 50) * gloss
    sky = np.clip(0.5 - y * 1.2, 0, 1) * (1 - z) * gloss  # the surroundings mirrored in slanting surfaces
    body = body + (0.75 * shine + 0.4 * sky)[..., None] + (0.3 * np.clip(-x * lamp[0], 0, 1) * (1 - z))[..., None]
    crease = blur(outline(plan.areas, 2 * u), 2 * u) * 0.45
    body = body * (1 - crease)[..., None]
    return np.clip(mix(scene, body, blur(plan.thing, 0.7 * u)), 0, 1)


def comic(plan: Plan, rng: Rng) -> Picture:
    """Heavy swelling outlines, flat colour in two steps of light, halftone dots, speed lines, sometimes a panel frame."""
    u, size = plan.unit, len(plan.ids)
    plan = shaky(plan, rng, 1.2, 5)
    light = lit(plan, some_light(rng), 24)
    black_and_white = rng.random() < 0.25
    kind = (
        "one hue" if black_and_white else pick(rng, "vivid", "vivid", "natural", "muted", "warm", "two hues", "pastel")
    )
    colours = grade(plan.colours, rng, kind)
    if black_and_white:
        colours = np.repeat(np.clip(luminance(colours) * 1.5 - 0.1, 0, 1)[:, None], 3, axis=1) ** 0.7
    flat = np.clip(np.round(colours * 5) / 5 + 0.06, 0, 1)[plan.areas].astype(np.float32)
    if rng.random() < 0.35:  # rays behind the object instead of a scene
        cx, cy = rng.uniform(0.3, 0.7, 2) * size
        y, xx = np.indices((size, size), dtype=np.float32)
        rays = np.sin(np.arctan2(y - cy, xx - cx) * int(rng.integers(9, 22))) > rng.uniform(-0.2, 0.6)
        a, b = (np.float32(any_colour(rng)) if not black_and_white else np.float32((k, k, k)) for k in (0.95, 0.75))
        flat = np.where((plan.thing > 0)[..., None], flat, np.where(rays[..., None], a, mix(a, b, 0.6)))
    pitch = rng.uniform(8, 13) * u
    y, xx = np.indices((size, size), dtype=np.float32) / pitch * np.pi
    a = np.radians(rng.uniform(15, 75))
    screen = (np.cos(xx * np.cos(a) + y * np.sin(a)) * np.cos(y * np.cos(a) - xx * np.sin(a)) + 1) / 2
    tone = np.where(
        plan.thing > 0,
        np.clip(1.0 - light, 0, 1) * 0.75,
        np.float32(rng.uniform(0.0, 0.35)) + 0.3 * (1 - luminance(flat)),
    )
    dots = np.clip((tone - (1 - screen)) * 9 + 0.5, 0, 1).astype(np.float32)
    flat = mix(flat, flat * (0.25 if black_and_white else 0.62), dots)
    weight = rng.uniform(2.6, 5.5) * u
    swell = 1 + 0.35 * noise(rng, size, 8)
    lines = outline(plan.areas, weight * 0.6) * np.clip(2 * blur(plan.thing, 2 * u), 0, 1)
    lines = np.maximum(lines, np.clip(outline((plan.thing > 0.5).astype(np.int16), weight * 1.35) * swell, 0, 1))
    lines = np.maximum(lines, outline(plan.areas, weight * 0.4) * 0.9)
    lines = np.maximum(lines, plan.thin)
    lines = np.maximum(lines, (light < 0.42) * plan.thing * rng.integers(0, 2))
    picture = mix(flat, ink_colour(rng) * 0.4, blur(lines.astype(np.float32), 0.5 * u))
    if rng.random() < 0.5:  # old newsprint
        picture = (
            picture
            * np.float32(pick(rng, (0.96, 0.91, 0.78), (0.9, 0.88, 0.84)))
            * (1 + 0.02 * noise(rng, size, 120))[..., None]
        )
    if rng.random() < 0.35:
        edge, bar = int(rng.uniform(8, 16) * u), int(rng.uniform(4, 7) * u)
        sheet = np.full_like(picture, 0.96)
        sheet[edge : size - edge, edge : size - edge] = 0.05
        inner = slice(edge + bar, size - edge - bar)
        sheet[inner, inner] = picture[inner, inner]
        picture = sheet
    return np.clip(picture, 0, 1)


def scribble(tone: Mask, rng: Rng, angle: float, count: int, length: float, width: int, spread: float = 0.12) -> Mask:
    """Many short parallel strokes, each as dark as `tone` (0 to 1) is where it is drawn: mask of the graphite laid."""
    size = len(tone)
    layer = np.zeros((size, size), np.float32)
    spots = rng.integers(0, size, (count, 2))
    angles = angle + rng.normal(0, spread, count)
    reach = length * rng.uniform(0.5, 1.2, count) / 2
    dx, dy = np.cos(angles) * reach, np.sin(angles) * reach
    dark = tone[spots[:, 1], spots[:, 0]] * rng.uniform(0.6, 1.1, count)
    ends = np.round(
        np.stack([spots[:, 0] - dx, spots[:, 1] - dy, spots[:, 0] + dx, spots[:, 1] + dy], axis=1) * 16
    ).astype(int)
    for (x0, y0, x1, y1), d in zip(ends[dark > 0.06].tolist(), dark[dark > 0.06].tolist(), strict=True):
        cv2.line(layer, (x0, y0), (x1, y1), d, width, cv2.LINE_8, shift=4)
    return layer


def pencil(plan: Plan, rng: Rng) -> Picture:
    """Graphite: searching contours drawn twice, hatching that follows the light, all of it caught in the paper's tooth."""
    u, size = plan.unit, len(plan.ids)
    sheet, tooth = paper(rng, size, 1.0)
    light = lit(plan, some_light(rng), 26)
    bright = luminance(painted(plan, light))
    tone = np.clip(1.1 - bright, 0, 1) ** rng.uniform(0.8, 1.3) * rng.uniform(0.9, 1.25)
    y, x = np.indices((size, size), dtype=np.float32) / size - 0.5
    vignette = np.clip(1.5 - rng.uniform(1.4, 2.6) * np.sqrt(x * x + y * y) + 0.25 * noise(rng, size, 5), 0, 1)
    tone = tone * np.where(plan.thing > 0, 1, vignette * rng.uniform(0.25, 0.8)).astype(np.float32)
    angle = rng.uniform(0.5, 1.0) * pick(rng, -1, 1)
    graphite = np.zeros((size, size), np.float32)
    for turn, amount, count in ((0, 0.65, 2600), (0.25, 0.6, 1700), (rng.uniform(0.7, 1.4), 0.45, 1200)):
        strokes = scribble(
            np.clip(tone - 0.12 * bool(turn), 0, 1),
            rng,
            angle + turn,
            count,
            rng.uniform(26, 48) * u,
            max(1, round(1.4 * u)),
        )
        graphite = 1 - (1 - graphite) * (1 - amount * strokes)
    if rng.random() < 0.6:  # smudged with a finger
        graphite = np.maximum(graphite, 0.5 * blur(graphite, 4 * u))
    hand = rng.uniform(1.2, 2.6)
    for _ in range(2):
        drawn = shaky(plan, rng, hand, 5)
        near = np.where(blur(drawn.thing, 1.5 * u) > 0.05, 1, 0.45 * vignette)
        press = np.clip(0.65 + 0.3 * noise(rng, size, 10), 0.15, 1) * near
        contour = np.maximum(outline(drawn.areas, rng.uniform(1.2, 2.6) * u), drawn.thin * 0.8)
        graphite = 1 - (1 - graphite) * (1 - 0.85 * blur(contour, 0.6 * u) * press)
    graphite = np.clip(graphite * (1 + 0.32 * tooth) - 0.03 * (tooth < -0.6), 0, 0.93)
    lead = np.float32(
        pick(rng, (0.2, 0.2, 0.22), (0.2, 0.2, 0.22), (0.14, 0.13, 0.13), (0.4, 0.2, 0.13), (0.16, 0.2, 0.32))
    )
    picture = mix(sheet, lead, graphite)
    if luminance(sheet).mean() < 0.85 and rng.random() < 0.7:  # white chalk where the light falls
        chalk = scribble(
            np.clip(light - 1.0, 0, 0.4) * 2.2 * plan.thing, rng, angle, 1500, 22 * u, max(1, round(1.6 * u))
        )
        picture = mix(picture, (0.97, 0.97, 0.94), np.clip(chalk * (0.8 - 0.35 * tooth), 0, 1))
    if rng.random() < 0.3:  # coloured pencils
        picture = picture * mix(np.ones_like(sheet), plan.colours[plan.ids], np.clip(0.7 * graphite + 0.2, 0, 0.8))
    return np.clip(picture, 0, 1)


def oil(plan: Plan, rng: Rng) -> Picture:
    """Thick brush strokes along the forms, coarse ones first, with bristle marks that catch the light."""
    u, size = plan.unit, len(plan.ids)
    plan = regraded(plan, rng, *ANY_PALETTE)
    view = painted(shaky(plan, rng, 1.5), blur(lit(plan, some_light(rng), 24), 2 * u))
    guide = luminance(blur(view, 3 * u))
    gx, gy = cv2.Sobel(guide, cv2.CV_32F, 1, 0), cv2.Sobel(guide, cv2.CV_32F, 0, 1)
    xx, yy, xy = (blur(m, 7 * u) for m in (gx * gx, gy * gy, gx * gy))
    drift = noise(rng, size, 4)
    flow = 0.5 * np.arctan2(2 * xy + 0.0006 * np.sin(drift), xx - yy + 0.0006 * np.cos(drift)) + np.pi / 2
    canvas = mix(blur(view, 10 * u), any_colour(rng), 0.25)
    height = noise(rng, size, size / 4) * 0.12
    wild, contrast = rng.uniform(0.012, 0.045), rng.uniform(0.6, 1.4)
    coarse = rng.uniform(0.8, 1.3)
    for width, long, count in ((22, 60, 420), (12, 34, 1000), (6, 20, 2200), (3.6, 13, 3400)):
        bristles = round(width / 3)
        colour_of = blur(view, width * u * 0.25)
        spots = rng.integers(0, size, (count, 2))
        if width < 20:  # fine strokes where there is something to see
            busy = blur(outline(plan.areas, 3 * u) + plan.thin, width * u)[spots[:, 1], spots[:, 0]]
            body = plan.thing[spots[:, 1], spots[:, 0]] * (0.3 if width > 4 else 0.12)
            spots = spots[busy + body > rng.uniform(0, 0.4 if width > 10 else 0.55, count)]
        n = len(spots)
        angle = flow[spots[:, 1], spots[:, 0]] + rng.normal(0, 0.18, n)
        colours = colour_of[spots[:, 1], spots[:, 0]] + rng.normal(0, wild, (n, 1)) + rng.normal(0, wild * 0.6, (n, 3))
        reach = long * coarse * u * rng.uniform(0.3, 0.6, n)
        along = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        across = np.stack([-along[:, 1], along[:, 0]], axis=1)
        gap = width * coarse * u / bristles
        for b in range(bristles):
            offset = (b - (bristles - 1) / 2) * gap
            middle = spots + across * offset
            start, end = (
                middle - along * (reach * rng.uniform(0.75, 1, n))[:, None],
                middle + along * (reach * rng.uniform(0.75, 1, n))[:, None],
            )
            ends = np.round(np.hstack([start, end]) * 16).astype(int).tolist()
            tint = (np.clip(colours + rng.normal(0, 0.022, (n, 1)), 0, 1)).tolist()
            bump = rng.uniform(0.2, 1.0, n).tolist()
            thick = max(1, round(gap * 1.5))
            for (x0, y0, x1, y1), c, k in zip(ends, tint, bump, strict=True):
                cv2.line(canvas, (x0, y0), (x1, y1), c, thick, shift=4)
                cv2.line(height, (x0, y0), (x1, y1), k, thick, shift=4)
    height = blur(height, 0.8 * u)
    slope = cv2.Sobel(height, cv2.CV_32F, 1, 0) * 0.5 + cv2.Sobel(height, cv2.CV_32F, 0, 1) * 0.8
    y, x = np.indices((size, size)) / (3.2 * u)
    weave = 0.018 * (np.sin(x * np.pi) * np.sin(y * np.pi)).astype(np.float32)
    shine = np.clip(slope * 0.09 * contrast, -0.16, 0.2) + weave
    return np.clip(canvas * (1 + shine[..., None]) + 0.35 * np.clip(shine, 0, 1)[..., None], 0, 1)


def pen_ink(plan: Plan, rng: Rng) -> Picture:
    """Black line, hatched and cross-hatched or stippled, solid blacks, no greys; sometimes a flat wash under it."""
    u, size = plan.unit, len(plan.ids)
    sheet, _ = paper(rng, size, 0.4)
    light = lit(plan, some_light(rng), 26)
    bright = luminance(painted(plan, light)) ** rng.uniform(0.7, 1.1)
    bright = np.where(plan.thing > 0, bright, 1 - (1 - bright) * rng.uniform(0.35, 1.0)).astype(np.float32)
    bright = blur(bright, 1.2 * u) + 0.05 * noise(rng, size, 12)
    plan = shaky(plan, rng, rng.uniform(0.8, 2.0), 7)
    ink = np.zeros((size, size), np.float32)
    if rng.random() < 0.2:  # stippling
        dots = rng.integers(0, size, (11000, 2))
        chosen = dots[np.clip(1 - bright[dots[:, 1], dots[:, 0]], 0, 1) ** 1.6 > rng.random(len(dots))]
        for x, y in chosen.tolist():
            cv2.circle(ink, (x, y), max(1, round(1.1 * u)), 1, -1)
    else:
        pitch, angle = rng.uniform(5.5, 9) * u, rng.uniform(0, np.pi)
        y, x = np.indices((size, size), dtype=np.float32)
        wave = noise(rng, size, 5) * 2.5 * u
        form = light * rng.uniform(0, 14) * u  # the lines bend with the form
        for turn, level in ((0, 0.72), (np.pi / 2 + rng.uniform(-0.4, 0.4), 0.5), (np.pi / 4, 0.33), (-np.pi / 4, 0.2)):
            a = angle + turn
            row = (x * np.cos(a) + y * np.sin(a) + wave + form) / pitch
            stripe = np.abs(row - np.round(row)) * pitch
            thick = np.clip((level - bright) * 2.2, 0, 1) * 0.9 * u + 0.35 * u
            ink = np.maximum(ink, np.clip(thick - stripe + 0.5, 0, 1) * (bright < level))
    if rng.random() < 0.7:
        ink = np.maximum(ink, (bright < rng.uniform(0.1, 0.2)).astype(np.float32))
    weight = rng.uniform(1.4, 3.2) * u
    press = np.clip(0.9 + 0.4 * noise(rng, size, 9), 0.35, 1.6)
    contour = np.clip(outline(plan.areas, weight) * press * 1.4 - 0.2, 0, 1)
    silhouette = outline((plan.thing > 0.5).astype(np.int16), weight * rng.uniform(1.2, 2.2))
    ink = np.clip(np.maximum.reduce([ink, contour, silhouette, plan.thin]), 0, 1)
    if rng.random() < 0.3:
        wash = mix(np.ones_like(sheet), grade(plan.colours, rng, "pastel")[plan.areas], rng.uniform(0.4, 0.9))
        sheet = sheet * (wash if rng.random() < 0.5 else mix(np.ones_like(wash), wash, blur(plan.thing, 3 * u)))
    return np.clip(mix(sheet, ink_colour(rng), blur(ink.astype(np.float32), 0.4 * u)), 0, 1)


def vector(plan: Plan, rng: Rng) -> Picture:
    """Flat areas with clean edges, few colours, long shadows, simple geometry behind; no texture at all."""
    u, size = plan.unit, len(plan.ids)
    plan = regraded(plan, rng, *ANY_PALETTE)
    levels = int(rng.integers(4, 7))
    colours = np.clip(np.round(plan.colours * levels) / levels, 0, 1).astype(np.float32)
    inside = plan.thing > 0.5
    y, x = np.indices((size, size), dtype=np.float32) / size
    backdrop = pick(rng, "scene", "scene", "disc", "stripes", "ramp")
    a, b = np.float32(any_colour(rng)), np.float32(any_colour(rng))
    if rng.random() < 0.5:
        a, b = grade(a, rng, "pastel"), grade(b, rng, "pastel")
    picture = colours[plan.areas]
    if backdrop != "scene":
        if backdrop == "disc":
            part = (x - 0.5) ** 2 + (y - 0.52) ** 2 < rng.uniform(0.3, 0.42) ** 2
        elif backdrop == "stripes":
            part = np.sin((x * rng.uniform(-1, 1) + y) * rng.uniform(15, 35)) > 0
            b = mix(a, b, 0.35)
        else:
            part = np.floor((x * rng.uniform(-0.5, 0.5) + y) * 5) / 5
        ground = mix(np.broadcast_to(a, picture.shape), b, np.clip(part, 0, 1).astype(np.float32))
        picture = np.where(inside[..., None], picture, ground)
    if rng.random() < 0.4:  # the long shadow of flat design
        shadow = inside.astype(np.uint8)
        step = 1
        while step < size // 2:
            shadow |= cv2.warpAffine(shadow, np.float32([[1, 0, step], [0, 1, step]]), (size, size))
            step *= 2
        picture = np.where(((shadow > 0) & ~inside)[..., None], picture * 0.8, picture)
    if rng.random() < 0.5:  # one half of everything a step darker
        half = lit(plan, some_light(rng), 30) < 0.92
        half = cv2.medianBlur(half.astype(np.uint8), 5) > 0
        picture = np.where((half & inside)[..., None], picture * 0.84, picture)
    thin = np.maximum(plan.thin * (plan.thing > 0), 0)
    picture = mix(picture, colours[plan.ids], thin)
    if rng.random() < 0.35:  # a sticker's rim
        rim = outline(inside.astype(np.int16), rng.uniform(6, 12) * u)
        picture = mix(picture, pick(rng, (1, 1, 1), tuple(ink_colour(rng))), rim * ~inside)
    elif rng.random() < 0.25:
        picture = mix(picture, ink_colour(rng), outline(plan.areas, rng.uniform(2, 3.5) * u) * inside)
    return np.clip(picture, 0, 1)


def watercolour(plan: Plan, rng: Rng) -> Picture:
    """Transparent washes that bleed on wet paper, dark rims where they dried, granulation, blooms and white gaps."""
    u, size = plan.unit, len(plan.ids)
    sheet, tooth = paper(rng, size, 1.4)
    plan = regraded(plan, rng, *ANY_PALETTE)
    light = lit(plan, some_light(rng), 22)
    pigment = np.zeros_like(sheet)
    for spread, amount in ((rng.uniform(6, 10), 0.2), (rng.uniform(1.2, 2.6), 0.65)):
        wet = shaky(plan, rng, spread, 7)
        wet = shaky(wet, rng, spread * 0.4, 26)
        view = painted(wet, 0.6 + 0.4 * blur(light, 3 * u))
        drunk = -np.log(np.clip(view, 0.06, 1))  # how much light the pigment keeps
        bleed = np.clip(0.5 + 0.6 * noise(rng, size, 4), 0, 1) * (1 - 0.6 * wet.thing)
        drunk = mix(blur(drunk, 0.9 * u), blur(drunk, rng.uniform(6, 10) * u), bleed * 0.6)
        rim = outline(wet.areas, 2.2 * u)
        drunk = drunk * (1 + 0.8 * blur(rim, 0.9 * u) * (1 - bleed))[..., None]
        gap = outline(wet.areas, 3.2 * u) * (noise(rng, size, 9) > 0.75)
        pigment += amount * drunk * (1 - 0.85 * blur(gap.astype(np.float32), 0.8 * u))[..., None]
    for _ in range(rng.integers(1, 4)):  # blooms: a drop that pushed the pigment outwards
        y, x = np.indices((size, size), dtype=np.float32)
        cx, cy, r = *(rng.uniform(0.1, 0.9, 2) * size), rng.uniform(25, 60) * u
        far = np.sqrt((x - cx) ** 2 + (y - cy) ** 2) / r + 0.16 * noise(rng, size, 14, 3)
        pigment *= (1 - 0.35 * np.clip(1 - far, 0, 0.6) + 0.22 * np.exp(-(((far - 1) / 0.06) ** 2)))[..., None]
    cloudy = 1 + 0.13 * noise(rng, size, 5, 3) + 0.09 * tooth * rng.uniform(0.5, 1.5)
    edge = np.minimum.reduce(
        [*(np.indices((size, size), dtype=np.float32)), *(size - 1 - np.indices((size, size), dtype=np.float32))]
    )
    margin = rng.uniform(0, 34) * u
    inside = np.clip((edge - margin - 9 * u * noise(rng, size, 7, 3)) / (3 * u), 0, 1) if rng.random() < 0.5 else 1
    far_rim = 1 + 0.6 * (np.exp(-(((inside - 0.6) / 0.3) ** 2)) if isinstance(inside, np.ndarray) else 0)
    density = np.clip(cloudy, 0.4, 1.8) * inside * far_rim * rng.uniform(0.7, 1.1)
    picture = sheet * np.exp(-pigment * density[..., None])
    for x, y in rng.integers(0, size, (rng.integers(0, 14), 2)).tolist():  # splashes
        spot = np.zeros((size, size), np.float32)
        cv2.circle(spot, (x, y), int(rng.uniform(1, 4) * u), 1, -1, cv2.LINE_AA)
        picture = picture * (1 - 0.4 * spot[..., None] * (1 - plan.colours[rng.integers(len(plan.colours))]))
    if rng.random() < 0.3:  # the pencil lines under it
        picture = mix(picture, (0.3, 0.3, 0.32), 0.4 * outline(shaky(plan, rng, 1.2).areas, 1.1 * u) * plan.thing)
    return np.clip(picture, 0, 1)


MEDIA: dict[str, Callable[[Plan, Rng], Picture]] = {
    "3D Graphics": graphics_3d,
    "Comic": comic,
    "Pencil Sketch": pencil,
    "Oil Paint": oil,
    "Pen Ink": pen_ink,
    "Vector Art": vector,
    "Water Color": watercolour,
}
