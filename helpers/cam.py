"""Grad-CAM for any PyTorch classifier, at the price of one forward pass.

Shapes: B images; A is the output (the activations) of one layer, (B, C, h, w): C channels of h x w positions.
Only what comes after that layer takes part in the backward pass. `cut` sees to that; the rest is the textbook
formula, and clear words for what cannot work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

__all__ = ["cut", "evaluating", "grad_cam"]


@contextmanager
def cut(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Let autograd record what comes after a layer, and nothing before it.

    A list that grows by one leaf each time the layer runs: its output, floats of any shape, cut off from the
    graph, so that the backward pass of `torch.autograd.grad(score, leaf)` ends there. At the end of the
    `with` block, after an error too, the hook is gone and recording is on or off as it was before.
    """
    leaves = []

    def start_recording(layer, inputs, output):
        leaves.append(output.detach().requires_grad_())
        torch.set_grad_enabled(True)
        return leaves[-1].clone()  # a module that works in place overwrites this copy, not the leaf

    with torch.no_grad(), layer.register_forward_hook(start_recording):
        yield leaves


def grad_cam(
    model: nn.Module,
    layer: nn.Module,
    images: Tensor,
    classes: int | Sequence | Tensor | None = None,
    *,
    relu: bool = True,
    to_map: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Grad-CAM maps at one layer of the model, and the model's logits, from one forward pass.

    images: (B, ...), as the model takes them. classes: None for those that the model predicts, one for all
    images, one per image (B,), or several per image (B, K). -> maps (B, h, w), or (B, K, h, w) for several,
    and logits (B, classes), both cut off from the graph. Maps are float32, in units of the logit, not scaled
    to [0, 1], and never negative unless `relu=False` asks for the signs.

    Each channel of A is weighted by the mean of its gradient, and the channels are added up (Selvaraju et al.
    2017, equations 1 and 2; equation 2 ends with the ReLU). A map without anything positive is 0 everywhere.
    If the model computes NaN, so does the map.

    to_map: where A is not (B, C, h, w), the function that brings it into this order, for example a
    transformer's tokens (B, 1 + h * w, C). Gradients pass through it too, so it may leave out and reorder,
    nothing else. Swin's (B, h, w, C) needs one as well; its number of axes does not give that away.

    The model is evaluated as after `model.eval()` and left as it was: modes, statistics of batch
    normalisation, hooks, every `.grad`. It makes no difference whether parameters are frozen or whether the
    caller runs under `no_grad` or `inference_mode`. Of a layer that runs several times, the last run counts.

    Raises TypeError for a layer given by its name, for a layer or model that returns anything but one tensor
    of floats, and for classes that are not whole numbers; ValueError for a layer that did not run or gives no
    maps, and for a wrong number of classes or one that the model does not have; RuntimeError if nothing that
    was recorded leads from the layer to the logits.
    """
    if not (isinstance(model, nn.Module) and isinstance(layer, nn.Module)):
        raise TypeError("model and layer must be modules; model.get_submodule('layer4') finds one by name")
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.callback(torch.clear_autocast_cache)  # weights cast without a graph cannot be trained
        stack.enter_context(torch.compiler.set_stance("force_eager"))  # compiled code does not call hooks
        stack.enter_context(evaluating(model))
        stack.enter_context(layer.register_forward_hook(_expect_floats))
        leaves = stack.enter_context(cut(layer))
        # what was made in inference mode cannot be recorded, but a copy of it can
        logits = model(images.clone() if images.is_inference() else images)
        if not leaves:
            raise ValueError("the layer did not run in model(images): pass a layer of this very model")
        _expect_logits(logits)
        wanted = _expect_classes(classes, logits)
        with torch.enable_grad():  # a model whose forward ends under its own no_grad leaves recording off
            picked = logits.gather(1, wanted if wanted.ndim == 2 else wanted[:, None])
            scores = picked.sum(dim=0).unbind()  # images do not mix, so one sum over them serves all
        activations = _in_map_order(leaves[-1].detach(), to_map, len(logits))
        maps = []
        for gradient in _gradients(scores, leaves[-1]):
            weights = _in_map_order(gradient, to_map, len(logits)).mean(dim=(2, 3), keepdim=True)
            maps.append((weights * activations).sum(dim=1))
        result = torch.stack(maps, dim=1) if wanted.ndim == 2 else maps[0]
        return (result.clamp(min=0) if relu else result), logits.detach()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for every module, and afterwards the mode that each of them had."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


def _expect_floats(layer: nn.Module, inputs: tuple, output: object) -> None:
    """A forward hook. Raises TypeError if the layer returns anything but one tensor of floats."""
    if not (isinstance(output, Tensor) and output.is_floating_point()):
        raise TypeError(
            f"the layer returns {_kind(output)}, not one tensor of floats: pass a layer inside or before it"
        )


def _expect_logits(logits: object) -> None:
    """Raises TypeError unless this is a tensor (B, classes) of floats."""
    if not (isinstance(logits, Tensor) and logits.is_floating_point() and logits.ndim == 2):
        raise TypeError(
            f"model(images) returns {_kind(logits)}, not logits (images, classes): "
            "wrap it in a module whose forward returns the logits alone"
        )


def _kind(output: object) -> str:
    """What a layer or model returned, in words."""
    if isinstance(output, Tensor):
        return f"a tensor {tuple(output.shape)} of {output.dtype}"
    return f"a {type(output).__name__}"


def _expect_classes(classes: int | Sequence | Tensor | None, logits: Tensor) -> Tensor:
    """The classes as a tensor (B,) or (B, K) of whole numbers, each one a column of the logits."""
    if classes is None:  # `if not classes` would take class 0 for "none given"
        return logits.argmax(dim=1)
    try:
        wanted = torch.as_tensor(classes, device=logits.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"classes cannot be read as a table of whole numbers: {error}") from error
    if wanted.dtype == torch.bool or wanted.is_floating_point() or wanted.is_complex():
        raise TypeError(f"classes are {wanted.dtype}: pass whole numbers, such as labels (int64)")
    images, count = logits.shape
    if wanted.ndim == 0:
        wanted = wanted.expand(images)
    if wanted.ndim > 2 or len(wanted) != images or wanted.numel() < images:
        raise ValueError(
            f"classes of shape {tuple(wanted.shape)} do not fit {images} images: pass one class for all, "
            f"one per image, ({images},), or K per image, ({images}, K)"
        )
    wanted = wanted.long()
    if ((wanted < 0) | (wanted >= count)).any():
        raise ValueError(f"classes from {wanted.min()} to {wanted.max()}: the model has 0 to {count - 1}")
    return wanted


def _gradients(scores: Sequence[Tensor], leaf: Tensor) -> Iterator[Tensor]:
    """The gradient of each score with respect to the leaf, of the leaf's shape.

    Raises RuntimeError if no recorded operation leads from the leaf to the score.
    """
    for score in scores:
        gradient = None
        if score.requires_grad:
            (gradient,) = torch.autograd.grad(score, leaf, retain_graph=True, allow_unused=True)
        if gradient is None:
            raise RuntimeError(
                "nothing recorded leads from the layer to the logits: pass a layer that they depend on; if "
                "the model uses no_grad, inference_mode or detach in between, freeze its parameters with "
                "requires_grad_(False) instead"
            )
        yield gradient


def _in_map_order(x: Tensor, to_map: Callable[[Tensor], Tensor] | None, images: int) -> Tensor:
    """Activations or gradients as (B, C, h, w) in float32. Raises ValueError if they are in another order."""
    maps = to_map(x) if to_map else x
    if maps.ndim != 4 or len(maps) != images:
        raise ValueError(
            f"the layer's output is {tuple(maps.shape)}, not ({images}, channels, height, width): pass a "
            "layer that still has positions, or to_map, a function that brings the output into this order"
        )
    return maps.float()  # the sums over positions and channels lose digits in half precision
