"""ENet: bottlenecks at an eighth of the size (Paszke et al., arXiv:1606.02147)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmwp_bench.rivals.blocks import Activation, conv_norm, linear, relu
from lmwp_bench.rivals.rival import Rival

_DROPOUT = 0.1
# The middle convolution of the bottlenecks of stages 2 and 3; a number is a dilation.
_DEEP = (1, 2, "asymmetric", 4, 1, 8, "asymmetric", 16)


def _prelu(channels: int) -> nn.Module:
    return nn.PReLU()


def _normed(conv: nn.Module, channels: int, act: Activation) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(channels), act(channels))


def _asymmetric(channels: int) -> nn.Sequential:
    tall = nn.Conv2d(channels, channels, (5, 1), padding=(2, 0), bias=False)
    wide = nn.Conv2d(channels, channels, (1, 5), padding=(0, 2), bias=False)
    return nn.Sequential(_normed(tall, channels, _prelu), _normed(wide, channels, _prelu))


class Initial(nn.Module):
    """Half the size: a strided convolution beside a max pool of the image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels - 3, 3, 2, 1, bias=False)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.norm = nn.Sequential(nn.BatchNorm2d(channels), _prelu(channels))

    def forward(self, image: Tensor) -> Tensor:
        return self.norm(torch.cat([self.conv(image), self.pool(image)], 1))


class Bottleneck(nn.Module):
    """`act(x + expand(middle(squeeze(x))))` on a map that keeps its size."""

    def __init__(self, channels: int, middle: int | str = 1, act: Activation = _prelu) -> None:
        super().__init__()
        narrow = channels // 4
        self.body = nn.Sequential(
            conv_norm(channels, narrow, act=act),
            conv_norm(narrow, narrow, 3, act, dilation=middle)
            if isinstance(middle, int)
            else _asymmetric(narrow),
            conv_norm(narrow, channels, act=act),
            nn.Dropout2d(_DROPOUT),
        )
        self.act = act(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.body(x))


class Down(nn.Module):
    """A bottleneck to half the size; also gives where the max pool found its maxima."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        narrow = inputs // 4
        entry = nn.Conv2d(inputs, narrow, 2, 2, bias=False)
        self.body = nn.Sequential(
            _normed(entry, narrow, _prelu),
            conv_norm(narrow, narrow, 3, _prelu),
            conv_norm(narrow, outputs, act=_prelu),
            nn.Dropout2d(_DROPOUT),
        )
        self.more_channels = outputs - inputs
        self.act = _prelu(outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pooled, where = F.max_pool2d(x, 2, return_indices=True)
        padded = F.pad(pooled, (0, 0, 0, 0, 0, self.more_channels))
        return self.act(padded + self.body(x)), where


class Up(nn.Module):
    """A bottleneck to twice the size; values go back to where their maxima were."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        narrow = inputs // 4
        double = nn.ConvTranspose2d(narrow, narrow, 2, 2, bias=False)
        self.main = conv_norm(inputs, outputs, act=linear)
        self.body = nn.Sequential(
            conv_norm(inputs, narrow),
            _normed(double, narrow, relu),
            conv_norm(narrow, outputs, act=linear),
            nn.Dropout2d(_DROPOUT),
        )

    def forward(self, x: Tensor, where: Tensor) -> Tensor:
        return F.relu(F.max_unpool2d(self.main(x), where, (2, 2)) + self.body(x))


class ENet(nn.Module):
    """Encoder of three stages, decoder of two; height and width are multiples of 8."""

    def __init__(self) -> None:
        super().__init__()
        self.initial = Initial(16)
        self.down1 = Down(16, 64)
        self.stage1 = nn.Sequential(*(Bottleneck(64) for _ in range(4)))
        self.down2 = Down(64, 128)
        self.stage2 = nn.Sequential(*(Bottleneck(128, middle) for middle in _DEEP))
        self.stage3 = nn.Sequential(*(Bottleneck(128, middle) for middle in _DEEP))
        self.up4 = Up(128, 64)
        self.stage4 = nn.Sequential(*(Bottleneck(64, act=relu) for _ in range(2)))
        self.up5 = Up(64, 16)
        self.stage5 = Bottleneck(16, act=relu)
        self.predict = nn.ConvTranspose2d(16, 1, 3, 2, 1, output_padding=1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """Logits [N, 1, H, W] of images [N, 3, H, W]."""
        x, where1 = self.down1(self.initial(image))
        x, where2 = self.down2(self.stage1(x))
        x = self.stage4(self.up4(self.stage3(self.stage2(x)), where2))
        return self.predict(self.stage5(self.up5(x, where1)))


RIVAL = Rival(
    name="enet",
    description="ENet, for semantic segmentation, with one class",
    paper="ENet: A Deep Neural Network Architecture for Real-Time Semantic Segmentation, "
    "arXiv:1606.02147",
    build=ENet,
    input_size=(224, 224),
    published_params=0.36e6,
    published_flops=0.40e9,
    flops_are="paper_flops",
    published_speed="89.9 ms, one core of an i7-8700K",
)
