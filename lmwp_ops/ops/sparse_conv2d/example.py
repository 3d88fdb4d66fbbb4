"""Arguments to try `sparse_conv2d` with."""

from typing import Any

import torch

from lmwp_ops._examples import Draw, Shapes
from lmwp_ops.ops.sparse_conv2d.weight import SparseConvWeight

_ROWS = 4  # of blocks, which every back end multiplies


def example(device: torch.device, dtype: torch.dtype, shapes: Shapes | None) -> tuple[Any, ...]:
    """1 x 1 with half of its blocks pruned, the last of which are not full; the epilogue."""
    draw = Draw(device, dtype)
    x = draw(*(shapes[0] if shapes else (2, 40, 9, 13)))
    out = 3 * _ROWS + 2
    dense = draw.weight(out, x.shape[1], 1, 1)
    blocks = draw(4, x.shape[1], 1, 1) > 0
    mask = blocks.repeat_interleave(_ROWS, 0)[:out]
    weight = SparseConvWeight.from_dense(dense, mask, "block", block=(_ROWS, 1))
    parameters = [[draw(out)] for _ in range(3)]
    settings = ([1, 1], [0, 0], [1, 1], 1)
    return (
        *(x, weight.values, list(weight.indices), *parameters, [draw.slope(out)]),
        *(weight.format, list(weight.shape), list(weight.block), *settings),
    )
