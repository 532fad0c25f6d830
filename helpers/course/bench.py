"""`bench`: speed and size against the goals, measured here and now.

Machines are noisy, so what is compared takes turns within one run, and a ratio is the median of the ratios of
neighbours. `bench` reports; it is not a test.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from helpers import numpy_nn as nn
from helpers.course import grade, notebooks
from helpers.course.grading.report import Report
from helpers.course.refresh import KERNEL_SETTINGS, execute, kernel_environment, measured
from helpers.device import limit_threads
from helpers.drawn_garments import draw_garments
from helpers.drawn_pets import draw_pets, sample_pets
from helpers.saliency import class_activation_map, seed

if TYPE_CHECKING:
    import torch

# Seconds of one whole run on two cores with the embedded data, and GB of memory.
LAB_BUDGETS = {"01": (45.0, 2.0), "02": (60.0, 3.0), "03": (90.0, 3.0), "04": (60.0, 3.0), "05": (60.0, 3.0)}

# Where Grad-CAM is measured: the last layers that have positions.
CAM_LAYERS = {"resnet18": "layer4", "resnet50": "layer4", "vgg16": "features.29"}


@dataclass(frozen=True)
class Figure:
    """One measured figure and the goal that it is held against; other people's work has none."""

    what: str
    value: float
    unit: str
    goal: float | None = None
    at_most: bool = True

    @property
    def reached(self) -> bool:
        if self.goal is None:
            return True
        return self.value <= self.goal if self.at_most else self.value >= self.goal

    def __str__(self) -> str:
        if self.goal is None:
            return f"     {self.what}: {self.value:.2f} {self.unit}"
        mark = "ok  " if self.reached else "MISS"
        sign = "<=" if self.at_most else ">="
        return f"{mark} {self.what}: {self.value:.2f} {self.unit} (goal {sign} {self.goal:g})"


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def ratio(one: Callable[[], object], other: Callable[[], object], rounds: int) -> float:
    """Median of time(one) / time(other), measured in turns after one unmeasured round."""
    one(), other()
    return statistics.median(seconds(one) / seconds(other) for _ in range(rounds))


def step(net: nn.Sequential, images: np.ndarray, labels: np.ndarray) -> None:
    """One forward and backward pass, as in training."""
    net.zero_grad()
    _, grad = nn.cross_entropy(net.forward(images), labels)
    net.backward(grad)


class LoopConv2d(nn.Conv2d):
    """The same convolution as a loop over output pixels, as it is often written first."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        self._x = np.pad(x, ((0, 0), (0, 0), (self.pad, self.pad), (self.pad, self.pad)))
        weight, bias = self.parameters["weight"].value, self.parameters["bias"].value
        size = weight.shape[-1]
        rows, cols = self._x.shape[2] - size + 1, self._x.shape[3] - size + 1
        out = np.empty((len(x), len(weight), rows, cols), x.dtype)
        for i in range(rows):
            for j in range(cols):
                window = self._x[:, :, i : i + size, j : j + size]
                out[:, :, i, j] = np.tensordot(window, weight, axes=([1, 2, 3], [1, 2, 3])) + bias
        return out

    def backward(self, grad_out: np.ndarray, *, accumulate: bool = True) -> np.ndarray:
        weight, bias = self.parameters["weight"], self.parameters["bias"]
        size = weight.value.shape[-1]
        grad_x = np.zeros_like(self._x)
        for i in range(grad_out.shape[2]):
            for j in range(grad_out.shape[3]):
                window = np.s_[:, :, i : i + size, j : j + size]
                grad = grad_out[:, :, i, j]
                grad_x[window] += np.tensordot(grad, weight.value, axes=(1, 0))
                weight.grad += np.tensordot(grad, self._x[window], axes=(0, 0))
        bias.grad += grad_out.sum(axis=(0, 2, 3))
        height, width = grad_out.shape[2:]
        return grad_x[:, :, self.pad : self.pad + height, self.pad : self.pad + width]


class LoopMaxPool2d(nn.MaxPool2d):
    """The same pooling as a loop over output pixels."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        self._x = x
        rows, cols = x.shape[2] // self.size, x.shape[3] // self.size
        out = np.empty((*x.shape[:2], rows, cols), x.dtype)
        for i in range(rows):
            for j in range(cols):
                out[:, :, i, j] = self._window(x, i, j).max(axis=(2, 3))
        return out

    def backward(self, grad_out: np.ndarray, *, accumulate: bool = True) -> np.ndarray:
        grad_x = np.zeros_like(self._x)
        for i in range(grad_out.shape[2]):
            for j in range(grad_out.shape[3]):
                window = self._window(self._x, i, j)
                flat = window.reshape(*window.shape[:2], -1)
                winner = np.arange(flat.shape[2]) == flat.argmax(axis=2)[..., None]
                self._window(grad_x, i, j)[...] = (winner * grad_out[:, :, i, j, None]).reshape(window.shape)
        return grad_x

    def _window(self, x: np.ndarray, i: int, j: int) -> np.ndarray:
        size = self.size
        return x[:, :, i * size : (i + 1) * size, j * size : (j + 1) * size]


def with_loops(net: nn.Sequential) -> nn.Sequential:
    """A net with the same weights whose convolutions and pooling loop over pixels."""
    net = net.copy()
    for layer in net.layers.values():
        if isinstance(layer, nn.Conv2d):
            layer.__class__ = LoopConv2d
        elif isinstance(layer, nn.MaxPool2d):
            layer.__class__ = LoopMaxPool2d
    return net


def torch_step(net: nn.Sequential, images: np.ndarray, labels: np.ndarray) -> Callable[[], None]:
    """The same pass in PyTorch, with the gradient of the images, which the NumPy net computes too."""
    import torch
    from torch.nn import functional as F

    weights = {
        key: torch.tensor(
            np.ascontiguousarray(p.value.T) if key == "linear.weight" else p.value
        ).requires_grad_()
        for key, p in net.parameters()
    }
    x, y = torch.tensor(images).requires_grad_(), torch.tensor(labels)

    def run() -> None:
        for tensor in (x, *weights.values()):
            tensor.grad = None
        a = F.relu(F.conv2d(x, weights["conv1.weight"], weights["conv1.bias"], padding=1))
        a = F.relu(F.conv2d(a, weights["conv2.weight"], weights["conv2.bias"], padding=1))
        a = F.max_pool2d(a, 2).flatten(1)
        F.cross_entropy(F.linear(a, weights["linear.weight"], weights["linear.bias"]), y).backward()

    return run


def three_maps(net: nn.Sequential, images: np.ndarray, classes: np.ndarray) -> None:
    """The three explanations of lab 01, from one forward pass."""
    logits = net.forward(images)
    np.abs(net.gradient(logits)).max(axis=1)
    start = seed(logits, classes)
    np.abs(net.gradient(start)).max(axis=1)
    class_activation_map(net.outputs["conv2"], net.gradient(start, "conv2"))


def numpy_net(rounds: int) -> list[Figure]:
    """The net of lab 01 against PyTorch and against loops, all on one thread."""
    limit_threads(1)
    rng = np.random.default_rng(0)
    images, labels = rng.random((128, 1, 28, 28), dtype=np.float32), rng.integers(0, 10, size=128)
    net = nn.flatten_net().initialise(rng)
    loops = with_loops(net)
    np.testing.assert_allclose(loops.forward(images[:3]), net.forward(images[:3]), rtol=1e-3, atol=1e-5)

    def ours(count: int) -> Callable[[], None]:
        return lambda: step(net, images[:count], labels[:count])

    def looped(count: int) -> Callable[[], None]:
        return lambda: step(loops, images[:count], labels[:count])

    three = images[:3], labels[:3]
    three_maps(net, *three)
    milliseconds = 1000 * statistics.median(
        seconds(lambda: three_maps(net, *three)) for _ in range(5 * rounds)
    )
    in_torch = torch_step(net, images, labels)  # imports torch, which sets its own number of threads
    limit_threads(1)
    return [
        Figure(
            "NumPy net, batch 128, forward + backward", ratio(ours(128), in_torch, rounds), "x torch", 2.5
        ),
        Figure(
            "loops over pixels, batch 128", ratio(looped(128), ours(128), rounds), "x ours", 4, at_most=False
        ),
        Figure(
            "loops over pixels, batch 3", ratio(looped(3), ours(3), 3 * rounds), "x ours", 10, at_most=False
        ),
        Figure("the three maps of lab 01 on three images", milliseconds, "ms", 5),
    ]


def kept_for_backward(model: torch.nn.Module, layer: torch.nn.Module, call: Callable[[], object]) -> int:
    """Bytes that autograd keeps during a call, without parameters and without the output of the layer."""
    import torch

    kept, outputs = {}, []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage  # held on to, so that no other one takes its address
        return tensor

    hook = layer.register_forward_hook(lambda layer, inputs, output: outputs.append(output.detach()))
    with hook, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        call()
    for tensor in (*model.parameters(), *outputs):
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(storage.nbytes() for storage in kept.values())


def cams() -> dict[str, Callable[..., object]]:
    """Grad-CAM by name, ours first. Each takes model, layer, images (B, 3, H, W) and classes (B, K)."""
    from captum.attr import LayerGradCam
    from pytorch_grad_cam import GradCAM as PytorchGradCam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    from torchcam.methods import GradCAM as TorchCam

    from helpers.cam import grad_cam

    # one forward pass per class each: they take one class per image
    def captum(model, layer, images, classes: torch.Tensor) -> None:
        for column in classes.T:
            LayerGradCam(model, layer).attribute(images, column, relu_attributions=True)

    def torchcam(model, layer, images, classes: torch.Tensor) -> None:
        for column in classes.T:
            with TorchCam(model, layer) as cam:
                cam(column.tolist(), model(images), normalized=False)

    def pytorch_grad_cam(model, layer, images, classes: torch.Tensor) -> None:
        for column in classes.T:
            with PytorchGradCam(model, [layer]) as cam:
                cam(images, [ClassifierOutputTarget(one) for one in column.tolist()])

    return {"ours": grad_cam, "captum": captum, "torchcam": torchcam, "pytorch-grad-cam": pytorch_grad_cam}


def grad_cams(rounds: int) -> list[Figure]:
    """Time and memory of Grad-CAM at 224 x 224 pixels on one thread, beside the forward pass alone.

    Other people's have no goal and take fewer turns.
    """
    import torch
    from torchvision.models import get_model

    everyone = cams()
    limit_threads(1)  # imports set numbers of their own
    classes = torch.arange(8)[:, None]
    figures = []
    for name, path in CAM_LAYERS.items():
        torch.manual_seed(0)
        model = get_model(name, weights=None).eval()
        layer, images = model.get_submodule(path), torch.rand(8, 3, 224, 224)
        forward = torch.inference_mode()(model.__call__)
        for who, cam in everyone.items():
            ours = who == "ours"
            turns = rounds // 2 + 1 if ours else max(1, rounds // 5)
            batch = partial(cam, model, layer, images, classes)
            value = ratio(batch, partial(forward, images), turns)
            figures.append(Figure(f"{name}, 8 images, {who}", value, "x forward", 1.05 if ours else None))
            if name == "vgg16":  # what follows its last convolution is large and slow: no goals for the rest
                continue
            five = partial(cam, model, layer, images[:1], classes[:5].T)
            value = ratio(five, partial(forward, images[:1]), 3 * rounds if ours else turns)
            figures.append(
                Figure(f"{name}, 5 classes of an image, {who}", value, "x forward", 1.10 if ours else None)
            )
            value = kept_for_backward(model, layer, batch) / 1e6
            figures.append(Figure(f"{name}, kept for backward, {who}", value, "MB", 1 if ours else None))
    return figures


def drawing(rounds: int) -> list[Figure]:
    """Garments and pets per second and core, the median of several calls."""
    figures = []
    for what, draw, count, goal in (
        ("drawn garments", draw_garments, 2_000, 2_000),
        ("drawn pets, 96 pixels", lambda count: draw_pets(sample_pets(count)), 100, 200),
        ("drawn pets, 224 pixels", lambda count: draw_pets(sample_pets(count), 224), 50, None),
    ):
        draw(10)
        speed = statistics.median(count / seconds(partial(draw, count)) for _ in range(rounds))
        figures.append(Figure(what, speed, "images/s", goal, at_most=False))
    return figures


def labs() -> list[Figure]:
    """Each lab's whole run on the embedded data: seconds and memory of its kernel, against its budget."""
    both_cores = {**os.environ, **KERNEL_SETTINGS, "OMP_NUM_THREADS": "2"}  # as a student has them
    environment = kernel_environment(environment=both_cores)
    figures = []
    for path in sorted(notebooks.SOLUTIONS.glob("*.ipynb")):
        with measured() as usage:
            execute(notebooks.read(path), path.name, path.parent, environment)
        budget, memory = LAB_BUDGETS[path.name[:2]]
        figures.append(Figure(f"{path.stem}, whole run", usage.seconds, "s", budget))
        figures.append(Figure(f"{path.stem}, memory", usage.memory / 1e9, "GB", memory))
    return figures


def grading(students: int = 12) -> list[Figure]:
    """Submissions of all labs, half of them blank, judged by one worker and by two."""
    with tempfile.TemporaryDirectory() as folder:
        submissions = Path(folder) / "submissions"
        for number in range(students):
            for path in sorted((notebooks.SOLUTIONS, notebooks.LABS)[number % 2].glob("*.ipynb")):
                notebook = notebooks.read(path)
                for cell in notebook.cells:
                    if cell.cell_type == "code":
                        cell.outputs = []
                copy = submissions / f"student{number:03}" / path.name
                notebooks.write(copy, notebooks.text_of(notebook))
        wall, beyond = {}, []
        for workers in (1, 2):
            out = Path(folder) / f"out{workers}"
            parser = argparse.ArgumentParser()
            grade.add_arguments(parser)
            arguments = parser.parse_args([f"{submissions}", f"--out={out}", f"--workers={workers}"])
            wall[workers] = seconds(lambda arguments=arguments: grade.main(arguments))
            reports = [Report.from_json(path.read_text("utf-8")) for path in (out / "reports").iterdir()]
            beyond.append(statistics.fmean(report.seconds - report.starting for report in reports))
    count = students * len(list(notebooks.LABS.glob("*.ipynb")))
    return [
        Figure(f"grading {count} notebooks with one worker, each", wall[1] / count, "s"),
        Figure("of that beyond starting sandboxes and imports, each", beyond[0], "s", 1.5),
        Figure("two workers against one", wall[1] / wall[2], "times as fast", 1.7, at_most=False),
    ]


PARTS: dict[str, Callable[[int], list[Figure]]] = {
    "numpy": numpy_net,
    "drawing": drawing,
    "cams": grad_cams,
    "labs": lambda rounds: labs(),
    "grading": lambda rounds: grading(),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=9, help="turns per comparison (default: 9)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="leave out the other parts")


def main(args: argparse.Namespace) -> int:
    """Prints one line per figure. Exit status 1 if a goal was missed."""
    figures = [figure for part in args.only for figure in PARTS[part](args.rounds)]
    print("\n".join(map(str, figures)))
    return int(not all(figure.reached for figure in figures))
