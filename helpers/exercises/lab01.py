"""Exercises of lab 01: saliency in NumPy.

Inputs are chosen so that mistakes show: no two lengths are equal, biases and means are not zero, pooling
windows tie, some logits and some whole maps are negative; one image is tried as well as several.

Where a mistake was seen: "source" is the code that the lab's methods come from, "peer" another course or library,
"trial" an answer that somebody gave while the lab was taught or tried.
"""

import numpy as np

from helpers import numpy_nn, overlay, saliency
from helpers.metrics import ink_share
from helpers.numpy_nn import as_columns, conv_forward, maxpool_forward, pool_slices, softmax
from helpers.saliency import class_saliency, seed

from . import Exercise, Mistake

DTYPES = (np.float32, np.float64)


# 1.1 -------------------------------------------------------------------------------------------------------


def _relu_cases(rng):
    cases = []
    for dtype in DTYPES:
        x = rng.normal(size=(2, 3, 6, 5)).round(1).astype(dtype)  # rounded: some inputs are exactly 0
        x[0, 0, 0, :3] = 0
        cases.append((rng.normal(size=x.shape).astype(dtype), x))
    return cases


def _relu_by_loop(grad_out, x):
    out = np.empty(grad_out.shape)
    for index in np.ndindex(x.shape):
        out[index] = grad_out[index] if x[index] > 0 else 0.0
    return out


relu = Exercise(
    key="1.1",
    title="ReLU backward",
    reference=numpy_nn.relu_backward,
    cases=_relu_cases,
    mistakes=(
        Mistake(
            lambda grad_out, x: grad_out * (x >= 0),
            "You let the gradient pass where the input is exactly 0; there the output is flat on one side, and "
            "the convention is 0: use `x > 0`.",
            "peer",
        ),
        Mistake(
            lambda grad_out, x: grad_out * (grad_out > 0),
            'You keep positive gradients instead of positive inputs: that is the "deconvolution" rule, '
            "which is no gradient. Ask where `x` was positive.",
            "trial",
        ),
        Mistake(
            lambda grad_out, x: grad_out * (x > 0) * (grad_out > 0),
            "You also drop negative gradients: that is guided backpropagation, which is no longer a gradient.",
            "peer",
        ),
        Mistake(
            lambda grad_out, x: grad_out * x,
            "You multiply by the input: that is gradient times input. ReLU passes the gradient on or stops it.",
            "trial",
        ),
        Mistake(
            lambda grad_out, x: grad_out * np.maximum(x, 0),
            "You multiply by ReLU's output: its slope is wanted, which is 1 or 0.",
            "trial",
        ),
        Mistake(
            lambda grad_out, x: np.where(x > 0, 1.0, 0.0),
            "You return the slope of ReLU alone; multiply it by what arrives from behind, `grad_out`.",
            "trial",
        ),
        Mistake(
            lambda grad_out, x: grad_out * (x < 0),
            "You stop the gradient where the input was positive: the comparison is the wrong way round.",
            "trial",
        ),
        Mistake(
            lambda grad_out, x: grad_out.copy(),
            "You pass everything on, as if there were no ReLU.",
            "source",
        ),
        Mistake(
            lambda grad_out, x: x * (grad_out > 0),
            "The two are swapped: the sign of the input decides, and the gradient is what passes.",
            "trial",
        ),
        Mistake(
            lambda grad_out, x: grad_out * np.sign(x),
            "`np.sign` is -1 for negative inputs, so their gradient comes back upside down; its slope there is 0.",
            "trial",
        ),
        Mistake(
            lambda grad_out, x: grad_out * np.heaviside(x, 0.5),
            "At exactly 0 you let half of the gradient pass; the convention is none.",
            "trial",
        ),
        Mistake(
            lambda grad_out, x: np.maximum(x, 0),
            "That is the forward pass, ReLU itself; its slope, times `grad_out`, is wanted.",
            "trial",
        ),
        Mistake(
            lambda grad_out, x: np.where(x > 0, grad_out, x),
            "Where the input is not positive you return the input; nothing passes there, so return 0.",
            "trial",
        ),
        Mistake(
            lambda grad_out, x: grad_out if x > 0 else 0 * grad_out,
            "`x` is a whole array, and `if` wants one yes or no: compare, and use the result as a mask.",
            "trial",
        ),
    ),
    verified="Gradients pass exactly where the input was positive, in float32 and float64, at zeros too.",
    hints=(
        "Draw ReLU. What is its slope left of 0, and what right of 0? The chain rule multiplies by that slope.",
        "`x > 0` is an array of True and False, and NumPy multiplies by it as by 1 and 0.",
    ),
    alternatives=(
        lambda grad_out, x: np.where(x > 0, grad_out, 0),
        _relu_by_loop,
        lambda grad_out, x: np.heaviside(x.astype(np.float64), 0) * grad_out,
    ),
)


# 1.2 -------------------------------------------------------------------------------------------------------


def _seed_cases(rng):
    cases = []
    for dtype in DTYPES:
        logits = rng.normal(size=(5, 7)).astype(dtype)
        others = rng.permutation(np.arange(1, 7))
        classes = rng.permutation([0, others[0], others[0], others[1], others[2]])  # 0, and one class twice
        logits[0, classes[0]], logits[1, classes[1]] = -1.5, 2.5  # one asked logit is negative
        cases.append((logits, classes))
    return cases


def _with_value(value):
    """A seed that carries `value(logits)` at the asked class."""
    return lambda logits, classes: seed(logits, classes) * value(logits)


def _seed_by_loop(logits, classes):
    out = np.zeros(logits.shape)
    for row, klass in zip(out, classes, strict=True):
        row[klass] = 1.0
    return out


seeding = Exercise(
    key="1.2",
    title="the seed of the backward pass",
    reference=saliency.seed,
    cases=_seed_cases,
    mistakes=(
        Mistake(
            _with_value(lambda logits: logits),
            "You start from the logit's value instead of 1. The derivative of a logit with respect to itself is 1; "
            "with the value, the map of a class with a negative logit is turned upside down.",
            "source",
        ),
        Mistake(
            _with_value(softmax),
            "You start from the probability instead of 1: maps of improbable classes fade away.",
            "trial",
        ),
        Mistake(
            lambda logits, classes: logits.copy(),
            "You start from all logits at once: that is the gradient of half their squared length, not of one class.",
            "source",
        ),
        Mistake(
            lambda logits, classes: np.ones_like(logits),
            "You start from 1 for every class: that is the gradient of the sum of all logits.",
            "peer",
        ),
        Mistake(
            lambda logits, classes: seed(logits, np.full_like(classes, classes[0])),
            "You ask for the first image's class on every image: each row has a class of its own.",
            "trial",
        ),
        Mistake(
            lambda logits, classes: seed(logits, logits.argmax(axis=1)),
            "You ask for the predicted class and ignore `classes`.",
            "source",
        ),
        Mistake(
            lambda logits, classes: seed(logits, classes) / np.float32(len(logits)),
            "You divide by the number of images, as a mean loss would: each image wants its own, whole gradient.",
            "trial",
        ),
        Mistake(
            lambda logits, classes: softmax(logits) - seed(logits, classes),
            "You start from the gradient of the cross-entropy: that explains the loss, with every other class mixed in.",
            "trial",
        ),
        Mistake(
            lambda logits, classes: np.repeat(
                (np.arange(7) == classes[:, None]).any(axis=0)[None] * 1.0, 5, axis=0
            ),
            "You marked all asked classes in every row (`[:, classes]`): pair each row with its own class.",
            "trial",
        ),
        Mistake(
            lambda logits, classes: seed(logits, classes) - softmax(logits),
            "You subtract the probabilities: that is the gradient of the log-probability, in which every class has a say.",
            "trial",
        ),
        Mistake(
            lambda logits, classes: softmax(logits),
            "You start from all probabilities at once; only the asked class has an entry, and it is 1.",
            "trial",
        ),
        Mistake(
            lambda logits, classes: (
                (seed(logits, classes) * softmax(logits)).sum(axis=1, keepdims=True)
                * (seed(logits, classes) - softmax(logits))
            ),
            "That is the gradient of the probability, not of the logit: it vanishes where the net is sure.",
            "trial",
        ),
        Mistake(
            lambda logits, classes: seed(logits, classes - 1),
            "One class too low: classes count from 0.",
            "trial",
        ),
        Mistake(
            lambda logits, classes: np.eye(*logits.shape),
            "You mark class 0 for the first image, class 1 for the second, and so on; the classes stand in `classes`.",
            "trial",
        ),
    ),
    verified="One 1 per image, at the class that was asked for, whatever the sign of its logit.",
    hints=(
        "If the score is logit number c, how much does the score change per unit of logit c? And of the others?",
        "Start from `np.zeros_like(logits)`. Indexing with two arrays, `[np.arange(len(logits)), classes]`, "
        "takes one element per row.",
    ),
    alternatives=(
        lambda logits, classes: np.eye(logits.shape[1])[classes],
        _seed_by_loop,
        lambda logits, classes: (np.arange(logits.shape[1]) == classes[:, None]).astype(np.float32),
    ),
)


# 1.3 -------------------------------------------------------------------------------------------------------


def _small_net(rng, channels, classes=4):
    """A net for 6 x 5 images with biases everywhere, which has seen other images before."""
    net = numpy_nn.Sequential(
        conv1=numpy_nn.Conv2d(channels, 4),
        relu1=numpy_nn.ReLU(),
        conv2=numpy_nn.Conv2d(4, 5),
        relu2=numpy_nn.ReLU(),
        flatten=numpy_nn.Flatten(),
        linear=numpy_nn.Linear(5 * 6 * 5, classes, scale=0.2),
    )
    net.initialise(rng)
    for name, parameter in net.parameters():
        if name.endswith("bias"):
            parameter.value[...] = rng.normal(size=parameter.value.shape) * 0.2
    return net


def _saliency_cases(rng):
    cases = []
    for dtype in DTYPES:
        net = _small_net(rng, channels=3).astype(dtype)
        images, others = rng.random((2, 3, 3, 6, 5)).astype(dtype)
        logits = net.forward(images)
        classes = logits.argsort(axis=1)[[0, 1, 2], [0, 2, 1]]  # never the predicted one, the lowest once
        net.forward(others)  # what the layers remember is not about `images`
        cases.append((net, images, classes))
        cases.append((net, images[:1], classes[:1]))
    return cases


def _gradient(net, images, classes):
    return net.gradient(seed(net.forward(images), classes))


def _min_max(maps):
    low, high = maps.min(axis=(1, 2), keepdims=True), maps.max(axis=(1, 2), keepdims=True)
    return (maps - low) / (high - low)


def _stale(net, images, classes):
    return np.abs(net.gradient(seed(net.outputs["linear"], classes))).max(axis=1)


def _with_backward(net, images, classes):
    return np.abs(net.backward(seed(net.forward(images), classes))).max(axis=1)


def _of_the_loss(net, images, classes):
    _, grad = numpy_nn.cross_entropy(net.forward(images), classes)
    return np.abs(net.gradient(grad)).max(axis=1)


def _saliency_by_loop(net, images, classes):
    maps = np.zeros((len(images), *images.shape[2:]))
    for i in range(len(images)):  # one image at a time, and one channel after the other
        gradient = _gradient(net, images[i : i + 1], classes[i : i + 1])[0]
        for channel in gradient:
            maps[i] = np.maximum(maps[i], np.abs(channel))
    net.forward(images)
    return maps


saliency_map = Exercise(
    key="1.3",
    title="class saliency",
    reference=saliency.class_saliency,
    cases=_saliency_cases,
    mistakes=(
        Mistake(
            lambda net, images, classes: _gradient(net, images, classes).max(axis=1),
            "The absolute value is missing: a strong negative gradient counts as nothing in the maximum.",
            "trial",
        ),
        Mistake(
            lambda net, images, classes: np.abs(_gradient(net, images, classes).max(axis=1)),
            "You take the maximum before the absolute value: a channel with a strong negative gradient loses.",
            "trial",
        ),
        Mistake(
            lambda net, images, classes: np.abs(_gradient(net, images, classes)).sum(axis=1),
            "You add up the channels; take the largest.",
            "trial",
        ),
        Mistake(
            lambda net, images, classes: np.abs(_gradient(net, images, classes)).mean(axis=1),
            "You average the channels; take the largest.",
            "peer",
        ),
        Mistake(
            lambda net, images, classes: np.abs(_gradient(net, images, classes)).max(axis=0),
            "You took the maximum over the images (axis 0); channels are axis 1.",
            "trial",
        ),
        Mistake(
            lambda net, images, classes: np.abs(_gradient(net, images, classes)).mean(axis=0),
            "You averaged over the images (axis 0): every image keeps its own map. Channels are axis 1.",
            "trial",
        ),
        Mistake(
            _of_the_loss,
            "You differentiated the loss: that mixes all classes. Start from the seed of the asked class.",
            "peer",
        ),
        Mistake(
            lambda net, images, classes: _min_max(_gradient(net, images, classes).max(axis=1)),
            "You scaled signed gradients from minimum to maximum: no influence then looks like some. "
            "Return the absolute values as they are.",
            "source",
        ),
        Mistake(
            lambda net, images, classes: _min_max(np.abs(_gradient(net, images, classes)).max(axis=1)),
            "You scaled each map from minimum to maximum; return the values as they are, scaling comes later.",
            "source",
        ),
        Mistake(
            _stale,
            "You use what the layers remember of other images: run `net.forward(images)` first.",
            "trial",
        ),
        Mistake(
            _with_backward,
            "`net.backward` adds to the gradients of the parameters, so asking for a map disturbs training; "
            "use `net.gradient`.",
            "source",
        ),
        Mistake(
            lambda net, images, classes: class_saliency(net, images, net.forward(images).argmax(axis=1)),
            "You explain the predicted class and ignore `classes`.",
            "source",
        ),
        Mistake(
            lambda net, images, classes: np.abs(images * _gradient(net, images, classes)).max(axis=1),
            "You multiplied by the image: that is gradient times input, another method.",
            "trial",
        ),
        Mistake(
            lambda net, images, classes: np.abs(net.gradient(net.forward(images))).max(axis=1),
            "You start from the logits themselves instead of the seed of exercise 1.2: all classes are mixed.",
            "source",
        ),
        Mistake(
            lambda net, images, classes: np.abs(
                net.gradient(softmax(net.forward(images)) - seed(net.outputs["linear"], classes))
            ).max(axis=1),
            "You start from probability minus one-hot, as for the cross-entropy: that mixes all classes.",
            "trial",
        ),
        Mistake(
            lambda net, images, classes: (
                (m := class_saliency(net, images, classes)) / m.max(axis=(1, 2), keepdims=True)
            ),
            "You divide each map by its maximum; return the values as they are, scaling comes later.",
            "trial",
        ),
        Mistake(
            lambda net, images, classes: np.abs(_gradient(net, images, classes))[:, 0],
            "You keep the first channel only; take the largest of all channels.",
            "trial",
        ),
        Mistake(
            lambda net, images, classes: np.abs(
                net.gradient(seed(net.forward(images), classes) * net.outputs["linear"])
            ).max(axis=1),
            "You start from the logit's value instead of 1, the mistake of exercise 1.2: use the seed alone.",
            "trial",
        ),
        Mistake(
            lambda net, images, classes: np.abs(net.gradient(np.ones_like(net.forward(images)))).max(axis=1),
            "You start from 1 for every class: that is the gradient of the sum of all logits.",
            "trial",
        ),
        Mistake(
            lambda net, images, classes: np.maximum(_gradient(net, images, classes), 0).max(axis=1),
            "You drop negative gradients; a pixel that pushes the logit down when it gets brighter matters as much.",
            "trial",
        ),
        Mistake(
            lambda net, images, classes: np.square(_gradient(net, images, classes)).max(axis=1),
            "You squared the gradient; take its absolute value.",
            "trial",
        ),
        Mistake(
            lambda net, images, classes: class_saliency(net, images, classes).squeeze(),
            "`squeeze` also removes the axis of the images when there is only one; take the maximum over axis 1.",
            "trial",
        ),
    ),
    verified="The absolute gradient of the asked class's logit, largest channel, per image; the net is as before.",
    hints=(
        "Three steps: forward, then the gradient of the asked logit, then one number per pixel.",
        "`net.gradient(seed(logits, classes))` has the shape of the images, (B, C, H, W). Channels are axis 1.",
    ),
    alternatives=(
        _saliency_by_loop,
        lambda net, images, classes: np.maximum(
            (g := _gradient(net, images, classes)).max(axis=1), -g.min(axis=1)
        ),
        lambda net, images, classes: np.sqrt(
            np.square(_gradient(net, images, classes).astype(np.float64)).max(axis=1)
        ),
    ),
)


# 1.4 -------------------------------------------------------------------------------------------------------


def _layer_cases(rng):
    """Activations and gradients with signs; the gradients of a channel have a mean that is not zero."""
    cases = []
    for dtype in DTYPES:
        activations = rng.normal(size=(2, 3, 6, 5))
        gradients = rng.normal(size=(2, 3, 6, 5)) + rng.normal(size=(2, 3, 1, 1))
        cases.append((activations.astype(dtype), gradients.astype(dtype)))
        cases.append((activations[:1].astype(dtype), gradients[:1].astype(dtype)))
    return cases


def _cam(activations, weights):
    return (weights * activations).sum(axis=1)


def _mean(gradients):
    return gradients.mean(axis=(2, 3), keepdims=True)


def _cam_by_loop(activations, gradients):
    maps = np.zeros((len(activations), *activations.shape[2:]))
    for b, image in enumerate(activations):
        for k, channel in enumerate(image):
            maps[b] += channel * gradients[b, k].sum() / gradients[b, k].size
    return maps


cam = Exercise(
    key="1.4",
    title="channel weights and map",
    reference=saliency.class_activation_map,
    cases=_layer_cases,
    mistakes=(
        Mistake(
            lambda a, g: _cam(a, g.mean(axis=1, keepdims=True)),
            "Averaged over channels; average over the two spatial axes, so that each channel gets one weight.",
            "trial",
        ),
        Mistake(
            lambda a, g: _cam(a, g.mean(axis=(0, 2, 3), keepdims=True)),
            "Averaged over the images too: each image needs its own weights.",
            "source",
        ),
        Mistake(
            lambda a, g: _cam(a, g.sum(axis=(2, 3), keepdims=True)),
            "You add up the gradients of a channel; Grad-CAM takes their mean.",
            "peer",
        ),
        Mistake(
            lambda a, g: np.maximum(_cam(a, _mean(g)), 0),
            "Right up to the ReLU, which you already applied: return the signed map, the ReLU comes later.",
            "source",
        ),
        Mistake(
            lambda a, g: _cam(a, np.maximum(_mean(g), 0)),
            "You drop negative weights: a channel that speaks against the class counts too.",
            "peer",
        ),
        Mistake(
            lambda a, g: _cam(a, np.abs(_mean(g))),
            "You take the absolute value of the weights: a channel against the class now speaks for it.",
            "trial",
        ),
        Mistake(
            lambda a, g: (g * a).sum(axis=1),
            "The averaging is missing: you multiplied position by position. That is HiResCAM, which comes later.",
            "trial",
        ),
        Mistake(
            lambda a, g: _cam(np.maximum(a, 0), _mean(g)),
            "You put the activations through ReLU, but the gradient is the one before it: take A as it came.",
            "source",
        ),
        Mistake(
            lambda a, g: (_mean(g) * a).mean(axis=1),
            "You average the weighted channels at the end; add them up.",
            "source",
        ),
        Mistake(
            lambda a, g: (_mean(g) * a).sum(axis=0),
            "You added up the images (axis 0); channels are axis 1.",
            "trial",
        ),
        Mistake(
            lambda a, g: _cam(g, _mean(a)),
            "The roles are swapped: the weights come from the gradients, the map from the activations.",
            "trial",
        ),
        Mistake(
            lambda a, g: _cam(a, g.max(axis=(2, 3), keepdims=True)),
            "You take each channel's largest gradient; Grad-CAM takes the mean.",
            "trial",
        ),
        Mistake(
            lambda a, g: g.mean(axis=(2, 3)) * a,
            "The weights have shape (B, C) and cannot be lined up with (B, C, h, w): keep the averaged axes "
            "(`keepdims=True`).",
            "trial",
        ),
        Mistake(
            lambda a, g: (g.mean() * a).sum(axis=1),
            "You average over everything at once; each image and channel needs a weight of its own (axes 2 and 3).",
            "trial",
        ),
        Mistake(
            lambda a, g: _cam(a, g.mean(axis=(1, 2), keepdims=True)),
            "You averaged over channels and rows; the spatial axes are 2 and 3.",
            "trial",
        ),
        Mistake(
            lambda a, g: _cam(a, g.mean(axis=3, keepdims=True)),
            "You averaged over the columns only; average over rows and columns, axes 2 and 3.",
            "trial",
        ),
        Mistake(
            lambda a, g: _cam(a, np.maximum(g, 0).mean(axis=(2, 3), keepdims=True)),
            "You drop negative gradients before averaging; the mean needs both signs.",
            "trial",
        ),
        Mistake(
            lambda a, g: np.maximum(_mean(g) * a, 0).sum(axis=1),
            "You apply a ReLU to each channel; channels that speak against the class must be subtracted.",
            "trial",
        ),
        Mistake(
            lambda a, g: np.abs(_cam(a, _mean(g))),
            "You take the absolute value of the map: what speaks against the class then looks like evidence.",
            "trial",
        ),
        Mistake(
            lambda a, g: _cam(a, _mean(g)).squeeze(),
            "`squeeze` also removes the axis of the images when there is only one; `sum(axis=1)` is enough.",
            "trial",
        ),
    ),
    verified="One weight per image and channel, the mean of its gradient; the weighted channels add up to the map.",
    hints=(
        "Each channel gets one number: how much would the logit rise if the whole channel rose a little everywhere?",
        "`gradients.mean(axis=(2, 3), keepdims=True)` has shape (B, C, 1, 1), which multiplies (B, C, h, w).",
    ),
    alternatives=(
        _cam_by_loop,
        lambda a, g: np.einsum("bk,bkij->bij", g.mean(axis=(2, 3)), a),
        lambda a, g: (a.astype(np.float64) * g.mean(axis=3).mean(axis=2)[:, :, None, None]).sum(axis=1),
    ),
)


# 1.5 -------------------------------------------------------------------------------------------------------


def _unit_cases(rng):
    """Mixed signs, maps with tiny ranges, one that is 0, one without anything positive."""
    cases = []
    for dtype in DTYPES:
        maps = rng.normal(size=(6, 6, 4))
        maps[1] *= 1e-6
        maps[2] = 0
        maps[3] = -np.abs(maps[3]) - 0.5
        maps[4] = 0.7
        maps[5] *= 1e-20
        cases.append((maps.astype(dtype),))
        cases.append((maps[:1].astype(dtype),))
    return cases


def _largest(maps):
    return maps.max(axis=(1, 2), keepdims=True)


def _unit_by_loop(maps):
    out = np.zeros(maps.shape)
    for i, signed in enumerate(maps):
        positive = np.where(signed > 0, signed, 0.0)
        if positive.any():
            out[i] = positive / positive.max()
    return out


def _safe_min_max(maps):
    low = maps.min(axis=(1, 2), keepdims=True)
    span = _largest(maps) - low
    return np.where(span > 0, (maps - low) / np.where(span > 0, span, 1), 0)


unit = Exercise(
    key="1.5",
    title="scaling to one",
    reference=overlay.to_unit,
    cases=_unit_cases,
    mistakes=(
        Mistake(
            _min_max,
            "Min-max scaling moves zero, so evidence against the class is drawn as weak evidence for it, "
            "and a constant map divides 0 by 0.",
            "source",
        ),
        Mistake(
            _safe_min_max,
            "Min-max scaling moves zero: evidence against the class is drawn as weak evidence for it.",
            "source",
        ),
        Mistake(
            lambda maps: _safe_min_max(np.maximum(maps, 0)),
            "After the ReLU you still subtract the minimum: a map that is positive everywhere loses its level, "
            "and a constant map vanishes.",
            "source",
        ),
        Mistake(
            lambda maps: np.maximum(maps, 0) / (_largest(np.maximum(maps, 0)) + 1e-5),
            "The constant added to the maximum erases small maps: one here has a range of 1e-6. "
            "Divide by the maximum itself, and treat 0 apart.",
            "peer",
        ),
        Mistake(
            lambda maps: np.maximum(maps, 0) / (_largest(np.maximum(maps, 0)) + 1e-8),
            "The constant added to the maximum changes small maps: one here has a range of 1e-6. "
            "Divide by the maximum itself, and treat 0 apart.",
            "peer",
        ),
        Mistake(
            lambda maps: np.maximum(maps, 0) / maps.max(),
            "You divide by the largest value of the whole batch; each map has its own maximum.",
            "trial",
        ),
        Mistake(
            lambda maps: np.maximum(maps, 0) / _largest(np.maximum(maps, 0)),
            "A map without positive evidence becomes 0 / 0 = NaN: let it stay 0.",
            "trial",
        ),
        Mistake(
            lambda maps: maps / _largest(maps),
            "The ReLU is missing: negative values stay, and a map that is negative everywhere is divided by a "
            "negative maximum, so its strongest objection shows as evidence.",
            "trial",
        ),
        Mistake(
            lambda maps: np.divide(maps, _largest(maps), out=np.zeros_like(maps), where=_largest(maps) > 0),
            "The ReLU is missing: negative values stay below 0.",
            "trial",
        ),
        Mistake(
            lambda maps: np.divide(
                np.abs(maps),
                _largest(np.abs(maps)),
                out=np.zeros_like(maps),
                where=_largest(np.abs(maps)) > 0,
            ),
            "You take absolute values: evidence against the class then looks like evidence for it.",
            "trial",
        ),
        Mistake(
            lambda maps: np.maximum(maps / _largest(maps), 0),
            "You divide before dropping the negative: a map that is negative everywhere is divided by its negative maximum and turns positive.",
            "trial",
        ),
        Mistake(
            lambda maps: np.maximum(
                np.divide(maps, _largest(maps), out=np.zeros_like(maps), where=_largest(maps) != 0), 0
            ),
            "A map that is negative everywhere has a negative maximum, and dividing by it turns objection into evidence: drop the negative first.",
            "trial",
        ),
        Mistake(
            lambda maps: np.maximum(maps, 0),
            "You dropped the negative; now divide each map by its maximum.",
            "trial",
        ),
        Mistake(
            lambda maps: np.clip(maps, 0, 1),
            "`clip` cuts off what is above 1 and leaves small maps small; divide each map by its maximum.",
            "trial",
        ),
        Mistake(
            lambda maps: (
                (p := np.maximum(maps, 0))
                / np.where(p.any(axis=(1, 2), keepdims=True), p.sum(axis=(1, 2), keepdims=True), 1)
            ),
            "You divide by the total of each map; divide by its maximum.",
            "trial",
        ),
        Mistake(
            lambda maps: (
                np.maximum(maps, 0)
                / np.where((top := np.abs(maps).max(axis=(1, 2), keepdims=True)) > 0, top, 1)
            ),
            "You divide by the largest absolute value: where that one was negative, the map no longer reaches 1.",
            "trial",
        ),
        Mistake(
            lambda maps: overlay.to_unit(maps).squeeze(),
            "`squeeze` also removes the axis of the maps when there is only one: return the shape that came in.",
            "trial",
        ),
    ),
    verified="Each map runs from 0 to its own 1; zero stays zero, tiny maps survive, blank ones stay blank.",
    hints=(
        "First drop what is negative. Then ask for each map: is there anything left to divide by?",
        "`positive.max(axis=(1, 2), keepdims=True)` is each map's maximum. `np.where(largest > 0, largest, 1)` "
        "is a divisor that is never 0.",
    ),
    alternatives=(
        _unit_by_loop,
        lambda maps: (p := np.maximum(maps, 0)) / np.where(_largest(p) > 0, _largest(p), 1),
        lambda maps: np.nan_to_num(
            np.clip(maps.astype(np.float64), 0, None) / _largest(np.clip(maps, 0, None))
        ),
    ),
)


# 1.6 -------------------------------------------------------------------------------------------------------


def _totals_cases(rng):
    cases = []
    for activations, gradients in _layer_cases(rng):
        count = len(activations)
        logits = rng.normal(size=(count, 7)).astype(activations.dtype)
        bias = (rng.normal(size=7) + 0.5).astype(activations.dtype)
        classes = logits.argsort(axis=1)[range(count), [2, 4][:count]]  # not the predicted ones
        cases.append((activations, gradients, logits, bias, classes))
    return cases


def _totals(grad_cam_map, hires_cam_map, evidence):
    """A version of `map_totals` from its three ingredients; the first two are maps, still to be added up."""

    def answer(a, g, logits, bias, classes):
        return (
            grad_cam_map(a, g).sum(axis=(1, 2)),
            hires_cam_map(a, g).sum(axis=(1, 2)),
            evidence(logits, bias, classes),
        )

    return answer


def _evidence(logits, bias, classes):
    return logits[np.arange(len(classes)), classes] - bias[classes]


_grad_cam, _hires_cam = saliency.class_activation_map, saliency.hires_cam


def _totals_by_loop(a, g, logits, bias, classes):
    rows = []
    for i, klass in enumerate(classes):
        grad_cam = sum(g[i, k].mean() * a[i, k].sum() for k in range(a.shape[1]))
        rows.append((grad_cam, (g[i] * a[i]).sum(), logits[i, klass] - bias[klass]))
    return tuple(np.array(column) for column in zip(*rows, strict=True))


totals = Exercise(
    key="1.6",
    title="a map's total against its logit",
    reference=saliency.map_totals,
    cases=_totals_cases,
    mistakes=(
        Mistake(
            _totals(lambda a, g: np.abs(_grad_cam(a, g)), lambda a, g: np.abs(_hires_cam(a, g)), _evidence),
            "You took absolute values before adding up: what speaks against the class must be subtracted.",
            "trial",
        ),
        Mistake(
            _totals(
                lambda a, g: np.maximum(_grad_cam(a, g), 0),
                lambda a, g: np.maximum(_hires_cam(a, g), 0),
                _evidence,
            ),
            "You added up the maps after their ReLU: what speaks against the class must be subtracted.",
            "trial",
        ),
        Mistake(
            _totals(_grad_cam, _hires_cam, lambda z, b, c: z[np.arange(len(c)), c]),
            "You forgot the bias: the last layer adds it for every image alike, so it is not in the map.",
            "trial",
        ),
        Mistake(
            _totals(_grad_cam, _hires_cam, lambda z, b, c: z[np.arange(len(c)), c] + b[c]),
            "You added the bias once more; take it off.",
            "trial",
        ),
        Mistake(
            _totals(_grad_cam, _hires_cam, lambda z, b, c: _evidence(z, b, z.argmax(axis=1))),
            "You compare with the logit of the predicted class; the maps explain the asked one, in `classes`.",
            "trial",
        ),
        Mistake(
            _totals(_grad_cam, _hires_cam, lambda z, b, c: z.max(axis=1) - b[c]),
            "You take the largest logit of each image; the maps explain the asked class, in `classes`.",
            "trial",
        ),
        Mistake(
            _totals(_grad_cam, _grad_cam, _evidence),
            "Both totals are Grad-CAM's; HiResCAM multiplies gradients and activations position by position.",
            "trial",
        ),
        Mistake(
            _totals(_hires_cam, _hires_cam, _evidence),
            "Both totals are HiResCAM's; Grad-CAM first averages the gradients of each channel.",
            "trial",
        ),
        Mistake(
            _totals(_hires_cam, _grad_cam, _evidence),
            "The first two are swapped: Grad-CAM's total comes first.",
            "trial",
        ),
        Mistake(
            lambda a, g, z, b, c: (
                _grad_cam(a, g).mean(axis=(1, 2)),
                _hires_cam(a, g).mean(axis=(1, 2)),
                _evidence(z, b, c),
            ),
            "You averaged over the map; its total is wanted.",
            "trial",
        ),
        Mistake(
            lambda a, g, z, b, c: (_grad_cam(a, g).sum(), _hires_cam(a, g).sum(), _evidence(z, b, c)),
            "You added up all images together: one total per image.",
            "trial",
        ),
        Mistake(
            lambda a, g, z, b, c: (t := saliency.map_totals(a, g, z, b, c))[2:] + t[:2],
            "The evidence comes last: Grad-CAM's total, HiResCAM's total, evidence.",
            "trial",
        ),
        Mistake(
            _totals(
                lambda a, g: overlay.to_unit(_grad_cam(a, g)),
                lambda a, g: overlay.to_unit(_hires_cam(a, g)),
                _evidence,
            ),
            "You scaled the maps before adding up: their own units are those of the logit.",
            "trial",
        ),
        Mistake(
            _totals(_grad_cam, _hires_cam, lambda z, b, c: z[np.arange(len(c)), c] - b.sum()),
            "You take off all biases; only that of the asked class is in its logit.",
            "trial",
        ),
        Mistake(
            _totals(_grad_cam, _hires_cam, lambda z, b, c: z[np.arange(len(c)), c] - b.mean()),
            "You take off the mean of the biases; the logit contains that of its own class, `bias[classes]`.",
            "trial",
        ),
        Mistake(
            _totals(_grad_cam, _hires_cam, lambda z, b, c: softmax(z)[np.arange(len(c)), c] - b[c]),
            "You take the probability; the maps explain the logit.",
            "trial",
        ),
    ),
    verified="Signed totals of both maps per image, and the asked class's logit without its bias.",
    hints=(
        "Grad-CAM's signed map is exercise 1.4; HiResCAM leaves out the averaging. Add up each over its positions.",
        "Both: `(... * activations).sum(axis=(1, 2, 3))`. Evidence: pick one logit per row as in exercise 1.2, "
        "minus `bias[classes]`.",
    ),
    alternatives=(
        _totals_by_loop,
        _totals(_grad_cam, _hires_cam, lambda z, b, c: (z - b)[np.arange(len(c)), c]),
        lambda a, g, z, b, c: [
            np.einsum("bk,bk->b", g.mean(axis=(2, 3)), a.sum(axis=(2, 3))),
            np.einsum("bkij,bkij->b", a, g),
            np.take_along_axis(z - b, c[:, None], axis=1)[:, 0].astype(np.float64),
        ],
    ),
)


# 1.7 -------------------------------------------------------------------------------------------------------


def _control_cases(rng):
    cases = []
    for dtype in DTYPES:
        net = _small_net(rng, channels=1).astype(dtype)
        images = (rng.random((3, 1, 6, 5)) * (rng.random((3, 1, 6, 5)) > 0.5)).astype(dtype)
        classes = net.forward(images).argsort(axis=1)[[0, 1, 2], [0, 2, 1]]
        cases.append((net, images, classes, np.random.default_rng(int(rng.integers(1000)))))
    return cases


def _share(net, images, classes):
    return ink_share(class_saliency(net, images, classes), images)


def _overwritten(net, images, classes, rng):
    trained = _share(net, images, classes)
    return trained, _share(net.initialise(rng), images, classes)


def _another_name(net, images, classes, rng):
    untrained = net
    untrained.initialise(rng)
    return _share(net, images, classes), _share(untrained, images, classes)


def _control_by_hand(net, images, classes, rng):
    import copy

    untrained = copy.deepcopy(net)
    for layer in untrained.layers.values():
        layer.initialise(rng)
    shares = []
    for model in (net, untrained):
        maps = class_saliency(model, images, classes)
        ink = images[:, 0] > 0.2
        shares.append(
            np.array([m[i].sum() / m.sum() if m.sum() else 0.0 for m, i in zip(maps, ink, strict=True)])
        )
    return shares


def _per_image(net, images, classes, rng):
    untrained = net.copy().initialise(rng)
    found = [
        [_share(model, images[i : i + 1], classes[i : i + 1])[0] for i in range(len(images))]
        for model in (net, untrained)
    ]
    net.forward(images)
    return np.array(found[0]), np.array(found[1])


def _untrained(net, rng):
    return net.copy().initialise(rng)


control = Exercise(
    key="1.7",
    title="the untrained control",
    reference=saliency.untrained_control,
    cases=_control_cases,
    mistakes=(
        Mistake(
            _overwritten,
            "You drew new weights in `net` itself, so the trained net is lost: work on `net.copy()`.",
            "trial",
        ),
        Mistake(
            _another_name,
            "`untrained = net` is a second name for the same net, not a copy: both shares are of untrained "
            "weights, and the trained ones are lost.",
            "trial",
        ),
        Mistake(
            lambda net, images, classes, rng: (
                _share(net, images, classes),
                _share(net.copy(), images, classes),
            ),
            "The copy still has the trained weights: `initialise(rng)` draws new ones.",
            "trial",
        ),
        Mistake(
            lambda net, images, classes, rng: (
                _share(net, images, classes),
                _share(net.copy().initialise(np.random.default_rng(0)), images, classes),
            ),
            "You made a new generator with seed 0: every call then draws the same weights. Use the `rng` given.",
            "trial",
        ),
        Mistake(
            lambda net, images, classes, rng: (
                _share(_untrained(net, rng), images, classes),
                (_share(net, images, classes)),
            ),
            "The two are swapped: the trained net comes first.",
            "trial",
        ),
        Mistake(
            lambda net, images, classes, rng: tuple(
                ink_share(class_saliency(m, images, classes), images, 0.0)
                for m in (net, _untrained(net, rng))
            ),
            "You count every pixel above 0 as ink: keep the threshold of `ink_share`.",
            "trial",
        ),
        Mistake(
            lambda net, images, classes, rng: tuple(
                _share(m, images, classes).mean() for m in (net, _untrained(net, rng))
            ),
            "You averaged over the images: return one share per image, so that their spread can be seen.",
            "trial",
        ),
        Mistake(
            lambda net, images, classes, rng: tuple(
                _share(m, images, m.forward(images).argmax(axis=1)) for m in (net, _untrained(net, rng))
            ),
            "Each net explains the class that it predicts: ask both for the same class, in `classes`.",
            "trial",
        ),
        Mistake(
            lambda net, images, classes, rng: (
                _share(net, images, classes),
                _share(_untrained(net, np.random.default_rng(7)), images, classes),
            ),
            "You made a generator of your own; use the `rng` that is given, so that whoever calls can draw other weights.",
            "trial",
        ),
        Mistake(
            lambda net, images, classes, rng: (
                _share(net, images, classes),
                _share(u := _untrained(net, rng), images, u.forward(images).argmax(axis=1)),
            ),
            "The untrained net explains the class that it predicts: ask both nets for the same class, in `classes`.",
            "trial",
        ),
    ),
    verified="Both nets are asked for the same classes, the untrained one is a copy, and the trained one is intact.",
    hints=(
        "Make an independent copy, give it new weights, and do the same with both nets.",
        "`net.copy().initialise(rng)` is an untrained net; `ink_share(class_saliency(...), images)` its score.",
    ),
    alternatives=(_control_by_hand, _per_image),
)


# 1.8 -------------------------------------------------------------------------------------------------------


def _conv_cases(rng):
    """3 x 3 filters with and without padding, and 5 x 5; a different number of channels and filters."""
    cases = []
    for dtype in DTYPES:
        for size, pad in ((3, 1), (3, 0), (5, 2)):
            x = rng.normal(size=(2, 3, 6, 5)).astype(dtype)
            weight = rng.normal(size=(4, 3, size, size)).astype(dtype)
            cases.append((x, weight, rng.normal(size=4).astype(dtype), pad))
    return cases


def _conv_with_loops(x, weight, bias, pad):
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    size = weight.shape[-1]
    rows, cols = x.shape[2] - size + 1, x.shape[3] - size + 1
    out = np.zeros((len(x), len(weight), rows, cols))
    for b in range(len(x)):
        for f in range(len(weight)):
            for i in range(rows):
                for j in range(cols):
                    out[b, f, i, j] = (x[b, :, i : i + size, j : j + size] * weight[f]).sum() + bias[f]
    return out


def _conv_by_shifts(x, weight, bias, pad):
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    size = weight.shape[-1]
    rows, cols = x.shape[2] - size + 1, x.shape[3] - size + 1
    out = np.zeros((len(x), len(weight), rows, cols), x.dtype) + bias[:, None, None]
    for i in range(size):
        for j in range(size):
            out += np.einsum("fc,bchw->bfhw", weight[:, :, i, j], x[:, :, i : i + rows, j : j + cols])
    return out


def _flipped(weight):
    return weight[:, :, ::-1, ::-1]


def _as_stored_in_the_source(weight):
    """Stored as (size, size, in, out), flattened as (in, size, size, out)."""
    return weight.transpose(2, 3, 1, 0).reshape(-1, len(weight)).T.reshape(weight.shape)


conv = Exercise(
    key="1.8",
    title="convolution forward",
    reference=numpy_nn.conv_forward,
    cases=_conv_cases,
    mistakes=(
        Mistake(
            lambda x, w, b, pad: conv_forward(x, _flipped(w), b, pad),
            "The filter is flipped: deep-learning libraries compute the cross-correlation, without a flip.",
            "peer",
        ),
        Mistake(
            lambda x, w, b, pad: conv_forward(x, w.transpose(0, 1, 3, 2), b, pad),
            "Rows and columns of the filter are exchanged.",
            "trial",
        ),
        Mistake(
            lambda x, w, b, pad: conv_forward(x, _as_stored_in_the_source(w), b, pad),
            "The filter is flattened in another order than the columns: both must run over channel, row, column. "
            "Training would not notice, since a scrambled filter learns as well.",
            "source",
        ),
        Mistake(
            lambda x, w, b, pad: conv_forward(x, w, np.zeros_like(b), pad),
            "The bias is missing.",
            "trial",
        ),
        Mistake(
            lambda x, w, b, pad: conv_forward(x, w, np.full_like(b, b.sum()), pad),
            "You add all biases to every filter: filter f gets `bias[f]`.",
            "trial",
        ),
        Mistake(
            lambda x, w, b, pad: conv_forward(x, w, b, 0),
            "The padding is missing: pass `pad` on to `as_columns`.",
            "trial",
        ),
        Mistake(
            lambda x, w, b, pad: np.maximum(conv_forward(x, w, b, pad), 0),
            "You applied a ReLU: that is a layer of its own.",
            "trial",
        ),
        Mistake(
            lambda x, w, b, pad: conv_forward(x, w, np.zeros_like(b), pad) + b,
            "`bias` lines up with the columns of the picture here; give it the shape (F, 1, 1): `bias[:, None, None]`.",
            "trial",
        ),
        Mistake(
            lambda x, w, b, pad: conv_forward(x, w, np.zeros_like(b), pad).reshape(len(x), len(w), -1) + b,
            "`bias` lines up with the positions here; give it the shape (F, 1): `bias[:, None]`.",
            "trial",
        ),
        Mistake(
            lambda x, w, b, pad: conv_forward(x, w.reshape(-1, len(w)).T.reshape(w.shape), b, pad),
            "`reshape(-1, F).T` scrambles the filters: each filter is one row of `weight.reshape(F, -1)`.",
            "trial",
        ),
    ),
    verified="Equal to the definition for 3 x 3 and 5 x 5 filters, with padding and without.",
    hints=(
        "`as_columns(x, size, pad)` puts every window into a column. A filter, as one row, meets all windows in "
        "one matrix product.",
        "`weight.reshape(filters, -1) @ columns` has shape (B, F, H' W'); add `bias[:, None]`, then reshape.",
    ),
    alternatives=(_conv_with_loops, _conv_by_shifts),
)


# 1.9 -------------------------------------------------------------------------------------------------------


def _conv_backward_cases(rng):
    cases = []
    for x, weight, _, pad in _conv_cases(rng):
        smaller = weight.shape[2] - 1 - 2 * pad  # so many rows and columns are lost
        shape = len(x), len(weight), x.shape[2] - smaller, x.shape[3] - smaller
        cases.append((rng.normal(size=shape).astype(x.dtype), x, weight, pad))
    return cases


_conv_backward = numpy_nn.conv_backward


def _conv_backward_with_loops(grad_out, x, weight, pad):
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad))).astype(np.float64)
    grad_x, grad_weight = np.zeros_like(padded), np.zeros(weight.shape)
    size = weight.shape[-1]
    for b, f, i, j in np.ndindex(grad_out.shape):
        window = np.s_[b, :, i : i + size, j : j + size]
        grad_x[window] += grad_out[b, f, i, j] * weight[f]
        grad_weight[f] += grad_out[b, f, i, j] * padded[window]
    height, width = x.shape[2:]
    return grad_x[:, :, pad : pad + height, pad : pad + width], grad_weight, grad_out.sum(axis=(0, 2, 3))


def _conv_backward_by_convolution(grad_out, x, weight, pad):
    size = weight.shape[-1]
    swapped = _flipped(weight).transpose(1, 0, 2, 3)
    grad_x = conv_forward(grad_out, swapped, np.zeros(x.shape[1], x.dtype), size - 1 - pad)
    columns = as_columns(x, size, pad)
    grad_weight = np.einsum("bfp,bkp->fk", grad_out.reshape(len(x), len(weight), -1), columns)
    return grad_x, grad_weight.reshape(weight.shape), np.einsum("bfij->f", grad_out)


def _uncropped(grad_out, x, weight, pad):
    _, grad_weight, grad_bias = _conv_backward(grad_out, x, weight, pad)
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    return _conv_backward(grad_out, padded, weight, 0)[0], grad_weight, grad_bias


def _overwritten_windows(grad_out, x, weight, pad):
    size, (height, width) = weight.shape[-1], x.shape[2:]
    grad_x = np.zeros((*x.shape[:2], height + 2 * pad, width + 2 * pad))
    for i, j in np.ndindex(grad_out.shape[2:]):
        grad_x[:, :, i : i + size, j : j + size] = np.tensordot(grad_out[:, :, i, j], weight, axes=1)
    return grad_x[:, :, pad : pad + height, pad : pad + width], *_conv_backward(grad_out, x, weight, pad)[1:]


def _changed_parts(change):
    return lambda grad_out, x, weight, pad: change(*_conv_backward(grad_out, x, weight, pad), len(x))


conv_gradients = Exercise(
    key="1.9",
    title="convolution backward",
    reference=numpy_nn.conv_backward,
    cases=_conv_backward_cases,
    mistakes=(
        Mistake(
            lambda g, x, w, pad: (
                _conv_backward(g, x, _flipped(w), pad)[0],
                *_conv_backward(g, x, w, pad)[1:],
            ),
            "The gradient of x uses a filter that is flipped once too often or once too little.",
            "peer",
        ),
        Mistake(
            _uncropped,
            "The gradient of x still has its padding: cut `pad` rows and columns off each side.",
            "trial",
        ),
        Mistake(
            lambda g, x, w, pad: (*_conv_backward(g, x, w, pad)[:2], g.sum(axis=0)),
            "The gradient of the bias is summed over the images only: every position used it too.",
            "trial",
        ),
        Mistake(
            lambda g, x, w, pad: (*_conv_backward(g, x, w, pad)[:2], g.mean(axis=(0, 2, 3))),
            "The gradient of the bias is an average: add it up over images and positions.",
            "trial",
        ),
        Mistake(
            _changed_parts(lambda gx, gw, gb, count: (gx, gw / count, gb / count)),
            "You divided by the number of images: the loss has done that already, so gradients add up.",
            "trial",
        ),
        Mistake(
            lambda g, x, w, pad: (
                _conv_backward(g, x, w, pad)[0],
                _flipped(_conv_backward(g, x, w, pad)[1]),
                _conv_backward(g, x, w, pad)[2],
            ),
            "The gradient of the weight is flipped.",
            "trial",
        ),
        Mistake(
            lambda g, x, w, pad: (
                _conv_backward(g, x, w, pad)[0],
                sum(_conv_backward(g[i : i + 1], x[i : i + 1], w, pad)[1] for i in range(1)),
                _conv_backward(g, x, w, pad)[2],
            ),
            "The gradient of the weight is that of the first image only: add up all images.",
            "trial",
        ),
        Mistake(
            _changed_parts(lambda gx, gw, gb, count: (gw, gx, gb)),
            "The order is wrong: first the gradient of x, then of the weight, then of the bias.",
            "trial",
        ),
        Mistake(
            lambda g, x, w, pad: (
                (t := _conv_backward(g, x, w, pad))[0][:, :, : None if pad else 0, : None if pad else 0],
                *t[1:],
            ),
            "Cutting `[pad:-pad]` leaves nothing where pad is 0: cut `[pad : pad + H]` instead.",
            "trial",
        ),
        Mistake(
            _overwritten_windows,
            "You assign to the windows of the gradient of x; pixels are in several windows, so add (`+=`).",
            "trial",
        ),
        Mistake(
            lambda g, x, w, pad: (
                (t := _conv_backward(g, x, w, pad))[0],
                _conv_backward(g[-1:], x[-1:], w, pad)[1],
                t[2],
            ),
            "The gradient of the weight is that of the last image only: add up all images.",
            "trial",
        ),
        Mistake(
            _changed_parts(lambda gx, gw, gb, count: (gx, gw / count, gb)),
            "The gradient of the weight is an average over the images: add them up.",
            "trial",
        ),
    ),
    verified="All three gradients agree, for 3 x 3 and 5 x 5 filters, with padding and without.",
    hints=(
        "Forward was `weight_matrix @ columns + bias`. With `grad` as (B, F, H' W'), the chain rule for a matrix "
        "product gives `weight_matrix.T @ grad` for the columns and `grad @ columns.T` for the weight.",
        "`from_columns` adds the gradient of every column back to its pixels, and crops the padding. "
        "`columns.transpose(0, 2, 1)` transposes each image's columns.",
    ),
    alternatives=(_conv_backward_with_loops, _conv_backward_by_convolution),
)


# 1.10 ------------------------------------------------------------------------------------------------------


def _pool_cases(rng):
    """Few different values, so that windows tie; a column that no window reaches; overlapping windows."""
    cases = []
    for dtype in DTYPES:
        for size, stride in ((2, 2), (3, 2)):
            x = rng.integers(-2, 2, size=(2, 3, 6, 5)).astype(dtype)
            grad_out = rng.normal(size=maxpool_forward(x, size, stride).shape).astype(dtype)
            cases.append((grad_out, x, size, stride))
    return cases


def _pool_backward(share):
    """`share(windows, largest)` -> who gets the gradient; windows: (size * size, B, C, H', W')."""

    def answer(grad_out, x, size, stride):
        grad_x = np.zeros(x.shape)
        indices = pool_slices(x, size, stride)
        windows = np.stack([x[index] for index in indices])
        for index, part in zip(indices, share(windows, windows.max(axis=0)), strict=True):
            grad_x[index] += grad_out * part
        return grad_x

    return answer


def _first(windows):
    return np.arange(len(windows))[:, None, None, None, None] == windows.argmax(axis=0)


def _pool_with_loops(grad_out, x, size, stride):
    grad_x = np.zeros(x.shape)
    for b, c, i, j in np.ndindex(grad_out.shape):
        window = x[b, c, i * stride : i * stride + size, j * stride : j * stride + size]
        row, col = np.unravel_index(window.argmax(), window.shape)
        grad_x[b, c, i * stride + row, j * stride + col] += grad_out[b, c, i, j]
    return grad_x


def _assigned_by_window(grad_out, x, size, stride):
    grad_x = np.zeros(x.shape)
    for b, c, i, j in np.ndindex(grad_out.shape):
        window = x[b, c, i * stride : i * stride + size, j * stride : j * stride + size]
        row, col = np.unravel_index(window.argmax(), window.shape)
        grad_x[b, c, i * stride + row, j * stride + col] = grad_out[b, c, i, j]
    return grad_x


def _assigned_by_slice(grad_out, x, size, stride):
    grad_x = np.zeros(x.shape)
    indices = pool_slices(x, size, stride)
    for index, part in zip(indices, _first(np.stack([x[index] for index in indices])), strict=True):
        grad_x[index] = grad_out * part
    return grad_x


def _assigned(grad_out, x, size, stride):
    grad_x = np.zeros(x.shape)
    indices = pool_slices(x, size, stride)
    for index, part in zip(indices, _first(np.stack([x[index] for index in indices])), strict=True):
        grad_x[index] = np.where(part, grad_out, grad_x[index])
    return grad_x


pool_gradient = Exercise(
    key="1.10",
    title="max-pooling backward",
    reference=numpy_nn.maxpool_backward,
    cases=_pool_cases,
    mistakes=(
        Mistake(
            _pool_backward(lambda windows, largest: windows == largest),
            "Where values tie, each of them gets the whole gradient: only the first may, or it is counted twice.",
            "source",
        ),
        Mistake(
            _pool_backward(lambda windows, largest: (windows == largest) / (windows == largest).sum(axis=0)),
            "Where values tie, you share the gradient out: give all of it to the first one in reading order.",
            "peer",
        ),
        Mistake(
            _pool_backward(lambda windows, largest: _first(windows[::-1])[::-1]),
            "Where values tie, the last one wins; give the gradient to the first one in reading order.",
            "trial",
        ),
        Mistake(
            _pool_backward(lambda windows, largest: np.ones(windows.shape)),
            "Every pixel of a window gets the gradient: only the largest one passed its value on.",
            "trial",
        ),
        Mistake(
            _pool_backward(lambda windows, largest: np.full(windows.shape, 1 / len(windows))),
            "You spread the gradient evenly: that is average-pooling.",
            "trial",
        ),
        Mistake(
            _pool_backward(lambda windows, largest: _first(np.abs(windows))),
            "You look for the largest absolute value; pooling took the largest value.",
            "trial",
        ),
        Mistake(
            _pool_backward(lambda windows, largest: _first(windows) * largest),
            "You multiply by the largest value: pooling passed it on unchanged, so its slope is 1.",
            "trial",
        ),
        Mistake(
            _assigned,
            "Where windows overlap, a pixel can win several times: add to its gradient (`+=`).",
            "trial",
        ),
        Mistake(
            _assigned_by_window,
            "Where windows overlap, a pixel can win several times, and the last window overwrites the others: add (`+=`).",
            "trial",
        ),
        Mistake(
            _assigned_by_slice,
            "You assign to `grad_x[index]`: where windows overlap, the next position erases what was there. Add (`+=`).",
            "trial",
        ),
    ),
    verified="The first largest pixel of each window gets its gradient, also with ties and overlapping windows.",
    hints=(
        "Compare each position of the windows with `maxpool_forward(x, size, stride)`: who holds the maximum?",
        "Keep an array of windows that have no winner yet; a position wins where it equals the maximum and "
        "its window is still free.",
    ),
    alternatives=(
        _pool_with_loops,
        _pool_backward(lambda windows, largest: _first(windows)),
    ),
)

EXERCISES = (relu, seeding, saliency_map, cam, unit, totals, control, conv, conv_gradients, pool_gradient)
