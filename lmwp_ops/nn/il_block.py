"""The module of `lmwp_ops.il_block`."""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from lmwp_ops.ops.il_block import STAGES, il_block


class ILBlock(nn.Module):
    """An octave convolution and two depthwise 3 x 3 ones, each with affine and PReLU: inference.

    Args:
        in_channels, out_channels: width of every branch, finest first, 0 for an absent one.
        kernel_size: of the octave convolution, 1 or 3.
        entry_pool: see `lmwp_ops.goctconv2d`.

    Its parameters ask for no gradient; fill them from a trained block, batch norms folded:
    `weight` as that of `GOctConv2d`, `depthwise.<0 or 1>.<b>` [C_b, 1, 3, 3] and, for the layers
    s = 0, 1, 2, `scale.<s>.<b>`, `shift.<s>.<b>` and `slope.<s>.<b>`, each [C_b], where b counts
    the present output branches. They start as a block that was not trained.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: Sequence[int],
        kernel_size: int = 1,
        *,
        entry_pool: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels = tuple(in_channels)
        self.out_channels = tuple(out_channels)
        self.kernel_size = kernel_size
        self.entry_pool = entry_pool
        widths = [c for c in self.out_channels if c]
        shape = (sum(widths), sum(self.in_channels), kernel_size, kernel_size)
        self.weight = nn.Parameter(torch.empty(shape))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self.depthwise = _layers(STAGES - 1, [torch.empty(c, 1, 3, 3) for c in widths])
        for weight in self.depthwise.parameters():
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        self.scale = _layers(STAGES, [torch.ones(c) for c in widths])
        self.shift = _layers(STAGES, [torch.zeros(c) for c in widths])
        self.slope = _layers(STAGES, [torch.full((c,), 0.25) for c in widths])
        self.requires_grad_(False)

    def forward(self, xs: Sequence[Tensor]) -> list[Tensor]:
        """Present input branches to present output branches, each `[N, C, H, W]`."""
        depthwise, scale, shift, slope = (
            [list(cast(nn.ParameterList, layer)) for layer in layers]
            for layers in (self.depthwise, self.scale, self.shift, self.slope)
        )
        return il_block(
            xs,
            self.weight,
            self.in_channels,
            self.out_channels,
            depthwise,
            entry_pool=self.entry_pool,
            affine=[list(zip(*pair, strict=True)) for pair in zip(scale, shift, strict=True)],
            slope=slope,
        )

    def extra_repr(self) -> str:
        text = f"{list(self.in_channels)}, {list(self.out_channels)}, {self.kernel_size}"
        return text + ", entry_pool=True" * self.entry_pool


def _layers(count: int, values: list[Tensor]) -> nn.ModuleList:
    return nn.ModuleList(nn.ParameterList(value.clone() for value in values) for _ in range(count))
