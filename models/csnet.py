"""CSNet (Gao et al., "Highly Efficient Salient Object Detection with 100K Parameters", ECCV 2020).

Five stages of in-layer multi-scale blocks on two branches, and a head that fuses the outputs of
the last three. Details follow the network released with the paper; state-dict keys and their
order are those of its checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from lmwp_models.csnet_config import CSNetConfig
from lmwp_models.head_config import HeadConfig
from lmwp_models.layers import DepthwiseLayer, DilatedLayer, OctaveLayer, StandardConv
from lmwp_ops.nn import GOctConv2d

WEIGHT_SCALE = 100.0  # depthwise, dilated and standard convs use 100 times the stored weight
IMAGE_CHANNELS = 3
_RESOLUTION_BASE = (8, 8, 4, 2, 1)  # of stages 0 to 4, for the `resolution` weighting of the decay


@dataclass(frozen=True)
class DecayUnit:
    """A sub-layer whose batch-norm gammas dynamic weight decay acts on.

    `module` returns the list of its present branches after norm and PReLU, and may keep their
    means over the pixels in training as `channel_means`; `norms` are their batch norms and
    `resolution_weights` their factors f = base(stage) 2^(branches - 1) / 2^branch.
    """

    name: str
    module: nn.Module
    norms: list[nn.BatchNorm2d]
    resolution_weights: list[float]


class ILBlock(nn.Module):
    """In-layer multi-scale block: an octave conv, then two depthwise 3 x 3 convs per branch.

    `conv1x1` is 3 x 3 at the start of a stage; the name is that of the released checkpoints.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: Sequence[int],
        *,
        kernel_size: int = 1,
        entry: bool = False,
    ) -> None:
        super().__init__()
        conv: nn.Module
        if len(in_channels) == len(out_channels) == 1:
            stride = 2 if entry else 1
            conv = StandardConv(
                in_channels[0], out_channels[0], kernel_size, stride, weight_scale=WEIGHT_SCALE
            )
        else:
            conv = GOctConv2d(in_channels, out_channels, kernel_size, entry_pool=entry)
        self.conv1x1 = OctaveLayer(conv, out_channels)
        self.conv3x3_1 = DepthwiseLayer(out_channels, WEIGHT_SCALE)
        self.conv3x3_2 = DepthwiseLayer(out_channels, WEIGHT_SCALE)

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        return self.conv3x3_2(self.conv3x3_1(self.conv1x1(xs)))


class FusionHead(nn.Module):
    """Cross-stage fusion: octave 1 x 1, dilated bank, octave 1 x 1 to the finest scale."""

    def __init__(self, in_channels: Sequence[int], config: HeadConfig) -> None:
        super().__init__()
        width = (config.fuse1x1,)
        self.fuse = OctaveLayer(GOctConv2d(in_channels, config.fuse), config.fuse)
        self.ms = DilatedLayer(config.fuse, config.ms, WEIGHT_SCALE)
        self.fuse1x1 = OctaveLayer(GOctConv2d(config.ms_widths, width), width)

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        return self.fuse1x1(self.ms(self.fuse(xs)))


class CSNet(nn.Module):
    """Saliency network: images [N, 3, H, W] to logits [N, 1, H, W], H and W multiples of 16.

    Without a head (`config.head` None) the classifier reads the last stage alone: the extractor
    of the paper's ablation.
    """

    size_multiple = 16

    def __init__(self, config: CSNetConfig) -> None:
        super().__init__()
        self.config = config
        stages = [_make_stage(config, number) for number in range(len(_RESOLUTION_BASE))]
        self.stage0, self.stage1, self.stage2, self.stage3, self.stage4 = stages
        if config.head:
            widths = [config.blocks[k][0] for k in config.head_inputs]
            self.oct_fuse = FusionHead(widths, config.head)
        last_width = config.head.fuse1x1 if config.head else config.blocks[-1][0]
        self.cls_layer = nn.Conv2d(last_width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Raises `ValueError` for a shape the network cannot take."""
        self.check_input(x)
        xs = [x]
        ends = []
        for stage in self.stages:
            xs = stage(xs)
            ends.append(xs)
        if self.config.head:
            xs = self.oct_fuse([end[0] for end in ends[2:]])
        logits = self.cls_layer(xs[0])
        return F.interpolate(logits, size=x.shape[-2:], mode="bilinear", align_corners=False)

    def parts(self) -> dict[str, nn.Module]:
        """The network cut into the parts that its size is reported by."""
        stages = {f"stage{number}": stage for number, stage in enumerate(self.stages)}
        head = dict(self.oct_fuse.named_children()) if self.config.head else {}
        return {**stages, **head, "cls_layer": self.cls_layer}

    def decay_units(self) -> list[DecayUnit]:
        """The three sub-layers of every ILBlock, in order of execution; the head has none."""
        units = []
        widths = iter(self.config.blocks)
        for number, (stage, base) in enumerate(zip(self.stages, _RESOLUTION_BASE, strict=True)):
            for i, block in enumerate(stage):
                branches = next(widths)
                factors = [
                    base * 2.0 ** (len(branches) - 1 - b) for b, c in enumerate(branches) if c
                ]
                for name, layer in block.named_children():
                    norms = [m for m in layer.modules() if isinstance(m, nn.BatchNorm2d)]
                    units.append(DecayUnit(f"stage{number}.{i}.{name}", layer, norms, factors))
        return units

    @property
    def stages(self) -> tuple[nn.Sequential, ...]:
        return self.stage0, self.stage1, self.stage2, self.stage3, self.stage4

    @classmethod
    def check_input(cls, x: Tensor) -> None:
        """Raise `ValueError` unless `x` is images the network can take."""
        if x.dim() != 4 or x.shape[1] != IMAGE_CHANNELS:
            raise ValueError(f"CSNet: expected images [N, 3, H, W], got shape {list(x.shape)}")
        height, width = x.shape[-2:]
        multiple = cls.size_multiple
        if height % multiple or width % multiple or 0 in (height, width):
            raise ValueError(
                f"CSNet: expected height and width to be multiples of {multiple}, "
                f"got {height} x {width}; pad or resize the image"
            )


def _make_stage(config: CSNetConfig, number: int) -> nn.Sequential:
    """Stages 2 to 4 halve the size at their entry; all but stage 1 start with a 3 x 3 conv."""
    last = config.stage_ends[number]
    first = config.stage_ends[number - 1] + 1 if number else 0
    inputs = ((IMAGE_CHANNELS,), *config.blocks)
    return nn.Sequential(
        *(
            ILBlock(
                inputs[k],
                config.blocks[k],
                kernel_size=3 if k == first and number != 1 else 1,
                entry=k == first and number >= 2,
            )
            for k in range(first, last + 1)
        )
    )
