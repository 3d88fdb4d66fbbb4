"""`mwpm_block` in the benchmark: for inference, the blocks of LMWP-Net."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import lmwp_ops
from lmwp_bench.ops.multiscale_mix import BRANCHES
from lmwp_bench.ops.spec import Cost, Inputs, OpSpec


@dataclass(frozen=True)
class Shape:
    """A feature; inside, a block is twice as wide."""

    channels: int
    side: int

    @property
    def width(self) -> int:
        return 2 * self.channels

    @property
    def hidden(self) -> int:
        return max(8, self.width // 4)


SHAPES = {
    "lmwpnet stage 1": Shape(16, 168),
    "lmwpnet stage 2": Shape(32, 84),
    "lmwpnet stage 3": Shape(64, 42),
    "lmwpnet stage 4": Shape(128, 21),
    "lmwpnet stage 5": Shape(320, 11),
    "odd 7x13x13": Shape(7, 13),
}


def _weights(shape: Shape) -> list[tuple[int, ...]]:
    """Of both layers, of the gate's two and of the branches."""
    c, m, h, k = shape.channels, shape.width, shape.hidden, len(BRANCHES)
    return [(m, c, 1, 1), (c, m, 1, 1), (h, m), (k * m, h), (k, m, 3, 3)]


def _threshold(u: Tensor) -> Tensor:
    return u.new_full((u.shape[0],), 0.5 / len(BRANCHES))


def _fused(shape: Shape, inputs: Inputs) -> list[Tensor]:
    expand, project, reduce, grow, depthwise = inputs.weights
    (scale, wide_scale), (shift, wide_shift) = inputs.scale, inputs.shift
    slope, wide_slope = inputs.slope
    h, k = shape.hidden, len(BRANCHES)
    gate = [reduce, wide_shift[:h], wide_slope[:h], grow, wide_shift.repeat(k), _threshold(expand)]
    table = (k, shape.width)
    return [
        lmwp_ops.mwpm_block(
            inputs.xs[0],
            [expand, wide_scale, wide_shift, wide_slope],
            gate,
            [depthwise, wide_scale.expand(table), wide_shift.expand(table)],
            [project, scale, shift, slope],
            BRANCHES,
        )
    ]


def _norm(y: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return y * scale[:, None, None] + shift[:, None, None]


def _framework(shape: Shape, inputs: Inputs) -> list[Tensor]:
    (x,), (expand, project, reduce, grow, depthwise) = inputs.xs, inputs.weights
    (scale, wide_scale), (shift, wide_shift) = inputs.scale, inputs.shift
    slope, wide_slope = inputs.slope
    h, k = shape.hidden, len(BRANCHES)
    u = F.prelu(_norm(F.conv2d(x, expand), wide_scale, wide_shift), wide_slope)
    hidden = F.prelu(F.linear(u.mean((2, 3)), reduce, wide_shift[:h]), wide_slope[:h])
    logits = F.linear(hidden, grow, wide_shift.repeat(k)).unflatten(1, (k, shape.width))
    kept = (logits.softmax(1) - _threshold(expand)).relu()
    mix = (kept / kept.sum(1, keepdim=True))[:, :, :, None, None]
    mixed = torch.zeros_like(u)
    for b, (octave, dilation) in enumerate(BRANCHES):
        pooled = F.avg_pool2d(u, 2**octave, ceil_mode=True) if octave else u
        weight, groups = depthwise[b][:, None], shape.width
        y = F.conv2d(pooled, weight, padding=dilation, dilation=dilation, groups=groups)
        y = _norm(y, wide_scale, wide_shift)
        if octave:
            y = F.interpolate(y, size=u.shape[2:], mode="bilinear", align_corners=False)
        mixed = mixed + mix[:, b] * y
    return [F.prelu(x + _norm(F.conv2d(mixed, project), scale, shift), slope)]


def _cost(shape: Shape) -> Cost:
    """Reads x and writes the result; operations as the op's README counts them."""
    c, m, h, k = shape.channels, shape.width, shape.hidden, len(BRANCHES)
    pixels = shape.side**2
    operations = 2 * (2 * c * m * pixels + m * h * (1 + k)) + 5 * (c + m) * pixels
    for octave, _ in BRANCHES:
        operations += (
            20 * m * (-(-shape.side // 2**octave)) ** 2 + (10 if octave else 2) * m * pixels
        )
    parameters = 2 * c * m + m * h * (1 + k) + 9 * k * m + 3 * (c + m)
    return Cost(2 * c * pixels, parameters, operations)


MWPM_BLOCK = OpSpec(
    name="mwpm_block",
    shapes=SHAPES,
    sizes=lambda shape: [(shape.channels, shape.side, shape.side)],
    weights=_weights,
    outputs=lambda shape: [shape.channels],
    fused=_fused,
    framework=_framework,
    cost=_cost,
    differentiable=False,
    inner=lambda shape: [shape.width],
)
