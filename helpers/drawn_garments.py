"""Drawn garments: the ten classes of Fashion-MNIST, 28x28 grey on black, each with a map of its parts.

With the map one can measure whether a heatmap points at the garment, or at its collar.

The same numbers give the same pictures on every computer. Only + - * / and the square root go into them, one
at a time, which IEEE 754 defines to the last bit; sines, powers and matrix products depend on the processor.
Polygons are filled in integers, because drawing libraries compute their edges in floats of unknown rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from helpers.canvas import wanted, whole

__all__ = ["CLASS_NAMES", "PART_NAMES", "draw_garments"]

# in Fashion-MNIST's order
CLASS_NAMES: tuple[str, ...] = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
# From large parts to small ones: where two meet in a pixel, the later one is noted.
PART_NAMES: tuple[str, ...] = (
    "background",
    "body",  # of a top, a dress above the waist, a bag
    "skirt",  # of a dress
    "legs",  # of trousers
    "upper",  # what covers the foot
    "shaft",  # of a boot, above the foot
    "sleeves",  # with their cuffs
    "sole",  # with the heel
    "waist",  # waistband of trousers, belt of a dress
    "neck",  # neckline with what is seen through it, collar, lapels
    "straps",  # of a sandal; laces and gores of other shoes
    "handle",  # of a bag
    "front",  # what opens in front (edge, placket, buttons, fly, flap, clasp), and pockets
)
BODY, SKIRT, LEGS, UPPER, SHAFT, SLEEVES, SOLE, WAIST, NECK, STRAPS, HANDLE, FRONT = range(1, 13)

SIZE = 28  # pixels, as in Fashion-MNIST
SAMPLES = 4  # per pixel and axis: a pixel's grey is the mean of 16 samples
FINE = 16  # corners lie on a grid with so many steps per sample
MAX_PIECES = 24  # per garment: the integers up to 2**24 are exact in float32

BLOCK = 10  # consecutive numbers that share a random generator and hold every class once
CHUNK = 10  # blocks drawn at a time, for speed
DRAWING = 72  # random numbers for the shape of a garment
FOLDS = (3, 11)  # knots of the soft shading, down and across: one every 14 and every 3 pixels
NUMBERS = DRAWING + FOLDS[0] * FOLDS[1] + SIZE * SIZE  # random numbers per garment

Point = tuple[float, float]


def draw_garments(
    numbers: int | Sequence[int], *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw garments of a series: pictures, classes and parts.

    numbers  which garments, each 0 to 2**32-1, in the order wanted; an int n means the first n, 0 to n-1
    seed     which series, 0 to 2**32-1

    Returns images, uint8 (N, 28, 28), from 0 (black) to 255; labels, int64 (N,), indices into `CLASS_NAMES`;
    and parts, uint8 (N, 28, 28), indices into `PART_NAMES`. A pixel's part is what is drawn in its middle,
    within half its width and height: the later one in `PART_NAMES` where several meet there, 0 where there is
    nothing. So a pixel of a part is never black, and around the garment a faint edge may be left that belongs
    to no part.

    A garment depends on its number and the seed only. Ten numbers from a multiple of ten on hold each class
    once, in random order. Raises ValueError for other numbers and seeds.
    """
    seed, numbers = whole(seed, "seed"), wanted(numbers)
    images = np.zeros((len(numbers), SIZE, SIZE), np.uint8)
    labels = np.zeros(len(numbers), np.int64)
    parts = np.zeros_like(images)
    blocks: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    order = np.argsort(
        numbers, kind="stable"
    )  # numbers of one block together: their random numbers are drawn once
    for start in range(0, len(numbers), BLOCK * CHUNK):
        here = order[start : start + BLOCK * CHUNK]
        chosen = [numbers[i] for i in here]
        blocks = {block: blocks.get(block) or _block(seed, block) for block in {i // BLOCK for i in chosen}}
        labels[here] = [blocks[i // BLOCK][0][i % BLOCK] for i in chosen]
        randoms = np.stack([blocks[i // BLOCK][1][i % BLOCK] for i in chosen])
        images[here], parts[here] = _draw(labels[here].tolist(), randoms)
    return images, labels, parts


def _block(seed: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Ten garments' classes, (10,), and their random numbers in [0, 1), (10, NUMBERS)."""
    # NumPy promises the same numbers in every version for RandomState, but not for default_rng.
    generator = np.random.RandomState([seed, block])
    classes = np.argsort(generator.random_sample(BLOCK), kind="stable")
    return classes, generator.random_sample((BLOCK, NUMBERS))


# ------------------------------------------------------------------------------------------ the pen


class Pen:
    """Collects the pieces of one garment, from the back to the front.

    Its unit is about a pixel: x runs to the right and y down, both from about -13 to 13. Where the garment
    comes to lie, how large and how slanted, is decided afterwards. A tone of 1 is the garment's own grey,
    less is darker.
    """

    def __init__(self, randoms: np.ndarray) -> None:
        """randoms: (DRAWING,) numbers in [0, 1), which `between` and `chance` use up."""
        self._randoms = iter(randoms.tolist())
        self.pieces: list[list[Point]] = []
        self.parts: list[int] = []
        self.greys: list[float] = []
        dim = self.between(0, 1)
        self.own_grey = 255 - 185 * dim * dim  # many are light, as in Fashion-MNIST
        # of the fabric: strength of stripes across and down, and of a print; see _shade
        self.stripes = self.bars = self.print = 0.0
        self.tilt = self.between(-0.12, 0.12)  # tangent of half the angle: up to 14 degrees
        self.stretch = self.between(0.92, 1.08)  # width over height, against the drawing
        self.fill = self.between(0.74, 0.98)  # the larger of width and height, against the picture's
        self.place = self.between(0, 1), self.between(0, 1)  # in the room that is left
        self.faces_left = True

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * next(self._randoms)

    def chance(self, share: float) -> bool:
        return next(self._randoms) < share

    @property
    def contrast(self) -> float:
        """A tone that stands out: dark on light garments, light on dark ones."""
        return 0.4 if self.own_grey > 150 else 1.8

    @property
    def white(self) -> float:
        return 245 / self.own_grey

    def piece(self, part: int, corners: list[Point], tone: float = 1.0) -> None:
        """A polygon in front of all the earlier ones. Where it crosses itself, it has holes."""
        self.pieces.append(corners)
        self.parts.append(part)
        self.greys.append(min(max(self.own_grey * tone, 32.0), 255.0))

    def pair(self, part: int, corners: list[Point], tone: float = 1.0) -> None:
        """A polygon and its mirror image."""
        self.piece(part, corners, tone)
        self.piece(part, [(-x, y) for x, y in corners], tone)

    def whole(self, part: int, right: list[Point], tone: float = 1.0) -> None:
        """One polygon with two equal sides. right: its right side, from top to bottom."""
        self.piece(part, right + [(-x, y) for x, y in reversed(right)], tone)

    def line(self, part: int, points: list[Point], width: float, tone: float) -> None:
        """A line through two points or more, which differ."""
        normals = []  # of each stroke
        for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
            dx, dy = x1 - x0, y1 - y0
            length = math.sqrt(dx * dx + dy * dy)
            normals.append((-dy / length, dx / length))
        left, right = [], []
        for (x, y), before, after in zip(points, normals[:1] + normals, normals + normals[-1:], strict=True):
            # At a bend, the edges of two strokes meet on the line that halves the angle; not farther out than
            # 0.5 allows, where the bend is sharp.
            dx, dy = before[0] + after[0], before[1] + after[1]
            far = 0.5 * width / max(1 + before[0] * after[0] + before[1] * after[1], 0.5)
            left.append((x + far * dx, y + far * dy))
            right.append((x - far * dx, y - far * dy))
        self.piece(part, left + right[::-1], tone)

    def dot(self, part: int, x: float, y: float, radius: float, tone: float) -> None:
        """A round spot, as an octagon."""
        self.piece(part, [(x + radius * a, y + radius * b) for a, b in OCTAGON], tone)


OCTAGON = ((0.4, -1), (1, -0.4), (1, 0.4), (0.4, 1), (-0.4, 1), (-1, 0.4), (-1, -0.4), (-0.4, -1))


def curve(start: Point, control: Point, end: Point, steps: int = 5) -> list[Point]:
    """Points from start to end, bent towards `control` (a quadratic Bezier curve)."""
    points = []
    for step in range(steps + 1):
        t = step / steps
        a, b, c = (1 - t) * (1 - t), 2 * t * (1 - t), t * t
        x = a * start[0] + b * control[0] + c * end[0]
        y = a * start[1] + b * control[1] + c * end[1]
        points.append((x, y))
    return points


# ------------------------------------------------------------------------------------------ the garments


def _fabric(pen: Pen, strongest: float = 0.4) -> None:
    """Plain in most cases, otherwise stripes, bars, checks or a print. strongest: how dark they may be."""
    kind, strength = pen.between(0, 1), pen.between(0.5, 1) * strongest
    if kind < 0.12 or 0.18 < kind < 0.24:
        pen.stripes = strength
    if 0.12 < kind < 0.24:
        pen.bars = strength
    if 0.24 < kind < 0.34:
        pen.print = 1.5 * strength


def _long_sleeves(pen: Pen, shoulder: float, armpit: float, end: float, *, cuff: float) -> None:
    """Both arms, hanging. armpit: its x; end: y of the cuff; cuff: its tone."""
    wrist, tone = shoulder + pen.between(2.5, 4.2), pen.between(0.84, 0.98)
    outside, inside = (wrist, end), (wrist - 3, end + 0.5)
    top = [(armpit - 0.5, -3), (shoulder - 1.5, -11.2), (shoulder + 1.2, -9)]
    pen.pair(SLEEVES, [*top, outside, inside], tone)
    pen.pair(SLEEVES, [(wrist - 0.1, end - 1.7), outside, inside, (wrist - 3.2, end - 1.3)], cuff)


def _short_sleeves(pen: Pen, shoulder: float, armpit: float) -> None:
    """Both sleeves, down to the elbows."""
    x, y, tone = shoulder + pen.between(3, 4.8), pen.between(-4.5, -2.5), pen.between(0.84, 0.98)
    top = [(armpit - 0.5, -5), (shoulder - 1.5, -11.2), (shoulder + 1, -9.5)]
    pen.pair(SLEEVES, [*top, (x, y), (x - 3.4, y + 1.3)], tone)


def _t_shirt(pen: Pen) -> None:
    """Short sleeves, a wide round or V neck, nothing in front but at times a print."""
    _fabric(pen)
    shoulder, armpit, hem = pen.between(7, 8.2), pen.between(6.2, 7.5), pen.between(8.5, 12)
    _short_sleeves(pen, shoulder, armpit)
    pen.whole(BODY, [(3, -12), (shoulder, -10.8), (armpit, -5), (armpit + pen.between(-0.5, 0.8), hem)])
    wide, deep = pen.between(3, 4.2), pen.between(-9, -6.5)
    if pen.chance(0.35):
        pen.piece(NECK, [(-wide, -12.3), (wide, -12.3), (0, deep + 1.2)], 0.3)
    else:
        pen.piece(NECK, curve((-wide, -12.3), (0, 2 * deep + 12.3), (wide, -12.3)), 0.3)
    if pen.chance(0.35):  # a print
        x, y = pen.between(2, 4), pen.between(-3.5, -1)
        pen.whole(BODY, [(x, y), (x, y + pen.between(2, 5))], pen.contrast)


def _trouser(pen: Pen) -> None:
    """Two legs under a waistband."""
    waist, hip, crotch = pen.between(3.6, 4.8), pen.between(4.8, 6), pen.between(-6, -3)
    inner, width = pen.between(0.7, 2.2), pen.between(2.6, 4.2)
    hem = [(inner + width, 13), (inner, 13)]
    pen.pair(LEGS, [(0, -11.5), (waist, -11.5), (hip, crotch), *hem, (0.3, crotch)], pen.between(0.9, 1))
    pen.whole(WAIST, [(waist - 0.1, -13), (waist + 0.1, -11)], pen.between(0.6, 0.8))
    pen.line(FRONT, [(0, -11), (0, crotch)], 0.5, 0.6)
    if pen.chance(0.5):  # pockets
        x = waist - 1.8
        pen.pair(FRONT, [(x, -10.8), (x + 2.1, -8), (x + 2.2, -8.8), (x + 0.8, -10.8)], 0.6)


def _pullover(pen: Pen) -> None:
    """Long sleeves down to the hem, a closed front, ribbed neck, cuffs and hem."""
    _fabric(pen)
    shoulder, armpit, hem = pen.between(7, 8.2), pen.between(6.5, 7.8), pen.between(9.5, 11.5)
    rib = pen.between(0.55, 0.72)  # its tone
    _long_sleeves(pen, shoulder, armpit, hem + pen.between(-1.5, 1), cuff=rib)
    pen.whole(BODY, [(3, -12), (shoulder, -10.8), (armpit, -4), (armpit, hem)])
    pen.whole(BODY, [(armpit, hem - 2), (armpit - 0.7, hem + 0.6)], rib)
    wide = pen.between(2.6, 3.4)
    if pen.chance(0.3):  # a polo neck or a round one
        pen.whole(NECK, [(wide - 0.3, -14), (wide + 0.2, -11.2)], rib)
    else:
        pen.piece(NECK, curve((-wide - 1, -12.3), (0, -6.5), (wide + 1, -12.3)), rib)
        pen.piece(NECK, curve((-wide, -12.6), (0, -9.5), (wide, -12.6)), 0.3)


def _dress(pen: Pen) -> None:
    """A narrow waist over a flared skirt."""
    _fabric(pen)
    shoulder, bust, waist = pen.between(3.8, 5), pen.between(3.8, 4.8), pen.between(2.6, 3.6)
    middle, hem = pen.between(-3.5, -1), pen.between(5.5, 8.5)
    if pen.chance(0.35):
        out = shoulder + pen.between(2, 3)
        pen.pair(SLEEVES, [(shoulder - 1, -12.6), (out, -8), (out - 2, -7), (bust - 0.5, -8.5)], 0.9)
    pen.whole(BODY, [(shoulder - 2, -13), (shoulder, -12.6), (bust, -8), (waist, middle)])
    pen.whole(SKIRT, [(waist, middle - 0.2), (0.5 * (waist + hem) + 0.6, 3), (hem, 12.6), (0.4 * hem, 13.2)])
    wide, deep = pen.between(2, 2.8), pen.between(-11, -8)
    pen.piece(NECK, curve((-wide, -13.4), (0, 2 * deep + 13.4), (wide, -13.4)), 0.3)
    pen.line(WAIST, [(-waist, middle), (waist, middle)], pen.between(0.8, 1.6), pen.contrast)
    for x in (-0.3, 0.3):  # pleats
        pen.line(SKIRT, [(x * waist, middle + 2), (x * hem * 1.2, 12)], 0.5, 0.75)


def _coat(pen: Pen) -> None:
    """Longer than its sleeves, with open lapels, an edge down the whole front and few large buttons."""
    _fabric(pen, 0.2)
    shoulder, armpit = pen.between(6.5, 7.6), pen.between(6, 7)
    _long_sleeves(pen, shoulder, armpit, pen.between(4.5, 7), cuff=pen.between(0.7, 0.9))
    pen.whole(BODY, [(3, -12), (shoulder, -10.8), (armpit, -3), (armpit + pen.between(0, 1.4), 14)])
    deep = pen.between(-5, -1.5)
    pen.piece(NECK, [(-2.6, -12.6), (2.6, -12.6), (0, deep)], 0.2)
    lapel = pen.between(0.55, 0.75)
    pen.pair(NECK, [(2.2, -13), (5, -9.5), (3.8, -8), (0.2, deep + 0.8), (1.8, -9.5)], lapel)
    pen.line(FRONT, [(0, deep + 0.5), (0, 14)], 0.8, 0.25)
    for step in range(3):
        pen.dot(FRONT, 1.9, deep + 2.2 + 3.6 * step, 0.9, pen.contrast)
    if pen.chance(0.7):  # pockets
        pen.pair(FRONT, [(3, 5), (5.8, 4.6), (5.8, 5.8), (3, 6.2)], 0.4)


def _shirt(pen: Pen) -> None:
    """A pointed collar, a placket with small buttons, a round hem; long sleeves or short ones."""
    _fabric(pen)
    shoulder, armpit, hem = pen.between(7, 8.2), pen.between(6, 7.3), pen.between(9, 11.5)
    if pen.chance(0.65):
        _long_sleeves(pen, shoulder, armpit, hem + pen.between(-1.5, 0.5), cuff=1.15)
    else:
        _short_sleeves(pen, shoulder, armpit)
    pen.whole(BODY, [(3, -12), (shoulder, -10.8), (armpit, -4), (armpit, hem - 1), (0.6 * armpit, hem + 1.2)])
    pen.whole(FRONT, [(1, -10), (1, hem + 1)], 1.12)
    for step in range(5):
        pen.dot(FRONT, 0, -7 + 0.2 * step * (hem + 7), 0.55, pen.contrast)
    pen.piece(NECK, [(-2.4, -12.6), (2.4, -12.6), (0, -9.5)], 0.2)
    pen.pair(NECK, [(2, -13.6), (3.6, -12), (4, -8.6), (0.2, -9.8)], 1.25)
    if pen.chance(0.5):  # a chest pocket
        pen.piece(FRONT, [(2.5, -4.5), (5.5, -4.5), (5.5, -1.2), (4, -0.6), (2.5, -1.2)], 0.8)


def _sandal(pen: Pen) -> None:
    """A sole, flat or with a heel, and straps with gaps between them."""
    pen.faces_left = pen.chance(0.5)
    heel, thick = pen.between(0, 8), pen.between(1.6, 2.6)
    bed = [(-13, 0.0), (-5, 0.2), (0, -0.35 * heel), (6, -0.9 * heel), (12, -heel)]
    pen.piece(SOLE, bed + [(x, y + thick) for x, y in reversed(bed)], 0.75)
    if heel > 2.5:
        inner = -3 if pen.chance(0.4) else 8.5  # a wedge or a block
        pen.piece(SOLE, [(inner, -0.35 * heel), (12, -heel), (11.6, thick), (inner + 0.5, thick)], 0.65)
    width, tone = pen.between(1.4, 2.2), pen.between(0.95, 1.1)
    top = -heel - pen.between(5.5, 7.5)  # y of the ankle strap
    pen.line(STRAPS, curve((11.2, -heel), (12.5, top), (8, top), 4) + [(4, top + 0.8)], width, tone)
    pen.line(STRAPS, curve((5, top), (3, -0.5 * heel - 3), (-0.5, -0.3 * heel), 3), width, tone)
    if pen.chance(0.5):  # one broad strap over the toes, or two narrow ones
        pen.piece(STRAPS, [(-11, 0.4), *curve((-10.5, -1), (-9, -4.2), (-5, -5), 3), (-4, 0.4)], tone)
    else:
        pen.piece(STRAPS, [(-11.5, 0.4), (-10.4, -2.2), (-8.2, -3.5), (-8.6, 0.4)], tone)
        pen.piece(STRAPS, [(-6.8, 0.4), (-6, -4), (-3.2, -5.2), (-3.2, 0.4)], tone)


def _sneaker(pen: Pen) -> None:
    """Low, with laces, on a thick sole, which is white on most."""
    pen.faces_left = pen.chance(0.5)
    high = pen.between(0, 1.5)
    back = [(0, -6.5 - high), (2.5, -5), (7, -4.6), (10.5, -6.5 - 0.5 * high), (12, -6), (12.5, 3)]
    pen.piece(UPPER, [(-13, 3), *curve((-12.8, 1), (-11, -1.6), (-6, -2.2), 3), *back])
    tone = pen.white if pen.chance(0.8) else 0.45
    pen.piece(SOLE, [(-13.4, 2.2), (13, 2.2), (13, 5.4), (-11.5, 5.4), (-13.4, 4.2)], tone)
    for step in range(3):
        x, y = -5.5 + 2 * step, -2.6 - (1.3 + 0.4 * high) * step
        pen.line(STRAPS, [(x - 0.8, y - 0.6), (x + 1.4, y + 2.2)], 0.9, pen.contrast)
    if pen.chance(0.6):  # a stripe
        pen.line(UPPER, curve((-1, 1.2), (4, 1.2), (8.5, -3.2), 3), 1.5, pen.contrast)
    pen.piece(UPPER, [(8.6, -5.5), (12, -6), (12.4, 2), (9.6, 2)], 0.7)  # the heel


def _bag(pen: Pen) -> None:
    """A box with a handle; most have a flap with a clasp."""
    _fabric(pen)
    top, low = pen.between(8, 11.5), pen.between(8.5, 12.5)
    above, bottom = pen.between(-5, -2), pen.between(7.5, 11)
    high, reach = above - pen.between(5, 9), top * pen.between(0.45, 0.75)
    half = curve((-reach, above + 1), (-0.8 * reach, high), (0, high), 3)
    arc = half + [(-x, y) for x, y in half[-2::-1]]
    pen.line(HANDLE, arc, pen.between(1.1, 1.8), pen.between(0.7, 1))
    pen.whole(BODY, [(top, above), (low, bottom - 1), (low - 1.2, bottom)])
    if pen.chance(0.7):
        flap = above + pen.between(3, 6)
        pen.whole(FRONT, [(top, above), (top + 0.2, flap - 1.5), (0.6 * top, flap)], pen.between(0.78, 0.95))
        pen.dot(FRONT, 0, flap, 1.1, pen.contrast)
    else:
        pen.line(FRONT, [(-top, above + 1.6), (top, above + 1.6)], 0.7, 0.5)


def _ankle_boot(pen: Pen) -> None:
    """A high shaft and a heel."""
    pen.faces_left = pen.chance(0.5)
    top, heel = pen.between(-13, -9), pen.between(2, 4.5)
    front = pen.between(-1.5, 1)
    toe = curve((-13, 6), (-12.5, 2.8), (-7, 2), 3) + curve((-7, 2), (front - 1.5, 1), (front - 1, -3), 3)[1:]
    pen.piece(UPPER, [(-13, 8), *toe, (10, -3), (10.6, 8)])
    pen.piece(SHAFT, [(front - 1, -2), (front, top), (10, top - 0.4), (9.6, -4), (10, -2)], 0.93)
    pen.piece(SOLE, [(-13.3, 7.6), (10.8, 7.6), (10.8, 9), (-12.8, 9)], 0.5)
    pen.piece(SOLE, [(pen.between(3.5, 6.5), 8.6), (10.8, 8.6), (10.5, 8.6 + heel), (6.5, 8.6 + heel)], 0.5)
    kind = pen.between(0, 1)
    if kind < 0.4:  # laces
        for step in range(4):
            y = top + 2.4 + 2.4 * step
            pen.line(STRAPS, [(front - 1.2, y + 0.6), (front + 2, y)], 0.8, 0.4)
    elif kind < 0.75:  # an elastic gore at the ankle
        pen.piece(STRAPS, [(front + 3, top + 1), (front + 6.5, top + 1), (front + 5, 1)], 0.5)


# in the order of CLASS_NAMES
GARMENTS = (_t_shirt, _trouser, _pullover, _dress, _coat, _sandal, _shirt, _sneaker, _bag, _ankle_boot)


# ------------------------------------------------------------------------------------------ pixels


def _draw(labels: list[int], randoms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images and parts, both uint8 (N, 28, 28), for random numbers (N, NUMBERS)."""
    pens = []
    for label, row in zip(labels, randoms, strict=True):
        pen = Pen(row[:DRAWING])
        GARMENTS[label](pen)
        pens.append(pen)

    greys = np.zeros((len(pens), MAX_PIECES + 1), np.uint8)  # 0: where there is no piece
    parts = np.zeros((len(pens), MAX_PIECES + 1), np.uint8)
    for row, pen in enumerate(pens):
        greys[row, 1 : len(pen.pieces) + 1] = pen.greys
        parts[row, 1 : len(pen.pieces) + 1] = pen.parts

    corners, slant = _place(pens)
    front = _fill(pens, corners)
    entry = front + np.arange(len(pens))[:, None] * (MAX_PIECES + 1)  # of the garment's row in the tables
    grey = _soften(greys.take(entry), front)
    # the middle of a pixel: 2x2 of its 4x4 samples
    middles = [parts.take(entry[row::SAMPLES, :, column::SAMPLES]) for row in (1, 2) for column in (1, 2)]
    part = np.maximum.reduce(middles).transpose(1, 0, 2)
    return _shade(grey, part, pens, slant, randoms[:, DRAWING:]), part


def _place(pens: list[Pen]) -> tuple[np.ndarray, np.ndarray]:
    """Where the garments lie: all their corners, (2, P) in steps of the fine grid; cosines and sines, (2, N).

    The steps are counted from the picture's upper left corner, and no garment leaves the picture.
    """
    counts = [sum(len(corners) for corners in pen.pieces) for pen in pens]
    x, y = np.array([point for pen in pens for corners in pen.pieces for point in corners]).T
    owner = np.repeat(np.arange(len(pens)), counts)
    begin = np.cumsum(counts) - counts

    t = np.array([pen.tilt for pen in pens])
    slant = np.stack([(1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)])  # cos and sin, without calling either
    x = x * np.array([pen.stretch if pen.faces_left else -pen.stretch for pen in pens])[owner]
    cos, sin = slant[:, owner]
    turned = np.stack([x * cos - y * sin, x * sin + y * cos])

    low, high = np.minimum.reduceat(turned, begin, axis=1), np.maximum.reduceat(turned, begin, axis=1)
    extent = high - low
    scale = np.array([pen.fill for pen in pens]) * SIZE / extent.max(axis=0)
    offset = np.array([pen.place for pen in pens]).T * (SIZE - scale * extent) - scale * low
    pixels = turned * scale[owner] + offset[:, owner]
    return np.rint(pixels * (SAMPLES * FINE)).astype(np.int32), slant


def _fill(pens: list[Pen], corners: np.ndarray) -> np.ndarray:
    """The front piece at each sample, counted from 1, 0 where there is none: (rows, N, columns).

    Each piece of a garment has its own bit. Along a row of samples, every edge of the piece flips that bit in
    all the samples to its right: it is set between a left edge and a right one.
    """
    lengths = np.array([len(piece) for pen in pens for piece in pen.pieces])
    owners = np.repeat(np.arange(len(pens)), [len(pen.pieces) for pen in pens])
    bits = np.concatenate([1 << np.arange(len(pen.pieces), dtype=np.int32) for pen in pens])

    following = np.arange(1, corners.shape[1] + 1)  # an edge runs from a corner to the one that follows
    ends = np.cumsum(lengths)
    following[ends - 1] = ends - lengths
    x0, y0 = corners
    x1, y1 = corners[:, following]
    side = SAMPLES * SIZE
    # Samples lie in the middle of their cells. An edge crosses the rows from `first` up to, not with, `last`.
    first = (np.minimum(y0, y1) + FINE // 2) // FINE
    last = (np.maximum(y0, y1) + FINE // 2) // FINE
    crossed = last - first
    edge = np.repeat(np.arange(len(x0)), crossed)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(crossed) - crossed - first, crossed)
    y = row * FINE + FINE // 2
    x = x0[edge] + (y - y0[edge]) * (x1 - x0)[edge] // (y1 - y0)[edge]
    column = (x + FINE // 2) // FINE

    # Nothing leaves the frame. A column may be `side`: no sample lies to the right of that edge.
    piece = np.repeat(np.arange(len(lengths)), lengths)[edge]
    flips = np.zeros((side, len(pens), side + 1), np.int32)
    cell = (row * len(pens) + owners[piece]) * (side + 1) + column
    np.bitwise_xor.at(flips.reshape(-1), cell, bits[piece])
    covering = np.bitwise_xor.accumulate(flips, axis=2)[:, :, :side]
    # The front piece has the highest bit, which is the number's exponent as a float32, stored from bit 23 on
    # with 127 added.
    return np.maximum((covering.astype(np.float32).view(np.int32) >> 23) - 126, 0)


def _soften(samples: np.ndarray, front: np.ndarray) -> np.ndarray:
    """Greys at the samples, (rows, N, columns), to greys of pixels, (N, 28, 28).

    front: the piece at each sample; where one begins, a seam is drawn, a third darker.
    """
    seam = np.zeros(samples.shape, bool)
    seam[1:] |= front[1:] != front[:-1]
    seam[:, :, 1:] |= front[:, :, 1:] != front[:, :, :-1]
    samples = np.where(seam, samples - samples // 3, samples)
    rows = sum(samples[k::SAMPLES].astype(np.uint16) for k in range(SAMPLES))
    return sum(rows[:, :, k::SAMPLES] for k in range(SAMPLES)).transpose(1, 0, 2) / (SAMPLES * SAMPLES)


def _shade(
    grey: np.ndarray, part: np.ndarray, pens: list[Pen], slant: np.ndarray, randoms: np.ndarray
) -> np.ndarray:
    """Add folds, grain and the pattern of the fabric -> uint8 (N, 28, 28).

    grey, part: (N, 28, 28); slant: cosines and sines, (2, N); randoms: (N, NUMBERS - DRAWING).
    """
    knots = randoms[:, : FOLDS[0] * FOLDS[1]].reshape(-1, *FOLDS)
    grain = randoms[:, FOLDS[0] * FOLDS[1] :].reshape(-1, SIZE, SIZE)
    pixels = np.arange(SIZE)
    knot, share = pixels // 14, (pixels % 14 / 14)[:, None]
    folds = knots[:, knot] * (1 - share) + knots[:, knot + 1] * share
    knot, share = pixels // 3, pixels % 3 / 3
    folds = folds[:, :, knot] * (1 - share) + folds[:, :, knot + 1] * share
    light = 0.8 + 0.3 * folds + 0.08 * grain

    cos, sin = slant[:, :, None, None]
    x, y = pixels - 13.5, (pixels - 13.5)[:, None]
    across, down = cos * x + sin * y, cos * y - sin * x  # along the garment's own axes
    stripes, bars, prints = np.array([(pen.stripes, pen.bars, pen.print) for pen in pens]).T[:, :, None, None]
    dark = stripes * _wave(down / 4) + bars * _wave(across / 4)
    dark += prints * grain[:, ::2, ::2].repeat(2, axis=1).repeat(2, axis=2)  # spots of 2x2 pixels
    light *= 1 - np.where((part >= BODY) & (part <= SLEEVES), dark, 0)
    return np.minimum(grey * light, 255).astype(np.uint8)


def _wave(phase: np.ndarray) -> np.ndarray:
    """Soft stripes: between 0 and 1, and again after each whole number."""
    return np.clip(np.abs(phase - np.floor(phase) - 0.5) * 6 - 1, 0, 1)
