"""dilated_bank in plain PyTorch: the truth in tests, the baseline in benchmarks, the fallback."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lmwp_ops.ops._arguments import Affine
from lmwp_ops.ops._epilogue import apply_epilogue


def dilated_bank_reference(
    xs: Sequence[Tensor],
    weights: Sequence[Sequence[Tensor | None]],
    dilations: Sequence[int],
    *,
    affine: Affine | None,
    slope: Sequence[Tensor] | None,
) -> list[Tensor]:
    """See `lmwp_ops.dilated_bank`; arguments are taken as already checked."""
    banks = []
    for x, row in zip(xs, weights, strict=True):
        convs = [
            F.conv2d(x, weight, padding=rate, dilation=rate)
            for weight, rate in zip(row, dilations, strict=True)
            if weight is not None
        ]
        if convs:
            banks.append(torch.cat(convs, dim=1))
    return apply_epilogue(banks, affine, slope)
