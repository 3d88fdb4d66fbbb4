"""A pruned weight as the Triton kernels walk it: a list of entries for every block of channels."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from lmwp_ops.ops.sparse_conv2d.layout import slab_count
from lmwp_ops.ops.sparse_conv2d.transposed import transpose
from lmwp_ops.ops.sparse_conv2d.triton_kernels import Packed


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight, or its transpose.

    `channels` are those of the result; `rows` how many make a block, None where that is free
    because all of them share the entries; what else there is the kernels tell.
    """

    values: Tensor
    index: Tensor
    offsets: Tensor
    listed: Tensor
    channels: int
    rows: int | None
    columns: tuple[int, int, int]
    slabs: int
    group_channels: int
    group_inputs: int
    packed: Packed  # from block to block where rows are free: from channel to channel


def matrix_of(
    values: Tensor,
    indices: Sequence[Tensor],
    format: str,
    shape: Sequence[int],
    block: Sequence[int],
    groups: int,
) -> Matrix:
    """The weight that x is convolved by."""
    outputs, inputs, height, width = shape
    first, second = (index.contiguous() for index in indices)
    if format == "channels":
        taps, row = height * width, len(second) * height * width
        return _of_channels(values, first, second, outputs, taps, (row, taps))
    rows, count = block
    return Matrix(
        values=values.contiguous(),
        index=second,
        offsets=first,
        listed=second,
        channels=outputs,
        rows=rows,
        columns=(count, 1, count),
        slabs=slab_count(format, shape),
        group_channels=outputs // groups,
        group_inputs=inputs,
        packed=Packed(0, rows * count, rows, 1),
    )


def transposed_matrix_of(
    values: Tensor,
    indices: Sequence[Tensor],
    format: str,
    shape: Sequence[int],
    block: Sequence[int],
    groups: int,
) -> Matrix:
    """The weight that gradients of the result are convolved by."""
    taps, channels = shape[2] * shape[3], shape[1] * groups
    if format == "channels":
        kept, used = (index.contiguous() for index in indices)
        return _of_channels(values, used, kept, channels, taps, (taps, len(used) * taps))
    found = transpose(values, indices, shape, block, groups)
    _, rows, count = found.values.shape
    return Matrix(
        values=found.values,
        index=found.index,
        offsets=found.offsets,
        listed=found.index,
        channels=channels,
        rows=rows,
        columns=(count, taps, 1),
        slabs=1,
        group_channels=channels,
        group_inputs=0,
        packed=Packed(0, rows * count, 1, count),
    )


def _of_channels(
    values: Tensor, listed: Tensor, read: Tensor, channels: int, taps: int, steps: tuple[int, int]
) -> Matrix:
    """The `listed` of so many channels, which all read the same ones; values are `steps` apart
    from one listed channel to the next, and from one that is read."""
    to_listed, to_read = steps
    return Matrix(
        values=values.contiguous(),
        index=read,
        offsets=read,
        listed=listed,
        channels=channels,
        rows=None,
        columns=(taps, 1, taps),
        slabs=1,
        group_channels=channels,
        group_inputs=0,
        packed=Packed(to_listed, to_read, 1, to_listed),
    )
