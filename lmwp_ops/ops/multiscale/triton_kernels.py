"""Triton kernel of multi-scale convolutions; the README of `goctconv2d` tells how it works.

Shapes: P pixels of a result, O of its channels, C channels of a source. `reading_kernels` says in
which modes sources are read. The adjoint of a resize that comes last is gathered in a launch of
its own, before anything else is done with the result.
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
    pointers_to,
    tile_of,
    value_at,
    works_for,
)
from lmwp_ops.ops.sizes.triton_kernels import Strides, mine, plain, plain_strides

CONFIGS = [
    {"OUT": 16, "IN": 1, "PIXELS": 256, "num_warps": 2},
    {"OUT": 16, "IN": 1, "PIXELS": 128, "num_warps": 4},
    {"OUT": 16, "IN": 1, "PIXELS": 256, "num_warps": 4},
    {"OUT": 8, "IN": 1, "PIXELS": 1024, "num_warps": 4},
    {"OUT": 16, "IN": 16, "PIXELS": 128, "num_warps": 4},
    {"OUT": 32, "IN": 16, "PIXELS": 128, "num_warps": 8},
]
"""Candidates of `multiscale_conv_kernel`; the default is the first, the second for few pixels, the
third for 3 x 3.

With IN of 1 products are added one channel at a time, else by `tl.dot`.
"""


class TermSizes(NamedTuple):
    """Of one convolution."""

    offset: int
    dilation: int
    read: Read


class ResultSizes(NamedTuple):
    """Of one result; maxima are those of its adjoint pools."""

    first: int  # program of the launch
    blocks: int  # of channels
    images: int
    channels: int
    height: int
    width: int  # in vectors
    rows: int
    columns: int
    result: Strides
    maxima: Strides
    terms: tuple[TermSizes, ...]


@triton.jit
def _plain_term(term):
    return TermSizes(plain(term.offset), plain(term.dilation), plain_read(term.read))


@triton.jit
def _add_products(total, w, x, IN: tl.constexpr):
    """total [O, P] + w [O, C] x [C, P], in float32 unless both are of one narrow dtype."""
    if IN == 1:
        total += w.to(tl.float32) * x.to(tl.float32)
    elif w.dtype == x.dtype:
        total = tl.dot(w, x, total, input_precision="ieee")
    else:
        total = tl.dot(w.to(tl.float32), x.to(tl.float32), total, input_precision="ieee")
    return total


@triton.jit
def _add_term(
    total, source, weight, term, result, image, row, column, exists, feature, MODE: tl.constexpr,
    K: tl.constexpr, ADJOINT: tl.constexpr, ENTRY: tl.constexpr, VECTOR: tl.constexpr,
    WIDE: tl.constexpr, IN: tl.constexpr,
):  # fmt: skip
    """total [O, P] + the convolution of one source, read at the scale of the result."""
    UNIT: tl.constexpr = VECTOR if MODE[0] == "same" and not ENTRY else 1
    UNROLL: tl.constexpr = 2 if MODE[0] == "same" and IN * K == 1 and not ENTRY else 1
    read = term.read
    images = image_at(source, image, read.strides, UNIT)
    for tap in range(K * K):
        down = (tap // K - K // 2) * term.dilation
        right = (tap % K - K // 2) * term.dilation
        rows = along_axis(row, down, read.height, result.height, MODE, ADJOINT)
        columns = along_axis(column, right, read.width * UNIT, result.width, MODE, ADJOINT)
        at = weight + term.offset + (K * K - 1 - tap if ADJOINT else tap) + feature * result.rows
        # Loads of one pixel each are too few to wait for one after the other.
        for first in tl.range(0, read.channels, IN, loop_unroll_factor=UNROLL):
            channel = first + tl.arange(0, IN)[:, None]  # [C, 1]
            there = channel < read.channels
            plane = plane_at(images, channel, read.strides, UNIT)
            x = tile_of(
                plane, rows, columns, read.strides, exists & there,
                MODE, ADJOINT, ENTRY, UNIT, WIDE,
            )  # fmt: skip
            known = there.trans() & (feature < result.channels)
            w = tl.load(at + channel.trans() * result.columns, mask=known, other=0.0)  # [O, C]
            total = _add_products(total, w, x, IN)
    return total


@triton.jit
def _is_maximum(
    plane, row, column, strides, mask, size,
    SIDE: tl.constexpr, ENTRY: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Where a pixel is what its window's maximum is taken from: the first one, or the last NaN."""
    top, left = row // SIDE * SIDE, column // SIDE * SIDE
    whole = mask & (top + SIDE <= size.height) & (left + SIDE <= size.width)
    best = tl.full(whole.shape, float("-inf"), tl.float32)
    found = tl.zeros(whole.shape, tl.int32)
    for i in range(SIDE * SIDE):
        value = value_at(plane, top + i // SIDE, left + i % SIDE, strides, whole, ENTRY, 1, WIDE)
        value = value.to(tl.float32)
        takes = (value > best) | (value != value)
        best = tl.where(takes, value, best)
        found = tl.where(takes, i, found)
    return whole & (found == row % SIDE * SIDE + column % SIDE)


@triton.jit
def _parameter(data, feature, mask):
    return tl.load(data + feature, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _convolve(
    tensors, sizes, VECTOR: tl.constexpr, MODES: tl.constexpr, K: tl.constexpr,
    AFFINE: tl.constexpr, PRELU: tl.constexpr, ADJOINT: tl.constexpr, ENTRY: tl.constexpr,
    WIDE: tl.constexpr, OUT: tl.constexpr, IN: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """One program's part of a result whose terms are read in MODES."""
    t, s = mine(tensors, sizes)
    s = ResultSizes(
        *[plain(size) for size in s[:5]],
        plain(s.width) * VECTOR,
        plain(s.rows),
        plain(s.columns),
        plain_strides(s.result),
        plain_strides(s.maxima),
        [_plain_term(term) for term in s.terms],
    )
    part = tl.program_id(0) - s.first
    image, row, column, exists = pixels_of(
        part // s.blocks, s.images, s.height, s.width, PIXELS, VECTOR, WIDE
    )  # [1, P]
    feature = part % s.blocks * OUT + tl.arange(0, OUT)[:, None]  # [O, 1]
    known = feature < s.channels
    total = tl.zeros((OUT, PIXELS), tl.float32)
    for i in tl.static_range(len(MODES)):
        if ADJOINT and item(MODES, i)[0] == "pool":
            added = _add_term(
                tl.zeros((OUT, PIXELS), tl.float32), t.sources[i], t.weights[i], s.terms[i], s,
                image, row, column, exists, feature, item(MODES, i),
                K, ADJOINT, False, VECTOR, WIDE, IN,
            )  # fmt: skip
            maxima = plane_at(image_at(t.maxima, image, s.maxima, 1), feature, s.maxima, 1)
            taken = _is_maximum(
                maxima, row, column, s.maxima, exists & known, s, item(MODES, i)[1], ENTRY, WIDE
            )
            total += tl.where(taken, added, 0.0)
        else:
            total = _add_term(
                total, t.sources[i], t.weights[i], s.terms[i], s, image, row, column, exists,
                feature, item(MODES, i), K, ADJOINT, ENTRY and not ADJOINT, VECTOR, WIDE, IN,
            )  # fmt: skip
    if AFFINE:
        total = total * _parameter(t.scale, feature, known) + _parameter(t.shift, feature, known)
    if PRELU:
        total = tl.where(total > 0, total, total * _parameter(t.slope, feature, known))
    plane = plane_at(image_at(t.result, image, s.result, VECTOR), feature, s.result, VECTOR)
    narrow = plane.dtype.element_ty
    if ENTRY and ADJOINT:
        for i in tl.static_range(4):
            pixels = pointers_to(plane, row * 2 + i // 2, column * 2 + i % 2, s.result, 1, WIDE)
            tl.store(pixels, (total * 0.25).to(narrow), mask=exists & known)
    else:
        pixels = pointers_to(plane, row, column, s.result, VECTOR, WIDE)
        tl.store(pixels, total.to(narrow), mask=exists & known)


@triton.jit
def multiscale_conv_kernel(
    tensors,  # of the results of each kind, see triton_launch.ResultTensors
    sizes,  # ResultSizes of those, passed
    VECTORS: tl.constexpr,  # of the results of each kind
    MODES: tl.constexpr,  # of the terms of the results of each kind
    K: tl.constexpr,
    AFFINE: tl.constexpr,
    PRELU: tl.constexpr,
    ADJOINT: tl.constexpr,
    ENTRY: tl.constexpr,
    WIDE: tl.constexpr,
    OUT: tl.constexpr,
    IN: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Results that are sums of convolutions; with ADJOINT gradients of inputs of such sums."""
    for i in tl.static_range(len(MODES)):
        if works_for(sizes, i):
            _convolve(
                tensors[i], sizes[i], VECTORS[i], item(MODES, i),
                K, AFFINE, PRELU, ADJOINT, ENTRY, WIDE, OUT, IN, PIXELS,
            )  # fmt: skip
