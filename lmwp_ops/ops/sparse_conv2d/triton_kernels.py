"""Triton kernels of `sparse_conv2d` and of its input's gradient; the README tells how they work.

What makes a channel of the result is a list of entries: columns of the weight, each with a value
for every channel of a block. Shapes: O channels of a block, E entries, P pixels, which lie in a row
and are counted in vectors of VECTOR, as steps are.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from lmwp_ops.ops.sizes.triton_kernels import plain

SINGLE_CONFIGS = [
    {"ENTRIES": 8, "PIXELS": 512, "BLOCKS": 4, "num_warps": 4},
    {"ENTRIES": 8, "PIXELS": 256, "BLOCKS": 4, "num_warps": 1},
    {"ENTRIES": 8, "PIXELS": 256, "BLOCKS": 16, "num_warps": 1},
    {"ENTRIES": 4, "PIXELS": 1024, "BLOCKS": 1, "num_warps": 4},
]
"""Candidates for blocks of one channel: entries at a time, pixels of a program and its blocks."""

SCATTERED_CONFIGS = [
    {"ENTRIES": 4, "PIXELS": 256, "BLOCKS": 4, "num_warps": 4},
    {"ENTRIES": 8, "PIXELS": 256, "BLOCKS": 1, "num_warps": 4},
    {"ENTRIES": 4, "PIXELS": 512, "BLOCKS": 4, "num_warps": 4},
]
"""The same where pixels read others than themselves, which takes an address each."""

NARROW_CONFIGS = [
    {"OUT": 32, "ENTRIES": 16, "PIXELS": 128, "BLOCKS": 1, "num_warps": 4},
    {"OUT": 32, "ENTRIES": 32, "PIXELS": 64, "BLOCKS": 1, "num_warps": 4},
    {"OUT": 64, "ENTRIES": 16, "PIXELS": 128, "BLOCKS": 1, "num_warps": 8},
    {"OUT": 32, "ENTRIES": 16, "PIXELS": 256, "BLOCKS": 1, "num_warps": 8},
]
"""Candidates for blocks of several channels on tensor cores, at most OUT where that is free."""

WIDE_CONFIGS = [
    {"OUT": 16, "ENTRIES": 1, "PIXELS": 256, "BLOCKS": 1, "num_warps": 2},
    {"OUT": 16, "ENTRIES": 1, "PIXELS": 128, "BLOCKS": 1, "num_warps": 2},
    {"OUT": 16, "ENTRIES": 1, "PIXELS": 128, "BLOCKS": 4, "num_warps": 2},
    {"OUT": 16, "ENTRIES": 1, "PIXELS": 256, "BLOCKS": 1, "num_warps": 4},
]
"""Candidates for the others: products are of float32 and added one entry at a time."""


class Steps(NamedTuple):
    """From one image and one channel of a feature to the next."""

    image: int
    channel: int


class Source(NamedTuple):
    """What is convolved."""

    steps: Steps
    channels: int
    pixels: int
    height: int
    width: int


class Packed(NamedTuple):
    """Where values are: steps from block to block, entry to entry, within an entry's columns, and
    from one channel of a block to the next."""

    block: int
    entry: int
    column: int
    channel: int


class Sizes(NamedTuple):
    """Of a convolution."""

    blocks: int  # of channels of the result
    channels: int  # of the result
    kept: int  # of these, where the others are listed nowhere
    slabs: int
    entries: int  # of all blocks, which may share them
    group_channels: int  # of the result in a group
    group_inputs: int  # channels of the source from one group to the next
    pixels: int  # of the result
    width: int  # of the result
    tiles: int  # of pixels in an image
    padding: tuple[int, int]
    dilation: tuple[int, int]
    source: Source
    result: Steps
    packed: Packed


@triton.jit
def plain_steps(steps, VECTOR: tl.constexpr):
    return Steps(plain(steps.image) * VECTOR, plain(steps.channel) * VECTOR)


@triton.jit
def plain_sizes(sizes, VECTOR: tl.constexpr):
    """The sizes that were passed; pixels are counted singly."""
    source = sizes.source
    return Sizes(
        *[plain(size) for size in sizes[:7]],
        plain(sizes.pixels) * VECTOR,
        plain(sizes.width),
        plain(sizes.tiles),
        [plain(size) for size in sizes.padding],
        [plain(size) for size in sizes.dilation],
        Source(
            plain_steps(source.steps, VECTOR),
            plain(source.channels),
            plain(source.pixels) * VECTOR,
            plain(source.height),
            plain(source.width),
        ),
        plain_steps(sizes.result, VECTOR),
        Packed(*[plain(size) for size in sizes.packed]),
    )


@triton.jit
def pixels_of(tile, s, PIXELS: tl.constexpr):
    """[1, P], in 64 bits where there are very many."""
    return tile.to(s.pixels.dtype) * PIXELS + tl.arange(0, PIXELS)[None, :]


@triton.jit
def plane_at(data, steps, image, channel):
    """Pointers to the first pixels of channels."""
    return data + image.to(tl.int64) * steps.image + channel.to(tl.int64) * steps.channel


@triton.jit
def segment_of(offsets, block, slab, s, SHARED: tl.constexpr):
    """The first of a block's entries in a slab, and the one after the last."""
    if SHARED:
        begin, end = block * 0, block * 0 + s.entries
    else:
        at = offsets + slab * s.blocks + block
        begin = tl.maximum(tl.load(at), 0)
        end = tl.minimum(tl.load(at + 1), s.entries)
    return begin, end


@triton.jit
def columns_of(entry, end, index, input, s, KERNEL: tl.constexpr, COLUMNS: tl.constexpr):
    """The channel of the source and the tap that flat entries are for, and whether they exist."""
    exists = entry < end * COLUMNS[0]
    listed = tl.load(index + entry // COLUMNS[0], mask=exists, other=0)
    column = listed * COLUMNS[2] + entry % COLUMNS[0] * COLUMNS[1]
    channel = input + column // (KERNEL[0] * KERNEL[1])
    known = exists & (channel >= 0) & (channel < s.source.channels)
    return channel, column % (KERNEL[0] * KERNEL[1]), known


@triton.jit
def value_at(values, entry, within, block, s, COLUMNS: tl.constexpr):
    """Pointers to the values that flat entries have for the channels `within` a block."""
    of_entry = entry // COLUMNS[0] * s.packed.entry + entry % COLUMNS[0] * s.packed.column
    return values + (of_entry + within * s.packed.channel + block * s.packed.block)


@triton.jit
def _along(position, tap, padding, dilation, size, STRIDE: tl.constexpr, ADJOINT: tl.constexpr):
    """Where pixels read along one axis, and whether that is inside of the map."""
    if ADJOINT:
        moved = position + padding - tap * dilation
        inside = (moved >= 0) & (moved % STRIDE == 0)
        at = moved // STRIDE
        inside = inside & (at < size)
    else:
        at = position * STRIDE - padding + tap * dilation
        inside = (at >= 0) & (at < size)
    return at, inside


@triton.jit
def read(
    source, image, channel, tap, exists, pixel, s,
    STRIDE: tl.constexpr, KERNEL: tl.constexpr, FLAT: tl.constexpr, ADJOINT: tl.constexpr,
):  # fmt: skip
    """What pixels read of some channels, zeros outside of the map; [E, P]."""
    exists = exists & (pixel < s.pixels)
    if FLAT:
        at = pixel
    else:
        row, rows_inside = _along(
            pixel // s.width, tap // KERNEL[1], s.padding[0], s.dilation[0], s.source.height,
            STRIDE[0], ADJOINT,
        )  # fmt: skip
        column, columns_inside = _along(
            pixel % s.width, tap % KERNEL[1], s.padding[1], s.dilation[1], s.source.width,
            STRIDE[1], ADJOINT,
        )  # fmt: skip
        at = row.to(s.source.pixels.dtype) * s.source.width + column
        exists = exists & rows_inside & columns_inside
    return tl.load(plane_at(source, s.source.steps, image, channel) + at, mask=exists, other=0.0)


@triton.jit
def _add_products(total, w, x, NARROW: tl.constexpr):
    """total [O, P] + w [O, E] x [E, P]; of what is not NARROW, O or E is 1."""
    if w.shape[1] == 1:
        total += w.to(tl.float32) * x.to(tl.float32)
    elif NARROW:
        total = tl.dot(w, x, total, input_precision="ieee")
    else:
        total += tl.sum(w.trans().to(tl.float32) * x.to(tl.float32), 0, keep_dims=True)
    return total


@triton.jit
def _parameter(data, channel, exists):
    return tl.load(data + channel, mask=exists, other=0.0).to(tl.float32)


@triton.jit
def _finish(
    total, parameters, channel, exists, BIAS: tl.constexpr, AFFINE: tl.constexpr,
    PRELU: tl.constexpr,
):  # fmt: skip
    """Bias, affine step and PReLU of some channels."""
    if BIAS:
        total += _parameter(parameters[0], channel, exists)
    if AFFINE:
        scale, shift = parameters[1], parameters[2]
        total = total * _parameter(scale, channel, exists) + _parameter(shift, channel, exists)
    if PRELU:
        total = tl.where(total > 0, total, total * _parameter(parameters[3], channel, exists))
    return total


@triton.jit
def _store(result, image, channel, pixel, exists, value, s):
    to = plane_at(result, s.result, image, channel) + pixel
    tl.store(to, value.to(result.dtype.element_ty), mask=exists & (pixel < s.pixels))


@triton.jit
def channels_of(listed, block, s, LISTED: tl.constexpr, OUT: tl.constexpr, FILLED: tl.constexpr):
    """The channels of a block, and which there are; [O, 1]."""
    within = tl.arange(0, OUT)[:, None]
    place = block * FILLED + within
    if LISTED:
        exists = (within < FILLED) & (place < s.kept)
        channel = tl.load(listed + place, mask=exists, other=-1)
        exists = exists & (channel >= 0) & (channel < s.channels)
    else:
        exists = (within < FILLED) & (place < s.channels)
        channel = place
    return channel, exists


@triton.jit
def _fill(
    result, parameters, listed, block, channel, image, pixel, s, BIAS: tl.constexpr,
    AFFINE: tl.constexpr, PRELU: tl.constexpr, FILLED: tl.constexpr,
):  # fmt: skip
    """What pruned channels from a block's first to the next one's hold: convolutions of nothing."""
    first, after = block * FILLED, (block + 1) * FILLED
    begin = tl.load(listed + first, mask=(block > 0) & (first < s.kept), other=0)
    end = tl.load(listed + after, mask=after < s.kept, other=s.channels)
    for top in range(begin, end, channel.shape[0]):
        pruned = top + tl.arange(0, channel.shape[0])[:, None]
        kept = tl.max((pruned == channel.trans()).to(tl.int32), 1, keep_dims=True)
        there = (kept == 0) & (pruned >= 0) & (pruned < tl.minimum(end, s.channels))
        nothing = tl.zeros((channel.shape[0], pixel.shape[1]), tl.float32)
        value = _finish(nothing, parameters, pruned, there, BIAS, AFFINE, PRELU)
        _store(result, image, pruned, pixel, there, value, s)


@triton.jit
def _convolve(
    source, values, index, offsets, listed, parameters, result, sizes,
    BIAS: tl.constexpr, AFFINE: tl.constexpr, PRELU: tl.constexpr, ADJOINT: tl.constexpr,
    LISTED: tl.constexpr, NARROW: tl.constexpr, FLAT: tl.constexpr, STRIDE: tl.constexpr,
    KERNEL: tl.constexpr, COLUMNS: tl.constexpr, FILLED: tl.constexpr, VECTOR: tl.constexpr,
    OUT: tl.constexpr, ENTRIES: tl.constexpr, PIXELS: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """Some blocks of channels of a tile of pixels; the blocks share what they read in a cache."""
    s = plain_sizes(sizes, VECTOR)
    programs = tl.cdiv(s.blocks, BLOCKS)
    tile = tl.program_id(0) // programs
    image = tile // s.tiles
    pixel = pixels_of(tile % s.tiles, s, PIXELS)
    first_block = tl.program_id(0) % programs * BLOCKS
    # Loads of one entry each are too few to wait for one after the other.
    UNROLL: tl.constexpr = 4 if ENTRIES == 1 else 1
    for block in range(first_block, tl.minimum(first_block + BLOCKS, s.blocks)):
        channel, exists = channels_of(listed, block, s, LISTED, OUT, FILLED)
        input = block * FILLED // s.group_channels * s.group_inputs
        within = tl.arange(0, OUT)[:, None]
        total = tl.zeros((OUT, PIXELS), tl.float32)
        for slab in range(s.slabs):
            begin, end = segment_of(offsets, block, slab, s, LISTED)
            for first in tl.range(
                begin * COLUMNS[0], end * COLUMNS[0], ENTRIES, loop_unroll_factor=UNROLL
            ):
                entry = first + tl.arange(0, ENTRIES)[:, None]
                feature, tap, known = columns_of(entry, end, index, input, s, KERNEL, COLUMNS)
                x = read(
                    source, image, feature, tap, known, pixel, s, STRIDE, KERNEL, FLAT, ADJOINT
                )
                entry = first + tl.arange(0, ENTRIES)[None, :]
                there = exists & (entry < end * COLUMNS[0])
                at = value_at(values, entry, within, block, s, COLUMNS)
                total = _add_products(total, tl.load(at, mask=there, other=0.0), x, NARROW)
        value = _finish(total, parameters, channel, exists, BIAS, AFFINE, PRELU)
        _store(result, image, channel, pixel, exists, value, s)
        if LISTED:
            _fill(
                result, parameters, listed, block, channel, image, pixel, s, BIAS, AFFINE, PRELU,
                FILLED,
            )  # fmt: skip


@triton.jit
def sparse_conv2d_fwd_kernel(
    x,
    values,
    index,  # of entries: columns of the weight, each COLUMNS[2] of them
    offsets,  # of the entries of each block of channels in each slab
    listed,  # kept channels of the result
    parameters,  # bias, scale, shift and slope
    y,
    sizes,  # passed
    BIAS: tl.constexpr,
    AFFINE: tl.constexpr,
    PRELU: tl.constexpr,
    LISTED: tl.constexpr,  # whether channels are listed, and blocks of them share the entries
    NARROW: tl.constexpr,
    FLAT: tl.constexpr,  # whether a pixel of the result reads the same one
    STRIDE: tl.constexpr,
    KERNEL: tl.constexpr,
    COLUMNS: tl.constexpr,  # of an entry: how many, from one to the next, unit of their index
    FILLED: tl.constexpr,  # channels of a block, at most OUT
    VECTOR: tl.constexpr,
    OUT: tl.constexpr,
    ENTRIES: tl.constexpr,
    PIXELS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """The convolution and what follows it."""
    _convolve(
        x, values, index, offsets, listed, parameters, y, sizes, BIAS, AFFINE, PRELU, False,
        LISTED, NARROW, FLAT, STRIDE, KERNEL, COLUMNS, FILLED, VECTOR, OUT, ENTRIES, PIXELS, BLOCKS,
    )  # fmt: skip


@triton.jit
def sparse_conv2d_bwd_input_kernel(
    grad,
    values,  # like what follows, of the transposed weight
    index,
    offsets,
    listed,
    dx,
    sizes,  # passed
    LISTED: tl.constexpr,
    NARROW: tl.constexpr,
    FLAT: tl.constexpr,
    STRIDE: tl.constexpr,
    KERNEL: tl.constexpr,
    COLUMNS: tl.constexpr,
    FILLED: tl.constexpr,
    VECTOR: tl.constexpr,
    OUT: tl.constexpr,
    ENTRIES: tl.constexpr,
    PIXELS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """The transposed convolution of what is left of the gradient behind the epilogue."""
    _convolve(
        grad, values, index, offsets, listed, (grad, grad, grad, grad), dx, sizes,
        False, False, False, True,
        LISTED, NARROW, FLAT, STRIDE, KERNEL, COLUMNS, FILLED, VECTOR, OUT, ENTRIES, PIXELS, BLOCKS,
    )  # fmt: skip
