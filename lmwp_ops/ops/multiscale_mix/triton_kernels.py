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
    """Pixels of a block, their rows and columns, and whether they exist; [P] each."""
    pixel = block.to(m.pixels.dtype) * PIXELS + tl.arange(0, PIXELS)
    return pixel, pixel // m.width, pixel % m.width, pixel < m.pixels


@triton.jit
def plane_of(data, m, image, channel):
    return data + image.to(tl.int64) * m.steps.image + channel.to(tl.int64) * m.steps.channel


@triton.jit
def load_at(plane, m, row, column, mask):
    """Pixels in float32, zeros beyond the map."""
    inside = (row >= 0) & (row < m.height) & (column >= 0) & (column < m.width)
    return tl.load(plane + row * m.width + column, mask=mask & inside, other=0.0).to(tl.float32)


@triton.jit
def load_tap(plane, m, row, column, mask, dilation, TAP: tl.constexpr):
    """What a tap of 3 x 3 reads."""
    down, right = (TAP // 3 - 1) * dilation, (TAP % 3 - 1) * dilation
    return load_at(plane, m, row + down, column + right, mask)


@triton.jit
def convolved(plane, m, row, column, mask, dilation, weight, FLIP: tl.constexpr):
    """3 x 3 with zero padding; with FLIP the adjoint."""
    total = tl.zeros(row.shape, tl.float32)
    for tap in tl.static_range(TAPS):
        value = load_tap(plane, m, row, column, mask, dilation, tap)
        total += value * tl.load(weight + (TAPS - 1 - tap if FLIP else tap)).to(tl.float32)
    return total


@triton.jit
def _window(m, row, column, octave):
    """How many pixels of a map are pooled to one."""
    size = 1 << octave
    rows, columns = (
        tl.minimum(m.height - row * size, size),
        tl.minimum(m.width - column * size, size),
    )
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
            total += load_at(pixels, m, row * size + i, column * size + j, exists)
    to = result + plane.to(tl.int64) * small.pixels + pixel
    tl.store(to, tl.div_rn(total, _window(m, row, column, octave)), mask=exists)


@triton.jit
def _resized(plane, m, row, column, grid, mask):
    """A map resized bilinearly to the size of `grid`."""
    top, below = interpolated(row, grid.height, m.height)
    left, beside = interpolated(column, grid.width, m.width)
    bottom, right = tl.minimum(top + 1, m.height - 1), tl.minimum(left + 1, m.width - 1)
    upper = load_at(plane, m, top, left, mask) * (1 - beside)
    upper += load_at(plane, m, top, right, mask) * beside
    lower = load_at(plane, m, bottom, left, mask) * (1 - beside)
    lower += load_at(plane, m, bottom, right, mask) * beside
    return upper * (1 - below) + lower * below


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
                plane_of(sources[k], read, image, channel), read, row, column, exists,
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
            total += load_at(pixels, read, row >> up, column >> up, exists)
        else:
            total += _resized(pixels, read, row, column, m, exists)
    if ADJOINT:
        total = tl.div_rn(total, _window(grid, row, column, octave))
    to = plane_of(result, m, image, channel) + pixel
    tl.store(to, total.to(result.dtype.element_ty), mask=exists)
