"""Triton kernels of the gradients of multi-scale convolutions but those of their inputs, which are
convolutions themselves.

Shapes: P pixels of a gradient, O of its channels, C channels of an input.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from lmwp_ops.ops.multiscale.reading_kernels import (
    Read,
    along_axis,
    image_at,
    item,
    pixels_of,
    plain_read,
    plane_at,
    tile_of,
    value_at,
    works_for,
)
from lmwp_ops.ops.multiscale.resize_kernels import scattered, share_of
from lmwp_ops.ops.sizes.triton_kernels import mine, plain

WEIGHT_CONFIGS = [
    {"OUT": 8, "IN": 8, "PIXELS": 128, "num_warps": 4},
    {"OUT": 8, "IN": 8, "PIXELS": 64, "num_warps": 2},
    {"OUT": 4, "IN": 8, "PIXELS": 256, "num_warps": 4},
    {"OUT": 8, "IN": 4, "PIXELS": 256, "num_warps": 4},
]
"""Candidates of `multiscale_weight_kernel`; the first is the default."""

GATHER_CONFIGS = [{"PIXELS": 256, "num_warps": 4}]
"""Of `multiscale_gather_kernel`."""


class BlockSizes(NamedTuple):
    """Of one block of a weight."""

    first: int  # program of the launch
    grad_blocks: int  # of channels
    x_blocks: int
    images: int
    offset: int
    rows: int
    columns: int
    weights: int  # in all
    dilation: int
    steps: int  # blocks of pixels for each program
    grad: Read
    x: Read


class GatherSizes(NamedTuple):
    """Of one gradient that is gathered."""

    first: int  # program of the launch
    images: int
    height: int
    width: int
    size: int  # most pixels to gather from along one axis
    grad: Read


@triton.jit
def _correlate(
    tensors, sizes, partial, MODE: tl.constexpr, K: tl.constexpr, ENTRY: tl.constexpr,
    WIDE: tl.constexpr, OUT: tl.constexpr, IN: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """One program's products of a gradient and an input, read in MODE, summed over its pixels."""
    t, s = mine(tensors, sizes)
    s = BlockSizes(*[plain(size) for size in s[:10]], plain_read(s.grad), plain_read(s.x))
    part = tl.program_id(0) - s.first
    tap = part % (K * K)
    part = part // (K * K)
    feature = part % s.grad_blocks * OUT + tl.arange(0, OUT)[:, None]  # [O, 1]
    part = part // s.grad_blocks
    channel = part % s.x_blocks * IN + tl.arange(0, IN)[:, None]  # [C, 1]
    split = part // s.x_blocks
    down = (tap // K - K // 2) * s.dilation
    right = (tap % K - K // 2) * s.dilation
    g, x = s.grad, s.x
    total = tl.zeros((OUT, IN, PIXELS), tl.float32)
    for step in range(s.steps):
        image, row, column, exists = pixels_of(
            split * s.steps + step, s.images, g.height, g.width, PIXELS, 1, WIDE
        )
        grads = value_at(
            plane_at(image_at(t.grad, image, g.strides, 1), feature, g.strides, 1),
            row, column, g.strides, exists & (feature < g.channels), False, 1, WIDE,
        )  # fmt: skip
        inputs = tile_of(
            plane_at(image_at(t.x, image, x.strides, 1), channel, x.strides, 1),
            along_axis(row, down, x.height, g.height, MODE, False),
            along_axis(column, right, x.width, g.width, MODE, False),
            x.strides, exists & (channel < x.channels), MODE, False, ENTRY, 1, WIDE,
        )  # fmt: skip
        total += grads.to(tl.float32)[:, None, :] * inputs.to(tl.float32)[None, :, :]
    at = partial + split.to(tl.int64) * s.weights + s.offset + tap
    at = at + feature * s.rows + channel.trans() * s.columns
    known = (feature < g.channels) & (channel < x.channels).trans()
    tl.store(at, tl.sum(total, axis=2), mask=known)


@triton.jit
def multiscale_weight_kernel(
    tensors,  # of the blocks of each kind, see triton_launch.BlockTensors
    sizes,  # BlockSizes of those, passed
    partial,  # [splits, weights]
    MODES: tl.constexpr,  # of the inputs of the blocks of each kind
    K: tl.constexpr,
    ENTRY: tl.constexpr,
    WIDE: tl.constexpr,
    OUT: tl.constexpr,
    IN: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Partial sums of the gradients of the weights."""
    for i in tl.static_range(len(MODES)):
        if works_for(sizes, i):
            _correlate(
                tensors[i], sizes[i], partial, item(MODES, i),
                K, ENTRY, WIDE, OUT, IN, PIXELS,
            )  # fmt: skip


@triton.jit
def multiscale_gather_kernel(
    tensors,  # of each gradient, see triton_launch.GatherTensors
    sizes,  # GatherSizes of those, passed
    WIDE: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Gradients of what a bilinear resize was applied to: every pixel gathers its shares."""
    t, s = mine(tensors, sizes)
    s = GatherSizes(*[plain(size) for size in s[:5]], plain_read(s.grad))
    g = s.grad
    plane, row, column, exists = pixels_of(
        tl.program_id(0) - s.first, s.images * g.channels, s.height, s.width, PIXELS, 1, WIDE
    )  # [1, P]
    images = image_at(t.grad, plane // g.channels, g.strides, 1)
    source = plane_at(images, plane % g.channels, g.strides, 1)
    top = scattered(row, s.height, g.height)
    left = scattered(column, s.width, g.width)
    total = tl.zeros((1, PIXELS), tl.float32)
    for i in range(s.size):
        row_share = share_of(top + i, row, s.height, g.height)
        for j in range(s.size):
            share = row_share * share_of(left + j, column, s.width, g.width)
            value = value_at(
                source, top + i, left + j, g.strides, exists & (share > 0), False, 1, WIDE
            )
            total += share * value.to(tl.float32)
    to = plane.to(tl.int64) * s.height * s.width + row * s.width + column
    tl.store(t.result + to, total, mask=exists)
