"""`stem_conv2d` in the benchmark: for inference, the first convolutions of the networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

import lmwp_ops
from lmwp_bench.ops.spec import Cost, Inputs, OpSpec

STRIDE = 2


@dataclass(frozen=True)
class Shape:
    """Channels in and out, the side of the kernel and that of the input."""

    inputs: int
    channels: int
    kernel: int
    side: int

    @property
    def out_side(self) -> int:
        return (self.side - 1) // STRIDE + 1


SHAPES = {
    "lmwpnet 336": Shape(3, 16, 3, 336),
    "csnet 224": Shape(3, 20, 3, 224),
    "odd 5x13x13": Shape(5, 7, 5, 13),
}


def _fused(shape: Shape, inputs: Inputs) -> list[Tensor]:
    (x,), (weight,) = inputs.xs, inputs.weights
    (scale,), (shift,), (slope,) = inputs.scale, inputs.shift, inputs.slope
    return [lmwp_ops.stem_conv2d(x, weight, stride=STRIDE, affine=(scale, shift), slope=slope)]


def _framework(shape: Shape, inputs: Inputs) -> list[Tensor]:
    (x,), (weight,) = inputs.xs, inputs.weights
    (scale,), (shift,), (slope,) = inputs.scale, inputs.shift, inputs.slope
    z = F.conv2d(x, weight, stride=STRIDE, padding=shape.kernel // 2)
    return [F.prelu(z * scale[:, None, None] + shift[:, None, None], slope)]


def _cost(shape: Shape) -> Cost:
    """Reads the feature and writes the result; operations as the op's README counts them."""
    pixels, taps = shape.out_side**2, shape.inputs * shape.kernel**2
    elements = shape.inputs * shape.side**2 + shape.channels * pixels
    operations = (2 * taps + 4) * shape.channels * pixels
    return Cost(elements, shape.channels * (taps + 3), operations)


STEM_CONV2D = OpSpec(
    name="stem_conv2d",
    shapes=SHAPES,
    sizes=lambda shape: [(shape.inputs, shape.side, shape.side)],
    weights=lambda shape: [(shape.channels, shape.inputs, shape.kernel, shape.kernel)],
    outputs=lambda shape: [shape.channels],
    fused=_fused,
    framework=_framework,
    cost=_cost,
    differentiable=False,
)
