"""Registration of `depthwise_scales`: schema, fake, autograd, autocast and backends."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lmwp_ops import _dispatch, _triton
from lmwp_ops._autograd import invoke
from lmwp_ops._layout import empty_like_layout
from lmwp_ops._library import define
from lmwp_ops._registration import (
    empty_gradients,
    register,
    register_gradient,
)
from lmwp_ops.ops._arguments import split_affine
from lmwp_ops.ops.depthwise_scales import reference
from lmwp_ops.ops.depthwise_scales.checks import check, check_gradients, output_shape
from lmwp_ops.ops.depthwise_scales.example import example

Tensors = list[Tensor]

_ARGUMENTS = (
    "Tensor[] xs, Tensor[] weights, Tensor[] scale, Tensor[] shift, Tensor[] slope, "
    "int stride, int dilation"
)
define("depthwise_scales", f"({_ARGUMENTS}) -> Tensor[]")
_BACKWARD = (
    f"(Tensor[] grads, {_ARGUMENTS}, bool[5] wanted) "
    "-> (Tensor[], Tensor[], Tensor[], Tensor[], Tensor[])"
)
define("depthwise_scales_backward", _BACKWARD)
# Implemented by the compiled libraries: the CPU one in _C, the CUDA one in _C_cuda.
define("depthwise_scales_cpp", f"({_ARGUMENTS}) -> Tensor[]")
define("depthwise_scales_cuda", f"({_ARGUMENTS}) -> Tensor[]")
define("depthwise_scales_backward_cpp", _BACKWARD)
define("depthwise_scales_backward_cuda", _BACKWARD)


def depthwise_scales(
    xs: Sequence[Tensor],
    weights: Sequence[Tensor],
    *,
    dilation: int = 1,
    stride: int = 1,
    affine: Sequence[tuple[Tensor, Tensor]] | None = None,
    slope: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """Depthwise convolution of every branch of a multi-scale feature, with its epilogue.

    y_b = PReLU(scale_b * conv(x_b, w_b) + shift_b), zero padded by dilation * (k // 2), so that
    stride 1 keeps the size and stride 2 halves it, rounding up. Without `affine` or `slope` that
    step is left out. One launch computes all branches.

    Args:
        xs: branches [N, C_b, H_b, W_b]; float32, float16, bfloat16, or float64 (reference only).
            Any strides; branches may differ in every size but share dtype and device.
        weights: one [C_b, 1, k, k] per branch; k is 1, 3, 5 or 7 and the same for all.
        dilation: distance of the taps in pixels, at least 1.
        stride: 1 or 2.
        affine: one (scale, shift) per branch, each [C_b], such as a folded batch norm.
        slope: one [C_b] per branch, the PReLU's slope below zero.

    Parameters have the dtype of xs; with 16-bit xs they may stay float32. Sums are in float32.
    Under autocast the branches are cast and the parameters are not.

    Returns:
        One [N, C_b, H'_b, W'_b] per branch with dtype and memory format of x_b.

    Differentiable once with respect to every tensor; results are deterministic.

    Raises:
        ValueError: an argument does not fit; the message names it.
        BackendError: a backend forced by `use_backend` cannot run the call.
    """
    args = _bind(xs, weights, dilation=dilation, stride=stride, affine=affine, slope=slope)
    if _dispatch.is_decomposed():
        check(*args)
        return reference.forward(*args)
    return invoke("depthwise_scales", check, args)


def _bind(
    xs: Sequence[Tensor],
    weights: Sequence[Tensor],
    *,
    dilation: int = 1,
    stride: int = 1,
    affine: Sequence[tuple[Tensor, Tensor]] | None = None,
    slope: Sequence[Tensor] | None = None,
) -> tuple[Tensors, Tensors, Tensors, Tensors, Tensors, int, int]:
    scale, shift = split_affine("depthwise_scales", affine)
    return list(xs), list(weights), scale, shift, list(slope or ()), stride, dilation


def _check_backward(grads: Tensors, *args: Any) -> None:
    *op_args, wanted = args
    check(*op_args)
    check_gradients(grads, op_args[0], op_args[5], wanted)


def _fake_forward(
    xs: Tensors,
    weights: Tensors,
    scale: Tensors,
    shift: Tensors,
    slope: Tensors,
    stride: int,
    dilation: int,
) -> Tensors:
    return [empty_like_layout(x, output_shape(x, stride)) for x in xs]


def _fake_backward(grads: Tensors, *args: Any) -> tuple[Tensors, ...]:
    xs, weights, scale, shift, slope, _, _, wanted = args
    return empty_gradients(xs, (weights, scale, shift, slope), wanted)


register(
    "depthwise_scales",
    check=check,
    fake=_fake_forward,
    reference=reference.forward,
    compiled=("cuda", "cpp"),
    triton=_triton.launcher(__package__, "forward"),
    bind=_bind,
    example=example,
)
register_gradient(
    "depthwise_scales",
    check=_check_backward,
    fake=_fake_backward,
    reference=reference.backward,
    compiled={
        "cuda": torch.ops.lmwp_ops.depthwise_scales_backward_cuda.default,
        "cpp": torch.ops.lmwp_ops.depthwise_scales_backward_cpp.default,
    },
    triton=_triton.launcher(__package__, "backward"),
)
