"""`helpers.sequential_cam` and `helpers.models` against definitions, finite differences and lab 01."""

import numpy as np
import pytest
import torch

from helpers import saliency
from helpers.models import fashion_gap_net, fashion_net
from helpers.sequential_cam import capture, gap_maps, grad_cam, hires_cam, logit_gradient, weights_and_map

CLASSES = torch.tensor([0, 7, 3])


@pytest.fixture
def images() -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(0).random_sample((3, 1, 28, 28)))


@pytest.fixture(params=[fashion_net, fashion_gap_net])
def net(request, images) -> torch.nn.Sequential:
    torch.manual_seed(0)
    net = request.param().double()
    net(images)  # batch normalisation learns the images' statistics
    return net.eval()


def test_shapes_and_sizes(net, images):
    shapes = {name: capture(net, name, images)[0].shape for name, _ in net.named_children()}
    assert shapes["linear"] == (3, 10)
    if "average" in shapes:
        assert shapes["relu3"] == (3, 32, 14, 14)
        assert sum(p.numel() for p in net.parameters()) == 14_458
    else:
        assert shapes["relu3"] == (3, 16, 28, 28) and shapes["flatten"] == (3, 12_544)
        assert sum(p.numel() for p in net.parameters()) == 144_410


def test_capture_is_one_forward_pass(net, images):
    activations, logits = capture(net, "relu2", images)
    assert torch.equal(logits, net(images))
    (gradient,) = torch.autograd.grad(logits.sum(), activations)
    assert gradient.abs().max() > 0
    with pytest.raises(KeyError, match="relu9"):
        capture(net, "relu9", images)


@pytest.mark.parametrize("layer", ["conv1", "relu2", "conv3", "relu3"])
def test_gradient_predicts_how_the_logits_change(net, images, layer):
    A, G = logit_gradient(net, layer, images, CLASSES)
    names = [name for name, _ in net.named_children()]
    rest = net[names.index(layer) + 1 :]
    step = 1e-7 * torch.from_numpy(np.random.RandomState(1).standard_normal(A.shape))
    with torch.no_grad():
        change = (rest(A + step) - rest(A - step)).gather(1, CLASSES[:, None])[:, 0] / 2
    torch.testing.assert_close((G * step).sum(dim=(1, 2, 3)), change, rtol=1e-4, atol=1e-12)


def test_images_do_not_mix_and_nothing_is_left_behind(net, images):
    A, G = logit_gradient(net, "relu3", images, CLASSES)
    for i in range(3):
        a, g = logit_gradient(net, "relu3", images[i : i + 1], CLASSES[i : i + 1])
        torch.testing.assert_close(A[i : i + 1], a)
        torch.testing.assert_close(G[i : i + 1], g)
    assert not A.requires_grad and not G.requires_grad
    assert all(p.grad is None for p in net.parameters()) and not net.training


def test_maps_are_those_of_lab_01(net, images):
    A, G = logit_gradient(net, "relu3", images, CLASSES)
    weights, cam = weights_and_map(A, G)
    torch.testing.assert_close(weights[1, 2], G[1, 2].mean())
    np.testing.assert_allclose(cam, saliency.class_activation_map(A.numpy(), G.numpy()), atol=1e-15)
    np.testing.assert_allclose(hires_cam(A, G), saliency.hires_cam(A.numpy(), G.numpy()), atol=1e-15)


def test_grad_cam_takes_classes_in_three_forms(net, images):
    predicted = net(images).argmax(dim=1)
    assert torch.equal(grad_cam(net, "conv3", images), grad_cam(net, "conv3", images, predicted))
    for one in range(10):
        every = torch.full((3,), one)
        assert torch.equal(grad_cam(net, "conv3", images, one), grad_cam(net, "conv3", images, every))
    maps = grad_cam(net, "conv3", images, CLASSES)
    assert maps.min() == 0 and maps.max() > 0
    _, signed = weights_and_map(*logit_gradient(net, "conv3", images, CLASSES))
    assert torch.equal(maps, signed.clamp(min=0))


def test_hires_cam_adds_up_and_does_not_care_for_the_side_of_the_relu(net, images):
    before, after = (logit_gradient(net, layer, images, CLASSES) for layer in ("conv3", "relu3"))
    evidence = net(images).gather(1, CLASSES[:, None])[:, 0] - net.linear.bias[CLASSES]
    torch.testing.assert_close(hires_cam(*after).sum(dim=(1, 2)), evidence)
    if "norm3" not in dict(net.named_children()):  # there, another layer stands before the ReLU
        torch.testing.assert_close(hires_cam(*before), hires_cam(*after))
        torch.testing.assert_close(hires_cam(after[0], before[1]), hires_cam(*after))


def test_gap_head_makes_three_maps_one(images):
    torch.manual_seed(0)
    net = fashion_gap_net().double()
    net(images)
    net.eval()
    A, G = logit_gradient(net, "relu3", images, CLASSES)
    cam, averaged, placed = gap_maps(A, G, net.linear.weight.detach(), CLASSES)
    torch.testing.assert_close(cam, averaged)
    torch.testing.assert_close(cam, placed)
    evidence = net(images).gather(1, CLASSES[:, None])[:, 0] - net.linear.bias[CLASSES]
    torch.testing.assert_close(cam.mean(dim=(1, 2)), evidence)


def test_flatten_head_does_not(images):
    torch.manual_seed(0)
    A, G = logit_gradient(fashion_net().double().eval(), "relu3", images, CLASSES)
    cam, placed = weights_and_map(A, G)[1], hires_cam(A, G)
    assert (cam - placed).abs().max() > 0.1 * placed.abs().max()
