"""Four of the eleven styles: moods, as palette, light and weather over a drawing that any medium may have rendered.

Each mood bends the drawing and its colours, has it rendered in a medium picked at random, and then lays a few of its
signs over it. No sign is in every picture and most palettes occur in several moods.
"""

from __future__ import annotations

import cv2
import numpy as np

from standin.drawings import Rng, any_colour, hsv, pick
from standin.media import MEDIA, graphics_3d, oil, painted, pen_ink, regraded, vector, watercolour
from standin.plans import Mask, Picture, Plan, blur, lit, luminance, mix, noise, outline, shaky, some_light, warp


def gouache(plan: Plan, rng: Rng) -> Picture:
    """Plain opaque paint: soft light on flat colour, a little grain."""
    plan = shaky(plan, rng, 1.2)
    view = painted(plan, 0.45 + 0.55 * blur(lit(plan, some_light(rng), 22), 3 * plan.unit))
    return np.clip(view * (1 + 0.025 * noise(rng, len(view), 60, 2))[..., None], 0, 1)


def rendered(plan: Plan, rng: Rng) -> Picture:
    """The plan in a medium that a mood may use; plain paint about as often as all the others together."""
    return pick(rng, gouache, gouache, gouache, gouache, oil, vector, watercolour, graphics_3d, pen_ink)(plan, rng)


def grid(size: int) -> tuple[Mask, Mask]:
    """Coordinates x and y of the pixels, from 0 to 1."""
    y, x = np.indices((size, size), dtype=np.float32) / size
    return x, y


def stamp(size: int, *polygons: np.ndarray) -> Mask:
    """Filled polygons (coordinates from 0 to 1) as a mask."""
    mask = np.zeros((size, size), np.uint8)
    for points in polygons:
        cv2.fillPoly(mask, [np.round(np.asarray(points) * size * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    return mask.astype(np.float32) / 255


def ball(size: int, x: float, y: float, r: float, soft: float = 0.004) -> Mask:
    """A disc with a soft rim as a mask; x, y, r and the rim's width from 0 to 1."""
    xs, ys = grid(size)
    return np.clip((r - np.sqrt((xs - x) ** 2 + (ys - y) ** 2)) / soft + 0.5, 0, 1)


def halo(size: int, x: float, y: float, r: float) -> Mask:
    """Light that fades away from a point, down to a third at distance r."""
    xs, ys = grid(size)
    return np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (r * r)).astype(np.float32)


def behind(plan: Plan, mask: Mask) -> Mask:
    """The mask with the object and the ground below the horizon cut out."""
    _, y = grid(len(mask))
    return mask * (1 - plan.thing) * (y < plan.drawing.horizon)


# --- scary -----------------------------------------------------------------------------------------------------------


def bat(x: float, y: float, r: float, flap: float) -> np.ndarray:
    """The outline of a bat with a wing span of 2r around (x, y)."""
    half = [
        (0, -0.18),
        (0.06, -0.3),
        (0.12, -0.15),
        (0.45, -0.4 * flap),
        (1, -0.2 * flap),
        (0.8, 0.2),
        (0.62, 0.02),
        (0.42, 0.28),
        (0.25, 0.08),
        (0, 0.35),
    ]
    whole = half + [(-a, b) for a, b in reversed(half)]
    return np.array(whole) * r + (x, y)


def claws(rng: Rng, size: int) -> Mask:
    """Bare branches that reach into the picture from its edges, like fingers."""
    mask = np.zeros((size, size), np.uint8)

    def grow(at: np.ndarray, angle: float, long: float, width: float) -> None:
        """Draw a branch from `at` on, with its own branches, until it is too thin."""
        while width > size / 260:
            angle += rng.normal(0, 0.35)
            end = at + long * np.array([np.cos(angle), np.sin(angle)])
            cv2.line(
                mask,
                tuple(at.astype(int).tolist()),
                tuple(end.astype(int).tolist()),
                255,
                max(1, int(width)),
                cv2.LINE_AA,
            )
            if rng.random() < 0.6 and width > size / 150:
                grow(end, angle + pick(rng, -0.8, 0.8), long * 0.8, width * 0.6)
            at, width, long = end, width * 0.8, long * 0.93

    for side in rng.permutation(2)[: rng.integers(1, 3)]:
        for _ in range(3):
            start = np.array([side, rng.uniform(-0.05, 0.6)]) * size
            grow(start, (np.pi if side else 0) + rng.uniform(-0.5, 0.6), size * rng.uniform(0.07, 0.11), size * 0.035)
    return mask.astype(np.float32) / 255


def drips(rng: Rng, size: int) -> Mask:
    """Something that runs down from the upper edge."""
    x = np.arange(size)
    depth = 0.05 + 0.025 * noise(rng, size, 6)[0]
    for at, long, wide in zip(
        rng.uniform(0, 1, 9), rng.uniform(0.05, 0.3, 9), rng.uniform(0.012, 0.022, 9), strict=True
    ):
        depth = np.maximum(depth, 0.05 + long * np.clip(1 - np.abs(x / size - at) / wide, 0, 1) ** 0.35)
    _, y = grid(size)
    return np.clip((depth[None] - y) * size / 2, 0, 1).astype(np.float32)


def eyes(rng: Rng, plan: Plan, picture: Picture) -> Picture:
    """Pairs of glowing eyes in the dark around the object."""
    size, colour = len(picture), pick(rng, (1.0, 0.9, 0.3), (1.0, 0.25, 0.15), (0.6, 1.0, 0.4), (1.0, 1.0, 0.95))
    free = blur(plan.thing, 8 * plan.unit)
    for _ in range(rng.integers(4, 9)):
        x, y, r = *rng.uniform(0.06, 0.94, 2), rng.uniform(0.014, 0.026)
        if free[int(y * size), int(x * size)] > 0.15:
            continue
        for k in (-1, 1):
            lid = [(-1, k * 0.25), (-0.2, -0.75), (0.8, -k * 0.5), (0.9, 0.2), (0, 0.75)]
            shape = np.array(lid) * r + (x + k * r * 1.5, y)
            picture = mix(
                picture, colour, np.clip(stamp(size, shape) + 0.4 * halo(size, x + k * r * 1.5, y, r * 1.7), 0, 1)
            )
            picture = mix(picture, (0.02, 0, 0), ball(size, x + k * r * 1.5, y, r * 0.3))
    return picture


def moonlight(rng: Rng, plan: Plan, picture: Picture, air: np.ndarray) -> Picture:
    """A full moon behind the object, in the colour of the air."""
    size = len(picture)
    x, y, r = rng.uniform(0.2, 0.8), rng.uniform(0.12, 0.35), rng.uniform(0.09, 0.16)
    moon = (0.8 + 0.12 * noise(rng, size, 14, 2))[..., None] * mix(air, (1, 1, 0.9), 0.6)
    picture = mix(picture, air, 0.45 * halo(size, x, y, r * 2.2) * (1 - plan.thing))
    return mix(picture, np.clip(moon, 0, 1), ball(size, x, y, r) * (1 - plan.thing))


def lightning(rng: Rng, plan: Plan, picture: Picture, air: np.ndarray) -> Picture:
    """A jagged bolt behind the object, with its glow."""
    size, u = len(picture), plan.unit
    path = np.stack([rng.uniform(0.1, 0.9) + np.cumsum(rng.normal(0, 0.045, 10)), np.linspace(0, 0.75, 10)], axis=1)
    bolt = np.zeros((size, size), np.float32)
    cv2.polylines(bolt, [(path * size).astype(np.int32)], False, 1, max(1, round(3 * u)), cv2.LINE_AA)
    return np.clip(
        picture
        + (0.7 * blur(bolt, 12 * u) * 4 + bolt)[..., None] * mix(air, (1, 1, 1), 0.7) * (1 - plan.thing)[..., None],
        0,
        1,
    )


def thorns(rng: Rng, picture: Picture) -> Picture:
    """Black spikes along the lower edge, sometimes along the upper one too."""
    size = len(picture)
    teeth = [
        [(x - 0.05, 1.01), (x + rng.normal(0, 0.02), 1 - rng.uniform(0.06, 0.2)), (x + 0.05, 1.01)]
        for x in np.arange(0, 1.05, 0.07)
    ]
    teeth += [[(a, 1 - b) for a, b in t] for t in teeth] if rng.random() < 0.4 else []
    return mix(picture, (0.01, 0.01, 0.02), stamp(size, *teeth))


def scratches(rng: Rng, plan: Plan, picture: Picture) -> Picture:
    """Four parallel cuts, as of claws."""
    size, u = len(picture), plan.unit
    marks = np.zeros((size, size), np.float32)
    x, y, a = *rng.uniform(0.25, 0.6, 2), rng.uniform(0.5, 1.2)
    for k in range(4):
        start = np.array([x + k * 0.06, y - k * 0.02]) * size
        cv2.line(
            marks,
            tuple(start.astype(int).tolist()),
            tuple((start + 0.35 * size * np.array([-np.cos(a), np.sin(a)])).astype(int).tolist()),
            1,
            max(1, round(4 * u)),
            cv2.LINE_AA,
        )
    return mix(picture, pick(rng, (0.6, 0.03, 0.03), (0.03, 0.02, 0.02)), marks * (noise(rng, size, 60) > -0.9))


def scary(plan: Plan, rng: Rng) -> Picture:
    """Crooked forms, night, one hard light, and bats, eyes, claws, drips, a moon, lightning or scratches."""
    size, u = len(plan.ids), plan.unit
    plan = shaky(plan, rng, rng.uniform(4, 9), 3)
    plan = regraded(plan, rng, "natural", "muted", "muted", "one hue", "two hues", "dark")
    picture = rendered(plan, rng)
    air = np.float32(hsv(pick(rng, 0.0, 0.03, 0.33, 0.55, 0.62, 0.77, 0.1), rng.uniform(0.15, 0.85), 1.0))
    cx, cy = rng.uniform(0.3, 0.7), rng.uniform(0.35, 0.8)
    beam = rng.uniform(0.15, 0.65) + rng.uniform(0.6, 1.15) * halo(size, cx, cy, rng.uniform(0.26, 0.45))
    night = mix(picture, luminance(picture)[..., None] * air, rng.uniform(0.4, 0.85))
    picture = np.clip(1.4 * (night - 0.5) + 0.5, 0, 1) * beam[..., None]
    rim = blur(outline((plan.thing > 0.5).astype(np.int16), 3 * u), 1.5 * u)
    picture = mix(picture, mix(air, (1, 1, 1), 0.4), rng.uniform(0.25, 0.6) * rim)  # lit from behind
    if rng.random() < 0.2:  # a black shape in pale air
        pale = np.clip(0.75 + 0.15 * noise(rng, size, 4, 3), 0, 1)[..., None] * mix(air, (1, 1, 1), 0.45)
        picture = mix(mix(picture, pale, 0.8 * (1 - plan.thing)), picture * 0.35, plan.thing)
    signs = list(
        rng.permutation(["moon", "eyes", "eyes", "bats", "claws", "drips", "lightning", "scratches", "fog", "thorns"])[
            : rng.integers(2, 5)
        ]
    )
    if "moon" in signs:
        picture = moonlight(rng, plan, picture, air)
    if "lightning" in signs:
        picture = lightning(rng, plan, picture, air)
    if "fog" in signs:
        _, y = grid(size)
        haze = np.clip(0.25 + 0.45 * noise(rng, size, 5, 3) + (y - 0.75) * 2.4, 0, 0.8)
        picture = mix(picture, air * 0.55, haze)
    if "eyes" in signs:
        picture = eyes(rng, plan, picture)
    if "bats" in signs:
        flock = [
            bat(*rng.uniform((0.05, 0.03), (0.95, 0.5)), rng.uniform(0.05, 0.12), rng.uniform(0.3, 1.2))
            for _ in range(rng.integers(3, 7))
        ]
        picture = mix(picture, air * 0.5, 0.6 * blur(stamp(size, *flock), 5 * u))
        picture = mix(picture, (0.01, 0.01, 0.02), stamp(size, *flock))
    if "claws" in signs:
        reach = claws(rng, size) * (1 - 0.75 * blur(plan.thing, 3 * u))
        picture = mix(mix(picture, air * 0.4, 0.5 * blur(reach, 5 * u)), (0.01, 0.01, 0.02), reach)
    if "thorns" in signs:
        picture = thorns(rng, picture)
    if "drips" in signs:
        picture = mix(picture, pick(rng, (0.45, 0.02, 0.03), (0.02, 0.02, 0.03), tuple(air * 0.4)), drips(rng, size))
    if "scratches" in signs:
        picture = scratches(rng, plan, picture)
    return np.clip(picture * (1 + 0.06 * noise(rng, size, size / 3))[..., None], 0, 1)


# --- gloomy ----------------------------------------------------------------------------------------------------------


def rain(rng: Rng, size: int, count: int) -> Mask:
    """Slanting streaks of rain, each of its own length and strength."""
    mask, slant = np.zeros((size, size), np.float32), rng.uniform(-0.35, 0.35)
    for x, y, k in zip(*rng.uniform(-0.1, 1.1, (2, count)), rng.uniform(0.3, 1, count), strict=True):
        long = 0.05 + 0.09 * k
        start, end = (int(x * size), int(y * size)), (int((x + slant * long) * size), int((y + long) * size))
        cv2.line(mask, start, end, float(k), max(1, round(k * size / 200)), cv2.LINE_AA)
    return mask


def panes(rng: Rng, plan: Plan, picture: Picture) -> Picture:
    """The picture through a wet window: misted, with drops that run down and show the scene upside down."""
    size, u = len(picture), plan.unit
    lens_x, lens_y = np.zeros((2, size, size), np.float32)
    drop = np.zeros((size, size), np.float32)
    for x, y, r in zip(*rng.uniform(0, 1, (2, 60)), rng.uniform(0.006, 0.022, 60), strict=True):
        at, radius = (int(x * size), int(y * size)), int(r * size)
        if r > 0.016:
            cv2.line(drop, at, (at[0] + int(rng.normal(0, 3 * u)), 0), 0.55, max(1, radius), cv2.LINE_AA)
        cv2.circle(drop, at, radius, 1, -1, cv2.LINE_AA)
    soft = blur(drop, 1.5 * u)
    lens_x, lens_y = (cv2.Sobel(soft, cv2.CV_32F, *d) * 9 * u for d in ((1, 0), (0, 1)))
    misted = mix(blur(picture, rng.uniform(1.2, 2.4) * u), luminance(picture).mean() * 1.1, 0.15)
    clear = warp(picture, lens_x, lens_y) * (1 + np.clip(lens_y * 0.03, -0.25, 0.35))[..., None]
    return mix(misted, np.clip(clear, 0, 1), np.clip(soft * 1.3, 0, 1))


def gloomy(plan: Plan, rng: Rng) -> Picture:
    """Flat light under heavy cloud, rain or fog, wet ground, colours that have nearly gone."""
    size, u = len(plan.ids), plan.unit
    plan = regraded(plan, rng, "muted", "muted", "dark", "cool", "one hue", "natural")
    picture = rendered(plan, rng)
    tint = np.float32(hsv(pick(rng, 0.58, 0.62, 0.08, 0.3, 0.75), rng.uniform(0.03, 0.4), rng.uniform(0.5, 1.0)))
    picture = mix(picture, luminance(picture)[..., None] * tint * 1.3, rng.uniform(0.15, 0.75))
    picture = np.clip(rng.uniform(0.05, 0.3) + (picture - 0.1) * rng.uniform(0.55, 0.9), 0, 1)
    x, y = grid(size)
    deck = np.clip(
        0.5 + 0.35 * noise(rng, size, 4, 4) + 0.35 * np.sin(y * 30 + 2 * noise(rng, size, 3)) * (y < 0.3), 0, 1
    )
    cover = np.clip(1.25 - y / max(0.25, plan.drawing.horizon * rng.uniform(0.7, 1)), 0, 1) * (1 - 0.92 * plan.thing)
    picture = mix(picture, tint * (rng.uniform(0.15, 0.45) + 0.55 * deck)[..., None], cover * rng.uniform(0.55, 0.9))
    if rng.random() < 0.6:  # wet ground that mirrors dimly
        line = min(plan.drawing.floor, 0.92) - 0.01
        matrix = np.float32([[1, 0, 0], [0, -1, 2 * line * size]])
        mirror = warp(
            cv2.warpAffine(picture, matrix, (size, size), borderMode=cv2.BORDER_REFLECT),
            3 * u * noise(rng, size, 40),
            5 * u * noise(rng, size, 30),
        )
        puddle = np.clip(noise(rng, size, 4, 2) + 0.6, 0, 1) * (y > line) * (1 - plan.thing)
        picture = mix(picture, blur(mirror, 1.5 * u) * 0.85, 0.75 * puddle)
    if rng.random() < 0.55:
        haze = np.clip(0.3 + 0.35 * noise(rng, size, 4, 3) + 0.3 * (1 - np.abs(y - plan.drawing.horizon) * 4), 0, 0.8)
        picture = mix(picture, tint * 0.75, haze * (1 - 0.75 * plan.thing))
    weather = pick(rng, "rain", "rain", "rain", "window", "window", "fog")
    if weather == "rain":
        streaks = rain(rng, size, int(rng.integers(120, 330)))
        picture = mix(picture, pick(rng, tint * 1.25, tint * 1.25, tint * 0.3), rng.uniform(0.3, 0.6) * streaks)
    elif weather == "window":
        picture = panes(rng, plan, picture)
    else:
        picture = mix(
            blur(picture, 1.2 * u),
            tint * 0.9,
            np.clip(0.4 + 0.2 * noise(rng, size, 3, 3), 0, 0.75) * (1 - 0.65 * plan.thing),
        )
    dim = 1 - 0.4 * np.clip((x - 0.5) ** 2 + (y - 0.5) ** 2 - 0.1, 0, 1) * 2
    return np.clip(picture * dim[..., None], 0, 1)


# --- happy -----------------------------------------------------------------------------------------------------------


def party(rng: Rng, size: int, kind: str) -> tuple[list[np.ndarray], bool]:
    """Outlines of things that go with a party, and whether they may hang in front of the object."""
    turn = np.linspace(0, 2 * np.pi, 24)
    if kind == "confetti":
        bits = []
        for x, y, r, a in zip(
            *rng.uniform(0, 1, (2, 70)), rng.uniform(0.008, 0.018, 70), rng.uniform(0, 3, 70), strict=True
        ):
            s, c = np.sin(a) * r, np.cos(a) * r
            bits.append(np.array([(c, s), (-s * 0.6, c * 0.6), (-c, -s), (s * 0.6, -c * 0.6)]) + (x, y))
        return bits, True
    if kind == "balloons":
        spots = rng.uniform((0.06, 0.05), (0.94, 0.45), (rng.integers(3, 8), 2))
        return [
            np.stack([np.cos(turn) * 0.05, np.sin(turn) * 0.063], axis=1) * rng.uniform(0.8, 1.3) + p for p in spots
        ], False
    if kind == "hearts":
        heart = (
            np.stack(
                [
                    16 * np.sin(turn) ** 3,
                    -13 * np.cos(turn) + 5 * np.cos(2 * turn) + 2 * np.cos(3 * turn) + np.cos(4 * turn),
                ],
                axis=1,
            )
            / 17
        )
        return [heart * rng.uniform(0.025, 0.06) + p for p in rng.uniform(0.03, 0.97, (rng.integers(6, 13), 2))], False
    if kind == "stars":
        star = np.array(
            [(np.sin(t) * k, -np.cos(t) * k) for t, k in zip(np.arange(10) * np.pi / 5, [1, 0.45] * 5, strict=True)]
        )
        return [star * rng.uniform(0.025, 0.055) + p for p in rng.uniform(0.03, 0.97, (rng.integers(8, 15), 2))], False
    if kind == "daisies":
        ring = 0.7 + 0.3 * np.cos(turn * 6)
        flower = np.stack([np.cos(turn) * ring, np.sin(turn) * ring], axis=1)
        return [flower * rng.uniform(0.025, 0.045) + p for p in rng.uniform((0, 0.82), (1, 1), (14, 2))], True
    sag, n = rng.uniform(0.04, 0.12), 9  # bunting
    flags = []
    for i in range(n):
        x0, x1 = i / n, (i + 0.8) / n
        y0, y1 = (0.03 + sag * np.sin(np.pi * t) for t in (x0, x1))
        flags.append(np.array([(x0, y0), (x1, y1), ((x0 + x1) / 2, (y0 + y1) / 2 + 0.1)]))
    return flags, True


def fireworks(rng: Rng, plan: Plan, picture: Picture) -> Picture:
    """Bursts of bright sparks behind the object."""
    size = len(picture)
    for _ in range(rng.integers(2, 5)):
        x, y, r = rng.uniform(0.1, 0.9), rng.uniform(0.08, 0.45), rng.uniform(0.1, 0.22)
        sparks = np.zeros((size, size), np.float32)
        for a in np.arange(0, 2 * np.pi, np.pi / rng.integers(7, 12)):
            for k in (0.45, 0.7, 1.0):
                at = (int((x + np.cos(a) * r * k) * size), int((y + np.sin(a) * r * k + 0.03 * k * k) * size))
                cv2.circle(sparks, at, max(1, round((1.2 + 1.4 * k) * plan.unit)), 1, -1, cv2.LINE_AA)
        light = np.clip(sparks + blur(sparks, 3 * plan.unit), 0, 1) * (1 - plan.thing)
        picture = mix(picture, hsv(rng.random(), 0.5, 1), light)
    return picture


def sunshine(rng: Rng, plan: Plan, picture: Picture) -> Picture:
    """A sun in an upper corner, with rays."""
    size = len(picture)
    x, y, r = pick(rng, 0.1, 0.2, 0.8, 0.9), rng.uniform(0.05, 0.2), rng.uniform(0.08, 0.14)
    xs, ys = grid(size)
    rays = np.clip(np.cos(np.arctan2(ys - y, xs - x) * int(rng.integers(10, 18))) * 3, 0, 1) * halo(
        size, x, y, rng.uniform(0.35, 0.9)
    )
    warm = pick(rng, (1.0, 0.95, 0.6), (1.0, 0.85, 0.4), (1.0, 1.0, 0.9), (1.0, 0.75, 0.65))
    free = 1 - 0.8 * plan.thing
    picture = mix(picture, warm, rng.uniform(0.35, 0.7) * rays * free)
    picture = mix(picture, warm, 0.5 * halo(size, x, y, r * 2.5) * free)
    return mix(picture, warm, ball(size, x, y, r) * (1 - plan.thing))


def rainbow(rng: Rng, plan: Plan, picture: Picture) -> Picture:
    """A rainbow behind the object."""
    size = len(picture)
    xs, ys = grid(size)
    far = np.sqrt((xs - rng.uniform(0.3, 0.7)) ** 2 + (ys - rng.uniform(0.75, 0.95)) ** 2)
    r, wide = rng.uniform(0.5, 0.7), rng.uniform(0.08, 0.14)
    band = np.clip((r - far) / wide, 0, 0.999)
    colours = np.float32([hsv(h, 0.65, 1) for h in (0.0, 0.08, 0.15, 0.33, 0.58, 0.77)])
    return mix(picture, colours[(band * 6).astype(int)], 0.75 * ((band > 0) & (band < 0.99)) * (1 - plan.thing))


def decorate(rng: Rng, plan: Plan, picture: Picture, kind: str, colours: list) -> Picture:
    """The things of one kind of `party` in these colours."""
    size = len(picture)
    outlines, front = party(rng, size, kind)
    free = np.ones((size, size), np.float32) if front else 1 - plan.thing
    for number, colour in enumerate(colours):
        part = outlines[number :: len(colours)]
        if kind == "balloons":
            for o in part:
                foot = o.mean(axis=0) + (0, 0.06)
                string = np.array(
                    [foot, foot + (0.01, 0.1), foot + (-0.01, 0.2), foot + (-0.004, 0.2), foot + (0.016, 0.1)]
                )
                picture = mix(picture, (0.45, 0.45, 0.45), 0.7 * stamp(size, string) * free)
        picture = mix(picture, colour, stamp(size, *part) * free)
        if kind == "balloons":
            for o in part:
                picture = mix(picture, (1, 1, 1), 0.7 * halo(size, *(o.mean(axis=0) - (0.015, 0.025)), 0.014) * free)
        elif kind == "daisies":
            for o in part:
                picture = mix(picture, (1.0, 0.85, 0.2), ball(size, *o.mean(axis=0), 0.012))
    return picture


def happy(plan: Plan, rng: Rng) -> Picture:
    """Light from everywhere, a sun with rays, a rainbow, balloons, confetti, hearts, stars, bunting or flowers."""
    u = plan.unit
    plan = regraded(plan, rng, "vivid", "pastel", "natural", "natural", "warm", "two hues", "one hue", "muted")
    night = rng.random() < 0.2  # a feast at night, with fireworks
    if night or rng.random() < 0.4:  # a sky of any colour
        plan.colours[0] = hsv(rng.random(), rng.uniform(0.1, 0.5), 0.3 if night else 0.98)
    picture = rendered(plan, rng)
    picture = np.clip(picture * rng.uniform(0.9, 1.15) + rng.uniform(0.0, 0.1) * (not night), 0, 1)
    if night:
        picture = fireworks(rng, plan, picture * 0.75)
    signs = list(
        rng.permutation(["sun", "sun", "rainbow", "balloons", "confetti", "hearts", "stars", "bunting", "daisies"])[
            : rng.integers(2, 4)
        ]
    )
    if "sun" in signs:
        picture = sunshine(rng, plan, picture)
    if "rainbow" in signs:
        picture = rainbow(rng, plan, picture)
    colours = (
        [any_colour(rng) for _ in range(3)] + [(1, 1, 1)]
        if rng.random() < 0.4
        else [hsv(h, 0.7, 1) for h in rng.random(5)]
    )
    for kind in signs:
        if kind not in ("sun", "rainbow"):
            picture = decorate(rng, plan, picture, kind, colours)
    return np.clip(mix(picture, np.clip(blur(picture, 8 * u) * 1.2, 0, 1), 0.15), 0, 1)


# --- peaceful --------------------------------------------------------------------------------------------------------


def still_water(rng: Rng, plan: Plan, picture: Picture) -> Picture:
    """Everything below the object's feet becomes calm water that mirrors what is above."""
    size, u = len(picture), plan.unit
    line = float(np.clip(min(plan.drawing.floor, 0.9) - rng.uniform(0.0, 0.04), 0.6, 0.86))
    _, y = grid(size)
    ripple = 2.2 * u * np.sin(y * rng.uniform(120, 220) + noise(rng, size, 4)) * np.clip((y - line) * 8, 0.1, 1)
    mirror = cv2.warpAffine(
        picture, np.float32([[1, 0, 0], [0, -1.0, 2 * line * size]]), (size, size), borderMode=cv2.BORDER_REFLECT
    )
    mirror = blur(warp(mirror, ripple.astype(np.float32), ripple * 0.4), 0.8 * u)
    tint = picture[: int(size * 0.4)].mean(axis=(0, 1))
    mirror = mix(mirror, tint, 0.22)
    glint = np.clip(np.sin(y * 190 + 3 * noise(rng, size, 6)) - 0.75, 0, 1) * np.clip(noise(rng, size, 7), 0, 1) * 1.6
    mirror = np.clip(mirror + 0.6 * glint[..., None], 0, 1)
    return mix(picture, mirror, np.clip((y - line) * size / 2, 0, 1))


# Pairs of colours, at the zenith and at the horizon: dawn, dusk, moonlight, haze, deep evening.
SKIES = (
    ((0.55, 0.7, 0.85), (0.98, 0.87, 0.75)),
    ((0.6, 0.55, 0.75), (0.98, 0.75, 0.65)),
    ((0.16, 0.2, 0.4), (0.45, 0.5, 0.68)),
    ((0.75, 0.85, 0.85), (0.95, 0.95, 0.88)),
    ((0.35, 0.42, 0.5), (0.7, 0.72, 0.7)),
    ((0.3, 0.25, 0.4), (0.8, 0.5, 0.45)),
    ((0.25, 0.4, 0.4), (0.6, 0.7, 0.6)),
    ((0.85, 0.85, 0.92), (0.97, 0.95, 0.97)),
    ((0.9, 0.7, 0.55), (1.0, 0.9, 0.65)),
    ((0.45, 0.6, 0.6), (0.85, 0.9, 0.78)),
)


def small_signs(rng: Rng, plan: Plan, picture: Picture, sign: str, top: tuple[float, float, float]) -> Picture:
    """Far birds, drifting petals, stars or small lights."""
    size, u = len(picture), plan.unit
    if sign == "birds":
        flock = np.zeros((size, size), np.float32)
        for x, h in rng.uniform((0.1, 0.06), (0.9, 0.35), (rng.integers(3, 7), 2)):
            s = rng.uniform(0.015, 0.03)
            path = np.array([(-s, -s * 0.5), (-s * 0.4, -s * 0.55), (0, 0), (s * 0.4, -s * 0.55), (s, -s * 0.5)]) + (
                x,
                h,
            )
            cv2.polylines(
                flock,
                [np.round(path * size * 16).astype(np.int32)],
                False,
                1,
                max(1, round(2 * u)),
                cv2.LINE_AA,
                shift=4,
            )
        picture = mix(picture, np.float32(top) * 0.45, flock * (1 - plan.thing))
    elif sign == "petals":
        tint = pick(rng, (1.0, 0.8, 0.85), (1.0, 1.0, 0.95), (0.95, 0.85, 0.6))
        turn = np.linspace(0, 2 * np.pi, 12)
        for x, h, a in rng.uniform((0, 0, 0), (1, 1, 3), (rng.integers(10, 26), 3)):
            s, c = np.sin(a), np.cos(a)
            leaf = np.stack([np.cos(turn) * 0.013, np.sin(turn) * 0.006], axis=1) @ np.array([[c, s], [-s, c]]) + (x, h)
            picture = mix(picture, tint, 0.9 * stamp(size, leaf))
    else:
        low = 0.0 if sign == "stars" else 0.35
        for x, h in rng.uniform((0, low), (1, low + 0.55), (rng.integers(14, 30), 2)):
            picture = np.clip(
                picture
                + (0.9 * halo(size, x, h, rng.uniform(0.004, 0.011)))[..., None] * np.float32((1.0, 0.95, 0.75)),
                0,
                1,
            )
    return picture


def peaceful(plan: Plan, rng: Rng) -> Picture:
    """Dawn, dusk or moonlight, still water, mist in bands, soft glow, petals, far birds, stars or fireflies."""
    size, u = len(plan.ids), plan.unit
    plan = regraded(plan, rng, "pastel", "pastel", "muted", "warm", "cool", "one hue", "natural")
    top, bottom = pick(rng, *SKIES)
    _, y = grid(size)
    sky = mix(np.broadcast_to(np.float32(top), (size, size, 3)), bottom, np.clip(y / plan.drawing.horizon, 0, 1))
    picture = rendered(plan, rng)
    far = (plan.depth[plan.ids] < 0.3) * (1 - plan.thing)
    picture = mix(picture, sky, blur(far.astype(np.float32), 1.2 * u) * rng.uniform(0.6, 0.95))
    picture = mix(picture, picture * (np.float32(bottom) * 1.1), 0.6)
    sun_x, sun_y, r = rng.uniform(0.15, 0.85), plan.drawing.horizon - rng.uniform(0.0, 0.3), rng.uniform(0.05, 0.1)
    if rng.random() < 0.75:
        glow = mix(np.float32(bottom), (1, 1, 0.92), 0.6)
        picture = mix(picture, glow, 0.55 * behind(plan, halo(size, sun_x, sun_y, r * 3)))
        picture = mix(picture, glow, behind(plan, ball(size, sun_x, sun_y, r, 0.008)))
    for _ in range(rng.integers(0, 4)):
        at, wide = plan.drawing.horizon + rng.uniform(-0.15, 0.12), rng.uniform(0.015, 0.04)
        band = np.exp(-(((y - at + 0.015 * noise(rng, size, 3)) / wide) ** 2)) * np.clip(
            0.7 + 0.5 * noise(rng, size, 3), 0, 1
        )
        picture = mix(picture, bottom, 0.7 * band * (1 - 0.7 * plan.thing))
    if rng.random() < 0.65:
        picture = still_water(rng, plan, picture)
    picture = mix(picture, np.clip(blur(picture, 6 * u) * 1.12, 0, 1), rng.uniform(0.2, 0.4))
    dark = luminance(np.float32([top]))[0] < 0.35
    sign = pick(rng, "petals", "birds", "lights") if not dark else pick(rng, "stars", "lights")
    picture = small_signs(rng, plan, picture, sign, top)
    return np.clip(picture, 0, 1)


STYLES = {**MEDIA, "Scary": scary, "Gloomy": gloomy, "Happy": happy, "Peaceful": peaceful}
