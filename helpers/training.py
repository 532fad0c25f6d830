"""Training and evaluation in PyTorch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from sklearn.metrics import accuracy_score
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm

from helpers.cam import evaluating
from helpers.data import ImageSet

CHUNK = 250  # images per forward pass where no gradient is needed

Prepare = Callable[[torch.Tensor], torch.Tensor]  # what is done to a batch of images before the net


@dataclass
class History:
    """What `fit` kept after each epoch: losses in nats, accuracies in [0, 1], the epoch's learning rate.

    What stands for training is the mean over the epoch, while the net was changing.
    """

    learning_rate: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    test_loss: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)


def device_of(net: nn.Module) -> torch.device:
    """Where the net's weights are."""
    return next(net.parameters()).device


@torch.no_grad()
def logits_of(net: nn.Module, images: torch.Tensor, prepare: Prepare | None = None) -> torch.Tensor:
    """Logits of any number of images, without gradients. images: (N, C, H, W) -> (N, classes) on the CPU.

    prepare: as in `fit`. The net is in evaluation mode meanwhile, and each module as it was afterwards.
    """
    with evaluating(net):
        parts = (part.to(device_of(net)) for part in images.split(CHUNK))
        return torch.cat([net(prepare(part) if prepare else part).cpu() for part in parts])


def fit(
    net: nn.Module,
    train: ImageSet,
    test: ImageSet,
    *,
    epochs: int,
    batch: int = 128,
    learning_rate: float = 1e-3,
    one_cycle: bool = False,
    schedule: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler] | None = None,
    prepare: Prepare | None = None,
    seed: int = 0,
) -> History:
    """Train in place with Adam on the cross-entropy; prints loss and accuracy after each epoch.

    one_cycle: let the learning rate rise to `learning_rate` and fall to almost nothing again (L. Smith,
    N. Topin 2018). schedule: instead of that, a function that makes a scheduler for the optimiser, for
    example `lambda o: StepLR(o, 5, 0.2)`; it steps after each epoch, and a `ReduceLROnPlateau` looks at the
    test loss. prepare: applied to each batch on the net's device, for example to normalise it; without it the
    images go in as they are. The order of the images depends on `seed` alone. Every module is in training
    mode meanwhile and in evaluation mode afterwards. Raises ValueError if both kinds of schedule are asked
    for.
    """
    if one_cycle and schedule:
        raise ValueError("one_cycle and schedule both set the learning rate; choose one")
    order = torch.Generator().manual_seed(seed)
    loader = DataLoader(train, batch_size=batch, shuffle=True, generator=order)
    optimiser = torch.optim.Adam(net.parameters(), learning_rate)
    cycle = one_cycle and torch.optim.lr_scheduler.OneCycleLR(
        optimiser, learning_rate, total_steps=epochs * len(loader)
    )
    scheduler = schedule(optimiser) if schedule else None
    device = device_of(net)
    test_images, test_labels = torch.from_numpy(test.images), torch.from_numpy(test.labels)
    history = History()
    for epoch in range(1, epochs + 1):
        net.train()
        history.learning_rate.append(optimiser.param_groups[0]["lr"])
        total, right = 0.0, 0
        for images, labels in tqdm(loader, desc=f"epoch {epoch}", unit="batch", file=sys.stdout):
            images, labels = images.to(device), labels.to(device)
            logits = net(prepare(images) if prepare else images)
            loss = F.cross_entropy(logits, labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if cycle:
                cycle.step()
            total += loss.item() * len(images)
            right += int((logits.argmax(dim=1) == labels).sum())
        logits = logits_of(net, test_images, prepare)
        history.train_loss.append(total / len(train))
        history.train_accuracy.append(right / len(train))
        history.test_loss.append(F.cross_entropy(logits, test_labels).item())
        history.test_accuracy.append(float(accuracy_score(test_labels, logits.argmax(dim=1))))
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            scheduler.step(history.test_loss[-1])
        elif scheduler:
            scheduler.step()
        print(
            f"epoch {epoch}: training loss ~{history.train_loss[-1]:.2f}, test loss "
            f"~{history.test_loss[-1]:.2f}, test accuracy ~{100 * history.test_accuracy[-1]:.0f} %"
        )
    net.eval()
    return history
