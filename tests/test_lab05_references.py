"""What lab 05's functions promise, held against networks cut open by hand, other libraries, and SciPy."""

import numpy as np
import pytest
import torch
from captum.attr import GuidedBackprop
from PIL import Image
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from scipy.stats import spearmanr
from torch import nn
from torchvision.models import VGG16_Weights, mobilenet_v3_small

from helpers.cam import grad_cam
from helpers.hooks import guided_backprop, out_of_place
from helpers.vgg_steps import centred, extreme_channels, rank_agreement, shown_and_seen, three_maps

CONV, RELU = 3, 4  # places in `vgg`


def vgg(in_place: bool) -> nn.Sequential:
    """3 x 12 x 10 images -> 7 channels of 6 x 5, pooled to 3 x 2 -> 5 logits; the same weights each time."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(3)
        net = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.ReLU(inplace=in_place),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 7, 3, padding=1),
            nn.ReLU(inplace=in_place),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(42, 5),
        )
    return net.double().eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(3, 3, 12, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


CLASSES = torch.tensor([4, 0, 2])


def hooks_of(net: nn.Module) -> int:
    return sum(
        len(hooks)
        for m in net.modules()
        for hooks in (m._forward_hooks, m._backward_hooks, m._forward_pre_hooks, m._backward_pre_hooks)
    )


# out_of_place ----------------------------------------------------------------------------------------------


def test_out_of_place_changes_nothing_else_in_a_model_of_many_blocks():
    torch.manual_seed(0)
    model = mobilenet_v3_small(weights=None).eval()  # ReLU, Hardswish and dropout, in nested blocks
    images = torch.randn(2, 3, 64, 48)
    with torch.no_grad():
        expected = model(images)
    modules = list(model.modules())
    kinds = {type(module).__name__ for module in modules if getattr(module, "inplace", False)}
    assert kinds == {"ReLU", "Hardswish", "Dropout"}
    assert out_of_place(model) is model
    assert [a is b for a, b in zip(modules, model.modules(), strict=True)] == [True] * len(modules)
    assert not any(getattr(module, "inplace", False) for module in modules)
    assert not any(module.training for module in modules)
    with torch.no_grad():
        assert torch.equal(model(images), expected)


def test_out_of_place_takes_a_single_module():
    relu = nn.ReLU(inplace=True)
    x = torch.tensor([-1.0, 2.0])
    assert out_of_place(relu)(x).tolist() == [0, 2] and x.tolist() == [-1, 2]


# three_maps ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_place", [False, True])
def test_three_maps_are_what_the_network_cut_open_gives(images, in_place):
    net = vgg(in_place)
    before = vgg(False)[: CONV + 1](images).detach().requires_grad_()
    after = before.relu()
    score = vgg(False)[RELU + 1 :](after)[range(3), CLASSES].sum()
    weights_before, weights_after = (
        g.mean(dim=(2, 3), keepdim=True) for g in torch.autograd.grad(score, (before, after))
    )
    expected = [
        (weights_before * before).sum(1),
        (weights_after * after).sum(1),
        (weights_before * after).sum(1),
    ]
    maps = three_maps(net, net[CONV], net[RELU], images, CLASSES)
    torch.testing.assert_close(list(maps), [map.detach() for map in expected])
    assert all((map < 0).any() and not map.requires_grad for map in maps)


@pytest.mark.parametrize("in_place", [False, True])
def test_two_of_the_three_maps_are_grad_cam_at_either_layer(images, in_place):
    net = vgg(in_place)
    before, after, mixed = three_maps(net, net[CONV], net[RELU], images, CLASSES)
    for layer, map in ((net[CONV], before), (net[RELU], after)):
        expected, _ = grad_cam(net, layer, images, CLASSES, relu=False)
        torch.testing.assert_close(map.float(), expected)
    for other in (before, after):
        assert (mixed - other).abs().max() > 0.05 * other.abs().max()


def test_the_mixed_map_is_what_a_library_computes_where_the_relu_works_in_place(images):
    """Asked for the convolution; with its ReLUs out of place, it computes the map before."""
    for in_place, expected in ((True, 2), (False, 0)):
        net = vgg(in_place)
        with GradCAM(net, [net[CONV]]) as library:
            library(images, [ClassifierOutputTarget(int(k)) for k in CLASSES])
            kept = library.activations_and_grads
            (activations,), (gradients,) = kept.activations, kept.gradients
        map = (gradients.mean(dim=(2, 3), keepdim=True) * activations).sum(dim=1)
        net.zero_grad()
        torch.testing.assert_close(map, three_maps(net, net[CONV], net[RELU], images, CLASSES)[expected])


def test_three_maps_leaves_no_trace(images):
    net = vgg(True)
    three_maps(net, net[CONV], net[RELU], images, CLASSES)
    assert hooks_of(net) == 0
    assert all(parameter.grad is None for parameter in net.parameters())


# extreme_channels ------------------------------------------------------------------------------------------


def test_extreme_channels_by_hand():
    means = torch.tensor([[0.1, -3.0, 2.0, 0.0, -0.5], [-1.0, -2.0, -3.0, -4.0, -5.0]])
    spread = torch.tensor([[-9.0, 9.0], [4.0, -4.0], [0.0, 0.0]])  # of mean 0
    largest, smallest = extreme_channels(means[:, :, None, None] + spread, 2)
    assert largest.tolist() == [[2, 0], [0, 1]]
    assert smallest.tolist() == [[1, 4], [4, 3]]


def test_extreme_channels_of_all_channels_are_one_order_from_both_ends():
    gradients = torch.randn(3, 6, 4, 5, generator=torch.Generator().manual_seed(0))
    largest, smallest = extreme_channels(gradients, 6)
    assert torch.equal(largest, smallest.flip(1))
    with pytest.raises(RuntimeError, match="out of range"):
        extreme_channels(gradients, 7)


# centred ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_centred_by_hand(dtype):
    maps = np.array([[[4, -8, 0]], [[-1e-12, 5e-13, 0]], [[0, 0, 0]], [[-3, -3, -3]]], dtype)
    scaled = centred(maps)
    expected = [[[0.5, -1, 0]], [[-1, 0.5, 0]], [[0, 0, 0]], [[-1, -1, -1]]]
    np.testing.assert_allclose(scaled, expected, rtol=1e-6)
    assert scaled.dtype == dtype and maps[0, 0, 0] == 4


# guided_backprop -------------------------------------------------------------------------------------------


def gradient_of_pixels(net, images):
    pixels = images.clone().requires_grad_()
    return torch.autograd.grad(net(pixels)[range(3), CLASSES].sum(), pixels)[0]


def guided_by_hand(net, images):
    """One layer after the other, backwards; at a ReLU, two conditions on the gradient."""
    inputs = [images]
    for layer in net:
        inputs.append(layer(inputs[-1]).detach())
    gradient = nn.functional.one_hot(CLASSES, 5).double()
    for layer, x in zip(reversed(net), reversed(inputs[:-1]), strict=True):
        if isinstance(layer, nn.ReLU):
            gradient = gradient * (x > 0) * (gradient > 0)
        else:
            x = x.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(layer(x), x, gradient)
    return gradient


def test_guided_backprop_is_what_it_is_by_hand_and_in_captum(images):
    net = vgg(False)
    with guided_backprop(net):
        gradient = gradient_of_pixels(net, images)
    assert (gradient.flatten(1).abs().amax(dim=1) > 0).all()
    torch.testing.assert_close(gradient, guided_by_hand(net, images))
    with pytest.warns(UserWarning, match="backward hooks"):
        expected = GuidedBackprop(net).attribute(images.clone().requires_grad_(), target=CLASSES)
    torch.testing.assert_close(gradient, expected)
    assert (gradient - gradient_of_pixels(net, images)).abs().max() > 0.05 * gradient.abs().max()


def test_guided_backprop_leaves_logits_modes_and_hooks_alone(images):
    net = vgg(False)
    expected, plain = net(images), gradient_of_pixels(net, images)
    with guided_backprop(net):
        assert hooks_of(net) == 2
        assert torch.equal(net(images), expected)
    assert hooks_of(net) == 0
    with pytest.raises(ZeroDivisionError), guided_backprop(net):
        1 / 0  # noqa: B018
    assert hooks_of(net) == 0
    assert torch.equal(gradient_of_pixels(net, images), plain)


def test_guided_backprop_needs_relus_out_of_place(images):
    net = vgg(True)
    with guided_backprop(net), pytest.raises(RuntimeError, match="inplace"):
        gradient_of_pixels(net, images)
    with guided_backprop(out_of_place(net)):
        torch.testing.assert_close(gradient_of_pixels(net, images), guided_by_hand(vgg(False), images))


# rank_agreement --------------------------------------------------------------------------------------------


def test_rank_agreement_is_spearmans():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 5, 6, 7))
    one[1:] = np.maximum(one[1:], 0)  # ties
    other += one
    expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(rank_agreement(one, other), expected, rtol=1e-12)


def test_rank_agreement_knows_order_only():
    one = np.random.default_rng(1).normal(size=(2, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(rank_agreement(one, np.exp(5 * one)), [1, 1])
    np.testing.assert_allclose(rank_agreement(one, -(one**3)), [-1, -1])


def test_rank_agreement_with_a_map_without_order_is_nan():
    maps = np.random.default_rng(2).normal(size=(3, 4, 3))
    blank = maps.copy()
    blank[0], blank[1] = 0, 0.1
    assert np.isnan(rank_agreement(maps, blank)).tolist() == [True, True, False]
    assert np.isnan(rank_agreement(blank, blank)).tolist() == [True, True, False]


# shown_and_seen --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(61, 40), (40, 61), (40, 40)], ids=["lying", "upright", "square"])
@pytest.mark.parametrize(("crop", "resize"), [(20, 26), (24, 24)], ids=["ImageNet", "stand-in"])
def test_what_is_shown_is_what_is_seen(size, crop, resize):
    pixels = np.random.default_rng(5).integers(0, 256, size=(size[1], size[0], 3), dtype=np.uint8)
    photo = Image.fromarray(pixels)
    preset = {"crop_size": crop, "resize_size": resize, "mean": (0.5, 0.4, 0.3), "std": (0.25, 0.2, 0.3)}
    preprocess = VGG16_Weights.IMAGENET1K_V1.transforms(**preset)
    shown, seen = shown_and_seen(photo, preprocess)
    assert shown.shape == (crop, crop, 3) and seen.shape == (1, 3, crop, crop)
    assert shown.min() >= 0 and shown.max() <= 1
    again = (shown - preset["mean"]) / preset["std"]
    np.testing.assert_allclose(seen[0].permute(1, 2, 0), again, atol=1e-6)
    np.testing.assert_array_equal(seen[0], preprocess(photo))


def test_what_is_shown_has_the_photos_own_colours():
    photo = Image.new("RGB", (30, 20), (200, 100, 50))
    shown, _ = shown_and_seen(photo, VGG16_Weights.IMAGENET1K_V1.transforms())
    assert shown.shape == (224, 224, 3)
    np.testing.assert_allclose(shown, np.broadcast_to(np.array([200, 100, 50]) / 255, shown.shape), atol=1e-6)
