"""The semantic context of LMWP-Net: the deepest feature next to its means over larger areas."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmwp_models.blocks import ConvNormPReLU, resize

OCTAVES = (1, 2, 3)


class SemanticContext(nn.Module):
    """Pools x over 2, 4 and 8 pixels and over the image, and fuses all: [N, channels, H, W] to a
    tensor like it. The pools divide any size, rounding up."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = channels // 4
        self.pooled = nn.ModuleList(ConvNormPReLU(channels, width) for _ in OCTAVES)
        self.image = ConvNormPReLU(channels, width)
        self.fuse = ConvNormPReLU(channels + (len(OCTAVES) + 1) * width, channels)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x]
        for octave, layer in zip(OCTAVES, self.pooled, strict=True):
            parts.append(resize(layer(F.avg_pool2d(x, 2**octave, ceil_mode=True)), x))
        image = self.image(x.mean((2, 3), keepdim=True))
        parts.append(image.expand(-1, -1, *x.shape[2:]))
        y: Tensor = self.fuse(torch.cat(parts, 1))
        return y
