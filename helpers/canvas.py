"""What the drawn pets and things are painted with: canvas and pen, chance, light and backgrounds.

The same numbers give the same pictures on every computer: only + - * / and the square root go into them, one
at a time, which IEEE 754 defines to the last bit; sines, powers and matrix products depend on the processor.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

BACKGROUNDS: tuple[str, ...] = (
    *("room", "grass", "cage", "night", "dots", "stripes", "tiles", "sky", "beach", "snow"),
)

Colour = tuple[float, float, float]
Point = tuple[float, float]
Window = tuple[slice, slice]  # rows and columns


# ------------------------------------------------------------------------------------------ arguments


def whole(value: object, what: str) -> int:
    """`value` as an int. Raises ValueError if it is no whole number that fits into 32 bits."""
    most = 2**32 - 1
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if isinstance(value, bool) or not 0 <= number <= most:
        raise ValueError(f"{what} is {value!r}; use whole numbers from 0 to {most:,}.")
    return number


def wanted(numbers: object) -> Sequence[int]:
    """Which of a series: 0 to n-1 for an int n, otherwise the numbers in the order given.

    Raises ValueError if that is no whole number, nor several of them, that fit into 32 bits.
    """
    if isinstance(numbers, int | np.integer):
        return range(whole(numbers, "numbers"))
    try:
        return [whole(number, "every entry of numbers") for number in numbers]
    except TypeError:
        raise ValueError(f"numbers is {numbers!r}; give a whole number, or several in a list.") from None


def picture_size(value: object) -> int:
    """`value` as an int. Raises ValueError if pictures of so many pixels cannot be drawn."""
    size = whole(value, "size")
    if not 32 <= size <= 512:
        raise ValueError(f"size is {size}; use 32 to 512 pixels.")
    return size


def one_of(value: object, choices: tuple, what: str) -> None:
    """Raise ValueError, with all that it can be, if `value` is none of the choices."""
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
def _block(seed: int, block: int, rows: int, length: int) -> list[list[float]]:
    """Random numbers in [0, 1), `length` for each of `rows` pictures."""
    # NumPy promises the same numbers in every version for RandomState, but not for default_rng.
    return np.random.RandomState([seed, block]).random_sample((rows, length)).tolist()


def roll(number: int, seed: int, streams: dict[str, int], block: int) -> dict[str, Dice]:
    """The dice of each component of a picture.

    number, seed  which picture of which series
    streams       how many random numbers each component has to itself
    block         consecutive numbers that share a random generator: to make one takes long
    """
    numbers = _block(seed, number // block, block, sum(streams.values()))[number % block]
    dice, start = {}, 0
    for name, length in streams.items():
        dice[name] = Dice(numbers[start : start + length])
        start += length
    return dice


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
        self.marks = np.zeros((size, size), np.uint8)  # part + 32 * owner, of what is painted
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
            over, edge = column(colour), dark(colour)
        reach = self.line if line else 0.0
        if line:  # covers all that counts as its part: so what is behind can be changed unseen
            _blend(under, ((1 + reach) - distance).clip(0, 1), column(edge))
        cover = (0.5 - distance).clip(0, 1)
        if alpha < 1:
            cover *= alpha
        else:
            np.copyto(self.marks[window], self.part + 32 * self.owner, where=distance < reach)
        if shade:
            over = over * (1 - shade * np.maximum(distance * (9 / self.size) + 1, 0))
        _blend(under, cover, over)

    def maps(self) -> tuple[np.ndarray, np.ndarray]:
        """Of every pixel, the part and the owner of what was painted last, uint8 (size, size) each."""
        return self.marks & 31, self.marks >> 5

    def lay(self, cover: np.ndarray | float, colour: Colour) -> None:
        """Lay a colour over the whole picture. cover: from 0 to 1, any shape that fits (size, size)."""
        _blend(self.rgb, np.clip(cover, 0, 1), column(colour))

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


def column(colour: Colour) -> np.ndarray:
    return np.array(colour, np.float32)[:, None, None]


def dark(colour: Colour, by: float = 0.45) -> Colour:
    return tuple(by * value for value in colour)


def mix(one: Colour, other: Colour, share: float) -> Colour:
    return tuple(a + (b - a) * share for a, b in zip(one, other, strict=True))


WHITE, BLACK, DARK = (0.98, 0.98, 0.97), (0.0, 0.0, 0.0), (0.12, 0.09, 0.09)


def wave(phase: np.ndarray) -> np.ndarray:
    """A soft wave: 0 at whole numbers, 1 halfway between them."""
    ramp = 1 - np.abs(cells(phase) * 2 - 1)
    return ramp * ramp * (3 - 2 * ramp)


def cells(phase: np.ndarray) -> np.ndarray:
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
        # of the scene as it is sampled: a night of its own is dark, one that it is moved to is lit by a flash
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
        picture *= column(self.tint)
        picture += _grain(canvas.size)[y : y + canvas.size, x : x + canvas.size] * self.grain
        return (picture.clip(0, 1) * 255 + np.float32(0.5)).astype(np.uint8)


# ------------------------------------------------------------------------------------------ backgrounds


def _floor(canvas: Canvas, dice: Dice) -> None:
    """A floor or a carpet before a wall."""
    colour, edge = dice.colour(0.35, 0.85), dice.between(0.6, 0.74)
    canvas.lay(canvas.below(edge - 0.008), dark(colour, 0.6))
    canvas.lay(canvas.below(edge), colour)


def _hills(canvas: Canvas, dice: Dice, colour: Colour, horizon: float) -> None:
    """Land under the sky."""
    for shift, by in ((0.0, 1.0), (0.1, 0.86)):
        rise = wave(canvas.x * dice.between(0.5, 1.3) + dice.between(0, 1)) * dice.between(0.02, 0.09)
        canvas.lay(canvas.below(horizon + shift - rise), dark(colour, by))


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
        canvas.lay(0.25 * wave(canvas.x * dice.between(6, 14)), WHITE)
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
    green = mix((0.3, 0.58, 0.18), (0.45, 0.66, 0.24), dice.between(0, 1))
    _hills(canvas, dice, dark(green, 0.9), dice.between(0.12, 0.3))
    near = ((canvas.y - 0.3) * 8).clip(0, 1)
    canvas.lay((canvas.noise(dice, 12, 64) - 0.42) * 3 * near, dark(green, 0.62))
    canvas.lay((canvas.noise(dice, 14, 72) - 0.6) * 3 * near, mix(green, (0.85, 0.95, 0.4), 0.5))
    petals = dice.pick((WHITE, (0.98, 0.85, 0.3), (0.95, 0.6, 0.75)))
    for _ in range(5):
        flower = pen.at(dice.between(0.02, 0.98), dice.between(0.4, 0.97))
        flower.ellipse(0, 0, 0.018, 0.016, petals)
        flower.ellipse(0, 0, 0.007, 0.006, (0.95, 0.7, 0.15))


def _cage(canvas: Canvas, pen: Pen, dice: Dice, kind: str) -> None:
    """Bars from top to bottom before a dim wall."""
    wall = dice.colour(0.3, 0.6)
    canvas.lay(1, wall)
    canvas.lay((canvas.y - 0.55) * 1.2, dark(wall, 0.6))
    steel = dice.pick(((0.82, 0.84, 0.88), (0.9, 0.85, 0.7), (0.72, 0.74, 0.78)))
    step = dice.between(0.085, 0.12)
    bars = [np.abs(cells(canvas.x / step + dice.between(0, 1)) - 0.5) * step]
    bars += [np.abs(canvas.y - height) for height in (dice.between(0.06, 0.14), dice.between(0.8, 0.92))]
    for bar in bars:
        canvas.lay((0.017 - bar) * canvas.size + 0.5, dark(steel, 0.4))
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
    u, v, pixels = cells(u) - 0.5, cells(v) - 0.5, step * canvas.size
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
    waves = wave(canvas.y * 26 + canvas.noise(dice, 4, 8)) * (canvas.y > sea)
    canvas.lay(0.4 * waves, (0.55, 0.85, 0.9))
    sand = mix((0.93, 0.83, 0.6), (0.85, 0.72, 0.52), dice.between(0, 1))
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
