"""Plain-torch truth of `sparse_conv2d` and of its gradients: a dense convolution."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lmwp_ops._layout import with_layout_of
from lmwp_ops.ops._epilogue import apply_epilogue, compute_dtype, epilogue_backward, output_dtype
from lmwp_ops.ops.sparse_conv2d import semi_structured
from lmwp_ops.ops.sparse_conv2d.layout import gather, scatter

Tensors = list[Tensor]
Kinds = tuple[Tensors, Tensors, Tensors, Tensors, Tensors, Tensors, Tensors]


def forward(
    x: Tensor,
    values: Tensor,
    indices: Sequence[Tensor],
    bias: Sequence[Tensor],
    scale: Sequence[Tensor],
    shift: Sequence[Tensor],
    slope: Sequence[Tensor],
    format: str,
    shape: Sequence[int],
    block: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """See `lmwp_ops.sparse_conv2d`; arguments are taken as already checked."""
    weight = scatter(values, indices, format, shape, block)
    if format == "2:4" and _has_own_kernel(x, values, stride, padding):
        b = bias[0].to(x.dtype) if bias else None
        z = semi_structured.convolve(x, values, weight, b)
    else:
        z = _convolve(x, weight, bias, stride, padding, dilation, groups)
    y = apply_epilogue(z, 0, scale, shift, slope)
    return with_layout_of(x, y.to(output_dtype(x, y)))


def _has_own_kernel(
    x: Tensor, values: Tensor, stride: Sequence[int], padding: Sequence[int]
) -> bool:
    """Whether torch has a kernel for two of every four inputs here."""
    if not x.is_cuda or x.dtype != values.dtype or (*stride, *padding) != (1, 1, 0, 0):
        return False
    return semi_structured.why_not((len(values), x.shape[1]), x.dtype, x.device) is None


def _convolve(
    x: Tensor,
    weight: Tensor,
    bias: Sequence[Tensor],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """What the epilogue is applied to."""
    dtype = compute_dtype(x)
    wide_bias = bias[0].to(dtype) if bias else None
    settings = (list(stride), list(padding), list(dilation), groups)
    return F.conv2d(x.to(dtype), weight.to(dtype), wide_bias, *settings)


def backward(
    grad: Tensor,
    x: Tensor,
    values: Tensor,
    indices: Sequence[Tensor],
    bias: Sequence[Tensor],
    scale: Sequence[Tensor],
    shift: Sequence[Tensor],
    slope: Sequence[Tensor],
    format: str,
    shape: Sequence[int],
    block: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    wanted: Sequence[bool],
) -> Kinds:
    """Gradients of the tensors in their order, a list each; indices have none.

    Nothing but the inputs is kept from the forward pass: the sums are computed again where the
    epilogue needs them.
    """
    wants_x, wants_values, _, wants_bias, *wants_rest = wanted
    kinds = (scale, shift, slope)
    wants_epilogue = [want and bool(kind) for want, kind in zip(wants_rest, kinds, strict=True)]
    dtype = compute_dtype(x)
    weight = scatter(values, indices, format, shape, block).to(dtype)
    z = None
    if slope or wants_epilogue[0]:
        z = _convolve(x, weight, bias, stride, padding, dilation, groups)
    dz, parameters = epilogue_backward(grad.to(dtype), z, 0, scale, shift, slope, wants_epilogue)
    dx, dw, _ = torch.ops.aten.convolution_backward(
        *(dz, x.to(dtype), weight, None, list(stride), list(padding), list(dilation)),
        *(False, [0, 0], groups, [wants_x, wants_values, False]),
    )
    grad_values = []
    if wants_values:
        packed = gather(dw, indices, format, shape, block)
        grad_values = [packed.to(values.dtype).reshape(-1).view(values.shape)]
    grad_x = [with_layout_of(x, dx.to(x.dtype))] if wants_x else []
    grad_bias = [dz.sum((0, 2, 3)).to(bias[0].dtype)] if wants_bias and bias else []
    grad_scale, grad_shift, grad_slope = ([] if g is None else [g] for g in parameters)
    return grad_x, grad_values, [], grad_bias, grad_scale, grad_shift, grad_slope
