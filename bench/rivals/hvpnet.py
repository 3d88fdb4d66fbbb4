"""HVPNet: hierarchical visual perception modules (Liu et al., IEEE Trans. Cybernetics 2021)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from lmwp_bench.rivals.blocks import conv_norm, linear, resize_to
from lmwp_bench.rivals.rival import Rival

_WIDTHS = (16, 32, 64, 128)
_DEPTHS = (1, 3, 5)  # perception modules of the last three levels


def _prelu(channels: int) -> nn.Module:
    return nn.PReLU(channels)


def _shared_prelu(channels: int) -> nn.Module:
    return nn.PReLU()


def _pointwise(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, bias=False)


class Downsample(nn.Module):
    """Half the size: a strided convolution beside a max pool of the input."""

    def __init__(self, inputs: int, outputs: int, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.norm = nn.Sequential(nn.BatchNorm2d(outputs), nn.PReLU(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(torch.cat([self.conv(x), self.pool(x)], 1))


class Perception(nn.Module):
    """Receptive fields of 7, 5 and 3, each fed with those before it, then joined."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fields = nn.ModuleList(
            nn.Sequential(
                conv_norm(i * channels, channels, size, _shared_prelu, groups=channels),
                conv_norm(channels, channels, act=_shared_prelu),
                conv_norm(channels, channels, 3, linear, dilation=size, groups=channels),
                conv_norm(channels, channels, act=_shared_prelu),
            )
            for i, size in enumerate((7, 5, 3), start=1)
        )
        self.join = conv_norm(4 * channels, channels, act=_shared_prelu)

    def forward(self, x: Tensor) -> Tensor:
        known = [x]
        for field in self.fields:
            known.append(field(torch.cat(known, 1)))
        return self.join(torch.cat(known, 1))


class ResidualAttention(nn.Module):
    """A channel gate and a pixel gate, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel_gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(channels, channels // 4, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(channels // 4, channels, bias=False),
            nn.Sigmoid(),
        )
        self.pixel_gate = nn.Sequential(conv_norm(channels, 1, 3, linear), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        y = x * self.channel_gate(x)[:, :, None, None]
        return x + y * self.pixel_gate(y)


class _Residual(nn.Module):
    """`act(norm(short(x) + body(x)))`."""

    def __init__(self, channels: int, short: nn.Module, body: nn.Module) -> None:
        super().__init__()
        self.short, self.body = short, body
        self.norm = nn.Sequential(nn.BatchNorm2d(channels), nn.PReLU(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.short(x) + self.body(x))


class ParallelFusion(nn.Module):
    """A deep map, narrowed and convolved at two dilations, added to a shallow one."""

    def __init__(self, deep: int, shallow: int) -> None:
        super().__init__()
        half = shallow // 2
        self.narrow = _pointwise(deep, shallow)
        self.near = nn.Conv2d(half, half, 3, padding=1, bias=False)
        self.far = nn.Conv2d(half, half, 3, padding=2, dilation=2, bias=False)
        self.norm = nn.BatchNorm2d(shallow)
        self.side = conv_norm(shallow, shallow, act=linear)
        self.act = nn.PReLU(shallow)

    def forward(self, deep: Tensor, shallow: Tensor) -> Tensor:
        near, far = self.narrow(resize_to(deep, shallow, align_corners=False)).chunk(2, 1)
        y = self.norm(torch.cat([self.near(near), self.far(far)], 1))
        return self.act(y + self.side(shallow))


def _first_level(channels: int) -> nn.Sequential:
    entry = Downsample(3, channels, nn.Conv2d(3, channels - 3, 3, 2, 1, bias=False))
    conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    inner = nn.Sequential(_Residual(channels, nn.Identity(), conv), ResidualAttention(channels))
    return nn.Sequential(entry, _Residual(channels, _pointwise(channels, channels), inner))


def _level(inputs: int, channels: int, depth: int) -> nn.Sequential:
    new = channels - inputs
    conv = nn.Sequential(
        _pointwise(inputs, new), nn.Conv2d(new, new, 5, 2, 2, groups=new, bias=False)
    )
    body = [
        nn.Sequential(nn.Dropout2d(0.1), Perception(channels), ResidualAttention(channels))
        for _ in range(depth)
    ]
    return nn.Sequential(
        Downsample(inputs, channels, conv),
        _Residual(channels, _pointwise(channels, channels), nn.Sequential(*body)),
    )


class HVPNet(nn.Module):
    """Four levels down, three fusions up."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList([_first_level(_WIDTHS[0])])
        for inputs, channels, depth in zip(_WIDTHS, _WIDTHS[1:], _DEPTHS, strict=False):
            self.levels.append(_level(inputs, channels, depth))
        self.fusions = nn.ModuleList(
            ParallelFusion(deep, shallow) for shallow, deep in pairwise(_WIDTHS)
        )
        self.predict = nn.Sequential(nn.Dropout2d(0.1), _pointwise(_WIDTHS[0], 1))

    def forward(self, image: Tensor) -> Tensor:
        """Logits [N, 1, H, W] of images [N, 3, H, W]."""
        known, x = [], image
        for level in self.levels:
            x = level(x)
            known.append(x)
        for fusion, shallow in zip(reversed(self.fusions), reversed(known[:-1]), strict=True):
            x = fusion(x, shallow)
        return resize_to(self.predict(x), image, align_corners=False)


RIVAL = Rival(
    name="hvpnet",
    description="HVPNet, hierarchical visual perception modules",
    paper="Lightweight Salient Object Detection via Hierarchical Visual Perception Learning, "
    "IEEE Transactions on Cybernetics 2021",
    build=HVPNet,
    input_size=(336, 336),
    published_params=1.23e6,
    published_flops=1.087e9,
    flops_are="macs",
    published_speed="26 FPS, RTX 3090",
)
