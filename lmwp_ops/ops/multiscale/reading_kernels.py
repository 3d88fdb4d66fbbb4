"""How the Triton kernels of multi-scale convolutions read features.

Shapes: P pixels of a result, in vectors of neighbouring columns; C channels of a source. A mode
(kind, size) says how a source is read at the scale of the result:

    same           where it is
    pool           the maximum of size x size; its adjoint sends a sum to where that maximum was
    resize_first   resized bilinearly, then convolved
    resize_last    convolved, then resized bilinearly; linear, so read resized for each tap apart

The adjoint of a resize gathers what it scattered, from size x size pixels at most.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from lmwp_ops.ops.multiscale.resize_kernels import interpolated, scattered, share_of
from lmwp_ops.ops.sizes.triton_kernels import Strides, plain, plain_strides


class Read(NamedTuple):
    """Extents and strides of a feature that is read."""

    channels: int
    height: int
    width: int  # in vectors
    strides: Strides


@triton.constexpr_function
def item(constants, i):
    """A tuple among constants; `[i]` would make arguments of it."""
    return constants[i]


@triton.jit
def plain_read(read):
    return Read(*[plain(size) for size in read[:3]], plain_strides(read.strides))


@triton.jit
def works_for(sizes, KIND: tl.constexpr):
    """Whether a program belongs to a kind of results; `sizes` are those of all, passed."""
    works = tl.program_id(0) >= plain(sizes[KIND][0].first)
    if len(sizes) > KIND + 1:
        works = works & (tl.program_id(0) < plain(sizes[KIND + 1][0].first))
    return works


@triton.jit
def pixels_of(
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
def image_at(data, image, strides, UNIT: tl.constexpr):
    """Where images begin; strides count UNIT elements."""
    return data + image.to(tl.int64) * strides.image * UNIT


@triton.jit
def plane_at(images, channel, strides, UNIT: tl.constexpr):
    """Where the planes of `channel` begin in their images."""
    return images + channel.to(tl.int64) * strides.channel * UNIT


@triton.jit
def pointers_to(plane, row, column, strides, UNIT: tl.constexpr, WIDE: tl.constexpr):
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
def value_at(
    plane, row, column, strides, mask,
    ENTRY: tl.constexpr, UNIT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Pixels of a branch, or with ENTRY averages of 2 x 2 of them."""
    if ENTRY:
        value = 0.0
        for i in tl.static_range(4):
            pixels = pointers_to(plane, row * 2 + i // 2, column * 2 + i % 2, strides, 1, WIDE)
            value += tl.load(pixels, mask=mask, other=0.0).to(tl.float32)
        value = value * 0.25
    else:
        pixels = pointers_to(plane, row, column, strides, UNIT, WIDE)
        value = tl.load(pixels, mask=mask, other=0.0)
    return value


@triton.jit
def along_axis(position, shift, source, grid, MODE: tl.constexpr, ADJOINT: tl.constexpr):
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
        start = scattered(position, grid, source)
        for i in tl.static_range(SIZE):
            at = start + i + shift
            share = share_of(start + i, position, grid, source)
            reads = reads + ((at, share, (share > 0) & (at >= 0) & (at < source)),)
    else:
        before = shift if KIND == "resize_first" else 0
        centre = position + before
        low, weight = interpolated(centre, grid, source)
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
            value = value_at(plane, rows[r][0], columns[c][0], strides, exists, ENTRY, 1, WIDE)
            line += value.to(tl.float32) * columns[c][1]
        total += line * rows[r][1]
    return total


@triton.jit
def _pooled(
    plane, row, column, strides, mask,
    SIDE: tl.constexpr, ENTRY: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The maximum of a window of each channel, [C, P], or a NaN in it."""
    first = value_at(plane, row, column, strides, mask, ENTRY, 1, WIDE)
    best = first.to(tl.float32)
    for i in range(1, SIDE * SIDE):
        value = value_at(plane, row + i // SIDE, column + i % SIDE, strides, mask, ENTRY, 1, WIDE)
        best = tl.maximum(best, value.to(tl.float32), propagate_nan=tl.PropagateNan.ALL)
    return best.to(first.dtype)


@triton.jit
def tile_of(
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
            tile = value_at(plane, row, column, strides, exists, ENTRY, UNIT, WIDE)
    return tile
