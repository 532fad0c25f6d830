"""The networks of the PyTorch labs."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn


def fashion_net() -> nn.Sequential:
    """Lab 02's network for 28x28 grey images: three convolutions, flatten, one linear layer.

    images (B, 1, 28, 28) -> logits (B, 10). Nothing shrinks the picture, so every map is 28x28. After
    `flatten` each of the 784 positions of each channel has a weight of its own. 144,410 parameters, drawn
    from torch's global generator.
    """
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 48, 3, padding="same"),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(48, 32, 3, padding="same"),
            relu2=nn.ReLU(),
            conv3=nn.Conv2d(32, 16, 3, padding="same"),
            relu3=nn.ReLU(),
            flatten=nn.Flatten(),
            linear=nn.Linear(16 * 28 * 28, 10),
        )
    )


def fashion_gap_net() -> nn.Sequential:
    """The same task with a global-average-pooling head: all positions of a channel share one weight.

    images (B, 1, 28, 28) -> logits (B, 10); `relu3` gives 32 maps of 14x14. An average over 196 positions
    makes all garments look alike at first, so this net has batch normalisation, and is trained with a
    learning rate that rises and falls. 14,458 parameters, drawn from torch's global generator.
    """
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 16, 3, padding="same", bias=False),  # batch normalisation brings the bias
            norm1=nn.BatchNorm2d(16),
            relu1=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            conv2=nn.Conv2d(16, 32, 3, padding="same", bias=False),
            norm2=nn.BatchNorm2d(32),
            relu2=nn.ReLU(),
            conv3=nn.Conv2d(32, 32, 3, padding="same", bias=False),
            norm3=nn.BatchNorm2d(32),
            relu3=nn.ReLU(),
            average=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            linear=nn.Linear(32, 10),
        )
    )


def pet_net() -> nn.Sequential:
    """Lab 03's network for cats and dogs: three convolutions with pooling, one linear layer.

    images (B, 3, H, W), normalised, 22 pixels or more high and wide -> logits (B, 2). Its 5x5 convolutions
    pad by 1, not 2, so each one makes the map 2 smaller. At 96 pixels `relu1` to `relu3` give maps of 94, 45
    and 20; whatever the size, `average` brings them to 7x7. 42,818 parameters, drawn from torch's global
    generator. Stored channels last, which a CPU computes faster.
    """
    net = nn.Sequential(
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
            linear=nn.Linear(32 * 7 * 7, 2),
        )
    )
    return net.to(memory_format=torch.channels_last)
