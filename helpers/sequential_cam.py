"""Grad-CAM on a net of named layers that run one after the other, in the small steps of lab 02.

Shapes: B images of H x W pixels; A is a layer's output (its activations), (B, K, h, w), and G the gradient of
one class's logit with respect to A, the same shape. `net` is an `nn.Sequential` made of named layers, `layer`
one of those names, and images, classes and net are on one device.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from helpers.saliency import hires_cam

__all__ = ["capture", "gap_maps", "grad_cam", "hires_cam", "logit_gradient", "weights_and_map"]


def capture(net: nn.Sequential, layer: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """Run the net layer by layer and keep what one of the layers puts out.

    images: (B, C, H, W) -> activations (B, K, h, w) and logits (B, classes), from one forward pass and still
    part of its graph. Raises KeyError for a name that no layer has.
    """
    outputs = {}
    x = images
    for name, module in net.named_children():
        x = outputs[name] = module(x)
    return outputs[layer], x


def logit_gradient(net: nn.Sequential, layer: str, images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Activations of a layer, and the gradient of each image's asked logit with respect to them.

    images: (B, C, H, W), classes: (B,) -> A and G, (B, K, h, w) each, cut off from the graph. No gradient of
    any parameter is touched.
    """
    activations, logits = capture(net, layer, images)
    score = logits.gather(1, classes[:, None]).sum()  # images do not mix, so one sum serves them all
    (gradients,) = torch.autograd.grad(score, activations)
    return activations.detach(), gradients


def weights_and_map(activations: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
    """Grad-CAM's channel weights and its map with signs, before the last ReLU.

    A and G, (B, K, h, w) each -> weights (B, K), the mean of each channel's gradient, and map (B, h, w)
    (Selvaraju et al. 2017, equations 1 and 2; equation 2 then drops what is negative).
    """
    weights = gradients.mean(dim=(2, 3))
    return weights, torch.einsum("bk,bkij->bij", weights, activations)


def grad_cam(net: nn.Sequential, layer: str, images: Tensor, classes: Tensor | int | None = None) -> Tensor:
    """Textbook Grad-CAM at one layer: images (B, C, H, W) -> maps (B, h, w), never negative.

    classes: one class for all images, one per image (B,), or None for those that the net predicts.
    """
    if classes is None:  # `if not classes` would take class 0 for "none given"
        classes = net(images).argmax(dim=1)
    classes = torch.as_tensor(classes, device=images.device).expand(len(images))
    _, maps = weights_and_map(*logit_gradient(net, layer, images, classes))
    return maps.clamp(min=0)


def gap_maps(
    activations: Tensor, gradients: Tensor, weight: Tensor, classes: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """CAM, Grad-CAM and HiResCAM with signs, in logits: one map under a global-average-pooling (GAP) head.

    activations, gradients: A and G at the layer that is averaged, (B, K, h, w); weight: (classes, K), of the
    linear layer; classes: (B,) -> three maps (B, h, w). CAM (Zhou et al. 2016, equation 2) weights channels
    by the class's weights. The average spreads each weight over h * w positions, so G = weight / (h * w)
    everywhere, and the other two maps need the factor h * w to be CAM.
    """
    size = activations[0, 0].numel()
    cam = torch.einsum("bk,bkij->bij", weight[classes], activations)
    _, averaged = weights_and_map(activations, gradients)
    return cam, size * averaged, size * hires_cam(activations, gradients)
