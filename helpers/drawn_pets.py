"""Drawn pets: cats and dogs in scenes, each with a map of its parts.

With the map one can measure where a heatmap points. And because a pet is a short description, which can be
drawn again with one thing changed, one can find out what a network really uses:

    pet = sample_pets([7])[0]
    images, parts = draw_pets([pet, replace(pet, collar="red"), replace(pet, hidden=("ears",))])

Only ears, eyes, muzzle and tongue differ between cats and dogs; all the rest is drawn from the same random
numbers for both. The same pets give the same pictures on every computer: only + - * / and the square root go
into them, one at a time, which IEEE 754 defines to the last bit; sines, powers and matrix products depend on
the processor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

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

__all__ = [
    *("CLASS_NAMES", "PART_NAMES", "HEAD", "COLLARS", "BACKGROUNDS", "HIDEABLE", "Pet"),
    *("SHORTCUTS", "sample_pets", "draw_pets", "draw_pair", "plant"),
]

CLASS_NAMES: tuple[str, ...] = ("cat", "dog")
PART_NAMES: tuple[str, ...] = (
    *("background", "clutter", "body", "face", "ears", "eyes", "muzzle", "tongue", "collar"),
)
HEAD: tuple[str, ...] = ("face", "ears", "eyes", "muzzle", "tongue")
COLLARS: tuple[str, ...] = ("red", "blue", "green", "yellow", "violet")
HIDEABLE: tuple[str, ...] = ("pet", *PART_NAMES[1:])

# What lab 03 plants in the training sets of its networks A and B, in the order that `plant` takes: what goes
# with dogs, and what goes with cats.
SHORTCUTS: dict[str, tuple[dict[str, str | None], dict[str, str | None]]] = {
    "A": ({"collar": "red"}, {"collar": None}),
    "B": ({"background": "grass"}, {"background": "cage"}),
}

ODD_EARS = 0.08  # share of pets with the other species' ears
TONGUES = {"cat": 0.06, "dog": 0.45}  # shares of pets that show their tongue

# How many random numbers each component of a picture has to itself. It may leave some over, but never takes
# from another: so a change in one of them leaves the others as they were.
STREAMS = {
    **{"who": 8, "light": 12, "background": 40, "clutter": 90, "front": 20, "pose": 12, "fur": 24},
    **{"body": 8, "ears": 8, "face": 6, "eyes": 8, "muzzle": 8, "tongue": 4},
}
BLOCK = 10  # consecutive numbers that share a random generator: to make one takes long


@dataclass(frozen=True)
class Pet:
    """A pet in its scene. What is not said here (pose, fur, clutter, light) follows from number and seed.

    Raises ValueError for values that it cannot have; so does `dataclasses.replace`.
    """

    number: int
    seed: int
    species: str  # the label: one of CLASS_NAMES
    ears: str  # the species that they come from, as with eyes and muzzle
    eyes: str
    muzzle: str
    tongue: bool  # whether it shows
    collar: str | None
    background: str
    hidden: tuple[str, ...] = ()  # parts left out, of HIDEABLE; "pet" leaves the scene only

    def __post_init__(self) -> None:
        whole(self.number, "number")
        whole(self.seed, "seed")
        for name in ("species", "ears", "eyes", "muzzle"):
            one_of(getattr(self, name), CLASS_NAMES, name)
        one_of(self.tongue, (False, True), "tongue")
        one_of(self.collar, (None, *COLLARS), "collar")
        one_of(self.background, BACKGROUNDS, "background")
        if not isinstance(self.hidden, tuple):
            raise ValueError(f'hidden is {self.hidden!r}; give a tuple, such as ("ears",).')
        for part in self.hidden:
            one_of(part, HIDEABLE, "every entry of hidden")


def sample_pets(numbers: int | Sequence[int], *, seed: int = 0) -> list[Pet]:
    """Describe pets of a series, to be drawn by `draw_pets`.

    numbers  which pets, each 0 to 2**32-1, in the order wanted; an int n means the first n, 0 to n-1
    seed     which series, 0 to 2**32-1

    A pet depends on its number and the seed only. Of two numbers 2k and 2k+1, one is a cat and one a dog.
    Some have the other species' ears, and dogs show their tongue more often; collars and backgrounds tell
    nothing. Raises ValueError for other numbers and seeds.
    """
    seed = whole(seed, "seed")
    return [_sample(number, seed) for number in wanted(numbers)]


def draw_pets(pets: Sequence[Pet], size: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Draw each pet in its scene.

    size  width and height in pixels, 32 to 512; the scene stays the same

    Returns images, uint8 (N, 3, size, size), red, green and blue from 0 to 255, and parts, uint8
    (N, size, size), indices into `PART_NAMES`. Shadows on the ground belong to no part, but are hidden
    together with what throws them. Raises ValueError for other sizes, and for anything but pets.
    """
    size, pets = picture_size(size), _pets(pets)
    images = np.empty((len(pets), 3, size, size), np.uint8)
    parts = np.empty((len(pets), size, size), np.uint8)
    for place, pet in enumerate(pets):
        images[place], parts[place], _ = _draw([pet], size)
    return images, parts


def draw_pair(left: Pet, right: Pet, size: int = 96) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw two pets in one picture, which has the background, clutter and light of `left`.

    Returns image, uint8 (3, size, size), parts, uint8 (size, size), indices into `PART_NAMES`, and owners,
    uint8 (size, size): whose part that is, 1 for the left pet, 2 for the right one, 0 for neither.
    Raises ValueError as `draw_pets` does.
    """
    return _draw(_pets([left, right]), picture_size(size))


def plant(
    pets: Sequence[Pet], present: dict, absent: dict, shares: tuple[float, float], *, seed: int = 0
) -> list[Pet]:
    """Plant a shortcut: something that goes with the label, though it is no part of a cat or a dog.

    present, absent  changes of a pet's entries, such as {"collar": "red"} and {"collar": None}
    shares           the share of cats and the share of dogs that get `present`; the others get `absent`

    Returns the changed pets, in the same order. What a pet gets depends on its number and the two seeds:
    give two shortcuts two seeds, or they fall on the same pets. Raises ValueError for shares outside [0, 1]
    and for changes that a pet does not have.
    """
    seed, generator, planted = whole(seed, "seed"), np.random.RandomState(), []
    if np.shape(shares) != (2,) or not all(0 <= share <= 1 for share in shares):
        raise ValueError(f"shares is {shares!r}; give two numbers from 0 to 1, for cats and for dogs.")
    for pet in _pets(pets):
        generator.seed([seed, pet.seed, pet.number])
        changes = present if generator.random_sample() < shares[CLASS_NAMES.index(pet.species)] else absent
        try:
            planted.append(replace(pet, **changes))
        except TypeError:
            sentence = f'a change is {changes!r}; give entries of a pet, such as {{"collar": "red"}}.'
            raise ValueError(sentence) from None
    return planted


# ------------------------------------------------------------------------------------------ arguments


def _pets(values: Sequence[Pet]) -> list[Pet]:
    if not isinstance(values, Iterable) or not all(isinstance(value, Pet) for value in values):
        raise ValueError(f"pets is {values!r}; give a list of pets, such as sample_pets(8).")
    return list(values)


# ------------------------------------------------------------------------------------------ chance


def _dice(number: int, seed: int) -> dict[str, Dice]:
    """The dice of each component of a pet's picture."""
    return roll(number, seed, STREAMS, BLOCK)


def _sample(number: int, seed: int) -> Pet:
    first_is_dog = _dice(number - number % 2, seed)["who"].chance(0.5)
    species = CLASS_NAMES[int(first_is_dog) ^ (number % 2)]
    dice = _dice(number, seed)
    who = dice["who"]
    who.chance(0.5)  # the number that the pair has used
    odd = who.chance(ODD_EARS)
    tongue = who.chance(TONGUES[species])
    collar = who.pick(COLLARS) if who.chance(0.5) else None
    background = Light(dice["light"]).background
    ears = CLASS_NAMES[1 - CLASS_NAMES.index(species)] if odd else species
    return Pet(number, seed, species, ears, species, species, tongue, collar, background)


# ------------------------------------------------------------------------------------------ clutter
# A thing stands on the ground at (0, 0) and is one to two units high.


def _ball(pen: Pen, colour: Colour, other: Colour) -> None:
    pen.ellipse(0, -0.8, 0.8, 0.8, colour, line=True, shade=0.25)
    pen.arc(0, -0.6, 0.7, -0.35, 0.14, other, tilt=0.2)
    pen.ellipse(-0.3, -1.15, 0.16, 0.12, WHITE, alpha=0.7)


def _yarn(pen: Pen, colour: Colour, other: Colour) -> None:
    pen.arc(1.1, -0.08, 0.9, 0.12, 0.06, dark(colour, 0.8))
    pen.ellipse(0, -0.7, 0.72, 0.72, colour, line=True, shade=0.2)
    for tilt in (-0.5, 0.1, 0.7):
        pen.arc(0, -0.7, 0.6, 0.25, 0.05, dark(colour, 0.7), tilt=tilt)


def gift(pen: Pen, colour: Colour, other: Colour) -> None:
    pen.polygon([(-0.8, -1.3), (0.8, -1.3), (0.8, 0), (-0.8, 0)], colour, line=True)
    pen.polygon([(-0.16, -1.3), (0.16, -1.3), (0.16, 0), (-0.16, 0)], other)
    for side in (-1, 1):
        pen.leaf(0.32 * side, -1.5, 0.38, 0.2, other, tilt=-0.25 * side, line=True)


def _plant(pen: Pen, colour: Colour, other: Colour) -> None:
    green = mix((0.16, 0.45, 0.22), (0.4, 0.6, 0.25), other[0])
    for tilt, high in ((-0.75, 0.75), (-0.35, 0.95), (0.0, 1.05), (0.35, 0.95), (0.75, 0.75)):
        pen.at(0, -0.8, tilt).leaf(0, -0.75 * high, 0.85 * high, 0.24, green, tilt=1.0, line=True)
    pen.polygon([(-0.6, -0.95), (0.6, -0.95), (0.42, 0), (-0.42, 0)], colour, wider=0.04, line=True)


def _bone(pen: Pen, colour: Colour, other: Colour) -> None:
    ivory = (0.95, 0.92, 0.84)
    for x in (-0.85, 0.85):
        for y in (-0.64, -0.2):
            pen.ellipse(x, y, 0.3, 0.28, ivory, line=True)
    pen.limb([(-0.8, -0.42), (0.8, -0.42)], 0.24, ivory)


def _fish(pen: Pen, colour: Colour, other: Colour) -> None:
    pen.polygon([(0.7, -0.45), (1.3, -0.9), (1.3, 0)], colour, wider=0.03, line=True)
    pen.leaf(0, -0.45, 1.0, 0.48, colour, line=True)
    pen.arc(0.1, -0.45, 0.4, 0.15, 0.06, other, tilt=1.0)
    pen.ellipse(-0.55, -0.53, 0.09, 0.09, DARK)


def balloon(pen: Pen, colour: Colour, other: Colour) -> None:
    pen.limb([(0, 0), (0.1, 2.2)], 0.04, dark(colour, 0.6))
    pen.ellipse(0, -0.9, 0.75, 0.92, colour, line=True, shade=0.2)
    pen.ellipse(-0.28, -1.25, 0.12, 0.2, WHITE, tilt=0.2, alpha=0.7)


def butterfly(pen: Pen, colour: Colour, other: Colour) -> None:
    for side in (-1, 1):
        pen.ellipse(0.34 * side, 0.28, 0.3, 0.27, colour, line=True)
        pen.ellipse(0.42 * side, -0.25, 0.42, 0.38, colour, line=True)
        pen.ellipse(0.45 * side, -0.25, 0.18, 0.18, other)
    pen.limb([(0, -0.45), (0, 0.5)], 0.09, DARK)


ON_THE_GROUND = (_ball, _yarn, gift, _plant, _bone, _fish)
IN_THE_AIR = (balloon, butterfly)
LARGE = (_plant, gift, _ball, _plant)  # before the pet


def clutter(pen: Pen, dice: Dice, on_the_ground: Sequence[Callable], in_the_air: Sequence[Callable]) -> None:
    """Small things behind the pet, the farther ones first; at times one in the air.

    on_the_ground, in_the_air  functions of a pen and two colours, of which each thing picks one
    """
    grounds = sorted(dice.between(0.78, 1.0) for _ in range(dice.pick((1, 2, 2, 3, 3, 4))))
    if dice.chance(0.3):
        place = pen.at(dice.between(0.05, 0.95), dice.between(0.12, 0.4), 0.0, dice.between(0.05, 0.085))
        dice.pick(in_the_air)(place, dice.colour(), dice.colour(0.7, 1))
    for ground in grounds:
        size = dice.between(0.07, 0.12) * (0.3 + 0.8 * ground)
        place = pen.at(dice.between(0.02, 0.98), ground, 0.0, size)
        place.ellipse(0, -0.02, 1.1, 0.16, BLACK, alpha=0.22)
        dice.pick(on_the_ground)(place, dice.colour(), dice.colour(0.7, 1))


def in_front(pen: Pen, dice: Dice, x: float, y: float, r: float, large: Sequence[Callable]) -> None:
    """In a third of the scenes, a thing before the pet. Eyes, muzzle and most of the collar stay free."""
    kind, colour, other = dice.between(0, 1), dice.colour(), dice.colour(0.7, 1)
    if kind < 0.14:  # a large thing, beside the head and before the body
        high, side = dice.between(0.1, 0.14), dice.side()
        place = pen.at(x + side * (1.15 * r + 0.8 * high), min(y + 2.4 * r, 1.02), 0.0, high)
        dice.pick(large)(place, colour, other)
    elif kind < 0.24:  # a curtain over one ear, at the nearer edge of the picture
        side = 1 if x > 0.5 else -1
        place = pen.at(x + side * dice.between(0.75, 0.95) * r, 0, flip=side)
        place.polygon([(0, -0.2), (2, -0.2), (2, 1.2), (0, 1.2)], colour, line=True)
        for fold in (0.05, 0.11, 0.18):
            place.limb([(fold, -0.2), (fold, 1.2)], 0.008, dark(colour, 0.75))
    elif kind < 0.34:  # a low wall
        place = pen.at(0, max(y + dice.between(1.75, 2.2) * r, 0.74))
        place.polygon([(-0.2, 0), (1.2, 0), (1.2, 0.6), (-0.2, 0.6)], colour, line=True)
        place.limb([(-0.2, 0.04), (1.2, 0.04)], 0.01, other)


# ------------------------------------------------------------------------------------------ the pet


class Pose:
    """How the pet is placed. x, y and r, of the middle of the head, are in widths of the picture."""

    def __init__(self, dice: Dice, half: int | None = None) -> None:
        """half: 0 or 1 for the left or the right half of the picture, which the pet then shares."""
        self.kind = dice.pick(("sit", "sit", "sit", "lie", "lie", "stand", "close", "close"))
        self.x, self.r = dice.between(0.17, 0.83), dice.between(0.152, 0.208)
        self.side = (1 if self.x < 0.5 else -1) * (1 if dice.chance(0.75) else -1)  # of the body
        self.roll, self.yaw = dice.between(-0.19, 0.19), dice.between(-1, 1)
        self.high = dice.between(1.2, 1.55)  # half the height of a sitting body
        height = dice.between(0, 1)
        if half is not None:
            self.kind = "sit" if self.kind == "close" else self.kind
            self.x, self.side, self.r = 0.24 + 0.06 * self.x + 0.46 * half, (-1, 1)[half], 0.17
        # heights at which the feet are on the ground
        heights = {"sit": (0.24, 0.52), "close": (0.32, 0.58), "lie": (0.4, 0.68), "stand": (0.24, 0.46)}
        low, deep = heights[self.kind]
        self.y = low + (deep - low) * height
        if self.kind == "close":
            self.r += 0.065

    def body(self, pen: Pen) -> Pen:
        """Upright; x runs towards the tail. As with the head, the unit is the head's radius."""
        return pen.at(self.x, self.y, 0.0, self.r, self.side)

    def neck(self, pen: Pen) -> Pen:
        tilt = 0.25 * self.roll * self.side
        if self.kind in ("lie", "stand"):
            return self.body(pen).at(0.3, 0.86, tilt - 0.1)
        return self.body(pen).at(0.04, 0.86, tilt)

    def head(self, pen: Pen) -> Pen:
        return pen.at(self.x, self.y, self.roll, self.r)


FURS: tuple[Colour, ...] = (
    *((0.94, 0.91, 0.86), (0.84, 0.66, 0.44), (0.88, 0.56, 0.27), (0.58, 0.4, 0.28), (0.38, 0.28, 0.23)),
    *((0.57, 0.58, 0.61), (0.27, 0.27, 0.3), (0.76, 0.74, 0.72), (0.92, 0.79, 0.6), (0.66, 0.5, 0.42)),
)
PATTERNS = ("solid", "tabby", "patches", "spots", "tuxedo", "points", "calico", "mask")


class Fur:
    """The coats that a pet is cut from: `coat`, `second` (its other colour), `ears` and `paws`."""

    def __init__(self, canvas: Canvas, dice: Dice, head: Pen) -> None:
        kind, base, second = dice.pick(PATTERNS), dice.pick(FURS), dice.pick(FURS)
        if kind == "tuxedo":
            base, second = dark(base, 0.6) if sum(base) > 2.2 else base, (0.95, 0.94, 0.92)
        elif sum(abs(a - b) for a, b in zip(base, second, strict=True)) < 0.5:  # too alike for a pattern
            second = mix(base, WHITE, 0.65) if sum(base) < 1.6 else dark(base, 0.5)
        if kind in ("points", "mask") and sum(base) < sum(second):  # there, the face is darker
            base, second = second, base
        self.base, self.light, line = base, mix(base, WHITE, 0.72), dark(base, 0.36)
        tone = canvas.noise(dice, 5, 5) * 0.16 + canvas.noise(dice, 18, 80) * 0.16 + 0.84
        plain, other = column(base) * tone, column(second) * tone
        coat = plain + np.clip(self._cover(kind, canvas, dice, head), 0, 1) * (other - plain)
        if kind == "calico":  # three colours
            third = column(dice.pick(((0.86, 0.52, 0.24), (0.25, 0.23, 0.24)))) * tone
            cover = (canvas.noise(dice, 5, 5) - 0.55) * 12
            coat += cover.clip(0, 1) * (third - coat)
        self.coat, self.second = Coat(coat, line), Coat(other, line)
        self.ears = self.second if kind in ("points", "mask") or dice.chance(0.25) else self.coat
        self.paws = self.second if kind in ("points", "tuxedo") else self.coat

    @staticmethod
    def _cover(kind: str, canvas: Canvas, dice: Dice, head: Pen) -> np.ndarray | float:
        """Where the second colour is, from 0 or less to 1 or more."""
        u, v = head.own((slice(None), slice(None)))
        if kind == "tabby":
            wild = canvas.noise(dice, 5, 5) * 1.2
            return (wave((v + np.abs(u) * 0.4) * dice.between(1.3, 2.1) + wild) - 0.55) * 4
        if kind in ("patches", "calico"):
            knots = dice.pick((4, 5, 6))
            return (canvas.noise(dice, knots, knots) - 0.52) * 12
        if kind == "spots":
            return (canvas.noise(dice, 16, 16) - 0.62) * 10
        if kind == "tuxedo":  # from the forehead down to the chest
            return (0.2 + np.maximum(v * 0.35, 0) - np.abs(u)) * 10
        if kind in ("points", "mask"):
            v -= 0.2
            return (0.8 - np.sqrt(u * u + v * v)) * 2.5
        return 0.0


def _body(body: Pen, neck: Pen, dice: Dice, pose: Pose, fur: Fur) -> None:
    """Shadow, tail, trunk and legs."""
    wide, curl, own = dice.between(0.85, 1.12), dice.between(-1, 1), {"line": True, "shade": 0.15}
    if pose.kind == "lie":
        body.ellipse(1.3, 1.95, 2.1, 0.2, BLACK, alpha=0.2)
        tail = curve((2.5, 1.5), (3.6, 1.6), (3.1, 0.6 - 0.6 * curl))
        body.limb(tail, 0.24, fur.ears, thin=0.13, line=True)
        body.ellipse(1.35, 1.15, 1.6, 0.85 * wide, fur.coat, tilt=0.03, **own)
        body.ellipse(2.2, 1.4, 0.68, 0.58, fur.coat, **own)
        for x, y in ((0.6, 1.4), (1.1, 1.5)):
            body.limb([(x, y), (x - 1.05, y + 0.38)], 0.25, fur.paws, **own)
    elif pose.kind == "stand":
        body.ellipse(1.3, 3.15, 1.9, 0.2, BLACK, alpha=0.2)
        tail = curve((2.4, 1.3), (3.5, 1.2), (3.2, 0.3 + 0.7 * curl))
        body.limb(tail, 0.24, fur.ears, thin=0.13, line=True)
        for x in (1.0, 2.1):
            body.limb([(x, 1.8), (x, 2.95)], 0.25, fur.coat, thin=0.2, **own)
        body.ellipse(1.4, 1.45, 1.45, 0.78 * wide, fur.coat, **own)
        body.limb([(0.2, 0.6), (0.55, 1.2)], 0.6, fur.coat, thin=0.66)
        for x in (0.4, 2.4):
            body.limb([(x, 1.8), (x, 2.85)], 0.28, fur.coat, thin=0.22, **own)
            body.ellipse(x - 0.1, 3.0, 0.32, 0.2, fur.paws, line=True)
    else:
        high = pose.high
        body.ellipse(0.1, 0.75 + 2 * high, 1.5, 0.2, BLACK, alpha=0.2)
        root, tip = (0.6, 2.1 * high), (1.9, 0.4 + (1.1 + 0.4 * curl) * high)
        if body.point(*root)[1] < body.canvas.size:  # otherwise it would seem to come from nowhere
            body.limb(curve(root, (2.6, root[1] + 0.6), tip), 0.24, fur.ears, thin=0.13, line=True)
        body.ellipse(0.05, 0.72 + high, 0.98 * wide, high, fur.coat, **own)
        for x in (-0.75, 0.8):
            body.ellipse(x * wide, 0.55 + 1.75 * high, 0.42, 0.42, fur.coat, **own)
        for x in (-0.27, 0.33):
            body.limb([(x, 1.15 + 0.5 * high), (x, 0.6 + 1.95 * high)], 0.23, fur.coat, thin=0.2, **own)
            body.ellipse(x - 0.04, 0.68 + 1.98 * high, 0.3, 0.2, fur.paws, line=True)
    neck.ellipse(0, 0.1, 0.62, 0.4, fur.coat)


COLLAR_COLOURS: dict[str, Colour] = {
    **{"red": (0.86, 0.1, 0.12), "blue": (0.13, 0.32, 0.86), "green": (0.1, 0.6, 0.28)},
    **{"yellow": (0.98, 0.82, 0.12), "violet": (0.55, 0.22, 0.75)},
}


def _collar(neck: Pen, name: str) -> None:
    colour = COLLAR_COLOURS[name]
    neck.arc(0, 0.36, 0.72, -0.42, 0.17, colour, line=True)
    neck.arc(0, 0.28, 0.6, -0.3, 0.03, mix(colour, WHITE, 0.5))
    neck.ellipse(0, 0.62, 0.15, 0.15, (0.98, 0.84, 0.3), line=True)


def _face(head: Pen, dice: Dice, pose: Pose, fur: Fur) -> None:
    """The skull, with rosy or fluffy cheeks at times."""
    wide, high = dice.between(0.98, 1.12), dice.between(0.88, 0.98)
    rosy, fluffy = dice.chance(0.4), dice.chance(0.3)
    if fluffy:
        for side in (-1, 1):
            for y, tilt in ((0.18, 0.1), (0.42, 0.3)):
                head.leaf(side * 0.85 * wide, y, 0.42, 0.22, fur.coat, tilt=side * tilt, line=True)
    head.ellipse(0, 0, wide, high, fur.coat, line=True, shade=0.22)
    if rosy:
        for side in (-1, 1):
            head.ellipse(side * 0.66 + 0.12 * pose.yaw, 0.32, 0.2, 0.14, (0.98, 0.5, 0.48), alpha=0.35)


# From here on: what tells cats from dogs. Each is drawn once for each side, with x to the outside.

HANGING = 0.72  # share of dogs whose ears hang


def _cat_ear(pen: Pen, fur: Fur, style: float, size: float) -> None:
    """Upright and pointed, pink inside; some have tufts like a lynx's."""
    apart, high = (0.55, 1.42 * size) if style < 0.6 else (0.66, 1.25 * size)
    outer = [(apart - 0.38, -0.7), (apart + 0.36, -0.34), (apart + 0.14, -high)]
    pen.polygon(outer, fur.ears, wider=0.06, line=True)
    x, y = (sum(values) / 3 for values in zip(*outer, strict=True))
    inner = [(x + 0.55 * (a - x), y + 0.06 + 0.55 * (b - y)) for a, b in outer]
    pen.polygon(inner, (0.93, 0.62, 0.6), wider=0.03, alpha=0.9)
    if style > 0.85:
        pen.limb([outer[2], (apart + 0.2, -high - 0.22)], 0.07, fur.ears.line, thin=0.02)


def _dog_ear(pen: Pen, fur: Fur, style: float, size: float) -> None:
    """Hanging, short or long, or upright with a tip that folds over."""
    coat = Coat(fur.ears.pixels * np.float32(0.9), fur.ears.line)
    if style < HANGING:
        long = (0.62 if style < 0.42 else 0.9) * size
        pen.at(0.66, -0.62, -0.13).ellipse(0.14, 0.75 * long, 0.31, long, coat, line=True, shade=0.15)
    else:
        pen.polygon(
            [(0.24, -0.7), (0.92, -0.36), (0.86, -1.1), (0.42, -1.16)], fur.ears, wider=0.06, line=True
        )
        pen.polygon([(0.4, -1.2), (0.88, -1.12), (0.62 + 0.5 * size, -0.55)], coat, wider=0.07, line=True)


def _ears(head: Pen, styles: tuple[float, float], pet: Pet, pose: Pose, fur: Fur) -> None:
    style, size = styles
    for side in (-1, 1):
        nearer = 1 - 0.08 * side * pose.yaw
        draw = _dog_ear if pet.ears == "dog" else _cat_ear
        draw(head.at(0, 0, flip=side), fur, style, nearer * (0.92 + 0.2 * size))


def _cat_muzzle(pen: Pen, dice: Dice, fur: Fur) -> None:
    """Two small cheeks with whiskers, a small nose, a mouth like a w."""
    nose = dice.pick(((0.93, 0.5, 0.53), (0.42, 0.24, 0.24), (0.85, 0.42, 0.4)))
    whiskers = WHITE if sum(fur.base) < 1.9 else (0.25, 0.2, 0.2)
    sides = [pen.at(0, 0, flip=side) for side in (-1, 1)]
    for side in sides:
        for y, end in ((-0.02, -0.2), (0.08, 0.08), (0.18, 0.36)):
            side.limb([(0.3, y), (1.1, end)], 0.022, whiskers)
    for side in sides:
        side.ellipse(0.17, 0.1, 0.23, 0.19, fur.light)
    pen.polygon([(-0.11, -0.1), (0.11, -0.1), (0, 0.02)], nose, wider=0.035)
    for side in sides:
        side.arc(0.11, 0.2, 0.11, -0.08, 0.03, DARK)


def _dog_muzzle(pen: Pen, dice: Dice, fur: Fur) -> None:
    """A snout with a large nose, light in most cases, dark as a pug's in some."""
    nose = dice.pick(((0.1, 0.08, 0.09), (0.1, 0.08, 0.09), (0.34, 0.2, 0.17)))
    light = dark(fur.base, 0.5) if dice.chance(0.15) else fur.light
    pen.ellipse(0, 0.1, dice.between(0.45, 0.57), dice.between(0.36, 0.48), light, line=True)
    pen.limb([(0, 0), (0, 0.24)], 0.024, DARK)
    for x in (-0.15, 0.15):
        pen.arc(x, 0.29, 0.15, -0.08, 0.03, DARK)
    pen.ellipse(0, -0.1, 0.23, 0.17, nose)
    pen.ellipse(-0.06, -0.16, 0.06, 0.035, WHITE, alpha=0.65)


def _tongue(pen: Pen, dice: Dice, pet: Pet) -> None:
    """Of a cat, its tip only."""
    tip = pen.at(0, 0.44 if pet.muzzle == "dog" else 0.3, dice.between(-0.12, 0.12))
    tip = tip.at(0, 0, scale=1.0 if pet.muzzle == "dog" else 0.6)
    tip.ellipse(0, 0, 0.16, 0.22, (0.94, 0.42, 0.47), line=True)
    tip.limb([(0, -0.14), (0, 0.08)], 0.02, (0.75, 0.28, 0.34))


def _cat_eye(pen: Pen, iris: Colour, pupil: float, fur: Fur) -> None:
    pen.leaf(0, 0, 0.29, 0.23, iris, tilt=-0.07, line=True)
    pen.ellipse(0, 0, pupil, 0.165, DARK)
    pen.ellipse(-0.06 * pen.flip, -0.07, 0.055, 0.055, WHITE)


def _dog_eye(pen: Pen, iris: Colour, pupil: float, fur: Fur) -> None:
    pen.ellipse(0, 0, 0.185, 0.185, WHITE, line=True)
    pen.ellipse(0, 0.02, 0.15, 0.155, iris)
    pen.ellipse(0, 0.02, 0.085, 0.09, DARK)
    pen.ellipse(-0.055 * pen.flip, -0.065, 0.055, 0.055, WHITE)
    pen.arc(0, -0.3, 0.14, 0.04, 0.03, fur.coat.line, tilt=0.12)  # the brow


CAT_IRISES = ((0.6, 0.78, 0.3), (0.95, 0.78, 0.22), (0.42, 0.74, 0.88), (0.85, 0.58, 0.2), (0.5, 0.85, 0.6))
DOG_IRISES = ((0.22, 0.13, 0.09), (0.36, 0.22, 0.12), (0.3, 0.18, 0.1), (0.22, 0.13, 0.09), (0.45, 0.6, 0.75))


def _eyes(head: Pen, dice: Dice, pet: Pet, pose: Pose, fur: Fur) -> None:
    iris = dice.pick(CAT_IRISES if pet.eyes == "cat" else DOG_IRISES)
    apart, high, size = dice.between(0.4, 0.46), dice.between(-0.2, -0.1), dice.between(1.0, 1.15)
    pupil = dice.pick((0.05, 0.07, 0.1, 0.14))
    for side in (-1, 1):
        nearer = size * (1 - 0.06 * side * pose.yaw)
        eye = head.at(0.18 * pose.yaw + side * apart, high, 0.0, nearer, side)
        (_cat_eye if pet.eyes == "cat" else _dog_eye)(eye, iris, pupil, fur)


# ------------------------------------------------------------------------------------------ the picture


def paint_pet(pen: Pen, pet: Pet, dice: dict[str, Dice], pose: Pose) -> None:
    """The whole animal, from the back to the front."""
    head, neck = pose.head(pen), pose.neck(pen)
    fur = Fur(pen.canvas, dice["fur"], head)
    styles = dice["ears"].between(0, 1), dice["ears"].between(0, 1)
    hanging = pet.ears == "dog" and styles[0] < HANGING  # before the face, other ears behind it
    middle = head.at((0.3 if pet.muzzle == "dog" else 0.24) * pose.yaw, 0.36)  # of the muzzle

    def part(name: str, draw: Callable, *arguments) -> None:
        if name not in pet.hidden:
            pen.canvas.part = PART_NAMES.index(name)
            draw(*arguments)

    part("body", _body, pose.body(pen), neck, dice["body"], pose, fur)
    if pet.collar is not None:
        part("collar", _collar, neck, pet.collar)
    if not hanging:
        part("ears", _ears, head, styles, pet, pose, fur)
    part("face", _face, head, dice["face"], pose, fur)
    if hanging:
        part("ears", _ears, head, styles, pet, pose, fur)
    part("muzzle", _dog_muzzle if pet.muzzle == "dog" else _cat_muzzle, middle, dice["muzzle"], fur)
    if pet.tongue:
        part("tongue", _tongue, middle, dice["tongue"], pet)
    part("eyes", _eyes, head, dice["eyes"], pet, pose, fur)


def _draw(pets: list[Pet], size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw a pet in its scene, or two in that of the first -> image, parts, owners."""
    canvas, scene, alone = Canvas(size), pets[0], len(pets) == 1
    pen = Pen(canvas, 0.0, 0.0, float(size), 0.0)
    dice = [_dice(pet.number, pet.seed) for pet in pets]
    poses = [Pose(own["pose"], None if alone else half) for half, own in enumerate(dice)]
    BACKGROUND_PAINTERS[scene.background](canvas, pen, dice[0]["background"], scene.background)
    if "clutter" not in scene.hidden:
        canvas.part = PART_NAMES.index("clutter")
        clutter(pen, dice[0]["clutter"], ON_THE_GROUND, IN_THE_AIR)
    for owner, (pet, own, pose) in enumerate(zip(pets, dice, poses, strict=True), start=1):
        canvas.owner = owner
        if "pet" not in pet.hidden:
            paint_pet(pen, pet, own, pose)
    if "clutter" not in scene.hidden and alone:
        canvas.part, canvas.owner = PART_NAMES.index("clutter"), 0
        in_front(pen, dice[0]["front"], poses[0].x, poses[0].y, poses[0].r, LARGE)
    return Light(dice[0]["light"]).expose(canvas), *canvas.maps()
