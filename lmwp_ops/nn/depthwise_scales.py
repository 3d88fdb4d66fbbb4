"""Module over `lmwp_ops.depthwise_scales`."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lmwp_ops.ops.depthwise_scales import depthwise_scales


class DepthwiseScales(nn.Module):
    """Depthwise convolution of every branch, with an optional affine step and PReLU.

    Args:
        channels: channels of each branch, all positive.
        kernel_size: 1, 3, 5 or 7.
        dilation: distance of the taps in pixels.
        stride: 1 or 2.
        affine: learn a scale and a shift per channel, at first one and zero.
        prelu: learn a slope below zero per channel, at first 0.25.

    Parameters are `weights.<b>` [C_b, 1, k, k] and, where asked for, `scales.<b>`, `shifts.<b>`
    and `slopes.<b>`, each [C_b]. Weights start as those of `nn.Conv2d`.
    """

    def __init__(
        self,
        channels: Sequence[int],
        kernel_size: int = 3,
        *,
        dilation: int = 1,
        stride: int = 1,
        affine: bool = False,
        prelu: bool = False,
    ) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.stride = stride
        self.affine = affine
        self.prelu = prelu
        self.weights = nn.ParameterList(
            torch.empty(c, 1, kernel_size, kernel_size) for c in self.channels
        )
        self.scales = nn.ParameterList(torch.empty(c) for c in self.channels if affine)
        self.shifts = nn.ParameterList(torch.empty(c) for c in self.channels if affine)
        self.slopes = nn.ParameterList(torch.empty(c) for c in self.channels if prelu)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights and return the other parameters to their first values."""
        for weight in self.weights:
            nn.init.kaiming_uniform_(weight, a=5**0.5)
        for scale in self.scales:
            nn.init.ones_(scale)
        for shift in self.shifts:
            nn.init.zeros_(shift)
        for slope in self.slopes:
            nn.init.constant_(slope, 0.25)

    def forward(self, xs: Sequence[Tensor]) -> list[Tensor]:
        """Map branches [N, C_b, H_b, W_b] to branches of the same widths."""
        return depthwise_scales(
            xs,
            list(self.weights),
            dilation=self.dilation,
            stride=self.stride,
            affine=list(zip(self.scales, self.shifts, strict=True)) if self.affine else None,
            slope=list(self.slopes) if self.prelu else None,
        )

    def extra_repr(self) -> str:
        return (
            f"{list(self.channels)}, kernel_size={self.kernel_size}, dilation={self.dilation}, "
            f"stride={self.stride}, affine={self.affine}, prelu={self.prelu}"
        )
