"""Plain-torch truth of `multiscale_norm_mix` and of its gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lmwp_ops._layout import with_layout_of
from lmwp_ops.ops._epilogue import compute_dtype, output_dtype
from lmwp_ops.ops.bn_prelu_gap.reference import statistics_dtype
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
    gamma: Tensor,
    beta: Tensor,
    octaves: Sequence[int],
    dilations: Sequence[int],
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(out, means [N, K, m], batch means [K, m], biased batch variances [K, m])."""
    read, wide = u.to(compute_dtype(u)), statistics_dtype(u)
    terms: list[Tensor] = []
    rows: tuple[list[Tensor], ...] = ([], [], [])  # of means, batch means and batch variances
    for k, (octave, dilation) in enumerate(zip(octaves, dilations, strict=True)):
        z = convolve(pool(read, octave), weights[k].to(read.dtype), dilation)
        mean, var = _statistics(z.to(wide))
        scale = gamma[k].to(wide) * torch.rsqrt(var + eps)
        y = z * per_channel(scale) + per_channel(beta[k].to(wide) - mean * scale)
        terms.append(weigh(mix[:, k], resize(y, u, octave)))
        for row, value in zip(rows, (y.mean((2, 3)), mean, var), strict=True):
            row.append(value.detach())
    out = sum(terms[1:], start=terms[0])
    out = with_layout_of(u, out.to(output_dtype(u, out)))
    return out, torch.stack(rows[0], 1), torch.stack(rows[1]), torch.stack(rows[2])


def _statistics(z: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel, zeros for an empty batch."""
    if z.shape[0] == 0:
        return z.new_zeros(z.shape[1]), z.new_zeros(z.shape[1])
    var, mean = torch.var_mean(z, (0, 2, 3), correction=0)
    return mean, var


def backward(
    grad: Tensor,
    u: Tensor,
    weights: Tensor,
    mix: Tensor,
    gamma: Tensor,
    beta: Tensor,
    batch_mean: Tensor,
    batch_var: Tensor,
    octaves: Sequence[int],
    dilations: Sequence[int],
    eps: float,
    wanted: Sequence[bool],
) -> Kinds:
    """Gradients of (u, weights, mix, gamma, beta); a kind not `wanted` is an empty list."""
    wants_u, wants_weights, *_ = wanted
    read, wide = u.to(compute_dtype(u)), statistics_dtype(u)
    du = torch.zeros_like(read)
    rows: tuple[list[Tensor], ...] = ([], [], [], [])  # of weights, mix, gamma and beta
    for k, (octave, dilation) in enumerate(zip(octaves, dilations, strict=True)):
        weight = weights[k].to(read.dtype)
        pooled = pool(read, octave)
        rstd = torch.rsqrt(batch_var[k] + eps)  # [m]
        z = convolve(pooled, weight, dilation).to(wide)
        normal = (z - per_channel(batch_mean[k])) * per_channel(rstd)
        dterm = resize_backward(grad.to(read.dtype), pooled, octave)  # of y, but for the share
        dy = per_image(mix[:, k]) * dterm
        dgamma, dbeta = (dy * normal).sum((0, 2, 3)), dy.sum((0, 2, 3))
        # The mean and the variance depend on z as well.
        count = max(z.numel() // z.shape[1], 1)
        through_statistics = (per_channel(dbeta) + normal * per_channel(dgamma)) / count
        dz = per_channel(gamma[k].to(wide) * rstd) * (dy - through_statistics)
        dpooled, dweight = convolve_backward(
            dz.to(read.dtype), pooled, weight, dilation, (wants_u, wants_weights)
        )
        if wants_u:
            du += pool_backward(dpooled, read, octave)
        y = normal * per_channel(gamma[k].to(wide)) + per_channel(beta[k].to(wide))
        dmix = (dterm * y).sum((2, 3))
        for row, value in zip(rows, (dweight, dmix, dgamma, dbeta), strict=True):
            row.append(value)
    du_kind = [with_layout_of(u, du.to(u.dtype))] if wants_u else []
    dweights = [torch.stack(rows[0]).to(weights.dtype)] if wants_weights else []
    dmixes = [torch.stack(rows[1], 1).to(mix.dtype)] if wanted[2] else []
    dgammas = [torch.stack(rows[2]).to(gamma.dtype)] if wanted[3] else []
    dbetas = [torch.stack(rows[3]).to(beta.dtype)] if wanted[4] else []
    return du_kind, dweights, dmixes, dgammas, dbetas
