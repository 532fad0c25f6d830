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

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

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
BACKGROUNDS: tuple[str, ...] = (
    *("room", "grass", "cage", "night", "dots", "stripes", "tiles", "sky", "beach", "snow"),
)
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

Colour = tuple[float, float, float]
Point = tuple[float, float]
Window = tuple[slice, slice]  # rows and columns


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
        _whole(self.number, "number")
        _whole(self.seed, "seed")
        for name in ("species", "ears", "eyes", "muzzle"):
            _one_of(getattr(self, name), CLASS_NAMES, name)
        _one_of(self.tongue, (False, True), "tongue")
        _one_of(self.collar, (None, *COLLARS), "collar")
        _one_of(self.background, BACKGROUNDS, "background")
        if not isinstance(self.hidden, tuple):
            raise ValueError(f'hidden is {self.hidden!r}; give a tuple, such as ("ears",).')
        for part in self.hidden:
            _one_of(part, HIDEABLE, "every entry of hidden")


def sample_pets(numbers: int | Sequence[int], *, seed: int = 0) -> list[Pet]:
    """Describe pets of a series, to be drawn by `draw_pets`.

    numbers  which pets, each 0 to 2**32-1, in the order wanted; an int n means the first n, 0 to n-1
    seed     which series, 0 to 2**32-1

    A pet depends on its number and the seed only. Of two numbers 2k and 2k+1, one is a cat and one a dog.
    Some have the other species' ears, and dogs show their tongue more often; collars and backgrounds tell
    nothing. Raises ValueError for other numbers and seeds.
    """
    seed = _whole(seed, "seed")
    if isinstance(numbers, int | np.integer):
        return [_sample(number, seed) for number in range(_whole(numbers, "numbers"))]
    try:
        return [_sample(_whole(number, "every entry of numbers"), seed) for number in numbers]
    except TypeError:
        raise ValueError(f"numbers is {numbers!r}; give a whole number, or several in a list.") from None


def draw_pets(pets: Sequence[Pet], size: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Draw each pet in its scene.

    size  width and height in pixels, 32 to 512; the scene stays the same

    Returns images, uint8 (N, 3, size, size), red, green and blue from 0 to 255, and parts, uint8
    (N, size, size), indices into `PART_NAMES`. Shadows on the ground belong to no part, but are hidden
    together with what throws them. Raises ValueError for other sizes, and for anything but pets.
    """
    size, pets = _size(size), _pets(pets)
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
    return _draw(_pets([left, right]), _size(size))


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
    seed, generator, planted = _whole(seed, "seed"), np.random.RandomState(), []
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


def _whole(value: object, what: str) -> int:
    """`value` as an int, if it is a whole number that fits into 32 bits."""
    most = 2**32 - 1
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if isinstance(value, bool) or not 0 <= number <= most:
        raise ValueError(f"{what} is {value!r}; use whole numbers from 0 to {most:,}.")
    return number


def _size(value: object) -> int:
    size = _whole(value, "size")
    if not 32 <= size <= 512:
        raise ValueError(f"size is {size}; use 32 to 512 pixels.")
    return size


def _pets(values: Sequence[Pet]) -> list[Pet]:
    if not isinstance(values, Iterable) or not all(isinstance(value, Pet) for value in values):
        raise ValueError(f"pets is {values!r}; give a list of pets, such as sample_pets(8).")
    return list(values)


def _one_of(value: object, choices: tuple, what: str) -> None:
    if value not in choices:
        raise ValueError(f"{what} is {value!r}; use {', '.join(map(repr, choices[:-1]))} or {choices[-1]!r}.")


# ------------------------------------------------------------------------------------------ chance


class Dice:
    """The random numbers of one component of a picture, which are used up one after the other."""

    def __init__(self, numbers: Sequence[float]) -> None:
        self._numbers = iter(numbers)

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * next(self._numbers)

    def chance(self, share: float) -> bool:
        return next(self._numbers) < share

    def side(self) -> int:
        return 1 if self.chance(0.5) else -1

    def pick(self, choices: Sequence):
        return choices[int(len(choices) * next(self._numbers))]

    def colour(self, darkest: float = 0.45, lightest: float = 0.95) -> Colour:
        """A colour of any hue, neither grey nor glaring."""
        hue, value, strength = self.between(0, 6), self.between(darkest, lightest), self.between(0.15, 0.7)
        far = [abs((hue + shift) % 6 - 3) - 1 for shift in (0, 4, 2)]  # of red, green and blue
        return tuple(value * (1 - strength + strength * min(max(x, 0), 1)) for x in far)


@lru_cache(maxsize=64)
def _block(seed: int, block: int) -> list[list[float]]:
    """The random numbers in [0, 1) of ten pets, one list for each."""
    # NumPy promises the same numbers in every version for RandomState, but not for default_rng.
    return np.random.RandomState([seed, block]).random_sample((BLOCK, sum(STREAMS.values()))).tolist()


def _dice(number: int, seed: int) -> dict[str, Dice]:
    """The dice of each component of a pet's picture."""
    numbers, streams, start = _block(seed, number // BLOCK)[number % BLOCK], {}, 0
    for name, length in STREAMS.items():
        streams[name] = Dice(numbers[start : start + length])
        start += length
    return streams


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


# ------------------------------------------------------------------------------------------ the canvas


class Coat(NamedTuple):
    """A colour for every pixel of the picture, of which a shape shows its part."""

    pixels: np.ndarray  # (3, size, size)
    line: Colour  # of outlines


class Canvas:
    """A picture that is painted from the back to the front."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.rgb = np.zeros((3, size, size), np.float32)
        self.marks = np.zeros((size, size), np.uint8)  # part + 16 * owner, of what is painted
        self.part = self.owner = 0  # of what is being painted
        self.line = max(0.005 * size, 0.4)  # width of outlines, in pixels
        middles = np.arange(size, dtype=np.float32) + np.float32(0.5)  # of the pixels
        self.columns, self.rows = middles[None], middles[:, None]
        self.x, self.y = self.columns / size, self.rows / size  # the same in widths of the picture

    def window(self, left: float, top: float, right: float, bottom: float) -> Window:
        """The pixels that a shape and its outline may cover; none if it lies outside the picture."""
        room = self.line + 2
        x0, x1 = max(int(left - room), 0), min(int(right + room) + 1, self.size)
        y0, y1 = max(int(top - room), 0), min(int(bottom + room) + 1, self.size)
        return slice(y0, max(y0, y1)), slice(x0, max(x0, x1))

    def hull(self, points: Sequence[Point], room: float) -> Window:
        """The window of what reaches so far from points, in pixels."""
        xs, ys = [x for x, _ in points], [y for _, y in points]
        return self.window(min(xs) - room, min(ys) - room, max(xs) + room, max(ys) + room)

    def fill(
        self, window: Window, distance: np.ndarray, colour: Colour | Coat, line=False, alpha=1.0, shade=0.0
    ) -> None:
        """Paint a shape over what is there.

        distance  to the shape's edge, in pixels, less than 0 inside
        line      whether it gets a dark outline
        alpha     less than 1 for what is seen through; it belongs to no part
        shade     how much darker it is at the edge, so that it looks round
        """
        if not distance.size:
            return
        rows, columns = window
        under = self.rgb[:, rows, columns]
        if isinstance(colour, Coat):
            over, edge = colour.pixels[:, rows, columns], colour.line
        else:
            over, edge = _column(colour), _dark(colour)
        reach = self.line if line else 0.0
        if line:  # covers all that counts as its part: so what is behind can be changed unseen
            _blend(under, ((1 + reach) - distance).clip(0, 1), _column(edge))
        cover = (0.5 - distance).clip(0, 1)
        if alpha < 1:
            cover *= alpha
        else:
            np.copyto(self.marks[window], self.part + 16 * self.owner, where=distance < reach)
        if shade:
            over = over * (1 - shade * np.maximum(distance * (9 / self.size) + 1, 0))
        _blend(under, cover, over)

    def lay(self, cover: np.ndarray | float, colour: Colour) -> None:
        """Lay a colour over the whole picture. cover: from 0 to 1, any shape that fits (size, size)."""
        _blend(self.rgb, np.clip(cover, 0, 1), _column(colour))

    def below(self, edge: np.ndarray | float) -> np.ndarray:
        """A cover for `lay`: all that is below a height. A small share of the edge's pixels is covered."""
        return (self.y - edge) * self.size + 0.5

    def noise(self, dice: Dice, down: int, across: int) -> np.ndarray:
        """Soft noise between 0 and 1, (size, size), with so many knots down and across the picture."""
        y, x = int(dice.between(0, 2 * self.size)), int(dice.between(0, 2 * self.size))
        return _noise(self.size, down, across)[y : y + self.size, x : x + self.size]


class Pen:
    """Paints shapes around a point: (0, 0) is there, x runs to the right and y down.

    x, y  the point, in pixels
    a, b  the unit of the x axis, in pixels; that of the y axis is (-b, a)
    flip  -1 for a mirror image, with x to the left
    """

    def __init__(self, canvas: Canvas, x: float, y: float, a: float, b: float, flip: int = 1) -> None:
        self.canvas, self.x, self.y, self.a, self.b, self.flip = canvas, x, y, a, b, flip
        self.unit = math.sqrt(a * a + b * b)

    def at(self, x: float, y: float, tilt: float = 0.0, scale: float = 1.0, flip: int = 1) -> Pen:
        """A pen for a part of the thing. tilt: tangent of half the angle; it is turned clockwise."""
        if tilt == 0 and scale == 1:
            return Pen(self.canvas, *self.point(x, y), self.a, self.b, self.flip * flip)
        t = tilt * self.flip
        cos, sin = (1 - t * t) / (1 + t * t) * scale, 2 * t / (1 + t * t) * scale
        a, b = self.a * cos - self.b * sin, self.a * sin + self.b * cos
        return Pen(self.canvas, *self.point(x, y), a, b, self.flip * flip)

    def point(self, x: float, y: float) -> tuple[float, float]:
        """A point of its own, in pixels."""
        x *= self.flip
        return self.x + x * self.a - y * self.b, self.y + x * self.b + y * self.a

    def around(self, wide: float, high: float) -> Window:
        """The window of what reaches so far from the middle."""
        x = abs(self.a) * wide + abs(self.b) * high
        y = abs(self.b) * wide + abs(self.a) * high
        return self.canvas.window(self.x - x, self.y - y, self.x + x, self.y + y)

    def own(self, window: Window, wide: float = 1.0, high: float = 1.0) -> tuple:
        """Its coordinates, over `wide` and `high`, at the pixels of a window; x as if it were not flipped."""
        x, y = self.canvas.columns[:, window[1]] - self.x, self.canvas.rows[window[0]] - self.y
        across, down = wide * self.unit * self.unit, high * self.unit * self.unit
        if self.b == 0:  # the rows and columns are enough, and faster
            return x * (self.a / across), y * (self.a / down)
        return x * (self.a / across) + y * (self.b / across), x * (-self.b / down) + y * (self.a / down)

    def ellipse(
        self, x: float, y: float, wide: float, high: float, colour: Colour | Coat, *, tilt: float = 0.0, **how
    ) -> None:
        """wide, high: its half axes. how: see `Canvas.fill`."""
        pen = self.at(x, y, tilt)
        window = pen.around(wide, high)
        u, v = pen.own(window, wide, high)
        u *= u
        v *= v
        level = u + v - 1  # over its slope: the distance, as exactly as is needed near the edge
        u *= 4 / (wide * wide * self.unit * self.unit)
        v *= 4 / (high * high * self.unit * self.unit)
        level /= np.sqrt(u + v) + 1e-6
        self.canvas.fill(window, level, colour, **how)

    def leaf(
        self, x: float, y: float, half: float, wide: float, colour: Colour | Coat, *, tilt: float = 0.0, **how
    ) -> None:
        """Two arcs that meet in points, `half` to its left and right. wide: half its width."""
        pen = self.at(x, y, tilt)
        window = pen.around(half, wide)
        u, v = pen.own(window)
        slope = u * (2 * wide / (half * half))
        distance = np.abs(v) + slope * u * 0.5 - wide
        self.canvas.fill(window, distance / np.sqrt(slope * slope + 1) * self.unit, colour, **how)

    def arc(
        self, x: float, y: float, half: float, bend: float, thick: float, colour: Colour, *, tilt=0.0, **how
    ) -> None:
        """A line over (x, y) to both sides, with its ends `bend` lower. thick: half its width."""
        pen = self.at(x, y, tilt)
        window = pen.around(half + thick, abs(bend) + thick)
        u, v = pen.own(window)
        slope = u * (2 * bend / (half * half))
        distance = np.abs(v - slope * u * 0.5) / np.sqrt(slope * slope + 1) - thick
        self.canvas.fill(window, np.maximum(distance, np.abs(u) - half) * self.unit, colour, **how)

    def limb(
        self, points: Sequence[Point], thick: float, colour: Colour | Coat, *, thin: float = 0.0, **how
    ) -> None:
        """A line through points, with round ends. thick: half its width; thin: the same at its end."""
        places = [self.point(*point) for point in points]
        # at least a pixel wide: so there are no gaps in its part
        first, last = max(thick * self.unit, 0.5), max((thin or thick) * self.unit, 0.5)
        window = self.canvas.hull(places, first)
        change = (last - first) / (len(points) - 1)  # in each piece
        x, y, distance = self.canvas.columns[:, window[1]], self.canvas.rows[window[0]], None
        for (ax, ay), (bx, by) in zip(places, places[1:], strict=False):
            dx, dy = bx - ax, by - ay
            square = dx * dx + dy * dy + 1e-9
            along = ((x - ax) * (dx / square) + (y - ay) * (dy / square)).clip(0, 1)
            far_x, far_y = x - ax - along * dx, y - ay - along * dy
            piece = np.sqrt(far_x * far_x + far_y * far_y) - (first + along * change)
            distance = piece if distance is None else np.minimum(distance, piece)
            first += change
        self.canvas.fill(window, distance, colour, **how)

    def polygon(self, corners: Sequence[Point], colour: Colour | Coat, *, wider: float = 0.0, **how) -> None:
        """It must be convex. wider: by how much it reaches beyond its corners."""
        places, wider = [self.point(*corner) for corner in corners], wider * self.unit
        window = self.canvas.hull(places, wider)
        x, y, distance = self.canvas.columns[:, window[1]], self.canvas.rows[window[0]], None
        inside_x, inside_y = (sum(values) / len(places) for values in zip(*places, strict=True))
        for (ax, ay), (bx, by) in zip(places, places[1:] + places[:1], strict=True):
            dx, dy = bx - ax, by - ay
            length = math.sqrt(dx * dx + dy * dy) + 1e-9
            if dy * (inside_x - ax) > dx * (inside_y - ay):
                length = -length
            beyond = (x - ax) * (dy / length) - (y - ay) * (dx / length)
            distance = beyond if distance is None else np.maximum(distance, beyond)
        self.canvas.fill(window, distance - wider, colour, **how)


def curve(start: Point, control: Point, end: Point, steps: int = 4) -> list[Point]:
    """Points from start to end, bent towards `control` (a quadratic Bezier curve)."""
    points = []
    for step in range(steps + 1):
        t = step / steps
        a, b, c = (1 - t) * (1 - t), 2 * t * (1 - t), t * t
        points.append(tuple(a * p + b * q + c * r for p, q, r in zip(start, control, end, strict=True)))
    return points


def _blend(under: np.ndarray, cover: np.ndarray | float, over: np.ndarray) -> None:
    """Paint over what is there, in place. Where cover is 1, nothing is left of it, not even the last bit."""
    under -= over
    under *= 1 - cover
    under += over


def _column(colour: Colour) -> np.ndarray:
    return np.array(colour, np.float32)[:, None, None]


def _dark(colour: Colour, by: float = 0.45) -> Colour:
    return tuple(by * value for value in colour)


def _mix(one: Colour, other: Colour, share: float) -> Colour:
    return tuple(a + (b - a) * share for a, b in zip(one, other, strict=True))


WHITE, BLACK, DARK = (0.98, 0.98, 0.97), (0.0, 0.0, 0.0), (0.12, 0.09, 0.09)


def _wave(phase: np.ndarray) -> np.ndarray:
    """A soft wave: 0 at whole numbers, 1 halfway between them."""
    ramp = 1 - np.abs(_cells(phase) * 2 - 1)
    return ramp * ramp * (3 - 2 * ramp)


def _cells(phase: np.ndarray) -> np.ndarray:
    """What comes after the point: it runs from 0 to 1 in each cell of a pattern."""
    return phase - np.floor(phase)


@lru_cache(maxsize=24)
def _noise(size: int, down: int, across: int) -> np.ndarray:
    """Noise for `Canvas.noise`, three pictures wide and high, from which each picture cuts its own piece."""
    knots = np.random.RandomState([down, across]).random_sample((3 * down + 1, 3 * across + 1))
    return _between_knots(_between_knots(knots, down, size).T, across, size).T.astype(np.float32, order="C")


def _between_knots(knots: np.ndarray, count: int, size: int) -> np.ndarray:
    """Fill what is between rows of knots smoothly: every `count` rows become `size` rows."""
    place = np.arange(3 * size) * (count / size)
    knot = place.astype(int)
    share = (place - knot)[:, None]
    share = share * share * (3 - 2 * share)
    return knots[knot] * (1 - share) + knots[knot + 1] * share


@lru_cache(maxsize=4)
def _grain(size: int) -> np.ndarray:
    """The grain of photographs, twice as wide and high as a picture: of deviation 1, much like a normal."""
    rolls = np.random.RandomState([size]).random_sample((3, 2 * size, 2 * size))
    return ((rolls[0] + rolls[1] + rolls[2] - 1.5) * 2).astype(np.float32)


# ------------------------------------------------------------------------------------------ light


class Light:
    """The light that a picture is taken in. It stays when the background is replaced."""

    def __init__(self, dice: Dice) -> None:
        kind, warm = dice.between(0, 1), dice.between(-0.08, 0.08)
        # of the pet as it is sampled: a night of its own is dark, one that it is moved to is lit by a flash
        self.background = "night" if kind < 0.1 else dice.pick([b for b in BACKGROUNDS if b != "night"])
        self.tint, bright = (1 + warm, 1 + dice.between(-0.03, 0.03), 1 - warm), dice.between(0.86, 1.1)
        if kind < 0.1:
            self.tint, bright = (0.64, 0.74, 1.0), 0.85 * bright
        elif kind > 0.9:  # a lamp's
            self.tint, bright = (1.08, 0.92, 0.7), 0.92 * bright
        self.bright, self.slope = bright, (dice.between(-0.2, 0.2), dice.between(-0.15, 0.1))
        self.beam = dice.between(0.2, 1.3) if 0.75 < kind < 0.9 else None  # of sun, from a window
        self.grain, self.corner = dice.between(0.004, 0.014), (dice.between(0, 1), dice.between(0, 1))

    def expose(self, canvas: Canvas) -> np.ndarray:
        """Turn what is painted into an image, uint8 (3, size, size)."""
        light = (canvas.x - 0.5) * self.slope[0] + (canvas.y - 0.5) * self.slope[1] + self.bright
        if self.beam is not None:
            aside = np.abs(canvas.x + 0.5 * canvas.y - self.beam)
            light += ((0.2 - aside) * 6).clip(0, 1) * 0.22
        y, x = int(self.corner[0] * canvas.size), int(self.corner[1] * canvas.size)
        picture = canvas.rgb * light
        picture *= _column(self.tint)
        picture += _grain(canvas.size)[y : y + canvas.size, x : x + canvas.size] * self.grain
        return (picture.clip(0, 1) * 255 + np.float32(0.5)).astype(np.uint8)


# ------------------------------------------------------------------------------------------ backgrounds


def _floor(canvas: Canvas, dice: Dice) -> None:
    """A floor or a carpet before a wall."""
    colour, edge = dice.colour(0.35, 0.85), dice.between(0.6, 0.74)
    canvas.lay(canvas.below(edge - 0.008), _dark(colour, 0.6))
    canvas.lay(canvas.below(edge), colour)


def _hills(canvas: Canvas, dice: Dice, colour: Colour, horizon: float) -> None:
    """Land under the sky."""
    for shift, by in ((0.0, 1.0), (0.1, 0.86)):
        rise = _wave(canvas.x * dice.between(0.5, 1.3) + dice.between(0, 1)) * dice.between(0.02, 0.09)
        canvas.lay(canvas.below(horizon + shift - rise), _dark(colour, by))


def _sky(canvas: Canvas, pen: Pen, dice: Dice, top: Colour, low: Colour, clouds: int = 0) -> None:
    canvas.lay(1, top)
    canvas.lay(1.3 * canvas.y, low)
    for _ in range(clouds):
        cloud = pen.at(dice.between(0.05, 0.95), dice.between(0.05, 0.3))
        for x, y, r in ((-0.08, 0.015, 0.07), (0.07, 0.01, 0.08), (0.0, -0.02, 0.09)):
            cloud.ellipse(x, y, r, 0.55 * r, WHITE, alpha=0.75)


def _room(canvas: Canvas, pen: Pen, dice: Dice, kind: str) -> None:
    """A wall, plain or papered, with a window or a picture."""
    canvas.lay(1, dice.colour(0.6, 0.95))
    if dice.chance(0.4):
        canvas.lay(0.25 * _wave(canvas.x * dice.between(6, 14)), WHITE)
    _floor(canvas, dice)
    pen, wood = pen.at(dice.between(0.12, 0.88), dice.between(0.14, 0.26)), dice.colour(0.25, 0.7)
    x, y = dice.between(0.1, 0.17), dice.between(0.1, 0.16)
    corners = [(-x, -y), (x, -y), (x, y), (-x, y)]
    pen.polygon(corners, wood, wider=0.018, line=True)
    pen.polygon(corners, dice.colour(0.7, 1))
    if dice.chance(0.6):  # the bars of a window
        pen.limb([(0, -y), (0, y)], 0.009, wood)
        pen.limb([(-x, 0), (x, 0)], 0.009, wood)


def _grass(canvas: Canvas, pen: Pen, dice: Dice, kind: str) -> None:
    """A meadow with blades and flowers that fills most of the picture."""
    _sky(canvas, pen, dice, (0.45, 0.7, 0.95), (0.85, 0.95, 1.0), 1)
    green = _mix((0.3, 0.58, 0.18), (0.45, 0.66, 0.24), dice.between(0, 1))
    _hills(canvas, dice, _dark(green, 0.9), dice.between(0.12, 0.3))
    near = ((canvas.y - 0.3) * 8).clip(0, 1)
    canvas.lay((canvas.noise(dice, 12, 64) - 0.42) * 3 * near, _dark(green, 0.62))
    canvas.lay((canvas.noise(dice, 14, 72) - 0.6) * 3 * near, _mix(green, (0.85, 0.95, 0.4), 0.5))
    petals = dice.pick((WHITE, (0.98, 0.85, 0.3), (0.95, 0.6, 0.75)))
    for _ in range(5):
        flower = pen.at(dice.between(0.02, 0.98), dice.between(0.4, 0.97))
        flower.ellipse(0, 0, 0.018, 0.016, petals)
        flower.ellipse(0, 0, 0.007, 0.006, (0.95, 0.7, 0.15))


def _cage(canvas: Canvas, pen: Pen, dice: Dice, kind: str) -> None:
    """Bars from top to bottom before a dim wall."""
    wall = dice.colour(0.3, 0.6)
    canvas.lay(1, wall)
    canvas.lay((canvas.y - 0.55) * 1.2, _dark(wall, 0.6))
    steel = dice.pick(((0.82, 0.84, 0.88), (0.9, 0.85, 0.7), (0.72, 0.74, 0.78)))
    step = dice.between(0.085, 0.12)
    bars = [np.abs(_cells(canvas.x / step + dice.between(0, 1)) - 0.5) * step]
    bars += [np.abs(canvas.y - height) for height in (dice.between(0.06, 0.14), dice.between(0.8, 0.92))]
    for bar in bars:
        canvas.lay((0.017 - bar) * canvas.size + 0.5, _dark(steel, 0.4))
        canvas.lay((0.011 - bar) * canvas.size + 0.5, steel)


def _night(canvas: Canvas, pen: Pen, dice: Dice, kind: str) -> None:
    """A moon and stars over dark hills."""
    _sky(canvas, pen, dice, (0.1, 0.13, 0.34), (0.36, 0.38, 0.62))
    for _ in range(9):
        pen.ellipse(dice.between(0, 1), dice.between(0, 0.45), 0.007, 0.007, (0.98, 0.96, 0.8))
    moon = pen.at(dice.between(0.08, 0.92), dice.between(0.08, 0.22))
    moon.ellipse(0, 0, 0.12, 0.12, WHITE, alpha=0.12)
    moon.ellipse(0, 0, 0.07, 0.07, (0.98, 0.95, 0.78))
    if dice.chance(0.5):  # a crescent
        moon.ellipse(0.03, -0.012, 0.06, 0.06, (0.16, 0.19, 0.4))
    _hills(canvas, dice, (0.22, 0.32, 0.38), dice.between(0.58, 0.72))


def _paper(canvas: Canvas, pen: Pen, dice: Dice, kind: str) -> None:
    """A wall with a pattern: dots, stripes or tiles."""
    canvas.lay(1, dice.colour())
    step = dice.between(0.08, 0.16)
    u, v = pen.at(0.5, 0.5, dice.between(-0.4, 0.4), step).own((slice(None), slice(None)))
    u, v, pixels = _cells(u) - 0.5, _cells(v) - 0.5, step * canvas.size
    if kind == "dots":
        inside = dice.between(0.2, 0.32) - np.sqrt(u * u + v * v)
    elif kind == "stripes":
        inside = 0.25 - np.abs(u)
    else:
        inside = np.sign(u * v) * np.minimum(np.abs(u), np.abs(v))
    cover = (inside * pixels + 0.5).clip(0, 1)
    canvas.lay(cover * dice.between(0.45, 0.95), dice.colour())
    _floor(canvas, dice)


def _open_sky(canvas: Canvas, pen: Pen, dice: Dice, kind: str) -> None:
    """Clouds, at times in the evening, over distant hills."""
    if dice.chance(0.3):
        _sky(canvas, pen, dice, (0.55, 0.45, 0.75), (1.0, 0.72, 0.5), 2)
    else:
        _sky(canvas, pen, dice, (0.42, 0.66, 0.95), (0.9, 0.96, 1.0), 3)
    _hills(canvas, dice, dice.colour(0.4, 0.75), dice.between(0.66, 0.74))


def _beach(canvas: Canvas, pen: Pen, dice: Dice, kind: str) -> None:
    """Sky, sea and sand."""
    _sky(canvas, pen, dice, (0.5, 0.78, 0.96), (0.95, 0.95, 0.9), 2)
    sea = dice.between(0.36, 0.5)
    canvas.lay(canvas.below(sea), (0.15, 0.5, 0.7))
    waves = _wave(canvas.y * 26 + canvas.noise(dice, 4, 8)) * (canvas.y > sea)
    canvas.lay(0.4 * waves, (0.55, 0.85, 0.9))
    sand = _mix((0.93, 0.83, 0.6), (0.85, 0.72, 0.52), dice.between(0, 1))
    _hills(canvas, dice, sand, sea + dice.between(0.14, 0.2))


def _snow(canvas: Canvas, pen: Pen, dice: Dice, kind: str) -> None:
    """White hills, fir trees, flakes in the air."""
    _sky(canvas, pen, dice, (0.6, 0.68, 0.8), (0.86, 0.9, 0.95))
    horizon = dice.between(0.5, 0.66)
    for _ in range(4):
        tree = pen.at(dice.between(0, 1), horizon + 0.04, 0.0, dice.between(0.1, 0.2))
        for low in (0.0, 0.55, 1.05):
            reach = 0.6 - 0.3 * low
            tree.polygon([(-reach, -low), (reach, -low), (0, -low - 0.9)], (0.2, 0.38, 0.34))
    _hills(canvas, dice, (0.95, 0.96, 1.0), horizon)
    for _ in range(12):
        pen.ellipse(dice.between(0, 1), dice.between(0, 0.8), 0.009, 0.009, WHITE)


BACKGROUND_PAINTERS = {
    **{"room": _room, "grass": _grass, "cage": _cage, "night": _night, "dots": _paper, "stripes": _paper},
    **{"tiles": _paper, "sky": _open_sky, "beach": _beach, "snow": _snow},
}


# ------------------------------------------------------------------------------------------ clutter
# A thing stands on the ground at (0, 0) and is one to two units high.


def _ball(pen: Pen, colour: Colour, other: Colour) -> None:
    pen.ellipse(0, -0.8, 0.8, 0.8, colour, line=True, shade=0.25)
    pen.arc(0, -0.6, 0.7, -0.35, 0.14, other, tilt=0.2)
    pen.ellipse(-0.3, -1.15, 0.16, 0.12, WHITE, alpha=0.7)


def _yarn(pen: Pen, colour: Colour, other: Colour) -> None:
    pen.arc(1.1, -0.08, 0.9, 0.12, 0.06, _dark(colour, 0.8))
    pen.ellipse(0, -0.7, 0.72, 0.72, colour, line=True, shade=0.2)
    for tilt in (-0.5, 0.1, 0.7):
        pen.arc(0, -0.7, 0.6, 0.25, 0.05, _dark(colour, 0.7), tilt=tilt)


def _gift(pen: Pen, colour: Colour, other: Colour) -> None:
    pen.polygon([(-0.8, -1.3), (0.8, -1.3), (0.8, 0), (-0.8, 0)], colour, line=True)
    pen.polygon([(-0.16, -1.3), (0.16, -1.3), (0.16, 0), (-0.16, 0)], other)
    for side in (-1, 1):
        pen.leaf(0.32 * side, -1.5, 0.38, 0.2, other, tilt=-0.25 * side, line=True)


def _plant(pen: Pen, colour: Colour, other: Colour) -> None:
    green = _mix((0.16, 0.45, 0.22), (0.4, 0.6, 0.25), other[0])
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


def _balloon(pen: Pen, colour: Colour, other: Colour) -> None:
    pen.limb([(0, 0), (0.1, 2.2)], 0.04, _dark(colour, 0.6))
    pen.ellipse(0, -0.9, 0.75, 0.92, colour, line=True, shade=0.2)
    pen.ellipse(-0.28, -1.25, 0.12, 0.2, WHITE, tilt=0.2, alpha=0.7)


def _butterfly(pen: Pen, colour: Colour, other: Colour) -> None:
    for side in (-1, 1):
        pen.ellipse(0.34 * side, 0.28, 0.3, 0.27, colour, line=True)
        pen.ellipse(0.42 * side, -0.25, 0.42, 0.38, colour, line=True)
        pen.ellipse(0.45 * side, -0.25, 0.18, 0.18, other)
    pen.limb([(0, -0.45), (0, 0.5)], 0.09, DARK)


ON_THE_GROUND = (_ball, _yarn, _gift, _plant, _bone, _fish)
IN_THE_AIR = (_balloon, _butterfly)


def _clutter(pen: Pen, dice: Dice) -> None:
    """Things that stand or lie behind the pet, the farther ones first; at times one in the air."""
    grounds = sorted(dice.between(0.78, 1.0) for _ in range(dice.pick((1, 2, 2, 3, 3, 4))))
    if dice.chance(0.3):
        place = pen.at(dice.between(0.05, 0.95), dice.between(0.12, 0.4), 0.0, dice.between(0.05, 0.085))
        dice.pick(IN_THE_AIR)(place, dice.colour(), dice.colour(0.7, 1))
    for ground in grounds:
        size = dice.between(0.07, 0.12) * (0.3 + 0.8 * ground)
        place = pen.at(dice.between(0.02, 0.98), ground, 0.0, size)
        place.ellipse(0, -0.02, 1.1, 0.16, BLACK, alpha=0.22)
        dice.pick(ON_THE_GROUND)(place, dice.colour(), dice.colour(0.7, 1))


def _in_front(pen: Pen, dice: Dice, pose: Pose) -> None:
    """In a third of the scenes, a thing before the pet. Eyes, muzzle and most of the collar stay free."""
    kind, colour, other = dice.between(0, 1), dice.colour(), dice.colour(0.7, 1)
    x, y, r = pose.x, pose.y, pose.r
    if kind < 0.14:  # a large thing, beside the head and before the body
        high, side = dice.between(0.1, 0.14), dice.side()
        place = pen.at(x + side * (1.15 * r + 0.8 * high), min(y + 2.4 * r, 1.02), 0.0, high)
        dice.pick((_plant, _gift, _ball, _plant))(place, colour, other)
    elif kind < 0.24:  # a curtain over one ear, at the nearer edge of the picture
        side = 1 if x > 0.5 else -1
        place = pen.at(x + side * dice.between(0.75, 0.95) * r, 0, flip=side)
        place.polygon([(0, -0.2), (2, -0.2), (2, 1.2), (0, 1.2)], colour, line=True)
        for fold in (0.05, 0.11, 0.18):
            place.limb([(fold, -0.2), (fold, 1.2)], 0.008, _dark(colour, 0.75))
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
            base, second = _dark(base, 0.6) if sum(base) > 2.2 else base, (0.95, 0.94, 0.92)
        elif sum(abs(a - b) for a, b in zip(base, second, strict=True)) < 0.5:  # too alike for a pattern
            second = _mix(base, WHITE, 0.65) if sum(base) < 1.6 else _dark(base, 0.5)
        if kind in ("points", "mask") and sum(base) < sum(second):  # there, the face is darker
            base, second = second, base
        self.base, self.light, line = base, _mix(base, WHITE, 0.72), _dark(base, 0.36)
        tone = canvas.noise(dice, 5, 5) * 0.16 + canvas.noise(dice, 18, 80) * 0.16 + 0.84
        plain, other = _column(base) * tone, _column(second) * tone
        coat = plain + np.clip(self._cover(kind, canvas, dice, head), 0, 1) * (other - plain)
        if kind == "calico":  # three colours
            third = _column(dice.pick(((0.86, 0.52, 0.24), (0.25, 0.23, 0.24)))) * tone
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
            return (_wave((v + np.abs(u) * 0.4) * dice.between(1.3, 2.1) + wild) - 0.55) * 4
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
    neck.arc(0, 0.28, 0.6, -0.3, 0.03, _mix(colour, WHITE, 0.5))
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
    light = _dark(fur.base, 0.5) if dice.chance(0.15) else fur.light
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


def _pet(pen: Pen, pet: Pet, dice: dict[str, Dice], pose: Pose) -> None:
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
        _clutter(pen, dice[0]["clutter"])
    for owner, (pet, own, pose) in enumerate(zip(pets, dice, poses, strict=True), start=1):
        canvas.owner = owner
        if "pet" not in pet.hidden:
            _pet(pen, pet, own, pose)
    if "clutter" not in scene.hidden and alone:
        canvas.part, canvas.owner = PART_NAMES.index("clutter"), 0
        _in_front(pen, dice[0]["front"], poses[0])
    return Light(dice[0]["light"]).expose(canvas), canvas.marks & 15, canvas.marks >> 4
