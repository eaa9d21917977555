"""How it is depicted: seven media that render any drawing, and the palettes and papers that they share.

A style knows nothing of contents: it gets a `Plan` (a drawing as pixels, see `plans.py`) and paints. Palettes, papers,
line weights and tools vary within each style, and most of them occur in several styles, so that colour alone does not
tell the style. Pictures are float32 [S, S, 3] from 0 to 1; `u` is the unit that lengths are counted in, S / 384 pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from standin.drawings import Rng, any_colour, hsv, pick
from standin.plans import (
    Mask,
    Picture,
    Plan,
    blur,
    cast_shadow,
    lit,
    luminance,
    mix,
    noise,
    outline,
    relief,
    shaky,
    some_light,
)  # fmt: skip

# --- palettes and papers: shared by all styles -----------------------------------------------------------------------


def grade(colours: np.ndarray, rng: Rng, kind: str) -> np.ndarray:
    """Another palette for float32 colours [..., 3]: muted, vivid, pastel, dark, one hue, ..."""
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


def reproduced(picture: Picture, rng: Rng) -> Picture:
    """The finished picture as a scan, photograph or screenshot of it would look: exposure, tint, saturation."""
    tone = luminance(picture)[..., None]
    picture = np.clip(tone + (picture - tone) * rng.uniform(0.7, 1.35), 0, 1) ** np.exp(rng.normal(0, 0.22))
    black, white = max(0, rng.uniform(-0.2, 0.16)), 1 - max(0, rng.uniform(-0.2, 0.2))
    tint = np.float32(hsv(rng.random(), rng.uniform(0, 0.12), 1))
    return np.clip((black + picture * (white - black)) * tint, 0, 1).astype(np.float32)


# --- seven media -----------------------------------------------------------------------------------------------------


def graphics_3d(plan: Plan, rng: Rng) -> Picture:
    """Rounded bodies under lamps: diffuse and specular light, a rim light, cast shadows, blurred distance."""
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
    """Heavy swelling outlines, flat colour in two steps of light, halftone dots, rays, sometimes a panel frame."""
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
    """Graphite: searching contours drawn twice, hatching that follows the light, all caught in the paper's tooth."""
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
    if rng.random() < 0.12:  # white pencil on dark paper
        sheet, lead = sheet * np.float32(hsv(rng.random(), 0.3, rng.uniform(0.2, 0.4))), np.float32((0.93, 0.93, 0.9))
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
    colour = ink_colour(rng)
    if rng.random() < 0.12:  # white ink on dark paper
        sheet, colour = (
            sheet * np.float32(hsv(rng.random(), 0.4, rng.uniform(0.15, 0.45))),
            np.float32((0.95, 0.95, 0.92)),
        )
    return np.clip(mix(sheet, colour, blur(ink.astype(np.float32), 0.4 * u)), 0, 1)


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
