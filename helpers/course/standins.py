"""`standins`: train the stand-ins for ImageNet weights, and store them in helpers/weights/.

The same command on the same machine gives the same weights; elsewhere they differ in rounding, not in kind.
"""

import argparse
import time
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.vgg import VGG
from torchvision.transforms import v2

from helpers import standins
from helpers.data import load_things
from helpers.device import seed_everything
from helpers.training import fit, logits_of

UNSEEN = 1_000  # drawings that the accuracy is measured on
PREPARE = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(standins.MEAN, standins.STD)])
RECIPES: dict[str, dict[str, Any]] = {
    "resnet18": {"images": 8_000, "epochs": 10, "batch": 32, "learning_rate": 4e-3, "seed": 0},
    "resnet50": {"images": 8_000, "epochs": 10, "batch": 32, "learning_rate": 4e-3, "seed": 0},
    "vgg16": {"images": 8_000, "epochs": 10, "batch": 32, "learning_rate": 4e-3, "seed": 0},
}


def train(name: str, recipe: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """Train a stand-in -> the net in evaluation mode, and its settings with loss and accuracy."""
    seed_everything(recipe["seed"])
    # without normalisation a VGG so deep hardly starts to learn; it is merged into the weights afterwards
    vgg = name == "vgg16"
    net = standins.slim_vgg(standins.VGG_DIVISOR, batch_norm=True) if vgg else standins.build(name)
    net = net.to(memory_format=torch.channels_last)  # which a CPU computes faster
    seen = load_things("train", recipe["images"], size=standins.SIZE)
    unseen = load_things("test", UNSEEN, size=standins.SIZE)
    history = fit(
        net,
        seen,
        unseen,
        epochs=recipe["epochs"],
        batch=recipe["batch"],
        learning_rate=recipe["learning_rate"],
        one_cycle=True,
        prepare=PREPARE,
        seed=recipe["seed"],
    )
    if vgg:
        net = merge_normalisation(net)
    predicted = logits_of(net, torch.from_numpy(unseen.images), PREPARE).argmax(dim=1)
    accuracy = (predicted == torch.from_numpy(unseen.labels)).float().mean().item()
    return net, {
        **recipe,
        "size": standins.SIZE,
        "unseen": UNSEEN,
        "accuracy": round(accuracy, 4),
        "training_loss": [round(loss, 4) for loss in history.train_loss],
        "torch": torch.__version__,
    }


def merge_normalisation(net: VGG) -> VGG:
    """A VGG that was trained with batch normalisation, as the one without that computes the same."""
    plain = standins.slim_vgg(standins.VGG_DIVISOR).eval()
    modules = list(net.eval().features)
    merged = [
        fuse_conv_bn_eval(module, modules[i + 1]) if isinstance(module, nn.Conv2d) else module
        for i, module in enumerate(modules)
        if not isinstance(module, nn.BatchNorm2d)
    ]
    plain.features.load_state_dict(nn.Sequential(*merged).state_dict())
    plain.classifier.load_state_dict(net.classifier.state_dict())
    return plain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    names = [*standins.NAMES, []]  # argparse compares what stands for no name, too
    which = f"{', '.join(standins.NAMES)} (default: all)"
    parser.add_argument("names", nargs="*", metavar="name", choices=names, help=which)


def main(args: argparse.Namespace) -> int:
    """Train and store the stand-ins; returns the exit status."""
    for name in args.names or standins.NAMES:
        print(name, flush=True)
        started = time.perf_counter()
        net, settings = train(name, RECIPES[name])
        standins.save(name, net, settings)
        minutes = (time.perf_counter() - started) / 60
        print(
            f"{name}: {100 * settings['accuracy']:.1f} % of {UNSEEN} unseen drawings, {minutes:.1f} minutes"
        )
    return 0
