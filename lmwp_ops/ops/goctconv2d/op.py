"""Registration of `goctconv2d`: schema, fake, autograd, autocast and backends."""

from collections.abc import Sequence
from typing import Any, Literal

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
from lmwp_ops.ops._arguments import Affine, argument_error, check_channels, split_affine
from lmwp_ops.ops.goctconv2d import reference
from lmwp_ops.ops.goctconv2d.checks import OP, check, check_gradients, output_shapes
from lmwp_ops.ops.goctconv2d.example import example

Tensors = list[Tensor]

_ARGUMENTS = (
    "Tensor[] xs, Tensor weight, Tensor[] scale, Tensor[] shift, Tensor[] slope, "
    "int[] in_channels, int[] out_channels, bool entry_pool, bool cross_scale, bool bilinear_down"
)
define(OP, f"({_ARGUMENTS}) -> Tensor[]")
_BACKWARD = (
    f"(Tensor[] grads, {_ARGUMENTS}, bool[5] wanted) "
    "-> (Tensor[], Tensor[], Tensor[], Tensor[], Tensor[])"
)
define(f"{OP}_backward", _BACKWARD)
# Implemented by the compiled library _C.
define(f"{OP}_cpp", f"({_ARGUMENTS}) -> Tensor[]")
define(f"{OP}_backward_cpp", _BACKWARD)


def goctconv2d(
    xs: Sequence[Tensor],
    weight: Tensor,
    in_channels: Sequence[int],
    out_channels: Sequence[int],
    *,
    entry_pool: bool = False,
    cross_scale: bool = True,
    down: Literal["max", "bilinear"] = "max",
    affine: Affine | None = None,
    slope: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """Convolve features at several scales into features at several scales (gOctConv).

    Output branch `j` is the sum over input branches `i` of a convolution with the block
    `weight[rows of j, columns of i]`: for `i < j` the input is first pooled down by
    `2**(j - i)`, for `i > j` the result is resized up bilinearly (`align_corners=False`).
    Source: CSNet, Gao et al., ECCV 2020, section 3.1; the order of pooling, convolution and
    resizing is that of the released network.

    Args:
        xs: the present input branches, finest first, each `[N, in_channels[i], H_i, W_i]` in
            float16, bfloat16, float32 or float64 (reference only); any strides.
        weight: `[sum(out_channels), sum(in_channels), k, k]` with k 1 or 3 (padding `k // 2`);
            rows and columns in branch order.
        in_channels: width of every input branch, 0 for an absent one (it has no entry in `xs`).
        out_channels: width of every output branch, 0 for an absent one.
        entry_pool: average-pool every input branch 2 x 2, stride 2, before anything else.
        cross_scale: `False` keeps only the terms with `i == j`.
        down: how a finer input is brought down: `"max"` (window and stride `2**(j - i)`) or
            `"bilinear"` (resized to the size of branch `j`; then branches may have any size).
        affine: `(scale, shift)` per present output branch, each `[out_channels[j]]`, applied
            to the sum; a folded batch norm.
        slope: PReLU slopes per present output branch, each `[out_channels[j]]`, applied last.

    Parameters have the dtype of xs; with 16-bit xs they may stay float32. Under autocast the
    branches are cast and the parameters are not.

    Returns:
        The present output branches, `[N, out_channels[j], H_j, W_j]`, with the dtype and memory
        format of the first of `xs`. `H_j` is the height of input branch `j` (after
        `entry_pool`) where there is one, else that of the finest input branch halved (rounding
        down) or doubled once per scale.

    Differentiable once with respect to every tensor; results are deterministic.

    Raises:
        ValueError: an argument does not fit; the text names it, what was expected and what came.
        BackendError: a backend forced by `use_backend` cannot run the call.
    """
    args = _bind(
        xs,
        weight,
        in_channels,
        out_channels,
        entry_pool=entry_pool,
        cross_scale=cross_scale,
        down=down,
        affine=affine,
        slope=slope,
    )
    if _dispatch.is_decomposed():
        check(*args)
        return reference.forward(*args)
    return invoke(OP, check, args)


def _bind(
    xs: Sequence[Tensor],
    weight: Tensor,
    in_channels: Sequence[int],
    out_channels: Sequence[int],
    *,
    entry_pool: bool = False,
    cross_scale: bool = True,
    down: str = "max",
    affine: Affine | None = None,
    slope: Sequence[Tensor] | None = None,
) -> tuple[Any, ...]:
    inputs = check_channels(OP, "in_channels", in_channels)
    outputs = check_channels(OP, "out_channels", out_channels)
    if down not in ("max", "bilinear"):
        raise argument_error(OP, "down", "'max' or 'bilinear'", repr(down))
    scale, shift = split_affine(OP, affine)
    options = (entry_pool, cross_scale, down == "bilinear")
    return list(xs), weight, scale, shift, list(slope or ()), list(inputs), list(outputs), *options


def _check_backward(grads: Tensors, *args: Any) -> None:
    op_args = args[:-1]
    check(*op_args)
    xs, _, _, _, _, in_channels, out_channels, entry_pool, _, _ = op_args
    check_gradients(grads, xs, in_channels, out_channels, entry_pool)


def _fake_forward(*args: Any) -> Tensors:
    xs, _, _, _, _, in_channels, out_channels, entry_pool, _, _ = args
    shapes = output_shapes(xs, in_channels, out_channels, entry_pool)
    return [empty_like_layout(xs[0], shape) for shape in shapes]


def _fake_backward(grads: Tensors, *args: Any) -> tuple[Tensors, ...]:
    xs, weight, scale, shift, slope, *_, wanted = args
    return empty_gradients(xs, ([weight], scale, shift, slope), wanted)


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
    check=_check_backward,
    fake=_fake_backward,
    reference=reference.backward,
    compiled={"cpp": torch.ops.lmwp_ops.goctconv2d_backward_cpp.default},
    triton=_triton.launcher(__package__, "backward"),
)
