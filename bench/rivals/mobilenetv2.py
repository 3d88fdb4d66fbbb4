"""MobileNetV2 (Sandler et al., CVPR 2018) with SAMNet's kind of decoder.

The comparison that gives its figures names only the backbone and that it was made a saliency
network. The decoder here is SAMNet's, with side channels that come to the published counts.
"""

from __future__ import annotations

from torch import Tensor, nn

from lmwp_bench.rivals.blocks import conv_norm, linear, relu6
from lmwp_bench.rivals.rival import Rival
from lmwp_bench.rivals.samnet import Decoder

# Expansion, channels, blocks and first stride, in groups that end before each halving.
_STAGES = (
    ((1, 16, 1, 1),),
    ((6, 24, 2, 2),),
    ((6, 32, 3, 2),),
    ((6, 64, 4, 2), (6, 96, 3, 1)),
    ((6, 160, 3, 2), (6, 320, 1, 1)),
)
_LAST = 1280


class InvertedResidual(nn.Module):
    """Expand, depthwise, project; the input is added where the shapes allow."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = inputs * expansion
        expand = [conv_norm(inputs, wide, act=relu6)] if expansion > 1 else []
        self.body = nn.Sequential(
            *expand,
            conv_norm(wide, wide, 3, relu6, stride=stride, groups=wide),
            conv_norm(wide, outputs, act=linear),
        )
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return x + y if self.shortcut else y


class MobileNetV2Saliency(nn.Module):
    """The backbone's five stages, decoded to one logit per pixel."""

    def __init__(self) -> None:
        super().__init__()
        channels, widths, stages = 32, [], []
        layers: list[nn.Module] = [conv_norm(3, channels, 3, relu6, stride=2)]
        for groups in _STAGES:
            for expansion, outputs, count, stride in groups:
                for i in range(count):
                    layers.append(
                        InvertedResidual(channels, outputs, expansion, stride if i == 0 else 1)
                    )
                    channels = outputs
            stages.append(nn.Sequential(*layers))
            widths.append(channels)
            layers = []
        stages[-1].append(conv_norm(channels, _LAST, act=relu6))
        widths[-1] = _LAST
        self.stages = nn.ModuleList(stages)
        self.decoder = Decoder(tuple(widths), prepared=(96, 96, 64, 32, 16))

    def forward(self, image: Tensor) -> Tensor:
        """Logits [N, 1, H, W] of images [N, 3, H, W]."""
        known, x = [], image
        for stage in self.stages:
            x = stage(x)
            known.append(x)
        return self.decoder(known, image)


RIVAL = Rival(
    name="mobilenetv2-sod",
    description="MobileNetV2 with a light saliency decoder",
    paper="MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018",
    build=MobileNetV2Saliency,
    input_size=(336, 336),
    published_params=2.37e6,
    published_flops=0.8e9,
    flops_are="macs",
    published_speed="446 FPS, RTX 3090",
)
