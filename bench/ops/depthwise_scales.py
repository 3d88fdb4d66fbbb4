"""`depthwise_scales` in the benchmark."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

import lmwp_ops
from lmwp_bench.ops.layers import norm_prelu
from lmwp_bench.ops.spec import Cost, Inputs, OpSpec


@dataclass(frozen=True)
class Shape:
    """Branches (channels, height, width) under one kernel size, dilation and stride."""

    branches: tuple[tuple[int, int, int], ...]
    kernel_size: int = 3
    dilation: int = 1
    stride: int = 1

    def size_out(self, side: int) -> int:
        """Height or width of an output."""
        return (side - 1) // self.stride + 1


SHAPES = {
    "csnet-x1 stage 1": Shape(((10, 224, 224), (10, 112, 112))),
    "csnet-x1 stage 3": Shape(((40, 56, 56), (40, 28, 28))),
    "csnet-l-x2 stage 4": Shape(((26, 28, 28), (44, 14, 14))),
    "lmwpnet stage 2 entry": Shape(((16, 168, 168),), stride=2),
    "lmwpnet stage 5": Shape(((640, 11, 11),)),
    "single 10x224x224": Shape(((10, 224, 224),)),
    "dilated 80x56x56": Shape(((80, 56, 56),), dilation=4),
    "odd 33x33x33 k5": Shape(((33, 33, 33),), kernel_size=5),
    "odd 13x13x13 k7": Shape(((13, 13, 13),), kernel_size=7),
    "odd 7x7x7": Shape(((7, 7, 7),)),
}


def _weights(shape: Shape) -> list[tuple[int, ...]]:
    return [(c, 1, shape.kernel_size, shape.kernel_size) for c, _, _ in shape.branches]


def _fused(shape: Shape, inputs: Inputs) -> list[Tensor]:
    return lmwp_ops.depthwise_scales(
        inputs.xs,
        inputs.weights,
        dilation=shape.dilation,
        stride=shape.stride,
        affine=inputs.affine,
        slope=inputs.slope,
    )


def _framework(shape: Shape, inputs: Inputs) -> list[Tensor]:
    padding = shape.dilation * (shape.kernel_size // 2)
    ys = [
        F.conv2d(x, w, None, shape.stride, padding, shape.dilation, groups=x.shape[1])
        for x, w in zip(inputs.xs, inputs.weights, strict=True)
    ]
    return norm_prelu(ys, inputs)


def _cost(shape: Shape) -> Cost:
    """Reads every branch once and writes it once: 2 k^2 + 3 operations an output."""
    read = sum(c * h * w for c, h, w in shape.branches)
    written = sum(c * shape.size_out(h) * shape.size_out(w) for c, h, w in shape.branches)
    taps = shape.kernel_size**2
    channels = sum(c for c, _, _ in shape.branches)
    return Cost(read + written, (taps + 3) * channels, (2 * taps + 3) * written)


DEPTHWISE_SCALES = OpSpec(
    name="depthwise_scales",
    shapes=SHAPES,
    sizes=lambda shape: list(shape.branches),
    weights=_weights,
    outputs=lambda shape: [c for c, _, _ in shape.branches],
    fused=_fused,
    framework=_framework,
    cost=_cost,
)
