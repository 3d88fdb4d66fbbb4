"""Triton kernels of `bn_prelu_gap`; the README tells how they work.

A program takes a tile of one branch: I images, P pixels and L channels. Maps are planar, pixels of
a channel one after the other and L of 1, or INTERLEAVED, channels of a pixel one after the other
and I of 1. What lies one after the other is counted in vectors of VECTOR elements, and steps are.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from lmwp_ops.ops.sizes.triton_kernels import mine, plain

CONFIGS = [
    {"BLOCK": 4096, "num_warps": 4},
    {"BLOCK": 2048, "num_warps": 4},
    {"BLOCK": 4096, "num_warps": 8},
    {"BLOCK": 8192, "num_warps": 8},
]
"""Elements of a tile; the first is the default."""

SUM_CONFIG = {"TILES": 32, "CHANNELS": 32, "num_warps": 4}
"""Of the kernels that bring tiles together."""


class Steps(NamedTuple):
    """From one image, pixel and channel of a feature to the next."""

    image: int
    pixel: int
    channel: int


class Sizes(NamedTuple):
    """One branch and its tiles."""

    first: int  # program of the launch
    tiles: int  # for each block of channels
    parts: int  # tiles that a map is divided into
    images: int
    pixels: int
    channels: int
    x: Steps
    grad: Steps
    out: Steps


class SumSizes(NamedTuple):
    """One branch whose tiles are brought together."""

    first: int  # program of the launch
    tiles: int
    parts: int
    images: int
    pixels: int
    channels: int


@triton.jit
def _plain_steps(steps):
    return Steps(*[plain(step) for step in steps])


@triton.jit
def _part(
    tensors, sizes, VECTOR: tl.constexpr, INTERLEAVED: tl.constexpr,
    IMAGES: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """What a program works on: tensors and sizes of its branch, its tile, the images [I, 1, 1],
    pixels [1, P, 1] and channels [1, 1, L] in there, and which of them exist, [I, P, L]."""
    t, s = mine(tensors, sizes)
    s = Sizes(
        *[plain(size) for size in s[:4]],
        plain(s.pixels) * (1 if INTERLEAVED else VECTOR),
        plain(s.channels) * (VECTOR if INTERLEAVED else 1),
        _plain_steps(s.x),
        _plain_steps(s.grad),
        _plain_steps(s.out),
    )
    program = tl.program_id(0) - s.first
    tile = program % s.tiles
    image = tile // s.parts * IMAGES + tl.arange(0, IMAGES)[:, None, None]
    pixel = tile % s.parts * PIXELS + tl.arange(0, PIXELS)[None, :, None]
    channel = program // s.tiles * CHANNELS + tl.arange(0, CHANNELS)[None, None, :]
    mask = (image < s.images) & (pixel < s.pixels) & (channel < s.channels)
    return t, s, tile, image, pixel, channel, mask


@triton.jit
def _pointers(data, steps, image, pixel, channel, VECTOR: tl.constexpr, INTERLEAVED: tl.constexpr):
    """To the elements of a tile, [I, P, L]."""
    images = data + image.to(tl.int64) * (steps.image * VECTOR)
    if INTERLEAVED:
        pointers = images + pixel.to(tl.int64) * (steps.pixel * VECTOR) + channel
    else:
        pointers = images + channel.to(tl.int64) * (steps.channel * VECTOR) + pixel
    return pointers


@triton.jit
def _read(
    data, steps, image, pixel, channel, mask, VECTOR: tl.constexpr, INTERLEAVED: tl.constexpr
):
    pointers = _pointers(data, steps, image, pixel, channel, VECTOR, INTERLEAVED)
    return tl.load(pointers, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _count(tile, s, IMAGES: tl.constexpr, PIXELS: tl.constexpr):
    """How many values of each channel a tile has."""
    images = tl.minimum(s.images - tile // s.parts * IMAGES, IMAGES)
    return images * tl.minimum(s.pixels - tile % s.parts * PIXELS, PIXELS)


@triton.jit
def _over_tile(x):
    """Sums of [I, P, L] over images and pixels, [1, 1, L]."""
    return tl.sum(tl.sum(x, axis=1, keep_dims=True), axis=0, keep_dims=True)


@triton.jit
def _parameter(data, channel, exists):
    return tl.load(data + channel, mask=exists, other=0.0).to(tl.float32)


@triton.jit
def _normalized(x, t, channel, exists, eps):
    """x - mean, and what it becomes before the PReLU."""
    centred = x - _parameter(t.mean, channel, exists)
    rstd = tl.div_rn(1.0, tl.sqrt_rn(_parameter(t.var, channel, exists) + eps))
    scale = _parameter(t.weight, channel, exists) * rstd
    return centred, centred * scale + _parameter(t.bias, channel, exists)


@triton.jit
def bn_prelu_gap_fwd_moments_kernel(
    tensors,  # of each branch, see triton_launch.Forward
    sizes,  # Sizes of each branch, passed
    VECTOR: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    IMAGES: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Of each tile the mean, as float32 has it, and the sums of distances from it and squares."""
    t, s, tile, image, pixel, channel, mask = _part(
        tensors, sizes, VECTOR, INTERLEAVED, IMAGES, PIXELS, CHANNELS
    )
    x = _read(t.x, s.x, image, pixel, channel, mask, VECTOR, INTERLEAVED)
    mean = _over_tile(x) / _count(tile, s, IMAGES, PIXELS).to(tl.float32)  # [1, 1, L]
    distance = tl.where(mask, x - mean, 0.0)
    to = t.partial + tile.to(tl.int64) * 3 * s.channels + channel
    exists = channel < s.channels
    tl.store(to, mean, mask=exists)
    tl.store(to + s.channels, _over_tile(distance), mask=exists)
    tl.store(to + 2 * s.channels, _over_tile(distance * distance), mask=exists)


@triton.jit
def _moments(partial, tile, channel, channels, mask):
    """Of tiles: means, sums of distances from them, and of squares of these, [T, L] each."""
    at = partial + tile.to(tl.int64) * 3 * channels + channel
    mean = tl.load(at, mask=mask, other=0.0).to(tl.float64)
    distances = tl.load(at + channels, mask=mask, other=0.0).to(tl.float64)
    squares = tl.load(at + 2 * channels, mask=mask, other=0.0).to(tl.float64)
    return mean, distances, squares


@triton.jit
def bn_prelu_gap_fwd_statistics_kernel(
    tensors,  # of each branch, see triton_launch.Forward
    sizes,  # SumSizes of each branch, passed
    eps,
    IMAGES: tl.constexpr,
    PIXELS: tl.constexpr,
    TILES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Mean and variance of the batch from those of the tiles, always in the same order, and what
    takes x - mean, of the rounded mean, to y."""
    t, s = mine(tensors, sizes)
    s = SumSizes(*[plain(size) for size in s])
    channel = (tl.program_id(0) - s.first) * CHANNELS + tl.arange(0, CHANNELS)[None, :]  # [1, L]
    exists = channel < s.channels
    values = s.images.to(tl.float64) * s.pixels
    total = tl.zeros((TILES, CHANNELS), tl.float64)
    for first in range(0, s.tiles, TILES):
        tile = first + tl.arange(0, TILES)[:, None]  # [T, 1]
        mask = (tile < s.tiles) & exists
        mean, distances, _ = _moments(t.partial, tile, channel, s.channels, mask)
        total += mean * _count(tile, s, IMAGES, PIXELS) + distances
    batch_mean = tl.sum(total, axis=0, keep_dims=True) / values  # [1, L]
    total = tl.zeros((TILES, CHANNELS), tl.float64)
    for first in range(0, s.tiles, TILES):
        tile = first + tl.arange(0, TILES)[:, None]
        mask = (tile < s.tiles) & exists
        mean, distances, squares = _moments(t.partial, tile, channel, s.channels, mask)
        further = mean - batch_mean
        moved = squares + further * (2 * distances + further * _count(tile, s, IMAGES, PIXELS))
        total += tl.where(mask, moved, 0.0)
    var = tl.sum(total, axis=0, keep_dims=True) / values
    mean = batch_mean.to(tl.float32)
    scale = _parameter(t.weight, channel, exists) / tl.sqrt(var + eps)
    shift = _parameter(t.bias, channel, exists) - (batch_mean - mean) * scale
    tl.store(t.mean + channel, mean, mask=exists)
    tl.store(t.var + channel, var.to(tl.float32), mask=exists)
    tl.store(t.affine + channel, scale.to(tl.float32), mask=exists)
    tl.store(t.affine + s.channels + channel, shift.to(tl.float32), mask=exists)


@triton.jit
def bn_prelu_gap_fwd_kernel(
    tensors,  # of each branch, see triton_launch.Forward
    sizes,  # Sizes of each branch, passed
    PRELU: tl.constexpr,
    VECTOR: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    IMAGES: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """y = PReLU((x - mean) / sqrt(var + eps) * weight + bias), and each tile's part of its means
    over the pixels."""
    t, s, tile, image, pixel, channel, mask = _part(
        tensors, sizes, VECTOR, INTERLEAVED, IMAGES, PIXELS, CHANNELS
    )
    exists = channel < s.channels
    x = _read(t.x, s.x, image, pixel, channel, mask, VECTOR, INTERLEAVED)
    y = (x - _parameter(t.mean, channel, exists)) * _parameter(t.affine, channel, exists)
    y += _parameter(t.affine + s.channels, channel, exists)
    if PRELU:
        y = tl.where(y > 0, y, y * _parameter(t.slope, channel, exists))
    to = _pointers(t.y, s.out, image, pixel, channel, VECTOR, INTERLEAVED)
    tl.store(to, y.to(t.y.dtype.element_ty), mask=mask)
    sums = tl.sum(tl.where(mask, y, 0.0), axis=1, keep_dims=True)  # [I, 1, L]
    row = (tile % s.parts).to(tl.int64) * s.images + image
    means = t.means + row * s.channels + channel
    tl.store(means, sums / s.pixels.to(tl.float32), mask=(image < s.images) & exists)


@triton.jit
def _gradient(t, s, image, pixel, channel, mask, eps, PRELU: tl.constexpr,
    VECTOR: tl.constexpr, INTERLEAVED: tl.constexpr,
):  # fmt: skip
    """Of what comes before the PReLU, with x - mean and what a tile adds to that of the slope."""
    x = _read(t.x, s.x, image, pixel, channel, mask, VECTOR, INTERLEAVED)
    grad = _read(t.grad, s.grad, image, pixel, channel, mask, VECTOR, INTERLEAVED)
    exists = channel < s.channels
    centred, u = _normalized(x, t, channel, exists, eps)
    slope_grad = tl.where(u > 0, 0.0, grad * u)
    if PRELU:
        grad = tl.where(u > 0, grad, grad * _parameter(t.slope, channel, exists))
    return grad, centred, slope_grad


@triton.jit
def bn_prelu_gap_bwd_sums_kernel(
    tensors,  # of each branch, see triton_launch.Backward
    sizes,  # Sizes of each branch, passed
    eps,
    PRELU: tl.constexpr,
    VECTOR: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    IMAGES: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Each tile's part of the gradients of bias, of weight times sqrt(var + eps), and of slope."""
    t, s, tile, image, pixel, channel, mask = _part(
        tensors, sizes, VECTOR, INTERLEAVED, IMAGES, PIXELS, CHANNELS
    )
    grad, centred, slope_grad = _gradient(
        t, s, image, pixel, channel, mask, eps, PRELU, VECTOR, INTERLEAVED
    )
    to = t.partial + tile.to(tl.int64) * 3 * s.channels + channel
    exists = channel < s.channels
    tl.store(to, _over_tile(grad), mask=exists)
    tl.store(to + s.channels, _over_tile(grad * centred), mask=exists)
    tl.store(to + 2 * s.channels, _over_tile(slope_grad), mask=exists)


@triton.jit
def bn_prelu_gap_bwd_statistics_kernel(
    tensors,  # of each branch, see triton_launch.Backward
    sizes,  # SumSizes of each branch, passed
    eps,
    TILES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """The gradients of bias, weight and slope, always added up in the same order."""
    t, s = mine(tensors, sizes)
    s = SumSizes(*[plain(size) for size in s])
    channel = (tl.program_id(0) - s.first) * CHANNELS + tl.arange(0, CHANNELS)[None, :]  # [1, L]
    exists = channel < s.channels
    rstd = tl.div_rn(1.0, tl.sqrt_rn(_parameter(t.var, channel, exists) + eps))
    for kind in tl.static_range(3):
        total = tl.zeros((TILES, CHANNELS), tl.float64)
        for first in range(0, s.tiles, TILES):
            tile = first + tl.arange(0, TILES)[:, None]  # [T, 1]
            at = t.partial + (tile.to(tl.int64) * 3 + kind) * s.channels + channel
            total += tl.load(at, mask=(tile < s.tiles) & exists, other=0.0).to(tl.float64)
        gradient = tl.sum(total, axis=0, keep_dims=True)
        if kind == 1:
            gradient = gradient * rstd
        tl.store(t.sums[kind] + channel, gradient.to(tl.float32), mask=exists)


@triton.jit
def bn_prelu_gap_bwd_input_kernel(
    tensors,  # of each branch, see triton_launch.Backward
    sizes,  # Sizes of each branch, passed
    eps,
    PRELU: tl.constexpr,
    VECTOR: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    IMAGES: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """dx = weight r (du - dbias / M - (x - mean) r dweight / M) with r = 1 / sqrt(var + eps)."""
    t, s, _, image, pixel, channel, mask = _part(
        tensors, sizes, VECTOR, INTERLEAVED, IMAGES, PIXELS, CHANNELS
    )
    grad, centred, _ = _gradient(t, s, image, pixel, channel, mask, eps, PRELU, VECTOR, INTERLEAVED)
    exists = channel < s.channels
    values = s.images.to(tl.float32) * s.pixels.to(tl.float32)
    rstd = tl.div_rn(1.0, tl.sqrt_rn(_parameter(t.var, channel, exists) + eps))
    constant = _parameter(t.sums[0], channel, exists) / values
    by_x = _parameter(t.sums[1], channel, exists) * rstd / values
    scale = _parameter(t.weight, channel, exists) * rstd
    to = _pointers(t.grad_x, s.out, image, pixel, channel, VECTOR, INTERLEAVED)
    grad_x = scale * (grad - constant - centred * by_x)
    tl.store(to, grad_x.to(t.grad_x.dtype.element_ty), mask=mask)
