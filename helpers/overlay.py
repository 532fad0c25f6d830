"""Heatmaps on pictures: scale, enlarge, colour, blend, lay out, and send out with a description.

Colour maps: `HEAT` for strength (0 to 1), `SIGNED` for maps with signs (0 in the middle); both are
perceptually uniform and readable for colour-blind people. `PARTS`, for maps of up to ten parts, are colours
that colour-blind people can tell apart (Petroff 2021, "Accessible Color Sequences for Data Visualization").
"""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from skimage.segmentation import find_boundaries
from skimage.transform import AffineTransform, resize, warp

Array = NDArray[np.floating]

HEAT = "inferno"
SIGNED = "berlin"
PARTS = ListedColormap(plt.style.library["petroff10"]["axes.prop_cycle"].by_key()["color"], name="parts")


def to_unit(maps: Array) -> Array:
    """Scale each map to [0, 1]: what is negative becomes 0, then each map is divided by its own maximum.

    maps: (B, H, W), with signs -> (B, H, W). A map without anything positive stays 0 everywhere: there is no
    positive evidence to show. Zero stays zero, unlike under min-max scaling, and no constant is added to the
    maximum, which would erase small maps.
    """
    positive = np.maximum(maps, 0)
    largest = positive.max(axis=(1, 2), keepdims=True)
    return np.divide(positive, largest, out=np.zeros_like(positive), where=largest > 0)


def cell_centres(layers: Sequence[tuple[int, int, int]]) -> tuple[float, float]:
    """Where on the picture the cells of a map look, along one axis.

    layers: (kernel, stride, padding) of each convolution or pooling, from the picture up to the map ->
    (first, step), in pixels: cell j has its receptive field around pixel first + j * step, where pixel 0 is
    the first one. (Recursion for centres: Araujo, Norris, Sim 2019, "Computing Receptive Fields of
    Convolutional Neural Networks", equation 10.)
    """
    first, step = 0.0, 1
    for kernel, stride, padding in layers:
        first += step * ((kernel - 1) / 2 - padding)
        step *= stride
    return first, step


def upsample(maps: Array, shape: tuple[int, int], *, centres: tuple[float, float] | None = None) -> Array:
    """Enlarge maps bilinearly to the picture's size. maps: (B, h, w) -> (B, *shape), values kept in range.

    Without `centres` each map is taken to cover the whole picture, pixel centres as in PyTorch's
    `align_corners=False`. Convolutions that pad less than they reach make that wrong: the outer cells look
    farther inside. centres: (first, step) from `cell_centres` puts every cell where it looks; beyond the
    outer cells, the map goes on with their values.
    """
    if centres is None:
        return resize(maps, (len(maps), *shape), order=1, mode="edge", anti_aliasing=False).astype(maps.dtype)
    first, step = centres
    cell_of_pixel = AffineTransform(scale=1 / step, translation=(-first / step, -first / step))
    return np.stack([warp(m, cell_of_pixel, output_shape=shape, order=1, mode="edge") for m in maps])


def as_rgb(image: NDArray[Any]) -> Array:
    """A picture as (H, W, 3) floats in [0, 1].

    image: grey (H, W) or (1, H, W), colour (3, H, W) or (H, W, 3); uint8, or floats in [0, 1].
    Raises ValueError for other shapes, and for floats outside [0, 1].
    """
    if image.ndim == 3 and image.shape[0] in (1, 3):
        image = np.moveaxis(image, 0, -1)
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[-1] not in (1, 3):
        raise ValueError(f"one grey or colour picture is wanted, but this has shape {image.shape}")
    if image.dtype == np.uint8:
        image = image / np.float32(255)
    elif not (0 <= image.min() and image.max() <= 1):
        raise ValueError(
            f"the picture's values run from {image.min():.2f} to {image.max():.2f}, not from 0 to 1: "
            "undo Normalize (multiply by the deviation, add the mean) first"
        )
    return np.broadcast_to(image, (*image.shape[:2], 3)).astype(float)


def colour(unit_map: Array, cmap: str = HEAT) -> Array:
    """A map in [0, 1], (H, W), as colours, (H, W, 3) in [0, 1]."""
    return matplotlib.colormaps[cmap](unit_map)[..., :3]


def blend(image: NDArray[Any], unit_map: Array, *, alpha: float = 0.8, threshold: float = 0.0) -> Array:
    """The picture with the heatmap over it: the stronger the evidence, the more of its colour.

    image: as in `as_rgb`; unit_map: (H, W) in [0, 1], enlarged if it is smaller than the picture;
    alpha: share of the colour where the map is 1; threshold: values below it are not drawn -> (H, W, 3).
    Where the map is 0, the picture stays as it is. Raises ValueError if the map leaves [0, 1].
    """
    picture = as_rgb(image)
    if not (0 <= unit_map.min() and unit_map.max() <= 1):
        raise ValueError(
            f"the map runs from {unit_map.min():.2f} to {unit_map.max():.2f}: scale it with to_unit first"
        )
    if unit_map.shape != picture.shape[:2]:
        unit_map = upsample(unit_map[None], picture.shape[:2])[0]
    share = alpha * np.where(unit_map >= threshold, unit_map, 0)[..., None]
    return (1 - share) * picture + share * colour(unit_map)


def outline(image: NDArray[Any], mask: NDArray[np.bool_], rgb: Sequence[float] = (1, 1, 1)) -> Array:
    """The picture with the edge of a mask drawn on it: image as in `as_rgb`, mask (H, W) -> (H, W, 3).

    rgb: the line's colour, red, green, blue in [0, 1]. The line runs just inside the mask, one pixel wide.
    """
    picture = as_rgb(image).copy()
    edge = find_boundaries(np.pad(mask, 1), mode="inner")  # the picture's border closes the line
    picture[edge[1:-1, 1:-1]] = rgb
    return picture


def panels(
    rows: Sequence[Sequence[tuple[str, NDArray[Any], dict[str, Any]]]], *, size: float = 1.6, bar: str = ""
) -> Figure:
    """A grid of pictures. Each panel is (title, picture, options of `Axes.imshow`).

    size: inches per panel; bar: label of a colour bar for the last panel, none if empty. Rows may be shorter
    than the longest one. Pictures are drawn in grey, from 0 (black) to 1 (white), unless the options say
    otherwise.
    """
    width = max(len(row) for row in rows)
    figure, axes = plt.subplots(
        len(rows),
        width,
        squeeze=False,
        layout="constrained",
        figsize=(size * width, (size + 0.25) * len(rows)),
    )
    for axis in axes.flat:
        axis.set_axis_off()
        axis.set(xticks=[], yticks=[])  # unseen anyway, and half of the time
    for row, line in zip(axes, rows, strict=True):
        for axis, (title, picture, options) in zip(row, line, strict=False):
            drawn = axis.imshow(picture, **({"cmap": "gray", "vmin": 0, "vmax": 1} | options))
            axis.set_title(title, fontsize=9)
    if bar:
        figure.colorbar(drawn, ax=axes, label=bar, shrink=0.8)
    return figure


def explanation_rows(
    images: Array, maps: Array, titles: Sequence[str], *, threshold: float = 0.0, alpha: float = 0.8
) -> list[list[tuple[str, Array, dict[str, Any]]]]:
    """Rows for `panels`: overlay, original and heatmap of each image.

    images: (B, C, H, W), maps: (B, h, w) with signs (scaled here by `to_unit`), titles: (B,).
    """
    rows = []
    for image, unit_map, title in zip(images, upsample(to_unit(maps), images.shape[2:]), titles, strict=True):
        rows.append(
            [
                (title, blend(image, unit_map, alpha=alpha, threshold=threshold), {}),
                ("original", as_rgb(image), {}),
                ("heatmap", np.where(unit_map >= threshold, unit_map, 0), {"cmap": HEAT}),
            ]
        )
    return rows


def show(figure: Figure, alt: str) -> None:
    """Display a figure with a description for those who cannot see it, and close it.

    alt: what there is to see, in a sentence or more. Raises ValueError if that is missing. A notebook's own
    image output cannot carry a description, so this writes HTML. Lossless WebP keeps notebooks small:
    enlarged pixels are flat squares, which it stores in a third of what JPEG needs, without blurring them.
    Photos are the other way round: where losses save two thirds, they are accepted.
    """
    if len(alt.split()) < 4:
        raise ValueError(f"alt={alt!r} says too little: describe in a sentence what there is to see")

    drawn = io.BytesIO()
    figure.savefig(
        drawn, format="png", dpi=100, pil_kwargs={"compress_level": 0}
    )  # once: it takes longer than storing it
    plt.close(figure)
    drawing = Image.open(drawn)

    def webp(**options: object) -> bytes:
        buffer = io.BytesIO()
        drawing.save(buffer, "webp", **options)
        return buffer.getvalue()

    exact, lossy = webp(lossless=True), webp(quality=40, method=6)
    picture = lossy if 3 * len(lossy) < len(exact) else exact
    data = base64.b64encode(picture).decode()
    tag = f'<img style="max-width:100%" alt="{html.escape(alt)}" src="data:image/webp;base64,{data}">'
    display({"text/html": tag, "text/plain": f"Figure: {alt}"}, raw=True)


def explore(draw: Callable[..., None], **controls: Any) -> None:
    """Play with a figure: one slider or menu per keyword, as `ipywidgets.interact` makes them.

    draw: called with one value per control; controls: (default, what `interact` accepts). Without a person to
    move them (LABS_HEADLESS=1) no widget is made, and `draw` runs once with the defaults.
    """
    if os.environ.get("LABS_HEADLESS") == "1":
        draw(**{name: default for name, (default, _) in controls.items()})
        return
    import ipywidgets

    widgets = {}
    for name, (default, abbreviation) in controls.items():
        widgets[name] = ipywidgets.interactive.widget_from_abbrev(abbreviation, default)
        widgets[name].description = name
        if hasattr(widgets[name], "continuous_update"):
            widgets[name].continuous_update = False  # redraw on release: a figure takes a moment
    ipywidgets.interact(draw, **widgets)
