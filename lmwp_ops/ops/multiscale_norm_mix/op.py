"""Registration of `multiscale_norm_mix`: schema, fake, autograd, autocast and backends."""

from typing import Any

import torch
from torch import Tensor

from lmwp_ops import _dispatch, _triton
from lmwp_ops._autograd import invoke
from lmwp_ops._layout import empty_like_layout
from lmwp_ops._library import define
from lmwp_ops._registration import empty_gradients, register, register_gradient
from lmwp_ops.ops.bn_prelu_gap.reference import statistics_dtype
from lmwp_ops.ops.multiscale_mix.checks import Branches, split_branches
from lmwp_ops.ops.multiscale_norm_mix import reference
from lmwp_ops.ops.multiscale_norm_mix.checks import OP, check, check_backward
from lmwp_ops.ops.multiscale_norm_mix.example import example, example_of_backward

_TENSORS = "Tensor u, Tensor weights, Tensor mix, Tensor gamma, Tensor beta"
_SETTINGS = "int[] octaves, int[] dilations, float eps"
_FORWARD = f"({_TENSORS}, {_SETTINGS}) -> (Tensor, Tensor, Tensor, Tensor)"
_BACKWARD = (
    f"(Tensor grad, {_TENSORS}, Tensor batch_mean, Tensor batch_var, {_SETTINGS}, bool[5] wanted) "
    "-> (Tensor[], Tensor[], Tensor[], Tensor[], Tensor[])"
)
define(OP, _FORWARD)
define(f"{OP}_backward", _BACKWARD)
# Implemented by the compiled library _C.
define(f"{OP}_cpp", _FORWARD)
define(f"{OP}_backward_cpp", _BACKWARD)


def multiscale_norm_mix(
    u: Tensor,
    weights: Tensor,
    mix: Tensor,
    gamma: Tensor,
    beta: Tensor,
    branches: Branches,
    *,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`multiscale_mix` whose branches pass a batch norm in training mode on the way.

    z_k = conv_k(pool_k(u)); scale_k = gamma_k / sqrt(var_k + eps), shift_k = beta_k -
    mean_k * scale_k, with the mean and the biased variance of z_k over the batch and the pixels of
    its pooled map; the rest is as in `lmwp_ops.multiscale_mix`. Nothing is updated:
    `lmwp_ops.nn.MultiscaleMix` keeps running statistics. Zeros in mix are skipped in the sum, but
    every branch is computed, for its statistics.

    Args:
        u, weights, mix, branches: see `lmwp_ops.multiscale_mix`.
        gamma, beta: [K, m], with the dtype of u; with 16-bit u they may stay float32.
        eps: positive, added to the variances.

    Returns:
        out: [N, m, H, W] with dtype and memory format of u.
        means: [N, K, m], the mean over its pooled map of each channel after the norm.
        batch_mean, batch_var: [K, m], mean and biased variance of z; zeros if N is 0.

        All but out are float32 (float64 for float64 u) and have no gradient.

    Differentiable once with respect to u, weights, mix, gamma and beta, through the statistics;
    results are deterministic.

    Raises:
        ValueError: an argument does not fit, or a branch has one value per channel; the message
            names it.
        BackendError: a backend forced by `use_backend` cannot run the call.
    """
    args = _bind(u, weights, mix, gamma, beta, branches, eps=eps)
    if _dispatch.is_decomposed():
        check(*args)
        return reference.forward(*args)
    outputs: tuple[Tensor, Tensor, Tensor, Tensor] = invoke(OP, check, args)
    return outputs


def _bind(
    u: Tensor,
    weights: Tensor,
    mix: Tensor,
    gamma: Tensor,
    beta: Tensor,
    branches: Branches,
    *,
    eps: float = 1e-5,
) -> tuple[Any, ...]:
    octaves, dilations = split_branches(OP, branches)
    return u, weights, mix, gamma, beta, octaves, dilations, eps


def _fake_forward(u: Tensor, weights: Tensor, mix: Tensor, *_: Any) -> tuple[Tensor, ...]:
    wide = statistics_dtype(u)
    batch_mean, batch_var = (u.new_empty(weights.shape[:2], dtype=wide) for _ in range(2))
    means = u.new_empty(mix.shape, dtype=wide)
    return empty_like_layout(u, u.shape), means, batch_mean, batch_var


def _fake_backward(grad: Tensor, u: Tensor, *args: Any) -> tuple[list[Tensor], ...]:
    parameters, wanted = args[:4], args[-1]
    return empty_gradients([u], [[parameter] for parameter in parameters], wanted)


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
    compiled={"cpp": torch.ops.lmwp_ops.multiscale_norm_mix_backward_cpp.default},
    triton=_triton.launcher(__package__, "backward"),
    kept_outputs=2,
    example=example_of_backward,
)
