"""Triton kernel of the kept values' gradient of `sparse_conv2d`; shapes as in `triton_kernels`."""

from typing import NamedTuple

import triton
import triton.language as tl

from lmwp_ops.ops.sizes.triton_kernels import plain
from lmwp_ops.ops.sparse_conv2d.triton_kernels import (
    Sizes,
    channels_of,
    columns_of,
    pixels_of,
    plain_sizes,
    plane_at,
    read,
    segment_of,
    value_at,
)

SINGLE_CONFIGS = [
    {"ENTRIES": 8, "PIXELS": 512, "num_warps": 4},
    {"ENTRIES": 8, "PIXELS": 256, "num_warps": 2},
    {"ENTRIES": 4, "PIXELS": 1024, "num_warps": 4},
]
SCATTERED_CONFIGS = [
    {"ENTRIES": 8, "PIXELS": 256, "num_warps": 4},
    {"ENTRIES": 4, "PIXELS": 256, "num_warps": 4},
    {"ENTRIES": 4, "PIXELS": 512, "num_warps": 4},
]
NARROW_CONFIGS = [
    {"OUT": 32, "ENTRIES": 32, "PIXELS": 32, "num_warps": 4},
    {"OUT": 32, "ENTRIES": 16, "PIXELS": 64, "num_warps": 4},
    {"OUT": 64, "ENTRIES": 32, "PIXELS": 64, "num_warps": 8},
]
WIDE_CONFIGS = [
    {"OUT": 16, "ENTRIES": 32, "PIXELS": 32, "num_warps": 4},
    {"OUT": 16, "ENTRIES": 16, "PIXELS": 32, "num_warps": 2},
]
"""Candidates as in `triton_kernels`, the second of each for few pixels."""


class SumSizes(NamedTuple):
    """How sums over pixels are divided among programs."""

    conv: Sizes
    images: int
    parts: int  # of the entries of a block
    split_tiles: int  # of pixels in what a program adds up
    count: int  # of values


@triton.jit
def _add_pixels(total, x, grad, NARROW: tl.constexpr):
    """total + x [E, P] x grad [O, P] summed over pixels, or before that where O is 1."""
    if grad.shape[0] == 1:
        total += x.to(tl.float32) * grad.to(tl.float32)
    elif NARROW:
        total = tl.dot(x, grad.trans(), total, input_precision="ieee")
    else:
        wide = grad.to(tl.float32).trans()
        total = tl.dot(x.to(tl.float32), wide, total, input_precision="ieee")
    return total


@triton.jit
def sparse_conv2d_bwd_weight_kernel(
    x,
    grad,
    index,
    offsets,
    listed,
    partial,  # gradients of the values, of each split of pixels
    sizes,  # SumSizes, passed
    LISTED: tl.constexpr,
    NARROW: tl.constexpr,
    FLAT: tl.constexpr,
    STRIDE: tl.constexpr,
    KERNEL: tl.constexpr,
    COLUMNS: tl.constexpr,
    FILLED: tl.constexpr,
    VECTOR: tl.constexpr,
    OUT: tl.constexpr,
    ENTRIES: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Sums over some pixels for some entries of a block of channels in a slab."""
    s = plain_sizes(sizes.conv, VECTOR)
    parts = plain(sizes.parts)
    segment = tl.program_id(0) // parts % (s.slabs * s.blocks)
    split = tl.program_id(0) // parts // (s.slabs * s.blocks)
    block = segment % s.blocks
    channel, exists = channels_of(listed, block, s, LISTED, OUT, FILLED)
    input = block * FILLED // s.group_channels * s.group_inputs
    begin, end = segment_of(offsets, block, segment // s.blocks, s, LISTED)
    first_tile = split * plain(sizes.split_tiles)
    last_tile = tl.minimum(first_tile + plain(sizes.split_tiles), plain(sizes.images) * s.tiles)
    partial += split.to(tl.int64) * plain(sizes.count)
    first_entry = begin * COLUMNS[0] + tl.program_id(0) % parts * ENTRIES
    for first in range(first_entry, end * COLUMNS[0], parts * ENTRIES):
        entry = first + tl.arange(0, ENTRIES)[:, None]
        feature, tap, known = columns_of(entry, end, index, input, s, KERNEL, COLUMNS)
        total = tl.zeros((ENTRIES, PIXELS if OUT == 1 else OUT), tl.float32)
        for tile in range(first_tile, last_tile):
            image = tile // s.tiles
            pixel = pixels_of(tile % s.tiles, s, PIXELS)
            value = read(x, image, feature, tap, known, pixel, s, STRIDE, KERNEL, FLAT, False)
            at = plane_at(grad, s.result, image, channel) + pixel
            slope = tl.load(at, mask=exists & (pixel < s.pixels), other=0.0)
            total = _add_pixels(total, value, slope, NARROW)
        if OUT == 1:
            total = tl.sum(total, 1, keep_dims=True)
        within = tl.arange(0, OUT)[None, :]
        there = (entry < end * COLUMNS[0]) & (within < FILLED)
        if LISTED:
            there = there & (block * FILLED + within < s.kept)
        tl.store(value_at(partial, entry, within, block, s, COLUMNS), total, mask=there)
