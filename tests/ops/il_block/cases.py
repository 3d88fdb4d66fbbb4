"""Cases of il_block and the arguments drawn for them."""

from typing import Any

import torch
from torch import Tensor

from lmwp_ops.ops.il_block import reference

from ..goctconv2d import cases
from ..goctconv2d.cases import Case, in_dtype

# The blocks of CSNet, whole and pruned: stage entries and ends, odd widths, maps of many bands.
CASES = [
    Case((3,), (8, 10), (48, 64), 3),
    Case((10, 10), (10, 10), (200, 112)),
    Case((9, 10), (10, 7), (32, 48), layout="channels_last"),
    Case((18, 12), (28, 21), (64, 56), 3, entry_pool=True),
    Case((20, 12), (34,), (56, 56)),
    Case((38,), (18, 29), (28, 28), 3, entry_pool=True),
    Case((25, 24), (26, 20), (14, 14), batch=3),
    Case((26, 20), (50,), (6, 2)),
    Case((4, 3, 2), (3, 4, 5), (8, 12), 3),
    Case((0, 6), (0, 7), (16, 10)),
    Case((5,), (3, 2), (2, 2)),
    Case((5,), (3, 2), (8, 3), 3, layout="sliced"),
    Case((6, 5), (5, 6), (20, 34), dtype=torch.float16),
    Case((6, 5), (5, 6), (20, 34), 3, dtype=torch.bfloat16, layout="channels_last"),
    Case((6, 5), (5, 6), (20, 34), epilogue=False),
    Case((6, 5), (5, 6), (20, 34), batch=0),
]


def draw(case: Case) -> tuple[Any, ...]:
    """Arguments of the op."""
    xs, weight, *epilogue, ins, outs, entry_pool, _, _ = cases.draw(case)
    widths = [c for c in case.outs if c]
    depthwise = [0.5 * torch.randn(c, 1, 3, 3) for c in widths * 2]
    ranges = ((0.5, 2), (-1, 1), (-0.2, 0.5))
    for kind, (low, high) in zip(epilogue, ranges, strict=True):
        if kind:
            kind += [torch.empty(c).uniform_(low, high).to(case.dtype) for c in widths * 2]
    depthwise = [w.to(case.dtype) for w in depthwise]
    return (xs, weight, depthwise, *epilogue, ins, outs, entry_pool)


def truth(args: tuple[Any, ...]) -> list[Tensor]:
    return reference.forward(*in_dtype(args, torch.float64))
