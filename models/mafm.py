"""The multi-scale attention fusion module (MAFM) of LMWP-Net, reconstructed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmwp_models.blocks import ConvNorm, ConvNormPReLU, DepthwiseNorm, resize
from lmwp_ops.nn import CBAM

REDUCTION, MIN_HIDDEN = 4, 4
KERNEL_SIZES = (3, 5, 7)


class MAFM(nn.Module):
    """Fuses an encoder feature, gated by attention, with the next deeper decoder feature.

    What is semantically of interest guides both: the decoder feature says where in the encoder
    feature, the semantic context which channels of the decoder feature.
    """

    def __init__(
        self, encoder_channels: int, decoder_channels: int, context_channels: int, channels: int
    ) -> None:
        super().__init__()
        self.attention = CBAM(encoder_channels, REDUCTION, KERNEL_SIZES, min_hidden=MIN_HIDDEN)
        self.encoder = ConvNorm(encoder_channels, channels)
        self.decoder = ConvNorm(decoder_channels, channels)
        self.channel_guide = nn.Conv2d(context_channels, channels, 1)
        self.spatial_guide = nn.Conv2d(decoder_channels, 1, 1)
        self.near = DepthwiseNorm(channels)
        self.far = DepthwiseNorm(channels, dilation=2)
        self.fuse = ConvNormPReLU(channels, channels)

    def forward(self, encoder: Tensor, decoder: Tensor, context: Tensor) -> Tensor:
        """encoder [N, ce, H, W], decoder [N, cd, h, w] of any smaller size and the means over the
        pixels of the semantic context [N, cs, 1, 1] to [N, channels, H, W]."""
        which = torch.sigmoid(self.channel_guide(context))
        where = resize(torch.sigmoid(self.spatial_guide(decoder)), encoder)
        f = self.encoder(self.attention(encoder)) * (1 + where)
        f = f + resize(self.decoder(decoder), encoder) * which
        y: Tensor = self.fuse(f + self.near(f) + self.far(f))
        return y
