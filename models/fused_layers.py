"""The modules of LMWP-Net layer by layer, for GPUs: each layer is an op that has a kernel there.

They compute what `lmwp_ops.mwpm_block` and `lmwp_ops.guided_fusion` compute in one call on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

import lmwp_ops
from lmwp_models.blocks import resize

Parameters = Sequence[Tensor]


def mwpm_by_layers(
    x: Tensor,
    expand: Parameters,
    gate: Parameters,
    depthwise: Parameters,
    project: Parameters,
    branches: Sequence[tuple[int, int]],
) -> Tensor:
    """See `lmwp_ops.mwpm_block`."""
    weights, scale, shift = depthwise
    *layer, slope = project
    u = pointwise(x, *expand)
    mixed = lmwp_ops.multiscale_mix(u, weights, shares(u, gate), branches, (scale, shift))
    return F.prelu(x + pointwise(mixed, *layer), slope.to(x.dtype))


def shares(u: Tensor, gate: Parameters) -> Tensor:
    """The weights [N, K, m] of the branches, in float32 or wider."""
    wide = torch.promote_types(u.dtype, torch.float32)
    reduce, reduce_bias, slope, expand, expand_bias, threshold = (p.to(wide) for p in gate)
    hidden = F.prelu(F.linear(u.mean((2, 3), dtype=wide), reduce, reduce_bias), slope)
    logits = F.linear(hidden, expand, expand_bias).unflatten(1, (-1, u.shape[1]))
    kept = (logits.softmax(1) - threshold).relu()
    return kept / kept.sum(1, keepdim=True)


def fusion_by_layers(
    encoder: Tensor,
    decoder: Tensor,
    gate: Tensor,
    encode: Parameters,
    decode: Parameters,
    guide: Parameters,
    depthwise: Parameters,
    fuse: Parameters,
    dilations: Sequence[int],
) -> Tensor:
    """See `lmwp_ops.guided_fusion`."""
    weight, bias = (parameter.to(decoder.dtype) for parameter in guide)
    where = resize(torch.sigmoid(F.conv2d(decoder, weight, bias)), encoder)
    which = gate.to(encoder.dtype)[:, :, None, None]
    f = pointwise(encoder, *encode) * (1 + where)
    f = f + resize(pointwise(decoder, *decode), encoder) * which
    weights, scale, shift = depthwise
    ones = torch.ones_like(shift, dtype=torch.promote_types(f.dtype, torch.float32))
    branches = [(0, dilation) for dilation in dilations]
    mix = ones.expand(f.shape[0], -1, -1)
    return pointwise(f + lmwp_ops.multiscale_mix(f, weights, mix, branches, (scale, shift)), *fuse)


def pointwise(
    x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor, slope: Tensor | None = None
) -> Tensor:
    """A 1 x 1 convolution with its affine and PReLU."""
    channels = ([weight.shape[1]], [weight.shape[0]])
    slopes = None if slope is None else [slope]
    return lmwp_ops.goctconv2d([x], weight, *channels, affine=[(scale, shift)], slope=slopes)[0]
