"""The backward pass of `goctconv2d` on the kernels of the compiled CPU library."""

from typing import Any

import torch
from torch import Tensor

from lmwp_ops.ops._epilogue import strip_epilogue

Tensors = list[Tensor]


def backward(
    grads: Tensors,
    xs: Tensors,
    weight: Tensor,
    scale: Tensors,
    shift: Tensors,
    slope: Tensors,
    *settings_and_wanted: Any,
) -> tuple[Tensors, Tensors, Tensors, Tensors, Tensors]:
    """As `reference.backward`."""
    ops = torch.ops.lmwp_ops
    *settings, (wants_xs, wants_weight, *wants_epilogue) = settings_and_wanted

    def convolve(wide: Tensors) -> Tensors:
        zs: Tensors = ops.goctconv2d_cpp(wide, weight.float(), [], [], [], *settings)
        return zs

    dzs, kinds = strip_epilogue(grads, xs, convolve, scale, shift, slope, wants_epilogue)
    grad_xs, grad_weight = ops.goctconv2d_conv_backward_cpp(
        dzs, xs, weight, *settings, wants_xs, wants_weight
    )
    return grad_xs, grad_weight, *kinds
