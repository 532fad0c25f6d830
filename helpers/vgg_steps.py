"""The steps of lab 05: one network, read in several ways, and what the ways have in common.

Shapes: B images; A is a layer's output (its activations), (B, C, h, w), and G the gradient of one logit per
image with respect to A, the same shape. What runs a network takes and gives PyTorch tensors; what works on
finished maps takes and gives NumPy arrays, as `helpers.overlay` and `helpers.metrics` do.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import rankdata
from torch import Tensor, nn

from helpers.hooks import capture
from helpers.resnet_steps import denormalise

__all__ = ["centred", "extreme_channels", "rank_agreement", "shown_and_seen", "three_maps"]

Array = NDArray[np.floating]


def three_maps(
    model: nn.Module, conv: nn.Module, relu: nn.Module, images: Tensor, classes: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Three maps that all go by the name of Grad-CAM "at the last convolution": before, after, mixed.

    conv, relu: a convolution of the model and the ReLU that follows it (it may work in place); images: as the
    model takes them; classes: (B,) -> three maps (B, h, w), with signs, cut off from the graph:
    before: activations and gradients of the convolution's own output;
    after: activations and gradients of the ReLU's output, as in Selvaraju et al. 2017;
    mixed: activations of the ReLU, weights of the convolution. A program computes this one without saying so
    if it asks for the convolution, and a ReLU that works in place overwrites what its hook has kept.
    One forward and one backward pass; no `.grad` of the model is touched.
    """
    with capture(conv, relu) as kept:
        logits = model(images)
    score = logits.gather(1, classes[:, None]).sum()  # images do not mix, so one sum serves them all
    gradients = torch.autograd.grad(score, (kept[conv], kept[relu]))
    before, after = kept[conv].detach(), kept[relu].detach()
    weights_before, weights_after = (gradient.mean(dim=(2, 3), keepdim=True) for gradient in gradients)
    pairs = (weights_before, before), (weights_after, after), (weights_before, after)
    return tuple((weights * activations).sum(dim=1) for weights, activations in pairs)


def extreme_channels(gradients: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """For each image the k channels with the largest and the k with the smallest mean gradient.

    gradients: G, (B, C, h, w); k: from 1 to C -> two tensors (B, k) of channel numbers: largest mean first,
    and smallest mean, which is the most negative one, first. These means are the weights of Grad-CAM.
    """
    means = gradients.mean(dim=(2, 3))
    largest = means.topk(k, dim=1).indices
    smallest = means.topk(k, dim=1, largest=False).indices
    return largest, smallest


def centred(maps: Array) -> Array:
    """Scale each signed map to [-1, 1] so that 0 stays 0, for a colour scale with 0 in its middle.

    maps: (B, h, w), with signs -> (B, h, w): each map is divided by its own largest absolute value. A map
    that is 0 everywhere stays so. One factor for both signs: the same strength has the same depth of colour.
    """
    largest = np.abs(maps).max(axis=(1, 2), keepdims=True)
    return np.divide(maps, largest, out=np.zeros_like(maps), where=largest > 0)


def rank_agreement(one: Array, other: Array) -> Array:
    """Whether two saliency maps order the pixels alike: Spearman's rank correlation, for each image.

    one, other: (B, h, w) -> (B,), from -1 (opposite order) to 1 (the same order), and NaN where one of the
    two maps is constant: a blank map has no order, neither the same nor another one. Equal values share the
    mean of their ranks. Signs count; pass absolute values if only the strength is to count (Adebayo et al.
    2018 report both). Misleading where most of both maps is 0: then it is mainly the zeros that are compared.
    """
    one, other = (rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (one, other))
    one = one - one.mean(axis=1, keepdims=True)
    other = other - other.mean(axis=1, keepdims=True)
    spread = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    return np.divide((one * other).sum(axis=1), spread, out=np.full(len(one), np.nan), where=spread > 0)


def shown_and_seen(photo: Image.Image, preprocess: nn.Module) -> tuple[Array, Tensor]:
    """A photo as the model sees it, and the very same pixels for display.

    photo: a PIL image, RGB, of any size; preprocess: the model's own, which resizes, crops to the middle and
    normalises; it has `mean` and `std` -> shown: (h, w, 3), in [0, 1], and seen: (1, 3, h, w), normalised.
    What is shown is made from what is seen: whoever crops once for the eye and once for the model lays the
    map over another part of the photo.
    """
    seen = preprocess(photo)[None]
    shown = denormalise(seen, preprocess.mean, preprocess.std)[0]
    return shown.permute(1, 2, 0).numpy(), seen
