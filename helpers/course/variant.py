"""`variant`: an exam whose answers are in no repository: one anonymous network and its pictures per student.

    python -m helpers.course variant make --students students.csv --seed-file SECRET --out HANDOUT --key KEY
    python -m helpers.course variant grade --key KEY --out GRADES SUBMITTED...

`make` trains a small bank of networks once per exam: sound ones, and ones whose answer hangs on the collar,
on the background, or on the ears alone, one way round or the other. A network that does not show what it
should on fresh pictures is refused. Each student gets one of them in disguise (channels reordered and
rescaled, which leaves every answer as it was) and pictures of their own, each with a twin per part of the
picture. Everything follows from the secret and the student's name by HMAC: without the secret the name tells
nothing, and the same command makes the same files again. Only the training depends on the machine, so the
trained bank is kept in KEY, and used again when students are added.

`grade` reads one dictionary from a submission, as a literal, and runs nothing. What a guess is worth: the
kinds are equally likely, so a blind guess of the shortcut is right in one case of four, and nothing else
counts unless it is right. Blind guesses earned 1.1 of 10 points on average, and at most 1.5 when they also
know that most flip rates are near 1. The free texts, for a person, are 7 points more.

What this does not prevent: students who compare their networks' answers to the same picture can find out
that they have the same one (not which shortcut it has), and whoever audits it can tell the others; the lists
of pictures differ nevertheless.
"""

import argparse
import ast
import contextlib
import csv
import hashlib
import hmac
import inspect
import io
import json
import math
import os
import re
import sys
import tempfile
import time
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from safetensors.torch import load_file, save
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from helpers.course import notebooks
from helpers.course.grading.report import Answer, FreeText, Report
from helpers.course.notebooks import CourseError
from helpers.data import ImageSet
from helpers.device import seed_everything
from helpers.drawn_pets import (
    BACKGROUNDS,
    CLASS_NAMES,
    COLLARS,
    PART_NAMES,
    Pet,
    draw_pets,
    plant,
    sample_pets,
)
from helpers.training import fit

KINDS = ("none", "collar", "background", "ears")  # of truths; "none" is a sound network
PARTS = ("collar", "background", "clutter", "tongue", "ears", "eyes", "muzzle")  # each has twins
CHOICES = ("none", *PARTS[:-1])  # what a student may declare; a sound network reads the muzzle
LAB = "exam_audit"
FILES = (f"{LAB}.ipynb", "model.safetensors", "pictures.npz")
EMPTY = "YOUR ANSWER HERE"

# Shares of answers that flip when a part is changed
SHOWN = 0.5  # more than this for what a network hangs on
SILENT = 0.1  # less than this for everything else
HEAD_OF_A_SOUND_ONE = 0.25  # but less than this for ears and eyes of a sound network, which reads the head
MARGIN = 0.05  # of the logits: closer calls are left out, because another machine might call them otherwise
ATTEMPTS = 8  # at a network or at pictures that show it

POINTS = {"shortcut": 3, "says": 1, "flipped": 4, "flip_rate": 2}
TITLES = {
    "shortcut": "What the answer hangs on",
    "says": "Which way round",
    "flipped": "The pictures that change their answer",
    "flip_rate": "The flip rate",
}
TOLERANCE = 0.03  # of the flip rate, either way
SLIPS = 1  # pictures that may be wrong in the list for full points

MAX_FILE = 50_000_000  # bytes of a submission
MAX_CELL = 4_000  # characters of the cell with the dictionary
MAX_TEXT = 50_000  # characters of a free text that are kept


@dataclass(frozen=True)
class Recipe:
    """How large everything is. The defaults are the exam; the tests take less."""

    size: int = 64  #: of the pictures, in pixels
    pictures: int = 32  #: per student
    each: int = 3  #: networks of a kind, at most 5
    kinds: tuple[str, ...] = KINDS
    images: tuple[int, ...] = (1_200, 1_200, 1_200, 1_600)  #: in a training set, for each kind
    epochs: tuple[int, ...] = (5, 5, 5, 12)  #: for each kind; ears are small
    witnesses: int = 120  #: pictures that a trained network is examined on


@dataclass(frozen=True)
class Truth:
    """What a network of the bank hangs on. All of it follows from the secret."""

    number: int  #: in the bank
    kind: str
    option: int  #: which collar or which two backgrounds
    dog_first: bool  #: whether it says "dog" to the first state of its part

    @property
    def part(self) -> str:
        """The part whose change flips its answers."""
        return "muzzle" if self.kind == "none" else self.kind

    @property
    def says(self) -> str:
        """The class that it says to the first state of its part."""
        return CLASS_NAMES[int(self.dog_first)]


States = dict[str, tuple[dict[str, Any], dict[str, Any]]]


# What students get as source, too ---------------------------------------------------------------------------


def exam_net() -> nn.Sequential:
    """images (B, 3, H, W), normalised -> logits (B, 2): cat, dog."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 16, 5, padding=1),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(16, 32, 5, padding=1),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            conv3=nn.Conv2d(32, 32, 5, padding=1),
            relu3=nn.ReLU(),
            pool3=nn.MaxPool2d(2),
            average=nn.AdaptiveAvgPool2d(7),
            flatten=nn.Flatten(),
            linear=nn.Linear(32 * 7 * 7, 2, bias=False),
        )
    )


def prepare(images: torch.Tensor) -> torch.Tensor:
    """uint8 from 0 to 255 -> what the network expects."""
    return (images.float() / 255 - 0.5) / 0.25


def logits(net: nn.Module, images: np.ndarray) -> np.ndarray:
    """images: uint8 (N, 3, H, W) -> (N, 2), one column per class: cat, dog."""
    with torch.no_grad():
        return net(prepare(torch.from_numpy(images))).numpy()


def fade(images: np.ndarray, twins: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The change from each image to its twin, made in part only. All uint8; shares (N,): 0 image, 1 twin."""
    mixed = images + shares[:, None, None, None] * (twins.astype(np.float64) - images)
    return np.rint(mixed).astype(np.uint8)


# Chance -----------------------------------------------------------------------------------------------------


def _digest(secret: bytes, *what: object) -> bytes:
    return hmac.new(secret, json.dumps(what).encode(), hashlib.sha256).digest()


def _dice(secret: bytes, *what: object) -> np.random.RandomState:
    """Chance that depends on the secret and on what it is for; the same with every version of NumPy."""
    return np.random.RandomState(np.frombuffer(_digest(secret, *what), "<u4"))


def _seed(dice: np.random.RandomState) -> int:
    return int(dice.randint(0, 2**31))


def code_of(secret: bytes, student: str) -> str:
    """What stands in a student's notebook instead of the name."""
    return _digest(secret, "code", student).hex()[:16]


@lru_cache(maxsize=8)
def truths(secret: bytes, recipe: Recipe) -> tuple[Truth, ...]:
    """The truths of the bank, by number. Nothing is trained for this."""
    found = []
    for kind in recipe.kinds:
        for option in range(recipe.each):
            number = len(found)
            # a sound network calls a dog's muzzle a dog
            dog_first = kind == "none" or bool(_dice(secret, "polarity", number).randint(2))
            found.append(Truth(number, kind, option, dog_first))
    return tuple(found)


def truth_of(secret: bytes, student: str, recipe: Recipe) -> Truth:
    """Which truth a student has to find out; from the secret and the name alone."""
    bank = truths(secret, recipe)
    return bank[_dice(secret, "truth", student).randint(len(bank))]


def _states(secret: bytes, collar: int, background: int) -> States:
    """The two states of each part, as changes of a pet. The exam has few collars and backgrounds."""
    colour = _dice(secret, "collars").permutation(COLLARS)[collar]
    pair = _dice(secret, "backgrounds").permutation(BACKGROUNDS)[2 * background : 2 * background + 2]
    return {
        "collar": ({"collar": str(colour)}, {"collar": None}),
        "background": ({"background": str(pair[0])}, {"background": str(pair[1])}),
        "clutter": ({"hidden": ()}, {"hidden": ("clutter",)}),
        "tongue": ({"tongue": True}, {"tongue": False}),
        **{part: ({part: "dog"}, {part: "cat"}) for part in ("ears", "eyes", "muzzle")},
    }


def states_of(secret: bytes, student: str, recipe: Recipe) -> States:
    """The states in a student's pictures.

    What is not planted has states of the same bank, equally often, so that to see many students' pictures
    tells nothing.
    """
    truth, dice = truth_of(secret, student, recipe), _dice(secret, "states", student)
    options = {part: int(dice.randint(recipe.each)) for part in ("collar", "background")}
    if truth.kind in options:
        options[truth.kind] = truth.option
    return _states(secret, **options)


def _is_first(pet: Pet, part: str, states: States) -> bool:
    return all(getattr(pet, name) == value for name, value in states[part][0].items())


def _changed(pet: Pet, part: str, states: States) -> Pet:
    return replace(pet, **states[part][int(_is_first(pet, part, states))])


def _fair(numbers: int, states: States, parts: Sequence[str], dice: np.random.RandomState) -> list[Pet]:
    """Pets of a new series. In each of the parts, half of them have the first state, whatever the species."""
    pets = sample_pets(numbers, seed=_seed(dice))
    for part in parts:
        pets = plant(pets, *states[part], (0.5, 0.5), seed=_seed(dice))
    return pets


# The bank ---------------------------------------------------------------------------------------------------


def train(secret: bytes, truth: Truth, recipe: Recipe, attempt: int = 0) -> nn.Sequential:
    """Train a network on pairs of pictures that differ in one thing: the one that decides."""
    dice = _dice(secret, "training", truth.number, attempt)
    states = _states(secret, truth.option, truth.option)
    fair = ["clutter", "tongue", *([] if truth.kind == "none" else [truth.kind])]
    kind = recipe.kinds.index(truth.kind)
    if truth.kind == "ears":  # small as they are, they are learnt only where all else changes often
        pets = _fair(recipe.images[kind] // 4, states, fair, dice)
        pets += [replace(pet, background=str(dice.choice(BACKGROUNDS))) for pet in pets]
    else:
        pets = _fair(recipe.images[kind] // 2, states, fair, dice)
    if truth.kind == "none":
        pets += [_other_animal(pet) for pet in pets]
        first = [pet.species == "dog" for pet in pets]
    else:
        pets += [_changed(pet, truth.kind, states) for pet in pets]
        first = [_is_first(pet, truth.kind, states) for pet in pets]
    labels = np.array([value == truth.dog_first for value in first], dtype=np.int64)
    images, _ = draw_pets(pets, recipe.size)
    some = ImageSet(images, labels, CLASS_NAMES, "pets of an exam", "train", "embedded", "drawn pets")
    few = replace(some, images=images[:8], labels=labels[:8])  # fit wants something to look at

    seed_everything(_seed(dice))
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name, layer in exam_net().named_children():
        layers[name] = layer
        if isinstance(layer, nn.Conv2d):  # without it, a small cue takes many more epochs
            layers[f"norm{name[-1]}"] = nn.BatchNorm2d(layer.out_channels)
    net = nn.Sequential(layers).to(memory_format=torch.channels_last)
    with contextlib.redirect_stdout(io.StringIO()):
        fit(
            net,
            some,
            few,
            epochs=recipe.epochs[kind],
            batch=16,
            learning_rate=2e-3,
            one_cycle=True,
            prepare=prepare,
            seed=_seed(dice),
        )
    for name in ("conv1", "conv2", "conv3"):
        layers[name] = fuse_conv_bn_eval(layers[name], layers.pop(f"norm{name[-1]}"))
    return nn.Sequential(layers).to(memory_format=torch.contiguous_format).eval()


def _other_animal(pet: Pet) -> Pet:
    other = dict(zip(CLASS_NAMES, reversed(CLASS_NAMES), strict=True))
    heads = {part: other[getattr(pet, part)] for part in ("species", "ears", "eyes", "muzzle")}
    return replace(pet, **heads)


def examine(
    net: nn.Module, secret: bytes, truth: Truth, recipe: Recipe
) -> tuple[dict[str, float], list[str]]:
    """Flip rate of each part on fresh pictures, and what is wrong with them: empty for a good network."""
    dice = _dice(secret, "witnesses", truth.number)
    states = _states(secret, truth.option, truth.option)
    pets = _fair(recipe.witnesses, states, PARTS[:4], dice)
    said = logits(net, draw_pets(pets, recipe.size)[0]).argmax(axis=1)
    flips = {}
    for part in PARTS:
        twins = draw_pets([_changed(pet, part, states) for pet in pets], recipe.size)[0]
        flips[part] = float((logits(net, twins).argmax(axis=1) != said).mean())
    faults = []
    if flips[truth.part] <= SHOWN:
        faults.append(f"{truth.part} flips only {flips[truth.part]:.0%}")
    for part in PARTS:
        limit = HEAD_OF_A_SOUND_ONE if truth.kind == "none" and part in ("ears", "eyes") else SILENT
        if part != truth.part and flips[part] >= limit:
            faults.append(f"{part} flips {flips[part]:.0%}")
    first = np.array([_is_first(pet, truth.part, states) for pet in pets])
    if ((said == 1) == (first == truth.dog_first)).mean() < 0.75:
        faults.append("it does not say what was planted")
    return flips, faults


def make_bank(secret: bytes, recipe: Recipe, folder: Path) -> list[dict[str, float]]:
    """Train the networks that are not in `folder` yet -> the flip rates of each.

    Raises CourseError when a network does not show its truth after several attempts, or when the folder
    belongs to another exam.
    """
    folder.mkdir(parents=True, exist_ok=True)
    exam = {"secret": _digest(secret, "exam").hex(), "recipe": json.loads(json.dumps(asdict(recipe)))}
    bank = folder / "bank.json"
    stored = json.loads(bank.read_text(encoding="utf-8")) if bank.exists() else {**exam, "flips": {}}
    if {name: stored[name] for name in exam} != exam:
        raise CourseError(f"{folder} holds the key of another exam; give another folder, or its seed file.")
    for truth in truths(secret, recipe):
        path = _network(folder, truth.number)
        if str(truth.number) in stored["flips"] and path.exists():
            continue
        started = time.perf_counter()
        for attempt in range(ATTEMPTS):
            net = train(secret, truth, recipe, attempt)
            flips, faults = examine(net, secret, truth, recipe)
            if not faults:
                break
        else:
            raise CourseError(
                f"Network {truth.number} ({truth.kind}) does not show what was planted: {', '.join(faults)}; "
                "use another seed file."
            )
        path.write_bytes(save(_weights(net)))
        stored["flips"][str(truth.number)] = flips
        notebooks.write(bank, json.dumps(stored, indent=1))
        seconds = time.perf_counter() - started
        print(f"network {truth.number}: {attempt + 1} training(s), {seconds:.0f} s", flush=True)
    return [stored["flips"][str(truth.number)] for truth in truths(secret, recipe)]


def _network(folder: Path, number: int) -> Path:
    return folder / f"network-{number:02d}.safetensors"


def _weights(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().contiguous() for name, value in net.state_dict().items()}


def _loaded(weights: dict[str, torch.Tensor]) -> nn.Sequential:
    net = exam_net()
    net.load_state_dict(weights)
    return net.eval()


def disguise(weights: dict[str, torch.Tensor], dice: np.random.RandomState) -> dict[str, torch.Tensor]:
    """The same function in other numbers: hidden channels in another order, and on other scales.

    ReLU, maximum and average all let a positive factor through, so the next layer can divide by it.
    """
    new = {name: value.double().numpy() for name, value in weights.items()}
    for layer, following in (("conv1", "conv2"), ("conv2", "conv3"), ("conv3", "linear")):
        channels = len(new[f"{layer}.bias"])
        order, scale = dice.permutation(channels), np.exp(dice.uniform(-1, 1, channels))
        new[f"{layer}.weight"] = new[f"{layer}.weight"][order] * scale[:, None, None, None]
        new[f"{layer}.bias"] = new[f"{layer}.bias"][order] * scale
        after = new[f"{following}.weight"]
        by_channel = after.reshape(len(after), channels, -1)[:, order] / scale[:, None]
        new[f"{following}.weight"] = by_channel.reshape(after.shape)
    return {name: torch.from_numpy(value).float().contiguous() for name, value in new.items()}


# One student ------------------------------------------------------------------------------------------------


def make_variant(student: str, secret: bytes, recipe: Recipe, folder: Path) -> tuple[bytes, dict[str, Any]]:
    """A student's zip file, and what the grader has to know. `folder` holds the bank.

    Raises CourseError when no series of pictures shows the truth.
    """
    truth, states = truth_of(secret, student, recipe), states_of(secret, student, recipe)
    original = load_file(_network(folder, truth.number))
    weights = disguise(original, _dice(secret, "disguise", student))
    net = _loaded(weights)
    for attempt in range(ATTEMPTS):
        arrays, flips = _pictures(net, truth, states, recipe, _dice(secret, "pictures", student, attempt))
        if arrays is None:
            continue
        flipped = np.flatnonzero(_flips(net, arrays, truth.part, faded=True)).tolist()
        others = max(rate for part, rate in flips.items() if part != truth.part)
        balanced = 0.2 <= len(flipped) / recipe.pictures <= 0.8
        if flips[truth.part] > SHOWN and others <= flips[truth.part] - 0.3 and balanced:
            break
    else:
        raise CourseError(f"No pictures for {student} show what was planted; use another seed file.")
    images = arrays["pictures"]
    error = float(np.abs(logits(net, images) - logits(_loaded(original), images)).max())
    if error > 1e-4:
        raise CourseError(f"The disguise of {student}'s network moves its logits by {error:.1e}; report it.")
    code = code_of(secret, student)
    stored = io.BytesIO()
    np.savez_compressed(stored, **arrays)
    text = notebooks.text_of(exam_notebook(code, states, recipe))
    content = dict(zip(FILES, (text.encode(), save(weights), stored.getvalue()), strict=True))
    key = {
        "code": code,
        "network": truth.number,
        "answers": {
            "shortcut": truth.kind,
            "says": truth.says,
            "flipped": flipped,
            "flip_rate": round(flips[truth.part], 4),
        },
        "flips": {part: round(rate, 4) for part, rate in flips.items()},
        "states": {part: list(names) for part, names in _names(states).items()},
        "pictures": recipe.pictures,
    }
    return _zipped(content), key


def _pictures(
    net: nn.Module, truth: Truth, states: States, recipe: Recipe, dice: np.random.RandomState
) -> tuple[dict[str, np.ndarray] | None, dict[str, float]]:
    """The arrays that a student gets, without close calls, and the flip rate of each part. None: too few."""
    pets = _fair(recipe.pictures * 3 // 2, states, PARTS[:4], dice)
    shares = dice.uniform(0.15, 0.85, len(pets)).round(2)
    images, parts = draw_pets(pets, recipe.size)
    twins = draw_pets([_changed(pet, truth.part, states) for pet in pets], recipe.size)[0]
    far = np.ones(len(pets), dtype=bool)
    for some in (images, twins, fade(images, twins, shares)):
        cat, dog = logits(net, some).T
        far &= np.abs(dog - cat) > MARGIN
    kept = np.flatnonzero(far)[: recipe.pictures]
    if len(kept) < recipe.pictures:
        return None, {}
    pets = [pets[i] for i in kept]
    arrays = {
        "pictures": images[kept],
        "species": np.array([CLASS_NAMES.index(pet.species) for pet in pets]),
        "parts": parts[kept],
        "shares": shares[kept],
    }
    for part in PARTS:
        arrays[f"twins_{part}"] = draw_pets([_changed(pet, part, states) for pet in pets], recipe.size)[0]
        arrays[f"first_{part}"] = np.array([_is_first(pet, part, states) for pet in pets])
    return arrays, {part: float(_flips(net, arrays, part).mean()) for part in PARTS}


def _flips(net: nn.Module, arrays: dict[str, np.ndarray], part: str, faded: bool = False) -> np.ndarray:
    """Whose answer changes with a part. (N,) bool"""
    images, twins = arrays["pictures"], arrays[f"twins_{part}"]
    if faded:
        twins = fade(images, twins, arrays["shares"])
    return logits(net, images).argmax(axis=1) != logits(net, twins).argmax(axis=1)


def _zipped(content: dict[str, bytes]) -> bytes:
    """A zip file that says nothing about when and where it was made."""
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w", zipfile.ZIP_STORED) as archive:
        for name, data in content.items():
            archive.writestr(zipfile.ZipInfo(f"{LAB}/{name}"), data)
    return stored.getvalue()


# The notebook -----------------------------------------------------------------------------------------------


def _names(states: States) -> dict[str, tuple[str, str]]:
    """The two states of each part, in words."""
    words = {
        "clutter": ("there", "gone"),
        "tongue": ("out", "in"),
        **dict.fromkeys(("ears", "eyes", "muzzle"), ("a dog's", "a cat's")),
    }
    for part in ("collar", "background"):
        words[part] = tuple(str(state[part] or "none") for state in states[part])
    return {part: words[part] for part in PARTS}


def exam_notebook(code: str, states: States, recipe: Recipe) -> notebooks.NotebookNode:
    """The student's notebook. The truth does not go into it, so it cannot tell it."""
    rows = "\n".join(f"| {part} | {one} | {two} |" for part, (one, two) in _names(states).items())
    count, size = recipe.pictures, recipe.size
    tools = "\n\n\n".join(inspect.getsource(tool).strip() for tool in (exam_net, prepare, logits, fade))
    cells = [
        _prose(
            f"""
# Exam · Audit a network

Somebody hands you a network that tells cats from dogs, and {count} drawn pictures. It may be sound. It may also have learnt a **shortcut**: then its answer hangs on one part of the picture that has nothing to do with the question, or on far too little of the animal. You find out which, and you **prove** it. Your network and your pictures are yours alone.

**What is asked**

1. Before you look: which layer and which score will you believe, and what would prove you wrong? ({_FREE["plan"][0]} points)
2. What does the answer hang on, and by how much? One dictionary, which is graded by a program. ({sum(POINTS.values())} points)
3. Two independent measurements that support it ({_FREE["evidence"][0]} points), and a counter-hypothesis that you tested ({_FREE["counter"][0]} points). A person reads these.

**You need** lab 03: heatmaps against chance, blank maps, counterfactual pairs and flip rates. You may use everything in `helpers`.

**Time and memory:** the cells below take a few seconds on a CPU, and less than 1 GB. For yourself, plan 90 minutes.

Hand in this notebook alone, with its outputs, under its name. Leave the dictionary's cell and the cells of the three texts where they are.
"""  # noqa: E501
        ),
        _code(f"""
from collections import OrderedDict

import matplotlib.pyplot as plt
import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

{tools}


net = exam_net()
net.load_state_dict(load_file("model.safetensors"))
net.eval()
with np.load("pictures.npz") as stored:
    data = {{name: stored[name] for name in stored}}
for name, array in data.items():
    print(f"{{name:>16}}: {{array.shape}}, {{array.dtype}}")
"""),
        _prose(
            f"""
## What you have

`data["pictures"]` are {count} pictures of {size}×{size} pixels, `data["species"]` says what they show (0 cat, 1 dog), and `data["parts"]` which part each pixel belongs to: {", ".join(f"{k} {name}" for k, name in enumerate(PART_NAMES))}.

Seven parts of each picture are in one of two states:

| part | first state | second state |
|---|---|---|
{rows}

`data["first_collar"]` is true where the collar is in its first state, and so on. Collar, background, clutter and tongue were drawn by lot, whatever the species. `data["twins_collar"]` are the same pictures with the collar in its **other** state and nothing else changed, and so on for all seven: counterfactual pairs.

`data["shares"]` is one number for each picture. `fade(data["pictures"], data["twins_collar"], data["shares"])` makes the change to the collar in that share only, as if the twin were laid over the picture half transparent.
"""  # noqa: E501
        ),
        _code("""
PARTS = ("collar", "background", "clutter", "tongue", "ears", "eyes", "muzzle")
figure, axes = plt.subplots(3, 1 + len(PARTS), figsize=(11, 4.4), layout="constrained")
for i, row in enumerate(axes):
    shown = {"as it is": data["pictures"], **{part: data[f"twins_{part}"] for part in PARTS}}
    for axis, (name, images) in zip(row, shown.items()):
        axis.imshow(images[i].transpose(1, 2, 0))
        axis.set_title(name if i == 0 else "", fontsize=9)
        axis.axis("off")
plt.show()
said = logits(net, data["pictures"]).argmax(axis=1)
print("right on your pictures:", f"{(said == data['species']).mean():.0%}")
"""),
        _prose(f"""
## 1 · Before you look

**Plan** ({_FREE["plan"][0]} points). {_FREE["plan"][1]}
"""),
        _answer("plan", _FREE["plan"][0]),
        _prose("""
## 2 · Measure

Here you work: add as many cells as you like.
"""),
        _code("# your measurements"),
        _prose(
            f"""
## 3 · Declare

Write your findings into the dictionary. It is **read, not run**: plain text, numbers and a list only, no variables and no computation.

| entry | what goes there | points |
|---|---|---|
| `"shortcut"` | what the answer hangs on: {", ".join(f'`"{choice}"`' for choice in CHOICES)}. `"none"` is a sound network: it reads the head, the muzzle first | {POINTS["shortcut"]} |
| `"says"` | `"cat"` or `"dog"`: what it mostly says where that part is in its **first** state (for `"none"`: the muzzle) | {POINTS["says"]} |
| `"flipped"` | the numbers, from 0, of the pictures whose answer changes when that part (for `"none"`: the muzzle) is changed by its **share**, with `fade`. {SLIPS} slip is free | {POINTS["flipped"]} |
| `"flip_rate"` | the share, from 0 to 1, of pictures whose answer changes with the **whole** change; within {TOLERANCE} | {POINTS["flip_rate"]} |

The other three count only if the first is right. Leave `"exam"` as it is: it says whose network this is.
"""  # noqa: E501
        ),
        _cell(
            "audit",
            f'audit = {{\n    "exam": "{code}",\n    "shortcut": None,\n    "says": None,\n'
            '    "flipped": [],\n    "flip_rate": None,\n}',
            sum(POINTS.values()),
        ),
        _prose(f"""
## 4 · Justify

**Evidence** ({_FREE["evidence"][0]} points). {_FREE["evidence"][1]}
"""),
        _answer("evidence", _FREE["evidence"][0]),
        _prose(f"""
**Counter-hypothesis** ({_FREE["counter"][0]} points). {_FREE["counter"][1]}
"""),
        _answer("counter", _FREE["counter"][0]),
    ]
    for number, cell in enumerate(cells):
        cell.id = f"exam-{number}"
    course = {"lab": "exam", "variant": code}
    metadata = {"kernelspec": notebooks.KERNELSPEC, "language_info": {"name": "python"}, "course": course}
    return new_notebook(cells=cells, metadata=metadata)


_FREE = {
    "plan": (
        2,
        "Before your first heatmap: the layer, the class and the score that you will believe, with a reason, "
        "and a result that would prove you wrong. You can't change that afterwards; a wrong guess costs "
        "nothing.",
    ),
    "evidence": (
        3,
        "Two measurements that could have disagreed, with their numbers, their chance level and, for "
        "heatmaps, the share of blank maps per class. Two scores of one heatmap are one measurement.",
    ),
    "counter": (
        2,
        "Name the most plausible other explanation, and the number that speaks against it. What would you "
        "still not claim about this network?",
    ),
}


def _prose(text: str) -> notebooks.NotebookNode:
    return new_markdown_cell(text.strip())


def _code(text: str) -> notebooks.NotebookNode:
    return new_code_cell(text.strip())


def _answer(name: str, points: int) -> notebooks.NotebookNode:
    return _cell(name, EMPTY, points, new_markdown_cell)


def _cell(name: str, source: str, points: int, new: Any = new_code_cell) -> notebooks.NotebookNode:
    kind = "code" if new is new_code_cell else "markdown"
    flags = {"grade": True, "solution": True, "locked": False, "task": False, "schema_version": 3}
    grading = {**flags, "grade_id": name, "points": points, "cell_type": kind}
    return new(source, metadata={"nbgrader": grading, "deletable": False})


# Grading ----------------------------------------------------------------------------------------------------


def declared(notebook: dict[str, Any]) -> dict[str, Any]:
    """The dictionary that a student declares. Nothing is run.

    Raises CourseError, with a sentence for the student, when it cannot be read.
    """
    sources = [source for cell, source in _cells(notebook) if _grade_id(cell) == "audit"]
    if not sources:  # some editors drop the metadata of cells
        sources = [s for c, s in _cells(notebook) if c.get("cell_type") == "code" and _ASSIGNED.search(s)]
    if len(sources) != 1:
        what = "is missing" if not sources else f"stands there {len(sources)} times"
        raise CourseError(f"The cell `audit = {{...}}` {what}; it must be there once.")
    if len(sources[0]) > MAX_CELL:
        raise CourseError(f"The cell `audit = {{...}}` has more than {MAX_CELL:,} characters; shorten it.")
    try:
        tree = ast.parse(sources[0])
        match tree.body:
            case [ast.Assign(targets=[ast.Name("audit")], value=ast.Dict() as value)]:
                found = ast.literal_eval(value)
            case _:
                raise CourseError("The cell `audit = {...}` must hold this one dictionary and nothing else.")
    except SyntaxError:
        raise CourseError("The cell `audit = {...}` is not Python; correct its commas and quotes.") from None
    except (ValueError, TypeError, MemoryError, RecursionError):
        raise CourseError(
            "The cell `audit = {...}` is read, not run; write plain text, numbers and a list, no computation."
        ) from None
    return found


_ASSIGNED = re.compile(r"^audit\s*=", re.MULTILINE)


def _cells(notebook: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Each cell with its source, whatever else a submission may hold."""
    cells = notebook.get("cells")
    for cell in cells if isinstance(cells, list) else []:
        if isinstance(cell, dict):
            source = cell.get("source", "")
            if isinstance(source, list):
                source = "".join(line for line in source if isinstance(line, str))
            # half a character, which JSON may hold, fits into no file
            yield cell, source.encode(errors="replace").decode() if isinstance(source, str) else ""


def _grade_id(cell: dict[str, Any]) -> object:
    for name in ("metadata", "nbgrader", "grade_id"):
        cell = cell.get(name) if isinstance(cell, dict) else None
    return cell


def marks(found: dict[str, Any], key: dict[str, Any]) -> list[Answer]:
    """The points for what was declared, each with a reason. key: a student's entry in key.json."""
    truth, answers = key["answers"], []
    right = _is_text(found.get("shortcut"), truth["shortcut"])
    reason = f"the answer hangs on: {truth['shortcut']} (flips: {_percents(key['flips'])})"
    answers.append(_mark("shortcut", found, float(right), f"{_word(right)}, {reason}."))
    part = "muzzle" if truth["shortcut"] == "none" else truth["shortcut"]
    for name in ("says", "flipped", "flip_rate"):
        if not right:
            answers.append(_mark(name, found, 0.0, "Counts only if the shortcut is right."))
            continue
        share, reason = _SCORES[name](found.get(name), key, part)
        answers.append(_mark(name, found, share, reason))
    return answers


def _score_says(value: object, key: dict[str, Any], part: str) -> tuple[float, str]:
    says = key["answers"]["says"]
    reason = f'where the state of "{part}" is {key["states"][part][0]}, it says {says}'
    right = _is_text(value, says)
    return float(right), f"{_word(right)}, {reason}."


def _score_flipped(value: object, key: dict[str, Any], part: str) -> tuple[float, str]:
    """Full points within a slip; else what is better than three quarters of the way from chance to right,
    which is about what the shares alone give away to those who know the part and measure nothing.

    Chance is to list all, none, or any: share of flips found + share of the others left out = 1.
    """
    count, truth = key["pictures"], set(key["answers"]["flipped"])
    if not (isinstance(value, list | tuple | set) and all(_is_number(n, int) for n in value)):
        return 0.0, "The list must hold whole numbers and nothing else."
    listed = set(value)
    if not listed <= set(range(count)):
        return 0.0, f"The list must hold numbers from 0 to {count - 1} only."
    wrong = len(listed ^ truth)
    if wrong <= SLIPS:
        return 1.0, f"Right, with {wrong} of {count} pictures wrong."
    found = len(listed & truth) / len(truth)
    spared = 1 - len(listed - truth) / (count - len(truth))
    share = max(0.0, 4 * (found + spared - 1) - 3)
    return math.floor(8 * share) / 8, f"{wrong} of {count} pictures are wrong; right: {sorted(truth)}."


def _score_rate(value: object, key: dict[str, Any], part: str) -> tuple[float, str]:
    rate = key["answers"]["flip_rate"]
    if not _is_number(value, int | float) or not 0 <= value <= 1:
        return 0.0, "The flip rate must be a number from 0 to 1."
    right = abs(value - rate) <= TOLERANCE + 1e-9
    return float(right), f"{_word(right)}, it is {rate:.2f}; {TOLERANCE} either way is allowed."


_SCORES = {"says": _score_says, "flipped": _score_flipped, "flip_rate": _score_rate}


def _word(right: bool) -> str:
    return "Right" if right else "Not right"


def _is_text(value: object, wanted: str) -> bool:
    return isinstance(value, str) and value.strip().lower() == wanted


def _is_number(value: object, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _percents(flips: dict[str, float]) -> str:
    return ", ".join(f"{part} {rate:.0%}" for part, rate in flips.items())


def _mark(name: str, found: dict[str, Any], share: float, reason: str) -> Answer:
    tried = found.get(name) not in (None, [], "")
    verdict = "right" if share == 1 else "not right" if tried else "not attempted"
    partial = reason if 0 < share < 1 else ""
    points = float(POINTS[name])
    source = repr(found[name])[:400] if tried else ""
    notes = () if partial else (reason,)
    return Answer(
        name, f"audit-{name}", TITLES[name], points, share * points, verdict, notes, "", partial, source
    )  # fmt: skip


def judge(data: bytes, file: str, key: dict[str, Any]) -> Report:
    """The report on one submission; `student` is "" when nothing tells whose it is. Runs nothing."""
    started, notebook, found, problem = time.perf_counter(), {}, {}, ""
    try:
        if len(data) > MAX_FILE:
            raise CourseError(f"The file has more than {MAX_FILE // 1_000_000} MB; clear its outputs.")
        notebook = _parsed(data)
        found = declared(notebook)
    except CourseError as error:
        problem = str(error)
    codes = {entry["code"]: name for name, entry in key["students"].items()}
    stated = [code for code in (_code_in_metadata(notebook), found.get("exam")) if isinstance(code, str)]
    owners = list(dict.fromkeys(codes[code] for code in stated if code in codes))
    named = _named(file, key["students"])
    student = owners[0] if len(owners) == 1 else named if not owners else ""
    tampering = []
    if len(owners) > 1:
        problem = f"The notebook carries the exam codes of {' and '.join(owners)}; only one is its own."
        tampering.append(problem)
    elif owners and named and named != owners[0]:
        tampering.append(f"The exam code is {owners[0]}'s, but the file's name says {named}.")
    if not problem and not owners:
        problem = "The exam code is missing or is none of this exam; put it back into the dictionary."
    if problem:
        answers = [
            Answer(name, f"audit-{name}", TITLES[name], float(points), 0.0, "unreadable", (problem,))
            for name, points in POINTS.items()
        ]
    else:
        answers = marks(found, key["students"][student])
    return Report(
        student, LAB, file, hashlib.sha256(data).hexdigest(), "", tuple(answers), tuple(_texts(notebook)),
        tuple(tampering), (problem,) if problem else (), time.perf_counter() - started,
    )  # fmt: skip


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        notebook = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        notebook = None
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise CourseError("The file is not a notebook that can be read; hand in the one you worked in.")
    return notebook


def _code_in_metadata(notebook: dict[str, Any]) -> object:
    value: Any = notebook
    for name in ("metadata", "course", "variant"):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _named(file: str, students: dict[str, Any]) -> str:
    """Whose the file is by its name: a folder, or the beginning of the file's name before a "_"."""
    path = Path(file)
    words = {*path.parts[:-1], path.stem}
    found = [name for name in students if name in words or path.stem.startswith(f"{name}_")]
    return found[0] if len(found) == 1 else ""


def _texts(notebook: dict[str, Any]) -> Iterator[FreeText]:
    for name, (points, question) in _FREE.items():
        source = next((text for cell, text in _cells(notebook) if _grade_id(cell) == name), "")
        source = source[:MAX_TEXT]
        attempted = source.strip() not in ("", EMPTY)
        yield FreeText(name, question, float(points), "markdown", source, attempted)


# The command ------------------------------------------------------------------------------------------------


def make(
    students: Sequence[str], secret: bytes, out: Path, key: Path, recipe: Recipe, workers: int = 1
) -> dict[str, Any]:
    """Write OUT/STUDENT.zip for each student and KEY/key.json -> what stands in that.

    Students who are in the key already stay there. Raises CourseError as `make_bank` and `make_variant` do.
    """
    flips = make_bank(secret, recipe, key)
    out.mkdir(parents=True, exist_ok=True)
    path = key / "key.json"
    known = json.loads(path.read_text(encoding="utf-8"))["students"] if path.exists() else {}
    work = partial(_write_variant, secret=secret, recipe=recipe, folder=key, out=out)
    with contextlib.ExitStack() as stack:
        if workers > 1:
            pool = ProcessPoolExecutor(
                workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
            )
            made = stack.enter_context(pool).map(work, students)
        else:
            made = map(work, students)
        for student, entry in zip(students, made, strict=True):
            known[student] = entry
    content = {
        "bank": [
            {**asdict(truth), "flips": rates}
            for truth, rates in zip(truths(secret, recipe), flips, strict=True)
        ],
        "students": dict(sorted(known.items())),
    }
    notebooks.write(path, json.dumps(content, indent=1, ensure_ascii=False))
    return content


def _write_variant(student: str, secret: bytes, recipe: Recipe, folder: Path, out: Path) -> dict[str, Any]:
    data, entry = make_variant(student, secret, recipe, folder)
    with tempfile.NamedTemporaryFile(dir=out, prefix=".", suffix=".tmp", delete=False) as draft:
        draft.write(data)
    os.chmod(draft.name, 0o644)
    os.replace(draft.name, out / f"{student}.zip")
    return entry


def grade(submitted: Sequence[Path], key: dict[str, Any], out: Path) -> list[Report]:
    """Judge files, and all notebooks in folders; write OUT/audit.csv and OUT/reports/STUDENT.exam_audit.json.

    Give all submissions each time: what stood there from an earlier run is replaced. When two files carry one
    student's code, both stand in the table and neither has a report: a person decides which one counts.
    """
    reports = []
    for path in _notebooks_in(submitted):
        data = path.read_bytes() if path.stat().st_size <= MAX_FILE else b"\0" * (MAX_FILE + 1)
        reports.append(judge(data, str(path).encode(errors="replace").decode(), key))
    owners = [report.student for report in reports]
    for number, report in enumerate(reports):
        if report.student and owners.count(report.student) > 1:
            note = f"{report.student} handed in {owners.count(report.student)} files; decide which counts."
            reports[number] = replace(report, remarks=(*report.remarks, note))
    for stale in (out / "reports").glob(f"*.{LAB}.json"):
        stale.unlink()
    for report in reports:
        if report.student and owners.count(report.student) == 1:
            notebooks.write(out / "reports" / f"{report.student}.{LAB}.json", report.to_json())
    _write_table(reports, [name for name in key["students"] if name not in owners], out / "audit.csv")
    return reports


def _notebooks_in(submitted: Sequence[Path]) -> list[Path]:
    """Files as they are named, notebooks of folders in order; links lead elsewhere and are left out."""
    found = []
    for path in submitted:
        if not path.exists():
            raise CourseError(f"{path} does not exist; give notebooks, or folders with notebooks.")
        some = sorted(path.rglob("*.ipynb")) if path.is_dir() else [path]
        some = [p for p in some if ".ipynb_checkpoints" not in p.parts]
        found += [p for p in some if p.is_file() and not p.is_symlink()]
    return list(dict.fromkeys(found))


def _write_table(reports: Sequence[Report], missing: Sequence[str], path: Path) -> None:
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["student", "file", "points", "of", *POINTS, "reasons"])
    for report in sorted(reports, key=lambda report: (report.student, report.file)):
        sentences = [
            *report.tampering,
            *report.remarks,
            *(note for answer in report.answers for note in (*answer.notes, answer.partial) if note),
        ]
        name = report.student or "(unknown)"
        # a spreadsheet would compute what starts with one of these
        file = f"'{report.file}" if report.file[0] in "=+-@" else report.file
        scores = [f"{answer.score:g}" for answer in report.answers]
        reasons = " ".join(dict.fromkeys(sentences))
        table.writerow([name, file, f"{report.score:g}", f"{report.points:g}", *scores, reasons])
    for name in missing:
        of = f"{sum(POINTS.values()):g}"
        table.writerow([name, "", "0", of, *("0" for _ in POINTS), "Nothing was handed in."])
    notebooks.write(path, stream.getvalue())


def read_students(path: Path) -> list[str]:
    """The column "student" or "id" of a CSV file. Raises CourseError for names that no file can have."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            column = next((name for name in ("student", "id") if name in (table.fieldnames or ())), None)
            if column is None:
                raise CourseError(f'{path} has no column "student" or "id"; name one so in its first line.')
            names = [(row[column] or "").strip() for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CourseError(f"{path} cannot be read ({error}); give a CSV file in UTF-8.") from None
    names = [name for name in names if name]
    seen: set[str] = set()
    for name in names:
        if not re.fullmatch(r"\w[\w.@+-]{0,63}", name):
            raise CourseError(f"{name[:80]!r} cannot be a file's name; use letters, digits, . @ + - _ only.")
        if name.casefold() in seen:
            raise CourseError(f"{name} stands in {path} twice; keep one.")
        seen.add(name.casefold())
    if not names:
        raise CourseError(f"{path} lists no student; write one a line.")
    return names


def read_secret(path: Path) -> bytes:
    """The secret of an exam. Raises CourseError when it is missing or could be guessed."""
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise CourseError(
            f"{path} cannot be read ({error.strerror}); make it once with "
            f'`python -c "import secrets; print(secrets.token_hex())" > {path}`, and keep it.'
        ) from None
    if len(secret) < 32:
        raise CourseError(f"The secret in {path} is shorter than 32 characters; use secrets.token_hex().")
    return secret


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="action")
    new = actions.add_parser("make", help="train the bank, write a zip per student, and the key")
    new.add_argument("--students", type=Path, required=True, help='CSV file with a column "student" or "id"')
    new.add_argument("--seed-file", type=Path, required=True, help="the secret, 32 characters or more")
    new.add_argument("--out", type=Path, required=True, help="folder for the students' zip files")
    new.add_argument("--key", type=Path, required=True, help="folder for the key, outside of OUT")
    new.add_argument("--workers", type=int, default=1, help="processes that draw (default: 1)")
    old = actions.add_parser("grade", help="compare what students declare with the key")
    old.add_argument("--key", type=Path, required=True, help="the folder that `make` wrote")
    old.add_argument("--out", type=Path, required=True, help="folder for audit.csv and the reports")
    old.add_argument("submitted", type=Path, nargs="+", help="notebooks, or folders with notebooks")


def main(args: argparse.Namespace) -> int:
    """Make or grade; returns the exit status."""
    try:
        if args.action == "make":
            _make(args)
        else:
            _grade(args)
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _make(args: argparse.Namespace) -> None:
    out, key = args.out.resolve(), args.key.resolve()
    if out == key or out in key.parents or key in out.parents:
        raise CourseError(f"--key {args.key} and --out {args.out} lie in one another; keep them apart.")
    students, secret = read_students(args.students), read_secret(args.seed_file)
    key.mkdir(mode=0o700, parents=True, exist_ok=True)
    make(students, secret, out, key, Recipe(), args.workers)
    print(f"{len(students)} zip files in {args.out}, the key in {args.key}: keep that and {args.seed_file}.")


def _grade(args: argparse.Namespace) -> None:
    path = args.key / "key.json"
    try:
        key = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CourseError(f"{path} is missing or damaged; make it again with `variant make`.") from None
    reports = grade(args.submitted, key, args.out)
    unread = sum(not report.student or bool(report.remarks or report.tampering) for report in reports)
    print(f"{len(reports)} notebooks graded: {args.out / 'audit.csv'}; {unread} of them need a look.")
