"""`il_block` in the benchmark: for inference, the three layers of a block of CSNet."""

from __future__ import annotations

from torch import Tensor

import lmwp_ops
from lmwp_bench.ops import goctconv2d
from lmwp_bench.ops.goctconv2d import Shape
from lmwp_bench.ops.layers import norm_prelu
from lmwp_bench.ops.spec import Cost, Inputs, OpSpec

# All three layers share one scale, shift and slope per channel, which changes no work.
SHAPES = {
    "csnet-x1 stage 1": Shape((10, 10), (10, 10), 224),
    "csnet-x1 stage 2 entry": Shape((10, 10), (20, 20), 224, kernel_size=3, entry_pool=True),
    "csnet-x1 stage 3": Shape((40, 40), (40, 40), 56),
    "csnet-l-x2 stage 1": Shape((18, 11), (18, 12), 224),
    "csnet-l-x2 stage 4": Shape((31, 27), (26, 44), 28),
    "odd 7": Shape((7, 13), (13, 7), 14),
}


def _weights(shape: Shape) -> list[tuple[int, ...]]:
    depthwise = [(c, 1, 3, 3) for c in shape.out_channels if c]
    return [*goctconv2d.weights(shape), *depthwise, *depthwise]


def _depthwise(inputs: Inputs) -> list[list[Tensor]]:
    weights = inputs.weights[1:]
    half = len(weights) // 2
    return [weights[:half], weights[half:]]


def _fused(shape: Shape, inputs: Inputs) -> list[Tensor]:
    return lmwp_ops.il_block(
        inputs.xs,
        inputs.weights[0],
        shape.in_channels,
        shape.out_channels,
        _depthwise(inputs),
        entry_pool=shape.entry_pool,
        affine=[inputs.affine] * 3,
        slope=[inputs.slope] * 3,
    )


def _framework(shape: Shape, inputs: Inputs) -> list[Tensor]:
    ys = goctconv2d.framework(shape, inputs)
    for weights in _depthwise(inputs):
        ys = norm_prelu(lmwp_ops.depthwise_scales(ys, weights), inputs)
    return ys


def _cost(shape: Shape) -> Cost:
    """Of the octave convolution, and 21 operations a pixel in each depthwise layer."""
    first = goctconv2d.cost(shape)
    widths = shape.out_channels
    written = sum(c * (shape.entry_size >> b) ** 2 for b, c in enumerate(widths))
    taps = 2 * 9 * sum(widths)
    return Cost(first.elements, first.parameters + taps, first.operations + 2 * 21 * written)


IL_BLOCK = OpSpec(
    name="il_block",
    shapes=SHAPES,
    sizes=goctconv2d.sizes,
    weights=_weights,
    outputs=lambda shape: [c for c in shape.out_channels if c],
    fused=_fused,
    framework=_framework,
    cost=_cost,
    differentiable=False,
)
