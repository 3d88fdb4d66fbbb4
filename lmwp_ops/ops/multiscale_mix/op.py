"""Registration of `multiscale_mix`: schema, fake, autograd, autocast and backends."""

from typing import Any

import torch
from torch import Tensor

from lmwp_ops import _dispatch, _triton
from lmwp_ops._autograd import invoke
from lmwp_ops._layout import empty_like_layout
from lmwp_ops._library import define
from lmwp_ops._registration import empty_gradients, register, register_gradient
from lmwp_ops.ops._arguments import split_affine
from lmwp_ops.ops.multiscale_mix import reference
from lmwp_ops.ops.multiscale_mix.checks import OP, Branches, check, check_backward, split_branches
from lmwp_ops.ops.multiscale_mix.example import example

_ARGUMENTS = (
    "Tensor u, Tensor weights, Tensor mix, Tensor scale, Tensor shift, "
    "int[] octaves, int[] dilations"
)
define(OP, f"({_ARGUMENTS}) -> Tensor")
_BACKWARD = (
    f"(Tensor grad, {_ARGUMENTS}, bool[5] wanted) "
    "-> (Tensor[], Tensor[], Tensor[], Tensor[], Tensor[])"
)
define(f"{OP}_backward", _BACKWARD)
# Implemented by the compiled library _C.
define(f"{OP}_cpp", f"({_ARGUMENTS}) -> Tensor")
define(f"{OP}_backward_cpp", _BACKWARD)


def multiscale_mix(
    u: Tensor, weights: Tensor, mix: Tensor, branches: Branches, affine: tuple[Tensor, Tensor]
) -> Tensor:
    """Sum depthwise branches of one feature at several scales, weighted per image and channel.

    out = sum over k of mix_k * resize(scale_k * conv_k(pool_k(u)) + shift_k): the multi-scale
    weight pruning module (MWPM) of LMWP-Net, batch norms folded. Branch k = (octave, dilation)
    pools by means over windows of 2^octave, rounding sizes up (the windows at the far borders are
    smaller), convolves depthwise 3 x 3 with zero padding, and resizes bilinearly
    (align_corners=False) to the size of u. A zero in mix is skipped, not multiplied: whatever its
    branch holds, NaN included, adds nothing.

    Args:
        u: [N, m, H, W]; float32, float16, bfloat16, or float64 (reference only). Any strides.
        weights: [K, m, 3, 3].
        mix: [N, K, m] in float32; in float64 for float64 u.
        branches: K pairs (octave, dilation), octave 0 to 15, dilation at least 1.
        affine: (scale, shift), both [K, m], such as folded batch norms.

    Weights and affine have the dtype of u; with 16-bit u they may stay float32. Under autocast u
    is cast and the others are not.

    Returns:
        [N, m, H, W] with dtype and memory format of u.

    Differentiable once with respect to every tensor; results are deterministic.

    Raises:
        ValueError: an argument does not fit; the message names it.
        BackendError: a backend forced by `use_backend` cannot run the call.
    """
    args = _bind(u, weights, mix, branches, affine)
    if _dispatch.is_decomposed():
        check(*args)
        return reference.forward(*args)
    out: Tensor = invoke(OP, check, args)
    return out


def _bind(
    u: Tensor, weights: Tensor, mix: Tensor, branches: Branches, affine: tuple[Tensor, Tensor]
) -> tuple[Any, ...]:
    (scale,), (shift,) = split_affine(OP, [affine])
    octaves, dilations = split_branches(OP, branches)
    return u, weights, mix, scale, shift, octaves, dilations


def _fake_forward(u: Tensor, *_: Any) -> Tensor:
    return empty_like_layout(u, u.shape)


def _fake_backward(grad: Tensor, u: Tensor, *args: Any) -> tuple[list[Tensor], ...]:
    *parameters, _, _, wanted = args
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
    compiled={"cpp": torch.ops.lmwp_ops.multiscale_mix_backward_cpp.default},
    triton=_triton.launcher(__package__, "backward"),
)
