"""The transpose of a pruned weight: for every input channel, what it is multiplied by."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Transposed:
    """Kept blocks of the matrix [groups I, O kh kw], channel by channel.

    `values` [n, channels, rows] are as many input channels and output channels of a block;
    `offsets` says where the blocks of each block of input channels begin, and `index` is the
    output channel that a block begins with, times the taps, plus its tap.
    """

    values: Tensor
    offsets: Tensor
    index: Tensor


def transpose(
    values: Tensor,
    indices: Sequence[Tensor],
    shape: Sequence[int],
    block: Sequence[int],
    groups: int,
) -> Transposed:
    """That of values [n, columns, rows] in a block format; nothing waits for the device.

    A block with columns of several taps becomes blocks of one input channel each.
    """
    outputs, inputs, height, width = shape
    taps, (rows, columns) = height * width, block
    channels = columns if taps == 1 else 1
    place = _rows_of(indices, -(-outputs // rows))  # [n]
    group = place * rows // (outputs // groups)
    column = (indices[1] * columns)[:, None] + torch.arange(
        0, columns, channels, device=place.device
    )  # [n, columns / channels]
    into = group[:, None] * inputs + column // taps
    index = (place * (rows * taps))[:, None] + column % taps
    target = (into // channels).reshape(-1)
    order = target.argsort(stable=True)
    blocks = torch.arange(groups * inputs // channels + 1, device=place.device)
    offsets = torch.searchsorted(target[order], blocks)
    packed = values.reshape(len(order), channels, rows).index_select(0, order)
    return Transposed(packed, offsets.int(), index.reshape(-1).index_select(0, order).int())


def _rows_of(indices: Sequence[Tensor], rows: int) -> Tensor:
    """The row of every block."""
    offsets, columns = indices
    number = torch.arange(len(offsets) - 1, device=offsets.device) % rows
    return number.repeat_interleave(offsets.diff(), output_size=len(columns))
