"""`channel_spatial_attention` in the benchmark, against what frameworks have for its parts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import lmwp_ops
from lmwp_bench.ops.spec import Cost, Inputs, OpSpec

REDUCTION = 16


@dataclass(frozen=True)
class Shape:
    """A feature, and the sizes of its spatial gate's kernels."""

    channels: int
    side: int
    kernels: tuple[int, ...] = (3, 5, 7)

    @property
    def hidden(self) -> int:
        return max(1, self.channels // REDUCTION)


SHAPES = {
    "single 16x168x168": Shape(16, 168),
    "single 40x56x56": Shape(40, 56),
    "single 40x56x56 k7": Shape(40, 56, (7,)),
    "single 80x28x28": Shape(80, 28),
    "single 320x11x11": Shape(320, 11),
    "odd 7x7x7": Shape(7, 7),
    "odd 33x13x13": Shape(33, 13),
}


def _weights(shape: Shape) -> list[tuple[int, ...]]:
    layers = [(shape.hidden, shape.channels), (shape.channels, shape.hidden)]
    return [*layers, *((2, k, k) for k in shape.kernels)]


def _fused(shape: Shape, inputs: Inputs) -> list[Tensor]:
    reduce, expand, *kernels = inputs.weights
    return [lmwp_ops.channel_spatial_attention(inputs.xs[0], reduce, expand, kernels)]


def _framework(shape: Shape, inputs: Inputs) -> list[Tensor]:
    (x,), (reduce, expand, *kernels) = inputs.xs, inputs.weights
    pools = F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)
    logits = [F.linear(F.linear(v.flatten(1), reduce).relu(), expand) for v in pools]
    e = x * torch.sigmoid(logits[0] + logits[1])[:, :, None, None]
    q = torch.cat([e.mean(1, keepdim=True), e.max(1, keepdim=True).values], 1)
    sums = [F.conv2d(q, kernel[None], padding=kernel.shape[-1] // 2) for kernel in kernels]
    return [e * torch.sigmoid(sum(sums[1:], start=sums[0]))]


def _cost(shape: Shape) -> Cost:
    """Reads the feature once and writes it once, 6 operations an element besides the gates'."""
    pixels = shape.side**2
    elements, layer = shape.channels * pixels, shape.channels * shape.hidden
    taps = sum(2 * k * k for k in shape.kernels)
    operations = 6 * elements + 2 * taps * pixels + 8 * layer
    return Cost(2 * elements, 2 * layer + taps, operations)


CHANNEL_SPATIAL_ATTENTION = OpSpec(
    name="channel_spatial_attention",
    shapes=SHAPES,
    sizes=lambda shape: [(shape.channels, shape.side, shape.side)],
    weights=_weights,
    outputs=lambda shape: [shape.channels],
    fused=_fused,
    framework=_framework,
    cost=_cost,
    epilogue=False,
)
