"""The steps of lab 04: from a normalised photo to maps of a ResNet, and what becomes of them.

Shapes: B images of H x W pixels; A is a layer's output (its activations), (B, C, h, w); a map is (B, h, w).
`layer` is a module inside `model`; everything is on one device. The short version for students: `helpers.cam`
computes the same Grad-CAM at a lower price, and says what is wrong where something is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.cam import evaluating
from helpers.hooks import capture

__all__ = [
    "class_activation_map",
    "denormalise",
    "evidence_for_difference",
    "explain",
    "like_the_library",
    "shifted_agreement",
]


def denormalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Undo Normalize: normalised images (B, 3, H, W) -> RGB pictures (B, 3, H, W) in [0, 1].

    mean, std: what Normalize was given, three floats each, for red, green and blue. Rounding, or noise that
    was added later, carries values out of [0, 1]; they become 0 or 1.
    """
    mean, std = (images.new_tensor(values)[:, None, None] for values in (mean, std))
    return (images * std + mean).clamp(0, 1)


def explain(
    model: nn.Module, layer: nn.Module, images: Tensor, classes: Tensor | int | None = None
) -> tuple[Tensor, Tensor]:
    """Grad-CAM at any layer (Selvaraju et al. 2017): maps (B, h, w), never negative, and their classes (B,).

    images: (B, 3, H, W), normalised. classes: one class for all images, one per image (B,), or None for those
    that the model predicts. Maps are in units of the logit, not scaled. The model is evaluated as after
    `model.eval()` and left as it was, modes, hooks and gradients, also if its forward pass fails.
    """
    with evaluating(model), capture(layer) as kept:
        logits = model(images)
    if classes is None:  # `if not classes` would take class 0 for "none given"
        classes = logits.argmax(dim=1)
    classes = torch.as_tensor(classes, device=logits.device).expand(len(logits))
    score = logits.gather(1, classes[:, None]).sum()  # images do not mix, so one sum serves them all
    (gradients,) = torch.autograd.grad(score, kept[layer])
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    return (weights * kept[layer].detach()).sum(dim=1).clamp(min=0), classes


def class_activation_map(activations: Tensor, fc: nn.Linear, classes: Tensor) -> tuple[Tensor, Tensor]:
    """CAM (Zhou et al. 2016, equation 2), and the logits that it adds up to: no gradient is needed.

    activations: what is averaged over its cells before `fc`, (B, C, h, w); fc: the linear layer, C -> K;
    classes: (B,) -> maps (B, h, w), with signs, and logits (B,). Each channel is weighted by the class's
    weight. The average of a map over its cells, plus the bias, is the logit; the bias belongs to no cell.
    The map is h * w times Grad-CAM before its ReLU, and h * w times HiResCAM. Both results are still part of
    the graph.
    """
    maps = torch.einsum("bc,bcij->bij", fc.weight[classes], activations)
    return maps, maps.mean(dim=(1, 2)) + fc.bias[classes]


def like_the_library(maps: Tensor, shape: tuple[int, int]) -> Tensor:
    """What pytorch-grad-cam 1.5 makes of maps before it hands them out: (B, h, w) -> (B, *shape) in [0, 1].

    maps: after the ReLU, so never negative; shape: (H, W) of the picture. Each map is stretched from its
    minimum to its maximum, with 1e-7 added to the divisor; enlarged bilinearly, pixel centres as in OpenCV;
    and stretched again. So the weakest evidence is drawn as none, and evidence that is the same everywhere
    as none at all, where `overlay.to_unit` divides by the maximum and zero alone stays zero. A blank map
    stays blank under both.
    """

    def stretch(maps):
        maps = maps - maps.amin(dim=(1, 2), keepdim=True)
        return maps / (1e-7 + maps.amax(dim=(1, 2), keepdim=True))

    enlarged = F.interpolate(stretch(maps)[:, None], size=shape, mode="bilinear", align_corners=False)
    return stretch(enlarged[:, 0])


def evidence_for_difference(
    model: nn.Module, layer: nn.Module, images: Tensor, first: int, second: int
) -> Tensor:
    """What speaks for one class rather than another: Grad-CAM with signs for the score z_first - z_second.

    images: (B, 3, H, W), normalised; first, second: class numbers -> maps (B, h, w), in units of the logit:
    positive where the evidence for `first` is stronger, negative for `second`. What speaks for both cancels,
    which a difference of two maps after their ReLU would lose. The difference is the logarithm of the ratio
    of both probabilities, so no third class has a say. The model is left as it was, as by `explain`.
    """
    with evaluating(model), capture(layer) as kept:
        logits = model(images)
    score = (logits[:, first] - logits[:, second]).sum()
    (gradients,) = torch.autograd.grad(score, kept[layer])
    return (gradients.mean(dim=(2, 3), keepdim=True) * kept[layer].detach()).sum(dim=1)


def shifted_agreement(explain: Callable[[Tensor], Tensor], photo: Tensor, pixels: int) -> float:
    """Whether a map moves with the photo: Pearson correlation of two maps where both show the same place.

    explain: crop (1, 3, H, w) -> map (1, H, w), as large as the crop; photo: (1, 3, H, W); pixels: by how
    many columns the two crops differ, 0 or more. One crop lacks the photo's right-most `pixels` columns, the
    other its left-most, so both show W - 2 * pixels columns of W - pixels in common -> from -1 to 1; NaN
    where one of the maps is blank on the part in common: there is nothing to agree on. Misleading alone: a
    coarse map that ignores the photo still agrees with itself at about .9 after 8 of 224 pixels, so compare
    with what such a map scores.
    """
    width = photo.shape[-1] - pixels  # `[..., :-pixels]` would be empty for 0 pixels
    left, right = explain(photo[..., :width]), explain(photo[..., pixels:])
    both = torch.stack([left[..., pixels:].flatten(), right[..., : width - pixels].flatten()])
    return float(torch.corrcoef(both)[0, 1])
