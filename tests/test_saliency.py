"""Explanations and their measures, against PyTorch and against formulas by hand."""

import numpy as np
import pytest
import torch

from helpers import metrics, saliency
from helpers import numpy_nn as nn
from tests.test_numpy_nn import SEEDS, both_nets, relative, torch_twin

LAYERS = {"flatten": "conv2", "average": "relu2"}


def torch_maps(net, images, classes, layer):
    """Saliency, signed Grad-CAM and HiResCAM by autograd, and the logits."""
    forward, _ = torch_twin(net)
    x = torch.tensor(images, requires_grad=True)
    logits, kept = forward(x)
    score = logits[torch.arange(len(x)), torch.tensor(classes)].sum()
    grad_x, grad_layer = torch.autograd.grad(score, (x, kept[layer]))
    activations = kept[layer].detach()
    grad_cam = (grad_layer.mean((2, 3), keepdim=True) * activations).sum(1)
    return grad_x.abs().amax(1), grad_cam, (grad_layer * activations).sum(1), logits.detach()


@pytest.mark.parametrize("seed", SEEDS)
def test_maps_against_autograd(seed):
    for net, images, classes in both_nets(seed):
        layer = next(at for head, at in LAYERS.items() if head in net.layers)
        want = [t.numpy() for t in torch_maps(net, images, classes, layer)]
        pixels = saliency.class_saliency(net, images, classes)
        logits = net.forward(images)
        gradients = net.gradient(saliency.seed(logits, classes), layer)
        activations = net.outputs[layer]
        got = (
            pixels,
            saliency.class_activation_map(activations, gradients),
            saliency.hires_cam(activations, gradients),
            logits,
        )
        for name, ours, theirs in zip(("saliency", "Grad-CAM", "HiResCAM", "logits"), got, want, strict=True):
            assert relative(ours, theirs) <= 1e-12, name


@pytest.mark.parametrize("seed", SEEDS)
def test_hires_cam_adds_up_and_one_map_under_an_average(seed):
    for net, images, classes in both_nets(seed):
        layer = next(at for head, at in LAYERS.items() if head in net.layers)
        logits = net.forward(images)
        gradients = net.gradient(saliency.seed(logits, classes), layer)
        activations = net.outputs[layer]
        bias = net.layers["linear"].parameters["bias"].value
        grad_cam, hires, evidence = saliency.map_totals(activations, gradients, logits, bias, classes)
        np.testing.assert_allclose(hires, evidence, rtol=1e-10, atol=1e-12)
        if layer == "relu2":
            np.testing.assert_allclose(grad_cam, evidence, rtol=1e-10, atol=1e-12)
        else:
            assert relative(grad_cam, evidence) > 0.1, "under a flatten head the mean should lose evidence"


def test_seed_of_a_negative_logit_is_still_one():
    start = saliency.seed(np.array([[-3.0, 2.0]]), np.array([0]))
    np.testing.assert_array_equal(start, [[1, 0]])


def test_untrained_control_leaves_the_net_alone():
    rng = np.random.default_rng(0)
    net = nn.flatten_net().initialise(rng)
    images = rng.random((4, 1, 28, 28), dtype=np.float32)
    before = {key: p.value.copy() for key, p in net.parameters()}
    shares = saliency.untrained_control(net, images, np.arange(4), np.random.default_rng(1))
    assert [share.shape for share in shares] == [(4,), (4,)]
    assert not np.allclose(*shares)
    for key, parameter in net.parameters():
        np.testing.assert_array_equal(parameter.value, before[key])


def test_ink_share_by_hand():
    images = np.array([[[[0.9, 0.1], [0.5, 0.0]]]] * 3)
    maps = np.array([[[1.0, 3.0], [2.0, -5.0]], [[0, 0], [0, -1]], [[0, 0], [7.0, 0]]])
    np.testing.assert_allclose(metrics.ink_share(maps, images), [3 / 6, 0, 1])


def test_energy_inside_by_hand():
    maps = np.array([[[1.0, 3.0], [-9.0, 4.0]], [[-1.0, -2.0], [0.0, 0.0]], [[5.0, 0.0], [0.0, 0.0]]])
    masks = np.array([[[True, False], [True, True]], [[True] * 2] * 2, [[False, True], [True, True]]])
    np.testing.assert_allclose(metrics.energy_inside(maps, masks), [5 / 8, 0, 0])
    even = np.ones_like(maps)
    np.testing.assert_allclose(metrics.energy_inside(even, masks), masks.mean(axis=(1, 2)))


@pytest.mark.parametrize("form", [np.asarray, torch.tensor], ids=["NumPy", "PyTorch"])
def test_blank_rate_by_hand(form):
    negative, zero, mostly = [[-1.0, -2.0]], [[0.0, 0.0]], [[-100.0, 1e-30]]
    assert metrics.blank_rate(form([negative, zero, mostly, [[1.0, 2.0]]])) == 0.5
    assert metrics.blank_rate(form([mostly])) == 0 and metrics.blank_rate(form([zero])) == 1
    assert type(metrics.blank_rate(form([zero]))) is float


def test_deletion_curve_by_hand():
    """Predicts class 1 while the sum of the picture is above 2.5."""

    def predict(images):
        total = images.sum(axis=(1, 2, 3))
        return np.stack([np.full(len(images), 2.5), total], axis=1)

    images = np.array([[[[2.0, 1.0], [1.0, 0.0]]], [[[3.0, 1.0], [1.0, 1.0]]]])
    ranked = images[:, 0]
    curve = metrics.deletion_curve(predict, images, np.array([1, 1]), ranked, (0, 1, 2))
    np.testing.assert_allclose(curve, [1.0, 0.5, 0.0])
    reverse = metrics.deletion_curve(predict, images, np.array([1, 1]), -ranked, (0, 1, 2))
    np.testing.assert_allclose(reverse, [1.0, 1.0, 1.0])
    assert images.sum() == 10, "the pictures were changed"


def test_deletion_takes_all_channels_of_a_pixel():
    seen = []

    def predict(images):
        seen.append(images.copy())
        return np.zeros((len(images), 2))

    maps = np.array([[[0.0, 5.0], [1.0, 2.0]]])
    metrics.deletion_curve(predict, np.ones((1, 3, 2, 2)), np.array([0]), maps, (1,))
    np.testing.assert_array_equal(seen[0], np.array([[[1, 0], [1, 1]]] * 3)[None])
