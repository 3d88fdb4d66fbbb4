"""Plain-torch truth of `channel_spatial_attention` and of its gradients."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lmwp_ops._layout import with_layout_of
from lmwp_ops.ops._epilogue import compute_dtype, output_dtype

Linear = Sequence[Tensor]
"""Nothing, a weight [out, in], or a weight and a bias [out]."""

Kinds = tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]


class Pooled(NamedTuple):
    """A mean or a maximum over some elements: where the maximum is, None for a mean."""

    value: Tensor
    at: Tensor | None


def forward(
    x: Tensor,
    reduce: Linear,
    expand: Linear,
    spatial: Sequence[Tensor],
    mean: bool,
    max: bool,
) -> Tensor:
    """See `lmwp_ops.channel_spatial_attention`; arguments are taken as already checked."""
    y = x.to(compute_dtype(x))
    if reduce:
        y = y * _channel_gate(_pool_pixels(y, mean, max), reduce, expand)
    if spatial:
        y = y * torch.sigmoid(_spatial_sum(_pool_channels(y, mean, max), spatial))
    return with_layout_of(x, y.to(output_dtype(x, y)))


def _pool_pixels(x: Tensor, mean: bool, max: bool) -> list[Pooled]:
    """[N, C] each; of equal maxima the first counts."""
    flat = x.flatten(2)
    pooled = [Pooled(flat.mean(2), None)] if mean else []
    return [*pooled, Pooled(*flat.max(2))] if max else pooled


def _pool_channels(x: Tensor, mean: bool, max: bool) -> list[Pooled]:
    """[N, 1, H, W] each; of equal maxima the first counts."""
    pooled = [Pooled(x.mean(1, keepdim=True), None)] if mean else []
    return [*pooled, Pooled(*x.max(1, keepdim=True))] if max else pooled


def _linear(v: Tensor, layer: Linear) -> Tensor:
    weight, *bias = (parameter.to(v.dtype) for parameter in layer)
    return F.linear(v, weight, *bias)


def _channel_gate(pooled: list[Pooled], reduce: Linear, expand: Linear) -> Tensor:
    """[N, C, 1, 1]."""
    values = torch.stack([pool.value for pool in pooled])  # [pools, N, C]
    logits = _linear(_linear(values, reduce).relu(), expand).sum(0)
    return torch.sigmoid(logits)[:, :, None, None]


def _spatial_sum(pooled: list[Pooled], spatial: Sequence[Tensor]) -> Tensor:
    """[N, 1, H, W]."""
    q = torch.cat([pool.value for pool in pooled], 1)
    sums = [F.conv2d(q, kernel[None].to(q.dtype), padding=_padding(kernel)) for kernel in spatial]
    return sum(sums[1:], start=sums[0])


def _padding(kernel: Tensor) -> int:
    return kernel.shape[-1] // 2


def backward(
    grad: Tensor,
    x: Tensor,
    reduce: Linear,
    expand: Linear,
    spatial: Sequence[Tensor],
    mean: bool,
    max: bool,
    wanted: Sequence[bool],
) -> Kinds:
    """Gradients of (x, reduce, expand, spatial); a kind not `wanted` is an empty list.

    Both gates are computed again; only x is kept.
    """
    read, g = x.to(compute_dtype(x)), grad.to(compute_dtype(x))
    gated = read
    if reduce:
        pixels = _pool_pixels(read, mean, max)
        gate = _channel_gate(pixels, reduce, expand)
        gated = read * gate
    dspatial: list[Tensor] = []
    if spatial:
        g, dspatial = _spatial_backward(g, gated, spatial, mean, max)
    dx = g
    dreduce: list[Tensor] = []
    dexpand: list[Tensor] = []
    if reduce:
        dlogit = ((g * read).sum((2, 3), keepdim=True) * gate * (1 - gate))[:, :, 0, 0]
        dpooled, dreduce, dexpand = _mlp_backward(dlogit, pixels, reduce, expand)
        dx = (g * gate).flatten(2)
        for pool, dv in zip(pixels, dpooled, strict=True):
            dx = _spread(dx, 2, pool.at, dv[:, :, None])
        dx = dx.view(read.shape)
    return (
        [with_layout_of(x, dx.to(x.dtype))] if wanted[0] else [],
        _like(dreduce, reduce) if wanted[1] else [],
        _like(dexpand, expand) if wanted[2] else [],
        _like(dspatial, spatial) if wanted[3] else [],
    )


def _spatial_backward(
    grad: Tensor, gated: Tensor, spatial: Sequence[Tensor], mean: bool, max: bool
) -> tuple[Tensor, list[Tensor]]:
    """The gradients of what the spatial gate multiplies, and of its kernels."""
    pooled = _pool_channels(gated, mean, max)
    q = torch.cat([pool.value for pool in pooled], 1)
    gate = torch.sigmoid(_spatial_sum(pooled, spatial))
    dsum = (grad * gated).sum(1, keepdim=True) * gate * (1 - gate)  # [N, 1, H, W]
    dq, dkernels = torch.zeros_like(q), []
    for kernel in spatial:
        weight, padding = kernel[None].to(q.dtype), [_padding(kernel)] * 2
        dq_part, dweight, _ = torch.ops.aten.convolution_backward(
            *(dsum, q, weight, None, [1, 1], padding, [1, 1], False, [0, 0], 1),
            [True, True, False],
        )
        dq += dq_part
        dkernels.append(dweight[0])
    dgated = grad * gate
    for c, pool in enumerate(pooled):
        dgated = _spread(dgated, 1, pool.at, dq[:, c : c + 1])
    return dgated, dkernels


def _mlp_backward(
    grad: Tensor, pooled: list[Pooled], reduce: Linear, expand: Linear
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The gradients of the pooled values [pools, N, C] and of both layers; `grad` is [N, C]."""
    values = torch.stack([pool.value for pool in pooled])
    before = _linear(values, reduce)  # [pools, N, h]
    dhidden = torch.where(before > 0, grad @ expand[0].to(grad.dtype), 0)
    dexpand = _layer_backward(grad.expand_as(values), before.relu(), expand)
    dreduce = _layer_backward(dhidden, values, reduce)
    return dhidden @ reduce[0].to(grad.dtype), dreduce, dexpand


def _layer_backward(grad: Tensor, v: Tensor, layer: Linear) -> list[Tensor]:
    """The gradients of a layer's weight and, if it has one, bias."""
    rows = grad.flatten(0, 1)
    return [rows.mT @ v.flatten(0, 1), rows.sum(0)][: len(layer)]


def _spread(grad: Tensor, dim: int, index: Tensor | None, dvalue: Tensor) -> Tensor:
    """`grad` and the gradient of a mean or, where there is an `index`, a maximum over `dim`."""
    if index is None:
        return grad + dvalue / grad.shape[dim]
    return grad.scatter_add(dim, index.view(dvalue.shape), dvalue)


def _like(gradients: list[Tensor], parameters: Sequence[Tensor]) -> list[Tensor]:
    return [g.to(p.dtype).contiguous() for g, p in zip(gradients, parameters, strict=True)]
