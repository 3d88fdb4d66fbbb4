"""The module of `lmwp_ops.channel_spatial_attention`."""

from __future__ import annotations

import builtins
from collections.abc import Sequence

from torch import Tensor, nn

from lmwp_ops.ops.channel_spatial_attention import channel_spatial_attention


class CBAM(nn.Module):
    """Channel gate, then spatial gate (Woo et al., ECCV 2018).

    Args:
        channels: of the feature.
        reduction: the channel gate's layers have channels / reduction between them; None for no
            channel gate.
        kernel_sizes: of the spatial gate, each 3, 5 or 7; empty for no spatial gate.
        min_hidden: the least channels between the layers.
        bias: whether the layers of the channel gate have biases.
        mean, max: which pools both gates use.

    `reduce` and `expand` are `nn.Linear`, `spatial.<i>` an `nn.Conv2d` without bias.
    """

    def __init__(
        self,
        channels: int,
        reduction: int | None = 16,
        kernel_sizes: Sequence[int] = (7,),
        *,
        min_hidden: int = 1,
        bias: bool = False,
        mean: bool = True,
        max: bool = True,
    ) -> None:
        super().__init__()
        self.mean, self.max = mean, max
        self.reduce = self.expand = None
        if reduction is not None:
            hidden = builtins.max(min_hidden, channels // reduction)
            self.reduce = nn.Linear(channels, hidden, bias)
            self.expand = nn.Linear(hidden, channels, bias)
        self.spatial = nn.ModuleList(
            nn.Conv2d(mean + max, 1, k, padding=k // 2, bias=False) for k in kernel_sizes
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map x [N, channels, H, W] to a tensor like it."""
        kernels = [kernel[0] for kernel in self.spatial.parameters()]
        layers = _parameters(self.reduce), _parameters(self.expand)
        return channel_spatial_attention(x, *layers, kernels, mean=self.mean, max=self.max)

    def extra_repr(self) -> str:
        return f"mean={self.mean}, max={self.max}"


def _parameters(layer: nn.Linear | None) -> Tensor | tuple[Tensor, Tensor] | None:
    if layer is None:
        return None
    return layer.weight if layer.bias is None else (layer.weight, layer.bias)
