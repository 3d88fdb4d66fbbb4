"""Launches of the Triton kernels of `multiscale_mix`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lmwp_ops import _triton
from lmwp_ops._layout import with_layout_of
from lmwp_ops.ops.multiscale_mix import gradient_kernels
from lmwp_ops.ops.multiscale_mix.gradient_kernels import SUM_CONFIG, SUMS
from lmwp_ops.ops.multiscale_mix.triton_maps import Scales, scales
from lmwp_ops.ops.sizes.planes import ceil_div, planar
from lmwp_ops.ops.sizes.triton_kernels import passed

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
    """`reference.forward` on the GPU: in three launches, in one without coarse levels."""
    at = scales(u, octaves, dilations)
    parameters = tuple(p.contiguous() for p in (weights, scale, shift, mix))
    out = u.new_empty(u.shape)
    at.sum(at.of_branches(at.u, at.pooled()), parameters, out)
    return with_layout_of(u, out)


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
    """`reference.backward` on the GPU, in at most seven launches."""
    at = scales(u, octaves, dilations)
    parameters = tuple(p.contiguous() for p in (weights, scale, shift, mix))
    slopes = planar(grad)
    grads = at.of_branches(slopes, at.spread(slopes))
    grad_u = u.new_empty(u.shape)
    if wanted[0]:
        at.sum(grads, parameters, grad_u, adjoint=True)
    made: list[Tensor] = []
    if any(wanted[1:]):
        made = _parameters_backward(at, grads, parameters, skip=not wanted[2])
    order = (weights, 0), (mix, 3), (scale, 1), (shift, 2)
    dweights, dmix, dscale, dshift = (
        [made[i].to(p.dtype)] if want else []
        for (p, i), want in zip(order, wanted[1:], strict=True)
    )
    du = [with_layout_of(u, grad_u)] if wanted[0] else []
    return du, dweights, dmix, dscale, dshift


def _parameters_backward(
    at: Scales, grads: Sequence[Tensor], parameters: tuple[Tensor, ...], *, skip: bool
) -> list[Tensor]:
    """Gradients of weights, scale, shift and mix in float32."""
    sources = at.of_branches(at.u, at.pooled())
    mix = parameters[3]
    parts, splits, programs = at.parts(sources, grads)
    partial = mix.new_empty(splits, *mix.shape, SUMS.value)
    images, pairs = mix.shape[0], mix.shape[1] * mix.shape[2]
    at.launch(
        gradient_kernels.multiscale_mix_bwd_weight_kernel,
        programs,
        *(sources, tuple(grads), mix, partial),
        *(passed(size) for size in (parts, splits, images, mix.shape[2])),
        SKIP=skip,
    )
    made = [torch.empty_like(p, dtype=torch.float32) for p in parameters]
    _triton.launch(
        gradient_kernels.multiscale_mix_bwd_parameters_kernel,
        ceil_div(pairs, SUM_CONFIG["PAIRS"]),
        mix.device,
        *(partial, parameters, tuple(made)),
        *(passed(size) for size in (splits, images, pairs)),
        **SUM_CONFIG,
    )
    return made
