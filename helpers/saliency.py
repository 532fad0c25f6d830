"""Explanations of a NumPy net's logits: input gradients, Grad-CAM, and what their totals say.

Shapes: B images, C channels, H x W pixels; A is a layer's output, (B, C, h, w), and G the gradient of one
logit with respect to A, the same shape. `net` is a `helpers.numpy_nn.Sequential`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from helpers.metrics import ink_share
from helpers.numpy_nn import Array, Sequential

Classes = NDArray[np.integer]


def seed(logits: Array, classes: Classes) -> Array:
    """What a backward pass starts from to get the gradient of one logit per image: d logit[class] / d logits.

    logits: (B, K), classes: (B,) from 0 to K - 1 -> (B, K), 1 at the asked class and 0 elsewhere.
    Raises ValueError for a negative class, IndexError for one that is too large.
    """
    if np.min(classes) < 0:
        raise ValueError("classes count from 0; -1 would silently mean the last one")
    one_hot = np.zeros_like(logits)
    one_hot[np.arange(len(logits)), classes] = 1
    return one_hot


def class_saliency(net: Sequential, images: Array, classes: Classes) -> Array:
    """How strongly each pixel moves the logit of the asked class, whichever way.

    images: (B, C, H, W), classes: (B,) -> (B, H, W), >= 0: |d logit / d pixel|, the largest over the channels
    (Simonyan, Vedaldi, Zisserman 2014, section 3).
    """
    logits = net.forward(images)
    gradient = net.gradient(seed(logits, classes))
    return np.abs(gradient).max(axis=1)


def class_activation_map(activations: Array, gradients: Array) -> Array:
    """Grad-CAM before its ReLU: every channel of A, weighted by the mean of its gradient, added up.

    activations, gradients: A and G, (B, C, h, w) -> (B, h, w), with signs
    (Selvaraju et al. 2017, equations 1 and 2; equation 2 then drops what is negative).
    """
    weights = gradients.mean(axis=(2, 3), keepdims=True)
    return (weights * activations).sum(axis=1)


def hires_cam(activations: Array, gradients: Array) -> Array:
    """HiResCAM: the same sum without the averaging, so each position keeps its own weight. Takes tensors too.

    activations, gradients: A and G, (B, C, h, w) -> (B, h, w), with signs (Draelos, Carin 2020).
    If only ReLU, max-pooling, averaging and one linear layer follow A, the map adds up to logit - bias.
    """
    return (gradients * activations).sum(axis=1)


def map_totals(
    activations: Array, gradients: Array, logits: Array, bias: Array, classes: Classes
) -> tuple[Array, Array, Array]:
    """Per image: the total of Grad-CAM's signed map, the total of HiResCAM's, and the evidence to explain.

    activations, gradients: (B, C, h, w); logits: (B, K); bias: (K,), of the last layer; classes: (B,), the
    class that `gradients` belongs to -> three arrays (B,). The evidence is logit - bias: a bias is the same
    for every image, so no pixel can have earned it.
    """
    grad_cam_total = (gradients.mean(axis=(2, 3), keepdims=True) * activations).sum(axis=(1, 2, 3))
    hires_cam_total = (gradients * activations).sum(axis=(1, 2, 3))
    evidence = logits[np.arange(len(classes)), classes] - bias[classes]
    return grad_cam_total, hires_cam_total, evidence


def untrained_control(
    net: Sequential, images: Array, classes: Classes, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Share of the saliency on ink, for the net and for a copy of it whose weights were drawn afresh.

    images: (B, 1, H, W), classes: (B,), rng: draws the copy's weights; `net` stays as it is
    -> two arrays (B,) in [0, 1]. A score that an untrained net reaches too says nothing about training
    (the randomisation test of Adebayo et al. 2018).
    """
    untrained = net.copy().initialise(rng)
    trained_share = ink_share(class_saliency(net, images, classes), images)
    untrained_share = ink_share(class_saliency(untrained, images, classes), images)
    return trained_share, untrained_share
