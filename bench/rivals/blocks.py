"""Layers that several rivals are made of."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

Activation = Callable[[int], nn.Module]
"""Makes the activation for a number of channels."""


def relu(channels: int) -> nn.Module:
    return nn.ReLU(inplace=True)


def relu6(channels: int) -> nn.Module:
    return nn.ReLU6(inplace=True)


def linear(channels: int) -> nn.Module:
    return nn.Identity()


def conv_norm(
    inputs: int,
    outputs: int,
    kernel: int = 1,
    act: Activation = relu,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
) -> nn.Sequential:
    """Convolution without bias, batch norm, activation; the map keeps its size / stride."""
    pad = dilation * (kernel // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, stride, pad, dilation, groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), act(outputs))


def separable(
    inputs: int,
    outputs: int,
    kernel: int = 3,
    act: Activation = relu,
    *,
    stride: int = 1,
    dilation: int = 1,
) -> nn.Sequential:
    """Depthwise convolution with ReLU, then a pointwise one with `act`."""
    return nn.Sequential(
        conv_norm(inputs, inputs, kernel, stride=stride, dilation=dilation, groups=inputs),
        conv_norm(inputs, outputs, act=act),
    )


def resize_to(x: Tensor, like: Tensor, align_corners: bool = True) -> Tensor:
    """`x`, bilinearly, on the map of `like`."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=align_corners)
