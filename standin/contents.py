"""The nine things that are depicted. Each is a function of a random generator and a thing's colours, and gives shapes.

To add one: write such a function and name it, with a hue, in CONTENTS. x runs to the right, y up from the feet, in any unit.
"""

from __future__ import annotations

import numpy as np

from standin.scenes import (
    Colour,
    Paint,
    Shape,
    area,
    box,
    disc,
    draw_paint,
    ellipse,
    hsv,
    limb,
    line,
    mirrored,
    moved,
    shade,
)

Rng = np.random.Generator


def toward(angle: float, length: float) -> np.ndarray:
    """The vector of this angle (radians, 0 to the right, counted upwards) and length: float64 [2]."""
    return length * np.array([np.cos(angle), np.sin(angle)])


def bicycle(rng: Rng, paint: Paint) -> list[Shape]:
    """Two wheels, a frame with a high or a low bar, a saddle and handlebars, sometimes a basket."""
    r, base, tube, tyre = rng.uniform((0.3, 0.95, 0.04, 0.05), (0.4, 1.15, 0.06, 0.075))
    back, front, crank = np.array([0, r]), np.array([base, r]), np.array([0.42 * base, r * 0.9])
    seat = np.array([base * rng.uniform(0.22, 0.32), r + rng.uniform(0.32, 0.5)])
    head = np.array([base * rng.uniform(0.76, 0.84), seat[1] + rng.uniform(0, 0.1)])
    top, pedal = head + (-0.02, 0.12), toward(rng.uniform(0, 3), 0.16)
    shapes = []
    for hub in (back, front):
        spokes = [toward(angle, r) for angle in rng.random() + np.arange(4) * np.pi / 4]
        shapes += [line([hub - spoke, hub + spoke], shade(paint.dark, 2.2), 0.012) for spoke in spokes]
        shapes += [line(ellipse(*hub, r, r), paint.dark, tyre), disc(*hub, 0.05, paint.second)]
    if rng.random() < 0.4:
        shapes.append(box(head[0] + 0.06, head[1] - 0.02, head[0] + 0.32, head[1] + 0.17, paint.second))
    bar = [seat, head] if rng.random() < 0.6 else [crank + (0.05, 0.12), head]
    tubes = [back, crank, seat, back], [crank, head, front], bar, [head, top], [seat, seat + (-0.02, 0.09)]
    shapes += [line(path, paint.main, tube) for path in tubes]
    grips = [(0.1, 0), (0.02, 0.05), (-0.14, 0.04)], [(-0.05, 0), (0.12, -0.02), (0.1, -0.14)]
    saddle = [(-0.17, 0.12), (0.02, 0.12), (0.14, 0.09), (-0.05, 0.06), (-0.16, 0.06)]
    shapes.append(line(top + grips[rng.integers(2)], paint.dark, 0.05, rounded=True))
    shapes.append(area(seat + saddle, paint.dark, rounded=True))
    return [*shapes, disc(*crank, 0.08, paint.dark), line([crank - pedal, crank + pedal], paint.dark, 0.04)]


def bird(rng: Rng, paint: Paint) -> list[Shape]:
    """A bird that stands or flies: a small round one, a long-necked one, or between the two."""
    flies, tilt, neck = rng.random() < 0.4, rng.uniform(-0.1, 0.35), rng.uniform(0, 0.35)
    fat, bill, sweep, lift = rng.uniform((0.38, 0.1, -0.4, 0.65), (0.56, 0.3, 0.1, 0.95))
    head = np.array([0.52 + neck * 0.3, 0.25 + tilt * 0.5 + neck])
    tail = [(-0.3, 0.05), (-0.85, -0.05 - tilt), (-0.8, -0.2 - tilt), (-0.3, -0.12)]
    wing = [(0.28, 0.1), (0.1, 0.2), (-0.25, 0.12), (-0.58, -0.15), (-0.1, -0.12), (0.2, -0.05)]
    if flies:
        wing = [(0.25, 0.05), (0.15 + sweep, lift), (sweep - 0.1, lift), (sweep * 0.6 - 0.2, lift * 0.4), (-0.15, 0)]
        shapes = [area(np.array(wing) + (0.16, 0.04), shade(paint.second, 0.65), rounded=True)]
    else:
        foot = -fat * 0.45 - rng.uniform(0.25, 0.25 + neck * 1.2)
        legs = [[(x, 0), (x + 0.03, foot), (x + 0.13, foot - 0.01)] for x in (-0.02, 0.14)]
        shapes = [line(leg, paint.accent, 0.035) for leg in legs]
    back = [(-0.45, -0.08), (0, 0), (0.35, 0.08 + tilt * 0.3), head]
    return [
        *shapes,
        area(tail, shade(paint.main, 0.7)),
        area(head + [(0.1, 0.06), (0.14 + bill, -0.02), (0.1, -0.07)], paint.accent),
        limb(back, [0.1, fat, fat * 0.75, 0.22], paint.main),
        disc(0.12, -0.1, 0.3, shade(paint.main, 1.8), fat * 0.24, 0.2),
        disc(*head, rng.uniform(0.15, 0.2), paint.main if rng.random() < 0.5 else paint.second),
        disc(*(head + (0.06, 0.04)), 0.045, paint.light),
        disc(*(head + (0.07, 0.04)), 0.025, paint.dark),
        area(wing, paint.second, rounded=True),
    ]


def building(rng: Rng, paint: Paint) -> list[Shape]:
    """A house, a church, a castle or a block: one to three bodies with their roofs, windows and a door."""
    shapes, x = [], 0.0
    glass = paint.accent if rng.random() < 0.3 else hsv(0.55, 0.35, rng.choice([0.35, 0.9]))
    for k in range(rng.integers(1, 4)):
        w, h = rng.uniform(0.45, 0.8), rng.uniform(0.45, 1.5)
        wall = shade(paint.main if k % 2 == 0 else paint.light, rng.uniform(0.85, 1.1))
        roof = shade(paint.second, rng.uniform(0.7, 1.0))
        shapes += [box(x, 0, x + w, h, wall), box(x + w * 0.82, 0, x + w, h, shade(wall, 0.78))]
        kind = rng.choice(["flat", "gable", "spire", "battlements"])
        if kind == "flat":
            shapes.append(box(x - 0.03, h, x + w + 0.03, h + 0.06, roof))
        elif kind == "battlements":
            shapes += [box(x + w * a, h, x + w * (a + 0.2), h + 0.12, wall) for a in (0, 0.4, 0.8)]
        else:
            top = h + w * (rng.uniform(0.4, 0.6) if kind == "gable" else rng.uniform(0.9, 1.3))
            shapes.append(area([(x - 0.06, h), (x + w / 2, top), (x + w + 0.06, h)], roof))
        columns, rows = rng.integers(2, 4), max(1, int(h / rng.uniform(0.22, 0.34)))
        pane, high = w * 0.5 / columns, h * 0.45 / rows
        for left in x + w * (np.arange(columns) + 0.25) / columns:
            lows = h * (np.arange(k == 0, rows) + 0.3) / rows  # the first body's ground floor has the door instead
            shapes += [box(left, low, left + pane, low + high, glass) for low in lows]
        if k == 0:
            shapes.append(box(w * 0.38, 0, w * 0.62, min(0.26, h * 0.6), paint.dark))
        x += w
    return shapes


def cars(rng: Rng, paint: Paint) -> list[Shape]:
    """A car from the side or from the front, sometimes a second one behind it."""
    make = car_front if rng.random() < 0.35 else car_side
    shapes = make(rng, paint)
    if rng.random() < 0.35:
        other = make(rng, paint._replace(main=paint.second, second=paint.main))
        shapes = moved(other, rng.choice([-0.9, 0.9]), 0.22, 0.75) + shapes
    return shapes


def car_side(rng: Rng, paint: Paint) -> list[Shape]:
    """A saloon, an estate or a van."""
    glass, r, hood = hsv(0.55, 0.2, rng.choice([0.3, 0.9])), rng.uniform(0.15, 0.2), rng.uniform(0.1, 0.6)
    rear, top, belt = rng.choice([0.05, 0.35]), rng.uniform(0.78, 1.0), 0.5
    roof = [(rear * 0.5, belt), (rear + 0.08, top), (1.55 - hood, top), (1.9 - hood, belt)]
    body = [(-0.05, 0.15), (-0.05, 0.45), (0.1, belt + 0.02), (1.9 - hood, belt), (1.95, 0.42), (2.0, 0.15)]
    high, middle = top - 0.06, 0.85 + (rear - hood) / 2
    panes = [(rear * 0.6 + 0.1, 0.53), (rear + 0.14, high), (1.52 - hood, high), (1.78 - hood, 0.53)]
    shapes = [area(roof, paint.main), area(body, paint.main), box(-0.03, 0.13, 1.98, 0.2, shade(paint.main, 0.6))]
    shapes += [area(panes, glass), line([(middle, 0.2), (middle, top)], shade(paint.main, 0.7), 0.05)]
    shapes += [disc(1.92, 0.36, 0.06, (1.0, 0.95, 0.7)), box(-0.05, 0.32, 0.03, 0.42, (0.85, 0.15, 0.12))]
    for x in (0.4, 1.6):
        shapes += [disc(x, r, r, paint.dark), disc(x, r, r * 0.55, shade(paint.light, 0.8))]
    return shapes


def car_front(rng: Rng, paint: Paint) -> list[Shape]:
    """Windscreen, two lamps, a grille, a bumper and two tyres."""
    w, high, slope = rng.uniform((0.5, 0.3, 0.08), (0.65, 0.45, 0.18))
    shapes = [box(x - 0.09, 0, x + 0.09, 0.3, paint.dark) for x in (-w + 0.12, w - 0.12)]
    shapes += [
        area(mirrored([(w - 0.04, 0.6), (w - slope, 0.6 + high)]), paint.main),
        area(mirrored([(w - 0.12, 0.62), (w - slope - 0.06, 0.54 + high)]), hsv(0.55, 0.2, rng.choice([0.3, 0.9]))),
        area(mirrored([(w, 0.15), (w + 0.02, 0.5), (w - 0.08, 0.64)]), paint.main),
        box(-w * 0.5, 0.3, w * 0.5, 0.46, paint.dark),
        box(-w - 0.02, 0.14, w + 0.02, 0.24, shade(paint.light, 0.75)),
    ]
    for x in (0.15 - w, w - 0.15):
        shapes += [disc(x, 0.42, 0.11, paint.light), disc(x, 0.42, 0.06, (1.0, 0.9, 0.6))]
    return shapes


def walking(rng: Rng, coat: Colour, thick: float) -> list[Shape]:
    """Body and four legs of a beast that walks to the right; shoulders at (0.95, 0.6)."""
    swing, shapes = rng.uniform(-0.14, 0.14), []
    for x, turn, light in ((0.16, -1, 0.7), (0.98, 1, 0.7), (0.04, 1, 1), (0.86, -1, 1)):
        leg = [(x, 0.5), (x + swing * turn * 0.5, 0.25), (x + swing * turn, 0.04)]
        shapes.append(limb(leg, [0.17, 0.1, 0.09], shade(coat, light)))
    return [*shapes, limb([(0.05, 0.56), (0.5, 0.53), (0.95, 0.6)], [thick, thick * 0.95, thick * 1.1], coat)]


def cat(rng: Rng, paint: Paint) -> list[Shape]:
    """A cat that sits, walks, or looks at us from near by, plain or with stripes."""
    pose, coat, head = rng.choice(["sit", "walk", "face"]), paint.main, cat_head(rng, paint)
    if pose == "face":
        chest = mirrored([(0.75, -1.3), (0.7, -0.75), (0.45, -0.3)])
        return [area(chest, shade(coat, 0.85), rounded=True), *moved(head, 0, 0, 3.0)]
    if pose == "walk":
        tail = [(0.02, 0.62), (-0.2, 0.7), (-0.3, 1.0), (rng.uniform(-0.5, -0.1), 1.25)]
        shapes = [limb(tail, [0.12, 0.1, 0.1, 0.08], coat), *walking(rng, coat, 0.3)]
        stripes = [[(x, 0.68), (x + 0.03, 0.52)] for x in (0.2, 0.36, 0.52, 0.68)]
        at = 1.12, rng.uniform(0.75, 0.95)
    else:
        side, tail = rng.uniform(0.3, 0.45), [(0.2, 0.08), (0.55, 0.05), (0.7, 0.3), (rng.uniform(0.5, 0.8), 0.55)]
        body = mirrored([(side, 0), (side, 0.35), (0.16, 0.85)])
        shapes = [limb(tail, [0.14, 0.13, 0.11, 0.09], shade(coat, 0.8)), area(body, coat, rounded=True)]
        shapes.append(disc(0, 0.5, 0.13, shade(coat, 1.8), 0.26))
        shapes += [limb([(x, 0.5), (x, 0.05)], [0.14, 0.12], shade(coat, 0.9)) for x in (-0.1, 0.1)]
        stripes = [[(k * side * 0.9, y), (k * 0.18, y + 0.03)] for y in (0.25, 0.42) for k in (-1, 1)]
        at = rng.normal(0, 0.06), 1.02
    if rng.random() < 0.5:
        shapes += [line(stripe, paint.dark, 0.04) for stripe in stripes]
    return shapes + moved(head, *at)


def cat_head(rng: Rng, paint: Paint) -> list[Shape]:
    """A round head of radius 0.29 with pointed ears and whiskers, seen from the front."""
    ear, iris, shapes = rng.uniform(0.28, 0.4), hsv(rng.choice([0.13, 0.3, 0.55]), 0.8, 0.9), []
    for k in (-1, 1):
        shapes.append(area([(k * 0.25, 0.06), (k * 0.24, ear + 0.08), (k * 0.04, 0.22)], paint.main))
        shapes.append(area([(k * 0.21, 0.12), (k * 0.21, ear + 0.01), (k * 0.09, 0.2)], paint.accent))
    shapes += [disc(0, 0, 0.29, paint.main, 0.25), disc(0, -0.1, 0.13, shade(paint.main, 1.9), 0.1)]
    for k in (-1, 1):
        shapes += [disc(k * 0.11, 0.05, 0.06, iris, 0.055), disc(k * 0.11, 0.05, 0.022, paint.dark, 0.05)]
        shapes += [line([(k * 0.1, -0.08), (k * 0.38, y)], paint.light, 0.012) for y in (-0.14, -0.04)]
    return [*shapes, area([(-0.04, -0.04), (0.04, -0.04), (0, -0.09)], paint.dark)]


def dog(rng: Rng, paint: Paint) -> list[Shape]:
    """A dog that walks, sits, or shows its head from near by, plain or with a patch, with or without a collar."""
    pose, coat, (snout, hang) = rng.choice(["walk", "sit", "head"]), paint.main, rng.uniform((0.2, 0.15), (0.36, 0.3))
    ear = shade(paint.second if rng.random() < 0.5 else coat, 0.75)
    if pose == "walk":
        at, tail = np.array([1.18, 0.98]), [(0.05, 0.64), (-0.18, 0.7), (-0.34, rng.uniform(0.5, 1.1))]
        shapes = [limb(tail, [0.13, 0.1, 0.05], coat), *walking(rng, coat, rng.uniform(0.32, 0.44))]
        shapes += [limb([(0.92, 0.62), (1.12, 0.9)], [0.34, 0.26], coat), disc(0.3, 0.6, 0.14, ear, 0.1, 0.3)]
    elif pose == "sit":
        at, tail = np.array([0.38, 1.18]), [(-0.1, 0.1), (-0.4, 0.08), (-0.55, rng.uniform(0.1, 0.5))]
        far, near = [(0.34, 0.6), (0.38, 0.04)], [(0.28, 0.6), (0.28, 0.05), (0.36, 0.04)]
        shapes = [limb(tail, [0.13, 0.1, 0.05], coat), limb(far, [0.16, 0.11], shade(coat, 0.7))]
        shapes.append(limb([(0.0, 0.25), (0.2, 0.7), (0.32, 1.05)], [0.52, 0.42, 0.26], coat))
        shapes.append(limb(near, [0.16, 0.11, 0.1], coat))
        shapes += [disc(0.02, 0.22, 0.24, ear), limb([(0.02, 0.05), (0.2, 0.05)], [0.12, 0.1], coat)]
    else:
        at, shapes = np.zeros(2), [limb([(-0.2, -0.48), (-0.1, -0.2), (-0.02, 0)], [0.55, 0.38, 0.3], coat)]
    if rng.random() < 0.6:
        shapes.append(line([at + (-0.25, -0.14), at + (0.01, -0.28)], paint.accent, 0.06))
    head = [
        limb([(0, 0), (snout, -0.06)], [0.3, 0.16], coat),
        disc(0, 0.03, 0.2, coat),
        disc(snout + 0.06, -0.03, 0.05, paint.dark),
        disc(0.1, 0.09, 0.035, paint.dark),
        line([(snout - 0.08, -0.12), (snout + 0.04, -0.1)], paint.dark, 0.02),
        limb([(-0.08, 0.13), (-0.16, -0.02), (-0.12, -hang)], [0.1, 0.17, 0.12], ear),
    ]
    return shapes + moved(head, *at)


def flower(rng: Rng, paint: Paint) -> list[Shape]:
    """One to four daisies, tulips or roses with leaves, in a pot or in the ground."""
    kind, count = rng.choice(["daisy", "tulip", "rose"]), int(rng.integers(1, 5))
    green = hsv(*rng.uniform((0.22, 0.4, 0.35), (0.42, 0.8, 0.7)))
    shapes, heads = [], []
    for x in np.linspace(-0.36, 0.36, count) if count > 1 else [0.0]:
        top, k = np.array([x * 1.3 + rng.normal(0, 0.05), rng.uniform(0.75, 1.15)]), rng.choice([-1, 1])
        leaf = np.array([(x * 0.4, rng.uniform(0.15, 0.35))]) + [
            (0, 0),
            (k * 0.16, 0.18),
            (k * 0.4, 0.22),
            (k * 0.2, 0),
        ]
        shapes.append(line([(x * 0.25, 0), (x * 0.6, 0.4), top], green, 0.045, rounded=True))
        shapes.append(area(leaf, shade(green, 0.85), rounded=True))
        heads += moved(bloom(rng, paint, kind), *top, rng.uniform(0.24, 0.34) * (1.3 if count == 1 else 0.85))
    if rng.random() < 0.5:
        shapes.append(area(mirrored([(0.2, -0.4), (0.28, 0.02)]), paint.second))
        shapes.append(box(-0.31, -0.05, 0.31, 0.05, shade(paint.second, 0.8)))
    return shapes + heads


def bloom(rng: Rng, paint: Paint, kind: str) -> list[Shape]:
    """The head of one flower, of radius 1."""
    if kind == "tulip":
        cup = mirrored([(0.35, -0.7), (0.7, 0), (0.6, 0.9), (0, 0.4)])
        middle = mirrored([(0.3, -0.7), (0.35, 0.1), (0, 0.95)])
        return [area(cup, shade(paint.main, 0.8)), area(middle, paint.main, rounded=True)]
    if kind == "rose":
        shapes = [disc(*toward(t, 0.35), 0.6, shade(paint.main, 0.75)) for t in (0.5, 1.8, 3.1, 4.4, 5.6)]
        rings = (0.7, 1.0), (0.52, 0.72), (0.38, 1.1), (0.2, 0.65)
        return shapes + [disc(0.05 * k, 0.04 * k, r, shade(paint.main, f)) for k, (r, f) in enumerate(rings)]
    count, start = rng.integers(6, 13), rng.random()
    shapes = []
    for k in range(count):
        t = start + k * 2 * np.pi / count
        shapes.append(disc(*toward(t, 0.6), 0.42, shade(paint.main, (1, 0.85)[k % 2]), 2 / count + 0.03, t))
    return [*shapes, disc(0, 0, 0.32, paint.accent), disc(0, 0, 0.2, shade(paint.accent, 0.7))]


def people(rng: Rng, paint: Paint) -> list[Shape]:
    """One to three people, small and tall, each in colours of their own."""
    shapes = person(rng, paint)
    for k in range(rng.integers(0, 3)):
        shapes += moved(person(rng, draw_paint(rng, rng.random())), 0.75 * (k + 1), 0, rng.uniform(0.65, 1.0))
    return shapes


def person(rng: Rng, paint: Paint) -> list[Shape]:
    """One person, 1.75 high, in trousers or a dress, who stands, walks, waves or cheers."""
    skin, hair = hsv(*rng.uniform((0.04, 0.3, 0.4), (0.09, 0.6, 0.95))), hsv(0.07, 0.6, rng.choice([0.12, 0.35, 0.8]))
    dress, stride, broad = rng.random() < 0.45, rng.uniform(0.03, 0.2), rng.uniform(0.15, 0.21)
    shapes = []
    for k in (-1, 1):
        foot = k * (0.08 + stride)
        leg = [(k * 0.08, 0.8), (k * 0.08 + foot * 0.4, 0.42), (foot, 0.03)]
        shapes.append(limb(leg, [0.19, 0.14, 0.1], skin if dress else paint.second))
        shapes.append(disc(foot + 0.04, 0.03, 0.1, paint.dark, 0.05))
        angle = rng.choice([-1.3, -1.1, 0.2, 0.9])
        elbow = np.array([k * (broad + 0.12), 1.25 + 0.22 * np.sin(angle)])
        hand = elbow + toward(angle, 0.3) * (k * 0.6, 1)
        shapes.append(limb([(k * broad * 0.9, 1.28), elbow, hand], [0.13, 0.11, 0.08], shade(paint.main, 0.8)))
        shapes.append(disc(*hand, 0.06, skin))
    body = [(0.36, 0.5), (0.12, 1.0), (broad, 1.35)] if dress else [(broad * 0.9, 0.75), (broad, 1.35)]
    shapes.append(area(mirrored(body), paint.main))
    if rng.random() < 0.5:
        shapes.append(disc(0, 1.5, 0.21, hair, 0.28))
    shapes += [line([(0, 1.3), (0, 1.45)], skin, 0.1), disc(0, 1.56, 0.16, skin, 0.19)]
    fringe = [(-0.18, 1.55), (-0.12, 1.72), (0, 1.8), (0.12, 1.72), (0.18, 1.55), (0.05, 1.66)]
    return [*shapes, area(fringe, hair, rounded=True), *(disc(x, 1.57, 0.022, paint.dark) for x in (-0.06, 0.06))]


def tree(rng: Rng, paint: Paint) -> list[Shape]:
    """A leafy tree, a fir, a palm or a bare one."""
    kind, bark = rng.choice(["leafy", "leafy", "fir", "palm", "bare"]), hsv(0.07, 0.45, rng.uniform(0.25, 0.5))
    green = hsv(rng.choice([0.08, 0.15, 0.28, 0.33, 0.4]), 0.6, rng.uniform(0.4, 0.8))
    leaf, bend = paint.main if rng.random() < 0.3 else green, rng.normal(0, 0.08)
    top, wide, high = np.array([bend * 1.5, 0.9]), rng.uniform(0.3, 0.5), rng.uniform(0.25, 0.45)
    shapes = [limb([(0, -0.02), (bend, 0.4), top], [rng.uniform(0.16, 0.28), 0.13, 0.09], bark)]
    if kind == "leafy":
        for t in np.linspace(0, 2 * np.pi, 9)[1:]:
            at = top + (0, 0.1) + toward(t, 0.75) * (wide, high)
            shapes.append(disc(*at, rng.uniform(0.2, 0.3), shade(leaf, 0.93 + 0.22 * np.sin(t))))
        shapes.append(disc(*top + (0, 0.12), wide * 0.75, leaf, high * 0.8))
        fruits = rng.normal(top + (0, 0.1), (wide * 0.5, high * 0.4), (rng.integers(0, 6), 2))
        shapes += [disc(*at, 0.045, paint.accent) for at in fruits]
    elif kind == "fir":
        for k in range(4):
            w, y = (wide + 0.05) * (1 - 0.2 * k), 0.3 + 0.3 * k
            shapes.append(area(mirrored([(w * 0.4, y + 0.07), (w, y), (0, y + 0.55)]), shade(leaf, 0.7 + 0.15 * k)))
    elif kind == "palm":
        for t in np.linspace(-0.5, np.pi + 0.5, 7) + rng.normal(0, 0.1, 7):
            end = toward(t, rng.uniform(0.5, 0.7)) * (1, 0.6)
            frond = top + [(0, 0), end * 0.6 + (0, 0.16), end + (0, -0.12)]
            shapes.append(limb(frond, [0.07, 0.14, 0.02], shade(leaf, rng.uniform(0.7, 1.15))))
    else:
        for t in np.array([-0.6, 0.1, 0.7]) + np.pi / 2 + rng.normal(0, 0.15, 3):
            fork = top + toward(t, 0.4)
            twigs = [fork + toward(t + turn, 0.35) for turn in (-0.4, 0.1, 0.5) + rng.normal(0, 0.1, 3)]
            shapes += [limb([top, fork], [0.1, 0.06], bark), *(limb([fork, tip], [0.06, 0.02], bark) for tip in twigs)]
    return shapes


# Each with the hue of its surroundings: as in the world, colours go with what is depicted, and an embedding of style
# has to learn to look through both.
CONTENTS = {
    "bicycle": (bicycle, 0.02),
    "bird": (bird, 0.55),
    "building": (building, 0.1),
    "cars": (cars, 0.66),
    "cat": (cat, 0.77),
    "dog": (dog, 0.22),
    "flower": (flower, 0.9),
    "people": (people, 0.15),
    "tree": (tree, 0.36),
}
