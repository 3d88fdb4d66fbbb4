"""What `stem_conv2d` accepts; every error names op, argument, expected and got."""

from collections.abc import Sequence

from torch import Tensor

from lmwp_ops.ops._arguments import (
    argument_error,
    check_epilogue,
    check_feature,
    check_no_gradient,
    check_parameter,
    fits,
)

OP = "stem_conv2d"

KERNELS = (1, 3, 5, 7)
STRIDES = (1, 2)


def check(
    x: Tensor,
    weight: Tensor,
    scale: Sequence[Tensor],
    shift: Sequence[Tensor],
    slope: Sequence[Tensor],
    stride: int,
    channels_last: bool,
) -> None:
    """Raise ValueError unless the op can compute these arguments."""
    named = {"x": [x], "weight": [weight], "affine": [*scale, *shift], "slope": slope}
    check_no_gradient(OP, named)
    check_feature(OP, "x", x)
    if weight.dim() != 4 or weight.shape[0] == 0 or weight.shape[3] not in KERNELS:
        expected = f"[out, {x.shape[1]}, k, k] with k one of {KERNELS}"
        raise argument_error(OP, "weight", expected, list(weight.shape))
    out, k = weight.shape[0], weight.shape[3]
    if not fits(weight, (out, x.shape[1], k, k), x):
        check_parameter(OP, "weight", weight, (out, x.shape[1], k, k), x, "x")
    if stride not in STRIDES:
        raise argument_error(OP, "stride", f"one of {STRIDES}", stride)
    check_epilogue(OP, scale, shift, slope, [out], x)
