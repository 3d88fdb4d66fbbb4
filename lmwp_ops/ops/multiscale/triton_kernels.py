"""Triton kernels of multi-scale convolutions; the README of `goctconv2d` tells how they work.

Shapes: P pixels of a result, in vectors of neighbouring columns; O of its channels; C channels of
a source. A mode (kind, size) says how a source is read at the scale of the result:

    same           where it is
    pool           the maximum of size x size; its adjoint sends a sum to where that maximum was
    resize_first   resized bilinearly, then convolved
    resize_last    convolved, then resized bilinearly; linear, so read resized for each tap apart

The adjoint of a resize gathers what it scattered, from size x size pixels at most: in a launch of
its own where the resize comes last, so before anything else is done with the result.
"""

from typing import NamedTuple

import triton
import triton.language as tl

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

WEIGHT_CONFIGS = [
    {"OUT": 8, "IN": 8, "PIXELS": 128, "num_warps": 4},
    {"OUT": 8, "IN": 8, "PIXELS": 64, "num_warps": 2},
    {"OUT": 4, "IN": 8, "PIXELS": 256, "num_warps": 4},
    {"OUT": 8, "IN": 4, "PIXELS": 256, "num_warps": 4},
]
"""Candidates of `multiscale_weight_kernel`; the first is the default."""

GATHER_CONFIGS = [{"PIXELS": 256, "num_warps": 4}]
"""Of `multiscale_gather_kernel`."""


class Read(NamedTuple):
    """Extents and strides of a feature that is read."""

    channels: int
    height: int
    width: int  # in vectors
    strides: Strides


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


class BlockSizes(NamedTuple):
    """Of one block of a weight."""

    first: int  # program of the launch
    grad_blocks: int  # of channels
    x_blocks: int
    images: int
    offset: int
    rows: int
    columns: int
    weights: int  # in all
    dilation: int
    steps: int  # blocks of pixels for each program
    grad: Read
    x: Read


class GatherSizes(NamedTuple):
    """Of one gradient that is gathered."""

    first: int  # program of the launch
    images: int
    height: int
    width: int
    size: int  # most pixels to gather from along one axis
    grad: Read


@triton.constexpr_function
def _item(constants, i):
    """A tuple among constants; `[i]` would make arguments of it."""
    return constants[i]


@triton.jit
def _plain_read(read):
    return Read(*[plain(size) for size in read[:3]], plain_strides(read.strides))


@triton.jit
def _plain_term(term):
    return TermSizes(plain(term.offset), plain(term.dilation), _plain_read(term.read))


@triton.jit
def _works_for(sizes, KIND: tl.constexpr):
    """Whether a program belongs to a kind of results; `sizes` are those of all, passed."""
    works = tl.program_id(0) >= plain(sizes[KIND][0].first)
    if len(sizes) > KIND + 1:
        works = works & (tl.program_id(0) < plain(sizes[KIND + 1][0].first))
    return works


@triton.jit
def _pixels(
    block, images, height, width, PIXELS: tl.constexpr, VECTOR: tl.constexpr, WIDE: tl.constexpr
):
    """Image, row and column of each pixel of a block, and whether there is one; [1, P]."""
    lane = tl.arange(0, PIXELS)[None, :]
    first = block.to(tl.int64) if WIDE else block
    vector = first * (PIXELS // VECTOR) + lane // VECTOR
    vectors = width // VECTOR
    column = (vector % vectors * VECTOR + lane % VECTOR).to(tl.int32)
    row = (vector // vectors % height).to(tl.int32)
    image = vector // vectors // height
    return image, row, column, image < images


@triton.jit
def _image(data, image, strides, UNIT: tl.constexpr):
    """Where images begin; strides count UNIT elements."""
    return data + image.to(tl.int64) * strides.image * UNIT


@triton.jit
def _plane(images, channel, strides, UNIT: tl.constexpr):
    """Where the planes of `channel` begin in their images."""
    return images + channel.to(tl.int64) * strides.channel * UNIT


@triton.jit
def _pointers(plane, row, column, strides, UNIT: tl.constexpr, WIDE: tl.constexpr):
    """To pixels in their planes, [1, P] or [C, P]; columns are neighbours where UNIT is not 1."""
    if WIDE:
        row = row.to(tl.int64)
        column = column.to(tl.int64)
    if UNIT == 1:
        pointers = plane + (row * strides.row + column * strides.column)
        # As a rule: so threads go along columns. Without known alignment each reads one pixel.
        pointers = tl.max_contiguous(pointers, (1, 2))
    else:
        pointers = plane + (row * strides.row * UNIT + column)
    return pointers


@triton.jit
def _value(
    plane, row, column, strides, mask,
    ENTRY: tl.constexpr, UNIT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Pixels of a branch, or with ENTRY averages of 2 x 2 of them."""
    if ENTRY:
        value = 0.0
        for i in tl.static_range(4):
            pixels = _pointers(plane, row * 2 + i // 2, column * 2 + i % 2, strides, 1, WIDE)
            value += tl.load(pixels, mask=mask, other=0.0).to(tl.float32)
        value = value * 0.25
    else:
        pixels = _pointers(plane, row, column, strides, UNIT, WIDE)
        value = tl.load(pixels, mask=mask, other=0.0)
    return value


@triton.jit
def _interpolated(position, grid, source):
    """Bilinear resize from `source` to `grid` pixels: first source position and weight of the next,
    as torch has them without aligned corners."""
    scale = tl.div_rn(source.to(tl.float32), grid.to(tl.float32))
    at = tl.maximum((position.to(tl.float32) + 0.5) * scale - 0.5, 0.0)
    low = tl.minimum(at.to(tl.int32), source - 1)
    return low, at - low.to(tl.float32)


@triton.jit
def _scattered(position, grid, source):
    """Adjoint of a bilinear resize from `grid` to `source` pixels: the first one to gather from."""
    ratio = tl.div_rn(source.to(tl.float32), grid.to(tl.float32))
    return tl.floor((position.to(tl.float32) - 0.5) * ratio - 0.5).to(tl.int32) + 1


@triton.jit
def _share(to, position, grid, source):
    """What `position` weighs in pixel `to` of `source`; nothing where there is no such pixel."""
    low, weight = _interpolated(to, source, grid)
    share = tl.where(low == position, 1.0 - weight, 0.0)
    share += tl.where(tl.minimum(low + 1, grid - 1) == position, weight, 0.0)
    return tl.where((to >= 0) & (to < source), share, 0.0)


@triton.jit
def _axis(position, shift, source, grid, MODE: tl.constexpr, ADJOINT: tl.constexpr):
    """What a tap reads along one axis: (position in the source, weight, whether it exists) each."""
    KIND: tl.constexpr = MODE[0]
    SIZE: tl.constexpr = MODE[1]
    reads = ()
    if KIND == "same":
        at = position + shift
        reads = ((at, 1.0, (at >= 0) & (at < source)),)
    elif KIND == "pool":
        window = position // SIZE if ADJOINT else position + shift
        at = window + shift if ADJOINT else window * SIZE
        exists = (window < source) & (at < source) if ADJOINT else window < grid
        reads = ((at, 1.0, (at >= 0) & exists),)
    elif ADJOINT:
        start = _scattered(position, grid, source)
        for i in tl.static_range(SIZE):
            at = start + i + shift
            share = _share(start + i, position, grid, source)
            reads = reads + ((at, share, (share > 0) & (at >= 0) & (at < source)),)
    else:
        before = shift if KIND == "resize_first" else 0
        centre = position + before
        low, weight = _interpolated(centre, grid, source)
        for i in tl.static_range(2):
            at = (low if i == 0 else tl.minimum(low + 1, source - 1)) + shift - before
            share = 1.0 - weight if i == 0 else weight
            exists = (centre >= 0) & (centre < grid) & (at >= 0) & (at < source)
            reads = reads + ((at, share, exists),)
    return reads


@triton.jit
def _resized(
    plane, rows, columns, strides, mask,
    ENTRY: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The weighted sum of what a tap reads of each channel, [C, P]."""
    total = 0.0
    for r in tl.static_range(len(rows)):
        line = 0.0
        for c in tl.static_range(len(columns)):
            exists = mask & rows[r][2] & columns[c][2]
            value = _value(plane, rows[r][0], columns[c][0], strides, exists, ENTRY, 1, WIDE)
            line += value.to(tl.float32) * columns[c][1]
        total += line * rows[r][1]
    return total


@triton.jit
def _pooled(
    plane, row, column, strides, mask,
    SIDE: tl.constexpr, ENTRY: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The maximum of a window of each channel, [C, P], or a NaN in it."""
    first = _value(plane, row, column, strides, mask, ENTRY, 1, WIDE)
    best = first.to(tl.float32)
    for i in range(1, SIDE * SIDE):
        value = _value(plane, row + i // SIDE, column + i % SIDE, strides, mask, ENTRY, 1, WIDE)
        best = tl.maximum(best, value.to(tl.float32), propagate_nan=tl.PropagateNan.ALL)
    return best.to(first.dtype)


@triton.jit
def _tile(
    plane, rows, columns, strides, mask, MODE: tl.constexpr, ADJOINT: tl.constexpr,
    ENTRY: tl.constexpr, UNIT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """What a tap reads of each channel, [C, P]."""
    if MODE[0] == "resize_first" or MODE[0] == "resize_last":
        tile = _resized(plane, rows, columns, strides, mask, ENTRY, WIDE)
    else:
        row, column = rows[0][0], columns[0][0]
        exists = mask & rows[0][2] & columns[0][2]
        if MODE[0] == "pool" and not ADJOINT:
            tile = _pooled(plane, row, column, strides, exists, MODE[1], ENTRY, WIDE)
        else:
            tile = _value(plane, row, column, strides, exists, ENTRY, UNIT, WIDE)
    return tile


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
    images = _image(source, image, read.strides, UNIT)
    for tap in range(K * K):
        down = (tap // K - K // 2) * term.dilation
        right = (tap % K - K // 2) * term.dilation
        rows = _axis(row, down, read.height, result.height, MODE, ADJOINT)
        columns = _axis(column, right, read.width * UNIT, result.width, MODE, ADJOINT)
        at = weight + term.offset + (K * K - 1 - tap if ADJOINT else tap) + feature * result.rows
        # Loads of one pixel each are too few to wait for one after the other.
        for first in tl.range(0, read.channels, IN, loop_unroll_factor=UNROLL):
            channel = first + tl.arange(0, IN)[:, None]  # [C, 1]
            there = channel < read.channels
            plane = _plane(images, channel, read.strides, UNIT)
            x = _tile(
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
        value = _value(plane, top + i // SIDE, left + i % SIDE, strides, whole, ENTRY, 1, WIDE)
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
    image, row, column, exists = _pixels(
        part // s.blocks, s.images, s.height, s.width, PIXELS, VECTOR, WIDE
    )  # [1, P]
    feature = part % s.blocks * OUT + tl.arange(0, OUT)[:, None]  # [O, 1]
    known = feature < s.channels
    total = tl.zeros((OUT, PIXELS), tl.float32)
    for i in tl.static_range(len(MODES)):
        if ADJOINT and _item(MODES, i)[0] == "pool":
            added = _add_term(
                tl.zeros((OUT, PIXELS), tl.float32), t.sources[i], t.weights[i], s.terms[i], s,
                image, row, column, exists, feature, _item(MODES, i),
                K, ADJOINT, False, VECTOR, WIDE, IN,
            )  # fmt: skip
            maxima = _plane(_image(t.maxima, image, s.maxima, 1), feature, s.maxima, 1)
            taken = _is_maximum(
                maxima, row, column, s.maxima, exists & known, s, _item(MODES, i)[1], ENTRY, WIDE
            )
            total += tl.where(taken, added, 0.0)
        else:
            total = _add_term(
                total, t.sources[i], t.weights[i], s.terms[i], s, image, row, column, exists,
                feature, _item(MODES, i), K, ADJOINT, ENTRY and not ADJOINT, VECTOR, WIDE, IN,
            )  # fmt: skip
    if AFFINE:
        total = total * _parameter(t.scale, feature, known) + _parameter(t.shift, feature, known)
    if PRELU:
        total = tl.where(total > 0, total, total * _parameter(t.slope, feature, known))
    plane = _plane(_image(t.result, image, s.result, VECTOR), feature, s.result, VECTOR)
    narrow = plane.dtype.element_ty
    if ENTRY and ADJOINT:
        for i in tl.static_range(4):
            pixels = _pointers(plane, row * 2 + i // 2, column * 2 + i % 2, s.result, 1, WIDE)
            tl.store(pixels, (total * 0.25).to(narrow), mask=exists & known)
    else:
        pixels = _pointers(plane, row, column, s.result, VECTOR, WIDE)
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
        if _works_for(sizes, i):
            _convolve(
                tensors[i], sizes[i], VECTORS[i], _item(MODES, i),
                K, AFFINE, PRELU, ADJOINT, ENTRY, WIDE, OUT, IN, PIXELS,
            )  # fmt: skip


@triton.jit
def _correlate(
    tensors, sizes, partial, MODE: tl.constexpr, K: tl.constexpr, ENTRY: tl.constexpr,
    WIDE: tl.constexpr, OUT: tl.constexpr, IN: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """One program's products of a gradient and an input, read in MODE, summed over its pixels."""
    t, s = mine(tensors, sizes)
    s = BlockSizes(*[plain(size) for size in s[:10]], _plain_read(s.grad), _plain_read(s.x))
    part = tl.program_id(0) - s.first
    tap = part % (K * K)
    part = part // (K * K)
    feature = part % s.grad_blocks * OUT + tl.arange(0, OUT)[:, None]  # [O, 1]
    part = part // s.grad_blocks
    channel = part % s.x_blocks * IN + tl.arange(0, IN)[:, None]  # [C, 1]
    split = part // s.x_blocks
    down = (tap // K - K // 2) * s.dilation
    right = (tap % K - K // 2) * s.dilation
    g, x = s.grad, s.x
    total = tl.zeros((OUT, IN, PIXELS), tl.float32)
    for step in range(s.steps):
        image, row, column, exists = _pixels(
            split * s.steps + step, s.images, g.height, g.width, PIXELS, 1, WIDE
        )
        grads = _value(
            _plane(_image(t.grad, image, g.strides, 1), feature, g.strides, 1),
            row, column, g.strides, exists & (feature < g.channels), False, 1, WIDE,
        )  # fmt: skip
        inputs = _tile(
            _plane(_image(t.x, image, x.strides, 1), channel, x.strides, 1),
            _axis(row, down, x.height, g.height, MODE, False),
            _axis(column, right, x.width, g.width, MODE, False),
            x.strides, exists & (channel < x.channels), MODE, False, ENTRY, 1, WIDE,
        )  # fmt: skip
        total += grads.to(tl.float32)[:, None, :] * inputs.to(tl.float32)[None, :, :]
    at = partial + split.to(tl.int64) * s.weights + s.offset + tap
    at = at + feature * s.rows + channel.trans() * s.columns
    known = (feature < g.channels) & (channel < x.channels).trans()
    tl.store(at, tl.sum(total, axis=2), mask=known)


@triton.jit
def multiscale_weight_kernel(
    tensors,  # of the blocks of each kind, see triton_launch.BlockTensors
    sizes,  # BlockSizes of those, passed
    partial,  # [splits, weights]
    MODES: tl.constexpr,  # of the inputs of the blocks of each kind
    K: tl.constexpr,
    ENTRY: tl.constexpr,
    WIDE: tl.constexpr,
    OUT: tl.constexpr,
    IN: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Partial sums of the gradients of the weights."""
    for i in tl.static_range(len(MODES)):
        if _works_for(sizes, i):
            _correlate(
                tensors[i], sizes[i], partial, _item(MODES, i),
                K, ENTRY, WIDE, OUT, IN, PIXELS,
            )  # fmt: skip


@triton.jit
def multiscale_gather_kernel(
    tensors,  # of each gradient, see triton_launch.GatherTensors
    sizes,  # GatherSizes of those, passed
    WIDE: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Gradients of what a bilinear resize was applied to: every pixel gathers its shares."""
    t, s = mine(tensors, sizes)
    s = GatherSizes(*[plain(size) for size in s[:5]], _plain_read(s.grad))
    g = s.grad
    plane, row, column, exists = _pixels(
        tl.program_id(0) - s.first, s.images * g.channels, s.height, s.width, PIXELS, 1, WIDE
    )  # [1, P]
    images = _image(t.grad, plane // g.channels, g.strides, 1)
    source = _plane(images, plane % g.channels, g.strides, 1)
    top = _scattered(row, s.height, g.height)
    left = _scattered(column, s.width, g.width)
    total = tl.zeros((1, PIXELS), tl.float32)
    for i in range(s.size):
        row_share = _share(top + i, row, s.height, g.height)
        for j in range(s.size):
            share = row_share * _share(left + j, column, s.width, g.width)
            value = _value(
                source, top + i, left + j, g.strides, exists & (share > 0), False, 1, WIDE
            )
            total += share * value.to(tl.float32)
    to = plane.to(tl.int64) * s.height * s.width + row * s.width + column
    tl.store(t.result + to, total, mask=exists)
