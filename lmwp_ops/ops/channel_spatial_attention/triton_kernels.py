"""Triton kernels of `channel_spatial_attention`, forward; the README tells how they work.

Shapes: L channels of a block and P of its pixels, which lie in a row and are counted in vectors of
VECTOR, as steps are; U hidden units. Pools are the mean, the maximum, or both in this order.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from lmwp_ops.ops.sizes.triton_kernels import plain

CONFIGS = [
    {"BLOCK": 2048, "PIXELS": 512, "num_warps": 4},
    {"BLOCK": 2048, "PIXELS": 128, "num_warps": 4},
    {"BLOCK": 1024, "PIXELS": 256, "num_warps": 2},
    {"BLOCK": 4096, "PIXELS": 512, "num_warps": 8},
]
"""Elements and pixels of a block; the default is the first, the second for few pixels."""

MOST_PARTS = tl.constexpr(32)
"""Parts of a plane whose pools are found apart."""


class Steps(NamedTuple):
    """From one image and one channel of a feature to the next."""

    image: int
    channel: int


class Sizes(NamedTuple):
    """Of a feature, and how it is divided among programs."""

    channels: int
    pixels: int
    height: int
    width: int
    hidden: int
    parts: int  # of a plane
    part_blocks: int  # of pixels in a part
    blocks: int  # of pixels in an image
    groups: int  # of channels
    group_blocks: int  # of channels in a group
    images: int
    split_blocks: int  # of pixels in what a program adds up of gradients of kernels
    x: Steps
    grad: Steps
    out: Steps


@triton.jit
def plain_sizes(sizes, VECTOR: tl.constexpr):
    """The sizes that were passed; pixels are counted singly."""
    return Sizes(
        plain(sizes.channels),
        plain(sizes.pixels) * VECTOR,
        *[plain(size) for size in sizes[2:12]],
        Steps(*[plain(step) for step in sizes.x]),
        Steps(*[plain(step) for step in sizes.grad]),
        Steps(*[plain(step) for step in sizes.out]),
    )


@triton.jit
def channels_of(block, CHANNELS: tl.constexpr):
    """[L, 1]."""
    return block * CHANNELS + tl.arange(0, CHANNELS)[:, None]


@triton.jit
def pixels_of(block, s, PIXELS: tl.constexpr):
    """[1, P], in 64 bits where there are very many."""
    return block.to(s.pixels.dtype) * PIXELS + tl.arange(0, PIXELS)[None, :]


@triton.jit
def tile_at(data, steps, image, channel, pixel, VECTOR: tl.constexpr):
    """Pointers to a block of an image, [L, P]."""
    planes = data + image.to(tl.int64) * (steps.image * VECTOR)
    return planes + channel.to(tl.int64) * (steps.channel * VECTOR) + pixel


@triton.jit
def load_tile(data, steps, image, channel, pixel, s, VECTOR: tl.constexpr):
    """A block of an image, zeros where there is none, and where there is one; [L, P]."""
    exists = (channel < s.channels) & (pixel < s.pixels)
    pointers = tile_at(data, steps, image, channel, pixel, VECTOR)
    return tl.load(pointers, mask=exists, other=0.0).to(tl.float32), exists


@triton.jit
def load_gate(logits, image, channel, s):
    """The gate of channels, [L, 1]."""
    at = logits + image.to(tl.int64) * s.channels + channel
    return tl.sigmoid(tl.load(at, mask=channel < s.channels, other=0.0))


@triton.jit
def plane_of(maps, image, plane, s, COUNT: tl.constexpr):
    """One of COUNT maps of an image."""
    return maps + (image.to(tl.int64) * COUNT + plane) * s.pixels


@triton.jit
def larger(a, b):
    """As torch has it: NaN is greater than any number."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def largest(x, AXIS: tl.constexpr):
    """The maximum over an axis, or the NaN in it."""
    wrong = tl.max((x != x).to(tl.int32), axis=AXIS, keep_dims=True) > 0
    found = tl.max(tl.where(x != x, float("-inf"), x), axis=AXIS, keep_dims=True)
    return tl.where(wrong, float("nan"), found)


@triton.jit
def first_at(x, best, index, AXIS: tl.constexpr):
    """The smallest `index` where x has the maximum of its axis."""
    here = (x == best) | ((x != x) & (best != best))
    beyond = tl.full(index.shape, 2**31 - 1 if index.dtype == tl.int32 else 2**62, index.dtype)
    return tl.min(tl.where(here, index, beyond), axis=AXIS, keep_dims=True)


@triton.jit
def takes_over(value, best):
    """Where a value that comes later is the maximum so far."""
    return (value > best) | ((value != value) & (best == best))


@triton.jit
def channel_spatial_attention_fwd_pool_kernel(
    x,
    sums,  # [N, parts, C], like maxima and found
    maxima,
    found,  # where maxima are in their planes
    sizes,  # passed
    INDEX: tl.constexpr,  # whether to say where
    VECTOR: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Sums and maxima over each part of a plane."""
    s = plain_sizes(sizes, VECTOR)
    program = tl.program_id(0)
    part = program % s.parts
    blocks = tl.cdiv(s.channels, CHANNELS)
    image = program // s.parts // blocks
    channel = channels_of(program // s.parts % blocks, CHANNELS)
    total = tl.zeros((CHANNELS, PIXELS), tl.float32)
    best = tl.full((CHANNELS, PIXELS), float("-inf"), tl.float32)
    at = tl.zeros((CHANNELS, PIXELS), s.pixels.dtype) + pixels_of(part * s.part_blocks, s, PIXELS)
    for step in range(s.part_blocks):
        pixel = pixels_of(part * s.part_blocks + step, s, PIXELS)
        value, exists = load_tile(x, s.x, image, channel, pixel, s, VECTOR)
        total += value
        value = tl.where(exists, value, float("-inf"))
        if INDEX:
            at = tl.where(takes_over(value, best), pixel, at)
        best = larger(best, value)
    to = (image.to(tl.int64) * s.parts + part) * s.channels + channel
    known = channel < s.channels
    maximum = largest(best, 1)
    tl.store(sums + to, tl.sum(total, axis=1, keep_dims=True), mask=known)
    tl.store(maxima + to, maximum, mask=known)
    if INDEX:
        tl.store(found + to, first_at(best, maximum, at, 1).to(tl.int64), mask=known)


@triton.jit
def load_parts(data, image, channel, s, other):
    """Of each part of planes, [parts, L]; channels are [1, L]."""
    part = tl.arange(0, MOST_PARTS)[:, None]
    at = data + (image.to(tl.int64) * s.parts + part) * s.channels + channel
    return tl.load(at, mask=(part < s.parts) & (channel < s.channels), other=other)


@triton.jit
def load_weight(weight, row, column, rows, columns):
    """Of a matrix [rows, columns] in float32; row and column are tiles."""
    at = weight + row.to(tl.int64) * columns + column
    return tl.load(at, mask=(row < rows) & (column < columns), other=0.0).to(tl.float32)


@triton.jit
def load_values(data, index, count):
    return tl.load(data + index, mask=index < count, other=0.0).to(tl.float32)


@triton.jit
def channel_spatial_attention_fwd_gate_kernel(
    partial,  # sums, maxima and where these are, of each part
    layers,  # weight and bias of reduce, of expand
    logits,  # [N, C]
    kept,  # pools [N, pools, C], where maxima are [N, C], hidden units before ReLU [N, pools, U]
    sizes,  # passed
    MEAN: tl.constexpr,
    MAX: tl.constexpr,
    BIASES: tl.constexpr,  # whether reduce has one, and expand
    KEEP: tl.constexpr,
    VECTOR: tl.constexpr,
    HIDDEN: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """What the channel gate is the sigmoid of; a program has an image."""
    s = plain_sizes(sizes, VECTOR)
    image = tl.program_id(0)
    unit = tl.arange(0, HIDDEN)[:, None]  # [U, 1]
    POOLS: tl.constexpr = MEAN + MAX
    of_mean = tl.zeros((HIDDEN, CHANNELS), tl.float32)
    of_max = tl.zeros((HIDDEN, CHANNELS), tl.float32)
    for first in range(0, s.channels, CHANNELS):
        channel = first + tl.arange(0, CHANNELS)[None, :]  # [1, L]
        known = channel < s.channels
        to = image.to(tl.int64) * POOLS * s.channels + channel
        weight = load_weight(layers[0], unit, channel, s.hidden, s.channels)  # [U, L]
        if MEAN:
            sums = load_parts(partial[0], image, channel, s, 0.0)
            mean = tl.sum(sums, axis=0, keep_dims=True) / s.pixels.to(tl.float32)
            of_mean += weight * mean
            if KEEP:
                tl.store(kept[0] + to, mean, mask=known)
        if MAX:
            maxima = load_parts(partial[1], image, channel, s, float("-inf"))
            maximum = largest(maxima, 0)
            of_max += weight * tl.where(known, maximum, 0.0)
            if KEEP:
                found = first_at(maxima, maximum, load_parts(partial[2], image, channel, s, 0), 0)
                tl.store(kept[0] + to + MEAN * s.channels, maximum, mask=known)
                tl.store(kept[1] + image.to(tl.int64) * s.channels + channel, found, mask=known)
    hidden = tl.zeros((HIDDEN, 1), tl.float32)
    for pool in tl.static_range(POOLS):
        before = tl.sum(of_mean if MEAN and pool == 0 else of_max, axis=1, keep_dims=True)
        if BIASES[0]:
            before += load_values(layers[1], unit, s.hidden)
        hidden += tl.where(before < 0, 0.0, before)
        if KEEP:
            units = kept[2] + (image.to(tl.int64) * POOLS + pool) * s.hidden + unit
            tl.store(units, before, mask=unit < s.hidden)
    for first in range(0, s.channels, CHANNELS):
        channel = first + tl.arange(0, CHANNELS)[None, :]
        weight = load_weight(layers[2], channel, unit, s.channels, s.hidden)  # [U, L]
        logit = tl.sum(weight * hidden, axis=0, keep_dims=True)
        if BIASES[1]:
            logit += POOLS * load_values(layers[3], channel, s.channels)
        to = logits + image.to(tl.int64) * s.channels + channel
        tl.store(to, logit, mask=channel < s.channels)


@triton.jit
def gated_tile(x, logits, image, channel, pixel, s, GATE: tl.constexpr, VECTOR: tl.constexpr):
    """x times the gate of its channels, and where it exists; [L, P]."""
    value, exists = load_tile(x, s.x, image, channel, pixel, s, VECTOR)
    if GATE:
        value = value * load_gate(logits, image, channel, s)
    return value, exists


@triton.jit
def channel_spatial_attention_fwd_channels_kernel(
    x,
    logits,  # [N, C]
    q,  # [N, pools, H, W]
    sizes,  # passed
    GATE: tl.constexpr,
    MEAN: tl.constexpr,
    MAX: tl.constexpr,
    VECTOR: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Mean and maximum over the gated channels of every pixel."""
    s = plain_sizes(sizes, VECTOR)
    image = tl.program_id(0) // s.blocks
    pixel = pixels_of(tl.program_id(0) % s.blocks, s, PIXELS)
    total = tl.zeros((CHANNELS, PIXELS), tl.float32)
    best = tl.full((CHANNELS, PIXELS), float("-inf"), tl.float32)
    for block in range(tl.cdiv(s.channels, CHANNELS)):
        channel = channels_of(block, CHANNELS)
        value, exists = gated_tile(x, logits, image, channel, pixel, s, GATE, VECTOR)
        total += value
        best = larger(best, tl.where(exists, value, float("-inf")))
    store_pools(q, image, pixel, total, largest(best, 0), s, MEAN, MAX)


@triton.jit
def store_pools(q, image, pixel, total, maximum, s, MEAN: tl.constexpr, MAX: tl.constexpr):
    """Mean and maximum of pixels, from sums [L, P] and maxima [1, P]."""
    POOLS: tl.constexpr = MEAN + MAX
    if MEAN:
        mean = tl.sum(total, axis=0, keep_dims=True) / s.channels.to(tl.float32)
        tl.store(plane_of(q, image, 0, s, POOLS) + pixel, mean, mask=pixel < s.pixels)
    if MAX:
        to = plane_of(q, image, POOLS - 1, s, POOLS) + pixel
        tl.store(to, maximum, mask=pixel < s.pixels)


@triton.jit
def _tap(kernel, pool, down, right, SIZE: tl.constexpr):
    """A tap of one kernel, this far from its centre; like `pool`."""
    REACH: tl.constexpr = SIZE // 2
    inside = (down >= -REACH) & (down <= REACH) & (right >= -REACH) & (right <= REACH)
    at = kernel + (pool * SIZE + down + REACH) * SIZE + right + REACH
    return tl.load(at, mask=inside & (pool >= 0), other=0.0).to(tl.float32)


@triton.jit
def tap_of(kernels, pool, down, right, SIZES: tl.constexpr):
    """A tap of the sum of the kernels, laid on each other around their centres."""
    weight = tl.zeros(pool.shape, tl.float32)
    for i in tl.static_range(len(SIZES)):
        weight += _tap(kernels[i], pool, down, right, SIZES[i])
    return weight


@triton.jit
def load_shifted(planes, pixel, down, right, s):
    """Pixels of maps moved by some rows and columns, zeros outside of them; like `planes`."""
    row, column = pixel // s.width + down, pixel % s.width + right
    inside = (row >= 0) & (row < s.height) & (column >= 0) & (column < s.width)
    at = planes + pixel + (down * s.width + right)
    return tl.load(at, mask=inside & (pixel < s.pixels), other=0.0)


@triton.jit
def convolved(
    q, kernels, image, pixel, s, SIZES: tl.constexpr, K: tl.constexpr, POOLS: tl.constexpr
):
    """What the spatial gate is the sigmoid of, [1, P]; K is the largest of SIZES."""
    pool = tl.arange(0, POOLS)[:, None]
    planes = plane_of(q, image, pool, s, POOLS)
    total = tl.zeros((POOLS, pixel.shape[1]), tl.float32)
    for line in range(K):
        for i in tl.static_range(K):
            down, right = line - K // 2, i - K // 2
            weight = tap_of(kernels, pool, down, right, SIZES)
            total += weight * load_shifted(planes, pixel, down, right, s)
    return tl.sum(total, axis=0, keep_dims=True)


@triton.jit
def channel_spatial_attention_fwd_kernel(
    x,
    logits,  # [N, C]
    q,  # [N, pools, H, W]
    kernels,
    out,
    sizes,  # passed
    GATE: tl.constexpr,
    SIZES: tl.constexpr,  # of the kernels
    K: tl.constexpr,  # the largest of them
    POOLS: tl.constexpr,
    VECTOR: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """x times both gates; a program finds the gate of its pixels once for a group of channels."""
    s = plain_sizes(sizes, VECTOR)
    program = tl.program_id(0)
    group = program % s.groups
    image = program // s.groups // s.blocks
    pixel = pixels_of(program // s.groups % s.blocks, s, PIXELS)
    gate = tl.full(pixel.shape, 1.0, tl.float32)
    if K:
        gate = tl.sigmoid(convolved(q, kernels, image, pixel, s, SIZES, K, POOLS))
    for step in range(s.group_blocks):
        channel = channels_of(group * s.group_blocks + step, CHANNELS)
        value, exists = gated_tile(x, logits, image, channel, pixel, s, GATE, VECTOR)
        to = tile_at(out, s.out, image, channel, pixel, VECTOR)
        tl.store(to, (value * gate).to(out.dtype.element_ty), mask=exists)
