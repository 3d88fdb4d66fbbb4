"""`dilated_bank` in the benchmark."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

import lmwp_ops
from lmwp_bench.ops.layers import norm_prelu
from lmwp_bench.ops.spec import Cost, Inputs, OpSpec

DILATIONS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Shape:
    """(channels, side) of every scale, and its output channels at each dilation."""

    scales: tuple[tuple[int, int], ...]
    out_channels: tuple[tuple[int, ...], ...]


SHAPES = {
    "csnet-x1 fusion": Shape(
        ((13, 112), (26, 56), (26, 28)), ((2, 2, 2, 2, 5), (5, 5, 5, 5, 6), (5, 5, 5, 5, 6))
    ),
    "csnet-l-x2 fusion": Shape(
        ((17, 112), (38, 56), (32, 28)), ((2, 1, 2, 2, 1), (0, 6, 6, 7, 5), (0, 1, 3, 7, 7))
    ),
    "odd 33": Shape(((13, 33),), ((3, 3, 3, 3, 1),)),
}


def _weights(shape: Shape) -> list[tuple[int, ...]]:
    return [
        (out, width, 3, 3)
        for (width, _), row in zip(shape.scales, shape.out_channels, strict=True)
        for out in row
        if out
    ]


def _rows(shape: Shape, inputs: Inputs) -> list[list[Tensor | None]]:
    flat = iter(inputs.weights)
    return [[next(flat) if out else None for out in row] for row in shape.out_channels]


def _fused(shape: Shape, inputs: Inputs) -> list[Tensor]:
    rows = _rows(shape, inputs)
    return lmwp_ops.dilated_bank(
        inputs.xs, rows, DILATIONS, affine=inputs.affine, slope=inputs.slope
    )


def _framework(shape: Shape, inputs: Inputs) -> list[Tensor]:
    return norm_prelu(lmwp_ops.dilated_bank(inputs.xs, _rows(shape, inputs), DILATIONS), inputs)


def _cost(shape: Shape) -> Cost:
    """Reads and writes every scale once: 18 C operations an output, and the epilogue's three."""
    read = written = operations = parameters = 0
    for (width, side), row in zip(shape.scales, shape.out_channels, strict=True):
        outputs = sum(row) * side**2
        read += width * side**2
        written += outputs
        operations += (18 * width + 3) * outputs
        parameters += (9 * width + 3) * sum(row)
    return Cost(read + written, parameters, operations)


DILATED_BANK = OpSpec(
    name="dilated_bank",
    shapes=SHAPES,
    sizes=lambda shape: [(width, side, side) for width, side in shape.scales],
    weights=_weights,
    outputs=lambda shape: [sum(row) for row in shape.out_channels if any(row)],
    fused=_fused,
    framework=_framework,
    cost=_cost,
)
