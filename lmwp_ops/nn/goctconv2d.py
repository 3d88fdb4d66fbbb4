"""The module of `lmwp_ops.goctconv2d`."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lmwp_ops.ops.goctconv2d import goctconv2d


class GOctConv2d(nn.Module):
    """Generalised octave convolution without bias, from and to any number of scales.

    Args:
        in_channels: width of every input branch, finest first, 0 for an absent one.
        out_channels: width of every output branch, 0 for an absent one.
        kernel_size: 1 or 3.
        entry_pool, cross_scale, down: see `lmwp_ops.goctconv2d`.

    `weight` is `[sum(out_channels), sum(in_channels), kernel_size, kernel_size]`, initialised
    as `torch.nn.Conv2d` with the fan-in of all input branches together.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: Sequence[int],
        kernel_size: int = 1,
        *,
        entry_pool: bool = False,
        cross_scale: bool = True,
        down: Literal["max", "bilinear"] = "max",
    ) -> None:
        super().__init__()
        self.in_channels = tuple(in_channels)
        self.out_channels = tuple(out_channels)
        self.kernel_size = kernel_size
        self.entry_pool = entry_pool
        self.cross_scale = cross_scale
        self.down: Literal["max", "bilinear"] = down
        shape = (sum(self.out_channels), sum(self.in_channels), kernel_size, kernel_size)
        self.weight = nn.Parameter(torch.empty(shape))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, xs: Sequence[Tensor]) -> list[Tensor]:
        """Present input branches to present output branches, each `[N, C, H, W]`."""
        return goctconv2d(
            xs,
            self.weight,
            self.in_channels,
            self.out_channels,
            entry_pool=self.entry_pool,
            cross_scale=self.cross_scale,
            down=self.down,
        )

    def extra_repr(self) -> str:
        text = f"{list(self.in_channels)}, {list(self.out_channels)}, {self.kernel_size}"
        if self.entry_pool:
            text += ", entry_pool=True"
        if not self.cross_scale:
            text += ", cross_scale=False"
        if self.down != "max":
            text += f", down={self.down!r}"
        return text
