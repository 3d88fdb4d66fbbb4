"""Plain-torch truth of `depthwise_scales` and of its gradients."""

import torch
from torch import Tensor
from torch.nn import functional as F

from lmwp_ops._layout import with_layout_of
from lmwp_ops.ops._epilogue import apply_epilogue, epilogue_backward


def _compute_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


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
        z = F.conv2d(
            x.to(dtype),
            weights[b].to(dtype),
            stride=stride,
            padding=_padding(weights[b], dilation),
            dilation=dilation,
            groups=x.shape[1],
        )  # [N, C, OH, OW]
        y = apply_epilogue(z, b, scale, shift, slope)
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

    z = conv(x, w) is recomputed, so nothing but the inputs is kept from the forward pass.
    """
    kinds: tuple[list[Tensor], ...] = ([], [], [], [], [])
    wants_x, wants_weight, *wants_epilogue = wanted
    for b, x in enumerate(xs):
        dtype = _compute_dtype(x)
        x_, w_, dy = x.to(dtype), weights[b].to(dtype), grads[b].to(dtype)
        z = None
        if slope or wants_epilogue[0]:
            z = F.conv2d(
                x_, w_, None, stride, _padding(w_, dilation), dilation, x.shape[1]
            )  # [N, C, OH, OW]
        dz, gradients = epilogue_backward(dy, z, b, scale, shift, slope, wants_epilogue)
        for kind, gradient in zip(kinds[2:], gradients, strict=True):
            if gradient is not None:
                kind.append(gradient)
        if not (wants_x or wants_weight):
            continue
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            dz,
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
