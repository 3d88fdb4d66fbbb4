"""Plain-torch truth of `multiscale_mix` and of its gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lmwp_ops._layout import with_layout_of
from lmwp_ops.ops._epilogue import compute_dtype, output_dtype
from lmwp_ops.ops.multiscale_mix.branch import (
    convolve,
    convolve_backward,
    per_channel,
    per_image,
    pool,
    pool_backward,
    resize,
    resize_backward,
    weigh,
)

Kinds = tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor], list[Tensor]]


def forward(
    u: Tensor,
    weights: Tensor,
    mix: Tensor,
    scale: Tensor,
    shift: Tensor,
    octaves: Sequence[int],
    dilations: Sequence[int],
) -> Tensor:
    """See `lmwp_ops.multiscale_mix`; arguments are taken as already checked."""
    read = u.to(compute_dtype(u))
    terms = []
    for k, (octave, dilation) in enumerate(zip(octaves, dilations, strict=True)):
        z = convolve(pool(read, octave), weights[k].to(read.dtype), dilation)
        y = z * per_channel(scale[k]) + per_channel(shift[k])
        terms.append(weigh(mix[:, k], resize(y, u, octave)))
    out = sum(terms[1:], start=terms[0])
    return with_layout_of(u, out.to(output_dtype(u, out)))


def backward(
    grad: Tensor,
    u: Tensor,
    weights: Tensor,
    mix: Tensor,
    scale: Tensor,
    shift: Tensor,
    octaves: Sequence[int],
    dilations: Sequence[int],
    wanted: Sequence[bool],
) -> Kinds:
    """Gradients of (u, weights, mix, scale, shift); a kind not `wanted` is an empty list.

    What mix leaves out adds nothing to the others; mix itself has its gradient everywhere.
    """
    wants_u, wants_weights, *_ = wanted
    read = u.to(compute_dtype(u))
    du = torch.zeros_like(read)
    rows: tuple[list[Tensor], ...] = ([], [], [], [])  # of weights, mix, scale and shift
    for k, (octave, dilation) in enumerate(zip(octaves, dilations, strict=True)):
        weight, share = weights[k].to(read.dtype), per_image(mix[:, k])
        used = share != 0
        pooled = pool(read, octave)
        z = convolve(pooled, weight, dilation)
        dterm = resize_backward(grad.to(read.dtype), pooled, octave)  # of y, but for the share
        dy = torch.where(used, share * dterm, 0)
        dz = torch.where(used, dy * per_channel(scale[k]), 0).to(read.dtype)
        dpooled, dweight = convolve_backward(
            dz, torch.where(used, pooled, 0), weight, dilation, (wants_u, wants_weights)
        )
        if wants_u:
            du += pool_backward(torch.where(used, dpooled, 0), read, octave)
        y = z * per_channel(scale[k]) + per_channel(shift[k])
        dmix = (dterm * y).sum((2, 3))
        dscale = torch.where(used, dy * z, 0).sum((0, 2, 3))
        for row, value in zip(rows, (dweight, dmix, dscale, dy.sum((0, 2, 3))), strict=True):
            row.append(value)
    du_kind = [with_layout_of(u, du.to(u.dtype))] if wants_u else []
    dweights = [torch.stack(rows[0]).to(weights.dtype)] if wants_weights else []
    dmixes = [torch.stack(rows[1], 1).to(mix.dtype)] if wanted[2] else []
    dscales = [torch.stack(rows[2]).to(scale.dtype)] if wanted[3] else []
    dshifts = [torch.stack(rows[3]).to(shift.dtype)] if wanted[4] else []
    return du_kind, dweights, dmixes, dscales, dshifts
