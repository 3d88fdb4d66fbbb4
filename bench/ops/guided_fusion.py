"""`guided_fusion` in the benchmark: for inference, the fusions of LMWP-Net."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import lmwp_ops
from lmwp_bench.ops.spec import Cost, Inputs, OpSpec

DILATIONS = (1, 2)


@dataclass(frozen=True)
class Shape:
    """Channels of the encoder, of the decoder feature and of the result; two sides."""

    encoder: int
    decoder: int
    channels: int
    side: int
    low: int


SHAPES = {
    "lmwpnet stride 16": Shape(128, 320, 104, 21, 11),
    "lmwpnet stride 8": Shape(64, 104, 64, 42, 21),
    "lmwpnet stride 4": Shape(32, 64, 32, 84, 42),
    "lmwpnet stride 2": Shape(16, 32, 16, 168, 84),
    "odd 7x13x13": Shape(7, 5, 7, 13, 7),
}


def _weights(shape: Shape) -> list[tuple[int, ...]]:
    c, k = shape.channels, len(DILATIONS)
    layers = [(c, shape.encoder, 1, 1), (c, shape.decoder, 1, 1), (1, shape.decoder, 1, 1)]
    return [*layers, (k, c, 3, 3), (c, c, 1, 1)]


def _gate(inputs: Inputs) -> Tensor:
    return inputs.slope[0].expand(inputs.xs[0].shape[0], -1)


def _fused(shape: Shape, inputs: Inputs) -> list[Tensor]:
    encoder, decoder = inputs.xs
    encode, decode, guide, depthwise, fuse = inputs.weights
    (scale,), (shift,), (slope,) = inputs.scale, inputs.shift, inputs.slope
    table = depthwise.shape[:2]
    return [
        lmwp_ops.guided_fusion(
            encoder,
            decoder,
            _gate(inputs),
            [encode, scale, shift],
            [decode, scale, shift],
            [guide, shift[:1]],
            [depthwise, scale.expand(table), shift.expand(table)],
            [fuse, scale, shift, slope],
            DILATIONS,
        )
    ]


def _framework(shape: Shape, inputs: Inputs) -> list[Tensor]:
    encode, decode, guide, depthwise, fuse = inputs.weights
    (scale,), (shift,), (slope,) = inputs.scale, inputs.shift, inputs.slope
    encoder, decoder = inputs.xs

    def norm(y: Tensor) -> Tensor:
        return y * scale[:, None, None] + shift[:, None, None]

    def up(x: Tensor) -> Tensor:
        return F.interpolate(x, size=encoder.shape[2:], mode="bilinear", align_corners=False)

    where = up(torch.sigmoid(F.conv2d(decoder, guide, shift[:1])))
    f = norm(F.conv2d(encoder, encode)) * (1 + where)
    f = f + up(norm(F.conv2d(decoder, decode))) * _gate(inputs)[:, :, None, None]
    total = f
    for weight, d in zip(depthwise, DILATIONS, strict=True):
        z = F.conv2d(f, weight[:, None], padding=d, dilation=d, groups=shape.channels)
        total = total + norm(z)
    return [F.prelu(norm(F.conv2d(total, fuse)), slope)]


def _cost(shape: Shape) -> Cost:
    """Reads both features and writes the result; operations as the op's README counts them."""
    c, k = shape.channels, len(DILATIONS)
    pixels, low = shape.side**2, shape.low**2
    elements = (shape.encoder + c) * pixels + shape.decoder * low
    macs = (shape.encoder + c + 9 * k) * c * pixels + shape.decoder * (c + 1) * low
    operations = 2 * macs + (10 + 2 * k) * c * pixels + 2 * c * low
    parameters = (shape.encoder + shape.decoder + c + 9 * k) * c + shape.decoder + 3 * c
    return Cost(elements, parameters, operations)


GUIDED_FUSION = OpSpec(
    name="guided_fusion",
    shapes=SHAPES,
    sizes=lambda shape: [
        (shape.encoder, shape.side, shape.side),
        (shape.decoder, shape.low, shape.low),
    ],
    weights=_weights,
    outputs=lambda shape: [shape.channels],
    fused=_fused,
    framework=_framework,
    cost=_cost,
    differentiable=False,
)
