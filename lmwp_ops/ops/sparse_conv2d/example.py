"""Arguments to try `sparse_conv2d` with."""

from typing import Any

import torch

from lmwp_ops._examples import Draw, Shapes
from lmwp_ops.ops.sparse_conv2d.weight import SparseConvWeight


def example(device: torch.device, dtype: torch.dtype, shapes: Shapes | None) -> tuple[Any, ...]:
    """3 x 3 with half of its taps pruned, padding, bias and the epilogue."""
    draw = Draw(device, dtype)
    x = draw(*(shapes[0] if shapes else (2, 5, 9, 13)))
    out = 6
    dense = draw.weight(out, x.shape[1], 3, 3)
    weight = SparseConvWeight.from_dense(dense, dense.abs() > dense.abs().median(), "taps")
    parameters = [[draw(out)] for _ in range(3)]
    settings = ([1, 1], [1, 1], [1, 1], 1)
    return (
        *(x, weight.values, list(weight.indices), *parameters, [draw.slope(out)]),
        *(weight.format, list(weight.shape), list(weight.block), *settings),
    )
