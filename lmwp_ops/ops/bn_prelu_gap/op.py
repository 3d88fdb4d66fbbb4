"""Registration of `bn_prelu_gap`: schema, fake, autograd, autocast and backends."""

from collections.abc import Sequence
from typing import overload

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
from lmwp_ops.ops.bn_prelu_gap import reference
from lmwp_ops.ops.bn_prelu_gap.checks import OP, check, check_backward
from lmwp_ops.ops.bn_prelu_gap.example import example, example_of_backward
from lmwp_ops.ops.bn_prelu_gap.reference import statistics_dtype

Tensors = list[Tensor]
Outputs = tuple[Tensors, Tensors, Tensors, Tensors]

_ARGUMENTS = "Tensor[] xs, Tensor[] weight, Tensor[] bias, Tensor[] slope"
_STATISTICS = "Tensor[] batch_mean, Tensor[] batch_var"
_FORWARD = f"({_ARGUMENTS}, float eps) -> (Tensor[], Tensor[], Tensor[], Tensor[])"
_BACKWARD = (
    f"(Tensor[] grads, {_ARGUMENTS}, {_STATISTICS}, float eps, bool[4] wanted) "
    "-> (Tensor[], Tensor[], Tensor[], Tensor[])"
)
define("bn_prelu_gap", _FORWARD)
define("bn_prelu_gap_backward", _BACKWARD)
# Implemented by the compiled library _C.
define("bn_prelu_gap_cpp", _FORWARD)
define("bn_prelu_gap_backward_cpp", _BACKWARD)


@overload
def bn_prelu_gap(
    x: Tensor, weight: Tensor, bias: Tensor, slope: Tensor | None, *, eps: float = 1e-5
) -> tuple[Tensor, Tensor, Tensor, Tensor]: ...


@overload
def bn_prelu_gap(
    x: Sequence[Tensor],
    weight: Sequence[Tensor],
    bias: Sequence[Tensor],
    slope: Sequence[Tensor] | None,
    *,
    eps: float = 1e-5,
) -> Outputs: ...


def bn_prelu_gap(
    x: Tensor | Sequence[Tensor],
    weight: Tensor | Sequence[Tensor],
    bias: Tensor | Sequence[Tensor],
    slope: Tensor | Sequence[Tensor] | None,
    *,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor, Tensor] | Outputs:
    """Batch norm in training mode and PReLU, and the channel means of what comes out.

    y = PReLU((x - mean) / sqrt(var + eps) * weight + bias), with the mean and the biased variance
    of each channel over the batch and all pixels. Without `slope` it is the batch norm alone.
    Nothing is updated: `lmwp_ops.nn.BatchNormPReLU2d` keeps running statistics.

    Args:
        x: [N, C, H, W]; float32, float16, bfloat16, or float64 (reference only). Any strides.
        weight, bias: [C].
        slope: [C], the PReLU's slope below zero, or None.
        eps: positive, added to the variance.

    Parameters have the dtype of x; with 16-bit x they may stay float32. Under autocast x is cast
    and the parameters are not. For all branches of a multi-scale feature at once, give a list of
    each: x [N, C_b, H_b, W_b] and parameters [C_b], and every output is a list, too.

    Returns:
        y: [N, C, H, W] with dtype and memory format of x.
        means: [N, C], the mean of each sample's channels of y.
        batch_mean, batch_var: [C], mean and biased variance of x; zeros if N is 0.

        All but y are float32 (float64 for float64 x) and have no gradient.

    Differentiable once with respect to x, weight, bias and slope; results are deterministic.
    Only x and the statistics are kept for the backward pass.

    Raises:
        ValueError: an argument does not fit, or N * H * W is 1; the message names it.
        BackendError: a backend forced by `use_backend` cannot run the call.
    """
    args = _bind(x, weight, bias, slope, eps=eps)
    if _dispatch.is_decomposed():
        check(*args)
        outputs = reference.forward(*args)
    else:
        outputs = invoke(OP, check, args)
    if isinstance(x, Tensor):
        (y,), (means,), (batch_mean,), (batch_var,) = outputs
        return y, means, batch_mean, batch_var
    return outputs


def _bind(
    x: Tensor | Sequence[Tensor],
    weight: Tensor | Sequence[Tensor],
    bias: Tensor | Sequence[Tensor],
    slope: Tensor | Sequence[Tensor] | None,
    *,
    eps: float = 1e-5,
) -> tuple[Tensors, Tensors, Tensors, Tensors, float]:
    return _listed(x), _listed(weight), _listed(bias), _listed(slope), eps


def _listed(given: Tensor | Sequence[Tensor] | None) -> Tensors:
    if given is None:
        return []
    return [given] if isinstance(given, Tensor) else list(given)


def _fake_forward(
    xs: Tensors, weight: Tensors, bias: Tensors, slope: Tensors, eps: float
) -> Outputs:
    ys = [empty_like_layout(x, x.shape) for x in xs]
    means = [x.new_empty(x.shape[:2], dtype=statistics_dtype(x)) for x in xs]
    batch_mean, batch_var = (
        [x.new_empty(x.shape[1], dtype=statistics_dtype(x)) for x in xs] for _ in range(2)
    )
    return ys, means, batch_mean, batch_var


def _fake_backward(
    grads: Tensors,
    xs: Tensors,
    weight: Tensors,
    bias: Tensors,
    slope: Tensors,
    batch_mean: Tensors,
    batch_var: Tensors,
    eps: float,
    wanted: list[bool],
) -> tuple[Tensors, ...]:
    return empty_gradients(xs, (weight, bias, slope), wanted)


register(
    OP,
    check=check,
    fake=_fake_forward,
    reference=reference.forward,
    compiled=("cpp",),
    triton=_triton.launcher(__package__, "forward"),
    bind=_bind,
    example=example,
)
register_gradient(
    OP,
    check=check_backward,
    fake=_fake_backward,
    reference=reference.backward,
    compiled={"cpp": torch.ops.lmwp_ops.bn_prelu_gap_backward_cpp.default},
    triton=_triton.launcher(__package__, "backward"),
    kept_outputs=2,
    example=example_of_backward,
)
