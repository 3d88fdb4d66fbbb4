"""Finding and checking the kept blocks of a pruned weight in numpy, where nothing is compiled.

`lmwp_ops._host` has the same functions. Arrays of indices are int32 and of one dimension; what
does not fit raises ValueError.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]


def any_over(mask: Mask, *axes: int) -> Mask:
    """Where there is something along the axes."""
    return np.asarray(mask.any(axes))


def pack_blocks(mask: Mask, rows: int, columns: int, slab: int) -> tuple[Indices, Indices]:
    """(offsets, columns) of the kept rows x columns blocks of a mask [height, width].

    They come slab by slab of `slab` columns of the mask, and in each row by row. The last blocks
    may have fewer rows. Raises where a block is kept in part.
    """
    if rows < 1 or columns < 1 or mask.shape[1] % columns:
        raise ValueError(f"blocks of {rows} x {columns} do not divide {mask.shape[1]} columns")
    if slab < 1 or slab % columns:
        raise ValueError("blocks do not divide the slabs")
    if mask.size > np.iinfo(np.int32).max:
        raise ValueError("the weight has 2^31 elements")
    height = -(-mask.shape[0] // rows) * rows
    # Rows that the last blocks lack repeat the last one there is, and so change nothing.
    whole = np.pad(mask, ((0, height - mask.shape[0]), (0, 0)), mode="edge")
    blocks = whole.reshape(height // rows, rows, -1, columns)
    kept = any_over(blocks, 1, 3)  # [rows of blocks, columns of blocks]
    partly = np.argwhere(kept & ~blocks.all((1, 3)))
    if len(partly):
        top, left = partly[0] * (rows, columns)
        raise ValueError(f"the block at ({top}, {left}) is kept in part")
    step = slab // columns
    slabs = [kept[:, begin : begin + step] for begin in range(0, kept.shape[1], step)]
    counts = np.concatenate([[0], *(part.sum(1) for part in slabs)])
    found = [np.nonzero(part)[1] + s * step for s, part in enumerate(slabs)]
    return counts.cumsum().astype(np.int32), np.concatenate(found).astype(np.int32)


def check_blocks(
    offsets: Indices, columns: Indices, block_rows: int, block_columns: int, slab: int
) -> None:
    """These are the kept blocks of a matrix of so many rows and columns of blocks, `slab` of the
    columns in a slab."""
    if block_rows < 1 or slab < 1:
        raise ValueError("there are no rows or slabs")
    rows = -(-block_columns // slab) * block_rows
    if len(offsets) != rows + 1:
        raise ValueError(f"there are {len(offsets)} offsets instead of {rows + 1}")
    if offsets[0] != 0 or offsets[-1] != len(columns):
        raise ValueError(f"the offsets do not span the {len(columns)} columns")
    counts = np.diff(offsets)
    if (counts < 0).any():
        raise ValueError(f"the offsets of row {np.argmax(counts < 0)} fall")
    row = np.repeat(np.arange(rows), counts)
    begin = row // block_rows * slab
    wrong = (columns < begin) | (columns >= np.minimum(begin + slab, block_columns))
    wrong[1:] |= (np.diff(row) == 0) & (np.diff(columns) <= 0)
    _refuse(columns, wrong)


def check_rising(indices: Indices, end: int) -> None:
    """The indices rise strictly from 0 or more to below `end`."""
    wrong = (indices < 0) | (indices >= end)
    wrong[1:] |= np.diff(indices) <= 0
    _refuse(indices, wrong)


def check_two_of_four(kept: Indices, shape: Sequence[int], groups: int) -> None:
    """Of a weight of this shape, a 1 x 1, two of every four inputs are kept, at these rising flat
    positions."""
    outputs, inputs, height, width = shape
    if groups != 1 or height * width != 1 or inputs % 4:
        of = f"{inputs} inputs and a kernel of {height} x {width} in {groups} groups"
        raise ValueError(f"two of every four cannot be kept of {of}")
    quarters = np.arange(outputs * inputs // 4, dtype=np.int32)
    if not np.array_equal(kept // 4, quarters.repeat(2)):
        raise ValueError("a mask that does not keep two of every four inputs")


def _refuse(indices: Indices, wrong: Mask) -> None:
    if wrong.any():
        raise ValueError(f"index {indices[np.argmax(wrong)]} is out of order or out of range")
