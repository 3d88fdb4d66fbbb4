"""ESPNetv2 for segmentation: efficient spatial pyramids (Mehta et al., CVPR 2019).

At width 2.0, with the light decoder of its authors' later collection: of their variants the one
that has the counts of the CSNet paper's table.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmwp_bench.rivals.blocks import conv_norm, linear, resize_to
from lmwp_bench.rivals.rival import Rival

_WIDTHS = (32, 128, 256, 512)
# For each level but the first: the largest receptive fields of the branches where it enters and
# where it stays, and how many modules stay.
_LEVELS = ((13, 0, 0), (11, 9, 3), (9, 7, 7))
_BRANCHES = 4
_DECODER = (64, 48, 32)
_POOL_WIDTH = 16
_POOL_SCALES = (2.0, 1.5, 1.0, 0.5, 0.1)


def _prelu(channels: int) -> nn.Module:
    return nn.PReLU(channels)


def _normed(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.PReLU(channels))


def _dilations(limit: int) -> list[int]:
    """Of 3x3 branches with fields of 3, 5, 7, ...; what reaches beyond `limit` falls back to 3."""
    fields = [3 + 2 * i for i in range(_BRANCHES)]
    return sorted((field if field <= limit else 3) // 2 for field in fields)


def _halve(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 2, 1)


class Pyramid(nn.Module):
    """Grouped squeeze, dilated depthwise branches summed one after the other, grouped expand."""

    def __init__(self, inputs: int, outputs: int, limit: int, stride: int = 1) -> None:
        super().__init__()
        narrow = outputs // _BRANCHES
        self.squeeze = conv_norm(inputs, narrow, act=_prelu, groups=_BRANCHES)
        self.branches = nn.ModuleList(
            nn.Conv2d(narrow, narrow, 3, stride, d, d, groups=narrow, bias=False)
            for d in _dilations(limit)
        )
        self.expand = nn.Sequential(
            _normed(outputs), conv_norm(outputs, outputs, act=linear, groups=_BRANCHES)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.squeeze(x)
        sums: list[Tensor] = []
        for branch in self.branches:
            sums.append(branch(y) + sums[-1] if sums else branch(y))
        return self.expand(torch.cat(sums, 1))


class ResidualPyramid(nn.Module):
    """A pyramid and its input, then PReLU."""

    def __init__(self, channels: int, limit: int) -> None:
        super().__init__()
        self.pyramid = Pyramid(channels, channels, limit)
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.pyramid(x))


class Down(nn.Module):
    """Half the size: pooled input beside a strided pyramid, and the image added again."""

    def __init__(self, inputs: int, outputs: int, limit: int) -> None:
        super().__init__()
        self.pyramid = Pyramid(inputs, outputs - inputs, limit, stride=2)
        self.reinforce = nn.Sequential(
            conv_norm(3, 3, 3, _prelu), conv_norm(3, outputs, act=linear)
        )
        self.act = nn.PReLU(outputs)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        y = torch.cat([_halve(x), self.pyramid(x)], 1)
        while image.shape[-1] > y.shape[-1]:
            image = _halve(image)
        return self.act(y + self.reinforce(image))


class PyramidPooling(nn.Module):
    """A narrow map filtered depthwise at several sizes, merged by groups."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        count = len(_POOL_SCALES)
        self.project = conv_norm(inputs, _POOL_WIDTH, act=_prelu)
        self.filters = nn.ModuleList(
            nn.Conv2d(_POOL_WIDTH, _POOL_WIDTH, 3, padding=1, groups=_POOL_WIDTH, bias=False)
            for _ in _POOL_SCALES
        )
        self.merge = nn.Sequential(
            _normed(count * _POOL_WIDTH),
            nn.ChannelShuffle(count),
            conv_norm(count * _POOL_WIDTH, _POOL_WIDTH, 3, _prelu, groups=_POOL_WIDTH),
            nn.Conv2d(_POOL_WIDTH, outputs, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)
        height, width = x.shape[-2:]
        known = []
        for scale, conv in zip(_POOL_SCALES, self.filters, strict=True):
            scaled = (max(5, math.ceil(height * scale)), max(5, math.ceil(width * scale)))
            if scale > 1:
                y = conv(F.interpolate(x, size=scaled, mode="bilinear", align_corners=True))
                y = F.adaptive_avg_pool2d(y, (height, width))
            elif scale < 1:
                y = resize_to(conv(F.adaptive_avg_pool2d(x, scaled)), x)
            else:
                y = conv(x)
            known.append(y)
        return self.merge(torch.cat(known, 1))


class GatedSide(nn.Module):
    """A stage for the decoder: grouped convolution, scaled by gates of the channel means."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(inputs, outputs, 1, bias=False), nn.Sigmoid()
        )
        self.conv = conv_norm(inputs, outputs, 3, _prelu, groups=math.gcd(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.gate(x)


class ESPNetv2(nn.Module):
    """Four levels down, three steps up, each closed by a pyramid pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = conv_norm(3, _WIDTHS[0], 3, _prelu, stride=2)
        self.downs = nn.ModuleList()
        self.levels = nn.ModuleList()
        for i, (entry_limit, limit, depth) in enumerate(_LEVELS):
            channels = _WIDTHS[i + 1]
            self.downs.append(Down(_WIDTHS[i], channels, entry_limit))
            self.levels.append(
                nn.Sequential(*(ResidualPyramid(channels, limit) for _ in range(depth)))
            )
        self.pools = nn.ModuleList(
            PyramidPooling(i, o)
            for i, o in zip((_WIDTHS[-1], *_DECODER), (*_DECODER, 1), strict=True)
        )
        self.norms = nn.ModuleList(_normed(channels) for channels in _DECODER)
        self.sides = nn.ModuleList(
            GatedSide(i, o) for i, o in zip(reversed(_WIDTHS[:-1]), _DECODER, strict=True)
        )
        self.merges = nn.ModuleList(_normed(channels) for channels in _DECODER)

    def forward(self, image: Tensor) -> Tensor:
        """Logits [N, 1, H, W] of images [N, 3, H, W]."""
        known = [self.entry(image)]
        for down, level in zip(self.downs, self.levels, strict=True):
            known.append(level(down(known[-1], image)))
        x = known.pop()
        steps = zip(
            self.pools[:-1], self.norms, self.sides, self.merges, reversed(known), strict=True
        )
        for pool, norm, side, merge, stage in steps:
            x = merge(side(stage) + resize_to(norm(pool(x)), stage))
        return resize_to(self.pools[-1](x), image)


RIVAL = Rival(
    name="espnetv2",
    description="ESPNetv2, for semantic segmentation, with one class",
    paper="ESPNetv2: A Light-weight, Power Efficient, and General Purpose Convolutional Neural "
    "Network, CVPR 2019",
    build=ESPNetv2,
    input_size=(224, 224),
    published_params=0.79e6,
    published_flops=0.31e9,
    flops_are="paper_flops",
    published_speed="186.3 ms, one core of an i7-8700K",
)
