"""What is depicted, the living half: bird, cat, dog and people. `contents.py` has the rest and the list of all nine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from standin.drawings import (
    DARK,
    LEAF,
    WHITE,
    Colour,
    Rng,
    Shape,
    any_colour,
    arc,
    area,
    disc,
    limb,
    line,
    moved,
    near,
    pick,
    shade,
    smooth,
)  # fmt: skip

FUR = ((0.85, 0.55, 0.25), (0.25, 0.23, 0.24), (0.6, 0.6, 0.62), (0.93, 0.9, 0.85), (0.5, 0.34, 0.22), (0.8, 0.68, 0.5))


def bird(rng: Rng) -> tuple[list[Shape], str]:
    """Songbirds and waders that stand or perch, birds on the wing, swimming ones, and owls from the front."""
    coat = near(rng, (0.75, 0.3, 0.22), (0.25, 0.45, 0.7), (0.45, 0.4, 0.35), WHITE, (0.9, 0.75, 0.25), DARK)
    belly, beak = shade(coat, rng.uniform(1.4, 2.6)), near(rng, (0.95, 0.65, 0.15), (0.35, 0.3, 0.28), (0.85, 0.4, 0.2))
    kind = pick(rng, "song", "song", "wader", "wing", "wing", "swim", "owl")
    if kind == "owl":
        return owl(rng, coat, belly, beak), "standing"
    neck = {"song": 0.02, "wader": 0.25, "wing": 0.05, "swim": 0.22}[kind] * rng.uniform(0.7, 1.3)
    legs = {"song": 0.16, "wader": 0.45}.get(kind, 0.0) * rng.uniform(0.8, 1.2)
    bill = rng.uniform(0.1, 0.16) + (0.16 if kind == "wader" else 0)
    tall = rng.uniform(0.15, 0.2)
    tilt = rng.uniform(20, 45) if kind == "song" else rng.uniform(0, 15)
    y = legs + tall
    s, c = np.sin(np.radians(tilt)), np.cos(np.radians(tilt))
    turn = np.array([[c, -s], [s, c]])
    head = np.array([0, y]) + turn @ (0.24, 0.07) + (neck * 0.4, neck + 0.05)
    tail_end = np.array([0, y]) - turn @ (rng.uniform(0.5, 0.75), rng.uniform(-0.05, 0.04))
    wide = rng.uniform(0.06, 0.16)
    shapes = []
    if kind == "wing":
        up = rng.uniform(0.3, 0.6)
        shapes.append(area(feathers((0.05, y + 0.05), (0.25, y + up + 0.12), -0.35), shade(coat, 0.65), depth=0.7))
    for x in (-0.02, 0.08) if legs else ():
        shapes.append(line([(x, y - tall * 0.5), (x - 0.02, legs * 0.5), (x, 0)], shade(beak, 0.85), 0.022))
        shapes.append(line([(x - 0.06, -0.01), (x, 0), (x + 0.08, -0.01)], shade(beak, 0.85), 0.02))
    shapes.append(limb([np.array([0, y]) - turn @ (0.15, 0), tail_end], [0.14, wide], shade(coat, 0.75)))
    bill_tip = head + (0.1 + bill, rng.uniform(-0.06, 0.01))
    shapes.append(area([head + (0.06, 0.045), bill_tip, head + (0.06, -0.045)], beak, depth=0.85))
    body = [(-0.34, 0.03), (-0.1, tall), (0.2, tall * 0.75), (0.32, 0.04), (0.18, -tall * 0.8), (-0.12, -tall * 0.85)]
    shapes.append(area(np.array(body) @ turn.T + (0, y), coat, round_off=True, depth=0.85))
    shapes.append(disc(0.1, y - tall * 0.35, 0.17, belly, tall * 0.5, tilt + 10, depth=0.86))
    root = np.array([0, y]) + turn @ (0.2, 0.03)
    shapes.append(limb([root, (root + head) / 2 + (0.03, 0), head], [0.2, 0.13, 0.15], coat, depth=0.87))
    shapes.append(disc(*head, rng.uniform(0.1, 0.13), coat, depth=0.88))
    if rng.random() < 0.3:
        shapes.append(
            area([head + (0.04, 0.09), head + (-0.14, 0.2), head + (-0.07, 0.04)], shade(coat, 0.7), depth=0.89)
        )
    shapes += [
        disc(*(head + (0.04, 0.025)), 0.03, WHITE, depth=0.9),
        disc(*(head + (0.045, 0.025)), 0.019, DARK, depth=0.92),
    ]
    if kind == "wing":
        sweep = rng.uniform(0.35, 0.65) * pick(rng, 1, 1, -0.7)
        shapes.append(area(feathers((-0.02, y + 0.06), (-0.15, y + sweep), -0.4), shade(coat, 0.8), depth=0.95))
        return shapes, "flying"
    wing = np.array([(0.17, 0.05), (0, 0.12), (-0.25, 0.04), (-0.42, -0.05), (-0.2, -0.08), (0.06, -0.07)])
    shapes.append(area(wing @ turn.T + (0, y), shade(coat, 0.7), round_off=True, depth=0.95))
    for k in (0.0, 0.035):
        shapes.append(
            line(
                (np.array([(0.05, k), (-0.15, k - 0.02), (-0.3, k - 0.05)]) @ turn.T) + (0, y), shade(coat, 0.45), 0.009
            )
        )
    behind, front = bird_place(rng, kind)
    return behind + shapes + front, "standing"


def bird_place(rng: Rng, kind: str) -> tuple[list[Shape], list[Shape]]:
    """The branch or the water of a bird: the shapes behind it and those in front of it."""
    behind: list[Shape] = []
    front: list[Shape] = []
    if kind == "swim":
        water = near(rng, (0.4, 0.6, 0.75), (0.35, 0.55, 0.55))
        front.append(
            area(
                smooth([(-0.9, 0.0), (-0.4, 0.04), (0.1, 0.02), (0.8, 0.05), (0.7, -0.16), (-0.7, -0.14)]),
                water,
                depth=0.55,
            )
        )
        front += [
            line([(x, -q), (x + 0.3, -q)], shade(water, 1.8), 0.012)
            for x, q in ((-0.6, 0.04), (0.2, 0.06), (-0.2, 0.1))
        ]
    elif kind == "song" and rng.random() < 0.65:
        wood = near(rng, (0.4, 0.28, 0.2), (0.55, 0.45, 0.38))
        behind.append(limb([(-0.75, -0.1), (-0.2, -0.02), (0.3, -0.05), (0.8, 0.06)], [0.1, 0.08, 0.07, 0.03], wood))
        for x in rng.uniform(-0.7, 0.7, 5):
            front.append(
                disc(x, rng.uniform(-0.02, 0.1) * pick(rng, -1.5, 1), 0.09, near(rng, *LEAF), 0.04, rng.uniform(0, 180))
            )
    return behind, front


def feathers(root: Sequence[float], tip: Sequence[float], back: float) -> np.ndarray:
    """The outline of a spread wing from shoulder to tip, its trailing edge cut into feathers: float64 [n, 2]."""
    root, tip = np.asarray(root), np.asarray(tip)
    points = [root + (0.1, 0), root * 0.5 + tip * 0.5 + (0.1, 0.04), tip]
    for t in np.linspace(0.92, 0.1, 6):
        at = tip * t + root * (1 - t)
        reach = back * (1.15 - t * 0.75)
        points += [at + (reach, -0.02), at + (reach * 0.72, -0.045)]
    return np.array(points)


def owl(rng: Rng, coat: Colour, belly: Colour, beak: Colour) -> list[Shape]:
    """An owl seen from the front."""
    w = rng.uniform(0.26, 0.34)
    shapes = [
        area([(-w, 0.35), (-w * 0.95, 0.8), (0, 0.95), (w * 0.95, 0.8), (w, 0.35), (0, 0.0)], coat, round_off=True)
    ]
    shapes += [
        area([(k * w * 0.98, 0.8), (k * w * 0.85, 1.08), (k * w * 0.3, 0.92)], shade(coat, 0.75)) for k in (-1, 1)
    ]
    shapes.append(disc(0, 0.33, w * 0.62, belly, 0.27, depth=0.82))
    for row in range(4):
        for k in range(-2 + row % 2, 3):
            shapes.append(line(arc(k * 0.08, 0.48 - row * 0.09, 0.035, 0.03, 180, 360), shade(coat, 0.6), 0.01))
    for k in (-1, 1):
        shapes.append(
            limb([(k * w * 0.9, 0.55), (k * w * 1.08, 0.3), (k * w * 0.6, 0.08)], [0.12, 0.16, 0.05], shade(coat, 0.65))
        )
        shapes.append(disc(k * w * 0.42, 0.74, w * 0.42, shade(belly, 1.3), depth=0.9))
        shapes.append(disc(k * w * 0.42, 0.74, w * 0.3, (0.95, 0.75, 0.2), depth=0.92))
        shapes.append(disc(k * w * 0.42, 0.74, w * 0.17, DARK, depth=0.94))
        shapes.append(line([(k * 0.12, 0.06), (k * 0.12, -0.03)], beak, 0.06))
    shapes.append(area([(-0.05, 0.7), (0.05, 0.7), (0, 0.57)], beak, depth=0.95))
    shapes.insert(0, limb([(-0.7, -0.08), (0, -0.05), (0.7, -0.02)], [0.1, 0.09, 0.06], near(rng, (0.4, 0.28, 0.2))))
    return shapes


def fur(rng: Rng) -> tuple[Colour, Colour]:
    """The colour of a coat and that of its belly, snout or patches."""
    coat = near(rng, *FUR)
    return coat, shade(coat, rng.uniform(1.5, 3)) if rng.random() < 0.7 else shade(coat, 0.6)


def cat_face(rng: Rng, coat: Colour, light: Colour, r: float = 0.2) -> list[Shape]:
    """A cat's head from the front around (0, 0): wide, pointed upright ears, slit pupils, tiny nose, whiskers."""
    ear, iris = rng.uniform(0.85, 1.15), near(rng, (0.6, 0.75, 0.25), (0.9, 0.7, 0.2), (0.35, 0.6, 0.8))
    shapes = []
    for k in (-1, 1):
        shapes.append(
            area([(k * r * 1.0, r * 0.15), (k * r * 0.92, r * 1.45 * ear), (k * r * 0.15, r * 0.75)], coat, depth=0.88)
        )
        shapes.append(
            area(
                [(k * r * 0.85, r * 0.45), (k * r * 0.82, r * 1.15 * ear), (k * r * 0.36, r * 0.75)],
                (0.85, 0.6, 0.58),
                depth=0.89,
            )
        )
    cheeks = [
        (-1.12, -0.2),
        (-0.85, 0.6),
        (0, 0.85),
        (0.85, 0.6),
        (1.12, -0.2),
        (0.6, -0.75),
        (0, -0.88),
        (-0.6, -0.75),
    ]
    shapes.append(area(np.array(cheeks) * r, coat, round_off=True, depth=0.9))
    if rng.random() < 0.5:
        for k in (-0.3, 0, 0.3):
            shapes.append(line([(k * r, r * 0.8), (k * r * 0.6, r * 0.42)], shade(coat, 0.5), r * 0.1, depth=0.91))
        for k in (-1, 1):
            shapes += [
                line([(k * r * 1.05, y * r), (k * r * 0.68, y * r)], shade(coat, 0.5), r * 0.08) for y in (-0.1, -0.32)
            ]
    shapes += [disc(k * r * 0.2, -r * 0.42, r * 0.3, light, r * 0.24, depth=0.92) for k in (-1, 1)]
    for k in (-1, 1):
        shapes.append(disc(k * r * 0.45, r * 0.12, r * 0.24, iris, r * 0.2, k * 15, depth=0.93, material="glossy"))
        shapes.append(disc(k * r * 0.45, r * 0.12, r * 0.08, DARK, r * 0.19, depth=0.95))
        for y in (-0.28, -0.42, -0.56):
            shapes.append(
                line(
                    [(k * r * 0.35, y * r), (k * r * 1.6, (y * 1.5 + 0.22) * r)],
                    shade(light, 0.55),
                    r * 0.035,
                    depth=0.97,
                )
            )
    shapes.append(area([(-r * 0.13, -r * 0.18), (r * 0.13, -r * 0.18), (0, -r * 0.34)], (0.8, 0.45, 0.45), depth=0.96))
    mouth = [(-r * 0.3, -r * 0.5), (-r * 0.12, -r * 0.58), (0, -r * 0.34), (r * 0.12, -r * 0.58), (r * 0.3, -r * 0.5)]
    return [*shapes, line(mouth, DARK, r * 0.05, depth=0.96)]


def dog_face(rng: Rng, coat: Colour, light: Colour, r: float = 0.2) -> list[Shape]:
    """A dog's head from the front around (0, 0): long muzzle, big nose, hanging ears, tongue."""
    ear = pick(rng, coat, shade(coat, 0.55), shade(coat, 0.55))
    shapes = []
    skull = np.array(
        [(-0.8, 0.3), (-0.5, 0.85), (0.5, 0.85), (0.8, 0.3), (0.6, -0.6), (0.3, -1.05), (-0.3, -1.05), (-0.6, -0.6)]
    )
    shapes.append(area(skull * r, coat, round_off=True, depth=0.89))
    if rng.random() < 0.5:
        side = pick(rng, -1, 1)
        shapes.append(disc(side * r * 0.38, r * 0.22, r * 0.34, shade(coat, 0.55), r * 0.42, depth=0.9))
    if rng.random() < 0.5:
        shapes.append(limb([(0, r * 0.8), (0, r * 0.2), (0, -r * 0.3)], [r * 0.15, r * 0.2, r * 0.5], light, depth=0.9))
    out, drop = rng.uniform(1.05, 1.35), rng.uniform(-0.9, -0.35)
    for k in (-1, 1):
        hang = np.array(
            [
                (k * 0.4, 0.85),
                (k * out * 0.9, 0.75),
                (k * out, 0.0),
                (k * out * 0.85, drop),
                (k * 0.72, drop * 0.6),
                (k * 0.65, 0.3),
            ]
        )
        shapes.append(area(hang * r, ear, round_off=True, depth=0.93))
        shapes.append(disc(k * r * 0.35, r * 0.2, r * 0.15, DARK, depth=0.94, material="glossy"))
        shapes.append(disc(k * r * 0.35 + r * 0.04, r * 0.26, r * 0.045, WHITE, depth=0.95))
    if rng.random() < 0.65:
        shapes.append(
            limb(
                [(0, -r * 0.85), (r * 0.03, -r * 1.15), (r * 0.03, -r * 1.35)],
                [r * 0.3, r * 0.34, r * 0.28],
                (0.88, 0.42, 0.45),
                depth=0.92,
            )
        )
    shapes.append(disc(0, -r * 0.62, r * 0.52, light, r * 0.42, depth=0.94))
    shapes.append(disc(0, -r * 0.42, r * 0.26, DARK, r * 0.19, depth=0.97, material="glossy"))
    mouth = [(-r * 0.4, -r * 0.8), (-r * 0.15, -r * 0.88), (0, -r * 0.62), (r * 0.15, -r * 0.88), (r * 0.4, -r * 0.8)]
    return [*shapes, line(mouth, DARK, r * 0.06, bend=False, depth=0.96)]


def sitting(rng: Rng, coat: Colour, light: Colour, cat_like: bool) -> list[Shape]:
    """The body of a cat or dog that sits and looks at you; the head belongs at (0, 0.72)."""
    w = rng.uniform(0.2, 0.26) * (1 if cat_like else 1.1)
    side, lift = pick(rng, -1, 1), rng.uniform(0.1, 0.5)
    tail = [
        (side * w * 0.8, 0.06),
        (side * 0.4, 0.05),
        (side * 0.52, 0.05 + lift * 0.6),
        (side * rng.uniform(0.35, 0.6), 0.1 + lift),
    ]
    if not cat_like:
        tail = [(side * w, 0.08), (side * 0.38, 0.12), (side * 0.46, 0.24)]
    shapes = [limb(tail, [0.08, 0.075, 0.06], coat, depth=0.7)]
    shapes.append(
        area(
            [(-w, 0.1), (-w * 0.8, 0.42), (-w * 0.45, 0.68), (w * 0.45, 0.68), (w * 0.8, 0.42), (w, 0.1), (0, 0)],
            coat,
            round_off=True,
        )
    )
    shapes += [disc(k * w * 0.95, 0.11, 0.12, shade(coat, 0.9), 0.13, depth=0.83) for k in (-1, 1)]
    shapes.append(disc(0, 0.42, w * 0.45, light, 0.17, depth=0.84))
    for k in (-1, 1):
        shapes.append(
            limb(
                [(k * w * 0.38, 0.42), (k * w * 0.4, 0.2), (k * w * 0.4, 0.03)],
                [0.1, 0.09, 0.1],
                shade(coat, 1.05),
                depth=0.87,
            )
        )
        shapes.append(disc(k * w * 0.42, 0.02, 0.075, light, 0.04, depth=0.9))
    if rng.random() < 0.5:
        shapes.append(line(arc(0, 0.66, w * 0.5, 0.08, 190, 350), any_colour(rng), 0.045, depth=0.88))
    return shapes


def tail_path(rng: Rng, long: float, y: float, cat_like: bool) -> list[tuple[float, float]]:
    """Where the tail of a body of this length and height runs: a cat's long and curved, a dog's short."""
    up = rng.uniform(0.1, 0.55)
    tail = [
        (-long / 2, y + 0.04),
        (-long / 2 - 0.18, y + up * 0.4),
        (-long / 2 - 0.16, y + up),
        (-long / 2 - rng.uniform(0, 0.35), y + up + 0.1),
    ]
    if not cat_like:
        tail = [
            (-long / 2, y + 0.06),
            (-long / 2 - 0.12, y + 0.16 * pick(rng, 1, 1, -1)),
            (-long / 2 - rng.uniform(0.12, 0.26), y + 0.28 * pick(rng, 1, 1, -0.6)),
        ]
    return tail


def coat_pattern(
    rng: Rng, long: float, deep: float, y: float, tones: tuple[Colour, Colour], cat_like: bool
) -> list[Shape]:
    """A tabby's stripes, a dog's patches, or nothing; `tones`: the coat's colour and the light one."""
    shapes: list[Shape] = []
    coat, light = tones
    pattern = rng.random()
    if cat_like and pattern < 0.55:
        for x in np.linspace(-long * 0.38, long * 0.28, 6):
            shapes.append(line([(x, y + deep * 0.46), (x - 0.02, y + deep * 0.1)], shade(coat, 0.5), 0.028, depth=0.87))
    elif not cat_like and pattern < 0.5:
        for x in rng.uniform(-long * 0.35, long * 0.3, 3):
            shapes.append(
                disc(
                    x,
                    y + rng.uniform(0, deep * 0.3),
                    rng.uniform(0.06, 0.12),
                    light,
                    0.06,
                    rng.uniform(0, 90),
                    depth=0.87,
                )
            )
    return shapes


def walking(rng: Rng, coat: Colour, light: Colour, cat_like: bool) -> tuple[list[Shape], np.ndarray]:
    """A cat's or dog's body from the side, facing right, and where its head belongs."""
    long, legs = rng.uniform(0.62, 0.8), rng.uniform(0.24, 0.32) if cat_like else rng.uniform(0.26, 0.42)
    deep, thick = rng.uniform(0.2, 0.25) if cat_like else rng.uniform(0.24, 0.32), 0.075 if cat_like else 0.1
    y = legs + deep * 0.45
    shapes = []
    tail = tail_path(rng, long, y, cat_like)
    shapes.append(limb(tail, [0.09, 0.07, 0.05], coat, depth=0.72))
    for near_side in (False, True):
        for x in (-long * 0.38, long * 0.36):
            step, tone = rng.uniform(-0.12, 0.12), coat if near_side else shade(coat, 0.68)
            path = [(x, y), (x + step * 0.3 - 0.02 * (x < 0), legs * 0.5), (x + step, 0.02)]
            shapes.append(limb(path, [thick * 1.9, thick, thick * 0.8], tone, depth=0.86 if near_side else 0.72))
            shapes.append(
                disc(x + step + 0.02, 0.02, thick * 0.62, light if near_side else tone, thick * 0.32, depth=0.87)
            )
        if not near_side:
            back = rng.uniform(0, 0.04) * pick(rng, 1, -1)
            h = long / 2
            body = [
                (-h - 0.03, 0),
                (-h * 0.8, deep * 0.5),
                (0, deep * 0.5 - back),
                (h * 0.8, deep * 0.52),
                (h + 0.03, 0.02),
                (h * 0.7, -deep * 0.5),
                (0, -deep * 0.42),
                (-h * 0.7, -deep * 0.4),
            ]
            shapes.append(area(np.array(body) + (0, y), coat, round_off=True, depth=0.84))
    shapes += coat_pattern(rng, long, deep, y, (coat, light), cat_like)
    head = np.array(
        [long / 2 + (0.1 if cat_like else rng.uniform(0.08, 0.16)), y + deep * 0.5 + rng.uniform(0.06, 0.2)]
    )
    shapes.append(
        limb(
            [(long * 0.36, y + deep * 0.12), (head + (long * 0.4, y + deep * 0.3)) / 2, head],
            [deep * 0.85, deep * 0.7, 0.17],
            coat,
            depth=0.88,
        )
    )
    if rng.random() < 0.5:
        shapes.append(line([head + (-0.13, 0.04), head + (-0.03, -0.14)], any_colour(rng), 0.045, depth=0.9))
    return shapes, head


def dog_profile(rng: Rng, coat: Colour, light: Colour) -> list[Shape]:
    """A dog's head from the side, looking right, around (0, 0)."""
    reach, ear = rng.uniform(0.2, 0.32), shade(coat, pick(rng, 0.55, 0.75))
    shapes = []
    if rng.random() < 0.6:
        shapes.append(
            limb(
                [(0.06, -0.09), (reach, -0.1), (reach + 0.02, -0.15)],
                [0.05, 0.06, 0.05],
                (0.88, 0.42, 0.45),
                depth=0.89,
            )
        )
    shapes.append(limb([(0, 0.0), (reach * 0.6, -0.04), (reach, -0.045)], [0.24, 0.16, 0.12], coat, depth=0.9))
    shapes.append(disc(0, 0.02, 0.145, coat, 0.13, depth=0.9))
    shapes.append(limb([(reach * 0.55, -0.07), (reach, -0.07)], [0.1, 0.09], light, depth=0.91))
    shapes += [
        disc(reach + 0.045, -0.01, 0.045, DARK, 0.038, depth=0.93, material="glossy"),
        disc(0.07, 0.06, 0.024, DARK, depth=0.93),
    ]
    if rng.random() < 0.65:
        flap = [(-0.1, 0.12), (0.0, 0.13), (0.0, -0.05), (-0.05, -0.2), (-0.15, -0.16), (-0.15, 0.02)]
        shapes.append(area(flap, ear, round_off=True, depth=0.95))
    else:
        shapes.append(area([(-0.12, 0.08), (-0.1, 0.28), (0.02, 0.13)], ear, depth=0.95))
    return shapes


def cat(rng: Rng) -> tuple[list[Shape], str]:
    """A cat: sitting, walking past with its face to you, curled up, or its face alone."""
    coat, light = fur(rng)
    kind = pick(rng, "sit", "sit", "walk", "walk", "face", "loaf")
    lean = rng.uniform(-0.05, 0.05)
    if kind == "face":
        return cat_face(rng, coat, light, 0.5), "close"
    if kind == "sit":
        return sitting(rng, coat, light, True) + moved(cat_face(rng, coat, light, 0.21), lean, 0.76), "standing"
    if kind == "loaf":
        shapes = [area([(-0.55, 0.1), (-0.45, 0.36), (0, 0.42), (0.4, 0.3), (0.5, 0.08), (0, 0)], coat, round_off=True)]
        shapes += [
            line(arc(-0.25 + k, 0.2, 0.06, 0.2, 40, 140), shade(coat, 0.5), 0.025)
            for k in (0, 0.12, 0.24)
            if rng.random() < 0.7
        ]
        shapes.append(limb([(-0.5, 0.06), (-0.2, 0.03), (0.15, 0.05)], [0.09, 0.09, 0.07], shade(coat, 0.8), depth=0.9))
        return shapes + moved(cat_face(rng, coat, light, 0.2), 0.38, 0.3), "standing"
    shapes, head = walking(rng, coat, light, True)
    return shapes + moved(cat_face(rng, coat, light, 0.17), *(head + (0.02, 0.03))), "standing"


def dog(rng: Rng) -> tuple[list[Shape], str]:
    """A dog: sitting, walking in profile, or its face alone."""
    coat, light = fur(rng)
    kind = pick(rng, "sit", "walk", "walk", "walk", "face")
    if kind == "face":
        return dog_face(rng, coat, light, 0.5), "close"
    if kind == "sit":
        return sitting(rng, coat, light, False) + moved(
            dog_face(rng, coat, light, 0.23), rng.uniform(-0.05, 0.05), 0.8
        ), "standing"
    shapes, head = walking(rng, coat, light, False)
    return shapes + moved(dog_profile(rng, coat, light), *(head + (0.02, 0.04)), rng.uniform(0.95, 1.25)), "standing"


def hair_behind(cut: str, hair: Colour, r: float) -> list[Shape]:
    """The part of a haircut that lies behind a head of radius r."""
    shapes: list[Shape] = []
    if cut == "long":
        back = [
            (-1.1, 0.4),
            (-0.6, 1.15),
            (0.6, 1.15),
            (1.1, 0.4),
            (1.25, -1.2),
            (0.5, -1.35),
            (-0.5, -1.35),
            (-1.25, -1.2),
        ]
        shapes.append(area(np.array(back) * r, hair, round_off=True, depth=0.75))
    elif cut == "bun":
        shapes.append(disc(0, r * 1.3, r * 0.5, hair, depth=0.75))
    elif cut == "curly":
        shapes += [
            disc(r * 1.05 * np.cos(t), r * (0.4 + 0.85 * np.sin(t)), r * 0.5, hair, depth=0.75)
            for t in np.linspace(-0.6, 3.74, 9)
        ]
    return shapes


def person_head(rng: Rng, skin: Colour, hair: Colour, r: float = 0.12) -> list[Shape]:
    """A head from the front around (0, 0): hair long, short, curly or tied up, sometimes a hat, glasses or beard."""
    cut, shapes = pick(rng, "long", "short", "curly", "bun", "bald"), []
    shapes += hair_behind(cut, hair, r)
    shapes += [disc(k * r * 0.95, -r * 0.05, r * 0.18, shade(skin, 0.9), r * 0.24, depth=0.86) for k in (-1, 1)]
    shapes.append(disc(0, 0, r * 0.92, skin, r * 1.1, depth=0.88))
    if cut != "bald":
        part = rng.uniform(-0.5, 0.5)
        fringe = [
            (-0.98, 0.05),
            (-0.9, 0.85),
            (0, 1.25),
            (0.9, 0.85),
            (0.98, 0.05),
            (0.75, 0.45),
            (part, 0.7),
            (-0.75, 0.45),
        ]
        shapes.append(area(np.array(fringe) * r, hair, round_off=True, depth=0.9))
    for k in (-1, 1):
        shapes.append(disc(k * r * 0.36, r * 0.05, r * 0.14, WHITE, r * 0.1, depth=0.91))
        shapes.append(disc(k * r * 0.36, r * 0.05, r * 0.085, DARK, depth=0.92))
        shapes.append(line([(k * r * 0.2, r * 0.28), (k * r * 0.55, r * 0.3)], shade(hair, 0.7), r * 0.09, depth=0.92))
    shapes.append(
        line(np.array([(0.02, 0.05), (0.12, -0.28), (-0.04, -0.3)]) * r, shade(skin, 0.65), r * 0.07, depth=0.92)
    )
    if rng.random() < 0.2:
        beard = [
            (-0.85, -0.2),
            (-0.6, -0.95),
            (0, -1.3),
            (0.6, -0.95),
            (0.85, -0.2),
            (0.4, -0.4),
            (0, -0.36),
            (-0.4, -0.4),
        ]
        shapes.append(area(np.array(beard) * r, hair, round_off=True, depth=0.93))
    shapes.append(
        line(arc(0, -r * 0.45, r * 0.32, r * rng.uniform(0.02, 0.22), 190, 350), (0.7, 0.3, 0.3), r * 0.12, depth=0.94)
    )
    if rng.random() < 0.2:
        shapes += [line(arc(k * r * 0.37, r * 0.05, r * 0.28, r * 0.24), DARK, r * 0.07, depth=0.95) for k in (-1, 1)]
    if rng.random() < 0.25:
        hat = any_colour(rng)
        shapes.append(area(np.array([(-0.85, 0.6), (-0.7, 1.5), (0.7, 1.5), (0.85, 0.6)]) * r, hat, depth=0.95))
        shapes.append(line(np.array([(-1.5, 0.6), (1.5, 0.6)]) * r, shade(hat, 0.75), r * 0.22, depth=0.96))
    return shapes


def both_arms(rng: Rng, w: float, shoulder: float, skin: Colour, sleeve: Colour) -> list[Shape]:
    """Two arms that hang, stretch out or wave; `w`: half the width of the shoulders."""
    arms = []
    for k in (-1, 1):
        angle = np.radians(
            pick(rng, rng.uniform(-80, -60), rng.uniform(-85, -70), rng.uniform(-30, 10), rng.uniform(40, 75))
        )
        bend = angle + np.radians(rng.uniform(-15, 45))
        elbow = np.array([k * w, shoulder - 0.02]) + 0.16 * np.array([k * np.cos(angle), np.sin(angle)])
        hand = elbow + 0.16 * np.array([k * np.cos(bend), np.sin(bend)])
        arms.append(disc(*hand, 0.035, skin, depth=0.86))
        arms.append(limb([(k * w * 0.85, shoulder - 0.02), elbow, hand], [0.085, 0.07, 0.055], sleeve, depth=0.87))
    return arms


def person(rng: Rng) -> list[Shape]:
    """A whole person, about 1 high, standing, walking or waving."""
    skin = near(rng, (0.95, 0.8, 0.68), (0.8, 0.6, 0.45), (0.55, 0.38, 0.28), (0.38, 0.26, 0.2))
    hair = near(rng, (0.15, 0.12, 0.1), (0.45, 0.3, 0.18), (0.85, 0.7, 0.4), (0.6, 0.28, 0.15), (0.75, 0.75, 0.75))
    top, low, shoe = any_colour(rng), any_colour(rng), near(rng, DARK, any_colour(rng))
    w, hip, shoulder = rng.uniform(0.1, 0.14), rng.uniform(0.42, 0.48), rng.uniform(0.73, 0.77)
    dress, stride, r = rng.random() < 0.4, rng.uniform(0.02, 0.2), rng.uniform(0.085, 0.105)
    shapes = []
    for k in (-1, 1):
        foot = k * (0.05 + stride * 0.6)
        shapes.append(
            limb(
                [(k * w * 0.45, hip), (k * (0.05 + stride * 0.4), hip * 0.5), (foot, 0.03)],
                [0.11, 0.085, 0.06],
                skin if dress else low,
                depth=0.8,
            )
        )
        shapes.append(limb([(foot - 0.02, 0.015), (foot + k * 0.055, 0.01)], [0.05, 0.04], shoe, depth=0.82))
    arms = both_arms(rng, w, shoulder, skin, shade(top, 0.88))
    shapes.append(line([(0, shoulder - 0.03), (0, shoulder + 0.07)], shade(skin, 0.85), 0.075, depth=0.83))
    if dress:
        flare = rng.uniform(0.17, 0.28)
        skirt = [
            (-w * 0.6, 0.58),
            (-flare, hip - rng.uniform(0.12, 0.25)),
            (0, hip - 0.24),
            (flare, hip - 0.2),
            (w * 0.6, 0.58),
        ]
        shapes.append(area(skirt, pick(rng, top, low), depth=0.84))
    torso = [
        (-w, shoulder - 0.03),
        (-w * 0.5, shoulder + 0.015),
        (w * 0.5, shoulder + 0.015),
        (w, shoulder - 0.03),
        (w * 0.75, 0.56),
        (w * 0.8, hip - 0.02),
        (-w * 0.8, hip - 0.02),
        (-w * 0.75, 0.56),
    ]
    shapes.append(area(torso, top, depth=0.85))
    pattern = rng.random()
    if pattern < 0.3:
        shapes += [
            line([(-w * 0.75, y), (w * 0.75, y)], shade(top, 2), 0.02, depth=0.855) for y in (0.52, 0.58, 0.64, 0.7)
        ]
    elif pattern < 0.55:
        shapes.append(line([(0, hip), (0, shoulder)], shade(top, 0.5), 0.015, depth=0.855))
    return shapes + arms + moved(person_head(rng, skin, hair, r), 0, shoulder + 0.06 + r * 1.05)


def people(rng: Rng) -> tuple[list[Shape], str]:
    """One to four persons in full, or one from the shoulders up."""
    if rng.random() < 0.22:
        skin = near(rng, (0.95, 0.8, 0.68), (0.8, 0.6, 0.45), (0.55, 0.38, 0.28))
        top = any_colour(rng)
        shapes = [
            area(
                [(-0.75, -1.1), (-0.62, -0.62), (-0.2, -0.45), (0.2, -0.45), (0.62, -0.62), (0.75, -1.1)],
                top,
                round_off=False,
            )
        ]
        shapes.append(limb([(0, -0.55), (0, -0.2)], [0.3, 0.26], shade(skin, 0.85), depth=0.83))
        return shapes + person_head(
            rng, skin, near(rng, (0.15, 0.12, 0.1), (0.5, 0.3, 0.15), (0.85, 0.7, 0.4)), 0.42
        ), "close"
    shapes, x = [], 0.0
    for _ in range(pick(rng, 1, 2, 2, 3, 3, 4)):
        shapes += moved(person(rng), x, 0, rng.uniform(0.65, 1.05))
        x += rng.uniform(0.36, 0.5)
    return shapes, "standing"
