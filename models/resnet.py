"""ResNet-50 and Res2Net-50 v1b as trunks that return the features of all four stages.

Parameter names are those of torchvision's ResNet and of the Res2Net authors' checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STAGE_BLOCKS = (3, 4, 6, 3)
STAGE_WIDTHS = (256, 512, 1024, 2048)
EXPANSION = 4
_STEM_WIDTH = 64


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1 (He et al., CVPR 2016) with the stride on the first 1 x 1."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = width * EXPANSION
        self.conv1 = nn.Conv2d(in_channels, width, 1, stride=stride, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = (
            nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )
            if stride != 1 or in_channels != out_channels
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + self.downsample(x))


class Bottle2neck(nn.Module):
    """Res2Net block (Gao et al., TPAMI 2021): four groups of 26 channels, each fed by the last.

    In the first block of a stage the groups are independent and the fourth is average-pooled.
    """

    scales = 4
    base_width = 26

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = width * EXPANSION
        group = width * self.base_width // 64
        self.first = stride != 1 or in_channels != out_channels
        self.conv1 = nn.Conv2d(in_channels, group * self.scales, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(group * self.scales)
        self.convs = nn.ModuleList(
            nn.Conv2d(group, group, 3, stride=stride, padding=1, bias=False)
            for _ in range(self.scales - 1)
        )
        self.bns = nn.ModuleList(nn.BatchNorm2d(group) for _ in range(self.scales - 1))
        self.conv3 = nn.Conv2d(group * self.scales, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.pool = nn.AvgPool2d(3, stride=stride, padding=1) if self.first else nn.Identity()
        self.downsample = (
            nn.Sequential(
                nn.AvgPool2d(stride, stride=stride, ceil_mode=True, count_include_pad=False),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            )
            if self.first
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        groups = F.relu(self.bn1(self.conv1(x))).chunk(self.scales, dim=1)
        ys: list[Tensor] = []
        for group, conv, bn in zip(groups[:-1], self.convs, self.bns, strict=True):
            fed = group if self.first or not ys else group + ys[-1]
            ys.append(F.relu(bn(conv(fed))))
        y = torch.cat([*ys, self.pool(groups[-1])], dim=1)
        y = self.bn3(self.conv3(y))
        return F.relu(y + self.downsample(x))


class _Trunk(nn.Module):
    """Stem, max-pool and four stages at strides 4, 8, 16 and 32."""

    def __init__(
        self,
        stem: nn.Module,
        block: Callable[[int, int, int], nn.Module],
        *,
        pool_ceil_mode: bool,
    ) -> None:
        super().__init__()
        self.conv1 = stem
        self.bn1 = nn.BatchNorm2d(_STEM_WIDTH)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=pool_ceil_mode)
        ins = (_STEM_WIDTH, *STAGE_WIDTHS)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _make_layer(block, ins[s], STAGE_WIDTHS[s], count, stride=1 if s == 0 else 2)
            for s, count in enumerate(STAGE_BLOCKS)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> list[Tensor]:
        """[N, 3, H, W] to the four features, finest first, `STAGE_WIDTHS` wide."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        features = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            features.append(x)
        return features


def _make_layer(
    block: Callable[[int, int, int], nn.Module],
    in_channels: int,
    out_channels: int,
    count: int,
    stride: int,
) -> nn.Sequential:
    width = out_channels // EXPANSION
    first = block(in_channels, width, stride)
    return nn.Sequential(first, *(block(out_channels, width, 1) for _ in range(count - 1)))


class ResNet50(_Trunk):
    """ResNet-50 with the stride on the first 1 x 1 of a block and a max-pool that rounds up."""

    def __init__(self) -> None:
        stem = nn.Conv2d(3, _STEM_WIDTH, 7, stride=2, padding=3, bias=False)
        super().__init__(stem, Bottleneck, pool_ceil_mode=True)


class Res2Net50(_Trunk):
    """Res2Net-50 v1b, 26w x 4s: a stem of three 3 x 3 convs, shortcuts by average-pool."""

    def __init__(self) -> None:
        half = _STEM_WIDTH // 2
        stem = nn.Sequential(
            nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            nn.Conv2d(half, half, 3, padding=1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            nn.Conv2d(half, _STEM_WIDTH, 3, padding=1, bias=False),
        )
        super().__init__(stem, Bottle2neck, pool_ceil_mode=False)
