"""`bn_prelu_gap` in the benchmark."""

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
    "stage 1": Shape(((10, 224, 224), (10, 112, 112))),
    "stage 3": Shape(((40, 56, 56), (40, 28, 28))),
    "single 20x224x224": Shape(((20, 224, 224),)),
    "single 40x112x112": Shape(((40, 112, 112),)),
    "single 80x56x56": Shape(((80, 56, 56),)),
    "odd 7x7x7": Shape(((7, 7, 7),)),
    "odd 33x13x13": Shape(((33, 13, 13),)),
}


def _fused(shape: Shape, inputs: Inputs) -> list[Tensor]:
    ys, means, _, _ = lmwp_ops.bn_prelu_gap(inputs.xs, inputs.scale, inputs.shift, inputs.slope)
    return ys


def _framework(shape: Shape, inputs: Inputs) -> list[Tensor]:
    return [
        F.prelu(F.batch_norm(x, None, None, scale, shift, training=True), slope)
        for x, (scale, shift), slope in zip(inputs.xs, inputs.affine, inputs.slope, strict=True)
    ]
