"""`sparse_conv2d` in the benchmark, against the dense convolution by the same pruned weight."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

import lmwp_ops
from lmwp_bench.ops.spec import Cost, Inputs, OpSpec
from lmwp_ops import SparseConvWeight


@dataclass(frozen=True)
class Shape:
    """As many channels in as out, on square maps, with a share of the weight kept at random."""

    channels: int
    side: int
    format: str
    density: float
    block: tuple[int, int] = (1, 1)
    kernel_size: int = 1
    depthwise: bool = False

    @property
    def groups(self) -> int:
        return self.channels if self.depthwise else 1

    @property
    def weight(self) -> tuple[int, int, int, int]:
        return self.channels, self.channels // self.groups, self.kernel_size, self.kernel_size


MAPS = ((64, 112), (64, 56), (128, 28), (256, 28), (640, 11))
DENSITIES = (0.7, 0.5, 0.3, 0.2, 0.1)


def _shapes() -> dict[str, Shape]:
    """Named after what is kept in %, so that the report draws a curve through the break-even."""
    shapes = {}
    for channels, side in MAPS:
        name = f"{channels}x{side}x{side}"
        for density in DENSITIES:
            shape = Shape(channels, side, "unstructured", density)
            shapes[f"{name} unstructured {density:.0%}"] = shape
        for block in ((4, 1), (16, 1), (16, 16)):
            blocks = "{}x{}".format(*block)
            shapes[f"{name} block {blocks} 20%"] = Shape(channels, side, "block", 0.2, block)
        shapes[f"{name} channels 25%"] = Shape(channels, side, "channels", 0.25)
    for channels, side in ((16, 168), (40, 112), (160, 28)):
        shape = Shape(channels, side, "taps", 5 / 9, kernel_size=3, depthwise=True)
        shapes[f"depthwise {channels}x{side}x{side} taps 56%"] = shape
    shapes["dense 3x3 32x56x56 taps 20%"] = Shape(32, 56, "taps", 0.2, kernel_size=3)
    shapes["odd 13x7x7 unstructured 20%"] = Shape(13, 7, "unstructured", 0.2)
    return shapes


SHAPES = _shapes()


@functools.cache
def packed(shape: Shape) -> SparseConvWeight:
    """A weight of ones, with the places that every run of the shape keeps."""
    generator = torch.Generator().manual_seed(0)

    def kept(density: float, *sizes: int) -> Tensor:
        return torch.rand(sizes, generator=generator) < density

    out, into, k, _ = shape.weight
    if shape.format == "channels":
        half = shape.density**0.5
        mask = (kept(half, out, 1, 1, 1) & kept(half, 1, into, 1, 1)).expand(shape.weight)
    else:
        rows, columns = shape.block
        blocks = kept(shape.density, -(-out // rows), into * k * k // columns)
        matrix = blocks.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
        mask = matrix[:out].reshape(shape.weight)
    block = shape.block if shape.format == "block" else None
    return SparseConvWeight.from_dense(
        torch.ones(shape.weight), mask, shape.format, block=block, groups=shape.groups
    )


@functools.cache
def packed_on(shape: Shape, device: torch.device) -> SparseConvWeight:
    """The same on a device."""
    weight = packed(shape)
    indices = tuple(index.to(device) for index in weight.indices)
    return replace(weight, values=weight.values.to(device), indices=indices)


class SparseSpec(OpSpec[Shape]):
    """Its weights are the kept values, and the dense weight that they stand for."""

    def params(self, shape: Shape) -> dict[str, int]:
        """How much is kept, in %."""
        return {"kept": round(100 * shape.density)}

    def inputs(
        self, shape: Shape, batch: int, dtype: torch.dtype, device: torch.device, seed: int
    ) -> Inputs:
        drawn = super().inputs(shape, batch, dtype, device, seed)
        dense = replace(packed_on(shape, device), values=drawn.weights[0]).to_dense()
        return replace(drawn, weights=[drawn.weights[0], dense])


def _fused(shape: Shape, inputs: Inputs) -> list[Tensor]:
    weight = replace(packed_on(shape, inputs.xs[0].device), values=inputs.weights[0])
    return [lmwp_ops.sparse_conv2d(inputs.xs[0], weight, padding=shape.kernel_size // 2)]


def _framework(shape: Shape, inputs: Inputs) -> list[Tensor]:
    padding = shape.kernel_size // 2
    return [F.conv2d(inputs.xs[0], inputs.weights[1], padding=padding, groups=shape.groups)]


def _cost(shape: Shape) -> Cost:
    """Reads the channels that are used and writes all: 2 operations a kept value and pixel."""
    weight = packed(shape)
    pixels = shape.side**2
    used = len(weight.indices[1]) if shape.format == "channels" else shape.channels
    kept = weight.values.numel()
    return Cost((used + shape.channels) * pixels, kept, 2 * kept * pixels)


SPARSE_CONV2D = SparseSpec(
    name="sparse_conv2d",
    shapes=SHAPES,
    sizes=lambda shape: [(shape.channels, shape.side, shape.side)],
    weights=lambda shape: [tuple(packed(shape).values.shape)],
    outputs=lambda shape: [shape.channels],
    fused=_fused,
    framework=_framework,
    cost=_cost,
    differentiable=False,
    epilogue=False,
)
