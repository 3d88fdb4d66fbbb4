"""The backward pass of `dilated_bank` on the kernels of the compiled CPU library."""

import torch
from torch import Tensor

from lmwp_ops.ops._epilogue import strip_epilogue

Tensors = list[Tensor]


def backward(
    grads: Tensors,
    xs: Tensors,
    weights: Tensors,
    scale: Tensors,
    shift: Tensors,
    slope: Tensors,
    dilations: list[int],
    counts: list[int],
    wanted: list[bool],
) -> tuple[Tensors, Tensors, Tensors, Tensors, Tensors]:
    """As `reference.backward`."""
    ops = torch.ops.lmwp_ops
    wants_xs, wants_weights, *wants_epilogue = wanted

    def convolve(wide: Tensors) -> Tensors:
        ws = [w.float() for w in weights]
        zs: Tensors = ops.dilated_bank_cpp(wide, ws, [], [], [], dilations, counts)
        return zs

    dzs, kinds = strip_epilogue(grads, xs, convolve, scale, shift, slope, wants_epilogue)
    grad_xs, grad_weights = ops.dilated_bank_conv_backward_cpp(
        dzs, xs, weights, dilations, counts, wants_xs, wants_weights
    )
    return grad_xs, grad_weights, *kinds
