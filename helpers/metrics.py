"""Measures of a heatmap: where its mass lies, and what its favourite pixels are worth to the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


def ink_share(maps: Array, images: Array, threshold: float = 0.2) -> Array:
    """Share of a map's positive mass that lies on ink, that is, on pixels brighter than `threshold`.

    maps: (B, H, W), negative values count as 0; images: (B, 1, H, W) in [0, 1] -> (B,) in [0, 1]; a map
    without any positive value scores 0. By chance, a uniform map scores the ink's share of the area.
    Misleading alone: the gradient of any net, trained or not, gathers around ink.
    """
    positive = np.maximum(maps, 0)
    total = positive.sum(axis=(1, 2))
    on_ink = (positive * (images[:, 0] > threshold)).sum(axis=(1, 2))
    return np.divide(on_ink, total, out=np.zeros_like(total), where=total > 0)


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
