"""Training and evaluation in PyTorch."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import torch
from sklearn.metrics import accuracy_score
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm

from helpers.data import ImageSet

CHUNK = 500  # images per forward pass where no gradient is needed


@dataclass
class History:
    """What `fit` kept after each epoch: losses in nats, accuracy in [0, 1]."""

    train_loss: list[float] = field(default_factory=list)  # mean over the epoch, while the net was changing
    test_loss: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)


def device_of(net: nn.Module) -> torch.device:
    """Where the net's weights are."""
    return next(net.parameters()).device


@torch.no_grad()
def logits_of(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Logits of any number of images, without gradients. images: (N, C, H, W) -> (N, classes) on the CPU.

    The net is in evaluation mode meanwhile, and as it was afterwards.
    """
    was_training = net.training
    net.eval()
    try:
        return torch.cat([net(part.to(device_of(net))).cpu() for part in images.split(CHUNK)])
    finally:
        net.train(was_training)


def fit(
    net: nn.Module,
    train: ImageSet,
    test: ImageSet,
    *,
    epochs: int,
    batch: int = 128,
    learning_rate: float = 1e-3,
    one_cycle: bool = False,
    seed: int = 0,
) -> History:
    """Train in place with Adam on the cross-entropy; prints loss and accuracy after each epoch.

    one_cycle: let the learning rate rise to `learning_rate` and fall to almost nothing again (L. Smith,
    N. Topin 2018). The order of the images depends on `seed` alone. Leaves the net in evaluation mode.
    """
    order = torch.Generator().manual_seed(seed)
    loader = DataLoader(train, batch_size=batch, shuffle=True, generator=order)
    optimiser = torch.optim.Adam(net.parameters(), learning_rate)
    schedule = None
    if one_cycle:
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, learning_rate, total_steps=epochs * len(loader)
        )
    device = device_of(net)
    test_images, test_labels = torch.from_numpy(test.images), torch.from_numpy(test.labels)
    history = History()
    for epoch in range(1, epochs + 1):
        net.train()
        total = 0.0
        for images, labels in tqdm(loader, desc=f"epoch {epoch}", unit="batch", file=sys.stdout):
            loss = F.cross_entropy(net(images.to(device)), labels.to(device))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if schedule:
                schedule.step()
            total += loss.item() * len(images)
        logits = logits_of(net, test_images)
        history.train_loss.append(total / len(train))
        history.test_loss.append(F.cross_entropy(logits, test_labels).item())
        history.test_accuracy.append(float(accuracy_score(test_labels, logits.argmax(dim=1))))
        print(
            f"epoch {epoch}: training loss ~{history.train_loss[-1]:.2f}, test loss "
            f"~{history.test_loss[-1]:.2f}, test accuracy ~{100 * history.test_accuracy[-1]:.0f} %"
        )
    net.eval()
    return history
