"""Measures of a heatmap: where its mass lies, and what its favourite pixels are worth to the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


def blank_rate(maps: Array) -> float:
    """Share of maps without any positive value: after Grad-CAM's ReLU nothing is left of them to draw.

    maps: (B, h, w), before or after the ReLU, NumPy or PyTorch -> from 0 to 1. Says nothing about the maps
    that are not blank; report it beside every other measure, which cannot be computed for a blank map.
    """
    blank = (maps <= 0).all(axis=(1, 2))
    return float(blank.sum()) / len(maps)


def energy_inside(maps: Array, masks: NDArray[np.bool_]) -> Array:
    """Share of each map's positive mass that lies inside its mask.

    maps: (B, H, W), negative values count as 0; masks: (B, H, W), true inside -> (B,) in [0, 1]; a blank map
    scores 0. By chance, a uniform map scores the mask's share of the area. Misleading alone: where the
    background is black, the maps of an untrained net gather inside too, and inside is only plausible, not yet
    what the net uses (energy-based pointing game: Wang et al. 2020, Score-CAM).
    """
    positive = np.maximum(maps, 0)
    total = positive.sum(axis=(1, 2))
    inside = (positive * masks).sum(axis=(1, 2))
    return np.divide(inside, total, out=np.zeros_like(total), where=total > 0)


def pointing_game(maps: Array, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each map's highest point lies inside its mask; a blank map points nowhere, so it misses.

    maps: (B, H, W); masks: (B, H, W), true inside -> bool (B,). By chance, the mask's share of the area. Of
    several highest points the first in reading order counts. One point per image says little: take 200
    images or more (pointing game: Zhang et al. 2016, Excitation Backprop, there with a tolerance of 15 px).
    """
    flat = maps.reshape(len(maps), -1)
    hit = np.take_along_axis(masks.reshape(len(masks), -1), flat.argmax(axis=1)[:, None], axis=1)[:, 0]
    return hit & (flat.max(axis=1) > 0)


def energy_by_class(maps: Array, masks: NDArray[np.bool_], labels: NDArray[np.integer]) -> Array:
    """Energy inside, chance level and blank rate, for each class on its own.

    maps: (B, H, W); masks: (B, H, W), true inside; labels: (B,) -> (K, 3), one row per class that occurs, in
    ascending order: the mean of `energy_inside`, a blank map counted as 0; the mean share of the area that
    the mask covers, which is what a uniform map scores; the share of blank maps. All in [0, 1].
    """
    energy = energy_inside(maps, masks)
    area = masks.mean(axis=(1, 2))
    blank = (maps <= 0).all(axis=(1, 2))
    table = np.stack([energy, area, blank], axis=1)
    return np.stack([table[labels == k].mean(axis=0) for k in np.unique(labels)])


def flip_rate(
    predict: Callable[[Sequence[Any]], NDArray[np.integer]],
    items: Sequence[Any],
    change: Callable[[Any], Any],
) -> float:
    """How often a change alone makes the model predict another class: the share of counterfactual pairs.

    predict: N items -> classes (N,); change: an item -> its counterfactual twin, such as the same pet with
    another collar. Items that it leaves as they are make no pair and do not count -> from 0 to 1. What an
    item really is does not matter. Descriptions are compared, not pictures: hiding a collar that is not there
    would count as a pair that cannot flip. Raises ValueError if there is no pair. A part that flips the
    prediction when it is *swapped* is used by the model; one that does so when it is *hidden* may only have
    left an odd picture.
    """
    twins = [(item, change(item)) for item in items]
    pairs = [(item, twin) for item, twin in twins if item != twin]
    if not pairs:
        raise ValueError("the change leaves every item as it is: choose a change, or items, that make pairs")
    before = np.asarray(predict([item for item, _ in pairs]))
    after = np.asarray(predict([twin for _, twin in pairs]))
    return float(np.mean(before != after))


def ink_share(maps: Array, images: Array, threshold: float = 0.2) -> Array:
    """`energy_inside` of ink, that is, of the pixels brighter than `threshold`.

    maps: (B, H, W); images: (B, 1, H, W) in [0, 1] -> (B,) in [0, 1].
    """
    return energy_inside(maps, images[:, 0] > threshold)


def deletion_curve(
    predict: Callable[[Array], Array],
    images: Array,
    labels: NDArray[np.integer],
    maps: Array,
    counts: Sequence[int],
) -> Array:
    """Accuracy after the `count` highest pixels of each map were set to 0 (black), for each count.

    predict: images -> logits (B, K); images: (B, C, H, W); labels: (B,); maps: (B, H, W)
    -> (len(counts),) in [0, 1]. The faster it falls, the more the model relied on these pixels
    (pixel flipping: Samek et al. 2017). Misleading when blacked-out images look like nothing that the model
    was trained on, and where ties are many: those are cut in reading order.
    """
    order = np.argsort(-maps.reshape(len(maps), -1), axis=1, kind="stable")
    accuracies = []
    for count in counts:
        changed = images.reshape(len(images), images.shape[1], -1).copy()
        rows = np.arange(len(images))[:, None, None]
        changed[rows, np.arange(images.shape[1])[:, None], order[:, None, :count]] = 0
        accuracies.append((predict(changed.reshape(images.shape)).argmax(axis=1) == labels).mean())
    return np.array(accuracies)
