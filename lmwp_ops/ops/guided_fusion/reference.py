"""Plain-torch truth of `guided_fusion`: its steps one after the other."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lmwp_ops._layout import with_layout_of
from lmwp_ops.ops._epilogue import apply_epilogue, compute_dtype, output_dtype
from lmwp_ops.ops.multiscale_mix.branch import convolve, per_channel


def forward(
    xs: Sequence[Tensor],
    gate: Tensor,
    encode: Sequence[Tensor],
    decode: Sequence[Tensor],
    guide: Sequence[Tensor],
    depthwise: Sequence[Tensor],
    fuse: Sequence[Tensor],
    dilations: Sequence[int],
) -> Tensor:
    """See `lmwp_ops.guided_fusion`; arguments are taken as already checked."""
    fine, coarse = (x.to(compute_dtype(x)) for x in xs)
    size = (fine.shape[2], fine.shape[3])
    weight, bias = (parameter.to(coarse.dtype) for parameter in guide)
    where = _resize(torch.sigmoid(F.conv2d(coarse, weight, bias)), size)
    which = gate.to(fine.dtype)[:, :, None, None]
    f = _normed(fine, encode) * (1 + where) + _resize(_normed(coarse, decode), size) * which
    weights, scales, shifts = depthwise
    total = f
    for k, dilation in enumerate(dilations):
        z = convolve(f, weights[k].to(f.dtype), dilation)
        total = total + (z * per_channel(scales[k]) + per_channel(shifts[k])).to(f.dtype)
    weight, scale, shift, slope = fuse
    out = apply_epilogue(F.conv2d(total, weight.to(f.dtype)), 0, [scale], [shift], [slope])
    return with_layout_of(xs[0], out.to(output_dtype(xs[0], out)))


def _normed(x: Tensor, layer: Sequence[Tensor]) -> Tensor:
    weight, scale, shift = layer
    return apply_epilogue(F.conv2d(x, weight.to(x.dtype)), 0, [scale], [shift], [])


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False).to(x.dtype)
