"""The networks of the PyTorch labs."""

from __future__ import annotations

from collections import OrderedDict

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
