"""`goctconv2d` in the benchmark."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

import lmwp_ops
from lmwp_bench.ops.layers import norm_prelu
from lmwp_bench.ops.spec import Cost, Inputs, OpSpec

# Per pixel: of an average pool's input, of a resized output (two products a direction).
_AVERAGE_OPERATIONS = 1
_BILINEAR_OPERATIONS = 6


@dataclass(frozen=True)
class Shape:
    """Widths of the branches in and out, the finest branch's size, and the kernel."""

    in_channels: tuple[int, ...]
    out_channels: tuple[int, ...]
    size: int
    kernel_size: int = 1
    entry_pool: bool = False

    @property
    def entry_size(self) -> int:
        """Side of the finest branch behind the entry pool."""
        return self.size // 2 if self.entry_pool else self.size


SHAPES = {
    "csnet-x1 stage 1": Shape((10, 10), (10, 10), 224),
    "csnet-x1 stage 2 entry": Shape((10, 10), (20, 20), 224, kernel_size=3, entry_pool=True),
    "csnet-x1 stage 3": Shape((40, 40), (40, 40), 56),
    "csnet-x1 stage 3 exit": Shape((40, 40), (80,), 56),
    "csnet-x1 fusion": Shape((40, 80, 80), (13, 26, 26), 112),
    "csnet-l-x2 stage 1": Shape((18, 11), (18, 12), 224),
    "csnet-l-x2 stage 4": Shape((31, 27), (26, 44), 28),
    "odd 33": Shape((33, 13), (13, 33), 66),
    "odd 7": Shape((7, 13), (13, 7), 14),
}


def sizes(shape: Shape) -> list[tuple[int, int, int]]:
    return [(c, shape.size >> b, shape.size >> b) for b, c in enumerate(shape.in_channels) if c]


def weights(shape: Shape) -> list[tuple[int, ...]]:
    k = shape.kernel_size
    return [(sum(shape.out_channels), sum(shape.in_channels), k, k)]


def _fused(shape: Shape, inputs: Inputs) -> list[Tensor]:
    return lmwp_ops.goctconv2d(
        inputs.xs,
        inputs.weights[0],
        shape.in_channels,
        shape.out_channels,
        entry_pool=shape.entry_pool,
        affine=inputs.affine,
        slope=inputs.slope,
    )


def framework(shape: Shape, inputs: Inputs) -> list[Tensor]:
    ys = lmwp_ops.goctconv2d(
        inputs.xs,
        inputs.weights[0],
        shape.in_channels,
        shape.out_channels,
        entry_pool=shape.entry_pool,
    )
    return norm_prelu(ys, inputs)


def cost(shape: Shape) -> Cost:
    """Reads every branch once, writes every branch once; each pair is computed at its coarser."""
    read = sum(c * h * w for c, h, w in sizes(shape))
    written = sum(c * (shape.entry_size >> j) ** 2 for j, c in enumerate(shape.out_channels))
    operations = 3 * written + (_AVERAGE_OPERATIONS * read if shape.entry_pool else 0)
    for i, width in enumerate(shape.in_channels):
        for j, out in enumerate(shape.out_channels):
            coarser = (shape.entry_size >> max(i, j)) ** 2
            operations += 2 * shape.kernel_size**2 * width * out * coarser
            if i < j:
                operations += width * (shape.entry_size >> i) ** 2  # comparisons of the pool
            elif i > j:
                operations += _BILINEAR_OPERATIONS * out * (shape.entry_size >> j) ** 2
    rows, columns, k, _ = weights(shape)[0]
    return Cost(read + written, rows * (columns * k * k + 3), operations)


GOCTCONV2D = OpSpec(
    name="goctconv2d",
    shapes=SHAPES,
    sizes=sizes,
    weights=weights,
    outputs=lambda shape: [c for c in shape.out_channels if c],
    fused=_fused,
    framework=framework,
    cost=cost,
)
