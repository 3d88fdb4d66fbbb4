"""The epilogue the ops share: per-channel affine (a folded batch norm), then PReLU."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lmwp_ops.ops._arguments import Affine


def apply_epilogue(
    ys: Sequence[Tensor], affine: Affine | None, slope: Sequence[Tensor] | None
) -> list[Tensor]:
    """`prelu(scale * y + shift)` per branch; a missing `affine` or `slope` is the identity.

    Computed in the wider of the dtypes of `y` and the parameters, returned in that of `y`.
    """
    outputs = []
    for b, y in enumerate(ys):
        dtype = y.dtype
        if affine is not None:
            scale, shift = affine[b]
            y = y * scale[:, None, None] + shift[:, None, None]
        if slope is not None:
            wide = torch.promote_types(y.dtype, slope[b].dtype)
            y = F.prelu(y.to(wide), slope[b].to(wide))
        outputs.append(y.to(dtype))
    return outputs
