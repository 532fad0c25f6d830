"""The NumPy layers against finite differences and against PyTorch in float64."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from helpers import numpy_nn as nn
from helpers.data import ImageSet, load_mnist

SEEDS = (0, 1, 2)


def numeric_gradient(function, x, step=1e-6):
    """Central differences of the number `function()` with respect to every element of `x`."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):  # changed in place, and put back
        before = x[index]
        x[index] = before + step
        up = function()
        x[index] = before - step
        gradient[index] = (up - function()) / (2 * step)
        x[index] = before
    return gradient


def relative(got, want):
    return np.abs(got - want).max() / max(np.abs(want).max(), 1e-300)


LAYERS = {
    "conv 3x3": (lambda: nn.Conv2d(3, 4), (2, 3, 6, 5)),
    "conv 5x5 without padding": (lambda: nn.Conv2d(3, 4, size=5, pad=0), (2, 3, 7, 6)),
    "conv 5x5 with padding": (lambda: nn.Conv2d(2, 3, size=5, pad=2), (2, 2, 6, 5)),
    "ReLU": (nn.ReLU, (2, 3, 6, 5)),
    "pool": (nn.MaxPool2d, (2, 3, 6, 5)),
    "overlapping pool": (lambda: nn.MaxPool2d(3, 2), (2, 3, 7, 6)),
    "standardise": (lambda: nn.Standardise(0.3, 0.7), (2, 3, 6, 5)),
    "flatten": (nn.Flatten, (2, 3, 6, 5)),
    "global average": (nn.GlobalAveragePool, (2, 3, 6, 5)),
    "linear": (lambda: nn.Linear(7, 4, scale=0.5), (3, 7)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_against_finite_differences(name):
    make, shape = LAYERS[name]
    rng = np.random.default_rng(0)
    net = nn.Sequential(layer=make()).initialise(rng).astype(np.float64)
    for _, parameter in net.parameters():
        parameter.value += 0.1 * rng.normal(size=parameter.value.shape)  # biases too
    x = rng.normal(size=shape)
    grad_out = rng.normal(size=net.forward(x).shape)

    def score():
        return float((grad_out * net.forward(x)).sum())

    net.forward(x)
    grad_x = net.backward(grad_out)
    assert relative(grad_x, numeric_gradient(score, x)) <= 1e-7
    for key, parameter in net.parameters():
        assert relative(parameter.grad, numeric_gradient(score, parameter.value)) <= 1e-7, key


@pytest.mark.parametrize("seed", SEEDS)
def test_losses_against_finite_differences(seed):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(4, 5)), rng.integers(0, 5, size=4)
    _, grad = nn.cross_entropy(logits, labels)
    assert relative(grad, numeric_gradient(lambda: nn.cross_entropy(logits, labels)[0], logits)) <= 1e-7

    net = nn.Sequential(linear=nn.Linear(3, 2, scale=1.0)).initialise(rng).astype(np.float64)
    weight, bias = net.layers["linear"].parameters.values()
    nn.l2_penalty(net, 0.3)
    got = weight.grad.copy()
    assert relative(got, numeric_gradient(lambda: nn.l2_penalty(net, 0.3), weight.value)) <= 1e-7
    assert not bias.grad.any()


def torch_twin(net):
    """The same net in PyTorch, with the same weights: a function of the images, and its parameters."""
    weights = {
        key: torch.tensor(
            p.value.T.copy() if key == "linear.weight" else p.value, dtype=torch.float64, requires_grad=True
        )
        for key, p in net.parameters()
    }

    def forward(x):
        kept = {}
        for name, layer in net.layers.items():
            match layer:
                case nn.Conv2d():
                    x = F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=layer.pad)
                case nn.ReLU():
                    x = F.relu(x)
                case nn.MaxPool2d():
                    x = F.max_pool2d(x, layer.size, layer.stride)
                case nn.Flatten():
                    x = x.flatten(1)
                case nn.GlobalAveragePool():
                    x = x.mean((2, 3))
                case nn.Standardise():
                    x = (x - layer.mean) / layer.deviation
                case nn.Linear():
                    x = F.linear(x, weights["linear.weight"], weights["linear.bias"])
            kept[name] = x
        return x, kept

    return forward, weights


def both_nets(seed):
    rng = np.random.default_rng(seed)
    images = rng.random((3, 1, 28, 28))
    for make in (nn.flatten_net, lambda: nn.gap_net(images)):
        net = make().initialise(rng).astype(np.float64)
        for _, parameter in net.parameters():
            parameter.value += 0.05 * rng.normal(size=parameter.value.shape)
        yield net, images, rng.integers(0, 10, size=3)


@pytest.mark.parametrize("seed", SEEDS)
def test_nets_against_torch(seed):
    for net, images, labels in both_nets(seed):
        forward, weights = torch_twin(net)
        x = torch.tensor(images, requires_grad=True)
        logits, _ = forward(x)
        F.cross_entropy(logits, torch.tensor(labels)).backward()
        loss, grad = nn.cross_entropy(net.forward(images), labels)
        assert relative(net.forward(images), logits.detach().numpy()) <= 1e-12
        assert loss == pytest.approx(F.cross_entropy(logits, torch.tensor(labels)).item(), rel=1e-12)
        assert relative(net.backward(grad), x.grad.numpy()) <= 1e-12
        for key, parameter in net.parameters():
            want = weights[key].grad.numpy()
            assert relative(parameter.grad, want.T if key == "linear.weight" else want) <= 1e-12, key


def test_ties_in_pooling_go_to_the_first_as_in_torch():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, size=(2, 3, 9, 8)).astype(float)
    for size, stride in ((2, 2), (3, 2), (3, 1), (2, 3)):
        t = torch.tensor(x, requires_grad=True)
        pooled = F.max_pool2d(t, size, stride)
        grad_out = rng.normal(size=tuple(pooled.shape))
        pooled.backward(torch.tensor(grad_out))
        np.testing.assert_array_equal(nn.maxpool_forward(x, size, stride), pooled.detach().numpy())
        np.testing.assert_allclose(nn.maxpool_backward(grad_out, x, size, stride), t.grad.numpy(), atol=1e-15)


def test_gradient_leaves_training_alone():
    net = nn.flatten_net().initialise(np.random.default_rng(0))
    images = np.random.default_rng(1).random((2, 1, 28, 28), dtype=np.float32)
    net.backward(np.ones_like(net.forward(images)))
    before = [parameter.grad.copy() for _, parameter in net.parameters()]
    assert any(grad.any() for grad in before)
    net.forward(images)
    full = net.gradient(np.eye(10, dtype=np.float32)[[3, 4]])
    at_layer = net.gradient(np.eye(10, dtype=np.float32)[[3, 4]], "conv2")
    assert full.shape == images.shape and at_layer.shape == net.outputs["conv2"].shape
    for grad, (_, parameter) in zip(before, net.parameters(), strict=True):
        np.testing.assert_array_equal(grad, parameter.grad)


def test_gradient_says_what_is_wrong():
    net = nn.flatten_net().initialise(np.random.default_rng(0))
    with pytest.raises(ValueError, match="no forward pass yet"):
        net.gradient(np.zeros((1, 10)))
    net.forward(np.zeros((2, 1, 28, 28), np.float32))
    with pytest.raises(ValueError, match=r"\(3, 10\).*run net.forward"):
        net.gradient(np.zeros((3, 10)))
    with pytest.raises(KeyError, match="conv9.*conv1"):
        net.gradient(np.zeros((2, 10)), "conv9")


def test_copies_share_nothing():
    net = nn.flatten_net().initialise(np.random.default_rng(0))
    weight = net.layers["conv1"].parameters["weight"].value
    before = weight.copy()
    net.copy().initialise(np.random.default_rng(1))
    np.testing.assert_array_equal(weight, before)


def test_hopeless_predictions_cost_a_finite_loss():
    loss, grad = nn.cross_entropy(np.array([[1e4, -1e4]]), np.array([1]))
    assert loss == pytest.approx(2e4) and np.isfinite(grad).all()
    np.testing.assert_allclose(nn.softmax(np.array([[1e4, -1e4]])), [[1, 0]])


def test_momentum_is_the_one_that_is_asked_for():
    """The first steps of v <- m v + g; w <- w - r v, for two optimisers that share nothing."""
    for momentum, third in ((0.0, 3.0), (0.5, 1 + 1.5 + 1.75)):
        net = nn.Sequential(linear=nn.Linear(1, 1))
        optimiser = nn.SGD(net, learning_rate=1.0, momentum=momentum)
        weight = net.layers["linear"].parameters["weight"]
        for _ in range(3):
            weight.grad[...] = 1
            optimiser.step()
        assert weight.value.item() == pytest.approx(-third)


def tiny_set(count=40):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, size=count)
    images = rng.random((count, 1, 28, 28), dtype=np.float32) * 0.2
    images[labels == 1, :, :14] += 0.8
    names = tuple("0123456789")
    return ImageSet(images, labels, names, title="halves", split="train", source="embedded", origin="made up")


def test_fit_learns_and_repeats_itself():
    data = tiny_set()
    runs = []
    for _ in range(2):
        net = nn.flatten_net().initialise(np.random.default_rng(0))
        runs.append(nn.fit(net, data, data, epochs=3, batch=8, learning_rate=0.01))
    assert runs[0] == runs[1]
    assert runs[0].test_loss[-1] < runs[0].test_loss[0] and runs[0].test_accuracy[-1] == 1.0
    assert len(runs[0].train_loss) == 3


def test_learning_rate_zero_changes_nothing_and_decay_reaches_it():
    data = tiny_set()
    net = nn.flatten_net().initialise(np.random.default_rng(0))
    before = {key: p.value.copy() for key, p in net.parameters()}
    nn.fit(net, data, data, epochs=1, batch=8, learning_rate=0.0)
    for key, parameter in net.parameters():
        np.testing.assert_array_equal(parameter.value, before[key])
    decayed, steady = net.copy(), net.copy()
    nn.fit(decayed, data, data, epochs=2, batch=20, learning_rate=0.01, decay=True)
    nn.fit(steady, data, data, epochs=2, batch=20, learning_rate=0.01)
    moved = [sum(np.abs(p.value - before[key]).sum() for key, p in n.parameters()) for n in (decayed, steady)]
    assert 0 < moved[0] < moved[1]


def test_a_batch_in_chunks_is_the_same_batch():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2 * nn.CHUNK + 3, 2, 6, 5))
    layer = nn.Conv2d(2, 3)
    net = nn.Sequential(conv=layer).initialise(rng).astype(np.float64)
    weight, bias = net.layers["conv"].parameters.values()
    grad_out = rng.normal(size=net.forward(x).shape)
    np.testing.assert_allclose(net.forward(x), nn.conv_forward(x, weight.value, bias.value), rtol=1e-12)
    want = nn.conv_backward(grad_out, x, weight.value)
    for got in (net.gradient(grad_out), net.backward(grad_out)):
        np.testing.assert_allclose(got, want[0], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(weight.grad, want[1], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(bias.grad, want[2], rtol=1e-12, atol=1e-13)


REAL = Path(os.environ.get("LABS_DATA", "none")) / "MNIST" / "raw"


@pytest.mark.skipif(not REAL.is_dir(), reason="LABS_DATA names no folder with MNIST/raw")
@pytest.mark.parametrize("learning_rate, accuracy", [(0.001, 0.80), (0.01, 0.87)])
def test_the_recipe_reaches_its_accuracy_on_real_mnist(learning_rate, accuracy, monkeypatch):
    """Lab 01's recipe, 1,000 images and 6 epochs, evaluated on all 10,000 test images."""
    monkeypatch.setenv("LABS_DATA_SOURCE", "real")
    train, test = load_mnist("train", 1000), load_mnist("test")
    net = nn.flatten_net().initialise(np.random.default_rng(0))
    few = test.subset(range(10))  # evaluated after every epoch, which is not wanted here
    nn.fit(net, train, few, epochs=6, batch=128, learning_rate=learning_rate)
    assert (nn.logits_of(net, test.images).argmax(axis=1) == test.labels).mean() >= accuracy
