"""Plain-torch truth of `depthwise_scales` and of its gradients."""

import torch
from torch import Tensor
from torch.nn import functional as F

from lmwp_ops._layout import with_layout_of


def _compute_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _per_channel(parameter: Tensor, dtype: torch.dtype) -> Tensor:
    return parameter.to(dtype).view(-1, 1, 1)  # [C, 1, 1]


def _padding(weight: Tensor, dilation: int) -> int:
    return dilation * (weight.shape[-1] // 2)


def _dense(weight: Tensor) -> Tensor:
    k = weight.shape[-1]
    return weight.contiguous().as_strided(weight.shape, (k * k, k * k, k, 1))


def forward(
    xs: list[Tensor],
    weights: list[Tensor],
    scale: list[Tensor],
    shift: list[Tensor],
    slope: list[Tensor],
    stride: int,
    dilation: int,
) -> list[Tensor]:
    """y_b = PReLU(scale_b * conv(x_b, w_b) + shift_b), in float32 or, for float64, in float64."""
    ys = []
    for b, x in enumerate(xs):
        dtype = _compute_dtype(x)
        y = F.conv2d(
            x.to(dtype),
            weights[b].to(dtype),
            stride=stride,
            padding=_padding(weights[b], dilation),
            dilation=dilation,
            groups=x.shape[1],
        )  # [N, C, OH, OW]
        if scale:
            y = y * _per_channel(scale[b], dtype) + _per_channel(shift[b], dtype)
        if slope:
            y = torch.where(y > 0, y, y * _per_channel(slope[b], dtype))
        ys.append(with_layout_of(x, y.to(x.dtype)))
    return ys


def backward(
    grads: list[Tensor],
    xs: list[Tensor],
    weights: list[Tensor],
    scale: list[Tensor],
    shift: list[Tensor],
    slope: list[Tensor],
    stride: int,
    dilation: int,
    wanted: list[bool],
) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
    """Gradients of (xs, weights, scale, shift, slope); a kind not `wanted` is an empty list.

    With z = conv(x, w), u = scale * z + shift and y = PReLU(u): du = dy where u > 0, else
    slope * dy; dslope sums dy * u where u <= 0; dscale sums du * z; dshift sums du; dz is
    scale * du. z is recomputed, so nothing but the inputs is kept from the forward pass.
    """
    kinds: tuple[list[Tensor], ...] = ([], [], [], [], [])
    wants_x, wants_weight, wants_scale, wants_shift, wants_slope = wanted
    for b, x in enumerate(xs):
        dtype = _compute_dtype(x)
        x_, w_, du = x.to(dtype), weights[b].to(dtype), grads[b].to(dtype)
        gamma = _per_channel(scale[b], dtype) if scale else None
        z = None
        if slope or wants_scale:
            z = F.conv2d(
                x_, w_, None, stride, _padding(w_, dilation), dilation, x.shape[1]
            )  # [N, C, OH, OW]
        if slope and z is not None:
            u = z if gamma is None else z * gamma + _per_channel(shift[b], dtype)
            if wants_slope:
                grad_slope = torch.where(u > 0, 0, du * u).sum((0, 2, 3))  # [C]
                kinds[4].append(grad_slope.to(slope[b].dtype))
            du = torch.where(u > 0, du, du * _per_channel(slope[b], dtype))
        if wants_shift:
            kinds[3].append(du.sum((0, 2, 3)).to(shift[b].dtype))
        if wants_scale and z is not None:
            kinds[2].append((du * z).sum((0, 2, 3)).to(scale[b].dtype))
        if not (wants_x or wants_weight):
            continue
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            du if gamma is None else du * gamma,
            x_,
            w_,
            None,
            [stride, stride],
            [_padding(w_, dilation)] * 2,
            [dilation, dilation],
            False,
            [0, 0],
            x.shape[1],
            [wants_x, wants_weight, False],
        )
        if wants_x:
            kinds[0].append(with_layout_of(x, grad_x.to(x.dtype)))
        if wants_weight:
            kinds[1].append(_dense(grad_weight.to(weights[b].dtype)))
    return kinds[0], kinds[1], kinds[2], kinds[3], kinds[4]
