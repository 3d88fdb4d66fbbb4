"""Registration of `dilated_bank`: schema, fake, autograd, autocast and backends."""

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
from lmwp_ops.ops._arguments import Affine, argument_error, split_affine
from lmwp_ops.ops.dilated_bank import reference
from lmwp_ops.ops.dilated_bank.checks import OP, check, check_gradients, output_shapes
from lmwp_ops.ops.dilated_bank.example import example

Tensors = list[Tensor]

_ARGUMENTS = (
    "Tensor[] xs, Tensor[] weights, Tensor[] scale, Tensor[] shift, Tensor[] slope, "
    "int[] dilations, int[] counts"
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


def dilated_bank(
    xs: Sequence[Tensor],
    weights: Sequence[Sequence[Tensor | None]],
    dilations: Sequence[int],
    *,
    affine: Affine | None = None,
    slope: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """Per scale, concatenate dense 3 x 3 convolutions of the same input at several dilations.

    The multi-dilation part of the cross-stage fusion (CSNet, Gao et al., ECCV 2020, section 3.2).
    Stride is 1 and the padding equals the dilation, so sizes are kept.

    Args:
        xs: one `[N, C_b, H_b, W_b]` per scale, in float16, bfloat16, float32 or float64
            (reference only); sizes of the scales are free, as are strides.
        weights: `weights[b][d]` is `[out, C_b, 3, 3]`, or `None` where scale `b` has no
            channels at `dilations[d]`.
        dilations: one positive int per column of `weights`.
        affine: `(scale, shift)` per output, each as wide as the concatenation; a folded batch
            norm.
        slope: PReLU slopes per output, applied last.

    Parameters have the dtype of xs; with 16-bit xs they may stay float32. Under autocast the
    branches are cast and the parameters are not.

    Returns:
        One `[N, sum of out, H_b, W_b]` per scale, in the order of `dilations` and with the memory
        format of its input; a scale whose weights are all `None` is absent.

    Differentiable once with respect to every tensor; results are deterministic.

    Raises:
        ValueError: an argument does not fit; the text names it, what was expected and what came.
        BackendError: a backend forced by `use_backend` cannot run the call.
    """
    args = _bind(xs, weights, dilations, affine=affine, slope=slope)
    if _dispatch.is_decomposed():
        check(*args)
        return reference.forward(*args)
    return invoke(OP, check, args)


def _bind(
    xs: Sequence[Tensor],
    weights: Sequence[Sequence[Tensor | None]],
    dilations: Sequence[int],
    *,
    affine: Affine | None = None,
    slope: Sequence[Tensor] | None = None,
) -> tuple[Any, ...]:
    rates = tuple(dilations)
    if not rates or any(isinstance(d, bool) or not isinstance(d, int) or d < 1 for d in rates):
        raise argument_error(OP, "dilations", "one or more positive ints", list(rates))
    if xs and len(weights) != len(xs):  # an empty list of branches has an error of its own
        raise argument_error(OP, "weights", f"{len(xs)} lists, one per scale", len(weights))
    flat: Tensors = []
    flat_rates: list[int] = []
    for b, row in enumerate(weights):
        if len(row) != len(rates):
            expected = f"{len(rates)} entries, one per dilation"
            raise argument_error(OP, f"weights[{b}]", expected, len(row))
        present = [(w, rate) for w, rate in zip(row, rates, strict=True) if w is not None]
        flat += [w for w, _ in present]
        flat_rates += [rate for _, rate in present]
    counts = [sum(w is not None for w in row) for row in weights]
    scale, shift = split_affine(OP, affine)
    return list(xs), flat, scale, shift, list(slope or ()), flat_rates, counts


def _check_backward(grads: Tensors, *args: Any) -> None:
    op_args = args[:-1]
    check(*op_args)
    check_gradients(grads, op_args[0], op_args[1], op_args[-1])


def _fake_forward(*args: Any) -> Tensors:
    xs, weights, *_, counts = args
    present = [x for x, count in zip(xs, counts, strict=True) if count]
    shapes = output_shapes(xs, weights, counts)
    return [empty_like_layout(x, shape) for x, shape in zip(present, shapes, strict=True)]


def _fake_backward(grads: Tensors, *args: Any) -> tuple[Tensors, ...]:
    xs, weights, scale, shift, slope, _, _, wanted = args
    return empty_gradients(xs, (weights, scale, shift, slope), wanted)


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
    compiled={"cpp": torch.ops.lmwp_ops.dilated_bank_backward_cpp.default},
    triton=_triton.launcher(__package__, "backward"),
)
