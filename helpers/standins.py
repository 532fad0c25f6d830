"""Stand-ins for ImageNet weights, for machines without a network.

Slim versions of torchvision's ResNet-18, ResNet-50 and VGG-16. Their modules have the same names and the same
order, so `model.layer4[-1]` and `model.features[28]` are what they are in the large ones, only slimmer.
They know eight drawn classes and nothing else; whatever they are shown, they answer with one of these.

`python -m helpers.course standins` trains them (helpers/course/standins.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.vgg import VGG, cfgs, make_layers

from helpers.drawn_things import CLASS_NAMES

__all__ = ["CLASS_NAMES", "MEAN", "NAMES", "SIZE", "STD", "build", "load", "save"]

SIZE = 96  # pixels; the last maps are 6x6
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)  # of the normalisation, for channels in [0, 1]
NAMES = ("resnet18", "resnet50", "vgg16")
VGG_DIVISOR = 8  # of the number of channels
WEIGHTS = Path(__file__).with_name("weights")


class SlimResNet(ResNet):
    """torchvision's ResNet with `width` channels instead of 64 in its first layers.

    images (B, 3, H, W), normalised -> logits (B, 8). `layer4` keeps the resolution of `layer3`: with stride
    2, as in the large ones, pictures of 96 pixels would leave maps of 3x3.
    """

    def __init__(self, block: type[BasicBlock | Bottleneck], layers: tuple[int, ...], width: int) -> None:
        super().__init__(block, list(layers), num_classes=len(CLASS_NAMES))
        self.inplanes = width
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        for number, (blocks, stride) in enumerate(zip(layers, (1, 2, 2, 1), strict=True)):
            layer = self._make_layer(block, width << number, blocks, stride=stride)
            setattr(self, f"layer{number + 1}", layer)
        self.fc = nn.Linear((width << 3) * block.expansion, len(CLASS_NAMES))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # as torchvision does in the constructor, for the new layers
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def slim_vgg(divisor: int, batch_norm: bool = False) -> VGG:
    """torchvision's VGG-16 with 1/`divisor` of the channels, and 64 instead of 4,096 in the head.

    images (B, 3, H, W), normalised -> logits (B, 8). batch_norm: with a normalisation after each convolution,
    for training; the indices of `features` are then others.
    """
    channels = [c if c == "M" else c // divisor for c in cfgs["D"]]
    # dropout of one half, as in the large one, would leave too little of a head so slim
    net = VGG(make_layers(channels, batch_norm), num_classes=len(CLASS_NAMES), dropout=0.1)
    net.classifier[0] = nn.Linear(channels[-2] * 7 * 7, 64)
    net.classifier[3] = nn.Linear(64, 64)
    net.classifier[6] = nn.Linear(64, len(CLASS_NAMES))
    return net


def build(name: str) -> nn.Module:
    """The stand-in for torchvision's model of this name (see `NAMES`), with random weights.

    They are drawn from torch's global generator. images (B, 3, H, W), normalised with `MEAN` and `STD` ->
    logits (B, 8). Raises ValueError for another name.
    """
    if name == "resnet18":
        return SlimResNet(BasicBlock, (2, 2, 2, 2), width=16)
    if name == "resnet50":
        return SlimResNet(Bottleneck, (3, 4, 6, 3), width=12)
    if name == "vgg16":
        return slim_vgg(VGG_DIVISOR)
    raise ValueError(f"there is no stand-in {name!r}; there are: {', '.join(NAMES)}")


def load(name: str) -> tuple[nn.Module, dict[str, Any]]:
    """The trained stand-in in evaluation mode, and how it was trained.

    The settings come from the file itself: recipe, number of images, accuracy on unseen drawings (from 0 to
    1), versions. Raises ValueError for another name than those in `NAMES`.
    """
    with torch.device("meta"):  # no memory, and no random numbers, for weights that are replaced anyway
        net = build(name)
    path = WEIGHTS / f"{name}.safetensors"
    with safe_open(path, "pt") as stored:
        settings = json.loads(stored.metadata()["settings"])
    weights = {
        key: value.float() if value.dtype == torch.half else value for key, value in load_file(path).items()
    }
    net.load_state_dict(weights, assign=True)
    return net.eval(), settings


def save(name: str, net: nn.Module, settings: dict[str, Any]) -> None:
    """Write the file that `load` reads: weights in half precision, with the settings as JSON."""
    halves = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in net.state_dict().items()}
    WEIGHTS.mkdir(exist_ok=True)
    save_file(halves, WEIGHTS / f"{name}.safetensors", metadata={"settings": json.dumps(settings)})
