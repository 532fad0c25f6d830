"""Exercises of lab 02: Grad-CAM step by step, in PyTorch.

Inputs are chosen so that mistakes show: no two lengths are equal, biases are not zero, asked classes are not the
predicted ones, class 0 is asked for, some asked logits are negative; layers before and after their ReLU occur,
nets in training and in evaluation mode, and one image as well as several.

Where a mistake was seen: "source" is the code that the lab's methods come from, "peer" another course or library,
"trial" an answer to this or a like exercise of lab 01, given while it was tried, often by ourselves in the part of a
student.
"""

from collections import OrderedDict

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from helpers import metrics, saliency, sequential_cam
from helpers.sequential_cam import capture

from . import Complaint, Exercise, Mistake

DTYPES = (torch.float32, torch.float64)


def _tensor(values, dtype):
    return torch.tensor(values, dtype=dtype)


def _small_net(rng, dtype):
    """2 x 6 x 5 images -> 8 channels of 6 x 5 -> 7 channels of 5 x 4 -> 9 logits; biases everywhere."""
    with torch.random.fork_rng(devices=()):  # layers draw from the global generator when they are made
        net = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(2, 8, 3, padding=1),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(8, 7, 2),
                relu2=nn.ReLU(),
                flatten=nn.Flatten(),
                linear=nn.Linear(7 * 5 * 4, 9),
            )
        ).to(dtype)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(_tensor(0.2 * rng.normal(size=parameter.shape), dtype))
        net.linear.bias[0] -= 20  # nobody predicts class 0, and its logit is negative
    return net.train(dtype is torch.float32)


def _net_and_images(rng, dtype):
    """A net, three images for which it predicts three different classes, and three other classes to ask for."""
    while True:  # a net with random weights may predict fewer
        net = _small_net(rng, dtype)
        many = _tensor(2 * rng.normal(size=(30, 2, 6, 5)), dtype)
        with torch.no_grad():
            logits = net(many)
        _, first = np.unique(logits.argmax(dim=1).numpy(), return_index=True)
        if len(first) >= 3:
            break
    few = np.sort(first)[:3]
    ranked = logits[few].argsort(dim=1)
    return net, many[few], torch.stack([ranked[0, -2], torch.tensor(0), ranked[2, 1]])


def _outputs(net, images):
    """What every layer puts out, by name."""
    outputs = {}
    for name, module in net.named_children():
        images = outputs[name] = module(images)
    return outputs


def _split(net, layer):
    """The net up to `layer`, and what comes after it."""
    names = [name for name, _ in net.named_children()]
    after = names.index(layer) + 1
    return net[:after], net[after:]


# 2.1 -------------------------------------------------------------------------------------------------------


def _capture_cases(rng):
    cases = []
    for dtype in DTYPES:
        net, images, _ = _net_and_images(rng, dtype)
        cases += [(net, "relu1", images), (net, "conv2", images), (net, "relu2", images[:1])]
    return cases


def _flow(answer, net, layer, images):
    """The pair with the gradient that flows from its logits to its activations, or a sentence on why none does."""
    result = answer(net, layer, images)
    if not (isinstance(result, tuple | list) and len(result) == 2):
        return result
    for what, item in zip(("activations", "logits"), result, strict=True):
        if not isinstance(item, torch.Tensor):
            raise Complaint(f"The {what} are no tensor but of type `{type(item).__name__}`.")
    activations, logits = result
    if not activations.requires_grad and not logits.requires_grad:
        raise Complaint(
            "No gradient can flow: neither the activations nor the logits remember what they were computed from."
        )
    if not activations.requires_grad:
        raise Complaint("No gradient can flow back to the activations: they are cut off from the logits.")
    if not logits.requires_grad:
        raise Complaint("No gradient can start from the logits: they are cut off from the net.")
    (gradient,) = torch.autograd.grad(logits.sum(), activations, allow_unused=True, retain_graph=True)
    if gradient is None:
        common = _steps(activations) & _steps(logits)
        if not common:
            raise Complaint(
                "No gradient can flow: the layers behind the activations went on with a copy that is cut off from them."
            )
        if not any(step.next_functions for step in common):  # nothing but parameters
            raise Complaint(
                "No gradient can flow: the logits were not computed from these activations, but in another "
                "forward pass."
            )
        gradient = torch.zeros_like(activations)  # made from the right ones, but nothing comes after them
    return (activations, logits), gradient


def _steps(tensor):
    """The operations that a tensor was computed by, and the parameters (these have no `next_functions`)."""
    found, todo = set(), [tensor.grad_fn]
    while todo:
        step = todo.pop()
        if step is not None and step not in found:
            found.add(step)
            todo += [before for before, _ in step.next_functions]
    return found


def _captured(change):
    """`change` applied to the right activations and logits."""

    def answer(net, layer, images):
        outputs = _outputs(net, images)
        return change(outputs[layer], outputs["linear"])

    return answer


def _neighbour(step):
    def answer(net, layer, images):
        names = [name for name, _ in net.named_children()]
        outputs = _outputs(net, images)
        return outputs[names[names.index(layer) + step]], outputs["linear"]

    return answer


def _without_graph(net, layer, images):
    with torch.no_grad():
        return capture(net, layer, images)


def _in_two_passes(net, layer, images):
    return _outputs(net, images)[layer], net(images)


def _cut_behind_the_layer(net, layer, images):
    before, after = _split(net, layer)
    activations = before(images)
    return activations, after(activations.detach())


def _with_relu_on_the_way(net, layer, images):
    before, after = _split(net, layer)
    activations = F.relu(before(images))
    return activations, after(activations)


def _hook_left(net, layer, images):
    kept = []
    net.get_submodule(layer).register_forward_hook(lambda module, inputs, output: kept.append(output))
    logits = net(images)
    return kept[0], logits


def _hooks_left_everywhere(net, layer, images):
    kept = {}
    for name, module in net.named_children():
        module.register_forward_hook(lambda module, inputs, output, name=name: kept.update({name: output}))
    logits = net(images)
    return kept[layer], logits


def _hook_removed(net, layer, images):
    kept = []
    handle = net.get_submodule(layer).register_forward_hook(lambda *args: kept.append(args[-1]))
    try:
        logits = net(images)
    finally:
        handle.remove()
    return kept[0], logits


def _captured_in_mode(training):
    def answer(net, layer, images):
        net.train(training)
        return capture(net, layer, images)

    return answer


def _capture_by_slices(net, layer, images):
    before, after = _split(net, layer)
    activations = before(images)
    return [activations, after(activations)]


def _capture_by_if(net, layer, images):
    x = images
    for name in net._modules:
        x = getattr(net, name)(x)
        if name == layer:
            kept = x
            kept.retain_grad()
    return kept, x


capturing = Exercise(
    key="2.1",
    title="capture a layer's output",
    reference=sequential_cam.capture,
    cases=_capture_cases,
    use=_flow,
    mistakes=(
        Mistake(
            _neighbour(-1),
            "You keep what goes into the layer; what comes out of it is wanted: store after calling it.",
            "trial",
        ),
        Mistake(
            _neighbour(+1),
            "One layer too late: you keep what the layer after `layer` puts out.",
            "trial",
        ),
        Mistake(
            _captured(lambda activations, logits: (activations.detach(), logits)),
            "The next exercise needs the gradient with respect to the activations: return them without `.detach()` "
            "or `.data`, and compute them outside `torch.no_grad()`.",
            "peer",
        ),
        Mistake(
            _without_graph,
            "Leave out `torch.no_grad()` and `.detach()`: under them PyTorch takes no notes, and there is nothing "
            "to differentiate later.",
            "peer",
        ),
        Mistake(
            _captured(lambda activations, logits: (activations, logits.detach())),
            "The next exercise starts from one of the logits: return them as the last layer puts them out, without "
            "`.detach()` or `argmax`.",
            "trial",
        ),
        Mistake(
            _in_two_passes,
            "You run the net twice, and the activations of one run have no part in the logits of the other: take both "
            "from one run.",
            "trial",
        ),
        Mistake(
            _captured(lambda activations, logits: (activations, logits.softmax(dim=1))),
            "You return probabilities: leave out the softmax, logits are wanted.",
            "source",
        ),
        Mistake(
            _captured(lambda activations, logits: (activations, logits.log_softmax(dim=1))),
            "You return log-probabilities: the logits are what `linear` puts out, with nothing after it.",
            "trial",
        ),
        Mistake(
            _captured(lambda activations, logits: (logits, activations)),
            "The order is wrong: first the activations, then the logits.",
            "trial",
        ),
        Mistake(
            _captured(lambda activations, logits: activations),
            "The logits are missing: return both, `activations, logits`.",
            "trial",
        ),
        Mistake(
            _captured(lambda activations, logits: logits),
            "The activations are missing: return both, `activations, logits`.",
            "trial",
        ),
        Mistake(
            _captured(lambda activations, logits: (activations.clone(), logits)),
            "You return a copy of the activations. The numbers are right, but the logits were computed from the original, "
            "so no gradient reaches the copy: return the layer's output itself.",
            "peer",
        ),
        Mistake(
            _captured(lambda activations, logits: (activations.flatten(1), logits)),
            "You flattened the activations: a map needs its rows and columns, so return them as they come.",
            "trial",
        ),
        Mistake(
            _captured(lambda activations, logits: (activations.mean(dim=0), logits)),
            "You averaged the activations over the images: each image keeps its own.",
            "trial",
        ),
        Mistake(
            _captured(lambda activations, logits: (activations[0], logits)),
            "You keep the activations of the first image only, and lose the axis of the images.",
            "source",
        ),
        Mistake(
            _captured(lambda activations, logits: (activations[0], logits[0])),
            "You keep the first image only: the result has one entry for every image.",
            "source",
        ),
        Mistake(
            _captured(lambda activations, logits: (activations.squeeze(), logits.squeeze())),
            "`squeeze` removes the axis of the images when there is only one: leave the shapes as they are.",
            "trial",
        ),
        Mistake(
            _captured(lambda activations, logits: (F.relu(activations), logits)),
            "You put the activations through a ReLU: where the layer stands before its ReLU, negative values belong to them.",
            "source",
        ),
        Mistake(
            _with_relu_on_the_way,
            "You put a ReLU behind the layer and go on with its result: keep the layer's output with its negative values.",
            "trial",
        ),
        Mistake(
            lambda net, layer, images: (net.get_submodule(layer).weight, net(images)),
            "You return the layer's weights; wanted is what the layer puts out for these images.",
            "trial",
        ),
        Mistake(
            lambda net, layer, images: (net.get_submodule(layer)(images), net(images)),
            "You call the layer on the images themselves: its input is what the layers before it put out.",
            "trial",
        ),
        Mistake(
            lambda net, layer, images: (net.get_submodule(layer), net(images)),
            "You return the layer itself, a part of the net; wanted is what it puts out for these images.",
            "trial",
        ),
        Mistake(
            lambda net, layer, images: ((outputs := _outputs(net, images)), outputs["linear"]),
            "You return the outputs of all layers: pick the one that is asked for with `[layer]`.",
            "trial",
        ),
        Mistake(
            lambda net, layer, images: ((outputs := _outputs(net, images))["relu2"], outputs["linear"]),
            "You always keep the last layer with maps, whatever `layer` says.",
            "source",
        ),
        Mistake(
            lambda net, layer, images: ((outputs := _outputs(net, images))["conv2"], outputs["linear"]),
            "You always keep the last convolution, whatever `layer` says.",
            "peer",
        ),
        Mistake(
            lambda net, layer, images: ((logits := net(images)), logits),
            "You return the logits twice: store the output when the loop comes to `layer`, and go on to the end.",
            "trial",
        ),
        Mistake(
            lambda net, layer, images: ((kept := _split(net, layer)[0](images)), kept),
            "You stop at the layer: go on through the remaining layers to get the logits.",
            "trial",
        ),
        Mistake(
            _hook_left,
            "The numbers are right, but your hook stays on the layer and runs on every later call: remove it with "
            "`handle.remove()`, or call the layers one by one.",
            "peer",
        ),
        Mistake(
            _hooks_left_everywhere,
            "The numbers are right, but your hooks stay on all layers of the net: remove every one of them, or call the "
            "layers one by one.",
            "peer",
        ),
        Mistake(
            _captured_in_mode(False),
            "You leave the net in evaluation mode: whoever goes on training it would not notice. Leave out `net.eval()`.",
            "peer",
        ),
        Mistake(
            _captured_in_mode(True), "You switch the net to training mode: leave its mode as it is.", "trial"
        ),
        Mistake(
            _cut_behind_the_layer,
            "You go on with a detached copy, so the logits know nothing of the activations: hand on what you keep, as it is.",
            "trial",
        ),
        Mistake(
            lambda net, layer, images: net[layer](images),
            "A net in brackets wants a number, and `layer` is a name: go through the pairs of `net.named_children()`.",
            "trial",
        ),
        Mistake(
            lambda net, layer, images: net[:layer](images),
            "A slice of a net wants numbers, and `layer` is a name: go through the pairs of `net.named_children()`.",
            "trial",
        ),
        Mistake(
            _captured(lambda activations, logits: (activations, logits.max(dim=1).values)),
            "You return the largest logit of each image: return all of them, one per class.",
            "trial",
        ),
    ),
    verified="Activations and logits come from one forward pass, gradients flow between them, and the net is as before.",
    hints=(
        "`net(images)` does nothing but call one layer after the other, each on what the one before it put out. "
        "Do the same in a loop of your own, and look at the name before you go on.",
        "`net.named_children()` gives pairs of name and layer, in order. A dictionary with every layer's output makes "
        "the rest easy; store the tensors as they are.",
    ),
    alternatives=(_capture_by_slices, _hook_removed, _capture_by_if),
)


# 2.2 -------------------------------------------------------------------------------------------------------


def _gradient_cases(rng):
    cases = []
    for dtype in DTYPES:
        net, images, classes = _net_and_images(rng, dtype)
        cases += [
            (net, "relu2", images, classes),
            (net, "conv2", images, classes),
            (net, "relu1", images[2:], classes[2:]),
        ]
    return cases


def _asked(logits, classes):
    return logits.gather(1, classes[:, None]).sum()


def _gradient_of(score, change=lambda activations, gradients: (activations, gradients)):
    """The gradient of `score(logits, classes)`, and what `change` makes of the pair."""

    def answer(net, layer, images, classes):
        activations, logits = capture(net, layer, images)
        (gradients,) = torch.autograd.grad(score(logits, classes), activations)
        return change(activations.detach(), gradients)

    return answer


def _changed_pair(change):
    return _gradient_of(_asked, change)


def _by_backward(net, layer, images, classes):
    activations, logits = capture(net, layer, images)
    activations.retain_grad()
    _asked(logits, classes).backward()
    return activations.detach(), activations.grad


def _by_backward_and_zero_grad(net, layer, images, classes):
    pair = _by_backward(net, layer, images, classes)
    net.zero_grad()
    return pair


def _by_backward_to_the_layer(net, layer, images, classes):
    activations, logits = capture(net, layer, images)
    logits[torch.arange(len(images)), classes].sum().backward(inputs=[activations])
    return activations.detach(), activations.grad


def _without_retain_grad(net, layer, images, classes):
    activations, logits = capture(net, layer, images)
    _asked(logits, classes).backward()
    return activations.detach(), activations.grad


def _gradient_by_image(net, layer, images, classes):
    pairs = []
    for image, klass in zip(images, classes.tolist(), strict=True):
        activations, logits = capture(net, layer, image[None])
        pairs.append((activations[0].data, torch.autograd.grad(logits[0, klass], activations)[0][0]))
    return [torch.stack(part) for part in zip(*pairs, strict=True)]


def _gradient_by_one_hot(net, layer, images, classes):
    activations, logits = capture(net, layer, images)
    one_hot = F.one_hot(classes, logits.shape[1]).to(logits)
    return activations.detach(), torch.autograd.grad(logits, activations, grad_outputs=one_hot)[0]


def _gradient_at_a_leaf(net, layer, images, classes):
    before, after = _split(net, layer)
    leaf = before(images).detach().clone().requires_grad_()
    gradients = torch.autograd.grad(after(leaf)[:, classes].diagonal().sum(), leaf)[0]
    return leaf.requires_grad_(False), gradients


def _gradient_by_func(net, layer, images, classes):
    before, after = _split(net, layer)
    with torch.no_grad():
        activations = before(images)
    return activations, torch.func.grad(lambda a: _asked(after(a), classes))(activations).detach()


def _of_the_images(net, layer, images, classes):
    activations, logits = capture(net, layer, images.requires_grad_())
    return activations.detach(), torch.autograd.grad(_asked(logits, classes), images)[0]


def _of_another_pass(net, layer, images, classes):
    activations, _ = capture(net, layer, images)
    return activations.detach(), torch.autograd.grad(_asked(net(images), classes), activations)[0]


def _gradient_without_graph(net, layer, images, classes):
    with torch.no_grad():
        activations, logits = capture(net, layer, images)
        return activations, torch.autograd.grad(_asked(logits, classes), activations)[0]


def _batch_for_each_image(net, layer, images, classes):
    activations, logits = capture(net, layer, images)
    picked = logits.gather(1, classes[:, None])
    one_by_one = [torch.autograd.grad(logit, activations, retain_graph=True)[0] for logit in picked]
    return activations.detach(), torch.stack(one_by_one)


def _of_a_detached_copy(net, layer, images, classes):
    activations, logits = capture(net, layer, images)
    activations = activations.detach()
    return activations, torch.autograd.grad(_asked(logits, classes), activations)[0]


def _still_in_the_graph(net, layer, images, classes):
    activations, logits = capture(net, layer, images)
    return activations, torch.autograd.grad(_asked(logits, classes), activations)[0]


def _gradient_with_graph(net, layer, images, classes):
    activations, logits = capture(net, layer, images)
    (gradients,) = torch.autograd.grad(_asked(logits, classes), activations, create_graph=True)
    return activations.detach(), gradients


def _off_the_graph(answer, net, layer, images, classes):
    """The pair as it is, if no graph hangs on it."""
    result = answer(net, layer, images, classes)
    if isinstance(result, tuple | list):
        for name, item in zip(("activations", "gradients"), result, strict=False):
            if isinstance(item, torch.Tensor) and item.requires_grad:
                raise Complaint(f"The {name} that you return are still part of a graph.")
    return result


def _gradient_in_eval(net, layer, images, classes):
    net.eval()
    return sequential_cam.logit_gradient(net, layer, images, classes)


logit_gradients = Exercise(
    key="2.2",
    title="the gradient of one logit",
    reference=sequential_cam.logit_gradient,
    cases=_gradient_cases,
    use=_off_the_graph,
    mistakes=(
        Mistake(
            _still_in_the_graph,
            "Cut the activations off with `.detach()` before you return them: with the graph on them they keep the whole "
            "forward pass in memory, and NumPy takes no tensor of that kind.",
            "trial",
        ),
        Mistake(
            _gradient_with_graph,
            "With `create_graph=True` the gradients carry a graph of their own: leave it out, nobody differentiates them again.",
            "trial",
        ),
        Mistake(
            _gradient_of(lambda logits, classes: _asked(logits.softmax(dim=1), classes)),
            "You differentiate the probability: it fades where the net is sure, and other classes are mixed in. "
            "Take the logit, without softmax.",
            "source",
        ),
        Mistake(
            _gradient_of(lambda logits, classes: _asked(logits.log_softmax(dim=1), classes)),
            "You differentiate the log-probability: every other class has a say in it. Take the logit alone.",
            "trial",
        ),
        Mistake(
            _gradient_of(lambda logits, classes: F.cross_entropy(logits, classes)),
            "You differentiate the loss (cross-entropy): that mixes all classes and turns the sign round. "
            "Take the asked logit.",
            "peer",
        ),
        Mistake(
            _gradient_of(lambda logits, classes: F.cross_entropy(logits, classes, reduction="sum")),
            "You differentiate the summed loss: its gradient has the opposite sign, and all classes are in it. "
            "Take the asked logit.",
            "trial",
        ),
        Mistake(
            _gradient_of(lambda logits, classes: logits.sum()),
            "You add up the logits of all classes: pick the asked one for each image first.",
            "peer",
        ),
        Mistake(
            _gradient_of(lambda logits, classes: logits.mean()),
            "You average all logits: pick the asked one for each image, then add these up.",
            "trial",
        ),
        Mistake(
            _gradient_of(lambda logits, classes: logits.max(dim=1).values.sum()),
            "You explain the predicted class, the one with the largest logit, and ignore `classes`.",
            "source",
        ),
        Mistake(
            _gradient_of(lambda logits, classes: logits.max()),
            "You take the one largest logit of the whole batch: every image has an asked class, in `classes`.",
            "trial",
        ),
        Mistake(
            _gradient_of(lambda logits, classes: logits[:, classes[0]].sum()),
            "You ask for the first image's class on every image: each image has a class of its own.",
            "source",
        ),
        Mistake(
            _gradient_of(lambda logits, classes: logits[0, classes[0]]),
            "You use the first image's logit only, so the other images get no gradient: add up one logit per image.",
            "source",
        ),
        Mistake(
            _gradient_of(lambda logits, classes: logits[:, classes].sum()),
            "`logits[:, classes]` takes every asked class for every image: pair each row with its own class, for example "
            "with `torch.arange(len(images))`.",
            "trial",
        ),
        Mistake(
            _gradient_of(lambda logits, classes: logits[classes].sum()),
            "`logits[classes]` picks rows, that is, images: the first axis needs the image and the second the class.",
            "trial",
        ),
        Mistake(
            _gradient_of(lambda logits, classes: logits.gather(0, classes[None]).sum()),
            "`gather(0, ...)` picks along the images: classes are axis 1, and the index needs the shape (B, 1).",
            "trial",
        ),
        Mistake(
            _gradient_of(lambda logits, classes: logits.gather(1, classes[None]).sum()),
            "The index of `gather` has shape (1, B), so it takes every class from the first image: give it the shape (B, 1).",
            "trial",
        ),
        Mistake(
            _gradient_of(lambda logits, classes: logits.gather(1, classes).sum()),
            "`gather` wants an index with as many axes as the logits: give `classes` the shape (B, 1).",
            "trial",
        ),
        Mistake(
            _gradient_of(lambda logits, classes: _asked(logits, classes) / len(logits)),
            "You average the logits over the images, so every gradient is divided by their number: add them up.",
            "trial",
        ),
        Mistake(
            _gradient_of(lambda logits, classes: logits.gather(1, classes[:, None])[:, 0]),
            "PyTorch differentiates one number, and you have one logit per image: images do not mix, so add the logits up.",
            "trial",
        ),
        Mistake(
            _gradient_of(lambda logits, classes: logits.gather(1, classes[:, None]).square().sum()),
            "You square the logit: its gradient is then multiplied by twice the logit, and turned round where that is "
            "negative.",
            "trial",
        ),
        Mistake(
            _gradient_of(lambda logits, classes: logits.gather(1, classes[:, None]).square().sum() / 2),
            "Your gradient is multiplied by the logit's value: start from 1. A negative logit turns it upside down.",
            "source",
        ),
        Mistake(
            _gradient_of(lambda logits, classes: logits.gather(1, classes[:, None]).abs().sum()),
            "You take the absolute value of the logit: where it is negative, the gradient is turned round.",
            "trial",
        ),
        Mistake(
            _gradient_of(lambda logits, classes: -_asked(logits, classes)),
            "The sign is turned round, as it would be for a loss: the gradient of the logit itself is wanted.",
            "trial",
        ),
        Mistake(
            _gradient_of(
                lambda logits, classes: _asked(logits, classes) - logits.mean(dim=1).sum(),
            ),
            "You subtract the mean of all logits: that is a comparison of classes. Take the asked logit alone.",
            "trial",
        ),
        Mistake(
            _by_backward,
            "`.backward()` also adds to `.grad` of every parameter, so asking for a map disturbs training: use "
            "`torch.autograd.grad`.",
            "source",
        ),
        Mistake(
            _without_retain_grad,
            "PyTorch keeps no `.grad` for tensors in the middle of a net: ask for it with `torch.autograd.grad`, which also "
            "leaves the parameters alone.",
            "peer",
        ),
        Mistake(
            _changed_pair(lambda a, g: (a, (g,))),
            "`torch.autograd.grad` returns a tuple, here with one entry: unpack it, for example with `[0]`.",
            "trial",
        ),
        Mistake(
            _changed_pair(lambda a, g: (a, g[0])),
            "You take the first image's gradient only: one `[0]` unpacks the tuple, a second one picks an image.",
            "source",
        ),
        Mistake(
            _of_the_images,
            "You differentiate with respect to the images: Grad-CAM wants the gradient with respect to the activations.",
            "trial",
        ),
        Mistake(
            _of_another_pass,
            "The logits come from a second run of the net, in which these activations have no part: use both results of "
            "`capture`.",
            "trial",
        ),
        Mistake(
            _of_a_detached_copy,
            "PyTorch took no notes for what you differentiate with respect to: that must be the activations as `capture` returns them, not the images. Use `.detach()` afterwards, if at all.",
            "peer",
        ),
        Mistake(
            _changed_pair(lambda a, g: (a, g.abs())),
            "You take the absolute value: signs say what speaks for the class and what against it. Keep them.",
            "trial",
        ),
        Mistake(
            _changed_pair(lambda a, g: (a, F.relu(g))),
            "You drop negative gradients: they say what speaks against the class. Keep them.",
            "source",
        ),
        Mistake(
            _changed_pair(lambda a, g: (a, g * (a > 0))),
            "You set the gradient to 0 where the activation is not positive: return it as it comes.",
            "peer",
        ),
        Mistake(
            _changed_pair(lambda a, g: (F.relu(a), g)),
            "You put the activations through a ReLU after the fact: the gradient belongs to the values before it.",
            "source",
        ),
        Mistake(
            _changed_pair(lambda a, g: (a, a * g)),
            "You multiply the gradient by the activations: that comes later, return the gradient alone.",
            "trial",
        ),
        Mistake(
            _changed_pair(lambda a, g: (a, g.mean(dim=(2, 3)))),
            "You average the gradient already: that is the next exercise. Return it with the shape of the activations.",
            "trial",
        ),
        Mistake(
            _changed_pair(lambda a, g: (a, g.mean(dim=0))),
            "You average the gradient over the images: each image keeps its own.",
            "trial",
        ),
        Mistake(
            _changed_pair(lambda a, g: (g, a)),
            "The order is wrong: first the activations, then the gradients.",
            "trial",
        ),
        Mistake(
            _changed_pair(lambda a, g: g),
            "The activations are missing: return both, `activations, gradients`.",
            "trial",
        ),
        Mistake(
            _gradient_in_eval,
            "You leave the net in evaluation mode: whoever goes on training it would not notice. Leave out `net.eval()`.",
            "peer",
        ),
        Mistake(
            _gradient_without_graph,
            "PyTorch took no notes on how you computed what you differentiate: leave out `torch.no_grad()`, `.detach()` and `.item()`, and start from the logits.",
            "peer",
        ),
        Mistake(
            _gradient_of(lambda logits, classes: logits[-1, classes[-1]]),
            "Only the last image gets a gradient: does a loop overwrite those before? One sum over the images needs no loop.",
            "trial",
        ),
        Mistake(
            _batch_for_each_image,
            "Each gradient in your loop is one for the whole batch, 0 for all other images: add up the logits first, then no loop is needed.",
            "trial",
        ),
        Mistake(
            _gradient_of(lambda logits, classes: -F.cross_entropy(logits, classes)),
            "You differentiate the loss with its sign turned back: that is the mean log-probability, with all classes in it. Take the logit.",
            "peer",
        ),
        Mistake(
            _gradient_of(lambda logits, classes: logits.max(dim=1).values),
            "PyTorch differentiates one number, and the largest logits are one per image. Besides, `classes` says which are asked for.",
            "trial",
        ),
    ),
    verified="The gradient of each image's asked logit, also of negative ones; no parameter's `.grad` was touched.",
    hints=(
        "`capture` gives activations and logits that belong together. Pick one logit per image; images do not mix in "
        "the net, so one number, their sum, holds everything.",
        "`torch.autograd.grad(number, tensor)` returns a tuple with one entry per tensor. Indexing with two tensors, "
        "an image number and a class for each, takes one logit per row.",
    ),
    alternatives=(
        _by_backward_and_zero_grad,
        _by_backward_to_the_layer,
        _gradient_by_image,
        _gradient_by_one_hot,
        _gradient_at_a_leaf,
        _gradient_by_func,
    ),
)


# 2.3 -------------------------------------------------------------------------------------------------------


def _layer(rng, dtype):
    """Activations and gradients with signs; the gradients of a channel have a mean that is not zero."""
    activations = rng.normal(size=(3, 7, 5, 4)) + 0.2
    gradients = rng.normal(size=(3, 7, 5, 4)) + rng.normal(size=(3, 7, 1, 1))
    return _tensor(activations, dtype), _tensor(gradients, dtype)


def _layer_cases(rng):
    cases = []
    for dtype in DTYPES:
        activations, gradients = _layer(rng, dtype)
        cases += [(activations, gradients), (activations[:1], gradients[:1])]
    return cases


def _mean(gradients):
    return gradients.mean(dim=(2, 3))


def _cam(activations, weights):
    return (weights[:, :, None, None] * activations).sum(dim=1)


def _weighted(weigh, combine=_cam):
    """Weights from `weigh(activations, gradients)`, (B, K), and the map that `combine` makes with them."""

    def answer(activations, gradients):
        weights = weigh(activations, gradients)
        return weights, combine(activations, weights)

    return answer


def _with_means(combine):
    return _weighted(lambda a, g: _mean(g), combine)


def _min_max(maps):
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return (maps - low) / (high - low)


def _per_map_max(maps):
    return maps / maps.amax(dim=(1, 2), keepdim=True)


def _map_by_loops(a, g):
    weights = torch.zeros(len(a), a.shape[1], dtype=a.dtype)
    maps = torch.zeros(len(a), *a.shape[2:], dtype=a.dtype)
    for b, image in enumerate(a):
        for k, channel in enumerate(image):
            weights[b, k] = g[b, k].sum() / g[b, k].numel()
            maps[b] += weights[b, k] * channel
    return weights, maps


def _map_by_matrix_product(a, g):
    weights = F.adaptive_avg_pool2d(g, 1).flatten(1)
    return [weights, (weights[:, None] @ a.flatten(2)).view(len(a), *a.shape[2:])]


def _map_by_convolution(a, g):
    weights = g.mean(-1).mean(-1)
    grouped = F.conv2d(a.flatten(0, 1)[None], weights[:, :, None, None], groups=len(a))
    return weights, grouped[0]


weights_and_sum = Exercise(
    key="2.3",
    title="channel weights and map",
    reference=sequential_cam.weights_and_map,
    cases=_layer_cases,
    mistakes=(
        Mistake(
            lambda a, g: ((w := g.mean(dim=(0, 2, 3))), (w[:, None, None] * a).sum(dim=1)),
            "Averaged over the images too: each image needs its own weights. Average over axes 2 and 3 only.",
            "source",
        ),
        Mistake(
            _weighted(lambda a, g: g.mean(dim=(0, 2, 3)).expand(len(g), -1)),
            "All images share one set of weights, averaged over the batch: average over axes 2 and 3 only.",
            "source",
        ),
        Mistake(
            lambda a, g: ((w := g.mean(dim=1)), (w[:, None] * a).sum(dim=1)),
            "Averaged over channels: average over rows and columns (axes 2 and 3), so that each channel gets one weight.",
            "trial",
        ),
        Mistake(
            lambda a, g: ((w := g.mean(dim=1, keepdim=True)), (w * a).sum(dim=1)),
            "Averaged over channels (axis 1): each channel wants a weight of its own, its mean over axes 2 and 3.",
            "trial",
        ),
        Mistake(
            _weighted(lambda a, g: g.sum(dim=(2, 3))),
            "You add up the gradients of a channel; Grad-CAM takes their mean.",
            "peer",
        ),
        Mistake(
            _weighted(lambda a, g: g.amax(dim=(2, 3))),
            "You take each channel's largest gradient; Grad-CAM takes the mean.",
            "trial",
        ),
        Mistake(
            _weighted(lambda a, g: _mean(a)),
            "Your weights are the means of the activations; they come from the gradients.",
            "trial",
        ),
        Mistake(
            lambda a, g: ((w := _mean(a)), _cam(g, w)),
            "The roles are swapped: the weights come from the gradients, the map from the activations.",
            "trial",
        ),
        Mistake(
            lambda a, g: ((w := _mean(g)), _cam(g, w)),
            "You add up the gradients with these weights: the map is made of the activations.",
            "trial",
        ),
        Mistake(
            _weighted(lambda a, g: _mean(g).abs()),
            "You take the absolute value of the weights: a channel against the class now speaks for it.",
            "trial",
        ),
        Mistake(
            _weighted(lambda a, g: F.relu(_mean(g))),
            "You drop negative weights: a channel that speaks against the class counts too.",
            "peer",
        ),
        Mistake(
            _weighted(lambda a, g: _mean(F.relu(g))),
            "You drop negative gradients before averaging; the mean needs both signs.",
            "peer",
        ),
        Mistake(
            _weighted(lambda a, g: _mean(g.abs())),
            "You average absolute gradients; the mean needs both signs.",
            "trial",
        ),
        Mistake(
            _weighted(lambda a, g: _mean(g).softmax(dim=1)),
            "You put the weights through a softmax: all become positive, and a channel against the class speaks for it.",
            "trial",
        ),
        Mistake(
            _weighted(lambda a, g: (w := _mean(g)) / w.norm(dim=1, keepdim=True)),
            "You scale the weights to length 1: return the means as they are.",
            "source",
        ),
        Mistake(
            _weighted(lambda a, g: (w := _mean(g)) / w.sum(dim=1, keepdim=True)),
            "You divide the weights by their sum; with both signs in it, that can be anything. Return the means as they are.",
            "trial",
        ),
        Mistake(
            _weighted(lambda a, g: _mean(a * g)),
            "You multiply by the activations before you average: the weights are means of the gradients alone.",
            "trial",
        ),
        Mistake(
            _weighted(lambda a, g: g.mean(dim=(2, 3), keepdim=True), lambda a, w: (w * a).sum(dim=1)),
            "The map is right, but the weights still have their two averaged axes: return them with shape (B, K).",
            "trial",
        ),
        Mistake(
            _weighted(lambda a, g: _mean(g), lambda a, w: w[:, :, None, None] * a),
            "You return one weighted picture per channel: add them up over the channels (axis 1).",
            "trial",
        ),
        Mistake(
            _weighted(lambda a, g: _mean(g), lambda a, w: w * a),
            "The weights have shape (B, K) and do not line up with (B, K, h, w): give them two axes of length 1 at the end.",
            "trial",
        ),
        Mistake(
            _weighted(lambda a, g: _mean(g), lambda a, w: a @ w),
            "`@` multiplies along the last axes, which are columns here: the sum runs over channels.",
            "trial",
        ),
        Mistake(
            _weighted(lambda a, g: g.mean(dim=(1, 2)), lambda a, w: (w[:, None, None] * a).sum(dim=1)),
            "You averaged over channels and rows; rows and columns are axes 2 and 3.",
            "trial",
        ),
        Mistake(
            lambda a, g: ((w := g.mean(dim=3)), (w[..., None] * a).sum(dim=1)),
            "You averaged over the columns only; average over rows and columns, axes 2 and 3.",
            "trial",
        ),
        Mistake(
            lambda a, g: ((w := g.mean(dim=2)), (w[:, :, None] * a).sum(dim=1)),
            "You averaged over the rows only; average over rows and columns, axes 2 and 3.",
            "trial",
        ),
        Mistake(
            lambda a, g: ((w := g.mean()), (w * a).sum(dim=1)),
            "You average over everything at once; each image and channel needs a weight of its own (axes 2 and 3).",
            "trial",
        ),
        Mistake(
            _with_means(lambda a, w: F.relu(_cam(a, w))),
            "Right up to the ReLU, which you already applied: return the map with its signs, the ReLU comes later.",
            "source",
        ),
        Mistake(
            _with_means(lambda a, w: F.relu(w[:, :, None, None] * a).sum(dim=1)),
            "You apply a ReLU to each weighted channel: channels that speak against the class must be subtracted in the sum.",
            "peer",
        ),
        Mistake(
            _with_means(lambda a, w: _cam(F.relu(a), w)),
            "You put the activations through a ReLU: the gradient belongs to them as they came, so leave them.",
            "source",
        ),
        Mistake(
            _with_means(lambda a, w: _cam(a, F.relu(w))),
            "The weights are right, but in the map you drop the negative ones: a channel against the class counts too.",
            "peer",
        ),
        Mistake(
            _with_means(lambda a, w: _cam(a, w).abs()),
            "You take the absolute value of the map: what speaks against the class then looks like evidence for it.",
            "trial",
        ),
        Mistake(
            _with_means(lambda a, w: (w[:, :, None, None] * a).amax(dim=1)),
            "You take the largest weighted channel at each position; add all of them up.",
            "trial",
        ),
        Mistake(
            _with_means(lambda a, w: (w[:, :, None, None] * a).mean(dim=1)),
            "You average the weighted channels at the end; add them up.",
            "peer",
        ),
        Mistake(
            _with_means(lambda a, w: (w[:, :, None, None] * a).sum(dim=0)),
            "You added up the images (axis 0); channels are axis 1.",
            "trial",
        ),
        Mistake(
            _with_means(lambda a, w: (w[:, :, None, None] * a).sum(dim=(2, 3))),
            "You added up rows and columns, so no picture is left: add up the channels (axis 1).",
            "trial",
        ),
        Mistake(
            _with_means(lambda a, w: torch.einsum("bk,ckij->bij", w, a)),
            "Your einsum adds up the images as well: give weights and activations the same letter for the image.",
            "trial",
        ),
        Mistake(
            _with_means(lambda a, w: _min_max(_cam(a, w))),
            "You scale the map from minimum to maximum: zero moves, and signs are lost. Return it as it is.",
            "source",
        ),
        Mistake(
            _with_means(lambda a, w: _per_map_max(_cam(a, w))),
            "You divide the map by its maximum; return it as it is, scaling comes later.",
            "trial",
        ),
        Mistake(
            lambda a, g: (_mean(g), (g * a).sum(dim=1)),
            "The weights are right, but the map does not use them: you multiplied position by position. That is HiResCAM, "
            "the next exercise.",
            "trial",
        ),
        Mistake(
            lambda a, g: (_mean(g), a.sum(dim=1)),
            "The weights are right, but the map does not use them: multiply each channel by its weight before adding up.",
            "trial",
        ),
        Mistake(
            lambda a, g: (g, (g * a).sum(dim=1)),
            "The averaging is missing: each channel gets one weight, the mean of its gradient over rows and columns.",
            "trial",
        ),
        Mistake(
            lambda a, g: (_cam(a, _mean(g)), _mean(g)),
            "The order is wrong: first the weights, then the map.",
            "trial",
        ),
        Mistake(
            lambda a, g: _cam(a, _mean(g)),
            "The weights are missing: return both, `weights, map`.",
            "trial",
        ),
        Mistake(
            lambda a, g: (_mean(g).squeeze(), _cam(a, _mean(g)).squeeze()),
            "`squeeze` also removes the axis of the images when there is only one: leave it out.",
            "trial",
        ),
        Mistake(
            _weighted(lambda a, g: g.sum(dim=(2, 3)) / g.numel()),
            "You divide by the size of the whole batch: the mean runs over the h * w positions of one channel.",
            "trial",
        ),
        Mistake(
            _weighted(lambda a, g: F.relu(_mean(g)), lambda a, w: F.relu(_cam(a, w))),
            "You apply a ReLU to weights and map: return both with their signs, the ReLU comes later, and on the map only.",
            "peer",
        ),
        Mistake(
            _with_means(lambda a, w: _cam(a, w[:1])),
            "You use the first image's weights in every map: each image has its own.",
            "source",
        ),
        Mistake(
            _with_means(lambda a, w: w @ a.flatten(2)),
            "`@` pairs every image's weights with every image's channels here: give the weights a middle axis, or use einsum.",
            "trial",
        ),
    ),
    verified="One weight per image and channel, the mean of its gradient; the weighted channels add up to the map.",
    hints=(
        "Each channel gets one number: how much would the logit rise if the whole channel rose a little everywhere? "
        "Then add the channels up, each times its number, and keep the signs.",
        "`mean` takes several axes at once, as in `dim=(2, 3)`. `torch.einsum` multiplies and adds up in one go: "
        "a letter that is missing after the arrow is summed over.",
    ),
    alternatives=(
        _map_by_loops,
        _map_by_matrix_product,
        _map_by_convolution,
        _weighted(lambda a, g: torch.einsum("bkij->bk", g) / g[0, 0].numel()),
    ),
)


# 2.4 -------------------------------------------------------------------------------------------------------


def _blank_cases(rng):
    """Batches with signs and after a ReLU: all blank, some, none; one map alone."""
    cases = []
    for dtype in DTYPES:
        mixed = rng.normal(size=(10, 5, 4))
        mixed[0] = np.abs(mixed[0]) + 0.1  # positive everywhere
        mixed[1] = 0
        mixed[2] = -np.abs(mixed[2]) - 0.1  # negative everywhere: blank
        mixed[3] = -0.5  # the same at one level
        mixed[4] = -np.abs(mixed[4]) - 3
        mixed[4, 2, 1] = 0.7  # one positive pixel, a very negative total
        mixed[5] = np.minimum(mixed[5], 0)
        mixed[5, 0, 3] = 1e-30  # tiny, but positive
        mixed[6] = np.minimum(mixed[6], 0)  # zeros and negative values: blank
        mixed[7] = 0
        mixed[7, 1, :2] = 0.5, -0.5  # they cancel
        mixed[8] = 0.5
        mixed[9] = np.abs(mixed[9]) + 0.1
        mixed[9, 4, 2] = -0.3  # one negative pixel
        batches = (
            mixed,
            np.maximum(mixed, 0),
            mixed[[1, 2, 6]],
            mixed[[2, 4]],
            mixed[[0, 4]],
            mixed[:1],
            mixed[2:3],
            mixed[rng.choice(10, size=rng.integers(3, 10), replace=False)],
            mixed[rng.choice(10, size=rng.integers(3, 10), replace=False)],
        )
        cases += [(_tensor(batches[i], dtype),) for i in rng.permutation(len(batches))]
    return cases


def _share(blank):
    return blank.double().mean().item()


def _blank_by_loop(maps):
    count = 0
    for one in maps:
        if not any(value > 0 for value in one.flatten().tolist()):
            count += 1
    return count / len(maps)


def _safe_min_max(maps):
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low), 0)


blanks = Exercise(
    key="2.4",
    title="how many maps are blank",
    reference=metrics.blank_rate,
    cases=_blank_cases,
    mistakes=(
        Mistake(
            lambda maps: _share((maps == 0).all(dim=2).all(dim=1)),
            "You count maps that are exactly 0: one that is negative is blank too, once the ReLU was applied.",
            "trial",
        ),
        Mistake(
            lambda maps: _share(maps.sum(dim=(1, 2)) <= 0),
            "You look at a map's total or mean: that can be negative although a pixel is positive. Look at every pixel.",
            "trial",
        ),
        Mistake(
            lambda maps: _share(maps.sum(dim=(1, 2)) == 0),
            "You look for maps whose total is 0: a negative map is blank as well, and positive and negative pixels can cancel.",
            "peer",
        ),
        Mistake(
            lambda maps: _share(maps.sum(dim=(1, 2)) < 0),
            "You look for maps with a negative total: a map of zeros is blank too, and one with a positive pixel is not.",
            "trial",
        ),
        Mistake(
            lambda maps: (maps.amax(dim=(1, 2)) <= 0).mean(),
            "PyTorch takes no mean of True and False: turn them into numbers first, with `.float()`.",
            "trial",
        ),
        Mistake(
            lambda maps: _share(maps <= 0),
            "That is the share of pixels that are not positive; wanted is the share of maps in which no pixel is.",
            "trial",
        ),
        Mistake(
            lambda maps: float((maps.amax(dim=(1, 2)) <= 0).sum()),
            "You count the blank maps: divide by the number of maps to get their share.",
            "trial",
        ),
        Mistake(
            lambda maps: float((maps.amax(dim=(1, 2)) <= 0).sum()) / maps.numel(),
            "You divide by the number of pixels: divide by the number of maps.",
            "trial",
        ),
        Mistake(
            lambda maps: _share(maps.amax(dim=(1, 2)) > 0),
            "That is the share of maps that are not blank.",
            "trial",
        ),
        Mistake(
            lambda maps: _share(maps.amin(dim=(1, 2)) <= 0),
            "You count maps with any pixel that is not positive: in a blank map that holds for all pixels.",
            "trial",
        ),
        Mistake(
            lambda maps: _share(maps.amin(dim=(1, 2)) > 0),
            "You look at each map's minimum, or ask whether all pixels are positive; one positive pixel is enough for a map "
            "that is not blank.",
            "trial",
        ),
        Mistake(
            lambda maps: float((maps <= 0).all()),
            "You get 1 if all maps are blank and 0 otherwise: decide for each map (axes 1 and 2), not for the whole batch, and divide with `/`, not `//`.",
            "trial",
        ),
        Mistake(
            lambda maps: _share(maps.amax(dim=(1, 2)) < 0),
            "You ask for negative values everywhere (`< 0`): 0 is not positive either, and after a ReLU nothing is negative.",
            "trial",
        ),
        Mistake(
            lambda maps: _share((_min_max(maps) <= 0).flatten(1).all(dim=1)),
            "No map counts as blank. If you scale the maps first, leave that out: scaling moves zero, and every map gets "
            "a maximum of 1.",
            "source",
        ),
        Mistake(
            lambda maps: _share((_safe_min_max(maps) <= 0).flatten(1).all(dim=1)),
            "Only maps with the same value everywhere count as blank. If you scale the maps first, leave that out: "
            "it moves zero.",
            "source",
        ),
        Mistake(
            lambda maps: 100 * _share(maps.amax(dim=(1, 2)) <= 0),
            "You return percent: wanted is a share from 0 to 1.",
            "trial",
        ),
        Mistake(
            lambda maps: _share(maps.amax(dim=(1, 2)) <= 1e-6),
            "You treat tiny positive values as nothing: a map may be small throughout, and colours are scaled later. Compare "
            "with 0.",
            "peer",
        ),
        Mistake(
            lambda maps: _share((maps <= 0).all(dim=1)),
            "That is the share of blank columns: a map is blank over axes 1 and 2 together.",
            "trial",
        ),
        Mistake(
            lambda maps: _share((maps <= 0).all(dim=2)),
            "That is the share of blank rows: a map is blank over axes 1 and 2 together.",
            "trial",
        ),
        Mistake(
            lambda maps: _share((maps <= 0).all(dim=0)),
            "You look along the images (axis 0): decide for each map, over axes 1 and 2.",
            "trial",
        ),
        Mistake(
            lambda maps: (maps.amax(dim=(1, 2)) <= 0).double(),
            "You return one answer per map, and all are right: the share is their mean, one number.",
            "trial",
        ),
        Mistake(
            lambda maps: _share((maps <= 0).double().mean(dim=(1, 2)) > 0.5),
            "You count maps in which most pixels are not positive: a map is blank only if all are.",
            "trial",
        ),
        Mistake(
            lambda maps: float(maps[0].max() <= 0),
            "You look at the first map only.",
            "trial",
        ),
        Mistake(
            lambda maps: _share(maps.amax(dim=(1, 2)) == 0),
            "You ask whether a map's maximum is exactly 0: one that is negative everywhere is blank too.",
            "trial",
        ),
        Mistake(
            lambda maps: float((maps <= 0).sum()) / len(maps),
            "You count pixels: decide for each map (axes 1 and 2) whether all its pixels are at most 0, then count maps.",
            "trial",
        ),
        Mistake(
            lambda maps: maps.max(dim=1) <= 0,
            "`max` along an axis returns two things, the values and where they are: use `amax`, which returns the values only.",
            "trial",
        ),
        Mistake(
            lambda maps: maps.max((1, 2)) <= 0,
            "`max` takes one axis at a time: use `amax`, which takes several.",
            "trial",
        ),
        Mistake(
            lambda maps: maps.max(dim=(1, 2)) <= 0,
            "`max(dim=...)` takes one axis at a time: use `amax(dim=...)`, which takes several.",
            "trial",
        ),
        Mistake(
            lambda maps: len([one for one in maps if one <= 0]) / len(maps),
            "`one <= 0` has an answer for every pixel, and `if` wants one for the map: add `.all()`.",
            "trial",
        ),
    ),
    verified="The share of maps without any positive pixel, with signs and after a ReLU, tiny values included.",
    hints=(
        "When is there nothing to draw after a ReLU? Put it as a question about every pixel of one map, or about a single "
        "number of that map.",
        "`maps.flatten(1)` has one row per map; `all`, `any` or `amax` along it give one answer per map. The mean of "
        "numbers that are 0 or 1 is a share.",
    ),
    alternatives=(
        lambda maps: float((maps.amax(dim=(1, 2)) <= 0).float().mean()),
        _blank_by_loop,
        lambda maps: 1 - (maps.flatten(1) > 0).any(dim=1).float().mean(),
        lambda maps: (maps.amax(dim=(1, 2)) <= 0).double().mean(),
        lambda maps: np.mean([one.max().item() <= 0 for one in maps]),
        lambda maps: (F.relu(maps).sum(dim=(1, 2)) == 0).to(maps.dtype).mean().numpy(),
        lambda maps: np.float32((maps.numpy() <= 0).all(axis=(1, 2)).mean()),
    ),
    rtol64=1e-6,  # the mean of a float32 mask is right too, whatever the maps are
)


# 2.5 -------------------------------------------------------------------------------------------------------


def _hires_by_loops(a, g):
    maps = []
    for i in range(len(a)):
        one = torch.zeros(a.shape[2:], dtype=a.dtype)
        for k in range(a.shape[1]):
            one = one + a[i, k] * g[i, k]
        maps.append(one)
    return torch.stack(maps)


hires = Exercise(
    key="2.5",
    title="HiResCAM",
    reference=saliency.hires_cam,
    cases=_layer_cases,
    mistakes=(
        Mistake(
            lambda a, g: _cam(a, _mean(g)),
            "You keep the averaging: that is Grad-CAM. HiResCAM multiplies every position by its own gradient.",
            "source",
        ),
        Mistake(
            lambda a, g: (g.abs() * a).sum(dim=1),
            "You take the absolute value of the gradients: what speaks against the class now speaks for it.",
            "trial",
        ),
        Mistake(
            lambda a, g: (g * a).abs().sum(dim=1),
            "You take the absolute value of each product: evidence for and against must be able to cancel.",
            "trial",
        ),
        Mistake(
            lambda a, g: (g * a).sum(dim=1).abs(),
            "You take the absolute value of the map: what speaks against the class then looks like evidence for it.",
            "trial",
        ),
        Mistake(
            lambda a, g: (F.relu(g) * a).sum(dim=1),
            "You drop negative gradients: they say what speaks against the class, and belong in the sum.",
            "trial",
        ),
        Mistake(
            lambda a, g: (g * F.relu(a)).sum(dim=1),
            "You put the activations through a ReLU: the gradient belongs to them as they came, so leave them.",
            "source",
        ),
        Mistake(
            lambda a, g: F.relu(g * a).sum(dim=1),
            "You drop negative products before the sum: what speaks against the class must be subtracted.",
            "trial",
        ),
        Mistake(
            lambda a, g: F.relu((g * a).sum(dim=1)),
            "Right up to the ReLU: return the map with its signs, the ReLU comes later.",
            "source",
        ),
        Mistake(
            lambda a, g: (g * a).mean(dim=1),
            "You average over the channels; add them up.",
            "peer",
        ),
        Mistake(
            lambda a, g: (g * a).amax(dim=1),
            "You take the largest product of all channels; add them up.",
            "trial",
        ),
        Mistake(
            lambda a, g: (g * a).sum(dim=(2, 3)),
            "You added up rows and columns, so one number per channel is left: add up the channels (axis 1).",
            "trial",
        ),
        Mistake(
            lambda a, g: (g * a).sum(dim=(1, 2, 3)),
            "You added up everything, so one number per image is left: add up the channels only (axis 1).",
            "trial",
        ),
        Mistake(
            lambda a, g: (g * a).sum(),
            "You added up everything, images included: add up the channels only (axis 1).",
            "trial",
        ),
        Mistake(
            lambda a, g: (g * a).sum(dim=0),
            "You added up the images (axis 0); channels are axis 1.",
            "trial",
        ),
        Mistake(
            lambda a, g: (g * a).sum(dim=(0, 1)),
            "You added up images and channels: each image keeps its own map, so add up axis 1 only.",
            "trial",
        ),
        Mistake(
            lambda a, g: (g * a).sum(dim=-1),
            "You added up the columns (the last axis); channels are axis 1.",
            "trial",
        ),
        Mistake(
            lambda a, g: (g * a).sum(dim=2),
            "You added up the rows (axis 2): axes count from 0, so the channels are axis 1.",
            "trial",
        ),
        Mistake(
            lambda a, g: (g * a).sum(dim=1, keepdim=True),
            "The numbers are right, but the summed axis is still there: leave out `keepdim`.",
            "trial",
        ),
        Mistake(
            lambda a, g: g * a,
            "The sum over the channels (axis 1) is missing.",
            "trial",
        ),
        Mistake(
            lambda a, g: g.sum(dim=1),
            "You add up the gradients alone: multiply them by the activations first.",
            "trial",
        ),
        Mistake(
            lambda a, g: a.sum(dim=1),
            "You add up the activations alone: multiply them by the gradients first.",
            "trial",
        ),
        Mistake(
            lambda a, g: g.sum(dim=1) * a.sum(dim=1),
            "You add up before you multiply: multiply channel by channel, then add up.",
            "trial",
        ),
        Mistake(
            lambda a, g: (_mean(g)[:, :, None, None] * g * a).sum(dim=1),
            "You multiply by the channel's mean gradient as well: the gradient of each position is enough.",
            "trial",
        ),
        Mistake(
            lambda a, g: (g.mean(dim=1, keepdim=True) * a).sum(dim=1),
            "You average the gradient over the channels: HiResCAM averages nothing.",
            "trial",
        ),
        Mistake(
            lambda a, g: (g * a).sum(dim=1) / a[0, 0].numel(),
            "You divide by the number of positions; nothing is averaged in HiResCAM.",
            "trial",
        ),
        Mistake(
            lambda a, g: (g @ a).sum(dim=1),
            "`@` is the matrix product; every position is multiplied by its own gradient, with `*`.",
            "trial",
        ),
        Mistake(
            lambda a, g: (g.square() * a).sum(dim=1),
            "You square the gradient, and its sign is gone: multiply by it once.",
            "peer",
        ),
        Mistake(
            lambda a, g: _min_max((g * a).sum(dim=1)),
            "You scale the map from minimum to maximum: zero moves, and signs are lost. Return it as it is.",
            "source",
        ),
        Mistake(
            lambda a, g: _per_map_max((g * a).sum(dim=1)),
            "You divide the map by its maximum; return it as it is, scaling comes later.",
            "trial",
        ),
        Mistake(
            lambda a, g: (g * a).sum(dim=1).squeeze(),
            "`squeeze` also removes the axis of the images when there is only one: leave it out.",
            "trial",
        ),
        Mistake(
            lambda a, g: (g[:1] * a).sum(dim=1),
            "You use the first image's gradients for every image.",
            "trial",
        ),
        Mistake(
            lambda a, g: torch.einsum("bkij,ckij->bij", g, a),
            "Your einsum adds up the images as well: give both tensors the same letter for the image.",
            "trial",
        ),
        Mistake(
            lambda a, g: (_mean(g) * a).sum(dim=1),
            "You average the gradient, and the means no longer line up with the activations: HiResCAM averages nothing.",
            "trial",
        ),
        Mistake(lambda a, g: (g * a)[:, 0], "You keep the first channel only; add all of them up.", "trial"),
        Mistake(
            lambda a, g: (F.relu(g) * F.relu(a)).sum(dim=1),
            "You put both through a ReLU: what is negative belongs in the sum.",
            "trial",
        ),
    ),
    verified="Every position of every channel times its own gradient, added up over the channels, signs kept.",
    hints=(
        "Grad-CAM gives a whole channel one weight. What changes if each position keeps the gradient that it has?",
        "Gradients and activations have the same shape, so one product does all positions at once. Which axis must go to "
        "get from (B, K, h, w) to (B, h, w)?",
    ),
    alternatives=(
        _hires_by_loops,
        lambda a, g: torch.einsum("bkij,bkij->bij", a, g),
        lambda a, g: sum(x * y for x, y in zip(a.unbind(1), g.unbind(1), strict=True)),
        lambda a, g: torch.linalg.vecdot(a, g, dim=1),
    ),
)


# 2.6 -------------------------------------------------------------------------------------------------------


def _grad_cam_cases(rng):
    """No class given, class 0 and another one for all, one class per image, class 0 of one image."""
    cases = []
    for dtype in DTYPES:
        net, images, classes = _net_and_images(rng, dtype)
        cases += [
            (net, "relu2", images),
            (net, "conv2", images, classes),
            (net, "relu1", images, 0),
            (net, "relu2", images, int(classes[0])),
            (net, "relu2", images[1:2], classes[1:2]),
            (net, "conv2", images[2:], None),
        ]
    return cases


def _wanted(logits, classes):
    """The class of each image: given for all, given for each, or predicted."""
    if classes is None:
        classes = logits.argmax(dim=1)
    return torch.as_tensor(classes).expand(len(logits))


def _signed(activations, gradients):
    return _cam(activations, _mean(gradients))


def _assembled(choose=_wanted, score=_asked, draw=_signed, finish=F.relu):
    """Grad-CAM put together from parts: which classes, which score, how the map is made, what is done to it."""

    def answer(net, layer, images, classes=None):
        activations, logits = capture(net, layer, images)
        (gradients,) = torch.autograd.grad(score(logits, choose(logits, classes)), activations)
        return finish(draw(activations.detach(), gradients))

    return answer


def _predicted(logits, classes=None):
    return logits.argmax(dim=1)


def _zero_taken_for_none(logits, classes):
    return _wanted(logits, classes or _predicted(logits))


def _number_zero_taken_for_none(logits, classes):
    nothing = classes is None or (not isinstance(classes, torch.Tensor) and not classes)
    return _wanted(logits, None if nothing else classes)


def _int_refused(logits, classes):
    return _predicted(logits) if classes is None else classes


def _every_class_for_every_image(logits, classes):
    return logits[:, classes].sum()


def _without_choice(logits, classes):
    return classes


def _with_trace(trace):
    """The right maps, after `trace(net)`, which the net keeps."""

    def answer(net, layer, images, classes=None):
        trace(net)
        return sequential_cam.grad_cam(net, layer, images, classes)

    return answer


def _cam_by_backward(net, layer, images, classes=None):
    activations, logits = capture(net, layer, images)
    activations.retain_grad()
    _asked(logits, _wanted(logits, classes)).backward()
    return F.relu(_signed(activations.detach(), activations.grad))


def _cam_by_backward_in_eval(net, layer, images, classes=None):
    net.eval()
    return _cam_by_backward(net, layer, images, classes)


def _cam_without_graph(net, layer, images, classes=None):
    with torch.no_grad():
        return _assembled()(net, layer, images, classes)


def _cam_with_hook_left(net, layer, images, classes=None):
    activations, logits = _hook_left(net, layer, images)
    (gradients,) = torch.autograd.grad(_asked(logits, _wanted(logits, classes)), activations)
    return F.relu(_signed(activations.detach(), gradients))


def _cam_at(layer_used):
    return lambda net, layer, images, classes=None: sequential_cam.grad_cam(net, layer_used, images, classes)


def _resized(maps, images):
    size = images.shape[2:]
    return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def _cam_and_pictures(net, layer, images, classes=None):
    return _resized(sequential_cam.grad_cam(net, layer, images, classes), images)


def _cam_by_image(net, layer, images, classes=None):
    maps = []
    for i, image in enumerate(images):
        activations, logits = capture(net, layer, image.unsqueeze(0))
        if classes is None:
            klass = logits.argmax()
        elif isinstance(classes, int):
            klass = classes
        else:
            klass = classes[i]
        gradients = torch.autograd.grad(logits[0, klass], activations)[0]
        weights = gradients.mean(-1).mean(-1)
        maps.append(torch.clamp((weights[0, :, None, None] * activations[0]).sum(0), min=0))
    return torch.stack(maps)


def _cam_by_steps(net, layer, images, classes=None):
    if classes is None:
        classes = net(images).max(1)[1]
    elif isinstance(classes, int):
        classes = torch.full((len(images),), classes)
    a, g = sequential_cam.logit_gradient(net, layer, images, classes)
    return torch.maximum(sequential_cam.weights_and_map(a, g)[1], torch.zeros(1, dtype=a.dtype))


def _cam_in_eval(net, layer, images, classes=None):
    was_training = net.training
    net.eval()
    try:
        return _cam_by_steps(net, layer, images, classes)
    finally:
        net.train(was_training)


def _cam_with_graph(net, layer, images, classes=None):
    activations, logits = capture(net, layer, images)
    picked = logits[torch.arange(len(images)), logits.argmax(1) if classes is None else classes]
    gradients = torch.autograd.grad(picked.sum(), activations)[0]
    return F.relu(torch.einsum("bk,bkij->bij", _mean(gradients), activations))


assembling = Exercise(
    key="2.6",
    title="Grad-CAM in one function",
    reference=sequential_cam.grad_cam,
    cases=_grad_cam_cases,
    mistakes=(
        Mistake(
            _assembled(_zero_taken_for_none),
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
            _assembled(lambda logits, classes: _predicted(logits)),
            "You always explain the predicted class and ignore `classes`.",
            "source",
        ),
        Mistake(
            _assembled(
                _without_choice,
                lambda logits, classes: (
                    logits.max(dim=1).values.sum()
                    if classes is None
                    else _every_class_for_every_image(logits, classes)
                ),
            ),
            "`logits[:, classes]` is right for one class; given one class per image, it takes all of them for every image. "
            "Pair each row with its own class.",
            "trial",
        ),
        Mistake(
            _assembled(score=_every_class_for_every_image),
            "`logits[:, classes]` takes every class in `classes` for every image: pair each row with its own class.",
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
            _assembled(
                lambda logits, classes: _wanted(logits, _wanted(logits, classes)[:1]),
            ),
            "You use the first image's class for every image: each has its own, given or predicted.",
            "source",
        ),
        Mistake(
            _assembled(
                lambda logits, classes: _wanted(logits, logits.argmax(dim=0) if classes is None else classes)
            ),
            "You take the argmax over axis 0, the images; classes are axis 1.",
            "trial",
        ),
        Mistake(
            _assembled(
                lambda logits, classes: logits.argmax(dim=0) if classes is None else _wanted(logits, classes),
            ),
            "`argmax(dim=0)` finds an image for every class; `dim=1` finds a class for every image.",
            "trial",
        ),
        Mistake(
            _assembled(
                lambda logits, classes: logits.argmax() if classes is None else classes,
                lambda logits, classes: logits[torch.arange(len(logits)), classes].sum(),
            ),
            "`argmax()` without an axis counts through all logits of all images: with `dim=1` it finds a class for each image.",
            "trial",
        ),
        Mistake(
            _assembled(
                lambda logits, classes: _wanted(logits, logits.argmax() if classes is None else classes)
            ),
            "`argmax` without an axis gives one number for the whole batch: `dim=1` gives one class for each image.",
            "trial",
        ),
        Mistake(
            _assembled(_int_refused),
            "A number is one class for all images, and has no axes: make a tensor with one entry per image of it first.",
            "trial",
        ),
        Mistake(
            _assembled(
                lambda logits, classes: (
                    _predicted(logits) if classes is None else torch.tensor([int(classes)])
                ),
            ),
            "`int(classes)` works for one class only: `classes` may also be a tensor with one class per image.",
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
            lambda net, layer, images, classes=None: sequential_cam.logit_gradient(
                net, layer, images, classes
            ),
            "`logit_gradient` wants one class per image, and returns activations and gradients, not yet a map.",
            "trial",
        ),
        Mistake(
            _assembled(finish=lambda maps: maps),
            "The ReLU is missing: negative values stay.",
            "trial",
        ),
        Mistake(
            _assembled(
                finish=lambda maps: F.relu(maps) / (F.relu(maps).amax(dim=(1, 2), keepdim=True) + 1e-8)
            ),
            "You divide each map by its maximum, with a small number added: return the values as they are, scaling comes later.",
            "trial",
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
            _assembled(draw=lambda a, g: F.relu(_mean(g)[:, :, None, None] * a).sum(dim=1)),
            "You apply the ReLU to each weighted channel: first the sum, in which channels for and against can cancel, then "
            "the ReLU.",
            "peer",
        ),
        Mistake(
            _assembled(draw=lambda a, g: _cam(a, F.relu(_mean(g)))),
            "You drop negative weights: a channel that speaks against the class counts too. The ReLU comes after the sum.",
            "peer",
        ),
        Mistake(
            _assembled(draw=lambda a, g: _cam(a, _mean(F.relu(g)))),
            "You drop negative gradients before averaging: the mean needs both signs. The ReLU comes after the sum.",
            "peer",
        ),
        Mistake(
            _assembled(draw=lambda a, g: _cam(a, _mean(g).abs())),
            "You take the absolute value of the weights: a channel against the class now speaks for it.",
            "trial",
        ),
        Mistake(
            _assembled(draw=lambda a, g: _cam(F.relu(a), _mean(g))),
            "You put the activations through a ReLU: the gradient belongs to them as they came. The ReLU comes after the sum.",
            "source",
        ),
        Mistake(
            _assembled(draw=lambda a, g: (g * a).sum(dim=1)),
            "That is HiResCAM with a ReLU: Grad-CAM averages the gradient of each channel first.",
            "trial",
        ),
        Mistake(
            _assembled(draw=lambda a, g: _cam(a, g.sum(dim=(2, 3)))),
            "You add up the gradients of a channel; Grad-CAM takes their mean.",
            "peer",
        ),
        Mistake(
            _assembled(draw=lambda a, g: _cam(a, g.mean(dim=(0, 2, 3))[None])),
            "Averaged over the images too: each image needs its own weights.",
            "source",
        ),
        Mistake(
            _assembled(draw=lambda a, g: (_mean(g)[:, :, None, None] * a).mean(dim=1)),
            "You average the weighted channels at the end; add them up.",
            "peer",
        ),
        Mistake(
            _assembled(draw=lambda a, g: (_mean(g)[:, :, None, None] * a).amax(dim=1)),
            "You take the largest weighted channel at each position; add all of them up.",
            "trial",
        ),
        Mistake(
            _assembled(score=lambda logits, classes: _asked(logits.softmax(dim=1), classes)),
            "You explain the probability: other classes are mixed in, and it fades where the net is sure. Take the logit.",
            "source",
        ),
        Mistake(
            _assembled(score=lambda logits, classes: _asked(logits.log_softmax(dim=1), classes)),
            "You explain the log-probability: every other class has a say in it. Take the logit.",
            "trial",
        ),
        Mistake(
            _assembled(score=lambda logits, classes: F.cross_entropy(logits, classes, reduction="sum")),
            "You explain the loss: what lowers it speaks for the class, so the map shows the opposite. Take the logit.",
            "peer",
        ),
        Mistake(
            _assembled(score=lambda logits, classes: F.cross_entropy(logits, classes)),
            "You explain the mean loss: what lowers it speaks for the class, so the map shows the opposite. Take the logit.",
            "peer",
        ),
        Mistake(
            _assembled(score=lambda logits, classes: logits.sum()),
            "You explain all classes at once: pick one logit per image.",
            "peer",
        ),
        Mistake(
            _assembled(score=lambda logits, classes: _asked(logits, classes) / len(logits)),
            "You average the logits over the images, so every map is divided by their number: add them up.",
            "trial",
        ),
        Mistake(
            _cam_at("relu2"),
            "You always use the last layer with maps, whatever `layer` says.",
            "source",
        ),
        Mistake(
            _cam_at("conv2"),
            "You always use the last convolution, whatever `layer` says.",
            "peer",
        ),
        Mistake(
            _assembled(finish=lambda maps: _per_map_max(F.relu(maps))),
            "You divide each map by its maximum, and a blank map becomes 0 / 0: return the values as they are, scaling comes "
            "later.",
            "source",
        ),
        Mistake(
            _assembled(
                finish=lambda maps: (
                    F.relu(maps) / F.relu(maps).amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
                )
            ),
            "You divide each map by its maximum: return the values as they are, scaling comes later.",
            "source",
        ),
        Mistake(
            _assembled(finish=lambda maps: F.relu(maps) / F.relu(maps).max()),
            "You divide by the largest value of the batch: return the values as they are, scaling comes later.",
            "source",
        ),
        Mistake(
            _assembled(finish=_min_max),
            "You scale each map from minimum to maximum instead of dropping what is negative: zero moves.",
            "source",
        ),
        Mistake(
            _assembled(finish=lambda maps: _min_max(F.relu(maps))),
            "After the ReLU you scale each map from minimum to maximum: return the values as they are.",
            "source",
        ),
        Mistake(
            _cam_and_pictures,
            "You bring the maps to the size of the images: return them at the size of the layer.",
            "peer",
        ),
        Mistake(
            _assembled(finish=lambda maps: F.relu(maps).squeeze()),
            "`squeeze` also removes the axis of the images when there is only one: leave it out.",
            "trial",
        ),
        Mistake(
            _assembled(finish=lambda maps: F.relu(maps)[0]),
            "You return the first image's map only: there is one for every image.",
            "source",
        ),
        Mistake(
            _assembled(draw=lambda a, g: (_mean(g), _signed(a, g)), finish=lambda pair: pair),
            "You return weights and map as `weights_and_map` gives them: take the map alone, and put it through the ReLU.",
            "trial",
        ),
        Mistake(
            _assembled(draw=lambda a, g: (_mean(g), F.relu(_signed(a, g))), finish=lambda pair: pair),
            "You return weights and map: the map alone is wanted.",
            "trial",
        ),
        Mistake(
            _with_trace(lambda net: net.eval()),
            "The maps are right, but you leave the net in evaluation mode: whoever goes on training it would not notice. Leave "
            "out `net.eval()`, or put the mode back.",
            "peer",
        ),
        Mistake(
            _with_trace(lambda net: net.train()),
            "The maps are right, but you switch the net to training mode: leave its mode as it is.",
            "peer",
        ),
        Mistake(
            _cam_by_backward,
            "The maps are right, but `.backward()` leaves gradients in the parameters, which disturbs training: use "
            "`torch.autograd.grad`, or your `logit_gradient`.",
            "source",
        ),
        Mistake(
            _cam_with_hook_left,
            "The maps are right, but your hook stays on the layer and runs on every later call: remove it, or use `capture`.",
            "peer",
        ),
        Mistake(
            _assembled(lambda logits, classes: classes if classes else _predicted(logits)),
            "You ask whether `classes` is true, but 0 counts as false and a tensor has no one answer: ask `classes is None`. A number must become one class per image, too.",
            "source",
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
                    _predicted(logits) if classes is None else torch.tensor([classes] * len(logits))
                )
            ),
            "Repeating `classes` is right for a number, but a tensor has one class per image already: leave that as it is.",
            "trial",
        ),
        Mistake(
            _assembled(draw=lambda a, g: _signed(g, a)),
            "You exchanged activations and gradients: the weights come from the gradients, the map from the activations.",
            "trial",
        ),
        Mistake(
            _cam_by_backward_in_eval,
            "The maps are right, but `net.eval()` and `.backward()` both leave their mark on the net: use `logit_gradient` instead, which leaves none.",
            "peer",
        ),
        Mistake(
            _cam_without_graph,
            "PyTorch took no notes: only the search for the predicted class may stand under `torch.no_grad()`.",
            "peer",
        ),
    ),
    verified="Never negative, for the predicted class, one for all (0 too) or one per image, at any layer; the net is as before.",
    hints=(
        "All steps are there: find the class of each image, then `logit_gradient`, `weights_and_map`, and one last step that "
        "leaves nothing negative. Start with the three kinds of `classes`.",
        "0 is a class, so only `is None` tells whether one was given. `torch.as_tensor(...)` takes a number or a tensor, "
        "`expand` repeats it; `clamp(min=0)` is a ReLU.",
    ),
    alternatives=(_cam_by_image, _cam_by_steps, _cam_in_eval, _cam_with_graph, _assembled()),
)


# 2.7 -------------------------------------------------------------------------------------------------------


def _gap_cases(rng):
    """Activations and gradients that no such net has: there all three maps are one, and mistakes hide."""
    cases = []
    for dtype in DTYPES:
        activations, gradients = _layer(rng, dtype)
        weight = _tensor(rng.normal(size=(9, 7)) + 0.3, dtype)
        classes = torch.tensor([8, 0, 5])
        cases += [
            (activations, gradients, weight, classes),
            (activations[2:], gradients[2:], weight, classes[2:]),
        ]
    return cases


def _three(
    cam=lambda a, weight, classes: _cam(a, weight[classes]), weigh=_mean, size=lambda a: a[0, 0].numel()
):
    """The three maps, with other weights of CAM's, another average or another factor."""

    def answer(a, g, weight, classes):
        return cam(a, weight, classes), size(a) * _cam(a, weigh(g)), size(a) * (g * a).sum(dim=1)

    return answer


def _changed_maps(change):
    """What `change(cam, grad_cam, hires_cam, size)` makes of the right maps and h * w."""
    return lambda a, g, weight, classes: change(
        *sequential_cam.gap_maps(a, g, weight, classes), a[0, 0].numel()
    )


def _gap_by_loops(a, g, weight, classes):
    rows, columns = a.shape[-2:]
    cam, grad_cam, hires_cam = torch.zeros(3, len(a), rows, columns, dtype=a.dtype)
    for b in range(len(a)):
        for k in range(a.shape[1]):
            cam[b] += weight[classes[b], k] * a[b, k]
            grad_cam[b] += g[b, k].sum() * a[b, k]  # a sum is h * w times the mean
            hires_cam[b] += rows * columns * g[b, k] * a[b, k]
    return cam, grad_cam, hires_cam


def _gap_by_helpers(a, g, weight, classes):
    size = a.shape[2] * a.shape[3]
    one_hot = F.one_hot(classes, len(weight)).to(weight)
    cam = torch.einsum("bc,ck,bkij->bij", one_hot, weight, a)
    return [cam, size * sequential_cam.weights_and_map(a, g)[1], size * saliency.hires_cam(a, g)]


def _gap_by_matrix_product(a, g, weight, classes):
    size = a.shape[-2:].numel()
    every_class = (a.movedim(1, -1) @ weight.T).movedim(-1, 1)
    cam = every_class[torch.arange(len(a)), classes]
    return cam, torch.einsum("bkxy,bkij->bij", g, a), (size * g * a).sum(1)


gap = Exercise(
    key="2.7",
    title="three maps under a GAP head",
    reference=sequential_cam.gap_maps,
    cases=_gap_cases,
    mistakes=(
        Mistake(
            _three(size=lambda a: 1),
            "The factor h * w is missing: the average spreads every weight over all positions, so both gradient maps are that "
            "much smaller than CAM.",
            "trial",
        ),
        Mistake(
            _three(size=lambda a: a.shape[2]),
            "You multiply by the number of rows only: the average runs over h * w positions.",
            "trial",
        ),
        Mistake(
            _three(size=lambda a: a.shape[3]),
            "You multiply by the number of columns only: the average runs over h * w positions.",
            "trial",
        ),
        Mistake(
            _three(size=lambda a: a.shape[2] ** 2),
            "You multiply by h * h: the maps are not square, so take h * w.",
            "trial",
        ),
        Mistake(
            _three(size=lambda a: a.shape[3] ** 2),
            "You multiply by w * w: the maps are not square, so take h * w.",
            "trial",
        ),
        Mistake(
            _three(size=lambda a: a[0].numel()),
            "You count the channels too: the average runs over h * w positions, of each channel by itself.",
            "trial",
        ),
        Mistake(
            _three(size=lambda a: a.numel()),
            "You count every number of the activations: the average runs over h * w positions, of each channel by itself.",
            "trial",
        ),
        Mistake(
            _three(size=lambda a: a.shape[0] * a.shape[1]),
            "You multiply by images times channels: h and w are the last two axes, `shape[2]` and `shape[3]`.",
            "trial",
        ),
        Mistake(
            _three(size=lambda a: a.shape[1] * a.shape[2]),
            "You multiply by channels times rows: h and w are the last two axes, `shape[2]` and `shape[3]`.",
            "trial",
        ),
        Mistake(
            _three(size=lambda a: 1 / a[0, 0].numel()),
            "You divide by h * w: the gradient has been divided by it already, so multiply to get CAM back.",
            "trial",
        ),
        Mistake(
            _changed_maps(lambda cam, grad_cam, hires, size: (size * cam, grad_cam, hires)),
            "You scale CAM as well: its weights come from the linear layer itself and need no factor.",
            "trial",
        ),
        Mistake(
            _changed_maps(lambda cam, grad_cam, hires, size: (cam / size, grad_cam, hires)),
            "You divide CAM by h * w: its weights come from the linear layer itself and need no factor.",
            "trial",
        ),
        Mistake(
            _changed_maps(lambda cam, grad_cam, hires, size: (cam / size, grad_cam / size, hires / size)),
            "You divide CAM by h * w and leave the other two as they are: leave CAM, and multiply the other two.",
            "trial",
        ),
        Mistake(
            _changed_maps(lambda cam, grad_cam, hires, size: (cam, grad_cam, hires / size)),
            "HiResCAM misses its factor h * w: its gradient was divided by it too.",
            "trial",
        ),
        Mistake(
            _changed_maps(lambda cam, grad_cam, hires, size: (cam, grad_cam / size, hires)),
            "Grad-CAM misses its factor h * w: a mean of gradients does not undo it.",
            "trial",
        ),
        Mistake(
            _changed_maps(lambda cam, grad_cam, hires, size: (cam, size * grad_cam, hires)),
            "Grad-CAM has the factor h * w twice: a sum of gradients is h * w times their mean already.",
            "trial",
        ),
        Mistake(
            _three(cam=lambda a, weight, classes: _cam(a, weight[classes[:1]])),
            "CAM uses the first image's class for every image: take one row of `weight` per image.",
            "source",
        ),
        Mistake(
            _three(cam=lambda a, weight, classes: _cam(a, weight[:, classes])),
            "`weight[:, classes]` picks columns, that is, channels: each class has its row.",
            "trial",
        ),
        Mistake(
            _three(cam=lambda a, weight, classes: _cam(a, weight.T[classes])),
            "You transposed `weight`: it has one row per class already.",
            "trial",
        ),
        Mistake(
            _three(cam=lambda a, weight, classes: _cam(a, weight[classes - 1])),
            "One row too high up: classes count from 0, so class c has row c.",
            "trial",
        ),
        Mistake(
            _three(cam=lambda a, weight, classes: _cam(a, weight[: len(a)])),
            "CAM takes the first rows of `weight`, one after the other: the rows that are wanted stand in `classes`.",
            "trial",
        ),
        Mistake(
            _three(cam=lambda a, weight, classes: torch.einsum("ck,bkij->bij", weight, a)),
            "CAM adds up the weights of all classes: take the row of the asked class, `weight[classes]`.",
            "trial",
        ),
        Mistake(
            _three(cam=lambda a, weight, classes: torch.einsum("ck,bkij->bcij", weight, a)),
            "You return CAM for every class: keep the map of the asked class for each image.",
            "trial",
        ),
        Mistake(
            _three(cam=lambda a, weight, classes: torch.einsum("ck,bkij->bij", weight[classes], a)),
            "Your einsum for CAM adds up the asked classes of all images: the rows `weight[classes]` and the activations need "
            "the same letter for the image.",
            "trial",
        ),
        Mistake(
            _three(cam=lambda a, weight, classes: (weight[classes] * a).sum(dim=1)),
            "`weight[classes]` has shape (B, K) and does not line up with (B, K, h, w): give it two axes of length 1 at the end.",
            "trial",
        ),
        Mistake(
            _three(cam=lambda a, weight, classes: (weight[classes][:, :, None, None] * a).mean(dim=1)),
            "CAM averages the weighted channels; add them up.",
            "trial",
        ),
        Mistake(
            _three(cam=lambda a, weight, classes: _cam(a, weight[classes].softmax(dim=1))),
            "You put CAM's weights through a softmax: take them as the linear layer has them.",
            "trial",
        ),
        Mistake(
            _three(cam=lambda a, weight, classes: _cam(a, F.relu(weight[classes]))),
            "You drop negative weights in CAM: a channel that speaks against the class counts too.",
            "trial",
        ),
        Mistake(
            _three(cam=lambda a, weight, classes: _cam(a, weight[classes].abs())),
            "You take the absolute value of CAM's weights: a channel against the class now speaks for it.",
            "trial",
        ),
        Mistake(
            _three(weigh=lambda g: g.amax(dim=(2, 3))),
            "Grad-CAM takes each channel's largest gradient; take the mean.",
            "trial",
        ),
        Mistake(
            _three(weigh=lambda g: g.mean(dim=(0, 2, 3))[None]),
            "Grad-CAM averages over the images too: each image needs its own weights.",
            "source",
        ),
        Mistake(
            _three(weigh=lambda g: g[:, :, 0, 0]),
            "Grad-CAM takes the gradient at one position. Under this head all are alike, but the method is the mean.",
            "trial",
        ),
        Mistake(
            _changed_maps(lambda cam, grad_cam, hires, size: (F.relu(cam), F.relu(grad_cam), F.relu(hires))),
            "You applied a ReLU: return all three maps with their signs.",
            "source",
        ),
        Mistake(
            _changed_maps(lambda cam, grad_cam, hires, size: (cam, F.relu(grad_cam), hires)),
            "Grad-CAM went through its ReLU: to be compared, all three maps keep their signs.",
            "source",
        ),
        Mistake(
            _changed_maps(lambda cam, grad_cam, hires, size: (cam, F.relu(grad_cam), F.relu(hires))),
            "Two of the maps went through a ReLU: return all three with their signs.",
            "trial",
        ),
        Mistake(
            _changed_maps(lambda cam, grad_cam, hires, size: (cam, hires, grad_cam)),
            "Grad-CAM and HiResCAM are exchanged: the order is CAM, Grad-CAM, HiResCAM.",
            "trial",
        ),
        Mistake(
            _changed_maps(lambda cam, grad_cam, hires, size: (grad_cam, cam, hires)),
            "CAM and Grad-CAM are exchanged: the order is CAM, Grad-CAM, HiResCAM.",
            "trial",
        ),
        Mistake(
            _changed_maps(lambda cam, grad_cam, hires, size: (grad_cam, hires, cam)),
            "CAM stands at the end: the order is CAM, Grad-CAM, HiResCAM.",
            "trial",
        ),
        Mistake(
            _changed_maps(lambda cam, grad_cam, hires, size: (cam, cam, cam)),
            "You return CAM three times. They come out equal under this head, but that is to be shown: compute the other two "
            "from the gradients.",
            "trial",
        ),
        Mistake(
            _changed_maps(lambda cam, grad_cam, hires, size: (cam, grad_cam, grad_cam)),
            "Your HiResCAM is Grad-CAM again: HiResCAM multiplies every position by its own gradient, without the mean.",
            "trial",
        ),
        Mistake(
            _changed_maps(lambda cam, grad_cam, hires, size: (cam, hires, hires)),
            "Your Grad-CAM is HiResCAM again: Grad-CAM averages the gradient of each channel first.",
            "trial",
        ),
        Mistake(
            _changed_maps(lambda cam, grad_cam, hires, size: (grad_cam, grad_cam, hires)),
            "Your CAM is Grad-CAM again: CAM's weights come from the linear layer, one row of `weight` per image.",
            "trial",
        ),
        Mistake(
            _changed_maps(
                lambda cam, grad_cam, hires, size: (_min_max(cam), _min_max(grad_cam), _min_max(hires))
            ),
            "You scaled each map from minimum to maximum: then even unequal maps look alike. Return the values as they are.",
            "peer",
        ),
        Mistake(
            _changed_maps(
                lambda cam, grad_cam, hires, size: tuple(_per_map_max(m) for m in (cam, grad_cam, hires))
            ),
            "You divided each map by its maximum, which hides a missing factor: return the values as they are.",
            "peer",
        ),
        Mistake(
            _changed_maps(lambda cam, grad_cam, hires, size: torch.stack((cam, grad_cam, hires))),
            "You return one tensor: return the three maps one by one, `cam, grad_cam, hires_cam`.",
            "trial",
        ),
        Mistake(
            _three(size=lambda a: 14 * 14),
            "You multiply by 14 * 14: take h * w from the shape of the activations, so that it works for every layer.",
            "trial",
        ),
        Mistake(
            _three(size=lambda a: 28 * 28),
            "You multiply by 28 * 28: h and w are those of the activations, not of the image.",
            "trial",
        ),
        Mistake(
            _changed_maps(lambda cam, grad_cam, hires, size: (hires, grad_cam, cam)),
            "The order is turned round: CAM first, then Grad-CAM, then HiResCAM.",
            "trial",
        ),
        Mistake(
            _changed_maps(lambda cam, grad_cam, hires, size: (F.relu(cam), grad_cam, hires)),
            "CAM went through a ReLU: to be compared, all three maps keep their signs.",
            "trial",
        ),
        Mistake(
            _changed_maps(lambda cam, grad_cam, hires, size: (cam, grad_cam)),
            "HiResCAM is missing: return three maps.",
            "trial",
        ),
    ),
    verified="CAM from the linear layer, the other two from gradients times h * w, signs kept, for maps that are not square.",
    hints=(
        "You have the last two maps already, from exercises 2.3 and 2.5; only a factor is missing. CAM is the sum of 2.3 with "
        "other weights: which numbers does the linear layer give to the channels of one class?",
        "`weight[classes]` has one row of K weights per image. For the factor: how does a position's gradient change when the "
        "average runs over twice as many positions?",
    ),
    alternatives=(_gap_by_loops, _gap_by_helpers, _gap_by_matrix_product),
)

EXERCISES = (capturing, logit_gradients, weights_and_sum, hires, blanks, assembling, gap)
