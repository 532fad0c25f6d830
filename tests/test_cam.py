"""`helpers.cam` against the formula, against other people's Grad-CAM, and in all that a caller may do."""

from collections import namedtuple

import numpy as np
import pytest
import torch
import torchvision
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM as PytorchGradCam
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torch.nn import functional as F
from torchcam.methods import GradCAM as TorchCam

from helpers import sequential_cam
from helpers.cam import cut, grad_cam
from helpers.course.bench import kept_for_backward
from helpers.models import fashion_gap_net

# --------------------------------------------------------------------------- other people's Grad-CAM


def tokens_to_map(tokens: torch.Tensor) -> torch.Tensor:
    """A vision transformer's (B, 1 + 4 * 4, C) -> (B, C, 4, 4), without the class token."""
    return tokens[:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)


# Each architecture's layers. What follows those of the first group works in place. There pytorch-grad-cam and
# torchcam weight what it has overwritten, 30 to 70 % off the largest value; captum alone is right.
BEFORE_IN_PLACE = {"vgg16": ["features.28"], "densenet121": ["features"]}
LAYERS = {
    "resnet18": ["layer4", "layer3"],
    "resnet50": ["layer4"],
    "vgg16": ["features.29", "features.30"],
    "mobilenet_v3_large": ["features.16"],
    "densenet121": ["features.denseblock4"],
    "efficientnet_b0": ["features.8"],
    "googlenet": ["inception5b"],
    "convnext_tiny": ["features.7"],
}
CLASSES = [3, 0, 17]
SETTINGS = {"vit_b_16": {"image_size": 64}, "googlenet": {"init_weights": True}}


def pictures(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def calibrated(name: str) -> nn.Module:
    """A network with random weights whose maps are large enough to be compared."""
    torch.manual_seed(0)
    net = torchvision.models.get_model(name, weights=None, num_classes=20, **SETTINGS.get(name, {})).eval()
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:  # otherwise activations vanish, layer by layer
        norm.momentum = None
        norm.train().reset_running_stats()
    with torch.no_grad():
        for key, parameter in net.named_parameters():
            if not parameter.any() and key.endswith("weight"):  # the head of a transformer begins at zero
                nn.init.normal_(parameter, std=0.1)
            if key.endswith("layer_scale"):  # so do ConvNeXt's blocks, nearly
                parameter.fill_(0.5)
        net(pictures(4, 3, 64, 64))
    return net.eval()


def assert_same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Equal to 1e-5 of the largest value of `theirs`, which must not be tiny itself."""
    assert ours.shape == theirs.shape
    largest = theirs.abs().max()
    assert largest > 1e-4, "everything is equal to nothing"
    difference = ((ours - theirs).abs().max() / largest).item()
    assert difference <= 1e-5, f"off by {difference:.1e} of the largest value"


def by_captum(net: nn.Module, layer: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return LayerGradCam(net, layer).attribute(images, target=torch.tensor(CLASSES)).detach()[:, 0]


def by_torchcam(net: nn.Module, layer: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """After the ReLU: torchcam does not do without."""
    with TorchCam(net, layer) as cam:
        return cam(class_idx=CLASSES, scores=net(images), normalized=False)[0]


def by_pytorch_grad_cam(net: nn.Module, layer: nn.Module, images: torch.Tensor, to_map=None) -> torch.Tensor:
    """With signs, from what it kept: the map that it returns is cut off at 0, enlarged and scaled."""
    with PytorchGradCam(net, [layer], reshape_transform=to_map) as cam:
        targets = [ClassifierOutputTarget(one) for one in CLASSES]
        cam(images, targets)
        kept = cam.activations_and_grads
        A, G = kept.activations[0].numpy(), kept.gradients[0].numpy()
        return torch.from_numpy(cam.get_cam_image(images, layer, targets, A, G))


@pytest.mark.parametrize("name", LAYERS)
def test_agrees_with_captum_pytorch_grad_cam_and_torchcam(name):
    net, images = calibrated(name), pictures(3, 3, 64, 96)
    for path in BEFORE_IN_PLACE.get(name, []) + LAYERS[name]:
        layer = net.get_submodule(path)
        maps, logits = grad_cam(net, layer, images, CLASSES, relu=False)
        assert (maps < 0).any() and (maps > 0).any(), "signs are compared"
        torch.testing.assert_close(logits, net(images).detach())
        assert_same(maps, by_captum(net, layer, images))
        if path in LAYERS[name]:
            assert_same(maps, by_pytorch_grad_cam(net, layer, images))
            assert_same(maps.clamp(min=0), by_torchcam(net, layer, images))


def test_agrees_with_pytorch_grad_cam_on_tokens():
    net, images = calibrated("vit_b_16"), pictures(3, 3, 64, 64)
    layer = net.encoder.layers[-1].ln_1
    maps, _ = grad_cam(net, layer, images, CLASSES, relu=False, to_map=tokens_to_map)
    assert_same(maps, by_pytorch_grad_cam(net, layer, images, tokens_to_map))
    with pytest.raises(ValueError, match=r"\(3, 17, 768\), not \(3, channels.*to_map"):
        grad_cam(net, layer, images)


# --------------------------------------------------------------------------- a small net, and what is wrong


class Small(nn.Module):
    """(B, 3, H, W) -> 20 logits. `layer` is followed by a ReLU that works in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.layer = nn.Conv2d(6, 8, 3)
        self.tail = nn.Sequential(nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d((2, 3)))
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(48, 20))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.tail(self.layer(self.stem(images))))


@pytest.fixture
def net() -> Small:
    torch.manual_seed(0)
    net = Small()
    nn.init.normal_(net.head[2].weight)
    net(pictures(8, 3, 14, 18))  # batch normalisation learns the images' statistics
    return net.eval()


@pytest.fixture
def images() -> torch.Tensor:
    return pictures(3, 3, 14, 18)


def textbook(net: Small, images: torch.Tensor, classes, scores=lambda logits: logits, axes=(2, 3), copy=True):
    """The formula with signs, the net cut open by hand; and, on request, with a mistake."""
    A = net.layer(net.stem(images)).detach().requires_grad_()
    B = A.clone() if copy else A * 1
    logits = net.head(net.tail(B))
    score = scores(logits).gather(1, torch.tensor(classes)[:, None]).sum()
    (G,) = torch.autograd.grad(score, A)
    return (G.mean(axes, keepdim=True) * (A if copy else B)).sum(dim=1).detach()


def test_is_the_formula(net, images):
    net, images = net.double(), images.double()
    expected = textbook(net, images, CLASSES)
    maps, logits = grad_cam(net, net.layer, images, CLASSES, relu=False)
    assert maps.shape == (3, 10, 14) and maps.dtype == torch.float32 and logits.dtype == torch.float64
    assert not maps.requires_grad and not logits.requires_grad
    assert torch.equal(logits, net(images).detach())
    torch.testing.assert_close(maps, expected.float(), rtol=1e-6, atol=1e-7)
    maps, _ = grad_cam(net, net.layer, images, CLASSES)
    torch.testing.assert_close(maps, expected.float().clamp(min=0), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "mistake",
    [{"copy": False}, {"axes": (1,)}, {"axes": (1, 2, 3)}, {"scores": lambda logits: logits.softmax(dim=1)}],
    ids=["no copy goes on", "mean over channels", "one weight for all", "softmax"],
)
def test_the_comparison_can_fail(net, images, mistake):
    assert_same(textbook(net, images, CLASSES), by_captum(net, net.layer, images))
    with pytest.raises(AssertionError, match="off by"):
        assert_same(textbook(net, images, CLASSES, **mistake), by_captum(net, net.layer, images))


def test_the_comparison_can_fail_for_want_of_a_map(net, images):
    nothing = torch.zeros(3, 10, 14)
    with pytest.raises(AssertionError, match="equal to nothing"):
        assert_same(nothing, nothing)


def test_agrees_with_lab_02(images):
    torch.manual_seed(0)
    net, images = fashion_gap_net(), images[:, :1]
    net(images)
    net.eval()
    for name in ("conv2", "relu3"):
        maps, _ = grad_cam(net, net.get_submodule(name), images, [1, 2, 3])
        assert_same(maps, sequential_cam.grad_cam(net, name, images, torch.tensor([1, 2, 3])))


# --------------------------------------------------------------------------- classes


def test_classes_may_be_none_one_or_one_per_image(net, images):
    predicted = net(images).argmax(dim=1)
    assert len(set(predicted.tolist())) > 1 or predicted[0] != 0
    assert torch.equal(grad_cam(net, net.layer, images)[0], grad_cam(net, net.layer, images, predicted)[0])
    each = [grad_cam(net, net.layer, images[i : i + 1], c, relu=False)[0] for i, c in enumerate(CLASSES)]
    expected = torch.cat(each)  # images do not mix
    for classes in (CLASSES, tuple(CLASSES), torch.tensor(CLASSES), torch.tensor(CLASSES, dtype=torch.uint8)):
        torch.testing.assert_close(grad_cam(net, net.layer, images, classes, relu=False)[0], expected)
    torch.testing.assert_close(grad_cam(net, net.layer, images, np.array(CLASSES), relu=False)[0], expected)
    expected, _ = grad_cam(net, net.layer, images, [0, 0, 0])
    for zero in (0, np.int64(0), torch.tensor(0)):
        assert torch.equal(grad_cam(net, net.layer, images, zero)[0], expected)


def test_several_classes_per_image_take_one_forward_pass(net, images):
    runs = []
    net.layer.register_forward_hook(lambda layer, inputs, output: runs.append(1))
    classes = torch.tensor([[3, 0, 19, 3], [0, 1, 2, 3], [17, 17, 4, 5]])
    maps, logits = grad_cam(net, net.layer, images, classes, relu=False)
    assert len(runs) == 1 and maps.shape == (3, 4, 10, 14) and logits.shape == (3, 20)
    for k in range(4):
        one, _ = grad_cam(net, net.layer, images, classes[:, k], relu=False)
        torch.testing.assert_close(maps[:, k], one)
    assert grad_cam(net, net.layer, images, classes[:, :1])[0].shape == (3, 1, 10, 14)


@pytest.mark.parametrize(
    "classes, error, words",
    [
        ([1, 2], ValueError, r"shape \(2,\) do not fit 3 images: pass one class for all"),
        ([[1, 2, 3]], ValueError, r"shape \(1, 3\) do not fit 3 images"),
        ([[], [], []], TypeError, "float32: pass whole numbers"),
        (torch.empty(3, 0, dtype=torch.int64), ValueError, r"shape \(3, 0\) do not fit"),
        ([[[1]], [[2]], [[3]]], ValueError, r"shape \(3, 1, 1\) do not fit"),
        (20, ValueError, "from 20 to 20: the model has 0 to 19"),
        ([0, -1, 3], ValueError, "from -1 to 3: the model has 0 to 19"),
        (1.0, TypeError, "float32: pass whole numbers"),
        (True, TypeError, "bool: pass whole numbers"),
        (np.array([0.0, 1, 2]), TypeError, "float64: pass whole numbers"),
        ("cat", TypeError, "cannot be read as a table of whole numbers"),
        ([[1, 2], [3], [4]], TypeError, "cannot be read as a table of whole numbers"),
    ],
)
def test_other_classes_are_refused(net, images, classes, error, words):
    with pytest.raises(error, match=words):
        grad_cam(net, net.layer, images, classes)


# --------------------------------------------------------------------------- whatever the caller does


def state(net: nn.Module, images: torch.Tensor) -> list:
    """All that a call must leave as it was."""
    return [
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        images.tolist(),
        images.grad,
        [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in net.modules()],
        [(key, value.tolist()) for key, value in net.state_dict().items()],
        [(p.requires_grad, None if p.grad is None else p.grad.tolist()) for p in net.parameters()],
        torch.get_rng_state().tolist(),
    ]


def freeze(net, images):
    net.requires_grad_(False)


def train(net, images):
    net.train()


def train_in_part(net, images):
    net.train()
    net.stem[1].eval()


def have_gradients(net, images):
    images.requires_grad_()
    net(images).sum().backward()
    images.grad = None


def nothing(net, images):
    pass


@pytest.mark.parametrize("prepare", [nothing, freeze, train, train_in_part, have_gradients])
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_mode_and_history_make_no_difference_and_nothing_is_left(net, images, prepare, mode):
    expected = grad_cam(net, net.layer, images, [[1, 2]] * 3, relu=False)
    prepare(net, images)
    with mode():
        before = state(net, images)
        maps, logits = grad_cam(net, net.layer, images, [[1, 2]] * 3, relu=False)
        assert state(net, images) == before
    assert torch.equal(maps, expected[0]) and torch.equal(logits, expected[1])
    assert not maps.is_inference() and not maps.requires_grad and not logits.requires_grad


def test_images_may_come_out_of_inference_mode(net, images):
    expected, _ = grad_cam(net, net.layer, images)
    with torch.inference_mode():
        inside = images * 1
    assert torch.equal(grad_cam(net, net.layer, inside)[0], expected)


def test_images_out_of_inference_mode_may_be_saved_for_backward():
    class Gated(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Identity()
            self.head = torch.nn.Linear(60, 4)

        def forward(self, x):
            return self.head((self.layer(x) * x).flatten(1))

    net, images = Gated(), torch.rand(2, 3, 4, 5)
    expected, _ = grad_cam(net, net.layer, images, 1, relu=False)
    with torch.inference_mode():
        maps, _ = grad_cam(net, net.layer, images * 1, 1, relu=False)
    assert torch.equal(maps, expected)


def test_channels_last(net, images):
    expected, _ = grad_cam(net, net.layer, images, CLASSES, relu=False)
    net = net.to(memory_format=torch.channels_last)
    maps, _ = grad_cam(net, net.layer, images.to(memory_format=torch.channels_last), CLASSES, relu=False)
    torch.testing.assert_close(maps, expected)


def test_half_precision_is_added_up_in_float32(net, images):
    expected, _ = grad_cam(net, net.layer, images, CLASSES, relu=False)
    net, images = net.bfloat16(), images.bfloat16()
    maps, logits = grad_cam(net, net.layer, images, CLASSES, relu=False)
    assert maps.dtype == torch.float32 and logits.dtype == torch.bfloat16
    torch.testing.assert_close(maps, expected, rtol=0, atol=0.03 * expected.abs().max().item())
    with cut(net.layer) as leaves:
        score = net(images).gather(1, torch.tensor(CLASSES)[:, None]).sum()
        (G,) = torch.autograd.grad(score, leaves[0])
    exact = (G.double().mean((2, 3), keepdim=True) * leaves[0].detach().double()).sum(dim=1)
    torch.testing.assert_close(maps.double(), exact, rtol=0, atol=1e-6 * exact.abs().max().item())


def test_autocast(net, images):
    expected, _ = grad_cam(net, net.layer, images, CLASSES, relu=False)
    with torch.autocast("cpu", torch.bfloat16):
        maps, logits = grad_cam(net, net.layer, images, CLASSES, relu=False)
        net(images).sum().backward()  # weights that were cast in our forward pass must not reach this one
    assert maps.dtype == torch.float32 and logits.dtype == torch.bfloat16
    torch.testing.assert_close(maps, expected, rtol=0, atol=0.03 * expected.abs().max().item())
    assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize("how", ["whole", "in place", "the layer", "what is around it"])
def test_compiled_models_run_uncompiled(net, images, how):
    """Compiled code may not know of hooks, and to compile it anew with ours would take long."""
    runs = []

    def backend(graph, inputs):
        def run(*args):
            runs.append(1)
            return graph(*args)

        return run

    expected, logits = grad_cam(net, net.layer, images)
    layer = net.layer
    if how == "whole":
        net = torch.compile(net, backend=backend)
    elif how == "in place":
        net.compile(backend=backend)
    elif how == "the layer":
        net.layer = layer = torch.compile(net.layer, backend=backend)
    else:
        net.stem, net.head = (torch.compile(part, backend=backend) for part in (net.stem, net.head))
    for _ in range(2):  # the first time not compiled yet
        runs.clear()
        assert torch.equal(grad_cam(net, layer, images)[0], expected)
        assert not runs
        torch.testing.assert_close(net(images), logits)
        assert runs


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("place", ["stem", "layer", "tail", "classes", "to_map"])
def test_errors_leave_nothing_behind(net, images, place, mode):
    def fail(*_):
        raise ZeroDivisionError

    options = {}
    if place == "classes":
        options["classes"] = 99
    elif place == "to_map":
        options["to_map"] = fail
    else:
        net.get_submodule(place).register_forward_hook(fail)
    net.train()
    with mode():
        before = state(net, images)
        with pytest.raises(ValueError if place == "classes" else ZeroDivisionError):
            grad_cam(net, net.layer, images, **options)
        assert state(net, images) == before


def test_nothing_is_recorded_before_the_layer_and_no_parameter_is_asked_for(net, images):
    kept = kept_for_backward(net, net.layer, lambda: grad_cam(net, net.layer, images))
    textbook = kept_for_backward(net, net.layer, lambda: net(images))
    into_tail = 4 * 3 * 8 * 10 * 14  # the copy that went on, which ReLU and pooling share
    assert into_tail <= kept < textbook - 4 * images.numel()
    asked = []
    for parameter in net.parameters():
        parameter.register_hook(asked.append)
    grad_cam(net, net.layer, images)
    assert not asked


def test_a_map_without_anything_positive_is_zero(net, images):
    class Negative(nn.Module):
        def forward(self, x):
            return -F.relu(x)

    signs = nn.Sequential(nn.ReLU(), Negative(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    maps, _ = grad_cam(signs, signs[0], images, 1)
    assert torch.equal(maps, torch.zeros(3, 14, 18))
    maps, _ = grad_cam(signs, signs[0], images, 1, relu=False)
    assert (maps < 0).any()


def test_nan_stays_nan(net, images):
    images[1, 0, 5, 5] = torch.nan
    maps, logits = grad_cam(net, net.layer, images)
    assert maps.isnan().any(dim=(1, 2)).tolist() == logits.isnan().any(dim=1).tolist() == [False, True, False]


def test_of_a_layer_that_runs_twice_the_last_run_counts(images):
    torch.manual_seed(0)
    layer, head = nn.Conv2d(3, 3, 3), nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(420, 5))
    twice = nn.Sequential(layer, nn.ReLU(inplace=True), layer, head)
    rest = nn.Sequential(nn.Identity(), head)
    maps, logits = grad_cam(twice, layer, images, 2, relu=False)
    expected, same = grad_cam(rest, rest[0], twice[:3](images).detach(), 2, relu=False)
    torch.testing.assert_close((maps, logits), (expected, same))


def test_hooks_of_the_caller_stay_and_are_heard(net, images):
    net.layer.register_forward_hook(lambda layer, inputs, output: 2 * output)
    maps, logits = grad_cam(net, net.layer, images, 1, relu=False)
    assert torch.equal(logits, net(images))
    assert len(net.layer._forward_hooks) == 1


# --------------------------------------------------------------------------- what cannot work is said


class Wrapped(nn.Module):
    """A small net whose forward is given."""

    def __init__(self, net: Small, forward) -> None:
        super().__init__()
        self.net, self.call = net, forward

    def forward(self, images):
        return self.call(self.net, images)


def head_without(guard):
    def forward(net, images):
        features = net.tail(net.layer(net.stem(images)))
        with guard():
            return net.head(features)

    return forward


def backbone_without(guard):
    def forward(net, images):
        with guard():
            features = net.tail(net.layer(net.stem(images)))
        return net.head(features)

    return forward


def two_branches(net, images):
    net.layer(net.stem(images))
    return net.head(net.tail(pictures(3, 8, 10, 14)))


@pytest.mark.parametrize(
    "forward",
    [
        *(
            make(guard)
            for make in (head_without, backbone_without)
            for guard in (torch.no_grad, torch.inference_mode)
        ),
        lambda net, images: net.head(net.tail(net.layer(net.stem(images)).detach())),
        two_branches,
    ],
    ids=[
        "no_grad head",
        "inference head",
        "no_grad backbone",
        "inference backbone",
        "detach",
        "other branch",
    ],
)
def test_logits_that_do_not_depend_on_the_layer(net, images, forward):
    with pytest.raises(
        RuntimeError, match=r"nothing recorded leads from the layer to the logits: pass a layer"
    ):
        grad_cam(Wrapped(net, forward), net.layer, images)


def test_a_model_that_is_frozen_by_no_grad_as_a_whole_works(net, images):
    expected, _ = grad_cam(net, net.layer, images)
    decorated = Wrapped(net, torch.no_grad()(lambda net, images: net(images)))
    assert torch.equal(grad_cam(decorated, net.layer, images)[0], expected)


Output = namedtuple("Output", "logits")


@pytest.mark.parametrize(
    "pack, what",
    [
        (lambda logits: (logits, logits), "returns a tuple,"),
        (lambda logits: {"logits": logits}, "returns a dict,"),
        (Output, "returns a Output,"),
        (lambda logits: logits[0], r"returns a tensor \(20,\) of torch.float32,"),
        (lambda logits: logits.argmax(dim=1, keepdim=True), r"returns a tensor \(3, 1\) of torch.int64,"),
    ],
)
def test_models_that_do_not_return_logits(net, images, pack, what):
    model = Wrapped(net, lambda net, images: pack(net(images)))
    with pytest.raises(TypeError, match=what + r" not logits \(images, classes\): wrap it in a module"):
        grad_cam(model, net.layer, images)


class Two(nn.Module):
    def forward(self, x):
        return x, x


class Whole(nn.Module):
    def forward(self, x):
        return x.long()


def test_layers_that_do_not_give_maps(net, images):
    with pytest.raises(
        TypeError, match=r"must be modules; model.get_submodule\('layer4'\) finds one by name"
    ):
        grad_cam(net, "layer", images)
    with pytest.raises(TypeError, match="must be modules"):
        grad_cam(lambda images: net(images), net.layer, images)
    with pytest.raises(ValueError, match="did not run in model.images.: pass a layer of this very model"):
        grad_cam(net, nn.Conv2d(6, 8, 3), images)
    with pytest.raises(
        ValueError, match=r"\(3, 48\), not \(3, channels, height, width\): pass a layer that still"
    ):
        grad_cam(net, net.head[0], images)
    with pytest.raises(ValueError, match=r"\(3, 20\), not"):
        grad_cam(net, net, images)
    with pytest.raises(ValueError, match=r"\(24, 1, 10, 14\), not \(3, channels"):
        grad_cam(net, net.layer, images, to_map=lambda x: x.reshape(24, 1, 10, 14))
    for module, kind in ((Two(), "a tuple"), (Whole(), r"a tensor \(3, 3, 14, 18\) of torch.int64")):
        model = Wrapped(
            net, lambda net, images, module=module: net(module(images)[0].expand(3, 3, -1, -1) / 1)
        )
        with pytest.raises(TypeError, match=f"layer returns {kind}, not one tensor of floats: pass a layer"):
            grad_cam(model, module, images)


# --------------------------------------------------------------------------- cut


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad])
def test_cut_records_from_the_layer_on(net, images, mode):
    with mode():
        expected = net(images)
        with cut(net.layer) as leaves:
            logits = net(images)
            (leaf,) = leaves
            (G,) = torch.autograd.grad(logits[1, 4], leaf)
        assert torch.is_grad_enabled() == (mode is torch.enable_grad)
        assert torch.equal(logits, expected) and logits.requires_grad and leaf.is_leaf and leaf.requires_grad
        assert torch.equal(leaf, net.layer(net.stem(images))), "not overwritten by the ReLU"
        assert G.shape == leaf.shape and G[1].any() and not G[0].any()
    net(images)
    assert len(leaves) == 1 and not net.layer._forward_hooks


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad])
def test_cut_ends_after_an_error(net, images, mode):
    with mode():
        before = state(net, images)
        with pytest.raises(RuntimeError), cut(net.tail):
            Wrapped(net, lambda net, images: net.head(net.head(net.tail(net.layer(net.stem(images))))))(
                images
            )
        assert state(net, images) == before
