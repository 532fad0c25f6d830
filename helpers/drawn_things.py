"""Drawn things: eight classes for the stand-in classifiers of labs 04 and 05, each with a map of its parts.

A thing is a short description, which can be drawn again with one thing changed; so one can find out what a
network really uses:

    fish = next(thing for thing in sample_things(8) if thing.kind == "fish")
    shark = replace(fish, kind="shark")
    images, parts = draw_things([fish, shark, replace(shark, tail="round"), replace(shark, hidden=("tail",))])

Scenes, light, clutter, place and size are drawn from the same random numbers for all classes. Cats and dogs
are those of `helpers.drawn_pets`. A shark is none of the eight classes; it has the tail of a fish, drawn by
the same lines, and nothing else of it. The same things give the same pictures on every computer, for the
reason given in `helpers.canvas`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from helpers import drawn_pets
from helpers.canvas import (
    BACKGROUND_PAINTERS,
    BACKGROUNDS,
    BLACK,
    DARK,
    WHITE,
    Canvas,
    Coat,
    Colour,
    Dice,
    Light,
    Pen,
    cells,
    column,
    curve,
    dark,
    mix,
    one_of,
    picture_size,
    roll,
    wanted,
    wave,
    whole,
)
from helpers.drawn_pets import COLLARS, FURS, TONGUES, Pet, Pose

__all__ = [
    *("CLASS_NAMES", "OUTSIDERS", "PART_NAMES", "PARTS", "TAILS", "HIDEABLE", "BACKGROUNDS", "Thing"),
    *("sample_things", "draw_things", "draw_pair", "draw_texture"),
]

CLASS_NAMES: tuple[str, ...] = ("cat", "dog", "ball", "plant", "bone", "fish", "mug", "flower")
OUTSIDERS: tuple[str, ...] = ("shark", "umbrella", "car", "house")  # of none of the classes
TAILS: tuple[str, ...] = ("forked", "round")

# The pets' parts keep their numbers; "body" and "eyes" are those of fish and sharks too.
PART_NAMES: tuple[str, ...] = (
    *drawn_pets.PART_NAMES,
    *("fins", "tail", "ball", "pot", "leaves", "bone", "mug", "handle", "petals", "centre", "stem"),
    *("umbrella", "car", "house"),
)
PARTS: dict[str, tuple[str, ...]] = {  # what each kind is made of
    **dict.fromkeys(drawn_pets.CLASS_NAMES, drawn_pets.PART_NAMES[2:]),
    **dict.fromkeys(("fish", "shark"), ("body", "fins", "tail", "eyes")),
    **{"ball": ("ball",), "plant": ("pot", "leaves"), "bone": ("bone",), "mug": ("mug", "handle")},
    **{"flower": ("petals", "centre", "stem")},
    **{name: (name,) for name in ("umbrella", "car", "house")},
}
HIDEABLE: tuple[str, ...] = ("thing", *PART_NAMES[1:])

# How many random numbers each component of a picture has to itself. It may leave some over, but never takes
# from another: so a change in one of them leaves the others as they were.
STREAMS = {
    **{"who": 4, "light": 12, "background": 40, "clutter": 90, "front": 20, "place": 8},
    **{"paint": 40, "shape": 24, "tail": 6, "eyes": 8},
    **{"pose": 12, "fur": 24, "body": 8, "ears": 8, "face": 6, "muzzle": 8, "tongue": 4},  # of pets
}
BLOCK = len(CLASS_NAMES)  # consecutive numbers that hold every class once


@dataclass(frozen=True)
class Thing:
    """A thing in its scene. What is not said here (place, colours, light) follows from number and seed.

    Raises ValueError for values that it cannot have; so does `dataclasses.replace`.
    """

    number: int
    seed: int
    kind: str  # one of CLASS_NAMES, which is then the label, or of OUTSIDERS
    background: str
    tail: str = "forked"  # of TAILS; only fish and sharks have one
    hidden: tuple[str, ...] = ()  # parts left out, of HIDEABLE; "thing" leaves the scene only

    def __post_init__(self) -> None:
        whole(self.number, "number")
        whole(self.seed, "seed")
        one_of(self.kind, CLASS_NAMES + OUTSIDERS, "kind")
        one_of(self.background, BACKGROUNDS, "background")
        one_of(self.tail, TAILS, "tail")
        if not isinstance(self.hidden, tuple):
            raise ValueError(f'hidden is {self.hidden!r}; give a tuple, such as ("tail",).')
        for part in self.hidden:
            one_of(part, HIDEABLE, "every entry of hidden")


def sample_things(numbers: int | Sequence[int], *, seed: int = 0) -> list[Thing]:
    """Describe things of a series, to be drawn by `draw_things`.

    numbers  which things, each 0 to 2**32-1, in the order wanted; an int n means the first n, 0 to n-1
    seed     which series, 0 to 2**32-1

    A thing depends on its number and the seed only. Of the numbers 8k to 8k+7, each is of another class.
    Backgrounds tell nothing about the class. Raises ValueError for other numbers and seeds.
    """
    seed = whole(seed, "seed")
    return [_sample(number, seed) for number in wanted(numbers)]


def draw_things(things: Sequence[Thing], size: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Draw each thing in its scene.

    size  width and height in pixels, 32 to 512; the scene stays the same

    Returns images, uint8 (N, 3, size, size), red, green and blue from 0 to 255, and parts, uint8
    (N, size, size), indices into `PART_NAMES`. Shadows and steam belong to no part, but are hidden together
    with what they come from. Raises ValueError for other sizes, and for anything but things.
    """
    size, things = picture_size(size), _things(things)
    images = np.empty((len(things), 3, size, size), np.uint8)
    parts = np.empty((len(things), size, size), np.uint8)
    for place, thing in enumerate(things):
        images[place], parts[place], _ = _draw([thing], size)
    return images, parts


def draw_pair(left: Thing, right: Thing, size: int = 96) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw two things in one picture, which has the background, clutter and light of `left`.

    Returns image, uint8 (3, size, size), parts, uint8 (size, size), indices into `PART_NAMES`, and owners,
    uint8 (size, size): whose part that is, 1 for the left thing, 2 for the right one, 0 for neither.
    Raises ValueError as `draw_things` does.
    """
    return _draw(_things([left, right]), picture_size(size))


def draw_texture(number: int, *, size: int = 96) -> np.ndarray:
    """Draw an abstract texture, in which there is no thing at all.

    number  which one, 0 to 2**32-1
    size    width and height in pixels, 32 to 512

    Returns an image, uint8 (3, size, size). Raises ValueError for other numbers and sizes.
    """
    canvas = Canvas(picture_size(size))
    dice = roll(whole(number, "number"), 0, {"light": 12, "texture": 40}, 1)
    light, dice = Light(dice["light"]), dice["texture"]
    canvas.lay(1, dice.colour())
    for _ in range(3):
        pen = Pen(canvas, size / 2, size / 2, float(size), 0.0).at(0, 0, dice.between(-1, 1))
        u, v = pen.own((slice(None), slice(None)))
        knots = dice.pick((4, 5, 8, 16))
        wild = canvas.noise(dice, knots, knots)
        kind, step = dice.between(0, 1), dice.between(5, 14)
        if kind < 0.35:
            cover = (wave(v * step + wild * 3) - 0.5) * 4
        elif kind < 0.7:
            cover = (wild - 0.5) * 8
        else:
            cover = (wave(u * step + wild) * wave(v * step + wild) - 0.3) * 5
        canvas.lay(cover.clip(0, 1) * dice.between(0.5, 0.95), dice.colour(0.3, 1))
    return light.expose(canvas)


# ------------------------------------------------------------------------------------------ descriptions


def _things(values: Sequence[Thing]) -> list[Thing]:
    if not isinstance(values, Iterable) or not all(isinstance(value, Thing) for value in values):
        raise ValueError(f"things is {values!r}; give a list of things, such as sample_things(8).")
    return list(values)


def _dice(number: int, seed: int) -> dict[str, Dice]:
    """The dice of each component of a thing's picture."""
    return roll(number, seed, STREAMS, BLOCK)


def _sample(number: int, seed: int) -> Thing:
    first = number - number % BLOCK
    # the block's order of classes: that of eight random numbers
    order = sorted(range(BLOCK), key=lambda other: _dice(first + other, seed)["who"].between(0, 1))
    light = Light(_dice(number, seed)["light"])
    return Thing(number, seed, CLASS_NAMES[order[number % BLOCK]], light.background)


# ------------------------------------------------------------------------------------------ clutter
# None of it is of a class or an outsider. It stands on the ground at (0, 0) and is one to two units high.


def _book(pen: Pen, colour: Colour, other: Colour) -> None:
    pen.polygon([(-0.6, -1.5), (0.6, -1.5), (0.6, 0), (-0.6, 0)], colour, line=True)
    pen.polygon([(-0.3, -1.25), (0.4, -1.25), (0.4, -0.85), (-0.3, -0.85)], other)
    pen.limb([(-0.45, -1.45), (-0.45, -0.05)], 0.04, dark(colour, 0.7))


def _cone(pen: Pen, colour: Colour, other: Colour) -> None:
    pen.polygon([(-0.7, 0), (0.7, 0), (0, -1.6)], colour, wider=0.06, line=True)
    pen.polygon([(-0.42, -0.6), (0.42, -0.6), (0.26, -0.95), (-0.26, -0.95)], other)


def _bottle(pen: Pen, colour: Colour, other: Colour) -> None:
    pen.polygon([(-0.16, -1.75), (0.16, -1.75), (0.16, -1), (-0.16, -1)], other, line=True)
    pen.limb([(0, -0.95), (0, -0.4)], 0.42, colour, line=True, shade=0.15)
    pen.polygon([(-0.41, -0.85), (0.41, -0.85), (0.41, -0.45), (-0.41, -0.45)], other)


def _disc(pen: Pen, colour: Colour, other: Colour) -> None:
    """Rings like an eye's: so an eye alone proves nothing."""
    pen.ellipse(0, -0.8, 0.8, 0.8, other, line=True)
    pen.ellipse(0, -0.8, 0.52, 0.52, colour, line=True)
    pen.ellipse(0, -0.8, 0.25, 0.25, DARK)


def _cushion(pen: Pen, colour: Colour, other: Colour) -> None:
    pen.polygon([(-0.8, -0.7), (0.8, -0.7), (0.9, -0.1), (-0.9, -0.1)], colour, wider=0.16, line=True)
    for x in (-0.45, 0.0, 0.45):
        pen.limb([(x, -0.7), (1.1 * x, -0.1)], 0.06, other)


def _fan(pen: Pen, colour: Colour, other: Colour) -> None:
    """Much like a round tail fin: so this alone is no fish."""
    pen.limb([(0, 0), (0, -0.4)], 0.12, other, line=True)
    pen.ellipse(0, -1, 0.8, 0.65, colour, line=True)
    for x, y in ((-0.5, -1.15), (-0.18, -1.4), (0.18, -1.4), (0.5, -1.15)):
        pen.limb([(0.1 * x, -0.5), (x, y)], 0.035, dark(colour, 0.6))


def _star(pen: Pen, colour: Colour, other: Colour) -> None:
    for tilt in (0.0, 1.0):
        for flat in (0.0, 1.0):
            pen.leaf(0, -0.1, 0.8 - 0.25 * flat, 0.22, colour, tilt=0.41 * flat + tilt, line=True)
    pen.ellipse(0, -0.1, 0.24, 0.24, other)


def _kite(pen: Pen, colour: Colour, other: Colour) -> None:
    pen.limb(curve((0, 0.9), (0.5, 1.4), (0, 2.0)), 0.04, dark(colour, 0.6))
    pen.polygon([(0, -0.9), (0.6, -0.1), (0, 0.9), (-0.6, -0.1)], colour, line=True)
    pen.polygon([(0, -0.9), (0.6, -0.1), (0, -0.1)], other)


ON_THE_GROUND = (_book, _cone, _bottle, _disc, _fan, drawn_pets.gift)
IN_THE_AIR = (drawn_pets.balloon, drawn_pets.butterfly, _star, _kite)
LARGE = (_book, drawn_pets.gift, _cushion)  # before the thing


# ------------------------------------------------------------------------------------------ place and paint


class Place:
    """How a thing is placed. x, y, r: its middle and half its size, in widths of the picture."""

    def __init__(self, dice: Dice, half: int | None = None) -> None:
        """half: 0 or 1 for the left or the right half of the picture, which the thing then shares."""
        self.r = dice.between(0.2, 0.3) + (0.07 if dice.chance(0.25) else 0.0)
        room = 1.1 * self.r  # fish are the widest
        self.x, self.y = dice.between(room, 1 - room), dice.between(0.46, 0.7)
        self.tilt, self.side = dice.between(-0.16, 0.16), dice.side()
        if half is not None:
            self.x, self.r = 0.23 + 0.06 * self.x + 0.48 * half, 0.21

    def upright(self, pen: Pen) -> Pen:
        return pen.at(self.x, self.y, 0.0, self.r, self.side)


def _colour(dice: Dice) -> Colour:
    """Of things, which have the colours of furs at times: so colours tell little."""
    muted, fur, bright = dice.chance(0.45), dice.pick(FURS), dice.colour(0.35, 0.95)
    return fur if muted else bright


def _other(dice: Dice, base: Colour) -> Colour:
    """A colour for a pattern on `base`: far enough from it."""
    other = _colour(dice)
    if sum(abs(a - b) for a, b in zip(base, other, strict=True)) < 0.5:
        return mix(base, WHITE, 0.7) if sum(base) < 1.6 else dark(base, 0.5)
    return other


def _stuff(canvas: Canvas, dice: Dice, colour: Colour) -> np.ndarray:
    """A colour that is not quite even, as of paint or felt, (3, size, size)."""
    return column(colour) * (canvas.noise(dice, 5, 5) * 0.2 + 0.88)


def _cloth(pen: Pen, dice: Dice, base: Colour, other: Colour, patterns: Sequence[str]) -> Coat:
    """`base` with a pattern of `other`."""
    pattern, step, shift = dice.pick(patterns), dice.between(1.6, 2.8), dice.between(0, 1)
    pixels = _stuff(pen.canvas, dice, base)
    u, v = pen.own((slice(None), slice(None)))
    if pattern == "bands":  # upright
        cover = (wave(u * step + shift) - 0.55) * 6
    elif pattern == "stripes":  # level
        cover = (wave(v * step + shift) - 0.55) * 6
    elif pattern == "dots":
        a, b = cells(u * 1.5 * step) - 0.5, cells(v * 1.5 * step) - 0.5
        cover = (0.3 - np.sqrt(a * a + b * b)) * 10
    elif pattern == "patches":
        cover = (pen.canvas.noise(dice, 5, 5) - 0.52) * 12
    elif pattern == "scales":
        row = v * 4.5
        a, b = cells(u * 4 + 0.5 * (np.floor(row) % 2)) - 0.5, cells(row)
        cover = 0.9 - np.abs(np.sqrt(a * a + b * b) - 0.5) * 7
    elif pattern == "half":  # the lower part
        cover = (v - 0.25 * shift) * 12
    else:
        return Coat(pixels, dark(base))
    return Coat(pixels + cover.clip(0, 1) * (column(other) - pixels), dark(base))


# ------------------------------------------------------------------------------------------ the things
# Each fits into two units of width and height around (0, 0). `show` starts a part, unless that is hidden.

Show = Callable[[str], bool]

PENTAGON = ((0.0, -1.0), (0.95, -0.31), (0.59, 0.81), (-0.59, 0.81), (-0.95, -0.31))
PETAL_TURNS = {5: 0.72654, 6: 0.57735, 7: 0.48157, 8: 0.41421, 10: 0.32492, 12: 0.26795}  # tan(pi / n)


def _ball(pen: Pen, thing: Thing, dice: dict[str, Dice], show: Show) -> None:
    paint, shape = dice["paint"], dice["shape"]
    base = _colour(paint)
    other = _other(paint, base)
    turned = pen.at(0, 0.1, shape.between(-0.9, 0.9))
    u, v = turned.own((slice(None), slice(None)))
    style = shape.pick(("beach", "beach", "football", "seam", "band", "dots", "plain"))
    pixels = _stuff(pen.canvas, paint, base)
    if style == "beach":  # six sectors
        x, y = u + 0.2, v + 0.15
        sides = [(side * 9).clip(-1, 1) for side in (x, 0.5 * x + 0.87 * y, 0.5 * x - 0.87 * y)]
        cover = sides[0] * sides[1] * sides[2] * 0.5 + 0.5
    elif style == "band":
        bent = v + 0.25 * u * u
        cover = (0.26 - np.abs(bent)) * 12
    elif style == "dots":
        a, b = cells(u * 1.7 + 0.5) - 0.5, cells(v * 1.7 + 0.5) - 0.5
        cover = (0.27 - np.sqrt(a * a + b * b)) * 10
    else:
        cover = None
    if cover is not None:
        pixels = pixels + cover.clip(0, 1) * (column(other) - pixels)
    if not show("ball"):
        return
    pen.ellipse(0, 0.1, 0.9, 0.9, Coat(pixels, dark(base)), line=True, shade=0.3)
    if style == "seam":
        for side in (-1, 1):
            turned.arc(0, 0.32 * side, 0.72, 0.3 * side, 0.045, WHITE)
    elif style == "football":
        _patch(turned, 0.25, DARK)
        spoke = turned
        for _ in range(5):
            spoke = spoke.at(0, 0, PETAL_TURNS[5])
            spoke.limb([(0, -0.25), (0, -0.6)], 0.03, DARK)
            _patch(spoke.at(0, -0.71), -0.17, DARK)
    pen.ellipse(-0.34 * pen.flip, -0.3, 0.17, 0.12, WHITE, tilt=-0.3 * pen.flip, alpha=0.6)


def _patch(pen: Pen, size: float, colour: Colour) -> None:
    pen.polygon([(size * x, size * y) for x, y in PENTAGON], colour, wider=0.02)


def _green(dice: Dice) -> Colour:
    """Of leaves, at times in autumn."""
    green = mix((0.14, 0.42, 0.2), (0.5, 0.68, 0.26), dice.between(0, 1))
    odd, other = dice.chance(0.3), dice.colour(0.35, 0.8)
    return other if odd else green


STALKS = ((-0.75, -0.55), (0.75, -0.6), (-0.4, -0.95), (0.42, -1.0), (0.02, -0.75), (0.0, -1.2))
SPIKES, BLADES = (-0.75, 0.75, -0.5, 0.5, -0.24, 0.24, 0.0), (-0.6, 0.6, -0.28, 0.28, 0.0)  # tilts


def _plant(pen: Pen, thing: Thing, dice: dict[str, Dice], show: Show) -> None:
    paint, shape = dice["paint"], dice["shape"]
    green, base = _green(paint), _colour(paint)
    cloth = _cloth(pen, paint, base, _other(paint, base), ("plain", "plain", "stripes", "dots", "half"))
    style = shape.pick(("spiky", "spiky", "broad", "stalks", "cactus"))
    pot = shape.pick(("cone", "bowl", "box"))
    high, deep = shape.between(0.85, 1.1), dark(green, 0.72)
    root = pen.at(0, 0.32)
    if show("leaves"):
        if style == "cactus":
            root.limb([(0, 0.2), (0, -0.85 * high)], 0.34, green, line=True, shade=0.2)
            for side in (-1, 1):
                arm = root.at(0, 0, flip=side)
                low = -0.3 - 0.2 * (side > 0)
                arm.limb([(0.3, low), (0.62, low - 0.02), (0.64, low - 0.36 * high)], 0.14, green, line=True)
                arm.limb([(0.2, low), (0.4, low)], 0.13, green)
            for x in (-0.16, 0.0, 0.16):
                root.limb([(x, 0), (x, -0.95 * high)], 0.018, deep)
        elif style == "stalks":  # round leaves on long stalks
            for x, y in STALKS:
                root.limb([(0.15 * x, 0), (0.8 * x, 0.8 * y * high)], 0.035, deep)
                root.ellipse(x, y * high, 0.29, 0.25, green, tilt=0.25 * x, line=True, shade=0.15)
        else:
            fat, tilts = (0.13, SPIKES) if style == "spiky" else (0.26, BLADES)
            for place, tilt in enumerate(tilts):
                blade = root.at(0, 0.1, tilt)
                long = (0.6 + 0.05 * place) * high
                blade.leaf(0, -long, long, fat, (green, dark(green, 0.84))[place % 2], tilt=1.0, line=True)
                blade.limb([(0, -0.3 * long), (0, -1.7 * long)], 0.016, deep)
    if show("pot"):
        top, low = {"cone": (0.58, 0.4), "bowl": (0.6, 0.44), "box": (0.52, 0.5)}[pot]
        sides = [(-top, 0), (top, 0), (low, 0.66), (-low, 0.66)]
        root.polygon(sides, cloth, wider=0.03, line=True, shade=0.12)
        if pot != "box":
            rim = [(-top - 0.06, -0.1), (top + 0.06, -0.1), (top + 0.06, 0.1), (-top - 0.06, 0.1)]
            root.polygon(rim, dark(base, 0.85), wider=0.02, line=True)


def _bone(pen: Pen, thing: Thing, dice: dict[str, Dice], show: Show) -> None:
    paint, shape = dice["paint"], dice["shape"]
    ivory, tinted = mix((0.96, 0.93, 0.85), (0.82, 0.72, 0.56), paint.between(0, 1)), _colour(paint)
    base = tinted if paint.chance(0.5) else ivory
    cloth = _cloth(pen, paint, base, _other(paint, base), ("plain", "plain", "plain", "patches", "dots"))
    knob, thick, bent = shape.between(0.27, 0.36), shape.between(0.17, 0.27), shape.between(-0.12, 0.12)
    bone = pen.at(0, 0.25, shape.between(-0.35, 0.35))
    if not show("bone"):
        return
    for line in (True, False):  # once with outlines, then once more without: so none runs through it
        for x in (-0.72, 0.72):
            for y in (-0.62, 0.62):
                bone.ellipse(x, y * knob + bent, knob, 0.95 * knob, cloth, line=line, shade=0.1)
        bone.limb([(-0.66, bent), (0, -bent), (0.66, bent)], thick, cloth, line=line)
    bone.limb([(-0.4, 0.5 * bent - 0.5 * thick), (0.3, 0.2 * bent - 0.5 * thick)], 0.03, WHITE, alpha=0.6)


def _tail(pen: Pen, kind: str, dice: Dice, colour: Colour) -> None:
    """The tail fin of fish and sharks alike, one unit long from (0, 0) to the right."""
    line = dark(colour, 0.6)
    wide = dice.between(0.92, 1.08)
    if kind == "forked":
        upper = [(-0.12, 0.17), (-0.12, -0.17), (0.5, -0.78 * wide), (1.05, -1.02 * wide), (0.5, 0.1)]
        lower = [(x, -y) for x, y in upper]
        for how in (True, False):
            pen.polygon(upper, colour, wider=0.03, line=how)
            pen.polygon(lower, colour, wider=0.03, line=how)
        ends = ((0.78, -0.76 * wide), (0.58, -0.38 * wide))
    else:
        pen.ellipse(0.42, 0, 0.5, 0.62 * wide, colour, line=True)
        pen.limb([(-0.1, 0), (0.2, 0)], 0.17, colour)
        ends = ((0.66, -0.4 * wide), (0.8, -0.14 * wide))
    for x, y in ends:
        for side in (-1, 1):
            pen.limb([(0.12, 0.06 * side), (x, side * y)], 0.03, line)


FISHES = {  # half their length, and half their height
    **{"oval": (0.78, 0.42), "leaf": (0.78, 0.46), "round": (0.66, 0.6)},
    **{"long": (0.78, 0.27), "kite": (0.68, 0.66)},
}


def _fish(pen: Pen, thing: Thing, dice: dict[str, Dice], show: Show) -> None:
    """All but the tail varies much; no fin but the tail is pointed, as a shark's are."""
    paint, shape, eyes = dice["paint"], dice["shape"], dice["eyes"]
    base = _colour(paint)
    other, fins = _other(paint, base), _colour(paint)
    patterns = ("plain", "bands", "stripes", "dots", "patches", "scales", "scales", "half")
    cloth = _cloth(pen, paint, base, other, patterns)
    form = shape.pick(tuple(FISHES))
    half, high = FISHES[form]
    high *= shape.between(0.88, 1.12)
    middle = 0.52 - half
    back, belly, side = shape.pick(("none", "low", "sail", "spines")), shape.chance(0.5), shape.chance(0.6)
    cheek, mouth = shape.chance(0.4), shape.pick(("none", "smile", "lips"))
    if show("tail"):
        _tail(pen.at(0.42, 0, 0.0, 0.62), thing.tail, dice["tail"], fins)
    if show("fins"):
        if back == "low":
            pen.leaf(middle + 0.05, -0.86 * high, 0.42, 0.18, fins, tilt=0.06, line=True)
        elif back == "sail":
            pen.ellipse(middle + 0.1, -0.95 * high, 0.34, 0.26, fins, tilt=0.15, line=True)
        elif back == "spines":
            for x in (-0.3, -0.15, 0.0, 0.15, 0.3):
                root, tip = (middle + x, -0.6 * high), (middle + x + 0.1, -high - 0.2)
                pen.limb([root, tip], 0.045, fins, line=True)
        if belly:
            pen.leaf(middle + 0.16, 0.92 * high, 0.26, 0.13, fins, tilt=0.3, line=True)
    if show("body"):
        if form == "leaf":
            pen.leaf(middle, 0, half + 0.06, high, cloth, line=True, shade=0.18)
        elif form == "kite":
            corners = [(middle - half, 0), (middle, -0.8 * high), (middle + half, 0), (middle, 0.8 * high)]
            pen.polygon(corners, cloth, wider=0.12, line=True, shade=0.12)
        else:
            pen.ellipse(middle, 0, half, high, cloth, line=True, shade=0.18)
        front = middle - half
        if cheek:
            pen.arc(front + 0.52, 0.02, 0.5 * high, 0.1, 0.022, dark(base), tilt=1.0)
        if mouth == "smile":
            pen.arc(front + 0.16, 0.3 * high, 0.1, -0.05, 0.025, DARK)
        elif mouth == "lips":
            for y in (-0.04, 0.06):
                pen.ellipse(front + 0.01, y + 0.02, 0.07, 0.055, mix(base, (0.95, 0.4, 0.4), 0.6), line=True)
    if side and show("fins"):
        pen.leaf(middle + 0.1, 0.16 * high, 0.2, 0.1, fins, tilt=0.25, line=True)
    if show("eyes"):
        look, size = eyes.pick(("ring", "dot", "sleepy", "ring")), eyes.between(0.08, 0.14)
        eye = pen.at(middle - 0.62 * half, -0.2 * high)
        if look == "dot":
            eye.ellipse(0, 0, 0.6 * size, 0.6 * size, DARK, line=True)
        else:
            eye.ellipse(0, 0, size, size, WHITE, line=True)
            eye.ellipse(-0.02, 0.01, 0.55 * size, 0.55 * size, DARK)
            if look == "sleepy":
                lid = [(-0.5 * size, -0.45 * size), (0.5 * size, -0.45 * size)]
                eye.limb(lid, 0.42 * size, dark(base, 0.8))


def _shark(pen: Pen, thing: Thing, dice: dict[str, Dice], show: Show) -> None:
    """Long and grey with a white belly and pointed fins; of a fish it has the tail only."""
    paint, eyes = dice["paint"], dice["eyes"]
    grey = mix((0.36, 0.42, 0.5), (0.58, 0.62, 0.66), paint.between(0, 1))
    _, v = pen.own((slice(None), slice(None)))
    skin, white = _stuff(pen.canvas, paint, grey), column((0.93, 0.94, 0.95))
    coat = Coat(skin + ((v - 0.07) * 25).clip(0, 1) * (white - skin), dark(grey))
    if show("tail"):
        _tail(pen.at(0.42, 0, 0.0, 0.62), thing.tail, dice["tail"], grey)
    if show("fins"):
        back = [(-0.3, -0.15), (0.12, -0.62), (0.16, -0.6), (0.12, -0.1)]
        pen.polygon(back, dark(grey, 0.9), wider=0.03, line=True)
    if show("body"):
        body = [(-0.62, 0.0), (-0.1, 0.0), (0.5, 0.0)]
        for line in (True, False):
            pen.leaf(-0.62, -0.02, 0.5, 0.23, coat, tilt=0.03, line=line)
            pen.limb(body, 0.26, coat, thin=0.1, line=line)
        for x in (-0.38, -0.3, -0.22, -0.14):
            pen.limb([(x, -0.1), (x - 0.03, 0.08)], 0.018, dark(grey))
        pen.limb([(-0.88, 0.1), (-0.56, 0.13)], 0.022, DARK)
        for x in (-0.82, -0.72, -0.62):
            pen.polygon([(x - 0.04, 0.11), (x + 0.04, 0.115), (x, 0.18)], WHITE, wider=0.01)
    if show("fins"):
        breast = [(-0.22, 0.12), (0.02, 0.14), (0.3, 0.5), (0.2, 0.5)]
        pen.polygon(breast, dark(grey, 0.9), wider=0.03, line=True)
    if show("eyes"):
        pen.ellipse(-0.72, -0.06, eyes.between(0.03, 0.045), 0.04, DARK, line=True)


DRINKS: tuple[Colour, ...] = (
    *((0.3, 0.18, 0.1), (0.72, 0.5, 0.32), (0.78, 0.42, 0.14), (0.93, 0.9, 0.84), (0.5, 0.66, 0.3)),
)


def _mug(pen: Pen, thing: Thing, dice: dict[str, Dice], show: Show) -> None:
    paint, shape = dice["paint"], dice["shape"]
    base = _colour(paint)
    other, drink = _other(paint, base), paint.pick(DRINKS)
    cloth = _cloth(pen, paint, base, other, ("plain", "plain", "bands", "stripes", "dots", "half", "patches"))
    wide, high, low = shape.between(0.5, 0.62), shape.between(0.56, 0.76), shape.between(0.78, 1.0)
    sign, steam, square = shape.pick(("none", "none", "heart", "disc")), shape.chance(0.6), shape.chance(0.4)
    pen = pen.at(-0.2, 0.15)
    if show("handle"):
        reach, top, end = wide + 0.48, -0.55 * high, 0.55 * high
        bends = [(reach - 0.1, top), (reach, 0.05), (reach - 0.14, end)]
        if square:
            bends = [(reach, top), (reach, end)]
        ring = [(0.8 * wide, top), *bends, (0.8 * wide, end)]
        pen.limb(ring, 0.1, Coat(cloth.pixels * np.float32(0.92), cloth.line), line=True)
    if not show("mug"):
        return
    foot = low * wide
    sides = [(-wide, -high), (wide, -high), (foot, high), (-foot, high)]
    for line in (True, False):
        pen.ellipse(0, high, foot, 0.14, cloth, line=line)
        pen.polygon(sides, cloth, line=line, shade=0.15)
    if sign == "heart":
        for x in (-0.1, 0.1):
            pen.ellipse(x, 0.1, 0.13, 0.13, other)
        pen.polygon([(-0.2, 0.17), (0.2, 0.17), (0, 0.42)], other, wider=0.02)
    elif sign == "disc":
        pen.ellipse(0, 0.18, 0.22, 0.22, other, line=True)
    pen.ellipse(0, -high, wide, 0.17, mix(base, WHITE, 0.35), line=True)
    pen.ellipse(0, -high + 0.02, 0.82 * wide, 0.115, drink, line=True)
    if steam:
        for x in (-0.22, 0.08):
            low, middle, top = -high - 0.06, -high - 0.36, -high - 0.66
            for half in (
                curve((x, low), (x - 0.2, low - 0.18), (x, middle)),
                curve((x, middle), (x + 0.2, low - 0.4), (x, top)),
            ):
                pen.limb(half, 0.05, WHITE, alpha=0.45)


def _flower(pen: Pen, thing: Thing, dice: dict[str, Dice], show: Show) -> None:
    paint, shape = dice["paint"], dice["shape"]
    green, base = _green(paint), _colour(paint)
    petal = Coat(_stuff(pen.canvas, paint, base), dark(base))
    middle = paint.pick(((0.97, 0.78, 0.2), (0.4, 0.25, 0.15), (0.95, 0.9, 0.7), (0.85, 0.45, 0.2)))
    count, style = shape.pick((5, 6, 7, 8, 10, 12)), shape.pick(("oval", "pointed", "heart"))
    double, disc, bend = shape.chance(0.35), shape.between(0.16, 0.27), shape.between(-0.3, 0.3)
    leaves, turn = shape.pick((1, 2, 2, 3)), shape.between(-0.3, 0.3)
    if show("stem"):
        pen.limb(curve((-0.3 * bend, 1.0), (bend, 0.5), (0, -0.3)), 0.05, dark(green, 0.9), line=True)
        for place in range(leaves):
            side = 1 if place % 2 else -1
            leaf = pen.at(0.35 * bend, 0.85 - 0.17 * place, -0.28, flip=side)
            leaf.leaf(0.36, 0, 0.34, 0.14, green, line=True)
    head = pen.at(0, -0.32, turn)
    if show("petals"):
        fat = {5: 0.3, 6: 0.26, 7: 0.23, 8: 0.2, 10: 0.17, 12: 0.15}[count]
        for layer in (1.0, 0.72) if double else (1.0,):
            spoke = head.at(0, 0, 0.5 * PETAL_TURNS[count] if layer < 1 else 0.0, layer)
            for _ in range(count):
                spoke = spoke.at(0, 0, PETAL_TURNS[count])
                if style == "pointed":
                    spoke.leaf(0, -0.38, 0.36, fat, petal, tilt=1.0, line=True)
                elif style == "heart":
                    for x in (-0.45, 0.45):
                        spoke.ellipse(x * fat, -0.46, 0.62 * fat, 0.25, petal, tilt=0.25 * x, line=True)
                else:
                    spoke.ellipse(0, -0.42, fat, 0.3, petal, line=True, shade=0.1)
    if show("centre"):
        head.ellipse(0, 0, disc, disc, middle, line=True, shade=0.15)
        for x, y in ((-0.4, -0.2), (0.3, -0.4), (0.1, 0.35), (-0.3, 0.4), (0.5, 0.2)):
            head.ellipse(x * disc, y * disc, 0.025, 0.025, dark(middle, 0.6))


ARCH = (  # corners of half a circle
    *((-1.0, 0.0), (-0.92, -0.38), (-0.71, -0.71), (-0.38, -0.92), (0.0, -1.0)),
    *((0.38, -0.92), (0.71, -0.71), (0.92, -0.38), (1.0, 0.0)),
)


def _umbrella(pen: Pen, thing: Thing, dice: dict[str, Dice], show: Show) -> None:
    paint = dice["paint"]
    base = _colour(paint)
    other = _other(paint, base)
    if not show("umbrella"):
        return
    stick = [(0, -0.2), (0, 0.72), (0.06, 0.86), (0.2, 0.88), (0.26, 0.72)]
    pen.limb(stick, 0.05, (0.5, 0.34, 0.2), line=True)
    for wide, colour in ((1.0, base), (0.62, other), (0.22, base)):
        pen.polygon([(wide * x, 0.9 * y + 0.05) for x, y in ARCH], colour, wider=0.02, line=True)
    pen.limb([(0, -0.86), (0, -1.0)], 0.05, DARK)


def _car(pen: Pen, thing: Thing, dice: dict[str, Dice], show: Show) -> None:
    base = _colour(dice["paint"])
    if not show("car"):
        return
    pen.polygon([(-0.5, 0.05), (-0.32, -0.42), (0.3, -0.42), (0.6, 0.05)], base, wider=0.06, line=True)
    pen.polygon([(-0.4, 0.02), (-0.26, -0.34), (-0.03, -0.34), (-0.03, 0.02)], (0.75, 0.88, 0.95), line=True)
    pen.polygon([(0.06, 0.02), (0.06, -0.34), (0.26, -0.34), (0.46, 0.02)], (0.75, 0.88, 0.95), line=True)
    lower = [(-0.95, 0.1), (0.92, 0.05), (0.92, 0.5), (-0.95, 0.5)]
    pen.polygon(lower, base, wider=0.07, line=True, shade=0.1)
    pen.ellipse(-0.9, 0.2, 0.08, 0.08, (0.98, 0.9, 0.5), line=True)
    for x in (-0.52, 0.52):
        pen.ellipse(x, 0.56, 0.25, 0.25, DARK, line=True)
        pen.ellipse(x, 0.56, 0.12, 0.12, (0.8, 0.8, 0.82), line=True)


def _house(pen: Pen, thing: Thing, dice: dict[str, Dice], show: Show) -> None:
    paint = dice["paint"]
    base = _colour(paint)
    roof, door = _other(paint, base), _colour(paint)
    if not show("house"):
        return
    pen.polygon([(0.35, -0.9), (0.58, -0.9), (0.58, -0.3), (0.35, -0.3)], dark(roof, 0.8), line=True)
    pen.polygon([(-0.75, -0.25), (0.75, -0.25), (0.75, 0.9), (-0.75, 0.9)], base, line=True)
    pen.polygon([(-0.98, -0.2), (0.98, -0.2), (0, -0.95)], roof, wider=0.04, line=True)
    pen.polygon([(-0.5, 0.25), (-0.12, 0.25), (-0.12, 0.9), (-0.5, 0.9)], door, line=True)
    pen.polygon([(0.15, 0.1), (0.55, 0.1), (0.55, 0.5), (0.15, 0.5)], (0.8, 0.92, 0.98), line=True)
    for bar in ([(0.35, 0.1), (0.35, 0.5)], [(0.15, 0.3), (0.55, 0.3)]):
        pen.limb(bar, 0.025, dark(base))


PAINTERS = {
    **{"ball": _ball, "plant": _plant, "bone": _bone, "fish": _fish, "mug": _mug, "flower": _flower},
    **{"shark": _shark, "umbrella": _umbrella, "car": _car, "house": _house},
}
# how far below its middle a thing of size one touches the ground, and half of its shadow's width
FEET = {
    **{"ball": (1.0, 0.8), "bone": (0.75, 0.95), "fish": (0.95, 0.8), "shark": (0.95, 0.8)},
    **{"mug": (1.0, 0.7), "car": (0.82, 1.1)},
}


# ------------------------------------------------------------------------------------------ the picture


def _paint(pen: Pen, thing: Thing, dice: dict[str, Dice], place: Pose | Place) -> None:
    """The whole thing, from the back to the front."""
    if isinstance(place, Pose):
        drawn_pets.paint_pet(pen, _pet(thing, dice["who"]), dice, place)
        return

    def show(part: str) -> bool:
        pen.canvas.part = PART_NAMES.index(part)
        return part not in thing.hidden

    upright = place.upright(pen)
    if not set(PARTS[thing.kind]) <= set(thing.hidden):
        feet, shadow = FEET.get(thing.kind, (1.0, 0.6))
        upright.ellipse(0, feet, shadow, 0.13, BLACK, alpha=0.22)
    PAINTERS[thing.kind](upright.at(0, 0, place.tilt), thing, dice, show)


def _pet(thing: Thing, who: Dice) -> Pet:
    kind = thing.kind
    who.between(0, 1)  # the number that the order of classes has used
    tongue, worn, collar = who.chance(TONGUES[kind]), who.chance(0.5), who.pick(COLLARS)
    hidden = tuple(part for part in thing.hidden if part in drawn_pets.HIDEABLE)
    return Pet(
        *(thing.number, thing.seed, kind, kind, kind, kind, tongue, collar if worn else None),
        *(thing.background, hidden),
    )


def _draw(things: list[Thing], size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw a thing in its scene, or two in that of the first -> image, parts, owners."""
    canvas, scene, alone = Canvas(size), things[0], len(things) == 1
    pen = Pen(canvas, 0.0, 0.0, float(size), 0.0)
    dice = [_dice(thing.number, thing.seed) for thing in things]
    places = []
    for half, (thing, own) in enumerate(zip(things, dice, strict=True)):
        is_pet = thing.kind in drawn_pets.CLASS_NAMES
        half = None if alone else half
        places.append(Pose(own["pose"], half) if is_pet else Place(own["place"], half))
    BACKGROUND_PAINTERS[scene.background](canvas, pen, dice[0]["background"], scene.background)
    if "clutter" not in scene.hidden:
        canvas.part = PART_NAMES.index("clutter")
        drawn_pets.clutter(pen, dice[0]["clutter"], ON_THE_GROUND, IN_THE_AIR)
    for owner, (thing, own, place) in enumerate(zip(things, dice, places, strict=True), start=1):
        canvas.owner = owner
        if "thing" not in thing.hidden:
            _paint(pen, thing, own, place)
    if "clutter" not in scene.hidden and alone:
        canvas.part, canvas.owner = PART_NAMES.index("clutter"), 0
        x, y, r = places[0].x, places[0].y, places[0].r
        if isinstance(places[0], Place):  # as if a pet of its size had its head there
            y -= 1.25 * r
        drawn_pets.in_front(pen, dice[0]["front"], x, y, r, LARGE)
    return Light(dice[0]["light"]).expose(canvas), *canvas.maps()
