"""Plain-torch truth of `mwpm_block`: its layers one after the other."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lmwp_ops._layout import with_layout_of
from lmwp_ops.ops._epilogue import apply_epilogue, compute_dtype, output_dtype
from lmwp_ops.ops.multiscale_mix import reference as multiscale_mix


def forward(
    x: Tensor,
    expand: Sequence[Tensor],
    gate: Sequence[Tensor],
    depthwise: Sequence[Tensor],
    project: Sequence[Tensor],
    octaves: Sequence[int],
    dilations: Sequence[int],
    packed: Tensor | None = None,
) -> Tensor:
    """See `lmwp_ops.mwpm_block`; arguments are taken as already checked."""
    read = x.to(compute_dtype(x))
    weight, scale, shift, slope = expand
    u = apply_epilogue(F.conv2d(read, weight.to(read.dtype)), 0, [scale], [shift], [slope])
    weights, scale, shift = depthwise
    mix = shares(u, gate)
    y = multiscale_mix.forward(u, weights, mix, scale, shift, octaves, dilations)
    weight, scale, shift, slope = project
    z = apply_epilogue(F.conv2d(y, weight.to(y.dtype)), 0, [scale], [shift], []) + read
    out = apply_epilogue(z, 0, [], [], [slope])
    return with_layout_of(x, out.to(output_dtype(x, out)))


def shares(u: Tensor, gate: Sequence[Tensor]) -> Tensor:
    """The weights [N, K, m] of the branches, in float32 or wider."""
    reduce, reduce_bias, slope, expand, expand_bias, threshold = (p.to(u.dtype) for p in gate)
    hidden = F.prelu(F.linear(u.mean((2, 3)), reduce, reduce_bias), slope)
    logits = F.linear(hidden, expand, expand_bias).unflatten(1, (-1, u.shape[1]))
    wide = torch.promote_types(logits.dtype, torch.float32)
    kept = (logits.to(wide).softmax(1) - threshold.to(wide)).relu()
    return kept / kept.sum(1, keepdim=True)
