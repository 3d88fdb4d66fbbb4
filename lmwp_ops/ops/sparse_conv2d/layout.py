"""How each format holds a pruned weight, and the dense weight it stands for.

A weight is [O, I, kh, kw], with I the input channels of a group, or the matrix [O, I kh kw].

- `dense`: values [O, I, kh, kw], zero where pruned; indices: `kept`, the flat positions of what is
  kept.
- `2:4` (1 x 1): values [O, I / 2, 1, 1], two of every four inputs; indices: `kept`, as in `dense`.
- `channels`: values [o, i, kh, kw]; indices: `outputs` [o] and `inputs` [i], the kept channels.
- `block`: values [n, columns, rows], one entry for each kept block of the matrix; indices:
  `offsets` [O / rows + 1], where the blocks of each row of blocks begin, and `columns` [n], which
  of the I kh kw / columns they are. Rows that O lacks are zeros.
- `taps`: blocks of 1 x 1.
- `unstructured` (1 x 1): the same, first of the input channels 0 to 63, then of the next 64, and so
  on, with O more offsets for each such slab. What a slab reads of some pixels fits into the first
  level of a cache.

Indices are int32 and rise strictly within a row.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

FORMATS = ("dense", "2:4", "channels", "unstructured", "block", "taps")
"""Those that a weight can have; `auto` chooses one of them."""

TORCH_FORMATS = {
    "dense": "its weight is kept dense: see the weight's reason",
    "2:4": "two of every four inputs are for torch's own kernels",
}
"""Those that torch convolves, and why."""

BLOCK_FORMATS = ("unstructured", "block", "taps")
"""Those that hold a matrix in blocks."""

INDEX_NAMES = {
    **dict.fromkeys(TORCH_FORMATS, ("kept",)),
    "channels": ("outputs", "inputs"),
    **dict.fromkeys(BLOCK_FORMATS, ("offsets", "columns")),
}


SLAB = 64
"""Input channels of a slab."""


def slab_count(format: str, shape: Sequence[int]) -> int:
    """In how many slabs of its columns a format holds a weight."""
    return -(-shape[1] // SLAB) if format == "unstructured" else 1


def scatter(
    values: Tensor,
    indices: Sequence[Tensor],
    format: str,
    shape: Sequence[int],
    block: Sequence[int],
) -> Tensor:
    """The dense weight [O, I, kh, kw] of packed values."""
    if format == "dense":
        return values
    if format == "2:4":
        flat = values.new_zeros(shape[0] * shape[1])
        return flat.index_put((indices[0].long(),), values.reshape(-1)).view(tuple(shape))
    if format == "channels":
        weight = values.new_zeros(tuple(shape))
        return weight.index_put((indices[0][:, None].long(), indices[1].long()), values)
    blocks = values.new_zeros(*_block_counts(shape, block), block[1], block[0])
    blocks = blocks.index_put(_block_places(indices, len(blocks)), values)
    matrix = blocks.permute(0, 3, 1, 2).flatten(0, 1).flatten(1)  # [rows up to whole blocks, .]
    return matrix[: shape[0]].reshape(tuple(shape))


def gather(
    weight: Tensor,
    indices: Sequence[Tensor],
    format: str,
    shape: Sequence[int],
    block: Sequence[int],
) -> Tensor:
    """The packed values of a dense weight [O, I, kh, kw]: what `scatter` takes back."""
    if format == "dense":
        kept = indices[0].long()
        flat = weight.reshape(-1)
        return torch.zeros_like(flat).index_put((kept,), flat[kept]).view(tuple(shape))
    if format == "2:4":
        return weight.reshape(-1)[indices[0].long()].view(shape[0], -1, 1, 1)
    if format == "channels":
        return weight[indices[0][:, None].long(), indices[1].long()]
    rows, columns = _block_counts(shape, block)
    matrix = weight.reshape(shape[0], -1)
    missing = rows * block[0] - shape[0]
    matrix = torch.nn.functional.pad(matrix, (0, 0, 0, missing))
    blocks = matrix.view(rows, block[0], columns, block[1]).permute(0, 2, 3, 1)
    return blocks[_block_places(indices, rows)]


def _block_counts(shape: Sequence[int], block: Sequence[int]) -> tuple[int, int]:
    return -(-shape[0] // block[0]), shape[1] * shape[2] * shape[3] // block[1]


def _block_places(indices: Sequence[Tensor], rows: int) -> tuple[Tensor, Tensor]:
    """The row and the column of every block."""
    offsets, columns = indices
    row = torch.arange(len(offsets) - 1, device=offsets.device) % rows
    counts = offsets.diff().long()
    return row.repeat_interleave(counts, output_size=len(columns)), columns.long()
