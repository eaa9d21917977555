"""What is depicted: the nine contents of the stand-in collection.

A content knows nothing of styles: it hands back the shapes of an object and how it stands ("standing" on the ground,
"flying" above it, or so "close" that the lower edge cuts it). Poses, proportions and colours are drawn from the
generator that is handed in: the same generator gives the same object.
"""

from __future__ import annotations

import numpy as np

from standin.creatures import bird, cat, dog, people
from standin.drawings import (
    DARK,
    GREEN,
    LEAF,
    WHITE,
    Colour,
    Drawing,
    Rng,
    Shape,
    any_colour,
    arc,
    area,
    box,
    disc,
    limb,
    line,
    moved,
    near,
    pick,
    place,
    scene,
    shade,
    smooth,
)  # fmt: skip


def bicycle(rng: Rng) -> tuple[list[Shape], str]:
    """Road, town and step-through bicycles, and now and then a penny-farthing."""
    r, base = rng.uniform(0.27, 0.36), rng.uniform(0.9, 1.15)
    old = rng.random() < 0.1
    front_r, rear_r = (0.55, 0.17) if old else (r, r)
    paint, tyre, metal = any_colour(rng), near(rng, DARK, (0.35, 0.25, 0.18)), (0.62, 0.64, 0.67)
    tube, rubber = rng.uniform(0.032, 0.05), rng.uniform(0.035, 0.06)
    rear, front = np.array([0, rear_r]), np.array([base * (0.72 if old else 1), front_r])
    shapes = []
    for hub, radius in ((rear, rear_r), (front, front_r)):
        first = rng.uniform(0, 60)
        for angle in np.radians(first + np.arange(0, 360, pick(rng, 30, 36, 45))):
            shapes.append(line([hub, hub + radius * 0.95 * np.array([np.cos(angle), np.sin(angle)])], metal, 0.008))
        shapes.append(line(arc(*hub, radius - rubber / 2, radius - rubber / 2), tyre, rubber, material="glossy"))
        shapes.append(disc(*hub, 0.03, metal, material="glossy"))
    head = front + (-base * rng.uniform(0.1, 0.2) * (not old), front_r * 0.2 + rng.uniform(0.3, 0.42))
    seat = np.array([base * rng.uniform(0.26, 0.34), rear_r + rng.uniform(0.38, 0.5)])
    crank = np.array([base * rng.uniform(0.4, 0.46), rear_r * 0.9])
    if old:
        seat, crank = head + (-0.16, -0.06), front
        shapes.append(line([rear, rear + (0.06, 0.3), head], paint, tube, bend=True, material="glossy"))
    else:
        top = [seat, crank + (0.08, 0.12), head] if rng.random() < 0.35 else [seat + (0.01, -0.05), head]
        for path in (top, [seat, crank], [crank, head - (0, 0.07)], [rear, crank], [rear, seat - (0, 0.06)]):
            shapes.append(line(path, paint, tube, bend=len(path) > 2, material="glossy"))
    shapes.append(
        line([front, front * 0.5 + head * 0.5 - (0.01, 0.02), head], paint, tube, bend=True, material="glossy")
    )
    shapes.append(disc(*crank, 0.06, metal, material="glossy"))
    pedal = rng.uniform(0.09, 0.12) * np.array([np.cos(a := rng.uniform(0, 3.1)), np.sin(a)])
    shapes.append(line([crank - pedal, crank + pedal], DARK, 0.022))
    for end in (crank - pedal, crank + pedal):
        shapes.append(line([end - (0.05, 0), end + (0.05, 0)], DARK, 0.035))
    stem = head + (-0.03, rng.uniform(0.05, 0.12))
    shapes.append(line([head, stem], metal, tube * 0.8, material="glossy"))
    bar = pick(
        rng,
        [stem, stem + (0.12, 0.03), stem + (0.15, -0.06), stem + (0.04, -0.11)],
        [stem + (0.08, 0.02), stem, stem + (-0.14, 0.02)],
        [stem, stem + (0.05, 0.08), stem + (-0.12, 0.1), stem + (-0.2, 0.05)],
    )
    shapes.append(line(bar, near(rng, DARK, metal), 0.036, bend=True, material="glossy"))
    shapes.append(line([seat, seat + (-0.015, 0.06)], metal, tube * 0.8))
    x, y = seat + (-0.02, 0.08)
    saddle = [(x - 0.12, y + 0.03), (x - 0.1, y - 0.025), (x + 0.02, y - 0.01), (x + 0.12, y), (x + 0.12, y + 0.025)]
    shapes.append(area(saddle, near(rng, DARK, (0.5, 0.28, 0.15)), round_off=True))
    if rng.random() < 0.35 and not old:
        x, y = stem + (0.06, -0.03)
        basket = near(rng, (0.7, 0.5, 0.3), (0.8, 0.7, 0.5))
        shapes.append(area([(x, y), (x + 0.24, y), (x + 0.2, y - 0.17), (x + 0.04, y - 0.17)], basket))
        shapes += [line([(x + 0.02, y - d), (x + 0.22, y - d)], shade(basket, 0.6), 0.008) for d in (0.05, 0.1)]
    if rng.random() < 0.4 and not old:
        for hub in (rear, front):
            shapes.append(line(arc(*hub, r + 0.03, r + 0.03, 20, 170), shade(paint, 0.8), 0.025, material="glossy"))
    return shapes, "standing"


def block(rng: Rng, x: float, w: float, h: float, side: float, wall: Colour, y: float = 0) -> list[Shape]:
    """A box with a lit front, a dark side (its width with its sign) and rows of windows."""
    dark, x1 = shade(wall, 0.65), x + w if side > 0 else x
    shapes = [
        area([(x1, y), (x1 + side, y + 0.06), (x1 + side, y + h - 0.05), (x1, y + h)], dark),
        box(x, y, x + w, y + h, wall),
    ]
    rows, cols = max(1, int(h / rng.uniform(0.15, 0.24))), max(2, int(w / rng.uniform(0.11, 0.19)))
    glass = near(rng, (0.3, 0.42, 0.52), (0.95, 0.85, 0.5), (0.2, 0.24, 0.3), (0.7, 0.82, 0.9))
    arch, ww, wh = rng.random() < 0.3, w / cols * rng.uniform(0.45, 0.65), h / rows * rng.uniform(0.45, 0.65)
    for i in range(rows):
        for j in range(cols):
            cx, cy = x + w * (j + 0.5) / cols, y + h * (i + 0.55) / rows
            shapes.append(box(cx - ww / 2, cy - wh / 2, cx + ww / 2, cy + wh / 2, glass, material="glossy", depth=0.82))
            if arch:
                shapes.append(disc(cx, cy + wh / 2, ww / 2, glass, wh * 0.3, material="glossy", depth=0.82))
            shapes.append(line([(cx, cy - wh / 2), (cx, cy + wh / 2)], shade(wall, 1.5), 0.008, depth=0.83))
    return shapes


def towers(rng: Rng, wall: Colour, side: float) -> list[Shape]:
    """Two to four high buildings side by side."""
    shapes, x = [], 0.0
    for _ in range(rng.integers(2, 5)):
        w, h = rng.uniform(0.22, 0.4), rng.uniform(0.55, 1.25)
        tint = near(rng, wall, shade(wall, 0.8), any_colour(rng))
        tower = block(rng, x, w, h, side * 0.4, tint)
        top = pick(rng, "flat", "mast", "step", "point")
        if top == "mast":
            tower.append(line([(x + w / 2, h), (x + w / 2, h + 0.2)], DARK, 0.02))
        elif top == "step":
            tower.append(box(x + w * 0.2, h, x + w * 0.8, h + 0.1, shade(tint, 0.8)))
        elif top == "point":
            tower.append(area([(x, h), (x + w / 2, h + 0.25), (x + w, h)], shade(tint, 0.7)))
        shapes = tower + shapes if rng.random() < 0.5 else shapes + tower
        x += w * rng.uniform(0.7, 1.05)
    return shapes


def castle_top(rng: Rng, w: float, h: float, wall: Colour, roof: Colour) -> list[Shape]:
    """Two towers and battlements for a castle."""
    shapes: list[Shape] = []
    for x in (-0.12, w - 0.08):
        shapes += block(rng, x, 0.22, h * rng.uniform(1.2, 1.6), 0.05, shade(wall, 0.9))
        top = shapes[-1].points[:, 1].max() + 0.06
        if rng.random() < 0.6:
            shapes.append(area([(x - 0.04, top), (x + 0.11, top + 0.3), (x + 0.26, top)], roof))
            shapes.append(
                area([(x + 0.11, top + 0.3), (x + 0.11, top + 0.42), (x + 0.25, top + 0.37)], any_colour(rng))
            )
        else:
            shapes += [box(x + k, top, x + k + 0.05, top + 0.08, shade(wall, 0.9)) for k in (0, 0.085, 0.17)]
    shapes += [box(k, h, k + 0.07, h + 0.08, wall) for k in np.arange(0.1, w - 0.12, 0.13)]
    return shapes


def gable_top(
    rng: Rng, shapes: list[Shape], size: tuple[float, float], side: float, wall: Colour, roof: Colour, church: bool
) -> None:
    """Give a block of this `size` (width, height) a gabled roof, and a steeple (church) or perhaps a chimney."""
    w, h = size
    peak, over = h + rng.uniform(0.22, 0.45), 0.05
    x1, apex = (w, w / 2) if side > 0 else (0, w / 2)
    eave = x1 + np.sign(side) * over
    shapes.append(area([(eave, h - 0.03), (apex, peak), (apex + side, peak - 0.04), (eave + side, h - 0.08)], roof))
    shapes.append(
        area(
            [(-over, h - 0.03), (apex, peak), (w + over, h - 0.03)],
            shade(wall, 0.9) if rng.random() < 0.5 else shade(roof, 1.2),
        )
    )
    for end in ((-over, h - 0.03), (w + over, h - 0.03)):
        shapes.append(line([end, (apex, peak)], shade(roof, 0.8), 0.04))
    if church:
        shapes += block(rng, w * 0.35, w * 0.34, h * 1.7, 0.06, shade(wall, 1.15))
        x, top = w * 0.52, h * 1.7
        shapes.append(area([(x - w * 0.22, top), (x, top + rng.uniform(0.3, 0.6)), (x + w * 0.22, top)], roof))
        top = shapes[-1].points[:, 1].max()
        shapes += [
            line([(x, top), (x, top + 0.16)], DARK, 0.022),
            line([(x - 0.05, top + 0.1), (x + 0.05, top + 0.1)], DARK, 0.022),
        ]
    elif rng.random() < 0.7:
        x = apex + side * 0.6
        shapes.insert(0, box(x - 0.05, h, x + 0.05, peak + 0.12, shade(wall, 0.6)))


def building(rng: Rng) -> tuple[list[Shape], str]:
    """Houses, blocks of flats, towers in a row, churches and castles."""
    wall = near(
        rng,
        (0.85, 0.78, 0.65),
        (0.7, 0.4, 0.32),
        (0.75, 0.76, 0.78),
        (0.9, 0.88, 0.84),
        (0.55, 0.62, 0.7),
        (0.85, 0.65, 0.5),
    )
    roof = near(rng, (0.6, 0.28, 0.2), (0.3, 0.32, 0.36), (0.45, 0.35, 0.3), (0.25, 0.4, 0.4))
    side = rng.uniform(0.15, 0.4) * pick(rng, -1, 1)
    door = shade(roof, 0.7)
    kind = pick(rng, "house", "house", "towers", "towers", "church", "castle")
    if kind == "towers":
        return towers(rng, wall, side), "standing"
    w, h = rng.uniform(0.5, 0.8), rng.uniform(0.35, 0.75)
    shapes = block(rng, 0, w, h, side, wall)
    if kind == "castle":
        shapes += castle_top(rng, w, h, wall, roof)
    else:
        gable_top(rng, shapes, (w, h), side, wall, roof, kind == "church")
    x = w * rng.uniform(0.3, 0.6)
    shapes += [box(x, 0, x + 0.14, 0.24, door, depth=0.86), disc(x + 0.07, 0.24, 0.07, door, depth=0.86)]
    shapes.append(disc(x + 0.11, 0.12, 0.015, (0.9, 0.8, 0.4), depth=0.9))
    return shapes, "standing"


def car_body(kind: str, rng: Rng) -> tuple[list, list[list]]:
    """The outline of a car seen from the side, 1.6 long, and the outlines of its windows."""
    roof = rng.uniform(0.5, 0.58)
    if kind == "van":
        body = [(0, 0.12), (0.0, 0.5), (0.06, 0.66), (1.15, 0.66), (1.32, 0.62), (1.5, 0.36), (1.6, 0.3), (1.6, 0.12)]
        windows = [
            [(0.1, 0.38), (0.1, 0.58), (0.45, 0.58), (0.45, 0.38)],
            [(0.52, 0.38), (0.52, 0.58), (0.88, 0.58), (0.88, 0.38)],
        ]
        return body, [*windows, [(0.96, 0.38), (0.96, 0.58), (1.22, 0.58), (1.4, 0.38)]]
    if kind == "pickup":
        body = [
            (0, 0.14),
            (0, 0.38),
            (0.68, 0.38),
            (0.72, roof + 0.06),
            (1.1, roof + 0.06),
            (1.26, 0.38),
            (1.58, 0.34),
            (1.6, 0.14),
        ]
        return body, [[(0.78, 0.4), (0.8, roof), (1.06, roof), (1.18, 0.4)]]
    back = {"saloon": 0.3, "hatch": 0.06, "sport": 0.22, "beetle": 0.12}[kind]
    roof -= 0.09 if kind == "sport" else 0
    nose = rng.uniform(0.28, 0.34)
    body = [
        (0.0, 0.14),
        (0.0, 0.3),
        (back, 0.36),
        (back + 0.2, roof),
        (0.92, roof),
        (1.15, 0.36),
        (1.52, nose),
        (1.6, 0.22),
        (1.6, 0.13),
    ]
    low, high, mid = 0.36, roof - 0.05, rng.uniform(0.6, 0.72)
    windows = [[(back + 0.12, low), (back + 0.24, high), (mid - 0.02, high), (mid - 0.02, low)]]
    return body, [*windows, [(mid + 0.03, low), (mid + 0.03, high), (0.9, high), (1.06, low)]]


def car(rng: Rng) -> list[Shape]:
    """One car from the side, or from the front."""
    paint, glass = any_colour(rng), near(rng, (0.6, 0.75, 0.85), (0.25, 0.32, 0.4), (0.8, 0.88, 0.92))
    lamp = (0.98, 0.92, 0.6)
    if rng.random() < 0.2:
        h = rng.uniform(0.6, 0.75)
        shapes = [box(k - 0.09, 0, k + 0.09, 0.3, DARK) for k in (-0.38, 0.38)]
        shapes.append(area([(-0.4, 0.4), (-0.3, h), (0.3, h), (0.4, 0.4)], shade(paint, 0.9), round_off=False))
        shapes.append(
            area(
                [(-0.34, 0.42), (-0.26, h - 0.05), (0.26, h - 0.05), (0.34, 0.42)], glass, material="glossy", depth=0.85
            )
        )
        front = [(-0.5, 0.14), (-0.5, 0.36), (-0.42, 0.43), (0, 0.45), (0.42, 0.43), (0.5, 0.36), (0.5, 0.14), (0, 0.1)]
        shapes.append(area(front, paint, round_off=True, material="glossy", depth=0.87))
        shapes += [disc(k, 0.31, 0.075, lamp, material="glossy", depth=0.9) for k in (-0.36, 0.36)]
        shapes.append(box(-0.22, 0.24, 0.22, 0.35, DARK, depth=0.9))
        shapes += [line([(-0.22, y), (0.22, y)], (0.7, 0.7, 0.7), 0.012, depth=0.92) for y in (0.27, 0.3, 0.33)]
        return [
            *shapes,
            box(-0.13, 0.13, 0.13, 0.2, WHITE, depth=0.92),
            *(disc(k, 0.47, 0.05, paint, 0.035) for k in (-0.48, 0.48)),
        ]
    kind = pick(rng, "saloon", "hatch", "sport", "beetle", "van", "pickup")
    body, windows = car_body(kind, rng)
    outline = smooth(np.repeat(body, 2, axis=0) + np.tile([(0.004, 0.002), (-0.004, -0.002)], (len(body), 1)), steps=4)
    if kind == "beetle":
        outline = smooth(body)
    shapes = [area(outline, paint, material="glossy")]
    shapes += [area(w, glass, material="glossy", depth=0.86) for w in windows]
    if rng.random() < 0.35:
        shapes.append(
            area(
                [(0.02, 0.24), (1.59, 0.24), (1.59, 0.19), (0.02, 0.19)], shade(paint, pick(rng, 0.6, 2.5)), depth=0.84
            )
        )
    shapes.append(box(-0.03, 0.1, 1.63, 0.15, shade(paint, 0.5), depth=0.84))
    door = windows[-1][0][0] - 0.025
    shapes += [line([(x, 0.16), (x, 0.38)], shade(paint, 0.5), 0.012) for x in (door, door + 0.42)]
    shapes.append(line([(door + 0.05, 0.3), (door + 0.13, 0.3)], shade(paint, 0.4), 0.018))
    shapes += [disc(1.55, 0.25, 0.05, lamp, 0.04, depth=0.88), box(0.0, 0.22, 0.05, 0.3, (0.85, 0.2, 0.15), depth=0.88)]
    r, rim = rng.uniform(0.13, 0.17), near(rng, (0.75, 0.76, 0.78), WHITE, (0.4, 0.4, 0.42))
    for x in (0.32, 1.26):
        shapes += [disc(x, r - 0.01, r + 0.025, shade(paint, 0.3), depth=0.85), disc(x, r - 0.03, r, DARK, depth=0.9)]
        shapes += [
            disc(x, r - 0.03, r * 0.55, rim, material="glossy", depth=0.93),
            disc(x, r - 0.03, r * 0.18, DARK, depth=0.95),
        ]
    return shapes


def cars(rng: Rng) -> tuple[list[Shape], str]:
    """One to three cars."""
    shapes, x = car(rng), 0.0
    for _ in range(pick(rng, 0, 0, 1, 1, 2)):
        x += rng.uniform(0.35, 0.7) * pick(rng, -1, 1)
        shapes = moved(car(rng), x, rng.uniform(0.18, 0.3), rng.uniform(0.6, 0.8), depth=-0.1) + shapes
    return shapes, "standing"


def blossom(rng: Rng, petal: Colour, kind: str, r: float) -> list[Shape]:
    """One flower head of radius r around (0, 0), seen from the front or (tulips) from the side."""
    if kind == "tulip":
        cup = [(-0.75, 0.9), (-0.8, 0.0), (-0.4, -0.7), (0.4, -0.7), (0.8, 0.0), (0.75, 0.9), (0.3, 0.4), (-0.3, 0.4)]
        shapes = [area(np.array([(-0.4, 0.2), (0, 1.15), (0.4, 0.2)]) * r, shade(petal, 0.75), round_off=True)]
        shapes.append(area(np.array(cup) * r, petal, round_off=False, depth=0.85))
        return [*shapes, line(np.array([(0, -0.6), (-0.05, 0.3)]) * r, shade(petal, 0.7), r * 0.06)]
    n, first = int(rng.integers(5, 9)) if kind == "round" else int(rng.integers(10, 17)), rng.uniform(0, 60)
    wide = {"round": 2.1, "daisy": 2.6, "pointed": 2.9}[kind] / n
    heart, shapes = near(rng, (0.95, 0.8, 0.25), (0.4, 0.25, 0.15), (0.85, 0.5, 0.2)), []
    for ring, size in ((0, 1.0), (1, 0.72)) if kind != "daisy" or rng.random() < 0.4 else ((0, 1.0),):
        for i in range(n):
            angle = first + (i + ring * 0.5) * 360 / n
            s, c = np.sin(np.radians(angle)), np.cos(np.radians(angle))
            blade = np.array([(0.1, 0), (0.45, wide * 0.8), (0.8, wide), (1.0, 0), (0.8, -wide), (0.45, -wide * 0.8)])
            if kind == "pointed":
                blade = np.array(
                    [(0.1, 0), (0.5, wide), (0.75, wide * 0.5), (1.08, 0), (0.75, -wide * 0.5), (0.5, -wide)]
                )
            shapes.append(
                area(
                    blade @ np.array([[c, s], [-s, c]]) * r * size,
                    shade(petal, (0.85, 1.0, 1.12)[(i + ring) % 3]),
                    round_off=True,
                    depth=0.84 + ring * 0.03,
                )
            )
    return [
        *shapes,
        disc(0, 0, r * rng.uniform(0.2, 0.34), heart, depth=0.9),
        disc(0, 0, r * 0.12, shade(heart, 0.7), depth=0.92),
    ]


def flower(rng: Rng) -> tuple[list[Shape], str]:
    """One flower close up, a few on their stems, or a bunch in a vase."""
    green = near(rng, *GREEN)
    petal = near(
        rng,
        (0.9, 0.3, 0.35),
        (0.95, 0.75, 0.25),
        (0.6, 0.4, 0.8),
        WHITE,
        (0.95, 0.6, 0.7),
        (0.35, 0.45, 0.85),
        (0.95, 0.5, 0.2),
    )
    kind, layout = pick(rng, "round", "daisy", "pointed", "tulip"), pick(rng, "close", "stems", "stems", "vase")
    shapes: list[Shape] = []
    if layout == "close":
        shapes.append(limb([(0.05, -1.3), (0.1, -0.6), (0, 0)], [0.09, 0.08, 0.07], green))
        for k in (-1, 1):
            leaf = [(0.08, -0.95), (k * 0.35, -0.62), (k * 0.75, -0.6 + rng.uniform(0, 0.2)), (k * 0.4, -0.9)]
            shapes.append(area(leaf, shade(green, pick(rng, 0.8, 1.1)), round_off=True))
        return shapes + blossom(rng, petal, kind, 0.62), "standing"
    n = int(pick(rng, 1, 2, 3, 3)) if layout == "stems" else int(rng.integers(3, 7))
    heads = []
    for i in range(n):
        x = (i - (n - 1) / 2) * rng.uniform(0.22, 0.36)
        y, foot = rng.uniform(0.75, 1.1) - abs(x) * 0.3, x * 0.25
        shapes.append(limb([(foot, 0.0), (foot + x * 0.3, y * 0.5), (x, y)], [0.04, 0.035, 0.03], green, depth=0.75))
        for k in (-1, 1):
            at = np.array([foot + x * 0.3, y * rng.uniform(0.25, 0.5)])
            leaf = [
                at,
                at + (k * 0.1, 0.12),
                at + (k * rng.uniform(0.18, 0.28), rng.uniform(0.12, 0.25)),
                at + (k * 0.14, 0.04),
            ]
            shapes.append(area(leaf, shade(green, pick(rng, 0.75, 1.2)), round_off=True, depth=0.77))
        tint = petal if rng.random() < 0.6 else near(rng, petal, any_colour(rng))
        heads += moved(blossom(rng, tint, kind, rng.uniform(0.17, 0.24)), x, y, depth=0.02 * i)
    shapes += heads
    if layout == "vase":
        pot, w = any_colour(rng), rng.uniform(0.16, 0.24)
        outline = [(-w * 0.6, 0.4), (-w, 0.12), (-w * 0.6, -0.22), (w * 0.6, -0.22), (w, 0.12), (w * 0.6, 0.4)]
        shapes.append(area(outline, pot, material="glossy", depth=0.9, round_off=rng.random() < 0.6))
        shapes.append(line([(-w * 0.85, 0.1), (w * 0.85, 0.1)], shade(pot, pick(rng, 0.6, 2)), 0.05, depth=0.91))
    return shapes, "standing"


def twigs(
    rng: Rng, at: np.ndarray, angle: float, length: float, width: float, bark: Colour, depth: int
) -> tuple[list[Shape], list]:
    """A branch that forks `depth` times: its shapes, and where the last twigs end."""
    end = at + length * np.array([np.cos(angle), np.sin(angle)])
    shapes, ends = (
        [limb([at, (at + end) / 2 + rng.normal(0, length * 0.06, 2), end], [width, width * 0.65], bark, depth=0.78)],
        [end],
    )
    if depth:
        for turn in (
            rng.uniform(0.25, 0.7),
            -rng.uniform(0.25, 0.7),
            *((rng.uniform(-0.2, 0.2),) if rng.random() < 0.35 else ()),
        ):
            more, tips = twigs(rng, end, angle + turn, length * rng.uniform(0.62, 0.8), width * 0.62, bark, depth - 1)
            shapes, ends = shapes + more, ends + tips
    return shapes, ends


def tree(rng: Rng) -> tuple[list[Shape], str]:
    """Round and tall broad-leaved trees, bare ones, firs, palms; sometimes two."""
    shapes, x = one_tree(rng), 0.0
    if rng.random() < 0.3:
        x = rng.uniform(0.45, 0.8) * pick(rng, -1, 1)
        shapes = moved(one_tree(rng), x, 0.08, rng.uniform(0.5, 0.75), depth=-0.1) + shapes
    return shapes, "standing"


def branching(rng: Rng, kind: str, w: float, lean: float, bark: Colour, leaf: Colour) -> list[Shape]:
    """A tree whose branches show, with leaves or all but bare."""
    shapes, ends = twigs(
        rng, np.zeros(2), np.pi / 2 + lean, rng.uniform(0.28, 0.36), w * 1.2, bark, 3 if kind == "leafy" else 4
    )
    for end in ends if kind == "leafy" else ends[::3]:
        if end[1] > 0.3 and (kind == "leafy" or rng.random() < 0.3):
            r = rng.uniform(0.07, 0.13) if kind == "leafy" else 0.03
            shapes.append(
                disc(
                    *(end + rng.normal(0, 0.03, 2)),
                    r,
                    shade(leaf, rng.uniform(0.7, 1.2)),
                    r * 0.8,
                    depth=rng.uniform(0.8, 0.9),
                )
            )
    return shapes


def palm(rng: Rng, w: float, bark: Colour, leaf: Colour) -> list[Shape]:
    """A palm with a ringed trunk."""
    top, shapes = np.array([rng.uniform(-0.25, 0.25), 0.85]), []
    shapes.append(limb([(0, 0), (top[0] * 0.2, 0.45), top], [w, w * 0.6, w * 0.5], bark))
    shapes += [
        line(
            [(top[0] * y * y - w * 0.3, y * 0.85), (top[0] * y * y + w * 0.3, y * 0.85 + 0.015)],
            shade(bark, 0.6),
            0.012,
        )
        for y in np.arange(0.1, 0.95, 0.09)
    ]
    for angle in np.linspace(-0.5, 3.64, 8) + rng.uniform(-0.12, 0.12, 8):
        d = np.array([np.cos(angle), np.sin(angle) * 0.6])
        shapes.append(
            limb(
                [top, top + d * 0.25 + (0, 0.06), top + d * 0.5 - (0, 0.12)],
                [0.03, 0.11, 0.01],
                shade(leaf, rng.uniform(0.75, 1.15)),
            )
        )
    return [*shapes, *(disc(*(top + (k, -0.04)), 0.035, (0.45, 0.3, 0.18)) for k in (-0.03, 0.04))]


def one_tree(rng: Rng) -> list[Shape]:
    """One tree, about 1.1 high."""
    kind = pick(rng, "round", "round", "leafy", "leafy", "fir", "palm", "bare", "poplar")
    bark, leaf = near(rng, (0.4, 0.28, 0.2), (0.5, 0.42, 0.36), (0.85, 0.84, 0.8)), near(rng, *LEAF)
    trunk, w, lean = rng.uniform(0.3, 0.45), rng.uniform(0.07, 0.12), rng.uniform(-0.06, 0.06)
    if kind in ("bare", "leafy"):
        return branching(rng, kind, w, lean, bark, leaf)
    if kind == "palm":
        return palm(rng, w, bark, leaf)
    shapes = [limb([(0, 0), (lean * 0.4, trunk * 0.6), (lean, trunk * 1.4)], [w * 1.4, w, w * 0.7], bark, depth=0.78)]
    if kind == "fir":
        n, wide = int(rng.integers(3, 6)), rng.uniform(0.28, 0.42)
        for i in range(n):
            y, half, h = 0.18 + i * 0.85 / n, wide * (1 - i / (n + 0.6)), 1.15 / n
            jag = [(t * half, y + (0.04 if j % 2 else 0)) for j, t in enumerate(np.linspace(-1, 1, 9))]
            shapes.append(area([*jag, (0, y + h)], shade(leaf, 0.8 + 0.35 * i / n), depth=0.8 + 0.02 * i))
        return shapes
    rx, ry = (rng.uniform(0.13, 0.18), 0.42) if kind == "poplar" else (rng.uniform(0.32, 0.45), rng.uniform(0.25, 0.34))
    y = trunk + ry * 0.8
    shapes.append(limb([(lean * 0.8, trunk), (lean + 0.15 * rx, y)], [w * 0.6, w * 0.3], bark, depth=0.78))
    spots = sorted(
        rng.normal(0, 0.48, (int(rng.integers(9, 16)), 2)).clip(-0.9, 0.9).tolist(),
        key=lambda s: s[1] * 0.5 + rng.random(),
    )
    for i, (a, b) in enumerate([(0, 0), *spots]):
        r = rx * (0.8 if i == 0 else rng.uniform(0.32, 0.5))
        tone = shade(leaf, 0.72 if i == 0 else 0.85 + 0.3 * (b - a * 0.3) + rng.uniform(-0.05, 0.05))
        shapes.append(disc(lean + a * rx, y + b * ry, r, tone, r * (ry / rx) ** 0.5, depth=0.8 + 0.008 * i))
    if rng.random() < 0.3:
        fruit = near(rng, (0.85, 0.2, 0.18), (0.95, 0.6, 0.15), (0.95, 0.8, 0.85))
        shapes += [
            disc(lean + a * rx * 0.9, y + b * ry * 0.9, 0.028, fruit, depth=0.95)
            for a, b in rng.uniform(-0.7, 0.7, (9, 2))
        ]
    return shapes


CONTENTS = {
    "bicycle": bicycle, "bird": bird, "building": building, "cars": cars, "cat": cat,
    "dog": dog, "flower": flower, "people": people, "tree": tree,
}  # fmt: skip


def draw(content: str, rng: Rng) -> Drawing:
    """A new drawing of one of `CONTENTS` in front of a new background. KeyError for another content."""
    background, horizon = scene(rng)
    shapes, stand = CONTENTS[content](rng)
    shapes, floor = place(rng, shapes, stand, horizon)
    return Drawing(background + shapes, horizon, floor if stand == "standing" else 2.0)
