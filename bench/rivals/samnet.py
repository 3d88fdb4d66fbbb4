"""SAMNet: stereoscopically attentive multi-scale modules (Liu et al., IEEE TIP 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmwp_bench.rivals.blocks import conv_norm, linear, resize_to, separable
from lmwp_bench.rivals.rival import Rival

# Channels, number of modules and their dilations, of each stage.
_STAGES = (
    (16, 1, (1, 2, 3)),
    (32, 1, (1, 2, 3)),
    (64, 3, (1, 2, 3)),
    (96, 6, (1, 2, 3)),
    (128, 3, (1, 2)),
)
# Output channels, kernel and dilation of the decoder's steps, from the deepest stage up.
_DECODER = ((96, 3, 1), (64, 3, 2), (32, 5, 2), (16, 5, 2), (16, 5, 2))


class AttentiveModule(nn.Module):
    """Depthwise branches of several dilations, weighed against each other per channel and pixel."""

    def __init__(self, channels: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.conv = separable(channels, channels)
        self.branches = nn.ModuleList(separable(channels, channels, dilation=d) for d in dilations)
        count = len(dilations) + 1
        self.channel_gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            conv_norm(channels, channels),
            nn.Conv2d(channels, count * channels, 1, bias=False),
            nn.Unflatten(1, (count, channels)),
        )
        narrow = channels // 4
        self.pixel_gate = nn.Sequential(
            conv_norm(channels, narrow),
            separable(narrow, narrow, dilation=2),
            separable(narrow, narrow, dilation=4),
            nn.Conv2d(narrow, 1, 1, bias=False),
        )
        self.fuse = conv_norm(channels, channels, act=linear)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv(x)
        parts = torch.stack([first, *(branch(first) for branch in self.branches)], 1)
        gathered = parts.sum(1)
        gates = self.channel_gate(gathered) * self.pixel_gate(gathered).unsqueeze(1)
        return self.fuse((parts * gates.softmax(1)).sum(1)) + x


class PyramidPooling(nn.Module):
    """The map beside its averages on grids of 1, 2, 3 and 6."""

    def __init__(self, channels: int, grids: tuple[int, ...] = (1, 2, 3, 6)) -> None:
        super().__init__()
        narrow = channels // len(grids)
        self.pools = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(grid), conv_norm(channels, narrow)) for grid in grids
        )
        self.fuse = conv_norm(channels + narrow * len(grids), channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fuse(torch.cat([x, *(resize_to(pool(x), x) for pool in self.pools)], 1))


class Decoder(nn.Module):
    """Goes up the stages, adding each to what comes from below, to one logit per pixel."""

    def __init__(self, stages: tuple[int, ...], prepared: tuple[int, ...]) -> None:
        super().__init__()
        widths = [channels for channels, _, _ in _DECODER]
        self.prepare = nn.ModuleList(
            conv_norm(i, o, act=linear) for i, o in zip(reversed(stages), prepared, strict=True)
        )
        self.fuse = nn.ModuleList(
            separable(i, o, kernel, dilation=dilation)
            for i, (o, kernel, dilation) in zip(prepared, _DECODER, strict=True)
        )
        self.predict = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(widths[-1], 1, 1))

    def forward(self, stages: list[Tensor], image: Tensor) -> Tensor:
        x = None
        for prepare, fuse, stage in zip(self.prepare, self.fuse, reversed(stages), strict=True):
            side = prepare(stage)
            x = fuse(side if x is None else side + resize_to(x, side))
        return resize_to(self.predict(x), image)


class SAMNet(nn.Module):
    """Encoder of attentive modules, pyramid pooling, decoder."""

    def __init__(self) -> None:
        super().__init__()
        widths = tuple(channels for channels, _, _ in _STAGES)
        self.stages = nn.ModuleList()
        inputs = 3
        for channels, count, dilations in _STAGES:
            entry = conv_norm if inputs == 3 else separable
            modules = [AttentiveModule(channels, dilations) for _ in range(count)]
            self.stages.append(nn.Sequential(entry(inputs, channels, 3, stride=2), *modules))
            inputs = channels
        self.pooling = PyramidPooling(inputs)
        self.decoder = Decoder(widths, prepared=(128, 96, 64, 32, 16))

    def forward(self, image: Tensor) -> Tensor:
        """Logits [N, 1, H, W] of images [N, 3, H, W]."""
        stages, x = [], image
        for stage in self.stages:
            x = stage(x)
            stages.append(x)
        stages[-1] = self.pooling(x)
        return self.decoder(stages, image)


RIVAL = Rival(
    name="samnet",
    description="SAMNet, attentive multi-scale modules",
    paper="SAMNet: Stereoscopically Attentive Multi-Scale Network, IEEE TIP 2021",
    build=SAMNet,
    input_size=(336, 336),
    published_params=1.33e6,
    published_flops=0.502e9,
    flops_are="macs",
    published_speed="44 FPS, RTX 3090",
)
