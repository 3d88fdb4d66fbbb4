"""The layers CSNet and CSF are made of: a convolution over branches, then norm and PReLU.

In training batch norms and PReLUs run as one op per layer, and the layer keeps, as
`channel_means`, the means over the pixels of its last result: [N, C] for each branch, or None
where the modules ran one by one.

Features are lists of the present branches, finest first. Names of sub-modules follow the
checkpoints published with CSNet (Gao et al., ECCV 2020); `bns`, `prelus` and `convs` are keyed
by branch, and an empty branch has no key.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lmwp_ops
from lmwp_models.head_config import DILATIONS
from lmwp_ops.nn import norm_prelu_in_training

NormFactory = Callable[[int], nn.Module]


class StandardConv(nn.Module):
    """An ordinary convolution, one branch to one branch, on `weight_scale` times its weight."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        weight_scale: float,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.weight_scale = weight_scale
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, xs: Sequence[Tensor]) -> list[Tensor]:
        (x,) = xs
        padding = self.weight.shape[-1] // 2
        return [F.conv2d(x, self.weight_scale * self.weight, stride=self.stride, padding=padding)]


class OctaveLayer(nn.Module):
    """An octave or standard convolution, then norm and PReLU per branch."""

    def __init__(
        self, conv: nn.Module, out_channels: Sequence[int], norm: NormFactory = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        self.conv = conv
        self.bns = per_branch(out_channels, norm)
        self.prelus = per_branch(out_channels, nn.PReLU)
        self.channel_means: list[Tensor] | None = None

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        return norm_prelu(self, self.conv(xs), self.bns.values(), self.prelus.values())


class DepthwiseLayer(nn.Module):
    """A depthwise 3 x 3 convolution per branch, then batch norm and PReLU."""

    def __init__(self, channels: Sequence[int], weight_scale: float) -> None:
        super().__init__()
        self.weight_scale = weight_scale
        self.convs = per_branch(
            channels, lambda c: nn.Conv2d(c, c, 3, padding=1, groups=c, bias=False)
        )
        self.bns = per_branch(channels, nn.BatchNorm2d)
        self.prelus = per_branch(channels, nn.PReLU)
        self.channel_means: list[Tensor] | None = None

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        convs = cast(Iterable[nn.Conv2d], self.convs.values())
        weights = [self.weight_scale * conv.weight for conv in convs]
        ys = lmwp_ops.depthwise_scales(xs, weights)
        return norm_prelu(self, ys, self.bns.values(), self.prelus.values())


class DilatedScale(nn.Module):
    """The weights, norm and PReLU of one scale of a `DilatedLayer`."""

    def __init__(self, in_channels: int, out_channels: Sequence[int], norm: NormFactory) -> None:
        super().__init__()
        self.msconv = per_branch(
            out_channels, lambda c: nn.Conv2d(in_channels, c, 3, padding=1, bias=False)
        )
        self.bn = norm(sum(out_channels))
        self.prelu = nn.PReLU(sum(out_channels))

    def weights(self) -> list[Tensor | None]:
        """The stored weight of each dilation, None where there is none."""
        convs = cast(Mapping[str, nn.Conv2d], self.msconv)
        keys = [str(d) for d in range(len(DILATIONS))]
        return [convs[key].weight if key in convs else None for key in keys]


class DilatedLayer(nn.Module):
    """Parallel dilated 3 x 3 convolutions per scale, concatenated, then norm and PReLU.

    `out_channels[s][d]` belongs to the d-th of the dilations 1, 2, 4, 8, 16; a scale without any
    is absent from the output.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: Sequence[Sequence[int]],
        weight_scale: float = 1.0,
        norm: NormFactory = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.weight_scale = weight_scale
        self.in_channels = tuple(in_channels)
        self.convs = nn.ModuleDict(
            {
                str(s): DilatedScale(width, row, norm)
                for s, (width, row) in enumerate(zip(in_channels, out_channels, strict=True))
                if any(row)
            }
        )
        self.channel_means: list[Tensor] | None = None

    def stored_weights(self) -> list[list[Tensor | None]]:
        """The stored weights of each present input scale by dilation, None where there is none."""
        scales = cast(Mapping[str, DilatedScale], self.convs)
        return [
            scales[str(s)].weights() if str(s) in scales else [None] * len(DILATIONS)
            for s, width in enumerate(self.in_channels)
            if width
        ]

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        weights = [
            [None if w is None else self.weight_scale * w for w in row]
            for row in self.stored_weights()
        ]
        ys = lmwp_ops.dilated_bank(xs, weights, DILATIONS)
        present = list(cast(Mapping[str, DilatedScale], self.convs).values())
        norms, prelus = [scale.bn for scale in present], [scale.prelu for scale in present]
        return norm_prelu(self, ys, norms, prelus)


def per_branch(channels: Sequence[int], make: Callable[[int], nn.Module]) -> nn.ModuleDict:
    """One module per branch with channels, keyed by the branch's index."""
    return nn.ModuleDict({str(b): make(c) for b, c in enumerate(channels) if c})


class KeepsMeans(Protocol):
    """A layer that keeps the channel means of its last result in training."""

    training: bool
    channel_means: list[Tensor] | None


def norm_prelu(
    layer: KeepsMeans,
    ys: list[Tensor],
    norms: Iterable[nn.Module],
    prelus: Iterable[nn.Module],
) -> list[Tensor]:
    """`prelu(norm(y))` of every branch; keeps the channel means of `layer` in training."""
    norms, prelus = list(norms), list(prelus)
    fused = all(_can_fuse(norm, prelu) for norm, prelu in zip(norms, prelus, strict=True))
    if not fused or len({norm.eps for norm in norms}) > 1:
        if layer.training:
            layer.channel_means = None
        return [prelu(norm(y)) for y, norm, prelu in zip(ys, norms, prelus, strict=True)]
    batch_norms = cast(list[nn.BatchNorm2d], norms)
    slopes = [
        cast(nn.PReLU, prelu).weight.expand(norm.num_features)
        for norm, prelu in zip(batch_norms, prelus, strict=True)
    ]
    zs, layer.channel_means = norm_prelu_in_training(ys, batch_norms, slopes)
    return zs


def _can_fuse(norm: nn.Module, prelu: nn.Module) -> bool:
    """Whether one op may stand for both: an ordinary batch norm in training, and no one watches."""
    return (
        type(norm) is nn.BatchNorm2d
        and norm.training
        and norm.affine
        and norm.track_running_stats
        and type(prelu) is nn.PReLU
        and prelu.num_parameters in (1, norm.num_features)
        and not any(
            m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in (norm, prelu)
        )
        and not lmwp_ops.is_decomposed()
    )
