"""Backward pass of `sparse_conv2d` on the kernels of the compiled CPU library."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lmwp_ops.ops._epilogue import strip_epilogue
from lmwp_ops.ops.sparse_conv2d.reference import Kinds, Tensors


def backward(
    grad: Tensor,
    x: Tensor,
    values: Tensor,
    indices: Tensors,
    bias: Tensors,
    scale: Tensors,
    shift: Tensors,
    slope: Tensors,
    format: str,
    shape: Sequence[int],
    block: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    wanted: Sequence[bool],
) -> Kinds:
    """See `reference.backward`."""
    settings: tuple[Any, ...] = (format, shape, block, stride, padding, dilation, groups)
    wants_x, wants_values, _, wants_bias, *wants_epilogue = wanted

    def convolve(wide: Tensors) -> Tensors:
        wide_bias = [b.float() for b in bias]
        parameters: tuple[Any, ...] = (values.float(), indices, wide_bias, [], [], [])
        return [torch.ops.lmwp_ops.sparse_conv2d_cpp(wide[0], *parameters, *settings)]

    (dz,), kinds = strip_epilogue([grad], [x], convolve, scale, shift, slope, wants_epilogue)
    grad_x, grad_values = torch.ops.lmwp_ops.sparse_conv2d_conv_backward_cpp(
        dz, x, values, indices, *settings, wants_x, wants_values
    )
    grad_bias = []
    if wants_bias and bias:
        grad_bias = [dz.sum((0, 2, 3), dtype=torch.float32).to(bias[0].dtype)]
    return grad_x, grad_values, [], grad_bias, *kinds
