"""The multi-scale weight pruning module (MWPM) of LMWP-Net, reconstructed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lmwp_models.blocks import ConvNorm, ConvNormPReLU
from lmwp_ops.nn import MultiscaleMix

BRANCHES = ((0, 1), (0, 2), (1, 1), (2, 1))  # (octave, dilation)
MIN_HIDDEN = 8
HIGHEST_THRESHOLD = 0.99  # of 1 / K; at 1 equal shares would all be pruned


class PruningGate(nn.Module):
    """Dynamic weight pruning: per image and channel, which branches count and how much.

    A softmax over the branches, less a learnt threshold per channel; what is not above it is 0,
    the rest sums to 1. Softmax, threshold and division are in float32 whatever the features are.

    `last` is what the last forward pass gave, detached; None before one.
    """

    def __init__(self, channels: int, branches: int, reduction: int) -> None:
        super().__init__()
        hidden = max(MIN_HIDDEN, channels // reduction)
        self.branches = branches
        self.fc1 = nn.Linear(channels, hidden)
        self.prelu = nn.PReLU(hidden)
        self.fc2 = nn.Linear(hidden, branches * channels)
        self.threshold = nn.Parameter(torch.zeros(channels))
        self.last: Tensor | None = None

    def forward(self, u: Tensor) -> Tensor:
        """u [N, channels, H, W] to the weights [N, branches, channels]."""
        logits = self.fc2(self.prelu(self.fc1(u.mean((2, 3)))))
        logits = logits.view(u.shape[0], self.branches, u.shape[1])
        wide = torch.promote_types(logits.dtype, torch.float32)
        shares = logits.to(wide).softmax(1)
        relative = self.threshold.to(wide).sigmoid().clamp(max=HIGHEST_THRESHOLD)
        kept = (shares - relative / self.branches).relu()
        weights = kept / kept.sum(1, keepdim=True)
        if not torch.compiler.is_exporting():
            self.last = weights.detach()
        return weights


class MWPM(nn.Module):
    """A residual bottleneck, `expand` times as wide inside, over depthwise branches that a
    `PruningGate` weighs for each image: [N, channels, H, W] to a tensor like it."""

    def __init__(
        self,
        channels: int,
        expand: int = 2,
        branches: Sequence[tuple[int, int]] = BRANCHES,
        reduction: int = 4,
    ) -> None:
        super().__init__()
        width = expand * channels
        self.expand = ConvNormPReLU(channels, width)
        self.gate = PruningGate(width, len(branches), reduction)
        self.mix = MultiscaleMix(width, branches)
        self.project = ConvNorm(width, channels)
        self.prelu = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        u = self.expand(x)
        y: Tensor = self.prelu(x + self.project(self.mix(u, self.gate(u))))
        return y
