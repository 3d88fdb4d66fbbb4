"""Convolution, batch norm and PReLU, as LMWP-Net is built of them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

import lmwp_ops
from lmwp_models.layers import norm_prelu


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise 3 x 3 convolution without bias, on the fused op."""

    def __init__(self, channels: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__(
            *(channels, channels, 3, stride, dilation, dilation), groups=channels, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        stride, dilation = self.stride[0], self.dilation[0]
        return lmwp_ops.depthwise_scales([x], [self.weight], stride=stride, dilation=dilation)[0]


class ConvNorm(nn.Module):
    """A convolution without bias that keeps the size (or divides it by `stride`), batch norm."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x))
        return y


class DepthwiseNorm(nn.Module):
    """A depthwise 3 x 3 convolution and batch norm."""

    def __init__(self, channels: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = DepthwiseConv2d(channels, stride, dilation)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x))
        return y


class ConvNormPReLU(ConvNorm):
    """`ConvNorm` and a PReLU per channel; norm and PReLU are one op in training."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride)
        self.prelu = nn.PReLU(out_channels)
        self.channel_means: list[Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        (y,) = norm_prelu(self, [self.conv(x)], [self.norm], [self.prelu])
        return y


class SeparableConv(nn.Sequential):
    """Depthwise 3 x 3 with batch norm, then 1 x 1 with batch norm and PReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(
            DepthwiseNorm(in_channels, stride), ConvNormPReLU(in_channels, out_channels)
        )


def resize(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear, align_corners=False, to the height and width of `like`."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
