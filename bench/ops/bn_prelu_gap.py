"""`bn_prelu_gap` in the benchmark, against batch norm and PReLU that compute no channel means."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

import lmwp_ops
from lmwp_bench.ops.spec import Cost, Inputs, OpSpec


@dataclass(frozen=True)
class Shape:
    """Branches (channels, height, width)."""

    branches: tuple[tuple[int, int, int], ...]


SHAPES = {
    "two scales 10x224x224": Shape(((10, 224, 224), (10, 112, 112))),
    "two scales 40x56x56": Shape(((40, 56, 56), (40, 28, 28))),
    "single 20x224x224": Shape(((20, 224, 224),)),
    "single 40x112x112": Shape(((40, 112, 112),)),
    "single 80x56x56": Shape(((80, 56, 56),)),
    "odd 7x7x7": Shape(((7, 7, 7),)),
    "odd 33x13x13": Shape(((33, 13, 13),)),
}


def _fused(shape: Shape, inputs: Inputs) -> list[Tensor]:
    return lmwp_ops.bn_prelu_gap(inputs.xs, inputs.scale, inputs.shift, inputs.slope)[0]


def _framework(shape: Shape, inputs: Inputs) -> list[Tensor]:
    return [
        F.prelu(F.batch_norm(x, None, None, scale, shift, training=True), slope)
        for x, (scale, shift), slope in zip(inputs.xs, inputs.affine, inputs.slope, strict=True)
    ]


def _cost(shape: Shape) -> Cost:
    """Reads every branch once and writes it once, 10 operations an element."""
    elements = sum(c * h * w for c, h, w in shape.branches)
    return Cost(2 * elements, 3 * sum(c for c, _, _ in shape.branches), 10 * elements)


BN_PRELU_GAP = OpSpec(
    name="bn_prelu_gap",
    shapes=SHAPES,
    sizes=lambda shape: list(shape.branches),
    weights=lambda shape: [],
    outputs=lambda shape: [c for c, _, _ in shape.branches],
    fused=_fused,
    framework=_framework,
    cost=_cost,
)
