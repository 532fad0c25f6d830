"""For exercises whose answer opens a `with` block: use the block, and look at what it leaves behind.

A check cannot compare what such an answer returns. It runs a small net in the block, and looks at what was
kept, at what the net computed meanwhile, and at the hooks that are left, also when an error ends the block.
"""

from contextlib import AbstractContextManager, contextmanager

import torch
from torch import nn

from . import Complaint


def with_random_weights(rng, net, dtype):
    """The net with random weights and biases; in training mode for float32, else in evaluation mode."""
    net = net.to(dtype)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.tensor(0.3 * rng.normal(size=parameter.shape), dtype=dtype))
    return net.train(dtype is torch.float32)


class Stop(Exception):
    """What a check raises inside a block."""


def is_block(manager):
    return isinstance(manager, AbstractContextManager)


@contextmanager
def opened(block):
    """The opened block, which cannot swallow what is raised inside."""
    raised = None
    with block as kept:
        try:
            yield kept
        except BaseException as error:
            raised = error
            raise
    if raised:
        raise raised


def hook_count(net):
    """The number of hooks on the net's modules, with those that PyTorch calls for every module."""
    everywhere = [d for name, d in vars(nn.modules.module).items() if name.startswith("_global_")]
    on_modules = [
        d for module in net.modules() for name, d in vars(module).items() if name.endswith("_hooks")
    ]
    return sum(len(d) for d in everywhere + on_modules if isinstance(d, dict))


def state_of(net):
    """What a block must leave as it was: the number of hooks, and whether PyTorch records."""
    return hook_count(net), torch.is_grad_enabled()


def expect_state(net, state, when):
    left = hook_count(net) - state[0]
    if left < 0:
        raise Complaint(f"{when}, another hook is gone: remove only your own, with `handle.remove()`.")
    if left:
        raise Complaint(f"{when}, {left} hook{'s are' if left > 1 else ' is'} left on the net.")
    if torch.is_grad_enabled() != state[1]:
        words = ("off", "on")
        raise Complaint(f"{when}, recording is {words[not state[1]]}, but it was {words[state[1]]} before.")


def expect_errors_to_pass(answer, modules, net, images):
    """Complain unless an error in the block comes out, leaves no trace, and spares other people's hooks."""
    others = modules[0].register_forward_hook(lambda *args: None)
    state = state_of(net)
    for run_first in (False, True):
        block = answer(*modules)
        if not is_block(block):
            raise Complaint("Used a second time, it gives no context manager.")
        try:
            with block:
                if run_first:
                    net(images)
                raise Stop
        except Stop:
            pass
        else:
            raise Complaint("An error inside the block is swallowed: it must come out again.")
        expect_state(net, state, "After a block that an error has ended")
    others.remove()
