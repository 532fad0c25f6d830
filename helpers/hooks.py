"""What a layer computes, kept while the whole net runs: activations on the way in, gradients on the way back.

The context managers work for layers that return one tensor. Inside the `with` block PyTorch calls the hook
whenever the layer runs; at its end, after an error too, the hook is gone. `out_of_place` prepares a network
for hooks that an in-place operation forbids.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

__all__ = ["capture", "guided_backprop", "keep_gradients", "keep_outputs", "out_of_place"]


@contextmanager
def keep_outputs(layer: nn.Module) -> Iterator[list[Tensor]]:
    """A list that grows by the layer's output each time the layer runs, of whatever shape.

    The outputs themselves, still part of the graph: where the next module works in place, as
    `nn.ReLU(inplace=True)` does, what was kept changes with it.
    """
    outputs = []

    def keep(layer, inputs, output):
        outputs.append(output)  # and return nothing: what a hook returns would replace the output

    handle = layer.register_forward_hook(keep)
    try:
        yield outputs
    finally:
        handle.remove()


@contextmanager
def keep_gradients(layer: nn.Module) -> Iterator[list[Tensor]]:
    """A list that grows, at each backward pass, by the gradient with respect to the layer's output.

    Of the output's shape each. Where the next module works in place, PyTorch forbids this kind of hook and
    raises RuntimeError in the forward pass; `capture` works there.
    """
    gradients = []

    def keep(layer, grad_input, grad_output):
        gradients.append(grad_output[0])  # a tuple, of one tensor per output

    handle = layer.register_full_backward_hook(keep)
    try:
        yield gradients
    finally:
        handle.remove()


@contextmanager
def capture(*layers: nn.Module) -> Iterator[dict[nn.Module, Tensor]]:
    """What one or several layers put out, layer -> activations, safe from what works in place after them.

    The forward pass fills the dictionary. The activations are part of the graph: `torch.autograd.grad(score,
    kept[layer])` gives their gradient, and after `score.backward()` it stands in `kept[layer].grad`, where
    further backward passes add to it. Of a layer that runs several times, the last run counts. Where no graph
    is recorded, under `no_grad` or with all parameters frozen, there are activations only.
    """
    kept = {}

    def keep(layer, inputs, output):
        kept[layer] = output
        if output.requires_grad:
            output.retain_grad()
        return output.clone()  # a module that works in place overwrites this copy, not what was kept

    with ExitStack() as hooks:
        for layer in layers:
            hooks.enter_context(layer.register_forward_hook(keep))
        yield kept


def out_of_place(model: nn.Module) -> nn.Module:
    """Let every module inside work out of place, at any depth, and hand back the model, which is changed.

    That is every module that has `inplace=True`: `nn.ReLU`, but also others, such as `nn.LeakyReLU` and
    `nn.Dropout`. Each stays the very module that it was, so that whoever holds a layer still holds one that
    runs. What works in place inside a `forward`, such as `F.relu_(x)` or `x += y`, is no module and stays as
    it is. The model computes the same as before and needs more memory.
    """
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False
    return model


@contextmanager
def guided_backprop(model: nn.Module) -> Iterator[None]:
    """A block in which the backward pass through every `nn.ReLU` drops negative gradients too.

    A ReLU lets the gradient through where its input was positive; here the gradient has to be positive as
    well (Springenberg et al. 2015, section 3.4). Forward pass and backward pass both belong into the block.
    The forward pass computes what it always does. At the block's end, after an error too, the hooks are gone.
    Only `nn.ReLU` modules take part, not `F.relu`. None may work in place (see `out_of_place`), or PyTorch
    raises RuntimeError in the forward pass.

    The pictures are sharp, but say little about the class: they change little when the last layers are
    randomised (Adebayo et al. 2018; Nie, Zhang, Patel 2018).
    """

    def guide(relu, grad_input, grad_output):
        return (grad_input[0].clamp(min=0),)  # already 0 where the ReLU's input was not positive

    with ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, nn.ReLU):
                hooks.enter_context(module.register_full_backward_hook(guide))
        yield
