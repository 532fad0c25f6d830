"""Exercises of lab 03: hooks, the cut, where a cell looks, and two measures that are not fooled.

The first four answers are context managers, so a check cannot compare what they return: it opens the block, runs a
small net in it, forwards and backwards, and looks at what was kept, at what the net computed meanwhile, and at what
is left afterwards, also when an error ends the block.

Inputs are chosen so that mistakes show: layers run twice, stand in blocks, and are followed by what works in place;
nets are in training and in evaluation mode, some frozen; there is one image as well as several, in both precisions;
kernels are even as well as odd, masks of unequal size, classes of unequal number, and labels leave gaps.

Where a mistake was seen: "source" is the code that the lab's methods come from, "peer" another course or library,
"trial" an answer to this or a like exercise, given while it was tried, often by ourselves in the part of a student.
"""

import copy
from collections import OrderedDict
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from helpers import cam, hooks, metrics, overlay

from . import Complaint, Exercise, Mistake
from ._blocks import (
    expect_errors_to_pass,
    expect_state,
    hook_count,
    is_block,
    opened,
    state_of,
    with_random_weights,
)

# Nets ------------------------------------------------------------------------------------------------------


class _Residual(nn.Module):
    """x -> ReLU(conv(x) + x), in place or not."""

    def __init__(self, in_place):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.in_place = in_place

    def forward(self, x):
        y = self.conv(x)
        if self.in_place:
            y += x
            return F.relu_(y)
        return F.relu(y + x)


def _net(rng, dtype, in_place=False):
    """2 x 6 x 5 images -> 8 channels of 6 x 5 -> the same -> 7 channels of 5 x 4 -> 4 logits."""
    with torch.random.fork_rng(devices=()):  # layers draw from the global generator when they are made
        net = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(2, 8, 3, padding=1),
                relu1=nn.ReLU(inplace=in_place),
                block=_Residual(in_place),
                conv2=nn.Conv2d(8, 7, 2),
                relu2=nn.ReLU(inplace=in_place),
                flatten=nn.Flatten(),
                linear=nn.Linear(7 * 5 * 4, 4),
            )
        )
    return with_random_weights(rng, net, dtype)


class _Twice(nn.Module):
    """A net that runs its only convolution twice."""

    def __init__(self, in_place):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.relu = nn.ReLU(inplace=in_place)
        self.linear = nn.Linear(2 * 6 * 5, 4)

    def forward(self, x):
        for _ in range(2):
            x = self.relu(self.conv(x))
        return self.linear(x.flatten(1))


def _twice(rng, dtype, in_place=False):
    with torch.random.fork_rng(devices=()):
        net = _Twice(in_place)
    return with_random_weights(rng, net, dtype)


def _images(rng, dtype, number=3):
    return torch.tensor(rng.normal(size=(number, 2, 6, 5)), dtype=dtype)


def _expect_list(kept, number, when):
    """Complain unless this is a list of so many items."""
    if not isinstance(kept, list):
        raise Complaint(f"The block gives an object of type `{type(kept).__name__}`; wanted a list.")
    if len(kept) != number:
        raise Complaint(f"{when}, the length of the list is {len(kept)}; wanted {number}.")


def _expect_tensors(kept):
    for i, item in enumerate(kept):
        if not isinstance(item, torch.Tensor):
            raise Complaint(f"Item {i} of what you keep is of type `{type(item).__name__}`; wanted a tensor.")


def _runs(net, module, images):
    """How often the layer runs when the net runs once."""
    calls = []
    with module.register_forward_hook(lambda *args: calls.append(1)):
        net(images)
    return len(calls)


def _score(logits):
    return (logits[:, 1] * logits[:, 2]).sum()


def _gradient(net, logits, kept):
    """The gradient that flows from the logits to what was kept, or a complaint about why none does."""
    if not logits.requires_grad:
        raise Complaint("No gradient can start from the logits: the net ran without taking notes.")
    if not kept.requires_grad:
        raise Complaint("What you keep is cut off from the graph: no gradient can reach it.")
    score, first = _score(logits), next(p for p in net.parameters() if p.requires_grad)
    kept_gradient, first_gradient = torch.autograd.grad(
        score, (kept, first), allow_unused=True, retain_graph=True
    )
    if kept_gradient is None:
        if first_gradient is None:
            raise Complaint("The net goes on with a tensor that is cut off from what the layer computed.")
        raise Complaint("No gradient reaches what you keep: the net went on with another tensor.")
    if first_gradient is None:
        raise Complaint("The layers before the hook get no gradient any more.")
    return kept_gradient


def _hooking(hook, register="register_forward_hook"):
    """An answer to 3.1 or 3.2 whose hook is `hook(kept, layer, ...)`."""

    @contextmanager
    def answer(layer):
        kept = []
        handle = getattr(layer, register)(lambda *args: hook(kept, *args))
        try:
            yield kept
        finally:
            handle.remove()

    return answer


# 3.1 -------------------------------------------------------------------------------------------------------


def _outputs_cases(rng):
    net, images = _net(rng, torch.float32), _images(rng, torch.float32)
    precise = _net(rng, torch.float64)
    frozen = copy.deepcopy(precise).requires_grad_(False)
    return [
        (net, "conv1", images),
        (net, "block", images[:1]),
        (_twice(rng, torch.float64), "conv", images.double()),
        (precise, "conv2", images.double()),
        (frozen, "relu2", images.double()),
    ]


def _use_outputs(answer, net, layer, images):
    """What is kept of two runs, what the net computes, and the gradient that reaches the first output."""
    module = net.get_submodule(layer)
    runs = _runs(net, module, images)
    state = state_of(net)
    block = answer(module)
    if not is_block(block):
        return block
    with opened(block) as outputs:
        _expect_list(outputs, 0, "Before the net has run")
        if hook_count(net) == state[0]:
            raise Complaint("Inside the block there is no hook on the layer.")
        logits = net(images)
        _expect_list(outputs, runs, "After the net has run once")
        second = net(images[:1])
        _expect_list(outputs, 2 * runs, "After the net has run twice")
        _expect_tensors(outputs)
    _expect_list(outputs, 2 * runs, "After the block")
    net(images)
    if len(outputs) != 2 * runs:
        raise Complaint("Your hook is still at work after the block.")
    expect_state(net, state, "After the block")
    frozen = not any(parameter.requires_grad for parameter in net.parameters())
    gradient = () if frozen else _gradient(net, logits, outputs[0])
    expect_errors_to_pass(answer, (module,), net, images)
    return tuple(outputs), logits, second, gradient


def _generator_without_decorator(register, pick):
    def answer(layer):
        kept = []
        handle = getattr(layer, register)(lambda *args: kept.append(pick(*args)))
        try:
            yield kept
        finally:
            handle.remove()

    return answer


def _returned(register, pick):
    @contextmanager
    def answer(layer):
        kept = []
        getattr(layer, register)(lambda *args: kept.append(pick(*args)))
        return kept

    return answer


def _never_removed(register, pick):
    @contextmanager
    def answer(layer):
        kept = []
        getattr(layer, register)(lambda *args: kept.append(pick(*args)))
        yield kept

    return answer


def _without_finally(register, pick):
    @contextmanager
    def answer(layer):
        kept = []
        handle = getattr(layer, register)(lambda *args: kept.append(pick(*args)))
        yield kept
        handle.remove()

    return answer


def _swallowing(register, pick):
    @contextmanager
    def answer(layer):
        kept = []
        handle = getattr(layer, register)(lambda *args: kept.append(pick(*args)))
        try:
            yield kept
        except Exception:
            pass
        handle.remove()

    return answer


def _removed_too_early(register, pick):
    @contextmanager
    def answer(layer):
        kept = []
        handle = getattr(layer, register)(lambda *args: kept.append(pick(*args)))
        handle.remove()
        yield kept

    return answer


def _yielding(register, pick, choose):
    """An answer that hands out `choose(kept, handle)`."""

    @contextmanager
    def answer(layer):
        kept = []
        handle = getattr(layer, register)(lambda *args: kept.append(pick(*args)))
        try:
            yield choose(kept, handle)
        finally:
            handle.remove()

    return answer


def _emptied(register, pick):
    @contextmanager
    def answer(layer):
        kept = []
        handle = getattr(layer, register)(lambda *args: kept.append(pick(*args)))
        try:
            yield kept
        finally:
            handle.remove()
            kept.clear()

    return answer


def _never_registered(layer):
    return nullcontext([])


def _called_at_once(register):
    @contextmanager
    def answer(layer):
        kept = []

        def keep(layer, before, after):
            kept.append(after)

        handle = getattr(layer, register)(keep())
        try:
            yield kept
        finally:
            handle.remove()

    return answer


def _with_parameters(register, number):
    """An answer whose hook takes another number of parameters than PyTorch passes."""

    @contextmanager
    def answer(layer):
        kept = []

        def keep1(output):
            kept.append(output)

        def keep2(layer, output):
            kept.append(output)

        handle = getattr(layer, register)({1: keep1, 2: keep2}[number])
        try:
            yield kept
        finally:
            handle.remove()

    return answer


def _removed_from_the_layer(register, pick):
    @contextmanager
    def answer(layer):
        kept = []
        getattr(layer, register)(lambda *args: kept.append(pick(*args)))
        try:
            yield kept
        finally:
            layer.remove()

    return answer


def _assigned_to_the_first_place(kept, *args):
    kept[0] = args[-1]


def _only_the_last(pick):
    def hook(kept, *args):
        kept[:] = [pick(*args)]

    return hook


@contextmanager
def _outputs_of_everything(layer):
    outputs = []
    handle = nn.modules.module.register_module_forward_hook(lambda *args: outputs.append(args[-1]))
    try:
        yield outputs
    finally:
        handle.remove()


@contextmanager
def _outputs_of_all_inside(layer):
    outputs = []
    handles = [m.register_forward_hook(lambda *args: outputs.append(args[-1])) for m in layer.modules()]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _outputs_without_graph(layer):
    with torch.no_grad(), hooks.keep_outputs(layer) as outputs:
        yield outputs


@contextmanager
def _outputs_by_closure_variable(layer):
    outputs = []

    def keep(layer, inputs, output):
        outputs += output  # noqa: F823, F841

    handle = layer.register_forward_hook(keep)
    try:
        yield outputs
    finally:
        handle.remove()


def _hook_kept(change=lambda output: output, sent=lambda output: None):
    """Keep `change(output)` and return `sent(output)`, which takes the place of the output."""

    def hook(outputs, layer, inputs, output):
        outputs.append(change(output))
        return sent(output)

    return _hooking(hook)


def _return_the_list(outputs, layer, inputs, output):
    outputs.append(output)
    return outputs


class _OutputsByClass:
    def __init__(self, layer):
        self.layer = layer

    def __enter__(self):
        self.outputs = []
        self.handle = self.layer.register_forward_hook(self.keep)
        return self.outputs

    def keep(self, layer, inputs, output):
        self.outputs.append(output)

    def __exit__(self, *_error):
        self.handle.remove()


@contextmanager
def _outputs_by_handle(layer):
    outputs = []
    with layer.register_forward_hook(lambda layer, inputs, output: outputs.append(output)):
        yield outputs


@contextmanager
def _outputs_by_exit_stack(layer):
    with ExitStack() as stack:
        outputs = []
        handle = layer.register_forward_hook(partial(_keep_second, outputs))
        stack.callback(handle.remove)
        yield outputs


def _keep_second(outputs, layer, inputs, output):
    outputs.extend([output])


FORWARD = ("register_forward_hook", lambda layer, inputs, output: output)

forward_hook = Exercise(
    key="3.1",
    title="a forward hook",
    reference=hooks.keep_outputs,
    cases=_outputs_cases,
    use=_use_outputs,
    mistakes=(
        Mistake(
            _generator_without_decorator(*FORWARD),
            "Write `@contextmanager` on the line between `@exercise(...)` and `def`: without it, `yield` makes a generator, "
            "which `with` cannot open.",
            "trial",
        ),
        Mistake(
            _returned(*FORWARD),
            "Write `yield outputs` in place of `return outputs`: the block runs where the `yield` stands, and what comes "
            "after it cleans up.",
            "trial",
        ),
        Mistake(
            _never_removed(*FORWARD),
            "Your hook stays on the layer after the block and goes on collecting: keep the handle that registering returns, "
            "and call `handle.remove()` after the `yield`.",
            "peer",
        ),
        Mistake(
            _without_finally(*FORWARD),
            "If an error ends the block, your last line is never reached and the hook stays: put `yield` into `try:` and "
            "`handle.remove()` into `finally:`.",
            "peer",
        ),
        Mistake(
            _swallowing(*FORWARD),
            "Your `except` swallows every error of the block, so that nobody learns of it: use `finally`, without `except`.",
            "trial",
        ),
        Mistake(
            _removed_too_early(*FORWARD),
            "There is no hook on the layer while the block runs: register it before the `yield`, and remove it only after.",
            "trial",
        ),
        Mistake(
            _yielding(*FORWARD, lambda kept, handle: list(kept)),
            "The list that the block hands out stays empty: `yield` the very list to which your hook appends. "
            "(`outputs = output` inside the hook fills no list, it only makes a new name.)",
            "trial",
        ),
        Mistake(
            _yielding(*FORWARD, lambda kept, handle: None),
            "Your `yield` hands out nothing: write `yield outputs`.",
            "trial",
        ),
        Mistake(
            _yielding(*FORWARD, lambda kept, handle: handle),
            "You hand out the handle of the hook; hand out the list, and keep the handle for `handle.remove()`.",
            "trial",
        ),
        Mistake(
            _yielding(*FORWARD, lambda kept, handle: tuple(kept)),
            "You hand out a tuple, which cannot grow: hand out the list itself.",
            "trial",
        ),
        Mistake(
            _emptied(*FORWARD),
            "You empty the list at the end of the block: what was kept is wanted afterwards, so remove the hook only.",
            "trial",
        ),
        Mistake(
            _hooking(_only_the_last(FORWARD[1])),
            "The list holds the last output only: append one item for every run of the layer.",
            "peer",
        ),
        Mistake(
            _hook_kept(lambda output: output.detach()),
            "You keep the outputs without their graph: leave out `.detach()` or `.data`, or no gradient will ever reach them.",
            "peer",
        ),
        Mistake(
            _outputs_without_graph,
            "Leave out `torch.no_grad()`: it holds for the whole block, so that the net takes no notes at all.",
            "trial",
        ),
        Mistake(
            _hook_kept(lambda output: output.clone()),
            "You keep a copy of the output, or something computed from it, while the net goes on with the original: no gradient "
            "reaches what you keep. Append the output itself.",
            "peer",
        ),
        Mistake(
            _hook_kept(sent=lambda output: output.detach()),
            "Your hook returns the detached output, and what a hook returns takes the output's place: the net goes on "
            "without its graph. Return nothing.",
            "trial",
        ),
        Mistake(
            _hooking(_return_the_list),
            "Your hook returns the list, and what a hook returns takes the output's place: return nothing.",
            "trial",
        ),
        Mistake(
            _hook_kept(sent=F.relu),
            "Your hook returns the output after a ReLU, and what a hook returns takes the output's place, so that the net "
            "computes something else: return nothing.",
            "trial",
        ),
        Mistake(
            _hooking(lambda outputs, layer, inputs, output: outputs.append(inputs[0])),
            "You keep what goes into the layer: a forward hook gets `(layer, inputs, output)`, and the third is wanted. (A "
            "forward *pre*-hook runs before there is any output.)",
            "trial",
        ),
        Mistake(
            _hooking(lambda outputs, layer, inputs, output: outputs.append(inputs)),
            "You keep the tuple of what goes into the layer: a forward hook gets `(layer, inputs, output)`, and the third is "
            "wanted.",
            "trial",
        ),
        Mistake(
            _hook_kept(lambda output: output[0]),
            "You keep the first image's output only: the output is a tensor, not a tuple, so append it whole.",
            "trial",
        ),
        Mistake(
            _hooking(lambda outputs, layer, inputs, output: outputs.extend(output)),
            "Your list grows by one item per image: `extend` (and `+=`) takes the tensor apart. Use `append`.",
            "trial",
        ),
        Mistake(
            _hooking(lambda outputs, layer, inputs, output: outputs.insert(0, output)),
            "Your list runs backwards: append at its end.",
            "trial",
        ),
        Mistake(
            _hook_kept(lambda output: output.detach().numpy()),
            "You keep NumPy arrays, which have no graph: keep the tensors.",
            "peer",
        ),
        Mistake(
            _hooking(_assigned_to_the_first_place),
            "The list is empty, so there is no place 0 to put anything: use `outputs.append(output)`.",
            "trial",
        ),
        Mistake(
            _outputs_by_closure_variable,
            "`outputs += ...` makes `outputs` a variable of the hook itself: use `outputs.append(output)`, which changes the "
            "list outside.",
            "trial",
        ),
        Mistake(
            _outputs_of_everything,
            "`register_module_forward_hook` is for every module of every net: call `layer.register_forward_hook`.",
            "trial",
        ),
        Mistake(
            _outputs_of_all_inside,
            "You put a hook on each module inside the layer as well: one on `layer` itself is enough.",
            "peer",
        ),
        Mistake(
            _called_at_once(FORWARD[0]),
            "You call your hook while registering it: pass the function itself, without brackets.",
            "trial",
        ),
        Mistake(
            _with_parameters(FORWARD[0], 2),
            "PyTorch calls a forward hook with three arguments: define it as `def keep(layer, inputs, output)`.",
            "trial",
        ),
        Mistake(
            _with_parameters(FORWARD[0], 1),
            "Your hook takes one argument; PyTorch passes three: `def keep(layer, inputs, output)`.",
            "trial",
        ),
        Mistake(
            _removed_from_the_layer(*FORWARD),
            "A layer has no `remove`: registering returns a handle, and `handle.remove()` takes the hook off.",
            "trial",
        ),
    ),
    verified="Every run was kept with its graph, the net computed what it always does, and no hook was left, after an error neither.",
    hints=(
        "Define the hook inside your function, so that it sees the list: it takes `(layer, inputs, output)`, appends the "
        "output and returns nothing. What would a returned value do?",
        "`handle = layer.register_forward_hook(keep)` puts the hook on, `handle.remove()` takes it off. The block runs at "
        "`yield outputs`; to clean up after an error too, put that line into `try:` and the removal into `finally:`.",
    ),
    alternatives=(_OutputsByClass, _outputs_by_handle, _outputs_by_exit_stack),
)


# 3.2 -------------------------------------------------------------------------------------------------------


def _gradients_cases(rng):
    net, images = _net(rng, torch.float32), _images(rng, torch.float32)
    precise = _net(rng, torch.float64)
    return [
        (net, "conv1", images),
        (net, "conv2", images[:1]),
        (_twice(rng, torch.float64), "conv", images.double()),
        (precise, "block", images.double()),
        (precise, "relu2", images.double()),
    ]


def _backward(net, logits):
    """The gradient of the score of these logits with respect to the net's first parameter, by `backward`."""
    _score(logits).backward(retain_graph=True)
    gradient = next(net.parameters()).grad
    net.zero_grad()
    return gradient


def _use_gradients(answer, net, layer, images):
    """What is kept of two backward passes, and the gradients that reach the start of the net."""
    module = net.get_submodule(layer)
    runs = _runs(net, module, images)
    state = state_of(net)
    block = answer(module)
    if not is_block(block):
        return block
    with opened(block) as gradients:
        _expect_list(gradients, 0, "Before the net has run")
        if hook_count(net) == state[0]:
            raise Complaint("Inside the block there is no hook on the layer.")
        if module._is_full_backward_hook is False:
            raise Complaint("The hook is on the layer by way of the deprecated `register_backward_hook`.")
        logits = net(images)
        _expect_list(gradients, 0, "After the forward pass, before any backward pass")
        reached = [_backward(net, logits)]
        _expect_list(gradients, runs, "After one backward pass")
        reached.append(_backward(net, 2 * logits))
        _expect_list(gradients, 2 * runs, "After two backward passes")
        _expect_tensors(gradients)
    _expect_list(gradients, 2 * runs, "After the block")
    _backward(net, net(images))
    if len(gradients) != 2 * runs:
        raise Complaint("Your hook is still at work after the block.")
    expect_state(net, state, "After the block")
    expect_errors_to_pass(answer, (module,), net, images)
    return tuple(gradients), reached


BACKWARD = ("register_full_backward_hook", lambda layer, grad_input, grad_output: grad_output[0])


def _gradient_kept(change=lambda gradient: gradient, sent=lambda gradient: None):
    """Keep `change(gradient)` and return `sent(gradient)`, which takes the place of the gradient that flows on."""

    def hook(gradients, layer, grad_input, grad_output):
        gradients.append(change(grad_output[0]))
        return sent(grad_output[0])

    return _hooking(hook, BACKWARD[0])


def _changed_on_the_way(change):
    """Keep the gradient, and let `change(gradient)` flow on to the layer's input."""

    def hook(gradients, layer, grad_input, grad_output):
        gradients.append(grad_output[0])
        return tuple(None if gradient is None else change(gradient) for gradient in grad_input)

    return _hooking(hook, BACKWARD[0])


@contextmanager
def _gradients_of_everything(layer):
    gradients = []
    handle = nn.modules.module.register_module_full_backward_hook(
        lambda layer, grad_input, grad_output: gradients.append(grad_output[0])
    )
    try:
        yield gradients
    finally:
        handle.remove()


@contextmanager
def _gradients_of_all_inside(layer):
    gradients = []

    def keep(layer, grad_input, grad_output):
        gradients.append(grad_output[0])

    with ExitStack() as stack:
        for module in layer.modules():
            stack.enter_context(module.register_full_backward_hook(keep))
        yield gradients


@contextmanager
def _gradients_of_the_weight(layer):
    gradients = []
    handle = layer.weight.register_hook(gradients.append)
    try:
        yield gradients
    finally:
        handle.remove()


@contextmanager
def _gradients_without_graph(layer):
    with torch.no_grad(), hooks.keep_gradients(layer) as gradients:
        yield gradients


@contextmanager
def _gradients_by_closure_variable(layer):
    gradients = []

    def keep(layer, grad_input, grad_output):
        gradients += grad_output  # noqa: F823, F841

    handle = layer.register_full_backward_hook(keep)
    try:
        yield gradients
    finally:
        handle.remove()


class _GradientsByClass:
    def __init__(self, layer):
        self.layer = layer

    def __enter__(self):
        self.gradients = []
        self.handle = self.layer.register_full_backward_hook(self.keep)
        return self.gradients

    def keep(self, layer, grad_input, grad_output):
        (gradient,) = grad_output
        self.gradients.append(gradient.clone())

    def __exit__(self, *_error):
        self.handle.remove()


@contextmanager
def _gradients_before_the_layer(layer):
    gradients = []
    with layer.register_full_backward_pre_hook(lambda layer, grad_output: gradients.append(grad_output[0])):
        yield gradients


@contextmanager
def _gradients_by_exit_stack(layer):
    with ExitStack() as stack:
        gradients = []
        stack.callback(
            layer.register_full_backward_hook(
                lambda layer, _, grad_output: gradients.extend(grad_output)
            ).remove
        )
        yield gradients


backward_hook = Exercise(
    key="3.2",
    title="a backward hook",
    reference=hooks.keep_gradients,
    cases=_gradients_cases,
    use=_use_gradients,
    mistakes=(
        Mistake(
            _hooking(
                lambda gradients, layer, grad_input, grad_output: gradients.append(grad_input[0]), BACKWARD[0]
            ),
            "You keep the gradient with respect to what goes *into* the layer (for the first layer of a net, that is None): "
            "`grad_output` is the third argument, after `grad_input`.",
            "peer",
        ),
        Mistake(
            _hooking(
                lambda gradients, layer, grad_input, grad_output: gradients.append(grad_output), BACKWARD[0]
            ),
            "`grad_output` is a tuple, of one gradient per output of the layer, and so is `grad_input`: keep `grad_output[0]`.",
            "peer",
        ),
        Mistake(
            _hooking(
                lambda gradients, layer, grad_input, grad_output: gradients.append(grad_output[0]),
                "register_backward_hook",
            ),
            "`register_backward_hook` is deprecated: for layers of more than one step it reports the last step's gradients. "
            "Use `register_full_backward_hook`.",
            "peer",
        ),
        Mistake(
            _hooking(_only_the_last(BACKWARD[1]), BACKWARD[0]),
            "The list holds one item, however many backward passes there were: append one for each, without adding them up "
            "or replacing what is there.",
            "trial",
        ),
        Mistake(
            _changed_on_the_way(F.relu),
            "Your hook returns what it got after a ReLU, and what it returns flows on to the layers before: keep the gradient, "
            "and return nothing.",
            "source",
        ),
        Mistake(
            _changed_on_the_way(torch.zeros_like),
            "Your hook returns zeros, and what it returns flows on: the layers before get no gradient. Return nothing.",
            "trial",
        ),
        Mistake(
            _gradient_kept(sent=lambda gradient: (gradient,)),
            "Your hook returns `grad_output`, which PyTorch takes for the gradient of the layer's *input*: return nothing.",
            "trial",
        ),
        Mistake(
            _gradient_kept(sent=lambda gradient: gradient),
            "Your hook returns a gradient, and PyTorch would let that flow on in place of its own: append it, and return "
            "nothing.",
            "trial",
        ),
        Mistake(
            _gradient_kept(lambda gradient: gradient[0]),
            "You keep the first image's gradient only: `grad_output[0]` is a tensor for all images, so append it whole.",
            "trial",
        ),
        Mistake(
            _gradient_kept(lambda gradient: gradient.mean(dim=(2, 3))),
            "You average the gradients over the positions already: that makes weights of them. Keep them whole.",
            "trial",
        ),
        Mistake(
            _gradient_kept(F.relu),
            "You drop negative gradients: keep them with their signs.",
            "source",
        ),
        Mistake(
            _gradient_kept(torch.abs),
            "You take absolute values: keep the gradients with their signs.",
            "peer",
        ),
        Mistake(
            _gradient_kept(lambda gradient: gradient / gradient.norm()),
            "You divide the gradient by its length: keep it as it comes.",
            "source",
        ),
        Mistake(
            _gradient_kept(lambda gradient: gradient.sum(dim=0)),
            "You add the gradients of all images up: each image keeps its own.",
            "trial",
        ),
        Mistake(
            _gradient_kept(lambda gradient: gradient.numpy()),
            "You keep NumPy arrays: keep the tensors.",
            "peer",
        ),
        Mistake(
            _hooking(
                lambda gradients, layer, grad_input, grad_output: gradients.insert(0, grad_output[0]),
                BACKWARD[0],
            ),
            "Your list runs backwards: append at its end. (Of a layer that runs twice, the last run comes first, because the "
            "backward pass meets it first.)",
            "trial",
        ),
        Mistake(
            _hooking(lambda gradients, layer, inputs, output: gradients.append(output)),
            "Your list grows in the forward pass, when there are no gradients yet (and `output.grad` is None): use "
            "`register_full_backward_hook`.",
            "trial",
        ),
        Mistake(
            _hooking(lambda gradients, layer, *_: gradients.append(layer.weight.grad), BACKWARD[0]),
            "`layer.weight.grad` belongs to the weights, and only if the layer has some: the gradient with respect to the "
            "layer's output is `grad_output[0]`.",
            "peer",
        ),
        Mistake(
            _gradients_of_the_weight,
            "You hooked the layer's weights, which is another gradient (and some layers have none): put the hook on the layer "
            "with `layer.register_full_backward_hook`.",
            "trial",
        ),
        Mistake(
            _gradients_of_everything,
            "`register_module_full_backward_hook` is for every module of every net: call "
            "`layer.register_full_backward_hook`.",
            "trial",
        ),
        Mistake(
            _gradients_of_all_inside,
            "You put a hook on each module inside the layer as well: one on `layer` itself is enough.",
            "peer",
        ),
        Mistake(
            _gradients_without_graph,
            "Leave out `torch.no_grad()`: it holds for the whole block, and without notes there is no backward pass.",
            "trial",
        ),
        Mistake(
            _generator_without_decorator(*BACKWARD),
            "Write `@contextmanager` on the line between `@exercise(...)` and `def`: without it, `with` cannot open what you "
            "return.",
            "trial",
        ),
        Mistake(
            _returned(*BACKWARD),
            "Write `yield gradients` in place of `return gradients`: the block runs where the `yield` stands.",
            "trial",
        ),
        Mistake(
            _never_removed(*BACKWARD),
            "Your hook stays on the layer after the block: keep the handle that registering returns, and call "
            "`handle.remove()` after the `yield`.",
            "peer",
        ),
        Mistake(
            _without_finally(*BACKWARD),
            "If an error ends the block, your hook stays: put `yield` into `try:` and `handle.remove()` into `finally:`.",
            "peer",
        ),
        Mistake(
            _swallowing(*BACKWARD),
            "Your `except` swallows every error of the block: use `finally`, without `except`.",
            "trial",
        ),
        Mistake(
            _removed_too_early(*BACKWARD),
            "There is no hook on the layer while the block runs: remove it only after the `yield`.",
            "trial",
        ),
        Mistake(
            _yielding(*BACKWARD, lambda kept, handle: list(kept)),
            "The list that the block hands out stays empty: `yield` the very list to which your hook appends.",
            "trial",
        ),
        Mistake(
            _yielding(*BACKWARD, lambda kept, handle: None),
            "Your `yield` hands out nothing: write `yield gradients`.",
            "trial",
        ),
        Mistake(
            _emptied(*BACKWARD),
            "You empty the list at the end of the block: the gradients are wanted afterwards, so remove the hook only.",
            "trial",
        ),
        Mistake(
            _gradients_by_closure_variable,
            "`gradients += ...` makes `gradients` a variable of the hook itself: use `gradients.append(...)`, which changes the "
            "list outside.",
            "trial",
        ),
        Mistake(
            _called_at_once(BACKWARD[0]),
            "You call your hook while registering it: pass the function itself, without brackets.",
            "trial",
        ),
        Mistake(
            _with_parameters(BACKWARD[0], 2),
            "PyTorch calls a backward hook with three arguments: define it as `def keep(layer, grad_input, grad_output)`.",
            "trial",
        ),
    ),
    verified="One gradient for every backward pass through the layer, with respect to its output; nothing else changed, and no hook was left.",
    hints=(
        "Take your answer to 3.1 and change two things: how the hook is registered, and what it appends. The hook takes "
        "`(layer, grad_input, grad_output)`.",
        "`layer.register_full_backward_hook(keep)`; `grad_output` is a tuple of one tensor per output of the layer, and this "
        "layer has one output. Return nothing.",
    ),
    alternatives=(_GradientsByClass, _gradients_before_the_layer, _gradients_by_exit_stack),
)


# 3.3 -------------------------------------------------------------------------------------------------------


def _capture_cases(rng):
    in_place, images = _net(rng, torch.float32, in_place=True), _images(rng, torch.float32)
    precise = _net(rng, torch.float64)
    frozen = copy.deepcopy(in_place).requires_grad_(False)
    return [
        (in_place, ("conv1",), images, True),
        (in_place, ("conv1", "block", "conv2"), images, True),
        (precise, ("relu1", "conv2"), images[:1].double(), True),
        (_twice(rng, torch.float64, in_place=True), ("conv", "linear"), images.double(), True),
        (in_place, ("conv2", "block.conv"), images, False),
        (frozen, ("conv2",), images, True),
    ]


def _use_capture(answer, net, layers, images, recording):
    """What is kept of each layer, its gradient from `grad` and from `backward`, and what the net computes."""
    modules = [net.get_submodule(layer) for layer in layers]
    with torch.set_grad_enabled(recording):
        state = state_of(net)
        block = answer(*modules)
        if not is_block(block):
            return block
        with opened(block) as kept:
            if not isinstance(kept, dict):
                raise Complaint(
                    f"The block gives an object of type `{type(kept).__name__}`; wanted a dictionary."
                )
            if hook_count(net) == state[0]:
                raise Complaint("Inside the block there is no hook on the layers.")
            logits = net(images)
            _expect_one_for_each(kept, modules)
        if not kept:
            raise Complaint("After the block, the dictionary is empty.")
        values = [kept[module].detach().clone() for module in modules]
        if recording and next(net.parameters()).requires_grad:
            gradients = [_gradient(net, logits, kept[module]) for module in modules]
            for module in modules:
                kept[module].grad = None  # `grad` fills it too
            _score(logits).backward()
            net.zero_grad()
            for module, gradient in zip(modules, gradients, strict=True):
                grad = kept[module].grad
                if grad is None:
                    raise Complaint("After `backward()`, `.grad` of what you keep is None.")
                if not torch.allclose(grad, gradient):
                    raise Complaint("After `backward()`, `.grad` of what you keep is not its gradient.")
        else:
            gradients = []
            if logits.requires_grad or any(kept[module].requires_grad for module in modules):
                raise Complaint("Where no graph is wanted, your hook starts one.")
        net(images[:1])
        if any(kept[module].shape[:1] != images.shape[:1] for module in modules):
            raise Complaint("Your hooks are still at work after the block.")
        expect_state(net, state, "After the block")
        expect_errors_to_pass(answer, modules, net, images)
    return tuple(values), tuple(gradients), logits


def _expect_one_for_each(kept, modules):
    """Complain unless the keys are these layers and the values are tensors."""
    for key in kept:
        if not isinstance(key, nn.Module):
            raise Complaint(f"A key is of type `{type(key).__name__}`; wanted the layer itself.")
    missing = [str(i) for i, module in enumerate(modules) if module not in kept]
    if missing or len(kept) != len(modules):
        names = ", ".join(missing) or "none"
        raise Complaint(f"{len(kept)} keys for {len(modules)} layers; missing, counted from 0: {names}.")
    _expect_tensors(kept.values())


def _capturing(keep):
    """An answer to 3.3 whose hook is `keep(kept, layer, output)`."""

    @contextmanager
    def answer(*layers):
        kept = {}
        with ExitStack() as stack:
            for layer in layers:
                stack.enter_context(
                    layer.register_forward_hook(lambda layer, inputs, output: keep(kept, layer, output))
                )
            yield kept

    return answer


def _parts(
    key=lambda layer: layer,
    value=lambda output: output,
    retain=lambda output, value: value.retain_grad() if value.requires_grad else None,
    sent=lambda output, value: output.clone(),
):
    """An answer to 3.3 that keeps `value(output)` under `key(layer)` and sends on `sent(output, value)`."""

    def keep(kept, layer, output):
        kept[key(layer)] = kept_value = value(output)
        retain(output, kept_value)
        return sent(output, kept_value)

    return _capturing(keep)


def _clone_with_graph_only(kept, layer, output):
    kept[layer] = output
    if output.requires_grad:
        output.retain_grad()
        return output.clone()


def _first_run(kept, layer, output):
    if layer not in kept:
        kept[layer] = output
        if output.requires_grad:
            output.retain_grad()
    return output.clone()


def _list_of_runs(kept, layer, output):
    kept.setdefault(layer, []).append(output)
    if output.requires_grad:
        output.retain_grad()
    return output.clone()


@contextmanager
def _capture_with_late_binding(*layers):
    kept = {}
    with ExitStack() as stack:
        for layer in layers:

            def keep(module, inputs, output):
                kept[layer] = output  # noqa: B023
                if output.requires_grad:
                    output.retain_grad()
                return output.clone()

            stack.enter_context(layer.register_forward_hook(keep))
        yield kept


@contextmanager
def _capture_first_layer(*layers):
    with hooks.capture(layers[0]) as kept:
        yield kept


@contextmanager
def _capture_last_layer(*layers):
    with hooks.capture(layers[-1]) as kept:
        yield kept


def _capture_hook(kept):
    def keep(layer, inputs, output):
        kept[layer] = output
        if output.requires_grad:
            output.retain_grad()
        return output.clone()

    return keep


@contextmanager
def _capture_removing_the_last(*layers):
    kept = {}
    try:
        for layer in layers:
            handle = layer.register_forward_hook(_capture_hook(kept))
        yield kept
    finally:
        handle.remove()


@contextmanager
def _capture_never_removing(*layers):
    kept = {}
    for layer in layers:
        layer.register_forward_hook(_capture_hook(kept))
    yield kept


@contextmanager
def _capture_without_finally(*layers):
    kept = {}
    handles = [layer.register_forward_hook(_capture_hook(kept)) for layer in layers]
    yield kept
    for handle in handles:
        handle.remove()


@contextmanager
def _capture_swallowing(*layers):
    kept = {}
    handles = [layer.register_forward_hook(_capture_hook(kept)) for layer in layers]
    try:
        yield kept
    except Exception:
        pass
    for handle in handles:
        handle.remove()


@contextmanager
def _capture_removing_too_early(*layers):
    kept = {}
    for layer in layers:
        with layer.register_forward_hook(_capture_hook(kept)):
            pass
    yield kept


def _capture_generator(*layers):
    with hooks.capture(*layers) as kept:
        yield kept


@contextmanager
def _capture_returned(*layers):
    with hooks.capture(*layers) as kept:
        return kept


def _capture_handing_out(choose, at_the_end=lambda kept: None):
    @contextmanager
    def answer(*layers):
        with hooks.capture(*layers) as kept:
            yield choose(kept)
        at_the_end(kept)

    return answer


class _CaptureByClass:
    def __init__(self, *layers):
        self.layers = layers

    def __enter__(self):
        self.kept = {}
        self.handles = [layer.register_forward_hook(self.keep) for layer in self.layers]
        return self.kept

    def keep(self, layer, inputs, output):
        if torch.is_grad_enabled() and output.requires_grad:
            output.retain_grad()
        self.kept[layer] = output
        return output + 0

    def __exit__(self, *_error):
        for handle in self.handles:
            handle.remove()


@contextmanager
def _capture_by_handles(*layers):
    kept, handles = {}, []

    def make(layer):
        def keep(_layer, _inputs, output):
            if output.requires_grad:
                output.retain_grad()
            kept.update({layer: output})
            return torch.clone(output)

        return keep

    try:
        for layer in layers:
            handles.append(layer.register_forward_hook(make(layer)))
        yield kept
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _capture_by_recursion(*layers):
    if not layers:
        yield {}
        return
    with _capture_by_recursion(*layers[1:]) as kept, layers[0].register_forward_hook(_capture_hook(kept)):
        yield kept


safe_hook = Exercise(
    key="3.3",
    title="a hook that in-place operations cannot break",
    reference=hooks.capture,
    cases=_capture_cases,
    use=_use_capture,
    mistakes=(
        Mistake(
            _parts(sent=lambda output, value: None),
            "What you keep and what the net goes on with are one and the same tensor, and a ReLU that works in place "
            "overwrites both: return `output.clone()` from the hook.",
            "peer",
        ),
        Mistake(
            _parts(value=lambda output: output.clone(), sent=lambda output, value: None),
            "You keep a copy, and the net goes on with the original or with another copy, so no gradient reaches what you keep: "
            "keep `output`, and return `output.clone()`.",
            "peer",
        ),
        Mistake(
            _parts(sent=lambda output, value: output.detach().clone()),
            "The copy that you send on is detached, so the gradient ends there: return `output.clone()`, made outside "
            "`torch.no_grad()`.",
            "trial",
        ),
        Mistake(
            _parts(value=lambda output: output.detach()),
            "You keep the activations without their graph: keep `output` itself, without `.detach()` or `.data`.",
            "peer",
        ),
        Mistake(
            _parts(retain=lambda output, value: None),
            "`.grad` of what you keep stays None: PyTorch fills it for tensors in the middle of a graph only after "
            "`retain_grad()`, called on the very tensor that you keep.",
            "trial",
        ),
        Mistake(
            _parts(retain=lambda output, value: output.retain_grad()),
            "`retain_grad()` raises an error where no graph is recorded: call it only `if output.requires_grad`.",
            "trial",
        ),
        Mistake(
            _parts(retain=lambda output, value: output.retain_grad() if torch.is_grad_enabled() else None),
            "PyTorch may be recording and still have nothing to record, as with frozen parameters, and then `retain_grad()` "
            "raises an error: ask `if output.requires_grad`.",
            "trial",
        ),
        Mistake(
            _capturing(_clone_with_graph_only),
            "You return the clone only where a graph is recorded; without one, what you keep is overwritten all the same. Move "
            "`return output.clone()` out of the `if`.",
            "trial",
        ),
        Mistake(
            _parts(retain=lambda output, value: output.requires_grad_().retain_grad()),
            "`requires_grad_()` starts a graph where none is wanted, under `no_grad` or with frozen parameters: ask "
            "`if output.requires_grad` instead.",
            "trial",
        ),
        Mistake(
            _parts(
                value=lambda output: output.detach().requires_grad_(),
                sent=lambda output, value: value.clone(),
            ),
            "You cut the graph at the layer, and the layers before get no gradient any more. (That is exercise 3.4.) Keep "
            "`output` itself.",
            "trial",
        ),
        Mistake(
            _parts(value=copy.deepcopy),
            "`deepcopy` refuses tensors with a graph, and it would be the wrong copy: keep `output`, and return "
            "`output.clone()`.",
            "peer",
        ),
        Mistake(
            _capture_first_layer,
            "Only the first of the layers is captured: put a hook on each of them, and let the `yield` stand after that loop.",
            "trial",
        ),
        Mistake(
            _capture_with_late_binding,
            "All activations are kept under the last layer: when the hooks run, the loop is over and its variable is the last "
            "one. A hook gets its own layer as its first argument: use that.",
            "trial",
        ),
        Mistake(
            _parts(key=lambda layer: type(layer).__name__),
            "The keys are names: use the layer itself as key, `kept[layer] = output`.",
            "trial",
        ),
        Mistake(
            _parts(key=id),
            "The keys are numbers: use the layer itself as key, `kept[layer] = output`.",
            "trial",
        ),
        Mistake(
            _capturing(_first_run),
            "Of a layer that runs several times you keep the first run: let later ones replace it.",
            "trial",
        ),
        Mistake(
            _capturing(_list_of_runs),
            "You keep a list for each layer: keep one tensor, `kept[layer] = output`; the last run counts.",
            "trial",
        ),
        Mistake(
            _capture_removing_the_last,
            "You remove only the last of your hooks: keep the handles of all, and remove each.",
            "peer",
        ),
        Mistake(
            _capture_never_removing,
            "Your hooks stay on the layers after the block: keep every handle, and remove each after the `yield`.",
            "peer",
        ),
        Mistake(
            _capture_without_finally,
            "If an error ends the block, your hooks stay: remove them in `finally:`, or let `with ExitStack()` do it.",
            "peer",
        ),
        Mistake(
            _capture_swallowing,
            "Your `except` swallows every error of the block: use `finally`, without `except`.",
            "trial",
        ),
        Mistake(
            _capture_removing_too_early,
            "There is no hook on the layers while the block runs: the `yield` has to stand inside the `with`, or before the "
            "handles are removed.",
            "trial",
        ),
        Mistake(
            _capture_generator,
            "Write `@contextmanager` on the line between `@exercise(...)` and `def`: without it, `with` cannot open what you "
            "return.",
            "trial",
        ),
        Mistake(
            _capture_returned,
            "Write `yield kept` in place of `return kept`: the block runs where the `yield` stands.",
            "trial",
        ),
        Mistake(
            _capture_handing_out(lambda kept: None),
            "Your `yield` hands out nothing: write `yield kept`.",
            "trial",
        ),
        Mistake(
            _capture_handing_out(lambda kept: dict(kept)),
            "The dictionary that the block hands out stays empty: `yield` the very one that your hook fills.",
            "trial",
        ),
        Mistake(
            _capture_handing_out(lambda kept: list(kept.values())),
            "You hand out a list, and nobody knows which entry belongs to which layer: hand out a dictionary, layer -> "
            "activations.",
            "trial",
        ),
        Mistake(
            _capture_handing_out(lambda kept: kept, dict.clear),
            "You empty the dictionary at the end of the block: the activations are wanted afterwards, so remove the hooks only.",
            "trial",
        ),
    ),
    verified="Each layer's activations and gradients survive what works in place after it; the net computes the same, and no hook is left.",
    hints=(
        "A module that works in place overwrites the very tensor that it is given. So keep one tensor and hand the net another "
        "one with the same numbers, in the same graph: what may a forward hook return?",
        "`kept[layer] = output`, `retain_grad()` if `output.requires_grad`, and `return output.clone()`. For any number of "
        "hooks: `with ExitStack() as stack:`, in it `stack.enter_context(layer.register_forward_hook(keep))` for each layer, "
        "and the `yield` after that loop.",
    ),
    alternatives=(_CaptureByClass, _capture_by_handles, _capture_by_recursion),
)


# 3.4 -------------------------------------------------------------------------------------------------------


def _cut_cases(rng):
    in_place, images = _net(rng, torch.float32, in_place=True), _images(rng, torch.float32)
    precise = _net(rng, torch.float64)
    frozen = copy.deepcopy(precise).requires_grad_(False)
    return [
        (in_place, "conv1", images, True),
        (precise, "block", images[:1].double(), False),
        (frozen, "relu1", images.double(), True),
        (_twice(rng, torch.float64, in_place=True), "conv", images.double(), True),
    ]


def _use_cut(answer, net, layer, images, recording):
    """The leaves, the gradients of the score with respect to them, and what the net computes.

    recording: whether PyTorch takes notes outside the block.
    """
    module = net.get_submodule(layer)
    runs = _runs(net, module, images)
    with torch.set_grad_enabled(recording):
        state = state_of(net)
        block = answer(module)
        if not is_block(block):
            return block
        with _noting(net) as noted, opened(block) as leaves:
            _expect_list(leaves, 0, "Before the net has run")
            if hook_count(net) == state[0] + len(list(net.modules())):
                raise Complaint("Inside the block there is no hook on the layer.")
            logits = net(images)
            _expect_list(leaves, runs, "After the net has run once")
            _expect_tensors(leaves)
            first_run = [part for part, _ in noted].index(module) + 1
            recorded = any(recorded for _, recorded in noted[:first_run])
            if leaves[-1].grad_fn:
                where = (
                    "in the middle of the graph of the whole net"
                    if recorded
                    else "the result of an operation"
                )
                raise Complaint(f"What you keep is no leaf, but {where}.")
            if not leaves[-1].requires_grad:
                raise Complaint("What you keep does not require a gradient.")
            if not logits.requires_grad:
                raise Complaint("What comes after the layer is not recorded.")
            gradients = torch.autograd.grad(_score(logits), leaves, allow_unused=True)
            if gradients[-1] is None:
                raise Complaint("The net goes on with a tensor that does not come from what you keep.")
            if recorded:
                raise Complaint("What comes before the cut is still recorded.")
        _expect_list(leaves, runs, "After the block")
        with torch.no_grad():
            net(images)
        if len(leaves) != runs:
            raise Complaint("Your hook is still at work after the block.")
        expect_state(net, state, "After the block")
        expect_errors_to_pass(answer, (module,), net, images)
    values = [leaf.detach().clone() for leaf in leaves]
    return values, gradients[-1], [gradient is None for gradient in gradients], logits


@contextmanager
def _noting(net):
    """Which modules of the net ran, in order, each with whether its output was recorded; one hook on each."""
    noted = []
    with ExitStack() as stack:
        for module in net.modules():
            stack.enter_context(
                module.register_forward_hook(
                    lambda module, _, output: noted.append((module, output.requires_grad))
                )
            )
        yield noted


def _cutting(
    leaf=lambda output: output.detach().requires_grad_(),
    sent=lambda leaves: leaves[-1].clone(),
    switch=lambda: torch.set_grad_enabled(True),
    outside=torch.no_grad,
    append=list.append,
    register="register_forward_hook",
    yielded=lambda leaves: leaves,
    at_the_end=lambda leaves: None,
):
    """An answer to 3.4, right but for what is given."""

    @contextmanager
    def answer(layer):
        leaves = []

        def start_recording(*args):
            append(leaves, leaf(args[-1]))
            switch()
            return sent(leaves)

        with outside(), getattr(layer, register)(start_recording):
            yield yielded(leaves)
        at_the_end(leaves)

    return answer


def _cut_hook(leaves):
    def start_recording(layer, inputs, output):
        leaves.append(output.detach().requires_grad_())
        torch.set_grad_enabled(True)
        return leaves[-1].clone()

    return start_recording


@torch.enable_grad()
def _clone_of_a_leaf(output):
    return output.detach().requires_grad_().clone()


@contextmanager
def _cut_with_early_clone(layer):
    leaves = []

    def start_recording(layer, inputs, output):
        leaves.append(output.detach().requires_grad_())
        sent = leaves[-1].clone()
        torch.set_grad_enabled(True)
        return sent

    with torch.no_grad(), layer.register_forward_hook(start_recording):
        yield leaves


@contextmanager
def _cut_and_kept_on(layer):
    leaves = []
    torch.set_grad_enabled(False)
    with layer.register_forward_hook(_cut_hook(leaves)):
        yield leaves


@contextmanager
def _cut_and_switched_on(layer):
    leaves = []
    torch.set_grad_enabled(False)
    try:
        with layer.register_forward_hook(_cut_hook(leaves)):
            yield leaves
    finally:
        torch.set_grad_enabled(True)


@contextmanager
def _cut_and_switched_off(layer):
    leaves = []
    torch.set_grad_enabled(False)
    try:
        with layer.register_forward_hook(_cut_hook(leaves)):
            yield leaves
    finally:
        torch.set_grad_enabled(False)


@contextmanager
def _cut_without_finally(layer):
    leaves = []
    handle = layer.register_forward_hook(_cut_hook(leaves))
    with torch.no_grad():
        yield leaves
    handle.remove()


@contextmanager
def _cut_with_mode_left_on_error(layer):
    leaves = []
    before = torch.is_grad_enabled()
    torch.set_grad_enabled(False)
    with layer.register_forward_hook(_cut_hook(leaves)):
        yield leaves
    torch.set_grad_enabled(before)


@contextmanager
def _cut_never_removed(layer):
    leaves = []
    layer.register_forward_hook(_cut_hook(leaves))
    with torch.no_grad():
        yield leaves


@contextmanager
def _cut_swallowing(layer):
    leaves = []
    with torch.no_grad(), layer.register_forward_hook(_cut_hook(leaves)):
        try:
            yield leaves
        except Exception:
            pass


@contextmanager
def _cut_removed_too_early(layer):
    leaves = []
    with layer.register_forward_hook(_cut_hook(leaves)):
        pass
    with torch.no_grad():
        yield leaves


def _cut_generator(layer):
    with cam.cut(layer) as leaves:
        yield leaves


@contextmanager
def _cut_returned(layer):
    with cam.cut(layer) as leaves:
        return leaves


def _first_place(leaves, leaf):
    leaves[:] = [leaf]


class _CutByClass:
    def __init__(self, layer):
        self.layer, self.leaves, self.no_grad = layer, [], torch.no_grad()

    def __enter__(self):
        self.handle = self.layer.register_forward_hook(self.start_recording)
        self.no_grad.__enter__()
        return self.leaves

    def start_recording(self, layer, inputs, output):
        torch.set_grad_enabled(True)
        leaf = output.clone().detach()
        leaf.requires_grad = True
        self.leaves.append(leaf)
        return leaf * 1

    def __exit__(self, *error):
        self.no_grad.__exit__(*error)
        self.handle.remove()


@contextmanager
def _cut_by_finally(layer):
    leaves = []
    before = torch.is_grad_enabled()
    handle = layer.register_forward_hook(_cut_hook(leaves))
    torch.set_grad_enabled(False)
    try:
        yield leaves
    finally:
        torch.set_grad_enabled(before)
        handle.remove()


@contextmanager
def _cut_by_exit_stack(layer):
    with ExitStack() as stack:
        leaves = []

        def start_recording(_layer, _inputs, output):
            leaf = output.detach().requires_grad_(True)
            leaves.extend([leaf])
            inner.enter_context(torch.enable_grad())
            return leaf.clone()

        stack.enter_context(torch.no_grad())
        stack.callback(layer.register_forward_hook(start_recording).remove)
        inner = stack.enter_context(ExitStack())
        yield leaves


cutting = Exercise(
    key="3.4",
    title="the cut",
    reference=cam.cut,
    cases=_cut_cases,
    use=_use_cut,
    mistakes=(
        Mistake(
            _cutting(sent=lambda leaves: leaves[-1]),
            "You send the leaf itself on, and PyTorch lets nobody work in place on a leaf, as the next module does: return "
            "`leaf.clone()` from the hook.",
            "trial",
        ),
        Mistake(
            _cutting(leaf=lambda output: output.detach()),
            "What you keep does not ask for a gradient: call `.requires_grad_()` on it after `.detach()`.",
            "trial",
        ),
        Mistake(
            _cutting(switch=lambda: None),
            "Recording is never switched on for what comes after the layer: call `torch.set_grad_enabled(True)` in the hook. "
            "(`with torch.enable_grad():` inside the hook ends with the hook, and under `torch.inference_mode()` nothing "
            "switches it on.)",
            "trial",
        ),
        Mistake(
            _cutting(outside=nullcontext),
            "What comes before the layer is still recorded, which costs the memory that the cut is to save: let the block run "
            "`with torch.no_grad():` from its start. (Without `with`, `torch.no_grad()` does nothing.)",
            "trial",
        ),
        Mistake(
            _cutting(leaf=lambda output: output.requires_grad_(), outside=nullcontext),
            "Nothing is cut: what you keep is still in the middle of the graph. Begin with `torch.no_grad()`, and keep "
            "`output.detach().requires_grad_()`.",
            "trial",
        ),
        Mistake(
            _cutting(sent=lambda leaves: None),
            "The net goes on with a tensor that does not come from your leaf, so no gradient reaches the leaf: return "
            "`leaf.clone()` from the hook, not nothing, and not a detached copy.",
            "trial",
        ),
        Mistake(
            _cut_with_early_clone,
            "You make the clone while recording is still off, so that it does not come from your leaf: call "
            "`torch.set_grad_enabled(True)` first, then clone.",
            "trial",
        ),
        Mistake(
            _cutting(leaf=lambda output: output.requires_grad_()),
            "Without `.detach()` there is no cut where recording is on already, as when the layer runs a second time: keep "
            "`output.detach().requires_grad_()`.",
            "trial",
        ),
        Mistake(
            _cutting(leaf=_clone_of_a_leaf, sent=lambda leaves: leaves[-1]),
            "You keep a clone, which is no leaf any more: keep the leaf itself, and return its clone.",
            "trial",
        ),
        Mistake(
            _cutting(sent=lambda leaves: leaves[0].clone()),
            "Of a layer that runs twice you send the first run's output on twice: send on the leaf of this run.",
            "trial",
        ),
        Mistake(
            _cutting(leaf=lambda output: output.detach().relu().requires_grad_()),
            "Your leaf has been through a ReLU: take the layer's output as it is, with its negative values.",
            "trial",
        ),
        Mistake(
            _cutting(leaf=lambda output: torch.zeros_like(output).requires_grad_()),
            "Your leaf holds zeros: it has to hold what the layer computed, `output.detach()`.",
            "trial",
        ),
        Mistake(
            _cutting(leaf=lambda output: output.detach().requires_grad),
            "`requires_grad` without brackets is a question with the answer False: call `.requires_grad_()`, with the "
            "underscore, which returns the tensor.",
            "trial",
        ),
        Mistake(
            _cutting(leaf=lambda output: output.detach().retain_grad()),
            "`retain_grad()` is for tensors in the middle of a graph; a leaf asks for its gradient with `.requires_grad_()`.",
            "trial",
        ),
        Mistake(
            _cutting(append=_first_place),
            "The list holds the last leaf only: append one item for every run of the layer.",
            "trial",
        ),
        Mistake(
            _cutting(yielded=list),
            "The list that the block hands out stays empty: `yield` the very list to which your hook appends.",
            "trial",
        ),
        Mistake(
            _cutting(yielded=lambda leaves: None),
            "Your `yield` hands out nothing: write `yield leaves`.",
            "trial",
        ),
        Mistake(
            _cutting(at_the_end=list.clear),
            "You empty the list at the end of the block: the leaf is wanted afterwards, so remove the hook only.",
            "trial",
        ),
        Mistake(
            _cut_and_kept_on,
            "You switch recording off and never put it back as it was: use `with torch.no_grad():` around the `yield`, which "
            "does so by itself.",
            "trial",
        ),
        Mistake(
            _cut_and_switched_on,
            "You switch recording on at the end, also where it was off before: put it back as it was, which "
            "`with torch.no_grad():` does by itself.",
            "trial",
        ),
        Mistake(
            _cut_and_switched_off,
            "You leave recording switched off: after the block nothing could be trained any more. Put it back as it was, which "
            "`with torch.no_grad():` does by itself.",
            "trial",
        ),
        Mistake(
            _cut_with_mode_left_on_error,
            "If an error ends the block, recording is not put back: do that in `finally:`, or use `with torch.no_grad():` "
            "around the `yield`.",
            "trial",
        ),
        Mistake(
            _cut_never_removed,
            "Your hook stays on the layer after the block and goes on cutting: open it in the same `with` as `no_grad`, or "
            "call `handle.remove()` in `finally:`.",
            "peer",
        ),
        Mistake(
            _cut_without_finally,
            "If an error ends the block, your hook stays: call `handle.remove()` in `finally:`, or open the hook in the same "
            "`with` as `no_grad`.",
            "peer",
        ),
        Mistake(
            _cut_swallowing,
            "Your `except` swallows every error of the block: leave it out.",
            "trial",
        ),
        Mistake(
            _cut_removed_too_early,
            "There is no hook on the layer while the block runs: the `yield` has to stand inside the `with` that holds the hook.",
            "trial",
        ),
        Mistake(
            _cutting(
                register="register_forward_pre_hook", leaf=lambda inputs: inputs[0].detach().requires_grad_()
            ),
            "You cut before the layer, at what goes into it: a forward hook, without *pre*, cuts at its output.",
            "trial",
        ),
        Mistake(
            _cut_generator,
            "Write `@contextmanager` on the line between `@exercise(...)` and `def`: without it, `with` cannot open what you "
            "return.",
            "trial",
        ),
        Mistake(
            _cut_returned,
            "Write `yield leaves` in place of `return leaves`: the block runs where the `yield` stands.",
            "trial",
        ),
    ),
    verified="The leaf holds the layer's output, only what comes after it is recorded, and everything is as before afterwards, after an error too.",
    hints=(
        "Three things happen in the hook, one after the other: the output becomes a leaf that asks for a gradient and goes "
        "into the list; recording is switched on; the net goes on with something that comes from the leaf.",
        "Around the `yield`: `with torch.no_grad(), layer.register_forward_hook(start_recording):`. In the hook: "
        "`output.detach().requires_grad_()`, `torch.set_grad_enabled(True)`, and a clone to return.",
    ),
    alternatives=(_CutByClass, _cut_by_finally, _cut_by_exit_stack),
)


# 3.5 -------------------------------------------------------------------------------------------------------


def _centre_cases(rng):
    def layer():
        kernel = int(rng.integers(1, 6))
        return kernel, int(rng.integers(1, 4)), int(rng.integers(0, (kernel + 1) // 2 + 1))

    return [
        ([(3, 2, 0), (2, 2, 0), (3, 1, 0)],),
        ([(7, 2, 3), (3, 2, 1), (4, 3, 1), (5, 1, 0)],),
        ([(4, 2, 1)],),
        ([layer() for _ in range(4)],),
        (tuple(layer() for _ in range(3)),),
    ]


def _use_centres(answer, layers):
    """Where the first cell looks and how far it is to the next, as floats."""
    result = answer(layers)
    if isinstance(result, tuple | list):
        return [float(item) if isinstance(item, int | np.integer) else item for item in result]
    return result


def _centres(
    offset=lambda k, s, p: (k - 1) / 2 - p, jump=lambda step, k, s: step, grow=lambda step, s: step * s
):
    """`cell_centres` with other parts: a layer's shift, what it is multiplied by, and how the step grows."""

    def answer(layers):
        first, step = 0.0, 1
        for kernel, stride, padding in layers:
            first += jump(step, kernel, stride) * offset(kernel, stride, padding)
            step = grow(step, stride)
        return first, step

    return answer


def _changed_centres(change):
    return lambda layers: change(*overlay.cell_centres(layers), layers)


def _padding_in_pixels(layers):
    first, step = 0.0, 1
    for kernel, stride, padding in layers:
        first += step * (kernel - 1) / 2 - padding
        step *= stride
    return first, step


def _receptive_field(layers):
    size, step = 1, 1
    for kernel, stride, _ in layers:
        size += step * (kernel - 1)
        step *= stride
    return size, step


def _centres_from_the_top(layers):
    first = 0.0
    for kernel, stride, padding in reversed(layers):
        first = first * stride + (kernel - 1) / 2 - padding
    return first, float(np.prod([stride for _, stride, _ in layers]))


def _centres_from_edges(layers):
    left, right, step = 0, 0, 1
    for kernel, stride, padding in layers:
        left, right = left - padding * step, right + (kernel - 1 - padding) * step
        step *= stride
    return (left + right) / 2, step


def _centres_by_arrays(layers):
    kernels, strides, paddings = np.array(layers).T
    steps = np.cumprod([1, *strides])
    return [float(((kernels - 1) / 2 - paddings) @ steps[:-1]), int(steps[-1])]


centres = Exercise(
    key="3.5",
    title="where a cell looks",
    reference=overlay.cell_centres,
    cases=_centre_cases,
    use=_use_centres,
    mistakes=(
        Mistake(
            _changed_centres(lambda first, step, layers: (first + 0.5, step)),
            "Half a pixel too far: pixel 0 has its centre at 0, so start at 0.0 and add no 0.5.",
            "peer",
        ),
        Mistake(
            _centres(offset=lambda k, s, p: (k - 1) / 2),
            "You leave out the padding: the kernel starts `padding` pixels outside the map, which moves the first cell back by "
            "that much.",
            "peer",
        ),
        Mistake(
            _centres(offset=lambda k, s, p: (k - 1) / 2 + p),
            "You add the padding: it moves the first cell towards the edge, so subtract it.",
            "trial",
        ),
        Mistake(
            _centres(jump=lambda step, k, s: step * s),
            "You multiply the step by the stride too early: a layer's kernel still counts in the step of the map that it "
            "reads. Move `first` first, then multiply.",
            "trial",
        ),
        Mistake(
            _centres(jump=lambda step, k, s: 1),
            "You add up half kernels as if all maps were as fine as the picture: multiply each by the step so far.",
            "trial",
        ),
        Mistake(
            _centres(jump=lambda step, k, s: s),
            "You multiply by the layer's own stride; multiply by the step so far, the product of the strides before it.",
            "trial",
        ),
        Mistake(
            _padding_in_pixels,
            "The padding is counted in pixels of the picture; it too belongs inside the brackets that you multiply by the "
            "step.",
            "trial",
        ),
        Mistake(
            _centres(offset=lambda k, s, p: k / 2 - p),
            "The middle of a kernel of k pixels is (k - 1) / 2 from its first pixel, not k / 2.",
            "peer",
        ),
        Mistake(
            _centres(offset=lambda k, s, p: (k - 1) // 2 - p),
            "`//` rounds down, and an even kernel has its middle between two pixels: divide with `/`.",
            "trial",
        ),
        Mistake(
            _centres(offset=lambda k, s, p: k // 2 - p),
            "`k // 2` is wrong for even kernels, whose middle lies between two pixels: take (k - 1) / 2.",
            "peer",
        ),
        Mistake(
            _centres(offset=lambda k, s, p: k - 1 - p),
            "You move by the whole kernel: the middle is at (k - 1) / 2.",
            "trial",
        ),
        Mistake(
            _centres(offset=lambda k, s, p: -p),
            "That is the left edge of what the first cell sees: add half of each kernel, (k - 1) / 2.",
            "peer",
        ),
        Mistake(
            _centres(offset=lambda k, s, p: (k - 1 - p) / 2),
            "You halve the padding too: it is (k - 1) / 2 - padding.",
            "trial",
        ),
        Mistake(
            _centres(offset=lambda k, s, p: (k - 1) / 2 - 2 * p),
            "You subtract the padding of both sides; only the one before the first pixel moves the first cell.",
            "trial",
        ),
        Mistake(
            _centres(grow=lambda step, s: s),
            "The step is the last layer's stride only: multiply the strides of all layers.",
            "peer",
        ),
        Mistake(
            _centres(grow=lambda step, s: step + s),
            "You add the strides up: every layer multiplies the step by its stride.",
            "trial",
        ),
        Mistake(
            _centres(grow=lambda step, s: step),
            "The step stays 1: multiply it by each layer's stride.",
            "trial",
        ),
        Mistake(
            lambda layers: overlay.cell_centres(layers[::-1]),
            "You go through the layers from the map down to the picture with a formula for the other direction: start with the "
            "first layer.",
            "trial",
        ),
        Mistake(
            _changed_centres(lambda first, step, layers: ((step - 1) / 2, step)),
            "That spreads the cells evenly over the picture, as enlarging does with `align_corners=False`: where they look "
            "depends on kernels and padding.",
            "peer",
        ),
        Mistake(
            _changed_centres(lambda first, step, layers: (0.0, step)),
            "Your first cell looks at the corner pixel, as `align_corners=True` has it: compute where its kernel stands.",
            "peer",
        ),
        Mistake(
            _changed_centres(lambda first, step, layers: (step, first)),
            "The order is wrong: first the first cell's centre, then the step.",
            "trial",
        ),
        Mistake(
            _changed_centres(lambda first, step, layers: first),
            "The step is missing: return both, `first, step`.",
            "trial",
        ),
        Mistake(
            _changed_centres(lambda first, step, layers: (int(first), step)),
            "You cut `first` off to a whole number: a centre may lie between two pixels.",
            "trial",
        ),
        Mistake(
            _changed_centres(lambda first, step, layers: (round(first), step)),
            "You round `first`: a centre may lie between two pixels.",
            "trial",
        ),
        Mistake(
            lambda layers: overlay.cell_centres(layers[:1]),
            "Only the first layer is counted: `return` stands inside the loop.",
            "trial",
        ),
        Mistake(
            lambda layers: overlay.cell_centres(layers[-1:]),
            "Only the last layer is counted: start `first` and `step` before the loop, not in it.",
            "trial",
        ),
        Mistake(
            lambda layers: overlay.cell_centres([(k, p, s) for k, s, p in layers]),
            "Stride and padding are exchanged: each layer is (kernel, stride, padding).",
            "trial",
        ),
        Mistake(
            lambda layers: overlay.cell_centres([(s, k, p) for k, s, p in layers]),
            "Kernel and stride are exchanged: each layer is (kernel, stride, padding).",
            "trial",
        ),
        Mistake(
            _receptive_field,
            "That is the size of what a cell sees, its receptive field: its centre is wanted.",
            "peer",
        ),
    ),
    verified="First cell and step are right for odd and even kernels, with padding and without, through one to four layers.",
    hints=(
        "Take one layer alone. Its first kernel covers the pixels from -padding to -padding + kernel - 1: where is the middle? "
        "And how far on is the next one?",
        "Through several layers, keep two numbers, `first` and `step`. A layer's kernel counts cells of the map below it, and "
        "those are `step` pixels apart; after that, `step` grows by the stride.",
    ),
    alternatives=(_centres_from_the_top, _centres_from_edges, _centres_by_arrays),
)


# 3.6 -------------------------------------------------------------------------------------------------------


def _energy_cases(rng):
    cases = []
    for dtype, labels in ((np.float32, [4, 1, 4, 2, 4, 1, 4, 2]), (np.float64, [2, 0, 0, 2, 1, 2, 0])):
        labels = np.array(labels)
        maps = rng.normal(size=(len(labels), 6, 5)) * rng.lognormal(sigma=1.0, size=(len(labels), 1, 1)) + 0.2
        maps[0] = 0
        maps[2] = -np.abs(maps[2])
        maps[5, :2] = 0
        maps[4] *= 1e-7  # faint, but a map like any other
        masks = rng.random(maps.shape) < rng.uniform(0.1, 0.8, size=(len(labels), 1, 1))
        masks[6] &= maps[6] <= 0  # a map with all its mass outside is not blank
        cases.append((maps.astype(dtype), masks, labels))
    maps, masks, labels = cases[-1]
    return [*cases, (np.where(labels[:, None, None] == 2, -1.0, maps), masks, labels)]  # one class all blank


def _share(a, b):
    """a / b, and 0 where b is 0."""
    return np.divide(a, b, out=np.zeros_like(b), where=b > 0)


def _energy(maps, masks):
    return metrics.energy_inside(maps, masks)


def _area(maps, masks):
    return masks.mean(axis=(1, 2))


def _blank(maps, masks):
    return (maps <= 0).all(axis=(1, 2))


def _by_class(energy=_energy, area=_area, blank=_blank, reduce=np.mean, classes=np.unique):
    """`energy_by_class` with other columns, each `column(maps, masks) -> (B,)`, or put together differently."""

    def answer(maps, masks, labels):
        columns = [column(maps, masks) for column in (energy, area, blank)]
        return np.array([[reduce(column[labels == k]) for column in columns] for k in classes(labels)])

    return answer


def _changed_table(change):
    return lambda maps, masks, labels: change(
        metrics.energy_by_class(maps, masks, labels), maps, masks, labels
    )


def _sums(maps):
    return np.maximum(maps, 0).sum(axis=(1, 2))


def _pooled(maps, masks, labels):
    table = metrics.energy_by_class(maps, masks, labels)
    for row, k in zip(table, np.unique(labels), strict=True):
        total = _sums(maps[labels == k]).sum()
        row[0] = _sums(maps * masks)[labels == k].sum() / total if total else 0
    return table


def _of_the_mean_map(maps, masks, labels):
    table = metrics.energy_by_class(maps, masks, labels)
    for row, k in zip(table, np.unique(labels), strict=True):
        mean = np.maximum(maps[labels == k], 0).mean(axis=0)
        row[0] = (mean * masks[labels == k].mean(axis=0)).sum() / mean.sum() if mean.any() else 0
    return table


def _without_blanks(columns):
    """Blank maps left out of these columns' means; a class with nothing else gets NaN."""

    def answer(maps, masks, labels):
        table = metrics.energy_by_class(maps, masks, labels)
        for row, k in zip(table, np.unique(labels), strict=True):
            kept = (labels == k) & ~_blank(maps, masks)
            for column in columns:
                row[column] = (_energy, _area)[column](maps, masks)[kept].mean()
        return table

    return answer


def _one_row(maps, masks, labels):
    return np.array([[column(maps, masks).mean() for column in (_energy, _area, _blank)]])


def _row_per_map(maps, masks, labels):
    return np.stack([column(maps, masks) for column in (_energy, _area, _blank)], axis=1)


def _overall(column):
    """The mean of one column over all maps, in every row."""

    def change(table, maps, masks, labels):
        table[:, column] = (_energy, _area, _blank)[column](maps, masks).mean()
        return table

    return _changed_table(change)


def _of_all_maps(table, maps, masks, labels):
    table[:, 2] = [_blank(maps, masks)[labels == k].sum() / len(maps) for k in np.unique(labels)]
    return table


def _blank_count(table, maps, masks, labels):
    table[:, 2] = [_blank(maps, masks)[labels == k].sum() for k in np.unique(labels)]
    return table


def _column(index, change):
    def changed(table, *_):
        table[:, index] = change(table)
        return table

    return _changed_table(changed)


def _by_order_of_appearance(labels):
    return labels[np.sort(np.unique(labels, return_index=True)[1])]


def _energy_by_loops(maps, masks, labels):
    rows = []
    for k in sorted(set(labels.tolist())):
        shares, areas, blanks = [], [], []
        for m, inside, label in zip(maps, masks, labels, strict=True):
            if label == k:
                positive = m[m > 0].sum()
                shares.append(m[(m > 0) & inside].sum() / positive if positive > 0 else 0.0)
                areas.append(inside.sum() / inside.size)
                blanks.append(not (m > 0).any())
        rows.append([sum(shares) / len(shares), sum(areas) / len(areas), sum(blanks) / len(blanks)])
    return np.array(rows)


def _energy_by_sorting_into_bins(maps, masks, labels):
    _, rows = np.unique(labels, return_inverse=True)
    positive = np.clip(maps, 0, None).reshape(len(maps), -1)
    with np.errstate(invalid="ignore"):
        energy = np.nan_to_num((positive * masks.reshape(positive.shape)).sum(1) / positive.sum(1))
    columns = (energy, masks.reshape(positive.shape).mean(1), positive.max(1) == 0)
    return np.stack([np.bincount(rows, weights=column) / np.bincount(rows) for column in columns], axis=-1)


def _energy_by_matrix_product(maps, masks, labels):
    members = (np.unique(labels)[:, None] == labels).astype(float)
    members /= members.sum(axis=1, keepdims=True)
    positive = np.where(maps > 0, maps, 0)
    total = np.einsum("bij->b", positive)
    share = np.einsum("bij,bij->b", positive, masks) / np.where(total == 0, 1, total)
    return members @ np.column_stack([share, masks.mean((1, 2)), total == 0])


energy = Exercise(
    key="3.6",
    title="energy, chance and blanks, class by class",
    reference=metrics.energy_by_class,
    cases=_energy_cases,
    mistakes=(
        Mistake(
            _by_class(
                energy=lambda maps, masks: _share((maps * masks).sum(axis=(1, 2)), maps.sum(axis=(1, 2)))
            ),
            "You count negative values too: make them 0 before you add anything up, in the map's total as well.",
            "trial",
        ),
        Mistake(
            _by_class(
                energy=lambda maps, masks: _share(
                    (np.abs(maps) * masks).sum(axis=(1, 2)), np.abs(maps).sum(axis=(1, 2))
                )
            ),
            "You take absolute values, so that evidence against the class counts as energy: make negative values 0.",
            "trial",
        ),
        Mistake(
            _by_class(energy=lambda maps, masks: _share(_sums(maps * masks), maps.sum(axis=(1, 2)))),
            "Above the line you leave negative values out, below it they are still in: use the map without them in both sums.",
            "trial",
        ),
        Mistake(
            _by_class(energy=lambda maps, masks: _sums(maps * masks) / _sums(maps)),
            "A blank map gives 0 / 0, and the NaN spreads to its whole class: count a blank map as 0.",
            "peer",
        ),
        Mistake(
            _by_class(energy=lambda maps, masks: np.where(_blank(maps, masks), 1, _energy(maps, masks))),
            "You count a blank map as a perfect one: it shows nothing, so it scores 0.",
            "trial",
        ),
        Mistake(
            _by_class(
                energy=lambda maps, masks: np.where(
                    _blank(maps, masks), _area(maps, masks), _energy(maps, masks)
                )
            ),
            "You give a blank map the chance level: it shows nothing, so it scores 0.",
            "trial",
        ),
        Mistake(
            _without_blanks([0]),
            "You leave blank maps out of the mean, which flatters a method that often shows nothing: they count as 0.",
            "peer",
        ),
        Mistake(
            _without_blanks([0, 1]),
            "You leave blank maps out altogether: they count as 0 in the first column, and their masks count in the second.",
            "trial",
        ),
        Mistake(
            _by_class(energy=lambda maps, masks: _sums(maps * masks) / (_sums(maps) + 1e-6)),
            "The constant that you add to the total makes faint maps score too low: divide only where the total is above 0.",
            "peer",
        ),
        Mistake(
            _pooled,
            "You add the maps of a class up before you divide, so that strong maps outvote faint ones: divide for each map, "
            "then take the mean.",
            "trial",
        ),
        Mistake(
            _of_the_mean_map,
            "You average the maps and the masks of a class first: each map belongs with its own mask, so compute its share, "
            "and average the shares.",
            "trial",
        ),
        Mistake(
            _by_class(energy=lambda maps, masks: _share(_energy(maps, masks), _area(maps, masks))),
            "You divide the mean inside the mask by the mean of the map, which has the mask's size in it: divide the sum inside "
            "by the sum of the map.",
            "trial",
        ),
        Mistake(
            _by_class(energy=lambda maps, masks: _sums(maps * masks) / masks.sum(axis=(1, 2))),
            "You divide by the number of pixels in the mask: divide by the map's own sum.",
            "trial",
        ),
        Mistake(
            _by_class(energy=lambda maps, masks: _share(_sums(maps * masks), _sums(maps * ~masks))),
            "You divide what lies inside by what lies outside: divide by the whole.",
            "trial",
        ),
        Mistake(
            _by_class(energy=lambda maps, masks: _energy(maps, ~masks)),
            "That is the share *outside* the mask.",
            "trial",
        ),
        Mistake(
            _by_class(
                energy=lambda maps, masks: _share(
                    ((maps > 0) & masks).sum(axis=(1, 2)).astype(float),
                    (maps > 0).sum(axis=(1, 2)).astype(float),
                )
            ),
            "You count pixels; energy adds up how strong they are.",
            "trial",
        ),
        Mistake(
            _by_class(energy=metrics.pointing_game),
            "That is the pointing game, which looks at one pixel of each map: add up all that is positive.",
            "peer",
        ),
        Mistake(
            _by_class(energy=lambda maps, masks: _energy(maps - maps.min(axis=(1, 2), keepdims=True), masks)),
            "You subtract each map's minimum, which makes negative values positive: make them 0 instead.",
            "peer",
        ),
        Mistake(
            _by_class(energy=lambda maps, masks: _energy(maps, masks) - _area(maps, masks)),
            "You subtract chance from the energy: the two stand in columns of their own.",
            "trial",
        ),
        Mistake(
            _by_class(energy=lambda maps, masks: _sums(maps * masks)),
            "You add up what lies inside and do not divide: the share of the map's own sum is wanted.",
            "trial",
        ),
        Mistake(_one_row, "You average over all maps: one row for each class is wanted.", "trial"),
        Mistake(
            _row_per_map,
            "You return one row per map: average those of each class.",
            "trial",
        ),
        Mistake(
            _by_class(classes=lambda labels: range(labels.max() + 1)),
            "There is a row for classes that do not occur, and its mean is NaN: go through `np.unique(labels)`.",
            "trial",
        ),
        Mistake(
            _by_class(classes=lambda labels: range(2)),
            "You take the classes to be 0 and 1, as in this lab: which ones there are, `np.unique(labels)` says.",
            "trial",
        ),
        Mistake(
            _by_class(classes=lambda labels: range(len(np.unique(labels)))),
            "You take the classes to be 0, 1, 2, ...: which ones there are, `np.unique(labels)` says.",
            "trial",
        ),
        Mistake(
            _by_class(classes=_by_order_of_appearance),
            "Your rows follow the order in which the classes first occur: sort them in ascending order.",
            "trial",
        ),
        Mistake(
            _changed_table(lambda table, *_: table[::-1]),
            "Your rows run from the last class to the first: sort them in ascending order.",
            "trial",
        ),
        Mistake(
            _changed_table(lambda table, *_: table.T),
            "Rows and columns are exchanged: one row per class, three columns.",
            "trial",
        ),
        Mistake(
            _changed_table(lambda table, *_: table[:, [1, 0, 2]]),
            "The first two columns are exchanged: energy, area, blanks.",
            "trial",
        ),
        Mistake(
            _changed_table(lambda table, *_: table[:, [0, 2, 1]]),
            "The last two columns are exchanged: energy, area, blanks.",
            "trial",
        ),
        Mistake(
            _changed_table(lambda table, *_: 100 * table),
            "You return per cent: shares from 0 to 1 are wanted.",
            "trial",
        ),
        Mistake(
            _changed_table(lambda table, *_: table[:, :2]),
            "The third column is missing: the share of blank maps.",
            "trial",
        ),
        Mistake(
            _by_class(reduce=np.median),
            "You take the median of each class: take the mean.",
            "trial",
        ),
        Mistake(
            _by_class(reduce=np.sum),
            "You add up over the maps of a class: take the mean.",
            "trial",
        ),
        Mistake(
            _overall(1),
            "Your chance level is the same for all classes: average over the masks of each class by itself.",
            "peer",
        ),
        Mistake(
            _overall(2),
            "Your share of blank maps is the same for all classes: take it for each class by itself.",
            "trial",
        ),
        Mistake(
            _overall(0),
            "Your energy is the same for all classes: average over the maps of each class by itself.",
            "trial",
        ),
        Mistake(
            _by_class(area=lambda maps, masks: masks.sum(axis=(1, 2))),
            "The second column counts pixels: chance is the mask's *share* of the area, its mean.",
            "trial",
        ),
        Mistake(
            _by_class(area=lambda maps, masks: 1 - _area(maps, masks)),
            "The second column is the share outside the mask: a uniform map scores the share inside.",
            "trial",
        ),
        Mistake(
            _by_class(area=lambda maps, masks: np.full(len(maps), 0.5)),
            "Chance is not one half: a uniform map scores the mask's share of the area.",
            "trial",
        ),
        Mistake(
            _by_class(area=lambda maps, masks: (maps > 0).mean(axis=(1, 2))),
            "The second column is the share of positive pixels of the *map*: chance is the share of the area that the mask "
            "covers.",
            "trial",
        ),
        Mistake(
            _by_class(blank=lambda maps, masks: (maps <= 0).any(axis=(1, 2))),
            "You call a map blank as soon as one of its values is not positive: it is blank if none is positive (`all`, not "
            "`any`).",
            "trial",
        ),
        Mistake(
            _by_class(blank=lambda maps, masks: (maps == 0).all(axis=(1, 2))),
            "A map with nothing but negative values is blank too, for the ReLU leaves nothing of it: ask for `<= 0`.",
            "trial",
        ),
        Mistake(
            _by_class(blank=lambda maps, masks: (maps < 0).all(axis=(1, 2))),
            "A map with nothing but zeros is blank too: ask for `<= 0`.",
            "trial",
        ),
        Mistake(
            _by_class(blank=lambda maps, masks: maps.sum(axis=(1, 2)) <= 0),
            "You call a map blank if its sum is not positive, though some of its values may be: ask for all values.",
            "trial",
        ),
        Mistake(
            _by_class(blank=lambda maps, masks: _energy(maps, masks) == 0),
            "You call a map blank if nothing of it lies inside the mask: it may have all its mass outside.",
            "trial",
        ),
        Mistake(
            _by_class(blank=lambda maps, masks: _sums(maps) < 1e-4),
            "You call faint maps blank: a map is blank only if nothing in it is positive at all.",
            "trial",
        ),
        Mistake(
            _by_class(blank=lambda maps, masks: ~_blank(maps, masks)),
            "The third column is the share of maps that are *not* blank.",
            "trial",
        ),
        Mistake(
            _changed_table(_blank_count),
            "The third column counts blank maps: divide by the number of maps of the class.",
            "trial",
        ),
        Mistake(
            _changed_table(_of_all_maps),
            "You divide the number of blank maps by that of all maps: divide by the maps of the class.",
            "trial",
        ),
    ),
    verified="Three columns for every class that occurs, with blank, faint and negative maps, and masks of unequal size.",
    hints=(
        "First three numbers for every map, each of shape (B,); `energy_inside` gives one of them. Only then the classes: "
        "`labels == k` picks the maps of class k.",
        "The mask's share of the area is `masks.mean(axis=(1, 2))`; a map is blank if `(maps <= 0).all(axis=(1, 2))`. Stack "
        "the three as columns, and take `table[labels == k].mean(axis=0)` for each k in `np.unique(labels)`.",
    ),
    alternatives=(_energy_by_loops, _energy_by_sorting_into_bins, _energy_by_matrix_product),
)


# 3.7 -------------------------------------------------------------------------------------------------------

SPECIES = ("cat", "dog", "fox")
COLLARS = (None, "red", "blue")


@dataclass(frozen=True)
class _Pet:
    number: int
    species: str
    ears: str
    collar: str | None


def _flip_cases(rng):
    def on_red(pet):
        return replace(pet, collar="red")

    def swapped(pet):
        return replace(pet, collar={"red": None, None: "red"}.get(pet.collar, pet.collar))

    def own_ears(pet):
        return replace(pet, ears=pet.species)

    cases = []
    for count, change, kind in (
        (2, on_red, list),
        (3, swapped, tuple),
        (2, swapped, list),
        (2, own_ears, list),
    ):
        pets = [
            _Pet(number, SPECIES[rng.integers(count)], SPECIES[rng.integers(count)], COLLARS[number % 3])
            for number in range(int(rng.integers(11, 15)))
        ]
        pets = [pets[i] for i in rng.permutation(len(pets))]
        predict = _predictor(rng.integers(count, size=(len(pets), len(SPECIES), len(COLLARS))))
        cases.append((predict, kind(pets + pets[:2]), change))  # two are drawn twice
    return cases


def _predictor(table):
    """A model with a class for each pet and whatever ears and collar it has."""

    def predict(pets):
        return np.array(
            [table[pet.number, SPECIES.index(pet.ears), COLLARS.index(pet.collar)] for pet in pets]
        )

    return predict


def _truth(pets):
    return np.array([SPECIES.index(pet.species) for pet in pets])


def _of_pairs(score, only=lambda pet: True):
    """`score(before, after, truth)` of the predictions for the pets that change, or those of them that `only` picks."""

    def answer(predict, items, change):
        pairs = [(item, change(item)) for item in items if change(item) != item and only(item)]
        before, after = (predict(list(side)) for side in zip(*pairs, strict=True))
        return score(before, after, _truth([item for item, _ in pairs]))

    return answer


def _with_no_ops(predict, items, change):
    return float(np.mean(predict(items) != predict([change(item) for item in items])))


def _each_once(predict, items, change):
    return metrics.flip_rate(predict, sorted(set(items), key=lambda pet: pet.number), change)


def _only_pairs_after(predict, items, change):
    after = predict([change(item) for item in items if change(item) != item])
    return float(np.mean(predict(items) != after))


def _changed_twice(predict, items, change):
    return metrics.flip_rate(predict, items, lambda item: change(change(item)))


def _without_a_list(predict, items, change):
    return float(np.mean([predict(item) != predict(change(item)) for item in items if item != change(item)]))


def _change_of_all(predict, items, change):
    return float(np.mean(predict(items) != predict(change(items))))


def _only_collars(predict, items, change):
    pairs = [(item, change(item)) for item in items if change(item).collar != item.collar]
    return _mean([predict([item])[0] != predict([twin])[0] for item, twin in pairs])


def _share_of_pairs(predict, items, change):
    return float(np.mean([change(item) != item for item in items]))


def _mean(values):
    return float(np.mean(values))


def _flips_one_by_one(predict, items, change):
    flips = pairs = 0
    for item in items:
        twin = change(item)
        if twin != item:
            pairs += 1
            flips += int(predict([item])[0]) != int(predict([twin])[0])
    return flips / pairs


def _flips_by_mask(predict, items, change):
    twins = [change(item) for item in items]
    changed = np.array([a != b for a, b in zip(items, twins, strict=True)])
    return (predict(items) != predict(twins))[changed].mean()


def _flips_in_one_call(predict, items, change):
    items = [item for item in items if change(item) != item]
    both = predict([*items, *map(change, items)]).reshape(2, -1)
    return np.count_nonzero(both[0] - both[1]) / len(items)


flips = Exercise(
    key="3.7",
    title="flip rate",
    reference=metrics.flip_rate,
    cases=_flip_cases,
    mistakes=(
        Mistake(
            _with_no_ops,
            "You count items that the change leaves as they are, and those cannot flip: leave them out, with `!=` (`is not` "
            "does not see that two items are equal).",
            "trial",
        ),
        Mistake(
            _of_pairs(lambda before, after, truth: _mean(after != truth)),
            "You compare the predictions for the twins with what the items really are, which gives an error rate: compare with "
            "the predictions before the change.",
            "trial",
        ),
        Mistake(
            _of_pairs(lambda before, after, truth: _mean(before != truth)),
            "You compare the predictions before the change with what the items really are: compare them with the predictions "
            "for the twins.",
            "trial",
        ),
        Mistake(  # as the lab itself asks for the species; one of the inputs has foxes, too
            _of_pairs(lambda before, after, truth: _mean(after != (truth == SPECIES.index("dog")))),
            'You compare the predictions for the twins with the species (`== "dog"`): compare them with the predictions '
            "before the change, right or wrong.",
            "trial",
        ),
        Mistake(
            _of_pairs(lambda before, after, truth: _mean(before != (truth == SPECIES.index("dog")))),
            'You compare the predictions before the change with the species (`== "dog"`): compare them with the predictions '
            "for the twins, right or wrong.",
            "trial",
        ),
        Mistake(
            _of_pairs(lambda before, after, truth: _mean(before == truth) - _mean(after == truth)),
            "You subtract accuracies: flips into the right class and out of it cancel there. Compare pair by pair.",
            "trial",
        ),
        Mistake(
            _of_pairs(lambda before, after, truth: abs(_mean(before == truth) - _mean(after == truth))),
            "A difference of accuracies, even without its sign, hides flips that cancel: compare pair by pair.",
            "trial",
        ),
        Mistake(
            _of_pairs(lambda before, after, truth: _mean(after == 1)),
            "That is the share of one class among the predictions after the change: compare each with the prediction before.",
            "trial",
        ),
        Mistake(
            _of_pairs(lambda before, after, truth: _mean(after) - _mean(before)),
            "You subtract mean predictions: flips in both directions cancel there. Compare pair by pair.",
            "trial",
        ),
        Mistake(
            _of_pairs(lambda before, after, truth: abs(_mean(after) - _mean(before))),
            "A difference of mean predictions, even without its sign, hides flips that cancel: compare pair by pair.",
            "trial",
        ),
        Mistake(
            _of_pairs(lambda before, after, truth: _mean(np.abs(after - before))),
            "You average the distance between class numbers; but class 2 is no farther from 0 than 1 is: ask `!=`.",
            "trial",
        ),
        Mistake(
            _of_pairs(lambda before, after, truth: int((before != after).sum())),
            "You return the number of flips: divide by the number of pairs.",
            "trial",
        ),
        Mistake(
            _of_pairs(lambda before, after, truth: _mean(before == after)),
            "That is the share of pairs whose prediction stays: ask `!=`.",
            "trial",
        ),
        Mistake(
            _of_pairs(lambda before, after, truth: 100 * _mean(before != after)),
            "You return per cent: a share from 0 to 1 is wanted.",
            "trial",
        ),
        Mistake(
            _of_pairs(lambda before, after, truth: before != after),
            "You return one answer per pair: take their mean.",
            "trial",
        ),
        Mistake(
            _of_pairs(lambda before, after, truth: float((before != after).any())),
            "You ask whether there is any flip: the share of pairs is wanted.",
            "trial",
        ),
        Mistake(
            _of_pairs(lambda before, after, truth: _mean(after > before)),
            "You count flips in one direction only: a prediction may go the other way too, so ask `!=`.",
            "trial",
        ),
        Mistake(
            _of_pairs(lambda before, after, truth: _mean(after < before)),
            "You count flips to a lower class number only: a prediction may go the other way too, so ask `!=`.",
            "trial",
        ),
        Mistake(
            _of_pairs(lambda before, after, truth: _mean((before != after) & (before == truth))),
            "You count a flip only if the prediction was right before: what an item really is does not matter.",
            "trial",
        ),
        Mistake(
            _of_pairs(lambda before, after, truth: _mean((before != after)[before == truth])),
            "You keep only items that the model gets right: what an item really is does not matter.",
            "trial",
        ),
        Mistake(
            _of_pairs(lambda before, after, truth: _mean((before != after) & (after != truth))),
            "You count flips into a wrong class only: every change of the prediction counts.",
            "trial",
        ),
        Mistake(
            _of_pairs(
                lambda before, after, truth: _mean(before != after), only=lambda pet: pet.species == "cat"
            ),
            "You take the cats only: pairs of every class count.",
            "trial",
        ),
        Mistake(
            _of_pairs(
                lambda before, after, truth: _mean(before != after), only=lambda pet: pet.species == "dog"
            ),
            "You take the dogs only: pairs of every class count.",
            "trial",
        ),
        Mistake(
            _of_pairs(
                lambda before, after, truth: _mean(before != after), only=lambda pet: pet.collar is None
            ),
            "You take only the items without a collar: the function knows nothing of collars, every item that `change` changes "
            "makes a pair.",
            "trial",
        ),
        Mistake(
            _of_pairs(lambda before, after, truth: _mean((before != after)[before == 0])),
            "You keep only items that are predicted as class 0 before the change: all pairs count.",
            "trial",
        ),
        Mistake(
            _of_pairs(lambda before, after, truth: _mean(after != after)),
            "It is always 0, for you compare predictions with themselves: one side wants the items, the other their twins.",
            "trial",
        ),
        Mistake(
            _of_pairs(lambda before, after, truth: _mean(np.sort(before) != np.sort(after))),
            "Sorting takes the pairs apart: leave the predictions in the order of the items.",
            "trial",
        ),
        Mistake(
            _of_pairs(lambda before, after, truth: _mean(before != after[::-1])),
            "The two sides run in opposite orders: compare each item with its own twin.",
            "trial",
        ),
        Mistake(
            _of_pairs(lambda before, after, truth: _mean(before[:, None] != after)),
            "You compare every item with every twin: each item has one twin of its own.",
            "trial",
        ),
        Mistake(
            _each_once,
            "A `set` counts equal items once: every item of the list counts.",
            "trial",
        ),
        Mistake(
            _only_pairs_after,
            "You leave unchanged items out on one side only, so that the two sides differ in length: form the pairs first, and "
            "predict both sides of the same pairs.",
            "trial",
        ),
        Mistake(
            _changed_twice,
            "You apply the change twice, and a swap undoes itself: once is enough.",
            "trial",
        ),
        Mistake(
            _without_a_list,
            "`predict` takes several items: put them into a list, also if there is one only.",
            "trial",
        ),
        Mistake(
            _change_of_all,
            "`change` takes one item: apply it to each, in a comprehension.",
            "trial",
        ),
        Mistake(
            _only_collars,
            "You look at the collar to see whether something has changed, but it may have been the ears: compare whole items, "
            "`item != twin`.",
            "trial",
        ),
        Mistake(
            _share_of_pairs,
            "That is the share of items that the change changes: the predictions are missing.",
            "trial",
        ),
    ),
    verified="The share of flips among real pairs, in both directions, for two and three classes; what an item really is played no part.",
    hints=(
        "Make the pairs first: each item with what `change` makes of it. Some pairs are no pairs, because nothing has changed; "
        "two items can be compared with `==`.",
        "Two lists of the same length, `predict` of each, and the share of places where the results differ: "
        "`np.mean(before != after)`.",
    ),
    alternatives=(_flips_one_by_one, _flips_by_mask, _flips_in_one_call),
)

EXERCISES = (forward_hook, backward_hook, safe_hook, cutting, centres, energy, flips)
