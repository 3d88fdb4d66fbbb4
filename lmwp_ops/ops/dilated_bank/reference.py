"""Plain-torch truth of `dilated_bank` and of its gradients."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lmwp_ops._layout import with_layout_of
from lmwp_ops.ops._epilogue import apply_epilogue, compute_dtype, epilogue_backward, output_dtype
from lmwp_ops.ops.dilated_bank.checks import per_scale

Kinds = tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor], list[Tensor]]


def forward(
    xs: Sequence[Tensor],
    weights: Sequence[Tensor],
    scale: Sequence[Tensor],
    shift: Sequence[Tensor],
    slope: Sequence[Tensor],
    dilations: Sequence[int],
    counts: Sequence[int],
) -> list[Tensor]:
    """See `lmwp_ops.dilated_bank`; arguments are taken as already checked."""
    rates = iter(dilations)
    ys: list[Tensor] = []
    for x, row in zip(xs, per_scale(weights, counts), strict=True):
        if row:
            z = _bank(x.to(compute_dtype(x)), row, [next(rates) for _ in row])
            y = apply_epilogue(z, len(ys), scale, shift, slope)
            ys.append(with_layout_of(x, y.to(output_dtype(x, y))))
    return ys


def _bank(x: Tensor, weights: Sequence[Tensor], dilations: Sequence[int]) -> Tensor:
    convs = [
        F.conv2d(x, weight.to(x.dtype), padding=rate, dilation=rate)
        for weight, rate in zip(weights, dilations, strict=True)
    ]
    return torch.cat(convs, dim=1)


def backward(
    grads: Sequence[Tensor],
    xs: Sequence[Tensor],
    weights: Sequence[Tensor],
    scale: Sequence[Tensor],
    shift: Sequence[Tensor],
    slope: Sequence[Tensor],
    dilations: Sequence[int],
    counts: Sequence[int],
    wanted: Sequence[bool],
) -> Kinds:
    """Gradients of (xs, weights, scale, shift, slope); a kind not `wanted` is an empty list."""
    wants_xs, wants_weights, *wants_epilogue = wanted
    kinds: Kinds = ([], [], [], [], [])
    rates = iter(dilations)
    output = 0
    for x, row in zip(xs, per_scale(weights, counts), strict=True):
        read = x.to(compute_dtype(x))
        grad_x = torch.zeros_like(read)
        if row:
            row_rates = [next(rates) for _ in row]
            z = _bank(read, row, row_rates) if slope or wants_epilogue[0] else None
            grad = grads[output].to(read.dtype)
            dz, parameters = epilogue_backward(grad, z, output, scale, shift, slope, wants_epilogue)
            for kind, gradient in zip(kinds[2:], parameters, strict=True):
                if gradient is not None:
                    kind.append(gradient)
            parts = dz.split([weight.shape[0] for weight in row], dim=1)
            for part, weight, rate in zip(parts, row, row_rates, strict=True):
                dx, dw, _ = torch.ops.aten.convolution_backward(
                    part,
                    read,
                    weight.to(read.dtype),
                    None,
                    [1, 1],
                    [rate, rate],
                    [rate, rate],
                    False,
                    [0, 0],
                    1,
                    [wants_xs, wants_weights, False],
                )
                if wants_xs:
                    grad_x += dx
                if wants_weights:
                    kinds[1].append(dw.contiguous().to(weight.dtype))
            output += 1
        if wants_xs:
            kinds[0].append(with_layout_of(x, grad_x.to(x.dtype)))
    return kinds
