"""Parallel dense 3 x 3 convolutions at several dilations, at every scale."""

from collections.abc import Sequence

from torch import Tensor

from lmwp_ops.ops._arguments import (
    Affine,
    argument_error,
    check_branches,
    check_epilogue,
    check_weight,
)
from lmwp_ops.ops.dilated_bank.reference import dilated_bank_reference

__all__ = ["dilated_bank"]

_OP = "dilated_bank"


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
        xs: one `[N, C_b, H_b, W_b]` per scale, in float16, bfloat16, float32 or float64; sizes
            of the scales are free.
        weights: `weights[b][d]` is `[out, C_b, 3, 3]`, or `None` where scale `b` has no
            channels at `dilations[d]`.
        dilations: one positive int per column of `weights`.
        affine: `(scale, shift)` per output, each as wide as the concatenation; a folded batch
            norm.
        slope: PReLU slopes per output, applied last.

    Returns:
        One `[N, sum of out, H_b, W_b]` per scale, in the order of `dilations`; a scale whose
        weights are all `None` is absent.

    Raises:
        ValueError: an argument does not fit; the text names it, what was expected and what came.
    """
    check_branches(_OP, xs)
    rates = tuple(dilations)
    if not rates or any(isinstance(d, bool) or not isinstance(d, int) or d < 1 for d in rates):
        raise argument_error(_OP, "dilations", "one or more positive ints", list(rates))
    if len(weights) != len(xs):
        raise argument_error(_OP, "weights", f"{len(xs)} lists, one per scale", len(weights))
    for b, (x, row) in enumerate(zip(xs, weights, strict=True)):
        if len(row) != len(rates):
            expected = f"{len(rates)} entries, one per dilation"
            raise argument_error(_OP, f"weights[{b}]", expected, len(row))
        for d, weight in enumerate(row):
            if weight is not None:
                _check_kernel(f"weights[{b}][{d}]", weight, x)
    widths = [sum(w.shape[0] for w in row if w is not None) for row in weights]
    if not any(widths):
        raise argument_error(_OP, "weights", "at least one tensor", "None everywhere")
    check_epilogue(_OP, affine, slope, [width for width in widths if width])
    return dilated_bank_reference(xs, weights, rates, affine=affine, slope=slope)


def _check_kernel(argument: str, weight: Tensor, x: Tensor) -> None:
    shape = tuple(weight.shape)
    if len(shape) != 4 or shape[0] == 0 or shape[1:] != (x.shape[1], 3, 3):
        expected = f"shape [out, {x.shape[1]}, 3, 3] with out > 0, or None"
        raise argument_error(_OP, argument, expected, list(shape))
    check_weight(_OP, argument, weight, x)
