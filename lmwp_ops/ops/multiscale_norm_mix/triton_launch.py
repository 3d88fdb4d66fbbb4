"""Launches of the Triton kernels of `multiscale_norm_mix`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lmwp_ops import _triton
from lmwp_ops._layout import with_layout_of
from lmwp_ops.ops.multiscale_mix.gradient_kernels import SUM_CONFIG, SUMS
from lmwp_ops.ops.multiscale_mix.triton_kernels import TAPS
from lmwp_ops.ops.multiscale_mix.triton_maps import scales
from lmwp_ops.ops.multiscale_norm_mix import gradient_kernels, triton_kernels
from lmwp_ops.ops.sizes.planes import ceil_div, planar
from lmwp_ops.ops.sizes.triton_kernels import passed

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
    """`reference.forward` on the GPU, in at most five launches."""
    at = scales(u, octaves, dilations)
    sources = at.of_branches(at.u, at.pooled())
    weights, mix = weights.contiguous(), mix.contiguous()
    parts, splits, programs = at.parts(sources, sources)
    images, branches, channels = mix.shape
    partial = tuple(
        u.new_empty(splits, *mix.shape, dtype=dtype)
        for dtype in (torch.float32, torch.float32, torch.float32, torch.int64)
    )
    at.launch(
        triton_kernels.multiscale_norm_mix_fwd_moments_kernel,
        programs,
        *(sources, weights, partial),
        *(passed(size) for size in (parts, splits, images, channels)),
    )
    means = torch.empty_like(mix)
    mean, var, scale, shift = (mix.new_empty(branches, channels) for _ in range(4))
    pairs = branches * channels
    _triton.launch(
        triton_kernels.multiscale_norm_mix_fwd_statistics_kernel,
        ceil_div(pairs, SUM_CONFIG["PAIRS"]),
        u.device,
        *(partial, (gamma.contiguous(), beta.contiguous()), (mean, var, scale, shift), means),
        *(passed(size) for size in (splits, images, pairs)),
        eps,
        **SUM_CONFIG,
    )
    out = u.new_empty(u.shape)
    at.sum(sources, (weights, scale, shift, mix), out)
    return with_layout_of(u, out), means, mean, var


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
    """`reference.backward` on the GPU, in at most seven launches."""
    at = scales(u, octaves, dilations)
    sources, slopes = at.of_branches(at.u, at.pooled()), planar(grad)
    grads = at.of_branches(slopes, at.spread(slopes))
    kernels, shares, gammas, betas, mean, var = (
        p.contiguous() for p in (weights, mix, gamma, beta, batch_mean, batch_var)
    )
    parts, splits, programs = at.parts(sources, grads)
    images, _, channels = mix.shape
    sizes = [passed(size) for size in (parts, splits, images, channels)]
    sums = tuple(mix.new_empty(splits, *mix.shape) for _ in range(2))
    at.launch(
        gradient_kernels.multiscale_norm_mix_bwd_sums_kernel,
        programs,
        *(sources, grads, kernels, mean, sums, *sizes),
    )
    dgamma, dbeta, dmix = (
        torch.empty_like(p, dtype=torch.float32) for p in (gammas, betas, shares)
    )
    _triton.launch(
        gradient_kernels.multiscale_norm_mix_bwd_statistics_kernel,
        ceil_div(dgamma.numel(), SUM_CONFIG["PAIRS"]),
        u.device,
        *(sums, (gammas, betas, var), shares, (dgamma, dbeta, dmix)),
        *(passed(size) for size in (splits, images, dgamma.numel())),
        eps,
        **SUM_CONFIG,
    )
    grad_u, dweights = u.new_empty(u.shape), weights
    if wanted[0] or wanted[1]:
        dzs = tuple(source.new_empty(source.shape, dtype=torch.float32) for source in sources)
        partial = mix.new_empty(splits, *mix.shape, SUMS.value)
        parameters = (kernels, gammas, mean, var, shares)
        at.launch(
            gradient_kernels.multiscale_norm_mix_bwd_weight_kernel,
            programs,
            *(sources, grads, dzs, parameters, (dgamma, dbeta), partial, *sizes, eps),
        )
        taps = partial.sum((0, 1))[..., : TAPS.value]
        dweights = taps.contiguous().view(weights.shape)
        if wanted[0]:
            at.sum(dzs, (kernels, gammas, betas, shares), grad_u, weighed=False, adjoint=True)
    made = ((weights, dweights), (mix, dmix), (gamma, dgamma), (beta, dbeta))
    dweight_kind, dmix_kind, dgamma_kind, dbeta_kind = (
        [g.to(p.dtype)] if want else [] for (p, g), want in zip(made, wanted[1:], strict=True)
    )
    du = [with_layout_of(u, grad_u)] if wanted[0] else []
    return du, dweight_kind, dmix_kind, dgamma_kind, dbeta_kind
