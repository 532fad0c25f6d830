"""`helpers.hooks` against networks cut open by hand: in-place layers, layers that run twice, errors."""

import pytest
import torch
from torch import nn

from helpers.hooks import capture, keep_gradients, keep_outputs


@pytest.fixture
def net() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(60, 6)]
    return nn.Sequential(*layers).double()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 7, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def by_hand(net, images, position, row=0):
    """Output of a layer and the gradient of a row of logits with respect to it, the net cut open there."""
    activations = net[: position + 1](images).detach().requires_grad_()
    logits = net[position + 1 :](activations.clone())
    (gradients,) = torch.autograd.grad(logits[row].sum(), activations)
    return activations.detach(), gradients


def hooks_of(net) -> int:
    return sum(
        len(hooks)
        for m in net.modules()
        for hooks in (m._forward_hooks, m._backward_hooks, m._forward_pre_hooks)
    )


def test_keep_outputs_keeps_each_one_on_the_graph(net, images):
    with keep_outputs(net[2]) as outputs:
        assert outputs == []
        logits = net(images)
        net(images[:1])
    net(images)
    assert [tuple(output.shape) for output in outputs] == [(2, 5, 3, 4), (1, 5, 3, 4)]
    (gradients,) = torch.autograd.grad(logits[0].sum(), outputs[0])
    torch.testing.assert_close((outputs[0], gradients), by_hand(net, images, 2), check_layout=False)


def test_keep_outputs_changes_nothing(net, images):
    expected = net(images)
    with keep_outputs(net[2]), keep_outputs(net[4]) as outputs:
        assert torch.equal(net(images), expected) and torch.equal(outputs[0], expected)


def test_keep_gradients_keeps_one_per_backward_pass(net, images):
    with keep_gradients(net[2]) as gradients:
        logits = net(images)
        assert gradients == []
        for row in (0, 1):
            logits[row].sum().backward(retain_graph=True)
    net(images).sum().backward()
    assert len(gradients) == 2
    for row in (0, 1):
        torch.testing.assert_close(gradients[row], by_hand(net, images, 2, row)[1])


def test_what_a_layer_that_works_in_place_does_to_each(net, images):
    """The reason for `capture`: one of the others keeps what was overwritten, the other one raises."""
    activations, gradients = by_hand(net, images, 0)
    with keep_outputs(net[0]) as outputs:
        net(images)
    torch.testing.assert_close(outputs[0], activations.clamp(min=0))
    with keep_gradients(net[0]), pytest.raises(RuntimeError, match="inplace"):
        net(images)
    with capture(net[0]) as kept:
        net(images)[0].sum().backward()
    torch.testing.assert_close((kept[net[0]].detach(), kept[net[0]].grad), (activations, gradients))


def test_capture_takes_several_layers_at_once(net, images):
    expected = net(images)
    with capture(*net[:4]) as kept:
        logits = net(images)
        logits[1].sum().backward(retain_graph=True)
    assert torch.equal(logits, expected)
    assert list(kept) == list(net[:4])
    for position, layer in enumerate(net[:4]):
        expected = by_hand(net, images, position, row=1)
        torch.testing.assert_close((kept[layer].detach(), kept[layer].grad), expected)
    for position, layer in enumerate(net[:4]):
        (gradients,) = torch.autograd.grad(logits[0].sum(), kept[layer], retain_graph=True)
        torch.testing.assert_close(gradients, by_hand(net, images, position, row=0)[1])


def test_backward_passes_add_up_in_what_capture_keeps(net, images):
    with capture(net[0]) as kept:
        logits = net(images)
        logits[0].sum().backward(retain_graph=True)
        logits[1].sum().backward()
    both = by_hand(net, images, 0, row=0)[1] + by_hand(net, images, 0, row=1)[1]
    torch.testing.assert_close(kept[net[0]].grad, both)


def test_capture_keeps_the_last_run_of_a_layer_that_runs_twice(images):
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 3, 3, padding=1).double()
    net = nn.Sequential(layer, nn.ReLU(inplace=True), layer, nn.ReLU(inplace=True), nn.Flatten())
    with capture(layer) as kept:
        net(images)[0].sum().backward()
    torch.testing.assert_close((kept[layer].detach(), kept[layer].grad), by_hand(net, images, 2))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, "frozen"])
def test_capture_without_a_graph(net, images, mode):
    if mode == "frozen":
        mode = torch.enable_grad
        net.requires_grad_(False)
    with mode(), capture(net[2]) as kept:
        net(images)
    assert torch.equal(kept[net[2]], net[:3](images)) and kept[net[2]].grad is None


@pytest.mark.parametrize("keep", [keep_outputs, keep_gradients, capture])
def test_hooks_are_gone_afterwards(net, images, keep):
    with keep(net[2]):
        assert hooks_of(net) == 1
        net(images).sum().backward()
    assert hooks_of(net) == 0
    with pytest.raises(ZeroDivisionError), keep(net[2]):
        net(images)
        1 / 0  # noqa: B018
    assert hooks_of(net) == 0
    with pytest.raises(RuntimeError), keep(net[2]):
        net(images[:, :2])
    assert hooks_of(net) == 0


def test_capture_leaves_no_hook_if_one_of_the_layers_is_none(net):
    with pytest.raises(AttributeError), capture(net[0], net[2], "4"):
        pass
    assert hooks_of(net) == 0


def test_blocks_can_be_nested(net, images):
    with capture(net[2]) as outer:
        with capture(net[2]) as inner:
            net(images)
        assert hooks_of(net) == 1
        assert torch.equal(outer[net[2]], inner[net[2]])
        net(images[:1])
    assert len(outer[net[2]]) == 1 and len(inner[net[2]]) == 2
