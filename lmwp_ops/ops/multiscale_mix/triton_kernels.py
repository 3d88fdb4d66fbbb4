"""Triton kernels of the multi-scale mixes that walk whole maps; the README tells how they work.

A level is a scale of the feature: level o is 2^o times smaller. A program has P pixels of one
plane, a channel of an image, so that its shares are scalars and what has none is jumped over.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from lmwp_ops.ops.multiscale.resize_kernels import interpolated
from lmwp_ops.ops.sizes.triton_kernels import mine, plain

CONFIGS = [
    {"PIXELS": 256, "num_warps": 4},
    {"PIXELS": 512, "num_warps": 4},
    {"PIXELS": 128, "num_warps": 2},
    {"PIXELS": 1024, "num_warps": 8},
]
"""Pixels of a program; the first is the default."""

TAPS = tl.constexpr(9)
_FAR = tl.constexpr(-(2**30))


class Steps(NamedTuple):
    """From one image and one channel of a feature to the next."""

    image: int
    channel: int


class Map(NamedTuple):
    """Extents of a feature, and its steps."""

    height: int
    width: int
    pixels: int
    steps: Steps


class Level(NamedTuple):
    """What is made at one scale."""

    first: int  # program of the launch
    blocks: int  # of pixels in a plane
    octave: int
    result: Map


class Branch(NamedTuple):
    """One convolution of what is at its scale."""

    octave: int
    dilation: int
    source: Map


class Coarse(NamedTuple):
    """A level that is brought to the scale of the feature."""

    octave: int
    source: Map


@triton.jit
def plain_map(m):
    return Map(*[plain(size) for size in m[:3]], Steps(plain(m.steps[0]), plain(m.steps[1])))


@triton.jit
def pixels_of(block, m, PIXELS: tl.constexpr):
    """Pixels of a block, their rows and columns, and whether they exist; [P] each. What does not
    has a row that is far from all others."""
    pixel = block.to(m.pixels.dtype) * PIXELS + tl.arange(0, PIXELS)
    exists = pixel < m.pixels
    return pixel, tl.where(exists, pixel // m.width, _FAR), pixel % m.width, exists


@triton.jit
def plane_of(data, m, image, channel):
    return data + image.to(tl.int64) * m.steps.image + channel.to(tl.int64) * m.steps.channel


@triton.jit
def _inside(position, size):
    """From 0 to below `size`, in one comparison."""
    return position.to(tl.uint32) < size.to(tl.uint32)


@triton.jit
def load_at(plane, m, row, column):
    """Pixels in float32, zeros beyond the map."""
    inside = _inside(row, m.height) & _inside(column, m.width)
    at = plane + (row.to(m.pixels.dtype) * m.width + column)
    return tl.load(at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def load_tap(pixels, m, row, column, dilation, TAP: tl.constexpr):
    """What a tap of 3 x 3 reads, around pointers to pixels in these rows and columns."""
    down, right = (TAP // 3 - 1) * dilation, (TAP % 3 - 1) * dilation
    inside = _inside(row + down, m.height) & _inside(column + right, m.width)
    at = pixels + (down.to(m.pixels.dtype) * m.width + right)
    return tl.load(at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def convolved(pixels, m, row, column, dilation, weight, FLIP: tl.constexpr):
    """3 x 3 with zero padding; with FLIP the adjoint."""
    total = tl.zeros(row.shape, tl.float32)
    for tap in tl.static_range(TAPS):
        value = load_tap(pixels, m, row, column, dilation, tap)
        total += value * tl.load(weight + (TAPS - 1 - tap if FLIP else tap)).to(tl.float32)
    return total


@triton.jit
def _window(m, row, column, octave):
    """How many pixels of a map are pooled to one."""
    size = 1 << octave
    rows = tl.minimum(m.height - row * size, size)
    columns = tl.minimum(m.width - column * size, size)
    return tl.maximum(rows * columns, 1).to(tl.float32)  # there may be none, where nothing is kept


@triton.jit
def multiscale_mix_pool_kernel(
    u,
    pooled,  # of each level, dense
    source,  # Map of u, passed
    levels,  # Level of each, passed
    channels,  # passed
    PIXELS: tl.constexpr,
):
    """Means over the windows of each level, those at the far borders over what is there."""
    result, s = mine(pooled, levels)
    m, small = plain_map(source), plain_map(s.result)
    part, octave = tl.program_id(0) - plain(s.first), plain(s.octave)
    plane = part // plain(s.blocks)
    pixel, row, column, exists = pixels_of(part % plain(s.blocks), small, PIXELS)
    pixels = plane_of(u, m, plane // plain(channels), plane % plain(channels))
    size = 1 << octave
    total = tl.zeros((PIXELS,), tl.float32)
    for i in range(tl.minimum(size, m.height)):
        for j in range(tl.minimum(size, m.width)):
            total += load_at(pixels, m, row * size + i, column * size + j)
    to = result + plane.to(tl.int64) * small.pixels + pixel
    tl.store(to, tl.div_rn(total, _window(m, row, column, octave)), mask=exists)


@triton.jit
def _resized(plane, m, row, column, grid):
    """A map resized bilinearly to the size of `grid`."""
    top, below = interpolated(row, grid.height, m.height)
    left, beside = interpolated(column, grid.width, m.width)
    right = tl.minimum(left + 1, m.width - 1)
    upper, lower = plane + top * m.width, plane + tl.minimum(top + 1, m.height - 1) * m.width
    above = tl.load(upper + left) * (1 - beside) + tl.load(upper + right) * beside
    return above * (1 - below) + below * (
        tl.load(lower + left) * (1 - beside) + tl.load(lower + right) * beside
    )


@triton.jit
def multiscale_mix_sum_kernel(
    sources,  # what each branch convolves
    coarse,  # what is brought to the scale of the only level
    parameters,  # weights [B, m, 3, 3], scale [B, m], shift [B, m], mix [N, B, m]
    results,  # of each level
    whole,  # Map of the feature, passed
    branches,  # Branch of each, passed
    coarser,  # Coarse of each, passed
    levels,  # Level of each, passed
    channels,  # passed
    COARSE: tl.constexpr,  # how many there are
    SHARES: tl.constexpr,  # whether branches are weighed
    ADJOINT: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Sums of the branches of each level, and of what is brought from coarser ones; with ADJOINT
    gradients of what the branches of a level read, through its pool."""
    result, s = mine(results, levels)
    m, grid = plain_map(s.result), plain_map(whole)
    part, octave = tl.program_id(0) - plain(s.first), plain(s.octave)
    plane = part // plain(s.blocks)
    image, channel = plane // plain(channels), plane % plain(channels)
    pixel, row, column, exists = pixels_of(part % plain(s.blocks), m, PIXELS)
    total = tl.zeros((PIXELS,), tl.float32)
    for k in tl.static_range(len(branches)):
        entry = k * plain(channels) + channel
        used = plain(branches[k].octave) == octave
        share = 1.0
        if SHARES:
            row_of_mix = image.to(tl.int64) * (len(branches) * plain(channels))
            share = tl.load(parameters[3] + row_of_mix + entry)
            used = used & (share != 0)
        if used:
            read = plain_map(branches[k].source)
            z = convolved(
                plane_of(sources[k], read, image, channel) + pixel, read, row, column,
                plain(branches[k].dilation), parameters[0] + entry * TAPS, ADJOINT,
            )  # fmt: skip
            if SHARES:
                z *= tl.load(parameters[1] + entry).to(tl.float32)
                if not ADJOINT:
                    z += tl.load(parameters[2] + entry).to(tl.float32)
            total += share * z
    for i in tl.static_range(COARSE):
        read = plain_map(coarser[i].source)
        pixels = plane_of(coarse[i], read, image, channel)
        if ADJOINT:
            up = plain(coarser[i].octave)
            total += load_at(pixels, read, row >> up, column >> up)
        else:
            total += _resized(pixels, read, row, column, m)
    if ADJOINT:
        total = tl.div_rn(total, _window(grid, row, column, octave))
    to = plane_of(result, m, image, channel) + pixel
    tl.store(to, total.to(result.dtype.element_ty), mask=exists)
