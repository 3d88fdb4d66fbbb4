"""Backward passes on the kernels of the compiled CPU library."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lmwp_ops.ops._epilogue import strip_epilogue

Tensors = list[Tensor]
Kinds = tuple[Tensors, Tensors, Tensors, Tensors, Tensors]


def backward_of(op: str) -> Callable[..., Kinds]:
    """`reference.backward` of a convolution op whose library has gradients without the epilogue.

    Those are `<op>_conv_backward_cpp`; where the epilogue needs what it was applied to, that is
    computed again in float32.
    """
    forward, backward = f"{op}_cpp", f"{op}_conv_backward_cpp"

    def compute(
        grads: Tensors,
        xs: Tensors,
        weights: Tensor | Tensors,
        scale: Tensors,
        shift: Tensors,
        slope: Tensors,
        *settings_and_wanted: Any,
    ) -> Kinds:
        ops = torch.ops.lmwp_ops
        *settings, (wants_xs, wants_weights, *wants_epilogue) = settings_and_wanted

        def convolve(wide: Tensors) -> Tensors:
            ws = weights.float() if isinstance(weights, Tensor) else [w.float() for w in weights]
            zs: Tensors = getattr(ops, forward)(wide, ws, [], [], [], *settings)
            return zs

        dzs, kinds = strip_epilogue(grads, xs, convolve, scale, shift, slope, wants_epilogue)
        grad_xs, grad_weights = getattr(ops, backward)(
            dzs, xs, weights, *settings, wants_xs, wants_weights
        )
        return grad_xs, grad_weights, *kinds

    return compute
