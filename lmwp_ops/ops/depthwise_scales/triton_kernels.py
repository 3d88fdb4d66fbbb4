"""Triton kernels of `depthwise_scales`; the README tells how they work.

A program computes ROWS result rows at each of P columns and L lanes of one branch. Where W is
innermost in memory, the lanes are VECTOR neighbouring columns of one channel, and `width` and
`column` count such vectors. Where maps are INTERLEAVED, channels innermost, they are channels.
Strides count vectors in both cases.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from lmwp_ops.ops.sizes.triton_kernels import Strides, mine, plain, plain_strides

_PIXEL_CONFIGS = [
    {"ROWS": 4, "num_warps": 4},
    {"ROWS": 2, "num_warps": 4},
    {"ROWS": 8, "num_warps": 4},
    {"ROWS": 4, "num_warps": 2},
    {"ROWS": 4, "num_warps": 8},
]
CONFIGS = {
    "fwd": _PIXEL_CONFIGS,
    "bwd_input": _PIXEL_CONFIGS,
    "bwd_weight": [
        {"ROWS": 2, "num_warps": 4},
        {"ROWS": 1, "num_warps": 4},
        {"ROWS": 4, "num_warps": 4},
        {"ROWS": 2, "num_warps": 8},
    ],
    "bwd_sum": [{"PARTS": 32, "TOTALS": 32, "num_warps": 4}],
}
"""Candidates for each kernel; the first is the default."""


class Sizes(NamedTuple):
    """One branch: its programs and extents, and the strides of what is read and written."""

    first: int  # program of the launch
    blocks: int  # programs for each block of channels
    steps: int  # blocks of pixels that each of them goes through
    images: int
    channels: int
    height: int
    width: int
    out_height: int
    out_width: int
    source: Strides
    result: Strides


class SumSizes(NamedTuple):
    """One branch of the final sum."""

    first: int
    parts: int
    channels: int


@triton.jit
def _part(
    tensors, sizes, VECTOR: tl.constexpr, INTERLEAVED: tl.constexpr, CHANNELS: tl.constexpr
):  # fmt: skip
    """What a program computes: tensors and sizes of its branch, block of pixels, channels, [1, L]
    or a scalar, and whether these exist."""
    t, s = mine(tensors, sizes)
    s = Sizes(*[plain(size) for size in s[:9]], plain_strides(s.source), plain_strides(s.result))
    program = tl.program_id(0) - s.first
    channel = program // s.blocks
    channels = s.channels
    if INTERLEAVED:
        channel = channel * CHANNELS + tl.arange(0, CHANNELS)[None, :]
        channels = channels * VECTOR
    return t, s, program % s.blocks, channel, channel < channels


@triton.jit
def _pixels(
    block, s, mask,
    PIXELS: tl.constexpr, ROWS: tl.constexpr, STEP: tl.constexpr, INTERLEAVED: tl.constexpr,
):  # fmt: skip
    """Image, first row and column of each item, ROWS result rows that are STEP apart, [P, 1]; and
    whether its lanes exist, [P, L] or [P, 1]."""
    item = block * PIXELS + tl.arange(0, PIXELS)[:, None]
    groups = (s.out_height + ROWS * STEP - 1) // (ROWS * STEP) * STEP
    group = item // s.out_width % groups
    row = group // STEP * (ROWS * STEP) + group % STEP
    image = item // s.out_width // groups
    exists = image < s.images
    if INTERLEAVED:
        exists = exists & mask
    return image, row, item % s.out_width, exists


@triton.jit
def _plane(data, strides, image, channel, VECTOR: tl.constexpr, INTERLEAVED: tl.constexpr):
    """Where the maps of an image and its channels begin."""
    wide = image.to(tl.int64) * strides.image
    if INTERLEAVED:
        plane = data + wide * VECTOR + channel
    else:
        plane = data + (wide + channel.to(tl.int64) * strides.channel) * VECTOR
    return plane


@triton.jit
def _parameter(data, index, mask):
    return tl.load(data + index, mask=mask).to(tl.float32)


@triton.jit
def _taps(weight, channel, mask, K: tl.constexpr, FLIP: tl.constexpr):
    """The K * K weights of each channel, [1, Ch] each; turned by half a turn to FLIP."""
    taps = ()
    for i in tl.static_range(K * K):
        index = channel * (K * K) + (K * K - 1 - i if FLIP else i)
        taps = taps + (_parameter(weight, index, mask),)
    return taps


@triton.jit
def _split(x):
    """The V columns of x [P, V], [P, 1] each."""
    if x.shape[1] == 1:
        lanes = (x,)
    else:
        halves = x.reshape(x.shape[0], 2, x.shape[1] // 2).permute(0, 2, 1)
        low, high = tl.split(halves)
        lanes = _split(low) + _split(high)
    return lanes


@triton.jit
def _join(lanes):
    """[P, V] of V columns [P, 1]."""
    if len(lanes) == 1:
        x = lanes[0]
    else:
        half: tl.constexpr = len(lanes) // 2
        halves = tl.join(_join(lanes[:half]), _join(lanes[half:])).permute(0, 2, 1)
        x = halves.reshape(halves.shape[0], len(lanes))
    return x


@triton.jit
def _window(
    plane, strides, row, column, height, width, mask,
    K: tl.constexpr, STRIDE: tl.constexpr, DIVISOR: tl.constexpr, DILATION: tl.constexpr,
    VECTOR: tl.constexpr, INTERLEAVED: tl.constexpr,
):  # fmt: skip
    """What the K taps of one row read from a source row, [P, L] each."""
    inside = mask & (row >= 0) & (row % DIVISOR == 0) & (row // DIVISOR < height)
    line = plane + (row // DIVISOR).to(tl.int64) * strides.row * VECTOR
    taps = ()
    if VECTOR > 1 and not INTERLEAVED:
        centre = tl.load(line + column * VECTOR + tl.arange(0, VECTOR)[None, :], mask=inside)
        if K > 1:
            # From either neighbour as many columns as are needed, rounded up for one access.
            SIDE: tl.constexpr = 4 if K == 7 else K // 2
            side = tl.arange(0, SIDE)[None, :]
            left = line + column * VECTOR - SIDE + side
            right = line + column * VECTOR + VECTOR + side
            columns = (
                _split(tl.load(left, mask=inside & (column > 0), other=0.0))
                + _split(centre)
                + _split(tl.load(right, mask=inside & (column < width - 1), other=0.0))
            )
        for j in tl.static_range(K):
            if j == K // 2:
                tap = centre
            else:
                tap = _join(columns[SIDE - K // 2 + j : SIDE - K // 2 + j + VECTOR])
            taps = taps + (tap.to(tl.float32),)
    else:
        unit: tl.constexpr = VECTOR if INTERLEAVED else 1
        for j in tl.static_range(K):
            at = column * STRIDE + (j - K // 2) * DILATION
            valid = inside & (at >= 0) & (at % DIVISOR == 0) & (at // DIVISOR < width)
            offset = (at // DIVISOR).to(tl.int64) * strides.column * unit
            taps = taps + (tl.load(line + offset, mask=valid, other=0.0).to(tl.float32),)
    return taps


@triton.jit
def _convolve(
    plane, strides, weights, row, column, height, width, mask,
    K: tl.constexpr, STRIDE: tl.constexpr, DIVISOR: tl.constexpr, DILATION: tl.constexpr,
    VECTOR: tl.constexpr, INTERLEAVED: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Sums of each result row, [P, L] each; a source row is read once for all rows that see it.

    Result (r, c) at tap (i, j) reads source ((r, c) * STRIDE + ((i, j) - K // 2) * DILATION) /
    DIVISOR, nothing where that is no whole number; the result rows are DIVISOR * DILATION apart.
    """
    apart: tl.constexpr = STRIDE * DIVISOR
    lanes: tl.constexpr = mask.shape[1] if INTERLEAVED else VECTOR
    sums = ()
    for _ in tl.static_range(ROWS):
        sums = sums + (tl.zeros((mask.shape[0], lanes), tl.float32),)
    for m in tl.static_range(apart * (ROWS - 1) + K):
        window = _window(
            plane, strides, row * STRIDE + (m - K // 2) * DILATION, column, height, width, mask,
            K, STRIDE, DIVISOR, DILATION, VECTOR, INTERLEAVED,
        )  # fmt: skip
        added = ()
        for i in tl.static_range(ROWS):
            total = sums[i]
            if m >= apart * i and m < apart * i + K:
                for j in tl.static_range(K):
                    total += weights[(m - apart * i) * K + j] * window[j]
            added = added + (total,)
        sums = added
    return sums


@triton.jit
def _offset(row, column, strides, VECTOR: tl.constexpr, INTERLEAVED: tl.constexpr):
    """Of the lanes of a result in its plane."""
    offset = row.to(tl.int64) * strides.row + column.to(tl.int64) * strides.column
    return offset * VECTOR if INTERLEAVED else offset * VECTOR + tl.arange(0, VECTOR)[None, :]


@triton.jit
def _load(
    plane, strides, row, column, height, mask,
    STEP: tl.constexpr, VECTOR: tl.constexpr, INTERLEAVED: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """ROWS rows that are STEP apart, [P, L] each; zeros below the map."""
    values = ()
    for i in tl.static_range(ROWS):
        at = row + i * STEP
        offset = _offset(at, column, strides, VECTOR, INTERLEAVED)
        value = tl.load(plane + offset, mask=mask & (at < height), other=0.0)
        values = values + (value.to(tl.float32),)
    return values


@triton.jit
def _store(
    plane, strides, values, row, column, height, mask,
    STEP: tl.constexpr, VECTOR: tl.constexpr, INTERLEAVED: tl.constexpr,
):  # fmt: skip
    """Write rows that are STEP apart."""
    for i in tl.static_range(len(values)):
        at = row + i * STEP
        offset = _offset(at, column, strides, VECTOR, INTERLEAVED)
        tl.store(plane + offset, values[i].to(plane.dtype.element_ty), mask=mask & (at < height))


@triton.jit
def depthwise_scales_fwd_kernel(
    tensors,  # of each branch, see triton_launch.Forward
    sizes,  # Sizes of each branch, passed
    AFFINE: tl.constexpr,
    PRELU: tl.constexpr,
    K: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    VECTOR: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
):
    """y = PReLU(scale * conv(x) + shift)."""
    t, s, block, channel, mask = _part(tensors, sizes, VECTOR, INTERLEAVED, CHANNELS)
    image, row, column, within = _pixels(block, s, mask, PIXELS, ROWS, DILATION, INTERLEAVED)
    sums = _convolve(
        _plane(t.x, s.source, image, channel, VECTOR, INTERLEAVED), s.source,
        _taps(t.weight, channel, mask, K, False), row, column, s.height, s.width, within,
        K, STRIDE, 1, DILATION, VECTOR, INTERLEAVED, ROWS,
    )  # fmt: skip
    values = ()
    for i in tl.static_range(len(sums)):
        value = sums[i]
        if AFFINE:
            value = value * _parameter(t.scale, channel, mask) + _parameter(t.shift, channel, mask)
        if PRELU:
            value = tl.where(value > 0, value, value * _parameter(t.slope, channel, mask))
        values = values + (value,)
    _store(
        _plane(t.y, s.result, image, channel, VECTOR, INTERLEAVED), s.result,
        values, row, column, s.out_height, within, DILATION, VECTOR, INTERLEAVED,
    )  # fmt: skip


@triton.jit
def depthwise_scales_bwd_input_kernel(
    tensors,  # of each branch, see triton_launch.BackwardInput
    sizes,  # Sizes of each branch, passed
    AFFINE: tl.constexpr,
    K: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    VECTOR: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
):
    """grad_x = scale * transposed convolution of grad: every pixel gathers what it took part in."""
    t, s, block, channel, mask = _part(tensors, sizes, VECTOR, INTERLEAVED, CHANNELS)
    image, row, column, within = _pixels(
        block, s, mask, PIXELS, ROWS, DILATION * STRIDE, INTERLEAVED
    )
    sums = _convolve(
        _plane(t.grad, s.source, image, channel, VECTOR, INTERLEAVED), s.source,
        _taps(t.weight, channel, mask, K, True), row, column, s.height, s.width, within,
        K, 1, STRIDE, DILATION, VECTOR, INTERLEAVED, ROWS,
    )  # fmt: skip
    values = ()
    for i in tl.static_range(ROWS):
        value = sums[i]
        if AFFINE:
            value = value * _parameter(t.scale, channel, mask)
        values = values + (value,)
    _store(
        _plane(t.grad_x, s.result, image, channel, VECTOR, INTERLEAVED), s.result,
        values, row, column, s.out_height, within, DILATION * STRIDE, VECTOR, INTERLEAVED,
    )  # fmt: skip


@triton.jit
def _add_taps(
    totals, grad_z, plane, strides, row, column, height, width, mask,
    K: tl.constexpr, STRIDE: tl.constexpr, DILATION: tl.constexpr,
    VECTOR: tl.constexpr, INTERLEAVED: tl.constexpr,
):  # fmt: skip
    """Add to each of K * K totals what it gets from the rows of grad_z."""
    rows: tl.constexpr = len(grad_z)
    for m in tl.static_range(STRIDE * (rows - 1) + K):
        window = _window(
            plane, strides, row * STRIDE + (m - K // 2) * DILATION, column, height, width, mask,
            K, STRIDE, 1, DILATION, VECTOR, INTERLEAVED,
        )  # fmt: skip
        added = ()
        for i in tl.static_range(K * K):
            total = totals[i]
            for r in tl.static_range(rows):
                if m == STRIDE * r + i // K:
                    total += _fold(grad_z[r] * window[i % K], INTERLEAVED)
            added = added + (total,)
        totals = added
    return totals


@triton.jit
def _fold(x, INTERLEAVED: tl.constexpr):
    """The sum over lanes of one channel, [P, 1]; or lanes as they are, [P, L]."""
    return x if INTERLEAVED else tl.sum(x, axis=1, keep_dims=True)


@triton.jit
def depthwise_scales_bwd_weight_kernel(
    tensors,  # of each branch, see triton_launch.BackwardWeight
    sizes,  # Sizes of each branch, passed
    AFFINE: tl.constexpr,
    PRELU: tl.constexpr,
    KEEPS: tl.constexpr,  # grad_z
    SUMS: tl.constexpr,
    K: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    VECTOR: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Write grad_z, and partial sums of the gradients of weight, scale, shift and slope."""
    t, s, block, channel, mask = _part(tensors, sizes, VECTOR, INTERLEAVED, CHANNELS)
    weights = _taps(t.weight, channel, mask, K, False)
    TOTALS: tl.constexpr = K * K + 3
    totals = ()
    for _ in tl.static_range(TOTALS):
        totals = totals + (tl.zeros((PIXELS, CHANNELS), tl.float32),)
    for step in range(s.steps):
        image, row, column, within = _pixels(
            block * s.steps + step, s, mask, PIXELS, ROWS, DILATION, INTERLEAVED
        )
        x = _plane(t.x, s.source, image, channel, VECTOR, INTERLEAVED)
        grads = _load(
            _plane(t.grad, s.result, image, channel, VECTOR, INTERLEAVED), s.result,
            row, column, s.out_height, within, DILATION, VECTOR, INTERLEAVED, ROWS,
        )  # fmt: skip
        if AFFINE or PRELU:
            z = _convolve(
                x, s.source, weights, row, column, s.height, s.width, within,
                K, STRIDE, 1, DILATION, VECTOR, INTERLEAVED, ROWS,
            )  # fmt: skip
        grad_z = ()
        grad_scale, grad_shift, grad_slope = totals[K * K], totals[K * K + 1], totals[K * K + 2]
        for r in tl.static_range(ROWS):
            grad = grads[r]
            if PRELU:
                u = z[r]
                if AFFINE:
                    u = u * _parameter(t.scale, channel, mask) + _parameter(t.shift, channel, mask)
                grad_slope += _fold(tl.where(u > 0, 0.0, grad * u), INTERLEAVED)
                grad = tl.where(u > 0, grad, grad * _parameter(t.slope, channel, mask))
            if AFFINE:
                grad_scale += _fold(grad * z[r], INTERLEAVED)
                grad_shift += _fold(grad, INTERLEAVED)
                grad = grad * _parameter(t.scale, channel, mask)
            grad_z = grad_z + (grad,)
        if KEEPS:
            _store(
                _plane(t.grad_z, s.result, image, channel, VECTOR, INTERLEAVED), s.result,
                grad_z, row, column, s.out_height, within, DILATION, VECTOR, INTERLEAVED,
            )  # fmt: skip
        if SUMS:
            taps = _add_taps(
                totals[: K * K], grad_z, x, s.source, row, column, s.height, s.width, within,
                K, STRIDE, DILATION, VECTOR, INTERLEAVED,
            )  # fmt: skip
            totals = taps + (grad_scale, grad_shift, grad_slope)
    if SUMS:
        index = channel + tl.zeros((1, CHANNELS), tl.int32)
        channels = s.channels * VECTOR if INTERLEAVED else s.channels
        to = t.partial + block.to(tl.int64) * channels * TOTALS + index * TOTALS
        for i in tl.static_range(TOTALS):
            tl.store(to + i, tl.sum(totals[i], axis=0, keep_dims=True), mask=index < channels)


@triton.jit
def depthwise_scales_bwd_sum_kernel(
    tensors,  # of each branch, see triton_launch.BackwardSum
    sizes,  # SumSizes of each branch, passed
    WANTED: tl.constexpr,  # which of the four
    K: tl.constexpr,
    PARTS: tl.constexpr,
    TOTALS: tl.constexpr,
):
    """Add up the partial sums, always in the same order, and write the gradients."""
    t, s = mine(tensors, sizes)
    s = SumSizes(*[plain(size) for size in s])
    index = (tl.program_id(0) - s.first) * TOTALS + tl.arange(0, TOTALS)[None, :]  # [1, T]
    count = s.channels * (K * K + 3)
    total = tl.zeros((PARTS, TOTALS), tl.float32)
    for first in range(0, s.parts, PARTS):
        part = first + tl.arange(0, PARTS)[:, None]  # [Q, 1]
        mask = (part < s.parts) & (index < count)
        total += tl.load(t.partial + part.to(tl.int64) * count + index, mask=mask, other=0.0)
    total = tl.sum(total, axis=0, keep_dims=True)  # [1, T]
    channel = index // (K * K + 3)
    kind = index % (K * K + 3)
    exists = index < count
    if WANTED[0]:
        tl.store(t.weight + channel * (K * K) + kind, total, mask=exists & (kind < K * K))
    if WANTED[1]:
        tl.store(t.scale + channel, total, mask=exists & (kind == K * K))
    if WANTED[2]:
        tl.store(t.shift + channel, total, mask=exists & (kind == K * K + 1))
    if WANTED[3]:
        tl.store(t.slope + channel, total, mask=exists & (kind == K * K + 2))
