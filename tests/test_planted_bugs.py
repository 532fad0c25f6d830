"""Pictures and live numbers are not compared: does a strict run of a lab notice a bug in the helpers at all?

Each bug is planted in a copy of this project's tree, by one substitution, and must make the strict run fail.
"""

import re
import shutil
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output, writes

from helpers.course import notebooks

# of each lab, name: (file in helpers/, text that stands there exactly once, the bug in its place)
PLANTED: dict[str, dict[str, tuple[str, str, str]]] = {
    "01_numpy_saliency.ipynb": {
        "no ReLU in the backward pass": ("numpy_nn.py", "return grad_out * (x > 0)", "return grad_out * 1.0"),
        "no ReLU in the forward pass": ("numpy_nn.py", "return np.maximum(x, 0)", "return x"),
        "logit as seed": (
            "saliency.py",
            "np.arange(len(logits)), classes] = 1",
            "np.arange(len(logits)), classes] = logits.max()",
        ),
        "maximum over the images": (
            "saliency.py",
            "np.abs(gradient).max(axis=1)",
            "np.abs(gradient).max(axis=0)",
        ),
        "weights averaged over channels": (
            "saliency.py",
            "weights = gradients.mean(axis=(2, 3), keepdims=True)",
            "weights = gradients.mean(axis=1, keepdims=True)",
        ),
        "min-max scaling": (
            "overlay.py",
            "positive = np.maximum(maps, 0)",
            "positive = maps - maps.min(axis=(1, 2), keepdims=True)",
        ),
        "transposed overlay": (
            "overlay.py",
            "share = alpha * np.where(unit_map >= threshold, unit_map, 0)[..., None]",
            "share = alpha * np.where(unit_map >= threshold, unit_map, 0).T[..., None]",
        ),
        "upside-down overlay": (
            "overlay.py",
            "return (1 - share) * picture + share * colour(unit_map)",
            "return (1 - share[::-1]) * picture + (share * colour(unit_map))[::-1]",
        ),
        "HiResCAM averages": (
            "saliency.py",
            "return (gradients * activations).sum(axis=1)",
            "return (gradients.mean(axis=(2, 3), keepdims=True) * activations).sum(axis=1)",
        ),
        "momentum with the wrong sign": (
            "numpy_nn.py",
            "velocity += parameter.grad",
            "velocity -= parameter.grad",
        ),
    },
    "02_fashion_mnist_gradcam.ipynb": {
        "no step": (
            "training.py",
            "torch.optim.Adam(net.parameters(), learning_rate)",
            "torch.optim.Adam(net.parameters(), 0.0)",
        ),
        "weights from the activations": (
            "sequential_cam.py",
            "weights = gradients.mean(dim=(2, 3))",
            "weights = activations.mean(dim=(2, 3))",
        ),
        "probability instead of logit": (
            "sequential_cam.py",
            "score = logits.gather(1, classes[:, None]).sum()",
            "score = logits.softmax(1).gather(1, classes[:, None]).sum()",
        ),
        "class 0 taken for none": (
            "sequential_cam.py",
            "if classes is None:",
            "if classes is None or (isinstance(classes, int) and not classes):",
        ),
        "the average's factor forgotten": (
            "sequential_cam.py",
            "return cam, size * averaged, size * hires_cam(activations, gradients)",
            "return cam, size * averaged, hires_cam(activations, gradients)",
        ),
    },
    "03_cats_vs_dogs_gradcam.ipynb": {
        "no step": (
            "training.py",
            "torch.optim.Adam(net.parameters(), learning_rate)",
            "torch.optim.Adam(net.parameters(), 0.0)",
        ),
        "inputs kept": ("hooks.py", "outputs.append(output)", "outputs.append(inputs[0])"),
        "no clone": (
            "hooks.py",
            "return output.clone()",
            "return output",
        ),
        "weights summed over channels": (
            "cam.py",
            "mean(dim=(2, 3), keepdim=True)",
            "mean(dim=(1, 2, 3), keepdim=True)",
        ),
        "everything recorded": ("cam.py", "output.detach().requires_grad_()", "output.requires_grad_()"),
        "padding shifts the wrong way": (
            "overlay.py",
            "(kernel - 1) / 2 - padding",
            "(kernel - 1) / 2 + padding",
        ),
    },
    "04_resnet_gradcam.ipynb": {
        "mean and deviation exchanged": (
            "resnet_steps.py",
            "(images * std + mean)",
            "(images * mean + std)",
        ),
        "map of another score": (
            "resnet_steps.py",
            "score = logits.gather(1, classes[:, None]).sum()",
            "score = logits.sum()",
        ),
        "bias forgotten": (
            "resnet_steps.py",
            "maps.mean(dim=(1, 2)) + fc.bias[classes]",
            "maps.mean(dim=(1, 2))",
        ),
        "corners aligned": ("resnet_steps.py", "align_corners=False", "align_corners=True"),
        "one class only": (
            "resnet_steps.py",
            "(logits[:, first] - logits[:, second]).sum()",
            "logits[:, first].sum()",
        ),
        "crops not aligned": (
            "resnet_steps.py",
            "left[..., pixels:].flatten()",
            "left[..., : width - pixels].flatten()",
        ),
    },
    "05_vgg_hooks.ipynb": {
        "other pixels shown": (
            "vgg_steps.py",
            "preprocess.mean, preprocess.std",
            "preprocess.std, preprocess.mean",
        ),
        "still in place": ("hooks.py", "module.inplace = False", "module.inplace = True"),
        "smallest are the largest": ("vgg_steps.py", "largest=False", "largest=True"),
        "signs left out": ("vgg_steps.py", "np.abs(maps).max(", "maps.max("),
        "weights of the ReLU": ("vgg_steps.py", "(weights_before, after)", "(weights_after, after)"),
        "nothing guided": ("hooks.py", "grad_input[0].clamp(min=0)", "grad_input[0]"),
        "no ranks": (
            "vgg_steps.py",
            "rankdata(maps.reshape(len(maps), -1), axis=1)",
            "maps.reshape(len(maps), -1)",
        ),
    },
}


def plant(tree: Path, file: str, old: str, new: str) -> None:
    """Replace `old`, which must stand exactly once in helpers/`file` of the copy, by `new`."""
    path = tree / "helpers" / file
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, (
        f"{old!r} stands {text.count(old)} times in helpers/{file}; bring the bug up to date"
    )
    path.write_text(text.replace(old, new), encoding="utf-8")


def run_strictly(run_in, tree: Path, notebook: str) -> CompletedProcess:
    """Up to the first cell that differs or fails."""
    options = ("--nbval", "-x", "-q", "--color=no", "-p", "no:cacheprovider")
    return run_in(tree, "pytest", *options, f"solutions/{notebook}")


def noticed(done: CompletedProcess) -> bool:
    """Whether a stored output or an assertion of the notebook tells of the bug; a crash does not count."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", done.stdout)  # tracebacks come in colour
    return (
        done.returncode == 1
        and re.search("^Cell .*: Cell outputs differ|^AssertionError", plain, re.M) is not None
    )


def test_every_lab_has_bugs():
    assert set(PLANTED) == {path.name for path in notebooks.SOLUTIONS.glob("*.ipynb")}
    assert min(map(len, PLANTED.values())) >= 5


@pytest.mark.parametrize(
    "lab, file, old, new",
    [
        pytest.param(lab, *bug, id=f"{lab[:2]}: {name}")
        for lab, bugs in PLANTED.items()
        for name, bug in bugs.items()
    ],
)
def test_strict_run_notices(lab, file, old, new, course_copy, run_in):
    shutil.copy(notebooks.SOLUTIONS / lab, course_copy / "solutions" / lab)
    plant(course_copy, file, old, new)
    done = run_strictly(run_in, course_copy, lab)
    assert noticed(done), done.stdout + done.stderr


# The harness itself, on a notebook of three cells.


@pytest.fixture
def small_course(course_copy) -> Path:
    (course_copy / "helpers" / "small.py").write_text("def area(a, b):\n    return a * b\n", encoding="utf-8")
    cells = [
        new_code_cell("from helpers.small import area", execution_count=1),
        new_code_cell("assert area(1, 3) < 8", execution_count=2),
        new_code_cell("print(area(2, 3))", outputs=[new_output("stream", text="6\n")], execution_count=3),
    ]
    (course_copy / "solutions" / "00_small.ipynb").write_text(
        writes(new_notebook(cells=cells)), encoding="utf-8"
    )
    return course_copy


def test_a_copy_without_a_bug_passes(small_course, run_in):
    done = run_strictly(run_in, small_course, "00_small.ipynb")
    assert done.returncode == 0 and not noticed(done), done.stdout + done.stderr


@pytest.mark.parametrize(
    "bug, expected",
    [("return a + b", True), ("return 9", True), ("return undefined", False), ("retrun a", False)],
    ids=["output differs", "assertion fails", "crashes", "cannot be imported"],
)
def test_only_a_comparison_counts_as_noticed(bug, expected, small_course, run_in):
    plant(small_course, "small.py", "return a * b", bug)
    done = run_strictly(run_in, small_course, "00_small.ipynb")
    assert done.returncode == 1 and noticed(done) is expected, done.stdout + done.stderr


@pytest.mark.parametrize("old", ["return b * a", "a"])
def test_a_bug_that_no_longer_fits_is_an_error(old, small_course):
    with pytest.raises(AssertionError, match="bring the bug up to date"):
        plant(small_course, "small.py", old, "c")
