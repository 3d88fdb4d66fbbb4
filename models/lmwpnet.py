"""LMWP-Net, reconstructed.

Its source (IMOP-lab/LMWP-Net) names the modules and publishes their purpose, 3.03 M parameters and
0.5 G FLOPs, but no layers; this network meets those figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from lmwp_models.blocks import ConvNormPReLU, SeparableConv, resize
from lmwp_models.csnet import IMAGE_CHANNELS, DecayUnit
from lmwp_models.lmwpnet_config import LMWPNetConfig
from lmwp_models.mafm import MAFM
from lmwp_models.mwpm import MWPM
from lmwp_models.semantic_context import SemanticContext


@dataclass(frozen=True)
class PruningShares:
    """What the gates of a stage gave: the share of zero weights, and of channels of an image
    that one branch alone is left of (which have no gradient for their gate)."""

    zeros: float
    singles: float


class LMWPNet(nn.Module):
    """Saliency network: images [N, 3, H, W], H and W of at least 32, to logits of their size.

    In training it gives a list of five, [N, 1, H, W] each: the finest, and those of the coarser
    decoder features and of the semantic context, finest first; in evaluation the finest alone.
    """

    size_multiple = 1
    min_size = 32

    def __init__(self, config: LMWPNetConfig) -> None:
        super().__init__()
        self.config = config
        widths, decoder = config.widths, config.decoder
        self.stage1, self.stage2, self.stage3, self.stage4, self.stage5 = (
            _make_stage(config, s) for s in range(len(widths))
        )
        self.context = SemanticContext(widths[-1])
        deeper = (*decoder[1:], widths[-1])
        self.decoder = nn.ModuleDict(
            {
                str(2 ** (s + 1)): MAFM(widths[s], deeper[s], widths[-1], decoder[s])
                for s in reversed(range(len(decoder)))
            }
        )
        self.heads = nn.ModuleDict(
            {str(2 ** (s + 1)): nn.Conv2d(c, 1, 1) for s, c in enumerate((*decoder, widths[-1]))}
        )

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Raises `ValueError` for images the network cannot take."""
        self.check_input(x)
        if self.training and x.shape[0] < 2:
            raise ValueError(
                "LMWPNet: expected at least two images per process in training (batch norm sees "
                f"maps of one pixel), got {x.shape[0]}; use eval() or a larger batch"
            )
        y, features = x, {}
        for stage, stride in zip(self.stages, self.heads, strict=True):
            y = stage(y)
            features[stride] = y
        y = self.context(y)
        means = y.mean((2, 3), keepdim=True)
        decoded = [y]
        for stride, fusion in self.decoder.items():
            y = fusion(features[stride], y, means)
            decoded.append(y)
        heads = zip(self.heads.values(), reversed(decoded), strict=True)
        logits: Iterator[Tensor] = (resize(head(feature), x) for head, feature in heads)
        return list(logits) if self.training else next(logits)

    @classmethod
    def check_input(cls, x: Tensor) -> None:
        """Raises `ValueError` for images the network cannot take."""
        if x.dim() != 4 or x.shape[1] != IMAGE_CHANNELS:
            raise ValueError(f"LMWPNet: expected images [N, 3, H, W], got shape {list(x.shape)}")
        height, width = x.shape[-2:]
        if min(height, width) < cls.min_size:
            raise ValueError(
                f"LMWPNet: expected height and width of at least {cls.min_size}, "
                f"got {height} x {width}; pad or resize the image"
            )

    def parts(self) -> dict[str, nn.Module]:
        """The network cut into the parts that its size is reported by."""
        stages = {f"stage{i}": stage for i, stage in enumerate(self.stages, start=1)}
        fusions = {f"mafm{stride}": fusion for stride, fusion in self.decoder.items()}
        return {**stages, "context": self.context, **fusions, "heads": self.heads}

    def decay_units(self) -> list[DecayUnit]:
        """The branches of every MWPM, in order of execution.

        The resolution weight is 1 for the coarsest branch of the last stage and doubles with the
        resolution.
        """
        octaves = [octave for octave, _ in self.config.branches]
        units = []
        for s, stage in enumerate(self.stages):
            factors = [2.0 ** (len(self.stages) - 1 - s + max(octaves) - o) for o in octaves]
            for i, block in enumerate(stage):
                if isinstance(block, MWPM):
                    norms = cast(list[nn.BatchNorm2d], list(block.mix.norms))
                    units.append(DecayUnit(f"stage{s + 1}.{i}.mix", block.mix, norms, factors))
        return units

    def pruning_shares(self) -> dict[str, PruningShares]:
        """What the gates of each stage gave in the last forward pass; reading it makes a GPU wait.

        Stages without an MWPM, or any before the first pass, are absent.
        """
        shares = {}
        for i, stage in enumerate(self.stages, start=1):
            gates = [block.gate.last for block in stage if isinstance(block, MWPM)]
            survivors = [(last > 0).sum(1) for last in gates if last is not None]  # [N, channels]
            if survivors:
                branches = len(self.config.branches)
                left = sum(float(s.float().mean()) for s in survivors) / len(survivors)
                singles = sum(float((s == 1).float().mean()) for s in survivors) / len(survivors)
                shares[f"stage{i}"] = PruningShares(1 - left / branches, singles)
        return shares

    @property
    def stages(self) -> tuple[nn.Sequential, ...]:
        return self.stage1, self.stage2, self.stage3, self.stage4, self.stage5


def _make_stage(config: LMWPNetConfig, s: int) -> nn.Sequential:
    """A convolution of stride 2, then MWPMs."""
    width = config.widths[s]
    entry: nn.Module
    if s == 0:
        entry = ConvNormPReLU(IMAGE_CHANNELS, width, kernel_size=3, stride=2)
    else:
        entry = SeparableConv(config.widths[s - 1], width, stride=2)
    blocks = (
        MWPM(width, config.expand, config.branches, config.reduction)
        for _ in range(config.blocks[s])
    )
    return nn.Sequential(entry, *blocks)
