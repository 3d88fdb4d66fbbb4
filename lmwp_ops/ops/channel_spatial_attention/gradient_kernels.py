"""Triton kernels of `channel_spatial_attention`, backward; the README tells how they work.

Shapes and pools are as in `triton_kernels`; e is x times the gate of its channels.
"""

import triton
import triton.language as tl

from lmwp_ops.ops.channel_spatial_attention.triton_kernels import (
    channels_of,
    convolved,
    first_at,
    gated_tile,
    larger,
    largest,
    load_gate,
    load_parts,
    load_shifted,
    load_tile,
    load_values,
    load_weight,
    pixels_of,
    plain_sizes,
    plane_of,
    store_pools,
    takes_over,
    tap_of,
    tile_at,
)

MOST_SPLITS = 1024
"""Programs that add up gradients of kernels."""


@triton.jit
def channel_spatial_attention_bwd_channels_kernel(
    x,
    grad,
    logits,  # [N, C]
    q,  # [N, pools, H, W]
    found,  # the channel of the maximum, [N, H, W]
    dot,  # sums over channels of grad e, [N, H, W]
    sizes,  # passed
    GATE: tl.constexpr,
    MEAN: tl.constexpr,
    MAX: tl.constexpr,
    VECTOR: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """What the spatial gate and its gradient are made of."""
    s = plain_sizes(sizes, VECTOR)
    image = tl.program_id(0) // s.blocks
    pixel = pixels_of(tl.program_id(0) % s.blocks, s, PIXELS)
    total = tl.zeros((CHANNELS, PIXELS), tl.float32)
    products = tl.zeros((CHANNELS, PIXELS), tl.float32)
    best = tl.full((CHANNELS, PIXELS), float("-inf"), tl.float32)
    at = tl.zeros((CHANNELS, PIXELS), tl.int32) + channels_of(0, CHANNELS)
    for block in range(tl.cdiv(s.channels, CHANNELS)):
        channel = channels_of(block, CHANNELS)
        value, exists = gated_tile(x, logits, image, channel, pixel, s, GATE, VECTOR)
        slope, _ = load_tile(grad, s.grad, image, channel, pixel, s, VECTOR)
        total += value
        products += value * slope
        value = tl.where(exists, value, float("-inf"))
        at = tl.where(takes_over(value, best), channel, at)
        best = larger(best, value)
    maximum = largest(best, 0)
    store_pools(q, image, pixel, total, maximum, s, MEAN, MAX)
    there = pixel < s.pixels
    to = plane_of(dot, image, 0, s, 1) + pixel
    tl.store(to, tl.sum(products, axis=0, keep_dims=True), mask=there)
    if MAX:
        to = plane_of(found, image, 0, s, 1) + pixel
        tl.store(to, first_at(best, maximum, at, 0), mask=there)


@triton.jit
def channel_spatial_attention_bwd_gate_kernel(
    q,  # [N, pools, H, W]
    kernels,
    dot,  # [N, H, W], like gate and dsum
    gate,
    dsum,  # the gradient of what the gate is the sigmoid of
    sizes,  # passed
    SIZES: tl.constexpr,
    K: tl.constexpr,
    POOLS: tl.constexpr,
    VECTOR: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """The spatial gate and the gradient of the convolutions."""
    s = plain_sizes(sizes, VECTOR)
    image = tl.program_id(0) // s.blocks
    pixel = pixels_of(tl.program_id(0) % s.blocks, s, PIXELS)
    there = pixel < s.pixels
    logit = convolved(q, kernels, image, pixel, s, SIZES, K, POOLS)
    product = tl.load(plane_of(dot, image, 0, s, 1) + pixel, mask=there, other=0.0)
    slope = tl.sigmoid(logit) * tl.sigmoid(-logit)
    tl.store(plane_of(gate, image, 0, s, 1) + pixel, tl.sigmoid(logit), mask=there)
    tl.store(plane_of(dsum, image, 0, s, 1) + pixel, slope * product, mask=there)


@triton.jit
def channel_spatial_attention_bwd_spatial_kernel(
    q,  # [N, pools, H, W], like dq
    kernels,
    dsum,  # [N, H, W]
    dq,
    partial,  # [splits, pools, K, K]
    sizes,  # passed
    SIZES: tl.constexpr,
    K: tl.constexpr,
    TAPS: tl.constexpr,  # no fewer than K * K
    POOLS: tl.constexpr,
    VECTOR: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Gradients of the pools over channels, and each program's part of those of the kernels."""
    s = plain_sizes(sizes, VECTOR)
    pool = tl.arange(0, POOLS)[:, None]
    tap = tl.arange(0, TAPS)[None, :]
    dkernel = tl.zeros((POOLS, TAPS), tl.float32)
    for step in range(s.split_blocks):
        block = tl.program_id(0) * s.split_blocks + step
        image = block // s.blocks
        pixel = pixels_of(block % s.blocks, s, PIXELS)
        there = pixel < tl.where(image < s.images, s.pixels, 0)
        image = tl.minimum(image, s.images - 1)  # beyond the last there is nothing to read
        to = plane_of(q, image, pool, s, POOLS) + pixel
        value = tl.load(to, mask=there, other=0.0)  # [pools, P]
        total = tl.zeros((POOLS, PIXELS), tl.float32)
        for line in range(K):
            for i in tl.static_range(K):
                down, right = line - K // 2, i - K // 2
                # What this pixel gave to the convolution at another one.
                slope = load_shifted(plane_of(dsum, image, 0, s, 1), pixel, -down, -right, s)
                total += tap_of(kernels, pool, down, right, SIZES) * slope
                products = tl.sum(tl.where(there, value * slope, 0.0), axis=1, keep_dims=True)
                dkernel += tl.where(tap == line * K + i, products, 0.0)
        tl.store(plane_of(dq, image, pool, s, POOLS) + pixel, total, mask=there)
    to = partial + (tl.program_id(0) * POOLS + pool) * (K * K) + tap
    tl.store(to, dkernel, mask=tap < K * K)


@triton.jit
def _gradient_of_e(
    grad, gate, dq, found, image, channel, pixel, s,
    SPATIAL: tl.constexpr, MEAN: tl.constexpr, MAX: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """Through the spatial gate, and where it exists; [L, P]."""
    slope, exists = load_tile(grad, s.grad, image, channel, pixel, s, VECTOR)
    if SPATIAL:
        there = pixel < s.pixels
        slope *= tl.load(plane_of(gate, image, 0, s, 1) + pixel, mask=there, other=0.0)
        if MEAN:
            dmean = tl.load(plane_of(dq, image, 0, s, MEAN + MAX) + pixel, mask=there, other=0.0)
            slope += dmean / s.channels.to(tl.float32)
        if MAX:
            dmax = tl.load(plane_of(dq, image, MEAN, s, MEAN + MAX) + pixel, mask=there, other=0.0)
            at = tl.load(plane_of(found, image, 0, s, 1) + pixel, mask=there, other=-1)
            slope += tl.where(channel == at, dmax, 0.0)
    return slope, exists


@triton.jit
def channel_spatial_attention_bwd_sums_kernel(
    x,
    grad,
    gate,  # [N, H, W], like found
    dq,  # [N, pools, H, W]
    found,
    sums,  # [N, parts, C]
    sizes,  # passed
    SPATIAL: tl.constexpr,
    MEAN: tl.constexpr,
    MAX: tl.constexpr,
    VECTOR: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Sums over each part of a plane of x times the gradient of e."""
    s = plain_sizes(sizes, VECTOR)
    program = tl.program_id(0)
    part = program % s.parts
    blocks = tl.cdiv(s.channels, CHANNELS)
    image = program // s.parts // blocks
    channel = channels_of(program // s.parts % blocks, CHANNELS)
    total = tl.zeros((CHANNELS, PIXELS), tl.float32)
    for step in range(s.part_blocks):
        pixel = pixels_of(part * s.part_blocks + step, s, PIXELS)
        value, exists = load_tile(x, s.x, image, channel, pixel, s, VECTOR)
        slope, _ = _gradient_of_e(
            grad, gate, dq, found, image, channel, pixel, s, SPATIAL, MEAN, MAX, VECTOR
        )
        total += tl.where(exists, value * slope, 0.0)
    to = sums + (image.to(tl.int64) * s.parts + part) * s.channels + channel
    tl.store(to, tl.sum(total, axis=1, keep_dims=True), mask=channel < s.channels)


@triton.jit
def channel_spatial_attention_bwd_layers_kernel(
    kept,  # of channel_spatial_attention_fwd_gate_kernel, but for where maxima are
    logits,  # [N, C]
    sums,  # [N, parts, C]
    layers,  # the weights of reduce and of expand
    dpools,  # [N, pools, C]; of each pixel that the mean is taken over
    dlayers,  # [N, ...]: weight and bias of reduce, of expand
    sizes,  # passed
    MEAN: tl.constexpr,
    MAX: tl.constexpr,
    VECTOR: tl.constexpr,
    HIDDEN: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Gradients of the pools over pixels, and an image's part of those of the layers."""
    s = plain_sizes(sizes, VECTOR)
    image = tl.program_id(0).to(tl.int64)
    POOLS: tl.constexpr = MEAN + MAX
    unit = tl.arange(0, HIDDEN)[:, None]  # [U, 1]
    real = unit < s.hidden
    size = s.hidden * s.channels
    dreduce = dlayers + image * (2 * size + s.hidden + s.channels)
    dexpand = dreduce + size + s.hidden
    before = kept[1] + image * POOLS * s.hidden + unit
    first_units = tl.load(before, mask=real, other=0.0)
    last_units = tl.load(before + (POOLS - 1) * s.hidden, mask=real, other=0.0)
    active = tl.where(first_units < 0, 0.0, first_units)
    if POOLS == 2:
        active += tl.where(last_units < 0, 0.0, last_units)
    dhidden = tl.zeros((HIDDEN, 1), tl.float32)
    for first in range(0, s.channels, CHANNELS):
        channel = first + tl.arange(0, CHANNELS)[None, :]  # [1, L]
        known = channel < s.channels
        logit = load_values(logits + image * s.channels, channel, s.channels)
        dot = tl.sum(load_parts(sums, image, channel, s, 0.0), axis=0, keep_dims=True)
        dlogit = dot * tl.sigmoid(logit) * tl.sigmoid(-logit)
        weight = load_weight(layers[1], channel, unit, s.channels, s.hidden)  # [U, L]
        dhidden += tl.sum(weight * dlogit, axis=1, keep_dims=True)
        tl.store(dexpand + channel * s.hidden + unit, active * dlogit, mask=real & known)
        tl.store(dexpand + size + channel, POOLS * dlogit, mask=known)
    dfirst = tl.where(first_units > 0, dhidden, 0.0)
    dlast = tl.where(last_units > 0, dhidden, 0.0)
    tl.store(dreduce + size + unit, dfirst + dlast if POOLS == 2 else dfirst, mask=real)
    for first in range(0, s.channels, CHANNELS):
        channel = first + tl.arange(0, CHANNELS)[None, :]
        known = channel < s.channels
        at = image * POOLS * s.channels + channel
        weight = load_weight(layers[0], unit, channel, s.hidden, s.channels)  # [U, L]
        dweight = dfirst * tl.load(kept[0] + at, mask=known, other=0.0)
        dpool = tl.sum(weight * dfirst, axis=0, keep_dims=True)
        if MEAN:
            dpool = dpool / s.pixels.to(tl.float32)
        tl.store(dpools + at, dpool, mask=known)
        if POOLS == 2:
            at += s.channels
            dweight += dlast * tl.load(kept[0] + at, mask=known, other=0.0)
            tl.store(dpools + at, tl.sum(weight * dlast, axis=0, keep_dims=True), mask=known)
        tl.store(dreduce + unit * s.channels + channel, dweight, mask=real & known)


@triton.jit
def channel_spatial_attention_bwd_input_kernel(
    grad,
    logits,  # [N, C]
    gate,  # [N, H, W]
    dq,  # [N, pools, H, W]
    found,  # of maxima: the channel, [N, H, W], and the pixel, [N, C]
    dpools,  # [N, pools, C]
    grad_x,
    sizes,  # passed
    GATE: tl.constexpr,
    SPATIAL: tl.constexpr,
    MEAN: tl.constexpr,
    MAX: tl.constexpr,
    VECTOR: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """The gradient of x: that of e through the channel gate, and what the pools add."""
    s = plain_sizes(sizes, VECTOR)
    program = tl.program_id(0)
    group = program % s.groups
    image = program // s.groups // s.blocks
    pixel = pixels_of(program // s.groups % s.blocks, s, PIXELS)
    POOLS: tl.constexpr = MEAN + MAX
    for step in range(s.group_blocks):
        channel = channels_of(group * s.group_blocks + step, CHANNELS)
        known = channel < s.channels
        slope, exists = _gradient_of_e(
            grad, gate, dq, found[0], image, channel, pixel, s, SPATIAL, MEAN, MAX, VECTOR
        )
        if GATE:
            slope *= load_gate(logits, image, channel, s)
            at = dpools + image.to(tl.int64) * POOLS * s.channels + channel
            if MEAN:
                slope += tl.load(at, mask=known, other=0.0)
            if MAX:
                dmax = tl.load(at + MEAN * s.channels, mask=known, other=0.0)
                to = found[1] + image.to(tl.int64) * s.channels + channel
                slope += tl.where(pixel == tl.load(to, mask=known, other=-1), dmax, 0.0)
        to = tile_at(grad_x, s.out, image, channel, pixel, VECTOR)
        tl.store(to, slope.to(grad_x.dtype.element_ty), mask=exists)
