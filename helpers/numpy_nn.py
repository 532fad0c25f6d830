"""A small convolutional network in NumPy, with a backward pass that you can read.

Shapes: B images, C channels in, F channels (filters) out, H x W pixels. Every layer has `forward(x)`, which
remembers its input, and `backward(grad_out)`, which returns the gradient with respect to that input and adds
the gradients of its parameters to `Parameter.grad`. Arrays keep the floating-point type that they come in.

The four formulas that lab 01 asks for stand as plain functions: `relu_backward`, `conv_forward`,
`conv_backward`, `maxpool_backward`.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from tqdm import tqdm

from helpers.data import ImageSet

Array = NDArray[np.floating]

CHUNK = 8  # images per convolution: the columns of more would not fit into the processor's cache
CHUNK_OF_A_SPLIT = 64  # images per forward pass where a whole split is run, so that memory stays flat


def in_chunks(x: Array, count: int = CHUNK) -> list[Array]:
    """The array in pieces of `count` images, the last one shorter."""
    return [x[i : i + count] for i in range(0, len(x), count)]


def as_columns(x: Array, size: int, pad: int = 0) -> Array:
    """Write every size x size window of the zero-padded images as one column ("im2col").

    x: (B, C, H, W) -> (B, C * size * size, H' * W') with H' = H + 2 pad - size + 1; the rows run over
    channel, window row, window column, in this order. A convolution is then one matrix product
    (Chellapilla, Puri, Simard 2006).
    """
    batch, channels, height, width = x.shape
    if pad:
        padded = np.zeros((batch, channels, height + 2 * pad, width + 2 * pad), x.dtype)
        padded[:, :, pad:-pad, pad:-pad] = x
        x = padded
    windows = sliding_window_view(x, (size, size), axis=(2, 3))  # (B, C, H', W', size, size), a view
    return windows.transpose(0, 1, 4, 5, 2, 3).reshape(batch, channels * size * size, -1)


def from_columns(columns: Array, shape: tuple[int, ...], size: int, pad: int = 0) -> Array:
    """Add every column back to the window that it came from: the transpose of `as_columns`.

    columns: (B, C * size * size, H' * W') -> (B, C, H, W) = shape. Pixels in several windows get their sum.
    """
    batch, channels, height, width = shape
    rows, cols = height + 2 * pad - size + 1, width + 2 * pad - size + 1
    columns = columns.reshape(batch, channels, size, size, rows, cols)
    x = np.zeros((batch, channels, height + 2 * pad, width + 2 * pad), columns.dtype)
    for i in range(size):
        for j in range(size):
            x[:, :, i : i + rows, j : j + cols] += columns[:, :, i, j]
    return x[:, :, pad : pad + height, pad : pad + width]


def conv_forward(x: Array, weight: Array, bias: Array, pad: int = 1) -> Array:
    """Convolution (cross-correlation, as in every deep-learning library) with stride 1 and zero padding.

    x: (B, C, H, W), weight: (F, C, size, size), bias: (F,) -> (B, F, H + 2 pad - size + 1, W + ...).
    """
    filters, _, size, _ = weight.shape
    columns = as_columns(x, size, pad)
    out = weight.reshape(filters, -1) @ columns + bias[:, None]
    return out.reshape(len(x), filters, x.shape[2] + 2 * pad - size + 1, -1)


def conv_backward(grad_out: Array, x: Array, weight: Array, pad: int = 1) -> tuple[Array, Array, Array]:
    """Gradients of `conv_forward`.

    grad_out: (B, F, H', W'), x: (B, C, H, W), weight: (F, C, size, size)
    -> gradients of x, weight and bias, each in its own shape; those of weight and bias are summed over B.
    """
    filters, _, size, _ = weight.shape
    grad = grad_out.reshape(len(x), filters, -1)
    grad_x = from_columns(weight.reshape(filters, -1).T @ grad, x.shape, size, pad)
    grad_weight = (grad @ as_columns(x, size, pad).transpose(0, 2, 1)).sum(axis=0).reshape(weight.shape)
    return grad_x, grad_weight, grad.sum(axis=(0, 2))


def relu_backward(grad_out: Array, x: Array) -> Array:
    """Gradient of ReLU: what arrives passes where the input was positive.

    grad_out: any shape, the gradient with respect to the output; x: same shape, the input -> same shape.
    At x = 0, where ReLU has no derivative, the gradient is 0 by convention (as in PyTorch).
    """
    return grad_out * (x > 0)


def pool_slices(x: Array, size: int, stride: int) -> list[tuple[slice, ...]]:
    """One index per position in the window; `x[index]` holds that position of every window."""
    rows, cols = ((length - size) // stride + 1 for length in x.shape[2:])
    return [
        np.s_[:, :, i : i + stride * (rows - 1) + 1 : stride, j : j + stride * (cols - 1) + 1 : stride]
        for i in range(size)
        for j in range(size)
    ]


def maxpool_forward(x: Array, size: int = 2, stride: int = 2) -> Array:
    """Largest value of every size x size window. x: (B, C, H, W) -> (B, C, (H - size) // stride + 1, ...)."""
    first, *rest = (x[index] for index in pool_slices(x, size, stride))
    out = first.copy()
    for values in rest:
        np.maximum(out, values, out=out)
    return out


def maxpool_backward(grad_out: Array, x: Array, size: int = 2, stride: int = 2) -> Array:
    """Gradient of `maxpool_forward`: each window hands its gradient to its largest value.

    grad_out: (B, C, H', W'), x: (B, C, H, W) -> (B, C, H, W). Where several values tie, the first one in
    reading order takes all (as in PyTorch): the gradient of a window is neither doubled nor shared.
    """
    grad_x = np.zeros_like(x, dtype=grad_out.dtype)
    largest = maxpool_forward(x, size, stride)
    free = np.ones(largest.shape, bool)  # windows that have not found their winner yet
    for index in pool_slices(x, size, stride):
        winner = free & (x[index] == largest)
        grad_x[index] += grad_out * winner
        free &= ~winner
    return grad_x


@dataclass
class Parameter:
    """A trainable array and the gradient that has been accumulated for it."""

    value: Array
    grad: Array = field(init=False)

    def __post_init__(self) -> None:
        self.grad = np.zeros_like(self.value)


class Layer:
    """One step of a network. Subclasses define `forward`, `backward` and, if they learn, `initialise`."""

    parameters: dict[str, Parameter]

    def __init__(self) -> None:
        self.parameters = {}

    def initialise(self, rng: np.random.Generator) -> None:
        """Draw fresh weights; nothing to do for a layer without parameters."""

    def forward(self, x: Array) -> Array:
        raise NotImplementedError

    def backward(self, grad_out: Array, *, accumulate: bool = True) -> Array:
        """Gradient with respect to the input of the last `forward`; parameters' gradients are added to."""
        raise NotImplementedError


class Conv2d(Layer):
    """Convolution, square filter, zero padding, stride 1; He-initialised (He et al. 2015, eq. 10)."""

    def __init__(self, channels: int, filters: int, size: int = 3, pad: int = 1) -> None:
        super().__init__()
        self.pad = pad
        self.parameters = {
            "weight": Parameter(np.zeros((filters, channels, size, size), np.float32)),
            "bias": Parameter(np.zeros(filters, np.float32)),
        }

    def initialise(self, rng: np.random.Generator) -> None:
        weight, bias = self.parameters["weight"].value, self.parameters["bias"].value
        weight[...] = rng.standard_normal(weight.shape) * np.sqrt(2 / weight[0].size)
        bias[...] = 0

    def forward(self, x: Array) -> Array:
        self._x = x
        weight, bias = self.parameters["weight"].value, self.parameters["bias"].value
        return np.concatenate([conv_forward(part, weight, bias, self.pad) for part in in_chunks(x)])

    def backward(self, grad_out: Array, *, accumulate: bool = True) -> Array:
        weight, bias = self.parameters["weight"], self.parameters["bias"]
        grad_x = []
        for grad, x in zip(in_chunks(grad_out), in_chunks(self._x), strict=True):
            if accumulate:
                part, grad_weight, grad_bias = conv_backward(grad, x, weight.value, self.pad)
                weight.grad += grad_weight
                bias.grad += grad_bias
            else:  # only the first third of conv_backward
                filters, _, size, _ = weight.value.shape
                columns = weight.value.reshape(filters, -1).T @ grad.reshape(len(x), filters, -1)
                part = from_columns(columns, x.shape, size, self.pad)
            grad_x.append(part)
        return np.concatenate(grad_x)


class ReLU(Layer):
    """max(x, 0). `backward_rule(grad_out, x)` may be replaced, to see what a wrong rule does to a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.backward_rule: Callable[[Array, Array], Array] = relu_backward

    def forward(self, x: Array) -> Array:
        self._x = x
        return np.maximum(x, 0)

    def backward(self, grad_out: Array, *, accumulate: bool = True) -> Array:
        return self.backward_rule(grad_out, self._x)


class MaxPool2d(Layer):
    """Largest value of every size x size window."""

    def __init__(self, size: int = 2, stride: int = 2) -> None:
        super().__init__()
        self.size, self.stride = size, stride

    def forward(self, x: Array) -> Array:
        self._x = x
        return maxpool_forward(x, self.size, self.stride)

    def backward(self, grad_out: Array, *, accumulate: bool = True) -> Array:
        return maxpool_backward(grad_out, self._x, self.size, self.stride)


class Standardise(Layer):
    """(x - mean) / deviation, with two fixed numbers: no parameters, so nothing is learnt here."""

    def __init__(self, mean: float, deviation: float) -> None:
        super().__init__()
        self.mean, self.deviation = mean, deviation

    def forward(self, x: Array) -> Array:
        return (x - np.asarray(self.mean, x.dtype)) / np.asarray(self.deviation, x.dtype)

    def backward(self, grad_out: Array, *, accumulate: bool = True) -> Array:
        return grad_out / np.asarray(self.deviation, grad_out.dtype)


class Flatten(Layer):
    """(B, C, H, W) -> (B, C * H * W)."""

    def forward(self, x: Array) -> Array:
        self._shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, grad_out: Array, *, accumulate: bool = True) -> Array:
        return grad_out.reshape(self._shape)


class GlobalAveragePool(Layer):
    """Mean over all positions: (B, C, H, W) -> (B, C) (Lin, Chen, Yan 2014, section 3.2)."""

    def forward(self, x: Array) -> Array:
        self._shape = x.shape
        return x.mean(axis=(2, 3))

    def backward(self, grad_out: Array, *, accumulate: bool = True) -> Array:
        share = grad_out / np.asarray(self._shape[2] * self._shape[3], grad_out.dtype)
        return np.broadcast_to(share[:, :, None, None], self._shape).copy()


class Linear(Layer):
    """x @ weight + bias, weights drawn as `scale` * N(0, 1)."""

    def __init__(self, inputs: int, outputs: int, scale: float = 0.001) -> None:
        super().__init__()
        self.scale = scale
        self.parameters = {
            "weight": Parameter(np.zeros((inputs, outputs), np.float32)),
            "bias": Parameter(np.zeros(outputs, np.float32)),
        }

    def initialise(self, rng: np.random.Generator) -> None:
        weight, bias = self.parameters["weight"].value, self.parameters["bias"].value
        weight[...] = rng.standard_normal(weight.shape) * self.scale
        bias[...] = 0

    def forward(self, x: Array) -> Array:
        self._x = x
        return x @ self.parameters["weight"].value + self.parameters["bias"].value

    def backward(self, grad_out: Array, *, accumulate: bool = True) -> Array:
        weight, bias = self.parameters["weight"], self.parameters["bias"]
        if accumulate:
            weight.grad += self._x.T @ grad_out
            bias.grad += grad_out.sum(axis=0)
        return grad_out @ weight.value.T


class Sequential:
    """Named layers, one after the other.

    `net.outputs[name]` holds what layer `name` returned in the last `forward`, as Grad-CAM needs it.
    """

    def __init__(self, **layers: Layer) -> None:
        self.layers = layers
        self.outputs: dict[str, Array] = {}

    def initialise(self, rng: np.random.Generator) -> Sequential:
        """Draw all weights afresh, in place; returns the net itself."""
        for layer in self.layers.values():
            layer.initialise(rng)
        return self

    def copy(self) -> Sequential:
        """An independent net with the same weights."""
        return copy.deepcopy(self)

    def parameters(self) -> Iterator[tuple[str, Parameter]]:
        """("conv1.weight", Parameter), ("conv1.bias", Parameter), ..."""
        for name, layer in self.layers.items():
            for key, parameter in layer.parameters.items():
                yield f"{name}.{key}", parameter

    def astype(self, dtype: type[np.floating]) -> Sequential:
        """A copy whose parameters have another floating-point type."""
        net = self.copy()
        for _, parameter in net.parameters():
            parameter.value, parameter.grad = parameter.value.astype(dtype), parameter.grad.astype(dtype)
        return net

    def zero_grad(self) -> None:
        for _, parameter in self.parameters():
            parameter.grad[...] = 0

    def forward(self, x: Array) -> Array:
        """Images (B, C, H, W) -> logits (B, classes)."""
        for name, layer in self.layers.items():
            x = self.outputs[name] = layer.forward(x)
        return x

    def backward(self, grad_logits: Array) -> Array:
        """For training: add up the gradients of all parameters; returns the gradient of the images."""
        for layer in reversed(self.layers.values()):
            grad_logits = layer.backward(grad_logits)
        return grad_logits

    def gradient(self, grad_logits: Array, wrt: str = "input") -> Array:
        """For explaining: the gradient with respect to the images, or to the output of layer `wrt`.

        grad_logits: (B, classes), what the backward pass starts from. Needs a `forward` of the same images
        before it. Gradients of parameters stay as they are: asking for a map never disturbs training.
        Raises KeyError if there is no layer of that name, ValueError if `grad_logits` does not fit.
        """
        if wrt != "input" and wrt not in self.layers:
            raise KeyError(f"no layer {wrt!r}; this net has {', '.join(self.layers)}, and 'input'")
        last = next(reversed(self.layers))
        logits = self.outputs.get(last)
        if logits is None or grad_logits.shape != logits.shape:
            have = (
                "there was no forward pass yet" if logits is None else f"the last forward gave {logits.shape}"
            )
            raise ValueError(
                f"gradient() wants one number per image and class, but got {grad_logits.shape} and {have}: "
                "run net.forward(images) on the same images first"
            )
        for name, layer in reversed(self.layers.items()):
            if name == wrt:
                break
            grad_logits = layer.backward(grad_logits, accumulate=False)
        return grad_logits


def flatten_net() -> Sequential:
    """The net of lab 01: two convolutions, one pooling, and a linear layer on all 32 x 14 x 14 positions."""
    return Sequential(
        conv1=Conv2d(1, 16),
        relu1=ReLU(),
        conv2=Conv2d(16, 32),
        relu2=ReLU(),
        pool=MaxPool2d(),
        flatten=Flatten(),
        linear=Linear(32 * 14 * 14, 10),
    )


def gap_net(images: Array) -> Sequential:
    """The other head of lab 01: the second convolution's activations are averaged over all positions.

    images: (B, 1, H, W), the training images, from which only their mean and deviation are taken. An average
    over 196 positions hides most of what differs between two digits, so this net needs more help than
    `flatten_net`: standardised inputs, 5 x 5 filters, pooling between the convolutions (a wider view per
    position), and larger weights at the start.
    """
    return Sequential(
        standardise=Standardise(float(images.mean()), float(images.std())),
        conv1=Conv2d(1, 8, size=5, pad=2),
        relu1=ReLU(),
        pool=MaxPool2d(),
        conv2=Conv2d(8, 32, size=5, pad=2),
        relu2=ReLU(),
        average=GlobalAveragePool(),
        linear=Linear(32, 10, scale=0.25),
    )


def softmax(logits: Array) -> Array:
    """Probabilities, (B, classes) -> (B, classes); shifted by the maximum so that nothing overflows."""
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exp / exp.sum(axis=1, keepdims=True)


def cross_entropy(logits: Array, labels: NDArray[np.integer]) -> tuple[float, Array]:
    """Softmax and cross-entropy, mean over the batch -> (loss in nats, gradient of the logits).

    Computed from log-probabilities, so a hopeless prediction costs a large number, never infinity.
    """
    rows = np.arange(len(labels))
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    grad = np.exp(log_probabilities)
    grad[rows, labels] -= 1
    grad /= np.asarray(len(labels), grad.dtype)
    return float(-log_probabilities[rows, labels].mean()), grad


def l2_penalty(net: Sequential, strength: float) -> float:
    """strength / 2 * (sum of all squared weights, biases left out); adds its gradient to the parameters'."""
    loss = 0.0
    for name, parameter in net.parameters():
        if name.endswith(".weight"):
            loss += strength / 2 * float((parameter.value**2).sum())
            parameter.grad += strength * parameter.value
    return loss


class SGD:
    """Gradient descent with momentum: v <- momentum * v + grad; value <- value - learning_rate * v."""

    def __init__(self, net: Sequential, learning_rate: float, momentum: float = 0.9) -> None:
        self.net, self.learning_rate, self.momentum = net, learning_rate, momentum
        self.velocity = {name: np.zeros_like(p.value) for name, p in net.parameters()}

    def step(self) -> None:
        for name, parameter in self.net.parameters():
            velocity = self.velocity[name]
            velocity *= self.momentum
            velocity += parameter.grad
            parameter.value -= self.learning_rate * velocity


def logits_of(net: Sequential, images: Array) -> Array:
    """Logits of any number of images, in memory that does not grow with it. -> (N, classes)."""
    return np.concatenate([net.forward(part) for part in in_chunks(images, CHUNK_OF_A_SPLIT)])


@dataclass
class History:
    """What `fit` kept after each epoch: loss in nats, accuracy in [0, 1], each over the whole split."""

    train_loss: list[float] = field(default_factory=list)
    test_loss: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)


def fit(
    net: Sequential,
    train: ImageSet,
    test: ImageSet,
    *,
    epochs: int,
    batch: int,
    learning_rate: float,
    decay: bool = False,
    l2: float = 0.0,
    seed: int = 0,
) -> History:
    """Train in place by momentum SGD on the cross-entropy, with a progress bar.

    decay: let the learning rate fall in a straight line to zero. l2: strength of `l2_penalty`, which is not
    part of the losses that are kept. The order of the images depends on `seed` alone. Both splits are
    evaluated after each epoch with the net as it is then: a running average over the epoch would mix in what
    the net could not do yet.
    """
    rng = np.random.default_rng(seed)
    optimiser = SGD(net, learning_rate)
    history = History()
    steps = epochs * -(-len(train) // batch)
    step = 0
    with tqdm(total=steps, desc="training", unit="step", file=sys.stdout) as bar:
        for _ in range(epochs):
            order = rng.permutation(len(train))
            for i in range(0, len(train), batch):
                chosen = order[i : i + batch]
                net.zero_grad()
                _, grad = cross_entropy(net.forward(train.images[chosen]), train.labels[chosen])
                net.backward(grad)
                l2_penalty(net, l2)
                if decay:
                    optimiser.learning_rate = learning_rate * (1 - step / steps)
                optimiser.step()
                step += 1
                bar.update()
            for split, losses, accuracies in (
                (train, history.train_loss, history.train_accuracy),
                (test, history.test_loss, history.test_accuracy),
            ):
                logits = logits_of(net, split.images)
                losses.append(cross_entropy(logits, split.labels)[0])
                accuracies.append(float((logits.argmax(axis=1) == split.labels).mean()))
            bar.set_postfix(test_accuracy=f"{history.test_accuracy[-1]:.3f}")
    return history
