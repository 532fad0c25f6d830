"""`helpers.resnet_steps` against torchvision, `helpers.cam`, a library and the definitions."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from pytorch_grad_cam import GradCAM, HiResCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torchvision.transforms import v2

from helpers import overlay
from helpers.cam import grad_cam
from helpers.exercises import _check
from helpers.hooks import capture
from helpers.resnet_steps import (
    class_activation_map,
    denormalise,
    evidence_for_difference,
    explain,
    like_the_library,
    shifted_agreement,
)

CLASSES = torch.tensor([0, 7, 3])
WHOLE = ["layer1", "layer2.0", "layer3", "layer4", "layer4.1"]
LAYERS = [*WHOLE, "layer2.0.bn2"]  # what this one puts out is overwritten in place


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(0).standard_normal((3, 3, 96, 64))).float()


def random_model(name: str, images: torch.Tensor) -> torch.nn.Module:
    """Random weights, ten classes, and the statistics of these images."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, num_classes=10)
    with torch.no_grad():
        for _ in range(3):
            model(images)
        model.fc.weight *= 5
        model.fc.bias[0] -= 8
    return model.eval()


@pytest.fixture(scope="module")
def model(images) -> torch.nn.Module:
    return random_model("resnet18", images)


def state(model: torch.nn.Module) -> dict:
    """Weights, statistics, gradients, modes and hooks."""
    return dict(_check._parts((model,), ("model",)))


# 4.1


@pytest.mark.parametrize("kind", [list, tuple])
def test_denormalise_undoes_torchvision(kind):
    pictures = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    pictures[0, :, 0], pictures[1, :, 0] = 0, 1  # rounding carries these out of [0, 1]
    mean, std = kind((0.485, 0.456, 0.406)), kind((0.229, 0.224, 0.225))
    undone = denormalise(v2.functional.normalize(pictures, list(mean), list(std)), mean, std)
    torch.testing.assert_close(undone, pictures)
    assert undone.min() == 0 and undone.max() == 1
    overlay.as_rgb(undone[0].numpy())  # refuses anything outside [0, 1]


def test_denormalise_takes_what_a_models_own_preprocessing_says():
    own = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    black = torch.zeros(1, 3, 300, 280)
    assert denormalise(own(black), own.mean, own.std).abs().max() < 1e-6


# 4.2


@pytest.mark.parametrize("layer", LAYERS)
def test_explain_is_grad_cam(model, images, layer):
    module = model.get_submodule(layer)
    for classes in (None, 0, CLASSES):
        maps, explained = explain(model, module, images, classes)
        expected, logits = grad_cam(model, module, images, classes)
        torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-5 * float(expected.max()))
        wanted = logits.argmax(dim=1) if classes is None else torch.as_tensor(classes).expand(3)
        assert torch.equal(explained, wanted)
        assert not maps.requires_grad and maps.min() >= 0


def test_explain_leaves_the_model_as_it_was(model, images):
    model.train()
    model.fc.weight.grad = torch.ones_like(model.fc.weight)
    before = state(model)
    maps, _ = explain(model, model.layer4, images, 0)
    assert state(model) == before
    with pytest.raises(RuntimeError, match="3 channels"):
        explain(model, model.layer4, images[:, :2])
    assert state(model) == before
    model.eval()
    model.fc.weight.grad = None
    torch.testing.assert_close(maps, explain(model, model.layer4, images, 0)[0])


# 4.3


def head_of(model, images) -> tuple[torch.Tensor, torch.Tensor]:
    kept = []
    with model.layer4.register_forward_hook(lambda *args: kept.append(args[-1])), torch.no_grad():
        logits = model(images)
    return kept[0], logits


def test_the_class_activation_map_adds_up_to_the_logit(model, images):
    activations, logits = head_of(model, images)
    maps, found = class_activation_map(activations, model.fc, CLASSES)
    assert maps.shape == (3, 3, 2) and maps.min() < 0
    torch.testing.assert_close(found, logits.gather(1, CLASSES[:, None])[:, 0], rtol=1e-4, atol=1e-4)


def test_under_this_head_three_methods_draw_one_map(model, images):
    activations, _ = head_of(model, images)
    maps = class_activation_map(activations, model.fc, CLASSES)[0].detach()
    signed, _ = grad_cam(model, model.layer4, images, CLASSES, relu=False)
    tolerance = {"rtol": 1e-4, "atol": 1e-5 * float(maps.abs().max())}
    torch.testing.assert_close(6 * signed, maps, **tolerance)
    torch.testing.assert_close(
        6 * explain(model, model.layer4, images, CLASSES)[0], F.relu(maps), **tolerance
    )
    with HiResCAM(model, [model.layer4]) as library:
        theirs = library(images, [ClassifierOutputTarget(int(k)) for k in CLASSES])
    np.testing.assert_allclose(theirs, like_the_library(F.relu(maps), (96, 64)), atol=1e-4)


def test_a_resnet_50_is_no_exception(images):
    model = random_model("resnet50", images)
    activations, logits = head_of(model, images)
    maps, found = (x.detach() for x in class_activation_map(activations, model.fc, CLASSES))
    torch.testing.assert_close(found, logits.gather(1, CLASSES[:, None])[:, 0], rtol=1e-4, atol=1e-4)
    ours, _ = explain(model, model.layer4[-1], images, CLASSES)
    tolerance = {"rtol": 1e-4, "atol": 1e-5 * float(maps.abs().max())}
    torch.testing.assert_close(6 * ours, F.relu(maps), **tolerance)
    with GradCAM(model, [model.layer4[-1]]) as library:
        theirs = library(images, [ClassifierOutputTarget(int(k)) for k in CLASSES])
    np.testing.assert_allclose(like_the_library(ours, (96, 64)), theirs, atol=1e-4)


def test_at_other_layers_they_differ(model, images):
    targets = [ClassifierOutputTarget(int(k)) for k in CLASSES]
    with HiResCAM(model, [model.layer3]) as library:
        theirs = library(images, targets)
    ours = like_the_library(explain(model, model.layer3, images, CLASSES)[0], (96, 64))
    assert np.abs(theirs - ours.numpy()).max() > 0.1


# 4.4


@pytest.mark.parametrize("layer", WHOLE)
def test_the_students_map_is_the_librarys(model, images, layer):
    module = model.get_submodule(layer)
    with GradCAM(model, [module]) as library:
        theirs = library(images, [ClassifierOutputTarget(int(k)) for k in CLASSES])
    model.zero_grad()  # the library leaves gradients
    ours = like_the_library(explain(model, module, images, CLASSES)[0], (96, 64))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_the_library_keeps_what_is_overwritten_in_place(model, images):
    """On a CPU it does not copy: activations of after the block's last step, gradients of before it."""
    module = model.get_submodule("layer2.0.bn2")
    overwritten = []
    with GradCAM(model, [module]) as library:
        theirs = library(images, [ClassifierOutputTarget(0)] * 3)
    model.zero_grad()
    with torch.no_grad(), module.register_forward_hook(lambda *args: overwritten.append(args[-1])):
        model(images)
    with capture(module) as kept:
        score = model(images)[:, 0].sum()
    (gradients,) = torch.autograd.grad(score, kept[module])
    mixed = F.relu((gradients.mean(dim=(2, 3), keepdim=True) * overwritten[0]).sum(dim=1))
    np.testing.assert_allclose(theirs, like_the_library(mixed, (96, 64)), atol=1e-4)
    ours = like_the_library(explain(model, module, images, 0)[0], (96, 64))
    assert np.abs(theirs - ours.numpy()).max() > 0.1


def test_where_the_library_scales_differently():
    maps = torch.zeros(5, 4, 3)
    maps[1] = 0.7
    maps[2] = torch.linspace(1, 2, 12).reshape(4, 3)
    maps[3] = 0.7 + 1e-6 * torch.linspace(0, 1, 12).reshape(4, 3)
    maps[4, 1, 1] = 1e-13
    theirs = like_the_library(maps, (8, 6)).amax(dim=(1, 2))
    ours = torch.from_numpy(overlay.to_unit(maps.numpy())).amax(dim=(1, 2))
    torch.testing.assert_close(ours, torch.tensor([0.0, 1, 1, 1, 1]))
    assert theirs[0] == theirs[1] == 0, "evidence that is the same everywhere is drawn as none"
    assert like_the_library(maps[2:3], (8, 6)).min() == 0, "the weakest evidence is drawn as none"
    assert theirs[3] > 0.99, "and rounding at full strength"
    assert 0.5 < theirs[4] < 0.95


# 4.5


@pytest.mark.parametrize("layer", LAYERS)
def test_evidence_for_a_difference_is_the_difference_of_signed_maps(model, images, layer):
    module = model.get_submodule(layer)
    maps = evidence_for_difference(model, module, images, 7, 0)
    one, other = (grad_cam(model, module, images, k, relu=False)[0] for k in (7, 0))
    tolerance = {"rtol": 1e-4, "atol": 1e-5 * float(maps.abs().max())}
    torch.testing.assert_close(maps, one - other, **tolerance)
    torch.testing.assert_close(evidence_for_difference(model, module, images, 0, 7), -maps, **tolerance)
    after_relu = explain(model, module, images, 7)[0] - explain(model, module, images, 0)[0]
    assert (after_relu - maps).abs().max() > 0.01 * maps.abs().max()


def test_evidence_for_a_difference_adds_up_under_this_head(model, images):
    _, logits = head_of(model, images)
    maps = evidence_for_difference(model, model.layer4, images, 7, 0)
    expected = logits[:, 7] - logits[:, 0] - (model.fc.bias[7] - model.fc.bias[0]).detach()
    torch.testing.assert_close(maps.sum(dim=(1, 2)), expected, rtol=1e-3, atol=1e-3)


def test_evidence_for_a_difference_leaves_the_model_as_it_was(model, images):
    model.train()
    before = state(model)
    evidence_for_difference(model, model.layer4, images, 7, 0)
    assert state(model) == before
    model.eval()


# 4.6


@pytest.fixture
def photo() -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(0).random_sample((1, 3, 40, 56)))


def brightness(crop):
    return crop.mean(dim=1)


def coarse(crop):
    cells = F.avg_pool2d(crop.mean(dim=1, keepdim=True), 8, ceil_mode=True)
    return F.interpolate(cells, size=crop.shape[2:], mode="bilinear")[:, 0]


@pytest.mark.parametrize("pixels", [0, 1, 5, 20])
def test_a_map_that_looks_at_pixels_moves_with_the_photo(photo, pixels):
    assert shifted_agreement(brightness, photo, pixels) == pytest.approx(1)


def test_a_coarse_map_moves_with_the_photo_by_whole_cells_only(photo):
    assert shifted_agreement(coarse, photo, 0) == pytest.approx(1)
    half, whole = shifted_agreement(coarse, photo, 4), shifted_agreement(coarse, photo, 8)
    assert half < 0.8 and whole > half + 0.1


def blob(crop, width=0.2):
    """A map that shows the middle, whatever is there."""
    rows, columns = (torch.linspace(-1, 1, n) for n in crop.shape[2:])
    return (-(rows[:, None] ** 2 + columns**2) / (2 * width**2)).exp()[None]


def test_a_map_that_stays_where_it_is_does_not_agree(photo):
    assert shifted_agreement(blob, photo, 15) < 0.1
    assert shifted_agreement(blob, photo, 1) > 0.9, "but after a short way, a smooth one does"


def test_it_is_the_correlation_of_the_part_in_common(photo):
    def explain(crop):
        return brightness(crop) + torch.linspace(0, 1, crop.shape[-1])

    left = (photo[0].mean(dim=0)[:, :50] + torch.linspace(0, 1, 50))[:, 6:]
    right = (photo[0].mean(dim=0)[:, 6:] + torch.linspace(0, 1, 50))[:, :44]
    expected = np.corrcoef(left.ravel(), right.ravel())[0, 1]
    assert shifted_agreement(explain, photo, 6) == pytest.approx(expected)


def test_a_blank_map_has_nothing_to_agree_on(photo):
    assert math.isnan(shifted_agreement(lambda crop: torch.zeros_like(crop[:, 0]), photo, 3))

    def edge(crop):
        maps = torch.zeros_like(crop[:, 0])
        maps[..., :3] = 1
        return maps

    assert math.isnan(shifted_agreement(edge, photo, 3)), "blank where both crops show the photo"
