"""Exercises of lab 04: Grad-CAM on a ResNet, the head that makes it exact, a library, and two tests of what maps show.

Inputs are chosen so that mistakes show: no two lengths are equal, biases are not zero, asked classes are not the
predicted ones, class 0 is asked for and its logit is negative; blocks work in place, nets are in training and in
evaluation mode, one forward pass fails; maps are blank, constant or tiny; there is one image as well as several.

Where a mistake was seen: "source" is the code that the lab's methods come from, "peer" another course or library,
"trial" an answer to this or a like exercise, given while it was tried, often by ourselves in the part of a student.
"""

import math
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from helpers import resnet_steps
from helpers.cam import cut, evaluating
from helpers.hooks import capture

from . import Complaint, Exercise, Mistake

DTYPES = (torch.float32, torch.float64)


def _tensor(values, dtype):
    return torch.tensor(values, dtype=dtype)


# A small ResNet --------------------------------------------------------------------------------------------


class _Block(nn.Module):
    """As torchvision's BasicBlock: what the last normalisation puts out is then overwritten, twice."""

    def __init__(self, channels, more, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, more, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(more)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(more, more, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(more)
        self.shortcut = nn.Conv2d(channels, more, 1, stride, bias=False)

    def forward(self, x):
        y = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        y += self.shortcut(x)
        return self.relu(y)


class _SmallResNet(nn.Module):
    """3 x 14 x 10 images -> 6 channels of 7 x 5 (layer1) -> 7 of 4 x 3 (layer2) -> average -> 9 logits."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 5, 3, stride=2, padding=1)
        self.layer1 = nn.Sequential(_Block(5, 6, 1))
        self.layer2 = nn.Sequential(_Block(6, 7, 2))
        self.fc = nn.Linear(7, 9)

    def forward(self, x):
        x = self.layer2(self.layer1(F.relu(self.conv1(x))))
        return self.fc(x.mean(dim=(2, 3)))


def _small_resnet(rng, dtype):
    """A net with random weights and statistics; in training mode for float32, else in evaluation mode."""
    with torch.random.fork_rng(devices=()):  # layers draw from the global generator when they are made
        net = _SmallResNet().to(dtype)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(_tensor(0.4 * rng.normal(size=parameter.shape), dtype))
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight += 1
                module.running_mean.copy_(_tensor(0.3 * rng.normal(size=module.num_features), dtype))
                module.running_var.copy_(_tensor(rng.uniform(0.3, 1.5, module.num_features), dtype))
    return net.train(dtype is torch.float32)


def _net_and_images(rng, dtype):
    """A net, three images for which it predicts three different classes, and three other classes to ask for."""
    net = _small_resnet(rng, dtype)
    many = _tensor(2 * rng.normal(size=(30, 3, 14, 10)), dtype)
    with torch.no_grad(), evaluating(net):
        logits = net(many)
        net.fc.weight *= 2 / logits.std(dim=0).mean()
        net.fc.bias += 0.2 - net(many).mean(dim=0)  # else it predicts one class for all of them
        net.fc.bias[0] -= 20  # nobody predicts class 0, and its logit is negative
        logits = net(many)
    _, first = np.unique(logits.argmax(dim=1).numpy(), return_index=True)
    assert len(first) >= 3, "the net predicts too few classes"
    few = np.sort(first)[:3]
    ranked = logits[few].argsort(dim=1)
    return net, many[few], torch.stack([ranked[0, -2], torch.tensor(0), ranked[2, 1]])


# 4.1 -------------------------------------------------------------------------------------------------------


def _normalised_cases(rng):
    """Pictures whose darkest and brightest values were carried out of [0, 1]."""
    cases = []
    for dtype, kind in zip(DTYPES, (tuple, list), strict=True):
        for number in (3, 1):
            mean, std = rng.uniform(0.35, 0.6, 3), rng.uniform(0.2, 0.3, 3)
            pictures = rng.uniform(-0.15, 1.15, size=(number, 3, 6, 5))
            images = (pictures - mean[:, None, None]) / std[:, None, None]
            cases.append((_tensor(images, dtype), kind(mean.tolist()), kind(std.tolist())))
    return cases


def _columns(images, mean, std):
    return images.new_tensor(mean)[:, None, None], images.new_tensor(std)[:, None, None]


def _undone(formula=lambda x, m, s: x * s + m, finish=lambda x: x.clamp(0, 1), columns=_columns):
    """An answer with another formula, another last step or other shapes of mean and std."""

    def answer(images, mean, std):
        return finish(formula(images, *columns(images, mean, std)))

    return answer


def _imagenet(images, mean, std):
    return _columns(images, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def _minimum_to_maximum(images):
    low, high = images.amin(dim=(1, 2, 3), keepdim=True), images.amax(dim=(1, 2, 3), keepdim=True)
    return (images - low) / (high - low)


def _in_place(images, mean, std):
    mean, std = _columns(images, mean, std)
    return images.mul_(std).add_(mean).clamp(0, 1)


def _first_image_only(images, mean, std):
    return resnet_steps.denormalise(images, mean, std)[0]


def _denormalised_by_channel(images, mean, std):
    channels = [images[:, c] * std[c] + mean[c] for c in range(3)]
    return torch.stack(channels, dim=1).clip(min=0, max=1)


def _denormalised_by_einsum(images, mean, std):
    scaled = torch.einsum("bchw,c->bchw", images, torch.tensor(std, dtype=images.dtype))
    return (scaled + torch.tensor(mean).view(1, 3, 1, 1)).clamp(min=0).clamp(max=1)


def _denormalised_by_normalising(images, mean, std):
    """Normalize with -mean / std and 1 / std undoes itself."""
    mean, std = np.array(mean), np.array(std)
    images = (images - images.new_tensor(-mean / std)[:, None, None]) / images.new_tensor(1 / std)[
        :, None, None
    ]
    return torch.minimum(F.relu(images), torch.ones(()).to(images))


denormalising = Exercise(
    key="4.1",
    title="undo Normalize",
    reference=resnet_steps.denormalise,
    cases=_normalised_cases,
    mistakes=(
        Mistake(
            _undone(lambda x, m, s: (x + m) * s),
            "You add the mean first: Normalize divided by std last, so multiply by std first.",
            "trial",
        ),
        Mistake(
            _undone(lambda x, m, s: x * s - m),
            "You subtract the mean once more: Normalize subtracted it, so add it.",
            "trial",
        ),
        Mistake(
            _undone(lambda x, m, s: (x - m) * s),
            "You subtract the mean, and before the multiplication: multiply by std, then add the mean.",
            "trial",
        ),
        Mistake(
            _undone(lambda x, m, s: x / s + m),
            "You divide by std once more: Normalize divided by it, so multiply.",
            "trial",
        ),
        Mistake(
            _undone(lambda x, m, s: (x - m) / s),
            "That is Normalize again: run it backwards, multiply by std and add the mean.",
            "trial",
        ),
        Mistake(
            _undone(lambda x, m, s: (x + m) / s),
            "Both steps are off: multiply by std first, then add the mean.",
            "trial",
        ),
        Mistake(
            _undone(lambda x, m, s: x * m + s),
            "You exchanged mean and std: std multiplies, the mean is added.",
            "trial",
        ),
        Mistake(
            _undone(lambda x, m, s: x * s),
            "The mean is missing: add it after the multiplication.",
            "trial",
        ),
        Mistake(
            _undone(lambda x, m, s: x + m),
            "The multiplication by std is missing: it comes before the mean is added.",
            "trial",
        ),
        Mistake(
            _undone(lambda x, m, s: x * s**2 + m),
            "You multiply by the square of std: std is a deviation, not a variance.",
            "trial",
        ),
        Mistake(
            _undone(lambda x, m, s: x),
            "You only cut off what is outside [0, 1]: mean and std have to be undone before.",
            "peer",
        ),
        Mistake(
            _undone(finish=lambda x: x),
            "Values just outside [0, 1] stay, and whoever draws the picture refuses them: end with `.clamp(0, 1)`.",
            "trial",
        ),
        Mistake(
            _undone(finish=lambda x: x.clamp(min=0)),
            "Values above 1 stay: `.clamp(0, 1)` cuts off at both ends.",
            "trial",
        ),
        Mistake(
            _undone(finish=lambda x: x.clamp(max=1)),
            "Values below 0 stay: `.clamp(0, 1)` cuts off at both ends.",
            "trial",
        ),
        Mistake(
            _undone(lambda x, m, s: x.clamp(0, 1) * s + m),
            "You cut off too early: normalised values are meant to be below 0 and above 1. `clamp` comes last.",
            "trial",
        ),
        Mistake(
            _undone(finish=_minimum_to_maximum),
            "You stretch each picture from its minimum to its maximum, which changes its contrast: cut off with "
            "`.clamp(0, 1)` instead.",
            "peer",
        ),
        Mistake(
            lambda images, mean, std: _minimum_to_maximum(images),
            "You stretch from minimum to maximum without mean and std: that gives a picture, but not this one.",
            "peer",
        ),
        Mistake(
            _undone(finish=lambda x: (x / 255).clamp(0, 1)),
            "You divide by 255 as well: the values were from 0 to 1 before Normalize already.",
            "peer",
        ),
        Mistake(
            _undone(finish=lambda x: 255 * x.clamp(0, 1)),
            "You return values from 0 to 255: from 0 to 1 is wanted.",
            "peer",
        ),
        Mistake(
            _undone(finish=lambda x: (255 * x.clamp(0, 1)).byte()),
            "You return bytes from 0 to 255: floats from 0 to 1 are wanted.",
            "peer",
        ),
        Mistake(
            _undone(columns=lambda images, mean, std: _columns(images, mean[::-1], std[::-1])),
            "Your mean and std stand in the order blue, green, red: they come as red, green, blue, like the channels.",
            "peer",
        ),
        Mistake(
            _undone(finish=lambda x: x.clamp(0, 1).flip(1)),
            "You turn the channels round to blue, green, red: that is OpenCV's order; everything here is red, green, blue.",
            "peer",
        ),
        Mistake(
            _undone(finish=lambda x: x.clamp(0, 1).permute(0, 2, 3, 1)),
            "You put the channels last, as matplotlib wants them: here the shape stays (B, 3, H, W); `as_rgb` reorders for "
            "the drawing.",
            "peer",
        ),
        Mistake(
            _undone(finish=lambda x: x.clamp(0, 1).squeeze(0)),
            "`squeeze` removes the axis of the images when there is only one: leave it out.",
            "peer",
        ),
        Mistake(
            _first_image_only,
            "You return the first picture only: there is one for every image.",
            "source",
        ),
        Mistake(
            _undone(columns=lambda images, mean, std: (images.new_tensor(mean), images.new_tensor(std))),
            "A tensor of shape (3,) lines up with the last axis, the columns: give it two axes of length 1 at the end, "
            "`[:, None, None]`, so that it lines up with the channels.",
            "peer",
        ),
        Mistake(
            _undone(
                columns=lambda images, mean, std: (
                    images.new_tensor(mean)[:, None],
                    images.new_tensor(std)[:, None],
                )
            ),
            "A tensor of shape (3, 1) lines up with the rows: two axes of length 1 are needed at the end, `[:, None, None]`.",
            "trial",
        ),
        Mistake(
            _undone(columns=lambda images, mean, std: (mean, std)),
            "Three floats in a list or tuple cannot be multiplied with a tensor: make a tensor of them first, with "
            "`images.new_tensor(...)`.",
            "trial",
        ),
        Mistake(
            _undone(columns=lambda images, mean, std: (sum(mean) / 3, sum(std) / 3)),
            "You use one average for all three channels: each has its own mean and std.",
            "trial",
        ),
        Mistake(
            _undone(columns=lambda images, mean, std: (mean[0], std[0])),
            "You use red's mean and std for all three channels: each has its own.",
            "trial",
        ),
        Mistake(
            _undone(columns=_imagenet),
            "You wrote ImageNet's numbers into the function: use `mean` and `std` as they come, for other models have others.",
            "source",
        ),
        Mistake(
            _in_place,
            "The pictures are right, but `mul_` and `add_` (with the underscore) overwrite the images that the model still "
            "needs: write `*` and `+`.",
            "peer",
        ),
    ),
    verified="Normalize was undone for one picture and for several, channel by channel, and nothing is left outside [0, 1].",
    hints=(
        "Normalize computes (x - mean) / std. Solve this for x, and mind the order of the two steps.",
        "`images.new_tensor(mean)[:, None, None]` has shape (3, 1, 1), which lines up with the channels. `.clamp(0, 1)` comes "
        "last.",
    ),
    alternatives=(_denormalised_by_channel, _denormalised_by_einsum, _denormalised_by_normalising),
    rtol64=1e-6,  # mean and std may have passed through float32
)


# 4.2 -------------------------------------------------------------------------------------------------------


def _explain_cases(rng):
    """One class per image, class 0 and another one for all, none given, one image; and images that do not fit."""
    training, images, classes = _net_and_images(rng, torch.float32)
    evaluated, precise, others = _net_and_images(rng, torch.float64)
    return [
        (training, training.layer2[0].norm2, images, classes),
        (training, training.layer1, images, 0),
        (training, training.layer2, images[1:2]),
        (training, training.layer2, images[:, :2]),  # the net wants three channels
        (evaluated, evaluated.layer1, precise),
        (evaluated, evaluated.layer2[0].norm1, precise, int(others[2])),
        (evaluated, evaluated.layer2, precise[1:2], others[1:2]),
    ]


def _with_gradients_waiting(answer, model, layer, images, *classes):
    """The answer on a net in the middle of training: a gradient is waiting in one of its parameters."""
    waiting = torch.ones_like(model.fc.weight)
    model.fc.weight.grad = waiting.clone()
    try:
        result = answer(model, layer, images, *classes)
        if model.fc.weight.grad is None or not torch.equal(model.fc.weight.grad, waiting):
            raise Complaint(
                "A gradient was waiting in a parameter of the model, and it is not the same any more."
            )
        return result
    finally:
        model.fc.weight.grad = None


def _wanted(logits, classes):
    """The class of each image: given for all, given for each, or predicted."""
    if classes is None:
        classes = logits.argmax(dim=1)
    return torch.as_tensor(classes).expand(len(logits))


def _asked(logits, classes):
    return logits.gather(1, classes[:, None]).sum()


def _signed(a, g):
    return (g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1)


def _wrongly_weighted(answer):
    """Mistakes in the weights of the channels and in their sum. answer: makes an answer that draws maps by `draw`."""
    return (
        Mistake(
            answer(draw=lambda a, g: (g.sum(dim=(2, 3), keepdim=True) * a).sum(dim=1)),
            "You add up the gradients of a channel; Grad-CAM takes their mean.",
            "peer",
        ),
        Mistake(
            answer(draw=lambda a, g: (g.mean(dim=(0, 2, 3), keepdim=True) * a).sum(dim=1)),
            "You average the gradients over the images too: each image needs its own weights.",
            "source",
        ),
        Mistake(
            answer(draw=lambda a, g: (g.mean(dim=(2, 3), keepdim=True) * a).mean(dim=1)),
            "You average the weighted channels at the end; add them up.",
            "source",
        ),
        Mistake(
            answer(draw=lambda a, g: (g.mean(dim=1, keepdim=True) * a).sum(dim=1)),
            "You average the gradients over the channels: average over the two spatial axes, so that each channel gets its "
            "weight.",
            "trial",
        ),
    )


def _assembled(
    choose=_wanted,
    score=_asked,
    draw=_signed,
    finish=F.relu,
    give=lambda maps, classes: (maps, classes),
    mode=evaluating,
    layer_of=lambda model, layer: layer,
):
    """Grad-CAM put together from parts: mode, layer, classes, score, how the map is made, what is done to it."""

    def answer(model, layer, images, classes=None):
        layer = layer_of(model, layer)
        with mode(model), capture(layer) as kept:
            logits = model(images)
        chosen = choose(logits, classes)
        (gradients,) = torch.autograd.grad(score(logits, chosen), kept[layer])
        return give(finish(draw(kept[layer].detach(), gradients)), chosen)

    return answer


def _predicted(logits, classes=None):
    return logits.argmax(dim=1)


def _ranked(logits, classes):
    """Classes read as places in the model's order of preference, as if they were indices of a top-5 list."""
    if classes is None:
        return logits.argmax(dim=1)
    return logits.argsort(dim=1, descending=True).gather(1, _wanted(logits, classes)[:, None])[:, 0]


def _number_zero_taken_for_none(logits, classes):
    nothing = classes is None or (not isinstance(classes, torch.Tensor) and not classes)
    return _wanted(logits, None if nothing else classes)


def _stretched(maps):
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return (maps - low) / (high - low).clamp(min=1e-12)


def _over_maximum(maps):
    return maps / maps.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)


def _over_largest(maps):
    return maps / maps.abs().amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)


@contextmanager
def _eval_without_finally(model):
    training = model.training
    model.eval()
    yield
    model.train(training)


@contextmanager
def _eval_for_good(model):
    model.eval()
    yield


@contextmanager
def _eval_then_train(model):
    model.eval()
    try:
        yield
    finally:
        model.train()


def _with_own_hook(hook, mode=evaluating, safe=True, remove=True):
    """Grad-CAM with a hook of one's own, `hook(kept, output)`."""

    def answer(model, layer, images, classes=None):
        kept = []
        with mode(model):
            handle = layer.register_forward_hook(lambda module, inputs, output: hook(kept, output))
            try:
                logits = model(images)
            except RuntimeError:
                if safe and remove:
                    handle.remove()
                raise
            if remove:
                handle.remove()
        classes = _wanted(logits, classes)
        (gradients,) = torch.autograd.grad(_asked(logits, classes), kept[0])
        return F.relu(_signed(kept[0].detach(), gradients)), classes

    return answer


def _keep_and_copy(kept, output):
    kept.append(output)
    return output.clone()


def _keep_only(kept, output):
    kept.append(output)


def _keep_detached(kept, output):
    kept.append(output.detach())


def _keep_a_copy(kept, output):
    kept.append(output.clone())


def _by_backward(after=lambda model: None, mode=evaluating):
    def answer(model, layer, images, classes=None):
        with mode(model), capture(layer) as kept:
            logits = model(images)
        classes = _wanted(logits, classes)
        _asked(logits, classes).backward()
        gradients = kept[layer].grad
        after(model)
        return F.relu(_signed(kept[layer].detach(), gradients)), classes

    return answer


def _without_graph(model, layer, images, classes=None):
    with torch.no_grad():
        return resnet_steps.explain(model, layer, images, classes)


def _resized(model, layer, images, classes=None):
    maps, classes = resnet_steps.explain(model, layer, images, classes)
    size = images.shape[2:]
    return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0], classes


def _explained_with_logits(model, layer, images, classes=None):
    with evaluating(model), torch.no_grad():
        logits = model(images)
    return resnet_steps.explain(model, layer, images, classes)[0], logits


def _explained_by_image(model, layer, images, classes=None):
    """Each image by itself, with the mode of the whole model put back."""
    was_training = model.training
    model.eval()
    maps, chosen = [], []
    try:
        for i in range(len(images)):
            with cut(layer) as leaves:
                logits = model(images[i : i + 1])[0]
            if classes is None:
                chosen.append(int(logits.argmax()))
            else:
                chosen.append(classes if isinstance(classes, int) else int(classes[i]))
            (g,) = torch.autograd.grad(logits[chosen[-1]], leaves[-1])
            a = leaves[-1].detach()
            maps.append(torch.clamp((g.mean((2, 3))[0, :, None, None] * a[0]).sum(0), min=0))
    finally:
        model.train(was_training)
    return torch.stack(maps), torch.tensor(chosen)


def _explained_by_own_hook(model, layer, images, classes=None):
    return _with_own_hook(_keep_and_copy)(model, layer, images, classes)


def _explained_by_one_hot(model, layer, images, classes=None):
    kept = {}

    def keep(module, inputs, output):
        kept["a"] = output
        return output + 0

    with evaluating(model), layer.register_forward_hook(keep):
        logits = model(images)
    if classes is None:
        classes = logits.max(1).indices
    elif not isinstance(classes, torch.Tensor):
        classes = torch.full((len(images),), classes)
    seed = F.one_hot(classes, logits.shape[1]).to(logits)
    gradients = torch.autograd.grad(logits, kept["a"], grad_outputs=seed)[0]
    maps = torch.einsum("bc,bcij->bij", gradients.mean((-2, -1)), kept["a"])
    return [torch.maximum(maps, torch.zeros(()).to(maps)), classes]


explaining = Exercise(
    key="4.2",
    title="Grad-CAM at any layer",
    reference=resnet_steps.explain,
    gives_away=("helpers.cam.grad_cam",),
    cases=_explain_cases,
    use=_with_gradients_waiting,
    mistakes=(
        Mistake(
            _assembled(lambda logits, classes: _wanted(logits, classes or _predicted(logits))),
            'You ask whether `classes` is true: class 0 counts as false and is taken for "none given", and several classes '
            "have no one answer. Ask `classes is None`.",
            "source",
        ),
        Mistake(
            _assembled(_number_zero_taken_for_none),
            'Class 0 is taken for "none given", because 0 counts as false: ask `classes is None`.',
            "source",
        ),
        Mistake(
            _assembled(_predicted),
            "You always explain the predicted class and ignore `classes`.",
            "source",
        ),
        Mistake(
            _assembled(_ranked),
            "You read `classes` as places in the list of the most probable classes: they are class numbers, columns of the "
            "logits as the model gives them.",
            "peer",
        ),
        Mistake(
            lambda model, layer, images, classes=None: (
                resnet_steps.explain(model, layer, images, classes)[0],
                resnet_steps.explain(model, layer, images)[1],
            ),
            "The maps are right, but beside them you name the predicted classes: return those that were explained.",
            "trial",
        ),
        Mistake(
            lambda model, layer, images, classes=None: (
                resnet_steps.explain(model, layer, images, classes)[0],
                classes,
            ),
            "You return `classes` as it came in, a number or None: return one class per image, those that were explained.",
            "trial",
        ),
        Mistake(
            _assembled(
                lambda logits, classes: _predicted(logits) if classes is None else classes,
                lambda logits, classes: logits[torch.arange(len(logits)), classes].sum(),
            ),
            "The maps are right, but where `classes` is a number, you return the number: return one class per image, "
            "with `expand` or `torch.full`.",
            "trial",
        ),
        Mistake(
            _assembled(give=lambda maps, classes: maps),
            "You return the maps alone: return the classes that were explained too, `maps, classes`.",
            "trial",
        ),
        Mistake(
            _assembled(give=lambda maps, classes: (classes, maps)),
            "Maps and classes are exchanged: return `maps, classes`.",
            "trial",
        ),
        Mistake(
            _explained_with_logits,
            "You return maps and logits: beside the maps, the classes that were explained are wanted, one per image.",
            "trial",
        ),
        Mistake(
            _assembled(
                lambda logits, classes: _wanted(
                    logits, logits.argmax(dim=0)[: len(logits)] if classes is None else classes
                )
            ),
            "`argmax(dim=0)` finds an image for every class; `dim=1` finds a class for every image.",
            "trial",
        ),
        Mistake(
            _assembled(
                lambda logits, classes: _wanted(
                    logits, _predicted(logits)[:1] if classes is None else classes
                )
            ),
            "Where no class is given, you explain the first image's prediction on every image.",
            "source",
        ),
        Mistake(
            _assembled(lambda logits, classes: _wanted(logits, _wanted(logits, classes)[:1])),
            "You use the first image's class for every image: each has its own, given or predicted.",
            "source",
        ),
        Mistake(
            _assembled(score=lambda logits, classes: logits[:, classes].sum()),
            "`logits[:, classes]` takes every class in `classes` for every image: pair each row with its own class.",
            "peer",
        ),
        Mistake(
            _assembled(lambda logits, classes: _predicted(logits) if classes is None else classes),
            "A number is one class for all images, and has no axes: make a tensor with one entry per image of it first.",
            "trial",
        ),
        Mistake(
            _assembled(
                lambda logits, classes: _predicted(logits) if classes is None else torch.as_tensor(classes)
            ),
            "A number becomes a tensor without axes: repeat it for every image, with `expand` or `torch.full`.",
            "trial",
        ),
        Mistake(
            _assembled(
                lambda logits, classes: (
                    _predicted(logits) if classes is None else torch.as_tensor(classes).reshape(-1)
                )
            ),
            "A number becomes a tensor with one entry, and only the first image gets its map: repeat it for every image, with "
            "`expand` or `torch.full`.",
            "trial",
        ),
        Mistake(
            _assembled(mode=nullcontext),
            "You run the model in the mode in which it comes; in training mode, batch normalisation mixes the images and "
            "remembers them. Run it inside `evaluating(model)`.",
            "peer",
        ),
        Mistake(
            _assembled(mode=_eval_for_good),
            "The maps are right, but you leave the model in evaluation mode: `evaluating(model)` puts the mode back.",
            "source",
        ),
        Mistake(
            _assembled(mode=_eval_then_train),
            "The maps are right, but afterwards the model is in training mode, whatever it was before: `evaluating(model)` puts "
            "the mode back.",
            "peer",
        ),
        Mistake(
            _assembled(mode=_eval_without_finally),
            "Where the forward pass fails, the model stays in evaluation mode: put the mode back in a `finally`, or use "
            "`with evaluating(model)`, which does.",
            "trial",
        ),
        Mistake(
            _with_own_hook(_keep_and_copy, safe=False),
            "Where the forward pass fails, your hook stays on the layer: remove it in a `finally`, or use `with capture(layer)`, "
            "which does.",
            "source",
        ),
        Mistake(
            _with_own_hook(_keep_and_copy, mode=_eval_without_finally, safe=False),
            "Where the forward pass fails, your hook stays on the layer and the model in evaluation mode: put both back in a "
            "`finally`, or use `with evaluating(model), capture(layer)`.",
            "source",
        ),
        Mistake(
            _with_own_hook(_keep_and_copy, remove=False),
            "The maps are right, but your hook stays on the layer and runs on every later call: remove it, or use "
            "`with capture(layer)`.",
            "source",
        ),
        Mistake(
            _with_own_hook(_keep_and_copy, mode=_eval_for_good, remove=False),
            "The maps are right, but your hook stays on the layer, and the model in evaluation mode: "
            "`with evaluating(model), capture(layer)` cleans up after both.",
            "source",
        ),
        Mistake(
            _with_own_hook(_keep_only),
            "Your hook keeps a tensor that the block then overwrites in place (`out += x`, `ReLU(inplace=True)`): use "
            "`capture`, which sends the model on with a copy.",
            "source",
        ),
        Mistake(
            _with_own_hook(_keep_detached),
            "Your hook keeps a tensor that is cut off from the graph, so no gradient reaches it: leave out `detach`, or use "
            "`capture`.",
            "peer",
        ),
        Mistake(
            _with_own_hook(_keep_a_copy),
            "Your hook keeps a copy, and the model goes on with the original, so no gradient reaches the copy: keep the "
            "original and return the copy, as `capture` does.",
            "peer",
        ),
        Mistake(
            _by_backward(),
            "The maps are right, but `.backward()` adds to the gradients of the parameters, which disturbs training: use "
            "`torch.autograd.grad`.",
            "source",
        ),
        Mistake(
            _by_backward(mode=_eval_for_good),
            "The maps are right, but `model.eval()` and `.backward()` both leave their mark on the model: use "
            "`evaluating(model)` and `torch.autograd.grad`.",
            "source",
        ),
        Mistake(
            _by_backward(after=lambda model: model.zero_grad()),
            "The maps are right, but `zero_grad` also wipes out gradients that were waiting in the parameters before: use "
            "`torch.autograd.grad`, which touches none.",
            "source",
        ),
        Mistake(
            _without_graph,
            "PyTorch took no notes, so there is no gradient: leave out `torch.no_grad()`.",
            "peer",
        ),
        Mistake(
            _assembled(score=lambda logits, classes: _asked(logits.softmax(dim=1), classes)),
            "You explain the probability: other classes are mixed in, and it fades where the model is sure. Take the logit.",
            "peer",
        ),
        Mistake(
            _assembled(score=lambda logits, classes: _asked(logits.log_softmax(dim=1), classes)),
            "You explain the log-probability: every other class has a say in it. Take the logit.",
            "trial",
        ),
        Mistake(
            _assembled(score=lambda logits, classes: F.cross_entropy(logits, classes)),
            "You explain the loss: what lowers it speaks for the class, so the map shows the opposite. Take the logit.",
            "peer",
        ),
        Mistake(
            _assembled(score=lambda logits, classes: logits.sum()),
            "You explain all classes at once: pick one logit per image.",
            "source",
        ),
        Mistake(
            _assembled(score=lambda logits, classes: _asked(logits, classes) / len(logits)),
            "You average the logits over the images, so every map is divided by their number: add them up.",
            "trial",
        ),
        Mistake(
            _assembled(draw=lambda a, g: (g * a).sum(dim=1)),
            "That is HiResCAM with a ReLU: Grad-CAM averages the gradient of each channel first.",
            "trial",
        ),
        *_wrongly_weighted(_assembled),
        Mistake(
            _assembled(draw=lambda a, g: F.relu(g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1)),
            "You apply the ReLU to each weighted channel: first the sum, in which channels for and against can cancel, then "
            "the ReLU.",
            "peer",
        ),
        Mistake(
            _assembled(draw=lambda a, g: (F.relu(g.mean(dim=(2, 3), keepdim=True)) * a).sum(dim=1)),
            "You drop negative weights: a channel that speaks against the class counts too. The ReLU comes after the sum.",
            "peer",
        ),
        Mistake(
            _assembled(draw=lambda a, g: (F.relu(g).mean(dim=(2, 3), keepdim=True) * a).sum(dim=1)),
            "You drop negative gradients before averaging: the mean needs both signs. The ReLU comes after the sum.",
            "peer",
        ),
        Mistake(
            _assembled(draw=lambda a, g: (g.mean(dim=(2, 3), keepdim=True).abs() * a).sum(dim=1)),
            "You take the absolute value of the weights: a channel against the class now speaks for it.",
            "trial",
        ),
        Mistake(
            _assembled(draw=lambda a, g: _signed(F.relu(a), g)),
            "You put the activations through a ReLU: the gradient belongs to them as they came. The ReLU comes after the sum.",
            "source",
        ),
        Mistake(
            _assembled(draw=lambda a, g: _signed(g, a)),
            "You exchanged activations and gradients: the weights come from the gradients, the map from the activations.",
            "trial",
        ),
        Mistake(
            _assembled(finish=lambda maps: maps),
            "The ReLU is missing: negative values stay.",
            "source",
        ),
        Mistake(
            _assembled(finish=torch.abs),
            "You take the absolute value instead of the ReLU: evidence against the class then looks like evidence for it.",
            "trial",
        ),
        Mistake(
            _assembled(finish=lambda maps: F.relu(-maps)),
            "You keep what speaks against the class and drop what speaks for it: the sign is turned round.",
            "trial",
        ),
        Mistake(
            _assembled(finish=_stretched),
            "You stretch each map from minimum to maximum instead of dropping what is negative: zero moves.",
            "source",
        ),
        Mistake(
            _assembled(finish=lambda maps: _stretched(F.relu(maps))),
            "After the ReLU you stretch each map from minimum to maximum: return the values as they are, scaling comes later.",
            "source",
        ),
        Mistake(
            _assembled(finish=lambda maps: _over_maximum(F.relu(maps))),
            "You divide each map by its maximum: return the values as they are, scaling comes later.",
            "source",
        ),
        Mistake(
            _assembled(finish=lambda maps: F.relu(maps) / F.relu(maps).max()),
            "You divide by the largest value of the batch: return the values as they are, scaling comes later.",
            "peer",
        ),
        Mistake(
            _resized,
            "You bring the maps to the size of the images: return them at the size of the layer.",
            "source",
        ),
        Mistake(
            _assembled(finish=lambda maps: F.relu(maps).squeeze()),
            "`squeeze` also removes the axis of the images when there is only one: leave it out.",
            "source",
        ),
        Mistake(
            _assembled(give=lambda maps, classes: (maps[0], classes[0])),
            "You return the first image's map and class only: there is one for every image.",
            "source",
        ),
        Mistake(
            _assembled(finish=lambda maps: F.relu(maps)[:, None]),
            "You leave an axis of length 1 for the channel: the maps have shape (B, h, w).",
            "trial",
        ),
        Mistake(
            _assembled(layer_of=lambda model, layer: model.layer2),
            "You always use the model's last layer with maps, whatever `layer` says.",
            "source",
        ),
    ),
    verified="Maps and classes at four layers, three kinds of `classes`, one image and several, all in evaluation mode; the model is "
    "as before, also when its forward pass fails.",
    hints=(
        "`with evaluating(model), capture(layer) as kept:` around the forward pass settles mode and hook, whatever happens. "
        "After it, the steps are those of lab 02: classes, score, gradient, weights, sum, ReLU.",
        "`torch.as_tensor(classes).expand(len(logits))` makes one class per image of a number or a tensor. The score is one sum "
        "of `logits.gather(1, classes[:, None])`, its gradient `torch.autograd.grad(score, kept[layer])[0]`.",
    ),
    alternatives=(_explained_by_image, _explained_by_own_hook, _explained_by_one_hot),
    slow=15,  # a net is copied for every call
    limit=30,
)


# 4.3 -------------------------------------------------------------------------------------------------------


def _head_cases(rng):
    """Activations with signs as well as without; class 0 is asked for in each batch of three."""
    cases = []
    for dtype in DTYPES:
        with torch.random.fork_rng(devices=()):
            fc = nn.Linear(7, 9).to(dtype)
        with torch.no_grad():
            fc.weight.copy_(_tensor(rng.normal(size=(9, 7)) + 0.3, dtype))
            fc.bias.copy_(_tensor(rng.normal(size=9) + 1, dtype))
        activations = _tensor(rng.normal(size=(3, 7, 5, 4)) + 0.2, dtype)
        classes = torch.tensor([8, 0, 5])
        cases += [
            (activations, fc, classes),
            (F.relu(activations), fc, classes.flip(0)),
            (activations[2:], fc, classes[2:]),
        ]
    return cases


def _cam(a, weights):
    return torch.einsum("bc,bcij->bij", weights, a)


def _with_weights(weigh, combine=_cam):
    """Maps from other weights or another sum; the logits follow from them."""

    def answer(activations, fc, classes):
        maps = combine(activations, weigh(fc.weight, classes, activations))
        return maps, maps.mean(dim=(1, 2)) + fc.bias[classes]

    return answer


def _rows(combine):
    return _with_weights(lambda weight, classes, a: weight[classes], combine)


def _head_changed(change):
    """What `change(maps, logits, a, fc, classes)` makes of the right results."""
    return lambda a, fc, classes: change(*resnet_steps.class_activation_map(a, fc, classes), a, fc, classes)


def _bias_of(fc, classes):
    return fc.bias[classes][:, None, None]


def _probability(maps, logits, a, fc, classes):
    return maps, fc(a.mean(dim=(2, 3))).softmax(dim=1).gather(1, classes[:, None])[:, 0]


def _cell_by_cell(activations, fc, classes):
    maps = torch.zeros(len(activations), *activations.shape[2:]).to(activations)
    for b, klass in enumerate(classes):
        for c in range(activations.shape[1]):
            maps[b] += fc.weight[klass, c] * activations[b, c]
    return maps, torch.stack([m.mean() for m in maps]) + fc.bias[classes]


def _as_one_by_one_convolution(activations, fc, classes):
    every_class = F.conv2d(activations, fc.weight[:, :, None, None])
    logits = fc(F.adaptive_avg_pool2d(activations, 1).flatten(1))
    images = torch.arange(len(classes))
    return every_class[images, classes], logits[images, classes]


def _at_every_cell(activations, fc, classes):
    """The linear layer at every cell, its bias taken away again."""
    scores = fc(activations.movedim(1, -1))[torch.arange(len(classes)), ..., classes]
    return scores - fc.bias[classes].reshape(-1, 1, 1), scores.flatten(1).mean(1)


adding_up = Exercise(
    key="4.3",
    title="a map that adds up to the logit",
    reference=resnet_steps.class_activation_map,
    cases=_head_cases,
    mistakes=(
        Mistake(
            _head_changed(lambda m, z, a, fc, c: (m + _bias_of(fc, c), z)),
            "The logits are right, but your map has the bias in every cell: it belongs to the class, wherever things are. "
            "Leave it out of the map, and add it to the average.",
            "trial",
        ),
        Mistake(
            _head_changed(lambda m, z, a, fc, c: (m + _bias_of(fc, c), z + fc.bias[c])),
            "You add the bias twice, in every cell and again to the average: leave it out of the map.",
            "trial",
        ),
        Mistake(
            _head_changed(lambda m, z, a, fc, c: (m + _bias_of(fc, c) / m[0].numel(), z)),
            "You spread the bias over the cells: it is no evidence at any place. Leave it out of the map.",
            "trial",
        ),
        Mistake(
            _head_changed(lambda m, z, a, fc, c: (m, z - fc.bias[c])),
            "The bias is missing in the logits: add that of the class to the map's average.",
            "trial",
        ),
        Mistake(
            _head_changed(lambda m, z, a, fc, c: (m, z - 2 * fc.bias[c])),
            "You subtract the bias from the average: the linear layer adds it.",
            "trial",
        ),
        Mistake(
            _head_changed(lambda m, z, a, fc, c: (m, m.sum(dim=(1, 2)) + fc.bias[c])),
            "You add up the cells for the logit: the net averages over them.",
            "trial",
        ),
        Mistake(
            _head_changed(lambda m, z, a, fc, c: (m, m.amax(dim=(1, 2)) + fc.bias[c])),
            "You take the highest cell for the logit: the net averages over the cells.",
            "trial",
        ),
        Mistake(
            _head_changed(lambda m, z, a, fc, c: (m / m[0].numel(), z)),
            "You divided the map by h * w, which is Grad-CAM: CAM is what the average is taken of, so its cells are h * w times "
            "as large.",
            "peer",
        ),
        Mistake(
            _head_changed(lambda m, z, a, fc, c: (m * m[0].numel(), z)),
            "You multiplied the map by h * w: CAM's weights come from the linear layer itself and need no factor.",
            "trial",
        ),
        Mistake(
            _head_changed(lambda m, z, a, fc, c: (F.relu(m), z)),
            "The map went through a ReLU: CAM keeps its signs, and only with them does it add up to the logit.",
            "source",
        ),
        Mistake(
            _head_changed(lambda m, z, a, fc, c: (F.relu(m), F.relu(m).mean(dim=(1, 2)) + fc.bias[c])),
            "You average a map that went through a ReLU: without what speaks against the class, it does not add up to the logit.",
            "source",
        ),
        Mistake(
            _head_changed(lambda m, z, a, fc, c: (m.abs(), z)),
            "You return absolute values: evidence against the class then looks like evidence for it.",
            "trial",
        ),
        Mistake(
            _head_changed(lambda m, z, a, fc, c: (_stretched(m), z)),
            "You stretched the map from its minimum to its maximum: return it in units of the logit.",
            "source",
        ),
        Mistake(
            _head_changed(lambda m, z, a, fc, c: (_over_maximum(F.relu(m)), z)),
            "You scaled the map to [0, 1]: return it with its signs, in units of the logit.",
            "source",
        ),
        Mistake(
            _with_weights(lambda weight, classes, a: weight[classes].softmax(dim=1)),
            "You put the weights through a softmax: take them as the linear layer has them.",
            "trial",
        ),
        Mistake(
            _with_weights(lambda weight, classes, a: weight.softmax(dim=0)[classes]),
            "You put the weights of a channel through a softmax over the classes: take them as the linear layer has them.",
            "trial",
        ),
        Mistake(
            _with_weights(lambda weight, classes, a: F.relu(weight[classes])),
            "You drop negative weights: a channel that speaks against the class counts too.",
            "peer",
        ),
        Mistake(
            _with_weights(lambda weight, classes, a: weight[classes].abs()),
            "You take the absolute value of the weights: a channel against the class now speaks for it.",
            "trial",
        ),
        Mistake(
            _with_weights(lambda weight, classes, a: weight[classes - 1]),
            "One row too high up: classes count from 0, so class c has row c.",
            "trial",
        ),
        Mistake(
            _with_weights(lambda weight, classes, a: weight[classes[:1]].expand(len(classes), -1)),
            "You use the first image's class for every image: take one row of `fc.weight` per image.",
            "source",
        ),
        Mistake(
            _with_weights(lambda weight, classes, a: weight[: len(classes)]),
            "You take the first rows of `fc.weight`, one after the other: the rows that are wanted stand in `classes`.",
            "trial",
        ),
        Mistake(
            _with_weights(lambda weight, classes, a: weight.sum(dim=0).expand(len(classes), -1)),
            "You add up the weights of all classes: take the row of the asked class, `fc.weight[classes]`.",
            "trial",
        ),
        Mistake(
            _with_weights(lambda weight, classes, a: weight.reshape(weight.shape[::-1]).T[classes]),
            "You reshaped `fc.weight`, which scrambles it: it has one row per class already.",
            "trial",
        ),
        Mistake(
            _with_weights(lambda weight, classes, a: weight.T[classes]),
            "You transposed `fc.weight`: PyTorch keeps one row per class, (K, C), so `fc.weight[classes]` is (B, C).",
            "trial",
        ),
        Mistake(
            _with_weights(lambda weight, classes, a: weight[:, classes]),
            "`fc.weight[:, classes]` picks columns, that is, channels: each class has its row.",
            "trial",
        ),
        Mistake(
            lambda a, fc, classes: (
                torch.einsum("kc,bcij->bij", fc.weight[classes], a),
                fc(a.mean(dim=(2, 3))).gather(1, classes[:, None])[:, 0],
            ),
            "Your sum mixes the classes of all images: the rows `fc.weight[classes]` and the activations need the same letter "
            "for the image.",
            "trial",
        ),
        Mistake(
            _rows(lambda a, weights: (weights * a).sum(dim=1)),
            "`fc.weight[classes]` has shape (B, C) and does not line up with (B, C, h, w): give it two axes of length 1 at the "
            "end.",
            "trial",
        ),
        Mistake(
            _rows(lambda a, weights: (weights[:, :, None, None] * a).mean(dim=1)),
            "You average the weighted channels; add them up.",
            "trial",
        ),
        Mistake(
            _rows(lambda a, weights: (weights[:, :, None, None] * a).amax(dim=1)),
            "You take the largest weighted channel at each cell; add all of them up.",
            "trial",
        ),
        Mistake(
            _rows(
                lambda a, weights: (
                    (weights * a.mean(dim=(2, 3))).sum(dim=1)[:, None, None].expand(a[:, 0].shape)
                )
            ),
            "You average over the cells first, so that every cell shows the same: weight the channels cell by cell, and "
            "average afterwards.",
            "trial",
        ),
        Mistake(
            lambda a, fc, classes: resnet_steps.class_activation_map(
                a, fc, fc(a.mean(dim=(2, 3))).argmax(dim=1)
            ),
            "You take the predicted classes: take those in `classes`.",
            "source",
        ),
        Mistake(
            _head_changed(lambda m, z, a, fc, c: (m, fc(a.mean(dim=(2, 3))))),
            "You return the logits of every class: keep that of the asked class for each image, shape (B,).",
            "trial",
        ),
        Mistake(
            _head_changed(lambda m, z, a, fc, c: (m, fc(a.mean(dim=(2, 3))).amax(dim=1))),
            "You return each image's largest logit: that of the asked class is wanted, whether it wins or not.",
            "trial",
        ),
        Mistake(
            _head_changed(_probability),
            "You return probabilities: logits are wanted, before any softmax.",
            "peer",
        ),
        Mistake(
            _head_changed(lambda m, z, a, fc, c: (torch.einsum("kc,bcij->bkij", fc.weight, a), z)),
            "You return a map for every class: keep that of the asked class for each image.",
            "trial",
        ),
        Mistake(
            _head_changed(lambda m, z, a, fc, c: m),
            "You return the maps alone: return the logits too, `maps, logits`.",
            "trial",
        ),
        Mistake(
            _head_changed(lambda m, z, a, fc, c: (z, m)),
            "Maps and logits are exchanged: return `maps, logits`.",
            "trial",
        ),
        Mistake(
            _head_changed(lambda m, z, a, fc, c: (m, m.mean() + fc.bias[c])),
            "You average over the images too: each image has its own logit, so keep the first axis, `mean(dim=(1, 2))`.",
            "trial",
        ),
        Mistake(
            _head_changed(lambda m, z, a, fc, c: (m, m.mean(dim=(1, 2)) + fc.bias[: len(c)])),
            "You add the first biases, one after the other: take those of the asked classes, `fc.bias[classes]`.",
            "trial",
        ),
        Mistake(
            _head_changed(lambda m, z, a, fc, c: (m, m.mean(dim=(1, 2)) + fc.bias.mean())),
            "You add the mean of all biases: take those of the asked classes, `fc.bias[classes]`.",
            "trial",
        ),
    ),
    verified="Signed maps from the class's row of weights, whose average plus the class's bias is the logit; no gradient was needed.",
    hints=(
        "The net averages each channel over its cells, then takes a weighted sum of the channels and adds the bias. Average and "
        "weighted sum can change places. What stands in each cell just before the average then?",
        "`fc.weight[classes]` has one row of C weights per image; give it two axes of length 1 at the end, or use "
        '`torch.einsum("bc,bcij->bij", ...)`. The logit is the mean over the last two axes plus `fc.bias[classes]`.',
    ),
    alternatives=(_cell_by_cell, _as_one_by_one_convolution, _at_every_cell),
)


# 4.4 -------------------------------------------------------------------------------------------------------


def _library_cases(rng):
    """Maps with zeros and without, blank, constant, and so small that 1e-7 matters; enlarged and left as they are."""
    cases = []
    for dtype in DTYPES:
        maps = rng.random((5, 5, 4))
        maps[0][maps[0] < 0.3] = 0
        maps[1] = 3 + 5 * maps[1]  # nowhere zero
        maps[2] *= 1e-13
        maps[3] = 0
        maps[4] = 0.7
        maps = _tensor(maps, dtype)
        cases += [(maps, (17, 14)), (maps[:2], (10, 13)), (maps[1:2], (5, 4))]
    return cases


def _stretch(maps, epsilon=1e-7):
    maps = maps - maps.amin(dim=(1, 2), keepdim=True)
    return maps / (epsilon + maps.amax(dim=(1, 2), keepdim=True))


def _enlarge(maps, shape, mode="bilinear", **options):
    options = {"align_corners": False, **options} if mode in ("bilinear", "bicubic") else options
    return F.interpolate(maps[:, None], size=tuple(shape), mode=mode, **options)[:, 0]


def _in_three_steps(before=_stretch, enlarge=_enlarge, after=_stretch):
    return lambda maps, shape: after(enlarge(before(maps), shape))


def _both(stretch):
    return _in_three_steps(before=stretch, after=stretch)


def _same(maps):
    return maps


def _minimum_after_division(maps):
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return (maps - low) / (1e-7 + high)


def _of_the_batch(maps):
    return (maps - maps.min()) / (1e-7 + (maps - maps.min()).max())


def _largest_of_the_batch(maps):
    maps = maps - maps.amin(dim=(1, 2), keepdim=True)
    return maps / (1e-7 + maps.max())


def _by_rows(maps):
    maps = maps - maps.amin(dim=2, keepdim=True)
    return maps / (1e-7 + maps.amax(dim=2, keepdim=True))


def _by_columns(maps):
    maps = maps - maps.amin(dim=1, keepdim=True)
    return maps / (1e-7 + maps.amax(dim=1, keepdim=True))


def _over_maximum_and_little(maps):
    return maps / (1e-7 + maps.amax(dim=(1, 2), keepdim=True))


def _zero_over_zero(maps):
    maps = maps - maps.amin(dim=(1, 2), keepdim=True)
    return maps / maps.amax(dim=(1, 2), keepdim=True)


def _over_sum(maps):
    maps = maps - maps.amin(dim=(1, 2), keepdim=True)
    return maps / (1e-7 + maps.sum(dim=(1, 2), keepdim=True))


def _without_brackets(maps):
    maps = maps - maps.amin(dim=(1, 2), keepdim=True)
    return maps / 1e-7 + maps.amax(dim=(1, 2), keepdim=True)


def _standardised(maps):
    return (maps - maps.mean(dim=(1, 2), keepdim=True)) / (1e-7 + maps.std(dim=(1, 2), keepdim=True))


def _library_by_numpy(maps, shape):
    results = []
    for one in maps.numpy():
        for target in (shape, None):
            one = one - np.min(one)
            one = one / (1e-7 + np.max(one))
            if target:
                one = F.interpolate(torch.from_numpy(one)[None, None], target, mode="bilinear")[0, 0].numpy()
        results.append(one)
    return torch.from_numpy(np.stack(results))


def _library_by_flattening(maps, shape):
    for size in (shape, None):
        flat = maps.flatten(1)
        flat = flat - flat.min(1, keepdim=True).values
        maps = (flat / (flat.max(1, keepdim=True).values + 1e-7)).view_as(maps)
        if size:
            maps = nn.Upsample(size, mode="bilinear")(maps.unsqueeze(1)).squeeze(1)
    return maps


def _library_by_matrices(maps, shape):
    """Bilinear interpolation as two matrices; enlarging first, for subtraction and division pass through it."""

    def matrix(few, many):
        centres = ((torch.arange(many, dtype=torch.float64) + 0.5) * few / many - 0.5).clamp(0, few - 1)
        return (1 - (centres[:, None] - torch.arange(few)).abs()).clamp(min=0).to(maps)

    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    rows, columns = (matrix(few, many) for few, many in zip(maps.shape[1:], shape, strict=True))
    return _stretch(rows @ ((maps - low) / (high - low + 1e-7)) @ columns.T)


libraries = Exercise(
    key="4.4",
    title="scale as the library does",
    reference=resnet_steps.like_the_library,
    cases=_library_cases,
    mistakes=(
        Mistake(
            _both(_over_maximum_and_little),
            "You divide by the maximum without subtracting the minimum first: the library moves zero.",
            "peer",
        ),
        Mistake(
            _both(_over_maximum),
            "You divide by the maximum, as `to_unit` does: the library subtracts the minimum first, and adds 1e-7 to the divisor.",
            "peer",
        ),
        Mistake(
            lambda maps, shape: _enlarge(_over_maximum(maps), shape),
            "You divide by the maximum and enlarge, as this course does: the library subtracts the minimum first, adds 1e-7 to "
            "the divisor, and does it all again after enlarging.",
            "peer",
        ),
        Mistake(
            _both(_minimum_after_division),
            "The divisor is the maximum before the subtraction: take the maximum of what is left after it.",
            "trial",
        ),
        Mistake(
            _both(_zero_over_zero),
            "A blank or constant map becomes 0 / 0, NaN: add 1e-7 to the divisor, as the library does.",
            "source",
        ),
        Mistake(
            _both(_stretched),
            "You guard against 0 / 0, but not as the library does: it adds 1e-7 to every divisor, which shows in tiny maps.",
            "peer",
        ),
        Mistake(
            _both(lambda maps: _stretch(maps, 1e-8)),
            "You add 1e-8 to the divisor; the library adds 1e-7, which shows in tiny maps.",
            "peer",
        ),
        Mistake(
            _both(lambda maps: _stretch(maps, 1e-6)),
            "You add 1e-6 to the divisor; the library adds 1e-7, which shows in tiny maps.",
            "trial",
        ),
        Mistake(
            _both(_without_brackets),
            "Brackets are missing: `/ 1e-7 + maximum` divides by 1e-7 alone.",
            "trial",
        ),
        Mistake(
            _in_three_steps(after=_same),
            "The second scaling is missing: bilinear enlarging loses the highest value, so the library scales again.",
            "trial",
        ),
        Mistake(
            _in_three_steps(before=_same),
            "The first scaling is missing: you enlarge and scale once, but the library scales before as well, which shows in "
            "tiny maps.",
            "trial",
        ),
        Mistake(
            _in_three_steps(after=_over_maximum_and_little),
            "The second scaling subtracts no minimum: enlarging loses the lowest value too, so both scalings are the same.",
            "trial",
        ),
        Mistake(
            lambda maps, shape: _enlarge(_stretch(_stretch(maps)), shape),
            "You scale twice before enlarging: the second scaling comes after it.",
            "trial",
        ),
        Mistake(
            lambda maps, shape: _stretch(_stretch(maps)),
            "The maps keep their size: enlarge them to `shape` between the two scalings.",
            "trial",
        ),
        Mistake(
            _both(_of_the_batch),
            "Minimum and maximum are those of the whole batch: each map is scaled by itself.",
            "peer",
        ),
        Mistake(
            _both(_largest_of_the_batch),
            "The maximum is that of the whole batch: each map is scaled by itself, `amax(dim=(1, 2), keepdim=True)`.",
            "peer",
        ),
        Mistake(
            _both(_by_rows),
            "You scale each row by itself: minimum and maximum run over rows and columns, `dim=(1, 2)`.",
            "trial",
        ),
        Mistake(
            _both(_by_columns),
            "You scale each column by itself: minimum and maximum run over rows and columns, `dim=(1, 2)`.",
            "trial",
        ),
        Mistake(
            _both(_over_sum),
            "You divide by the sum of a map: the library divides by its maximum.",
            "trial",
        ),
        Mistake(
            _both(_standardised),
            "You subtract the mean and divide by the deviation: the library takes minimum and maximum.",
            "peer",
        ),
        Mistake(
            _in_three_steps(enlarge=lambda maps, shape: _enlarge(maps, shape, align_corners=True)),
            "`align_corners=True` puts the outer cells on the picture's edge: OpenCV's bilinear resize is `align_corners=False`.",
            "peer",
        ),
        Mistake(
            _in_three_steps(enlarge=lambda maps, shape: _enlarge(maps, shape, "nearest")),
            'You enlarge by repeating cells, which is what `F.interpolate` does unless told `mode="bilinear"`.',
            "peer",
        ),
        Mistake(
            _in_three_steps(enlarge=lambda maps, shape: _enlarge(maps, shape, "bicubic")),
            "You enlarge with bicubic interpolation: OpenCV's `resize` is bilinear unless told otherwise.",
            "trial",
        ),
        Mistake(
            _in_three_steps(enlarge=lambda maps, shape: _enlarge(maps, shape[::-1])),
            "Height and width are exchanged: OpenCV wants (width, height), PyTorch (height, width), as in `shape`.",
            "peer",
        ),
        Mistake(
            lambda maps, shape: resnet_steps.like_the_library(maps, shape)[:, None],
            "You leave the axis that `F.interpolate` wanted: take it away again, `[:, 0]`, for the shape (B, H, W).",
            "trial",
        ),
        Mistake(
            _in_three_steps(enlarge=lambda maps, shape: F.interpolate(maps, size=shape, mode="bilinear")),
            "`F.interpolate` enlarges maps with a channel axis, (B, 1, h, w): add one, `maps[:, None]`, and take it away again.",
            "trial",
        ),
        Mistake(
            lambda maps, shape: resnet_steps.like_the_library(maps, shape)[0],
            "You return the first map only: there is one for every image.",
            "peer",
        ),
        Mistake(
            lambda maps, shape: resnet_steps.like_the_library(maps, shape).squeeze(0),
            "`squeeze` also removes the axis of the images when there is only one: take away the axis of length 1 by its "
            "number, `[:, 0]`.",
            "trial",
        ),
        Mistake(
            lambda maps, shape: 255 * resnet_steps.like_the_library(maps, shape),
            "You return values from 0 to 255: from 0 to 1 is wanted.",
            "peer",
        ),
        Mistake(
            lambda maps, shape: 1 - resnet_steps.like_the_library(maps, shape),
            "Your maps are turned round: the highest value becomes 1, the lowest 0.",
            "peer",
        ),
    ),
    verified="Stretched, enlarged and stretched again, for maps with and without zeros, blank, constant and tiny ones, one and several.",
    hints=(
        "Three steps, and the last is the first once more: stretch each map from its minimum to its maximum, enlarge, stretch "
        "again. Write the stretching as a function inside yours.",
        "`maps.amin(dim=(1, 2), keepdim=True)` is one minimum per map; subtract it before you look for the maximum, and divide by "
        '1e-7 plus that. `F.interpolate(maps[:, None], size=shape, mode="bilinear", align_corners=False)[:, 0]` enlarges.',
    ),
    alternatives=(_library_by_numpy, _library_by_flattening, _library_by_matrices),
)


# 4.5 -------------------------------------------------------------------------------------------------------


def _difference_cases(rng):
    training, images, _ = _net_and_images(rng, torch.float32)
    evaluated, precise, _ = _net_and_images(rng, torch.float64)
    return [
        (training, training.layer2[0].norm2, images, 5, 0),
        (training, training.layer1, images[1:2], 0, 8),
        (evaluated, evaluated.layer1, precise, 3, 7),
        (evaluated, evaluated.layer2, precise[1:], 6, 2),
    ]


def _subtracted(logits, first, second):
    return (logits[:, first] - logits[:, second]).sum()


def _for_score(
    score=_subtracted, draw=_signed, finish=_same, mode=evaluating, layer_of=lambda model, layer: layer
):
    """Signed Grad-CAM of another score, made in another way or finished otherwise."""

    def answer(model, layer, images, first, second):
        layer = layer_of(model, layer)
        with mode(model), capture(layer) as kept:
            logits = model(images)
        (gradients,) = torch.autograd.grad(score(logits, first, second), kept[layer])
        return finish(draw(kept[layer].detach(), gradients))

    return answer


def _of_two_maps(combine, change=_same):
    """`combine(one, other)` of the two classes' maps with their signs, each after `change`."""

    def answer(model, layer, images, first, second):
        one, other = (
            _for_score(lambda z, first, second, k=k: z[:, k].sum())(model, layer, images, first, second)
            for k in (first, second)
        )
        return combine(change(one), change(other))

    return answer


def _by_two_gradients(draw):
    """`draw(activations, gradient of the first logit, of the second)`."""

    def answer(model, layer, images, first, second):
        with evaluating(model), capture(layer) as kept:
            logits = model(images)
        one, other = (
            torch.autograd.grad(logits[:, k].sum(), kept[layer], retain_graph=True)[0]
            for k in (first, second)
        )
        return draw(kept[layer].detach(), one, other)

    return answer


def _minus(one, other):
    return one - other


def _difference_by_backward(after=_same):
    def answer(model, layer, images, first, second):
        with evaluating(model), capture(layer) as kept:
            logits = model(images)
        _subtracted(logits, first, second).backward()
        result = _signed(kept[layer].detach(), kept[layer].grad)
        after(model)
        return result

    return answer


def _difference_with_hook(keep, remove=True):
    def answer(model, layer, images, first, second):
        kept = []
        handle = layer.register_forward_hook(lambda module, inputs, output: keep(kept, output))
        with evaluating(model):
            logits = model(images)
        if remove:
            handle.remove()
        (gradients,) = torch.autograd.grad(_subtracted(logits, first, second), kept[0])
        return _signed(kept[0].detach(), gradients)

    return answer


def _probability_of_the_two(logits, first, second):
    return logits[:, [first, second]].softmax(dim=1)[:, 0].sum()


def _difference_of_log_probabilities(model, layer, images, first, second):
    """The normalisation of the softmax is the same for both, and cancels."""
    with evaluating(model), capture(layer) as kept:
        log_p = model(images).log_softmax(dim=1)
    g = torch.autograd.grad((log_p[:, first] - log_p[:, second]).sum(), kept[layer])[0]
    return (g.mean((2, 3))[..., None, None] * kept[layer]).sum(1)


def _difference_by_mean_gradients(model, layer, images, first, second):
    def draw(a, one, other):
        return torch.einsum("bc,bcij->bij", (one - other).mean(dim=(2, 3)), a)

    return _by_two_gradients(draw)(model, layer, images, first, second)


def _difference_by_image(model, layer, images, first, second):
    maps = []
    with evaluating(model):
        for image in images:
            with cut(layer) as leaves:
                logits = model(image[None])[0]
            g = torch.autograd.grad(logits[first] - logits[second], leaves[0])[0][0]
            maps.append(sum(w * a for w, a in zip(g.mean((1, 2)), leaves[0][0].detach(), strict=True)))
    return torch.stack(maps)


def _difference_of_signed_maps(model, layer, images, first, second):
    def draw(a, one, other):
        return _signed(a, one) - _signed(a, other)

    return _by_two_gradients(draw)(model, layer, images, first, second)


differing = Exercise(
    key="4.5",
    title="rather this than that",
    reference=resnet_steps.evidence_for_difference,
    cases=_difference_cases,
    mistakes=(
        Mistake(
            _for_score(lambda z, first, second: _subtracted(z, second, first)),
            "The order is turned round: `first` speaks for, `second` against, so the score is the first logit minus the second.",
            "trial",
        ),
        Mistake(
            _for_score(lambda z, first, second: (z[:, first] + z[:, second]).sum()),
            "You add the two logits: the score is their difference.",
            "trial",
        ),
        Mistake(
            _for_score(lambda z, first, second: z[:, first].sum()),
            "That is the map for `first` alone: subtract the logit of `second` before you take the gradient.",
            "trial",
        ),
        Mistake(
            _for_score(lambda z, first, second: z[:, second].sum()),
            "That is the map for `second` alone: the score is the first logit minus the second.",
            "trial",
        ),
        Mistake(
            _for_score(lambda z, first, second: (z[:, first] - z[:, second]).abs().sum()),
            "You take the absolute value of the score: where `second` wins, the map turns round. Keep the sign.",
            "trial",
        ),
        Mistake(
            _for_score(lambda z, first, second: ((z[:, first] - z[:, second]) ** 2).sum()),
            "You square the difference, which loses its sign and weights images by it: take the difference itself.",
            "trial",
        ),
        Mistake(
            _for_score(lambda z, first, second: F.relu(z[:, first] - z[:, second]).sum()),
            "A ReLU on the score leaves nothing where `second` wins: take the difference itself.",
            "trial",
        ),
        Mistake(
            _for_score(lambda z, first, second: (z[:, first] / z[:, second]).sum()),
            "You divide the logits: the score is their difference.",
            "trial",
        ),
        Mistake(
            _for_score(lambda z, first, second: _subtracted(z.softmax(dim=1), first, second)),
            "You subtract probabilities: every other class has a say in them. Take the logits.",
            "peer",
        ),
        Mistake(
            _for_score(lambda z, first, second: z.softmax(dim=1)[:, first].sum()),
            "You explain the probability of `first`: that speaks against all other classes at once. Take the difference of two "
            "logits.",
            "peer",
        ),
        Mistake(
            _for_score(lambda z, first, second: z.log_softmax(dim=1)[:, first].sum()),
            "You explain the log-probability of `first`: that speaks against all other classes at once. Take the difference of "
            "two logits.",
            "peer",
        ),
        Mistake(
            _for_score(lambda z, first, second: (z.softmax(dim=1)[:, first] - z[:, second]).sum()),
            "You put one side through a softmax and not the other: subtract logit from logit.",
            "trial",
        ),
        Mistake(
            _for_score(_probability_of_the_two),
            "You explain the softmax of the two logits: it fades where one of them wins clearly. Take their difference.",
            "trial",
        ),
        Mistake(
            _for_score(lambda z, first, second: _subtracted(z, first, second) / len(z)),
            "You average the score over the images, so every map is divided by their number: add it up.",
            "trial",
        ),
        Mistake(
            _for_score(lambda z, first, second: z[0, first] - z[0, second]),
            "You explain the first image only, and the others' maps are 0: the score is a sum over the images.",
            "source",
        ),
        Mistake(
            _for_score(lambda z, first, second: (z[first] - z[second]).sum()),
            "`logits[first]` is an image: classes are the second axis, `logits[:, first]`.",
            "trial",
        ),
        Mistake(
            _for_score(lambda z, first, second: z[:, first] - z[:, second]),
            "A gradient needs one number, but there is a difference for every image: add them up.",
            "trial",
        ),
        Mistake(
            _for_score(lambda z, first, second: _subtracted(z, first - 1, second - 1)),
            "You take the logits one place too early: classes count from 0.",
            "trial",
        ),
        Mistake(
            _for_score(finish=F.relu),
            "A ReLU at the end drops all that speaks for `second`: this map keeps its signs.",
            "peer",
        ),
        Mistake(
            _for_score(finish=torch.abs),
            "You return absolute values: then nobody can tell which class a place speaks for.",
            "trial",
        ),
        Mistake(
            _of_two_maps(_minus, F.relu),
            "You subtract two maps after their ReLU, as `explain` gives them, which forgets what speaks against each class: "
            "subtract the logits, and take one gradient.",
            "peer",
        ),
        Mistake(
            lambda model, layer, images, first, second: (
                resnet_steps.explain(model, layer, images, first)[0],
                resnet_steps.explain(model, layer, images, second)[0],
            ),
            "You return two maps: one map of the difference is wanted.",
            "trial",
        ),
        Mistake(
            _of_two_maps(_minus, _over_largest),
            "You scale each map before you subtract, so that weak evidence counts as much as strong: leave both in units of the "
            "logit.",
            "peer",
        ),
        Mistake(
            _of_two_maps(_minus, lambda maps: _over_maximum(F.relu(maps))),
            "You subtract two maps that were scaled to [0, 1], as they are drawn: subtract the logits, before any ReLU and any "
            "scaling.",
            "peer",
        ),
        Mistake(
            _of_two_maps(_minus, _stretched),
            "You stretch each map from minimum to maximum before you subtract: leave both in units of the logit.",
            "peer",
        ),
        Mistake(
            _for_score(finish=_over_largest),
            "You divide each map by its largest value: return it in units of the logit, scaling comes later.",
            "peer",
        ),
        Mistake(
            _for_score(finish=_stretched),
            "You stretch the map from minimum to maximum: zero moves, and with it the border between the two classes.",
            "source",
        ),
        Mistake(
            _of_two_maps(torch.maximum),
            "You take the larger of the two maps at each place: subtract.",
            "trial",
        ),
        Mistake(
            _of_two_maps(torch.mul),
            "You multiply the two maps: subtract.",
            "trial",
        ),
        Mistake(
            _for_score(draw=lambda a, g: (g * a).sum(dim=1)),
            "That is HiResCAM: Grad-CAM averages the gradient of each channel first.",
            "trial",
        ),
        *_wrongly_weighted(_for_score),
        Mistake(
            _for_score(draw=lambda a, g: (F.relu(g.mean(dim=(2, 3), keepdim=True)) * a).sum(dim=1)),
            "You drop negative weights: those are the channels that speak for `second`.",
            "peer",
        ),
        Mistake(
            _for_score(draw=lambda a, g: (g.mean(dim=(2, 3), keepdim=True).abs() * a).sum(dim=1)),
            "You take the absolute value of the weights: a channel for `second` now speaks for `first`.",
            "trial",
        ),
        Mistake(
            _for_score(draw=lambda a, g: _signed(g, a)),
            "You exchanged activations and gradients: the weights come from the gradients, the map from the activations.",
            "trial",
        ),
        Mistake(
            _for_score(finish=lambda maps: maps[0]),
            "You return the first image's map only: there is one for every image.",
            "source",
        ),
        Mistake(
            _for_score(finish=lambda maps: maps.squeeze()),
            "`squeeze` also removes the axis of the images when there is only one: leave it out.",
            "source",
        ),
        Mistake(
            _for_score(layer_of=lambda model, layer: model.layer2),
            "You always use the model's last layer with maps, whatever `layer` says.",
            "source",
        ),
        Mistake(
            _for_score(mode=nullcontext),
            "You run the model in the mode in which it comes; in training mode, batch normalisation mixes the images and "
            "remembers them. Run it inside `evaluating(model)`.",
            "peer",
        ),
        Mistake(
            _for_score(mode=_eval_for_good),
            "The maps are right, but you leave the model in evaluation mode: `evaluating(model)` puts the mode back.",
            "source",
        ),
        Mistake(
            _difference_with_hook(_keep_and_copy, remove=False),
            "The maps are right, but your hook stays on the layer and runs on every later call: use `with capture(layer)`.",
            "source",
        ),
        Mistake(
            _difference_with_hook(_keep_only),
            "Your hook keeps a tensor that the block then overwrites in place (`out += x`, `ReLU(inplace=True)`): use "
            "`capture`, which sends the model on with a copy.",
            "source",
        ),
        Mistake(
            _difference_by_backward(),
            "The maps are right, but `.backward()` leaves gradients in the parameters, which disturbs training: use "
            "`torch.autograd.grad`.",
            "source",
        ),
    ),
    verified="Signed maps of the difference of two logits at three layers, for one image and several, class 0 first and second; "
    "the model is as before.",
    hints=(
        "Grad-CAM explains any number that the model computes. Only the score changes against `explain`: which number is large "
        "when `first` is ahead of `second`? And what must not happen at the end, if both signs are to be seen?",
        "The score is `(logits[:, first] - logits[:, second]).sum()`; after that one gradient, its mean per channel, the weighted "
        "sum, no ReLU.",
    ),
    alternatives=(
        _difference_of_log_probabilities,
        _difference_by_mean_gradients,
        _difference_by_image,
        _difference_of_signed_maps,
    ),
    slow=15,  # a net is copied for every call
    limit=30,
)


# 4.6 -------------------------------------------------------------------------------------------------------


def _coarse(weight, cells):
    """Maps as a net makes them: a convolution, averages over cells that do not move with the photo, enlarged again."""

    def explain(crop):
        maps = F.relu(F.conv2d(crop, weight, padding=1))
        maps = F.avg_pool2d(maps, cells, ceil_mode=True)
        return F.interpolate(maps, size=crop.shape[2:], mode="bilinear", align_corners=False)[:, 0]

    return explain


def _striped(crop):
    """Half of the map is a pattern of the net's own, which does not move with the photo."""
    columns = torch.arange(crop.shape[-1])
    return crop.mean(dim=1) + 1.5 * ((columns // 2 % 2) * 2 - 1).to(crop)


def _where_bright(crop):
    """Blank unless something very bright is on the crop."""
    return F.relu(crop.mean(dim=1)) * (crop.max() > 50)


def _at_the_left_edge(crop):
    """A map that shows something in the two outermost columns only."""
    maps = torch.zeros_like(crop[:, 0])
    maps[..., :2] = crop[:, 0, :, :2]
    return maps


def _blank(crop):
    return torch.zeros_like(crop[:, 0])


def _shift_cases(rng):
    cases = []
    for dtype in DTYPES:
        photo = _tensor(rng.normal(size=(1, 3, 9, 16)) + 0.2, dtype)
        bright = photo.clone()
        bright[..., -1] = 90  # only one of the two crops has this column
        weight = _tensor(rng.normal(size=(1, 3, 3, 3)), dtype)
        cases += [
            (_coarse(weight, (3, 4)), photo, 3),
            (_coarse(weight, (2, 3)), photo[..., :8, :15], 4),
            (_coarse(weight, (3, 4)), photo, 0),
            (_striped, photo, 2),
            (_where_bright, bright, 2),
            (_at_the_left_edge, photo, 3),
            (_blank, photo, 1),
        ]
    return cases


def _pearson(one, other):
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])


def _parts(explain, photo, pixels):
    """The two maps on the part that both crops show."""
    width = photo.shape[-1] - pixels
    return explain(photo[..., :width])[..., pixels:], explain(photo[..., pixels:])[..., : width - pixels]


def _compared(compare):
    """Another measure of the right parts."""
    return lambda explain, photo, pixels: compare(*_parts(explain, photo, pixels))


def _on_parts(choose):
    """The right measure on `choose(left map, right map, pixels)`."""

    def answer(explain, photo, pixels):
        width = photo.shape[-1] - pixels
        return _pearson(*choose(explain(photo[..., :width]), explain(photo[..., pixels:]), pixels))

    return answer


def _from(m, start, width):
    """`width` columns of a map, from `start` on."""
    return m[..., start : start + width]


def _common(m, pixels):
    return m.shape[-1] - pixels


def _nothing_left(explain, photo, pixels):
    left, right = explain(photo[..., :-pixels]), explain(photo[..., pixels:])
    return _pearson(left[..., pixels:], right[..., :-pixels])


def _explained_once(explain, photo, pixels):
    both = explain(photo)
    width = photo.shape[-1] - pixels
    return _pearson(both[..., :width][..., pixels:], both[..., pixels:][..., : width - pixels])


def _whole_against_crop(explain, photo, pixels):
    return _pearson(explain(photo)[..., pixels:], explain(photo[..., pixels:]))


def _whole_against_left_crop(explain, photo, pixels):
    width = photo.shape[-1] - pixels
    return _pearson(explain(photo)[..., :width], explain(photo[..., :width]))


def _rolled(back):
    def answer(explain, photo, pixels):
        return _pearson(
            explain(photo), explain(torch.roll(photo, pixels, dims=-1)).roll(-pixels if back else 0, dims=-1)
        )

    return answer


def _rolled_maps(explain, photo, pixels):
    width = photo.shape[-1] - pixels
    return _pearson(explain(photo[..., :width]).roll(-pixels, dims=-1), explain(photo[..., pixels:]))


def _filled_up(explain, photo, pixels):
    """Crops filled up with black columns to the photo's width, and the maps compared where both show the photo."""
    width = photo.shape[-1] - pixels
    left, right = (F.pad(crop, (0, pixels)) for crop in (photo[..., :width], photo[..., pixels:]))
    return _pearson(_from(explain(left), pixels, width - pixels), _from(explain(right), 0, width - pixels))


def _maps_filled_up(explain, photo, pixels):
    width = photo.shape[-1] - pixels
    left, right = explain(photo[..., :width]), explain(photo[..., pixels:])
    return _pearson(F.pad(left, (0, pixels)), F.pad(right, (pixels, 0)))


def _by_rows_instead(explain, photo, pixels):
    height = photo.shape[-2] - pixels
    one, other = explain(photo[..., :height, :]), explain(photo[..., pixels:, :])
    return _pearson(one[..., pixels:, :], other[..., : height - pixels, :])


def _crops_in_common(explain, photo, pixels):
    width = photo.shape[-1]
    same = photo[..., pixels : width - pixels]
    return _pearson(explain(same), explain(same))


def _photo_instead_of_map(explain, photo, pixels):
    width = photo.shape[-1] - pixels
    return _pearson(explain(photo[..., :width]), photo[..., :width].mean(dim=1))


def _ranks(m):
    return m.flatten().argsort().argsort().double()


def _centred(m):
    return m.flatten() - m.mean()


def _divided(m):
    return m / m.amax()


def _if_not_number(instead):
    def answer(explain, photo, pixels):
        result = resnet_steps.shifted_agreement(explain, photo, pixels)
        return instead if math.isnan(result) else result

    return answer


def _one_of_blank(one, other):
    if not one.any() and not other.any():
        return 1.0
    return 0.0 if not (one.any() and other.any()) else _pearson(one, other)


def _blank_by_the_whole_map(explain, photo, pixels):
    width = photo.shape[-1] - pixels
    left, right = explain(photo[..., :width]), explain(photo[..., pixels:])
    if not (left.any() and right.any()):
        return math.nan
    found = resnet_steps.shifted_agreement(explain, photo, pixels)
    return 0.0 if math.isnan(found) else found


def _agreement_by_numpy(explain, photo, pixels):
    width = photo.shape[-1]
    left = explain(photo[:, :, :, : width - pixels]).numpy()[0]
    right = explain(photo[:, :, :, pixels:]).numpy()[0]
    return np.corrcoef(left[:, pixels:].ravel(), right[:, : width - 2 * pixels].ravel())[0, 1]


def _agreement_by_formula(explain, photo, pixels):
    left, right = (m - m.mean() for m in _parts(explain, photo, pixels))
    if not left.any() or not right.any():
        return math.nan
    return (left * right).sum() / (left.square().sum() * right.square().sum()).sqrt()


def _agreement_on_a_canvas(explain, photo, pixels):
    """Each map is put where its crop was, NaN elsewhere, and compared where both have a number."""
    canvas = torch.full((2, *photo.shape[2:]), math.nan, dtype=photo.dtype)
    width = photo.shape[-1]
    canvas[0, :, : width - pixels] = explain(photo[..., : width - pixels])[0]
    canvas[1, :, pixels:] = explain(photo[..., pixels:])[0]
    return torch.corrcoef(canvas[:, ~canvas.isnan().any(dim=0)])[1, 0].item()


def _agreement_of_scaled_maps(explain, photo, pixels):
    """Correlation does not mind scaling."""
    left, right = ((m - m.mean()) / m.std() for m in _parts(explain, photo, pixels))
    return float((left * right).sum() / (left.numel() - 1))


shifting = Exercise(
    key="4.6",
    title="does the map move with the photo?",
    reference=resnet_steps.shifted_agreement,
    cases=_shift_cases,
    mistakes=(
        Mistake(
            _on_parts(lambda left, right, p: (left, right)),
            "You compare the maps as they lie: pixel (0, 0) is another place in each. Cut both down to the part that both crops "
            "show.",
            "peer",
        ),
        Mistake(
            _on_parts(
                lambda left, right, p: (_from(left, 0, _common(left, p)), _from(right, p, _common(right, p)))
            ),
            "You cut off the wrong ends: the crop without the right-most columns has the part in common at its right, from "
            "column `pixels` on; the other has it at its left.",
            "trial",
        ),
        Mistake(
            _on_parts(
                lambda left, right, p: (_from(left, p, _common(left, p)), _from(right, p, _common(right, p)))
            ),
            "You cut off the left end of both maps, so they are not aligned: of the second, cut off the right end.",
            "trial",
        ),
        Mistake(
            _on_parts(
                lambda left, right, p: (_from(left, 0, _common(left, p)), _from(right, 0, _common(right, p)))
            ),
            "You cut off the right end of both maps, so they are not aligned: of the first, cut off the left end.",
            "trial",
        ),
        Mistake(
            _on_parts(lambda left, right, p: (_from(left, 0, p), _from(right, _common(right, p), p))),
            "You compare the parts that only one of the crops shows: compare the part that both show.",
            "trial",
        ),
        Mistake(
            _on_parts(
                lambda left, right, p: (
                    _from(left, 2 * p, _common(left, 2 * p)),
                    _from(right, p, _common(right, 2 * p)),
                )
            ),
            "The maps are aligned, but you leave out columns that both crops show: W - 2 * pixels columns are in common.",
            "trial",
        ),
        Mistake(
            _nothing_left,
            "`[..., :-pixels]` is empty for 0 pixels, since -0 is 0: count from the front, `[..., :width - pixels]`.",
            "trial",
        ),
        Mistake(
            _explained_once,
            "You explain the photo once and crop the map, so that it agrees with itself: explain each crop.",
            "trial",
        ),
        Mistake(
            _whole_against_crop,
            "You compare the whole photo's map with one crop's: both maps are of crops, equally large.",
            "trial",
        ),
        Mistake(
            _whole_against_left_crop,
            "You compare the whole photo's map with that of the crop without its right-most columns: explain two crops, "
            "equally large.",
            "trial",
        ),
        Mistake(
            _rolled(back=True),
            "`roll` brings the columns that leave on one side in again on the other, a photo that nobody took: take two crops.",
            "peer",
        ),
        Mistake(
            _rolled(back=False),
            "`roll` wraps round, and the map of the rolled photo is compared where it is not aligned: take two crops, and "
            "compare where both show the same place.",
            "peer",
        ),
        Mistake(
            _rolled_maps,
            "You roll the map back, so that columns that were cut off on one side are compared with those of the other: cut "
            "both maps down to the part in common.",
            "trial",
        ),
        Mistake(
            _filled_up,
            "You fill the crops up with black columns, which the model sees too: give it the crops as they are.",
            "peer",
        ),
        Mistake(
            _maps_filled_up,
            "You fill the maps up with zeros to the photo's width, and the zeros take part: compare only what both crops show.",
            "trial",
        ),
        Mistake(
            _by_rows_instead,
            "You shift by rows: columns are the last axis.",
            "trial",
        ),
        Mistake(
            _crops_in_common,
            "You explain the part in common twice, and any map agrees with itself: explain the two crops, which differ.",
            "trial",
        ),
        Mistake(
            _photo_instead_of_map,
            "You compare a map with the photo: compare the maps of the two crops.",
            "trial",
        ),
        Mistake(
            _compared(lambda one, other: float(F.cosine_similarity(one.flatten(), other.flatten(), dim=0))),
            "That is the cosine: Pearson's correlation subtracts the mean of each map first.",
            "trial",
        ),
        Mistake(
            _compared(lambda one, other: _pearson(_ranks(one), _ranks(other))),
            "That is the correlation of ranks (Spearman): Pearson's takes the values themselves.",
            "peer",
        ),
        Mistake(
            _compared(lambda one, other: _pearson(one, other) ** 2),
            "You return the square of the correlation, which loses its sign.",
            "trial",
        ),
        Mistake(
            _compared(lambda one, other: abs(_pearson(one, other))),
            "You return the absolute value: maps that say the opposite do not agree.",
            "trial",
        ),
        Mistake(
            _compared(lambda one, other: 1 - _pearson(one, other)),
            "You return 1 minus the correlation, a distance: maps that agree give 1.",
            "peer",
        ),
        Mistake(
            _compared(lambda one, other: float((_centred(one) * _centred(other)).mean())),
            "That is the covariance: divide by both standard deviations.",
            "trial",
        ),
        Mistake(
            _compared(lambda one, other: float((one - other).abs().mean())),
            "You return the mean difference, which is large where maps are: the correlation is wanted.",
            "peer",
        ),
        Mistake(
            _compared(lambda one, other: float(((one - other) ** 2).mean())),
            "You return the mean squared difference, which is large where maps are: the correlation is wanted.",
            "peer",
        ),
        Mistake(
            _compared(lambda one, other: float((_divided(one) - _divided(other)).abs().mean())),
            "You return the mean difference of scaled maps: the correlation is wanted, which needs no scaling.",
            "peer",
        ),
        Mistake(
            _compared(lambda one, other: torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))),
            "You return the whole table of correlations: the number that is wanted stands at [0, 1].",
            "trial",
        ),
        Mistake(
            _compared(
                lambda one, other: float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 0])
            ),
            "You return the correlation of a map with itself: the number that is wanted stands at [0, 1] of the table.",
            "trial",
        ),
        Mistake(
            _compared(lambda one, other: torch.corrcoef(torch.cat([one[0], other[0]]))[0, 1].item()),
            "You hand `corrcoef` a map as a table, and it compares rows: flatten both maps first, so that there are two rows.",
            "trial",
        ),
        Mistake(
            _compared(lambda one, other: _pearson(one, other.mT)),
            "One of the maps is transposed before it is flattened: both must run through rows and columns in the same order.",
            "trial",
        ),
        Mistake(
            _compared(
                lambda one, other: np.mean([_pearson(a, b) for a, b in zip(one[0], other[0], strict=True)])
            ),
            "You average a correlation per row: flatten the maps, and take one correlation of all pixels.",
            "trial",
        ),
        Mistake(
            _if_not_number(0.0),
            "A blank map gives 0, as if two maps had been compared and did not agree: there was nothing to compare, so it is NaN.",
            "peer",
        ),
        Mistake(
            _if_not_number(1.0),
            "A blank map gives full agreement: there was nothing to compare, so it is NaN.",
            "trial",
        ),
        Mistake(
            _compared(_one_of_blank),
            "Two blank maps give full agreement, one gives none: where one of them is blank there is nothing to compare, so it "
            "is NaN.",
            "trial",
        ),
        Mistake(
            _blank_by_the_whole_map,
            "You ask whether the whole map is blank: it may be blank on the part in common alone, and then the answer is NaN too.",
            "trial",
        ),
    ),
    verified="The correlation on the part that both crops show, for 0 to 4 pixels, in both directions, and NaN for what is blank there.",
    hints=(
        "Draw the photo as a line of W columns and the two crops under it. Which columns of each crop show a place that the other "
        "shows too? There are W - 2 * pixels of them.",
        "With `width = photo.shape[-1] - pixels`, the crops are `photo[..., :width]` and `photo[..., pixels:]`; of the first map "
        "take `[..., pixels:]`, of the second `[..., :width - pixels]`. `torch.corrcoef` takes two rows and gives NaN by itself.",
    ),
    alternatives=(
        _agreement_by_numpy,
        _agreement_by_formula,
        _agreement_on_a_canvas,
        _agreement_of_scaled_maps,
    ),
    rtol32=1e-3,  # a correlation may be small against the products that it is made of
)

EXERCISES = (denormalising, explaining, adding_up, libraries, differing, shifting)
