"""Triton kernels of the batch norms in `multiscale_norm_mix`; the README tells how they work.

A program has a part of a plane of one branch, P pixels at a time, or L pairs of branch and channel.
"""

import triton
import triton.language as tl

from lmwp_ops.ops.multiscale_mix.gradient_kernels import place_of, works_for
from lmwp_ops.ops.multiscale_mix.triton_kernels import (
    TAPS,
    convolved,
    pixels_of,
    plain_map,
    plane_of,
)
from lmwp_ops.ops.sizes.triton_kernels import plain


@triton.jit
def multiscale_norm_mix_fwd_moments_kernel(
    sources,  # what each branch convolves
    weights,  # [B, m, 3, 3]
    partial,  # pivots, sums of distances from them and of squares of these, pixels; see below
    parts,  # Part of each branch, passed
    splits,  # passed
    images,  # passed
    channels,  # passed
    PIXELS: tl.constexpr,
):
    """Moments of each part of a convolved plane around the mean of its first pixels; each of
    `partial` is [splits, N, B, m]."""
    for k in tl.static_range(len(parts)):
        if works_for(parts, k):
            image, channel, split, pair = place_of(parts, plain(splits), plain(channels), k)
            read, blocks = plain_map(parts[k].source), plain(parts[k].blocks)
            plane = plane_of(sources[k], read, image, channel)
            pivot = 0.0
            distances = tl.zeros((PIXELS,), tl.float32)
            squares = tl.zeros((PIXELS,), tl.float32)
            for step in range(blocks):
                pixel, row, column, exists = pixels_of(split * blocks + step, read, PIXELS)
                z = convolved(
                    plane + pixel, read, row, column,
                    plain(parts[k].dilation), weights + pair * TAPS, False,
                )  # fmt: skip
                if step == 0:
                    there = tl.maximum(tl.sum(exists.to(tl.int32)), 1).to(tl.float32)
                    pivot = tl.sum(tl.where(exists, z, 0.0)) / there
                distance = tl.where(exists, z - pivot, 0.0)
                distances += distance
                squares += distance * distance
            first = split.to(read.pixels.dtype) * blocks * PIXELS
            count = tl.maximum(tl.minimum(read.pixels - first, blocks * PIXELS), 0)
            pairs = len(parts) * plain(channels)
            at = (split.to(tl.int64) * plain(images) + image) * pairs + pair
            tl.store(partial[0] + at, pivot)
            tl.store(partial[1] + at, tl.sum(distances))
            tl.store(partial[2] + at, tl.sum(squares))
            tl.store(partial[3] + at, count.to(tl.int64))


@triton.jit
def row_of(split, images, image, pairs):
    """Where the pairs of an image begin, or those of one part of its planes."""
    return (tl.zeros((1,), tl.int64) + split * images + image) * pairs


@triton.jit
def _moments(partial, at, known):
    """Pivots, distances, squares and pixels of pairs in float64."""
    return [tl.load(kind + at, mask=known, other=0).to(tl.float64) for kind in partial]


@triton.jit
def multiscale_norm_mix_fwd_statistics_kernel(
    partial,  # of multiscale_norm_mix_fwd_moments_kernel
    affine,  # gamma and beta, [B, m]
    statistics,  # mean, variance, scale and shift, [B, m]
    means,  # of each plane after the norm, [N, B, m]
    splits,  # passed
    images,  # passed
    pairs,  # passed
    eps,
    PAIRS: tl.constexpr,
):
    """Statistics of the batch from those of the parts, always in the same order, and the affine
    steps that stand for the norms."""
    pair = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)  # [L]
    known = pair < plain(pairs)
    total = tl.zeros((PAIRS,), tl.float64)
    values = tl.zeros((PAIRS,), tl.float64)
    for row in range(plain(splits) * plain(images)):
        at = row_of(0, 0, row, plain(pairs)) + pair
        pivot, distances, _, count = _moments(partial, at, known)
        total += pivot * count + distances
        values += count
    values = tl.maximum(values, 1.0)
    mean = total / values
    squared = tl.zeros((PAIRS,), tl.float64)
    for row in range(plain(splits) * plain(images)):
        at = row_of(0, 0, row, plain(pairs)) + pair
        pivot, distances, squares, count = _moments(partial, at, known)
        further = pivot - mean
        squared += squares + further * (2 * distances + further * count)
    var = squared / values
    gamma = tl.load(affine[0] + pair, mask=known, other=0.0).to(tl.float64)
    beta = tl.load(affine[1] + pair, mask=known, other=0.0).to(tl.float64)
    scale = gamma / tl.sqrt(var + eps)
    tl.store(statistics[0] + pair, mean.to(tl.float32), mask=known)
    tl.store(statistics[1] + pair, var.to(tl.float32), mask=known)
    tl.store(statistics[2] + pair, scale.to(tl.float32), mask=known)
    tl.store(statistics[3] + pair, (beta - mean * scale).to(tl.float32), mask=known)
    for image in range(plain(images)):
        total = tl.zeros((PAIRS,), tl.float64)
        values = tl.zeros((PAIRS,), tl.float64)
        for split in range(plain(splits)):
            at = row_of(split, plain(images), image, plain(pairs)) + pair
            pivot, distances, _, count = _moments(partial, at, known)
            total += pivot * count + distances
            values += count
        normal = (total / tl.maximum(values, 1.0) - mean) * scale + beta
        to = means + row_of(0, 0, image, plain(pairs)) + pair
        tl.store(to, normal.to(tl.float32), mask=known)
