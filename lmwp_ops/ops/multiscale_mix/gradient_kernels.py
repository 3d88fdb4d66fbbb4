"""Triton kernels of the gradients of `multiscale_mix` with respect to its parameters.

A program of the first adds up a part of a plane, of the second has L pairs of branch and channel.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from lmwp_ops._triton import MAX_REGISTERS
from lmwp_ops.ops.multiscale_mix.triton_kernels import (
    TAPS,
    Map,
    load_at,
    load_tap,
    pixels_of,
    plain_map,
    plane_of,
)
from lmwp_ops.ops.sizes.triton_kernels import plain

SUM_CONFIG = {"PAIRS": 16, "num_warps": 2, "maxnreg": MAX_REGISTERS}
"""Of the kernels that bring parts together."""

SUMS = tl.constexpr(16)
"""Room for what is summed of a pair, taps first."""


class Part(NamedTuple):
    """One branch, and how its planes are divided."""

    first: int  # program of the launch
    blocks: int  # of pixels in a part
    dilation: int
    source: Map
    grad: Map


@triton.jit
def works_for(parts, BRANCH: tl.constexpr):
    """Whether a program belongs to a branch; `parts` are passed."""
    works = tl.program_id(0) >= plain(parts[BRANCH].first)
    if len(parts) > BRANCH + 1:
        works = works & (tl.program_id(0) < plain(parts[BRANCH + 1].first))
    return works


@triton.jit
def place_of(parts, splits, channels, BRANCH: tl.constexpr):
    """The image, channel and part of a plane that a program has, and the pair of its branch and
    channel."""
    program = tl.program_id(0) - plain(parts[BRANCH].first)
    plane = program // splits
    channel = plane % channels
    return plane // channels, channel, program % splits, BRANCH * channels + channel


@triton.jit
def load_taps(pixels, m, row, column, dilation):
    """What all taps of 3 x 3 read, one after the other."""
    taps = ()
    for tap in tl.static_range(TAPS):
        taps = taps + (load_tap(pixels, m, row, column, dilation, tap),)
    return taps


@triton.jit
def zeros(PIXELS: tl.constexpr):
    """Of each tap and, last, of the gradient itself."""
    sums = ()
    for _ in tl.static_range(TAPS + 1):
        sums = sums + (tl.zeros((PIXELS,), tl.float32),)
    return sums


@triton.jit
def add_products(sums, grad, taps):
    """Adds a gradient times each tap, and itself, pixel by pixel."""
    added = ()
    for tap in tl.static_range(TAPS):
        added = added + (sums[tap] + grad * taps[tap],)
    return added + (sums[TAPS] + grad,)


@triton.jit
def together(sums):
    """[SUMS], over the pixels."""
    lane = tl.arange(0, SUMS)
    total = tl.zeros((SUMS,), tl.float32)
    for i in tl.static_range(len(sums)):
        total += tl.where(lane == i, tl.sum(sums[i]), 0.0)
    return total


@triton.jit
def multiscale_mix_bwd_weight_kernel(
    sources,  # what each branch convolves
    grads,  # of what each branch gives, but for its share
    mix,  # [N, B, m]
    partial,  # [splits, N, B, m, SUMS]
    parts,  # Part of each branch, passed
    splits,  # passed
    images,  # passed
    channels,  # passed
    SKIP: tl.constexpr,  # whether nothing is needed where the share is 0
    PIXELS: tl.constexpr,
):
    """Of each part of a plane the sums of gradients times what taps read, and of gradients."""
    for k in tl.static_range(len(parts)):
        if works_for(parts, k):
            image, channel, split, pair = place_of(parts, plain(splits), plain(channels), k)
            pairs = len(parts) * plain(channels)
            of_image = image.to(tl.int64) * pairs + pair
            used = True
            if SKIP:
                used = tl.load(mix + of_image) != 0
            sums = zeros(PIXELS)
            if used:
                read, g = plain_map(parts[k].source), plain_map(parts[k].grad)
                plane = plane_of(sources[k], read, image, channel)
                grad_plane = plane_of(grads[k], g, image, channel)
                for step in range(plain(parts[k].blocks)):
                    block = split * plain(parts[k].blocks) + step
                    pixel, row, column, _ = pixels_of(block, read, PIXELS)
                    dilation = plain(parts[k].dilation)
                    taps = load_taps(plane + pixel, read, row, column, dilation)
                    grad = load_at(grad_plane, g, row, column)
                    sums = add_products(sums, grad, taps)
            at = split.to(tl.int64) * plain(images) * pairs + of_image
            tl.store(partial + at * SUMS + tl.arange(0, SUMS), together(sums))


@triton.jit
def multiscale_mix_bwd_parameters_kernel(
    partial,  # [splits, N, B, m, SUMS]
    parameters,  # weights [B, m, 3, 3], scale [B, m], shift [B, m], mix [N, B, m]
    gradients,  # of these, in float32
    splits,  # passed
    images,  # passed
    pairs,  # passed
    PAIRS: tl.constexpr,
):
    """Gradients of all parameters, always added up in the same order."""
    pair = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)[:, None]  # [L, 1]
    known = pair < plain(pairs)
    lane = tl.arange(0, SUMS)[None, :]
    is_tap = known & (lane < TAPS)
    weight = tl.load(parameters[0] + pair * TAPS + lane, mask=is_tap, other=0.0).to(tl.float32)
    scale = tl.load(parameters[1] + pair, mask=known, other=0.0).to(tl.float32)
    shift = tl.load(parameters[2] + pair, mask=known, other=0.0).to(tl.float32)
    dweight = tl.zeros((PAIRS, SUMS), tl.float32)
    dscale = tl.zeros((PAIRS, 1), tl.float32)
    dshift = tl.zeros((PAIRS, 1), tl.float32)
    for image in range(plain(images)):
        sums = tl.zeros((PAIRS, SUMS), tl.float32)
        for split in range(plain(splits)):
            row = (tl.zeros((1, 1), tl.int64) + split) * plain(images) + image
            at = partial + (row * plain(pairs) + pair) * SUMS + lane
            sums += tl.load(at, mask=known, other=0.0)
        z_sum = tl.sum(tl.where(is_tap, weight * sums, 0.0), axis=1, keep_dims=True)
        grad_sum = tl.sum(tl.where(lane == TAPS, sums, 0.0), axis=1, keep_dims=True)
        to = (tl.zeros((1, 1), tl.int64) + image) * plain(pairs) + pair
        share = tl.load(parameters[3] + to, mask=known, other=0.0)
        tl.store(gradients[3] + to, scale * z_sum + shift * grad_sum, mask=known)
        dweight += tl.where(share != 0, share * scale * sums, 0.0)
        dscale += tl.where(share != 0, share * z_sum, 0.0)
        dshift += tl.where(share != 0, share * grad_sum, 0.0)
    tl.store(gradients[0] + pair * TAPS + lane, dweight, mask=is_tap)
    tl.store(gradients[1] + pair, dscale, mask=known)
    tl.store(gradients[2] + pair, dshift, mask=known)
