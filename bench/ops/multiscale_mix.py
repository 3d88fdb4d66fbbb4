"""`multiscale_mix` and `multiscale_norm_mix` in the benchmark, at the sizes of LMWP-Net."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

import lmwp_ops
from lmwp_bench.ops.spec import Cost, Inputs, OpSpec

BRANCHES = ((0, 1), (0, 2), (1, 1), (2, 1))


@dataclass(frozen=True)
class Shape:
    channels: int
    side: int


SHAPES = {
    "mwpm 32x168x168": Shape(32, 168),
    "mwpm 64x84x84": Shape(64, 84),
    "mwpm 128x42x42": Shape(128, 42),
    "mwpm 256x21x21": Shape(256, 21),
    "mwpm 640x11x11": Shape(640, 11),
    "odd 7x13x13": Shape(7, 13),
}


def _arguments(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
    """u, weights, mix and affine; what is drawn for each channel serves every branch."""
    (u,), (weights,) = inputs.xs, inputs.weights
    table = weights.shape[:2]
    wide = torch.promote_types(u.dtype, torch.float32)
    mix = inputs.slope[0].to(wide).expand(u.shape[0], *table)
    return u, weights, mix, (inputs.scale[0].expand(table), inputs.shift[0].expand(table))


def _fused(shape: Shape, inputs: Inputs) -> list[Tensor]:
    u, weights, mix, affine = _arguments(inputs)
    return [lmwp_ops.multiscale_mix(u, weights, mix, BRANCHES, affine)]


def _fused_norm(shape: Shape, inputs: Inputs) -> list[Tensor]:
    u, weights, mix, affine = _arguments(inputs)
    return [lmwp_ops.multiscale_norm_mix(u, weights, mix, *affine, BRANCHES)[0]]


def _sum_of_branches(inputs: Inputs, *, norm: bool) -> list[Tensor]:
    u, weights, mix, (scale, shift) = _arguments(inputs)
    out = torch.zeros_like(u)
    for k, (octave, dilation) in enumerate(BRANCHES):
        pooled = F.avg_pool2d(u, 2**octave, ceil_mode=True) if octave else u
        kernel, groups = weights[k][:, None], u.shape[1]
        y = F.conv2d(pooled, kernel, padding=dilation, dilation=dilation, groups=groups)
        if norm:
            y = F.batch_norm(y, None, None, scale[k], shift[k], training=True)
        else:
            y = y * scale[k][:, None, None] + shift[k][:, None, None]
        if octave:
            y = F.interpolate(y, size=u.shape[2:], mode="bilinear", align_corners=False)
        out = out + mix[:, k, :, None, None].to(u.dtype) * y
    return [out]


def _framework(shape: Shape, inputs: Inputs) -> list[Tensor]:
    return _sum_of_branches(inputs, norm=False)


def _framework_norm(shape: Shape, inputs: Inputs) -> list[Tensor]:
    return _sum_of_branches(inputs, norm=True)


def _cost(shape: Shape) -> Cost:
    """Reads u and writes the sum; operations as the op's README counts them."""
    pixels = shape.channels * shape.side**2
    operations = 0
    for octave, _ in BRANCHES:
        operations += 20 * _of_branch(shape, octave) + (10 if octave else 2) * pixels
    parameters = (9 * len(BRANCHES) + 3) * shape.channels
    return Cost(2 * pixels, parameters, operations)


def _of_branch(shape: Shape, octave: int) -> int:
    """Pixels of all channels at an octave."""
    return shape.channels * ceil(shape.side / 2**octave) ** 2


def _cost_of_norm(shape: Shape) -> Cost:
    """As without the norm where a channel stays in cache; its convolutions are done twice."""
    cost = _cost(shape)
    again = sum(20 * _of_branch(shape, octave) for octave, _ in BRANCHES)
    return Cost(cost.elements, cost.parameters, cost.operations + again)


MULTISCALE_MIX = OpSpec(
    name="multiscale_mix",
    shapes=SHAPES,
    sizes=lambda shape: [(shape.channels, shape.side, shape.side)],
    weights=lambda shape: [(len(BRANCHES), shape.channels, 3, 3)],
    outputs=lambda shape: [shape.channels],
    fused=_fused,
    framework=_framework,
    cost=_cost,
)
MULTISCALE_NORM_MIX = OpSpec(
    name="multiscale_norm_mix",
    shapes=SHAPES,
    sizes=lambda shape: [(shape.channels, shape.side, shape.side)],
    weights=lambda shape: [(len(BRANCHES), shape.channels, 3, 3)],
    outputs=lambda shape: [shape.channels],
    fused=_fused_norm,
    framework=_framework_norm,
    cost=_cost_of_norm,
)
