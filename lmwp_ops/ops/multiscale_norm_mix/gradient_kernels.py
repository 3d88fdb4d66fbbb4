"""Triton kernels of the gradients of `multiscale_norm_mix`.

A program has a part of a plane of one branch, P pixels at a time, or L pairs of branch and channel.
"""

import triton
import triton.language as tl

from lmwp_ops.ops.multiscale_mix.gradient_kernels import (
    SUMS,
    add_products,
    load_taps,
    place_of,
    together,
    works_for,
    zeros,
)
from lmwp_ops.ops.multiscale_mix.triton_kernels import (
    TAPS,
    convolved,
    load_at,
    pixels_of,
    plain_map,
    plane_of,
)
from lmwp_ops.ops.multiscale_norm_mix.triton_kernels import row_of
from lmwp_ops.ops.sizes.triton_kernels import plain


@triton.jit
def multiscale_norm_mix_bwd_sums_kernel(
    sources,  # what each branch convolves
    grads,  # of what each branch gives, but for its share
    weights,  # [B, m, 3, 3]
    mean,  # [B, m]
    partial,  # sums of gradients, and of these times z - mean; [splits, N, B, m] each
    parts,  # Part of each branch, passed
    splits,  # passed
    images,  # passed
    channels,  # passed
    PIXELS: tl.constexpr,
):
    """What the gradients of mix, gamma and beta are made of, for each part of a plane."""
    for k in tl.static_range(len(parts)):
        if works_for(parts, k):
            image, channel, split, pair = place_of(parts, plain(splits), plain(channels), k)
            read, g = plain_map(parts[k].source), plain_map(parts[k].grad)
            plane = plane_of(sources[k], read, image, channel)
            grad_plane = plane_of(grads[k], g, image, channel)
            centre = tl.load(mean + pair)
            sums = tl.zeros((PIXELS,), tl.float32)
            products = tl.zeros((PIXELS,), tl.float32)
            for step in range(plain(parts[k].blocks)):
                block = split * plain(parts[k].blocks) + step
                pixel, row, column, _ = pixels_of(block, read, PIXELS)
                z = convolved(
                    plane + pixel, read, row, column,
                    plain(parts[k].dilation), weights + pair * TAPS, False,
                )  # fmt: skip
                grad = load_at(grad_plane, g, row, column)
                sums += grad
                products += grad * (z - centre)
            pairs = len(parts) * plain(channels)
            at = (split.to(tl.int64) * plain(images) + image) * pairs + pair
            tl.store(partial[0] + at, tl.sum(sums))
            tl.store(partial[1] + at, tl.sum(products))


@triton.jit
def multiscale_norm_mix_bwd_statistics_kernel(
    partial,  # of multiscale_norm_mix_bwd_sums_kernel
    affine,  # gamma, beta and the batch variance, [B, m]
    mix,  # [N, B, m]
    gradients,  # of gamma and beta, [B, m], and of mix
    splits,  # passed
    images,  # passed
    pairs,  # passed
    eps,
    PAIRS: tl.constexpr,
):
    """Gradients of gamma, beta and mix, always added up in the same order."""
    pair = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)  # [L]
    known = pair < plain(pairs)
    gamma = tl.load(affine[0] + pair, mask=known, other=0.0).to(tl.float32)
    beta = tl.load(affine[1] + pair, mask=known, other=0.0).to(tl.float32)
    rstd = tl.div_rn(1.0, tl.sqrt_rn(tl.load(affine[2] + pair, mask=known, other=1.0) + eps))
    dgamma = tl.zeros((PAIRS,), tl.float32)
    dbeta = tl.zeros((PAIRS,), tl.float32)
    for image in range(plain(images)):
        sums = tl.zeros((PAIRS,), tl.float32)
        products = tl.zeros((PAIRS,), tl.float32)
        for split in range(plain(splits)):
            at = row_of(split, plain(images), image, plain(pairs)) + pair
            sums += tl.load(partial[0] + at, mask=known, other=0.0)
            products += tl.load(partial[1] + at, mask=known, other=0.0)
        products = products * rstd
        to = row_of(0, 0, image, plain(pairs)) + pair
        share = tl.load(mix + to, mask=known, other=0.0)
        dgamma += share * products
        dbeta += share * sums
        tl.store(gradients[2] + to, gamma * products + beta * sums, mask=known)
    tl.store(gradients[0] + pair, dgamma, mask=known)
    tl.store(gradients[1] + pair, dbeta, mask=known)


@triton.jit
def _sum_of(taps, weight):
    total = tl.zeros(taps[0].shape, tl.float32)
    for tap in tl.static_range(TAPS):
        total += taps[tap] * tl.load(weight + tap).to(tl.float32)
    return total


@triton.jit
def multiscale_norm_mix_bwd_weight_kernel(
    sources,  # what each branch convolves
    grads,  # of what each branch gives, but for its share
    results,  # the gradient of what each branch convolved, dense
    parameters,  # weights [B, m, 3, 3], gamma [B, m], mean, variance; mix [N, B, m]
    gradients,  # of gamma and beta, [B, m]
    partial,  # [splits, N, B, m, SUMS]
    parts,  # Part of each branch, passed
    splits,  # passed
    images,  # passed
    channels,  # passed
    eps,
    PIXELS: tl.constexpr,
):
    """dz = gamma r (mix e - dbeta / M - (z - mean) r dgamma / M), r = 1 / sqrt(var + eps), and of
    each part of a plane its sums times what taps read."""
    for k in tl.static_range(len(parts)):
        if works_for(parts, k):
            image, channel, split, pair = place_of(parts, plain(splits), plain(channels), k)
            pairs = len(parts) * plain(channels)
            of_image = image.to(tl.int64) * pairs + pair
            read, g = plain_map(parts[k].source), plain_map(parts[k].grad)
            values = plain(images).to(tl.float32) * read.pixels.to(tl.float32)
            rstd = tl.div_rn(1.0, tl.sqrt_rn(tl.load(parameters[3] + pair) + eps))
            scale = tl.load(parameters[1] + pair).to(tl.float32) * rstd
            centre, share = tl.load(parameters[2] + pair), tl.load(parameters[4] + of_image)
            by_z = tl.load(gradients[0] + pair) * rstd / values
            constant = tl.load(gradients[1] + pair) / values
            plane = plane_of(sources[k], read, image, channel)
            grad_plane = plane_of(grads[k], g, image, channel)
            plane_number = image.to(tl.int64) * plain(channels) + channel
            result = results[k] + plane_number * read.pixels
            sums = zeros(PIXELS)
            for step in range(plain(parts[k].blocks)):
                block = split * plain(parts[k].blocks) + step
                pixel, row, column, exists = pixels_of(block, read, PIXELS)
                taps = load_taps(plane + pixel, read, row, column, plain(parts[k].dilation))
                z = _sum_of(taps, parameters[0] + pair * TAPS)
                grad = load_at(grad_plane, g, row, column)
                dz = scale * (share * grad - constant - (z - centre) * by_z)
                dz = tl.where(exists, dz, 0.0)
                tl.store(result + pixel, dz, mask=exists)
                sums = add_products(sums, dz, taps)
            at = split.to(tl.int64) * plain(images) * pairs + of_image
            tl.store(partial + at * SUMS + tl.arange(0, SUMS), together(sums))
