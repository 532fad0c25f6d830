"""Pretrained classifiers: ImageNet weights first, stand-ins always.

`pretrained("resnet18")` follows `LABS_DATA_SOURCE`, as `helpers.data` does:

- `auto` (the default): ImageNet weights if they are there or can be downloaded, otherwise the stand-in. More
  than 50 MB are downloaded only on request, by `python -m helpers.data resnet50`;
- `real`: ImageNet weights, or a `DataError` that says what to do;
- `embedded`: the stand-in, without any network.

A stand-in is a slim network with the same layer names, trained on drawings (`helpers.standins`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import Literal

import torch
from torch import nn
from torchvision.models import ResNet18_Weights, ResNet50_Weights, VGG16_Weights, WeightsEnum, get_model

from helpers import standins
from helpers.download import DataError, RemoteFile, RemoteSet, choose_source, fetch

__all__ = ["NAMES", "TITLES", "WEIGHTS", "Pretrained", "pretrained", "remote_set"]

TITLES = {"resnet18": "ResNet-18", "resnet50": "ResNet-50", "vgg16": "VGG-16"}
NAMES = tuple(TITLES)
WEIGHTS: dict[str, WeightsEnum] = {
    "resnet18": ResNet18_Weights.IMAGENET1K_V1,
    "resnet50": ResNet50_Weights.IMAGENET1K_V2,
    "vgg16": VGG16_Weights.IMAGENET1K_V1,
}


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A classifier with all that belongs to it.

    name         "resnet18", "resnet50" or "vgg16"
    model        in eval mode, on the CPU: normalised images (B, 3, H, W) -> logits (B, len(class_names))
    preprocess   torchvision's own preset: a PIL image (RGB), or a uint8 tensor (..., 3, H, W) -> float32
                 (..., 3, h, w), resized, cropped to the middle, normalised; it has `resize_size`,
                 `crop_size`, `mean` and `std`
    class_names  one name per logit: 1,000 of ImageNet, or the stand-in's eight
    source       "real" or "stand-in"
    caption      one truthful line for a figure, for example "ResNet-18, ImageNet weights"
    """

    name: str
    model: nn.Module
    preprocess: nn.Module
    class_names: tuple[str, ...]
    source: Literal["real", "stand-in"]
    caption: str


def pretrained(name: str) -> Pretrained:
    """ResNet-18, ResNet-50 or VGG-16 with ImageNet weights, or the stand-in for it. Prints which.

    name  "resnet18" (a download of 47 MB), "resnet50" (103 MB, on request) or "vgg16" (553 MB, on request)

    Raises ValueError for another name; `DataError` if `LABS_DATA_SOURCE` has a wrong value, or if it is
    "real" and the weights cannot be had.

    Source: torchvision's weights IMAGENET1K_V1, for ResNet-50 IMAGENET1K_V2, trained on ImageNet (Russakovsky
    et al. 2015); the networks are by He, Zhang, Ren, Sun 2016 and Simonyan, Zisserman 2015.
    """
    if name not in NAMES:
        raise ValueError(f"name is {name!r}; use {', '.join(map(repr, NAMES[:-1]))} or {NAMES[-1]!r}.")
    source, model, note = choose_source(name, partial(_real, name), partial(_reason, name))
    if source == "embedded":
        found = _stand_in(name)
    else:
        found = Pretrained(
            name=name,
            model=model,
            preprocess=WEIGHTS[name].transforms(),
            class_names=tuple(WEIGHTS[name].meta["categories"]),
            source="real",
            caption=f"{TITLES[name]}, ImageNet weights",
        )
    print(found.caption + note)
    return found


def remote_set(name: str) -> RemoteSet:
    """Where the weights come from and where they belong, as torchvision says. name: one of `NAMES`.

    The file's name has the beginning of its SHA-256, which is what `torch.hub` too compares.
    """
    weights = WEIGHTS[name]
    mirror, _, file = weights.url.rpartition("/")
    return RemoteSet(
        name=name,
        title=TITLES[name],
        subfolder="weights",
        mirrors=(f"{mirror}/",),
        files=(
            RemoteFile(
                file,
                sha256=Path(file).stem.rpartition("-")[2],
                size=round(weights.meta["_file_size"] * 2**20),  # torchvision gives three decimals of a MiB
                slack=1024,
            ),
        ),
    )


# ------------------------------------------------------------------------------------------ choosing


def _real(name: str) -> nn.Module:
    """The network with ImageNet weights; a `DataError` if they cannot be had or do not fit."""
    path = _find(remote_set(name))
    with torch.device("meta"):  # no memory, and no random numbers, for weights that are replaced anyway
        model = get_model(name, weights=None)
    try:
        # weights_only: whatever the file says, no code in it is run.
        state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state, assign=True)
    except Exception as error:  # there is hardly an exception that a wrong file does not raise in torch.load
        why = shorten(f"{type(error).__name__}: {error}", 100)
        raise DataError(
            f"{path} does not hold the weights of {TITLES[name]} ({why})",
            "remove it, then try again",
        ) from error
    return model.eval()


def _find(remote: RemoteSet) -> Path:
    """The file of the weights, its checksum right: in the data folder, in PyTorch's own cache, or fetched."""
    (file,) = remote.files
    # Other programs' downloads: torchvision's `weights=` puts the same file there.
    for folder in (remote.folder, Path(torch.hub.get_dir()) / "checkpoints"):
        if remote.states(folder)[file.name] == "present":
            return folder / file.name
    fetch(remote)
    return remote.folder / file.name


def _reason(name: str, error: DataError) -> str:
    """Why there is the stand-in; where nothing but the request is missing, with the command for that."""
    request = f": python -m helpers.data {name}" if error.reason.endswith("only on request") else ""
    return error.reason + request


def _stand_in(name: str) -> Pretrained:
    model, _ = standins.load(name)
    return Pretrained(
        name=name,
        model=model.eval(),
        preprocess=WEIGHTS[name].transforms(
            crop_size=standins.SIZE, resize_size=standins.SIZE, mean=standins.MEAN, std=standins.STD
        ),
        class_names=tuple(standins.CLASS_NAMES),
        source="stand-in",
        caption=f"Slim {TITLES[name]}: stand-in, eight drawn classes",
    )
