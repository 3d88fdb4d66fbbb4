"""What `multiscale_mix` accepts; every error names op, argument, expected and got."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lmwp_ops.ops._arguments import argument_error, check_feature, check_parameter, fits

OP = "multiscale_mix"
LARGEST_OCTAVE = 15

Branches = Sequence[tuple[int, int]]


def split_branches(op: str, branches: Branches) -> tuple[list[int], list[int]]:
    """The octaves and the dilations; raises ValueError unless all are pairs of whole numbers."""
    for k, pair in enumerate(branches):
        whole = all(isinstance(i, int) and not isinstance(i, bool) for i in pair)
        if len(pair) != 2 or not whole:
            expected = "a pair (octave, dilation) of ints"
            raise argument_error(op, f"branches[{k}]", expected, pair)
    return [octave for octave, _ in branches], [dilation for _, dilation in branches]


def check_branches(
    op: str,
    u: Tensor,
    weights: Tensor,
    mix: Tensor,
    octaves: Sequence[int],
    dilations: Sequence[int],
) -> None:
    """Raise ValueError unless these describe branches of `u` and their shares."""
    check_feature(op, "u", u)
    if not octaves or len(octaves) != len(dilations):
        raise argument_error(op, "branches", "at least one pair", f"{octaves} and {dilations}")
    for k, (octave, dilation) in enumerate(zip(octaves, dilations, strict=True)):
        if not 0 <= octave <= LARGEST_OCTAVE or dilation < 1:
            expected = f"an octave of 0 to {LARGEST_OCTAVE} and a positive dilation"
            raise argument_error(op, f"branches[{k}]", expected, (octave, dilation))
    n, m = u.shape[:2]
    check_table(op, "weights", weights, (len(octaves), m, 3, 3), u)
    if tuple(mix.shape) != (n, len(octaves), m):
        raise argument_error(op, "mix", f"shape {[n, len(octaves), m]}", list(mix.shape))
    wide = torch.float64 if u.dtype == torch.float64 else torch.float32
    if mix.dtype != wide or mix.device != u.device:
        expected = f"{wide} on {u.device}, where u is {u.dtype}"
        raise argument_error(op, "mix", expected, f"{mix.dtype} on {mix.device}")


def check_table(op: str, name: str, table: Tensor, shape: tuple[int, ...], u: Tensor) -> None:
    """A parameter of every branch and channel."""
    if not fits(table, shape, u):
        check_parameter(op, name, table, shape, u, "u")


def check_gradient(op: str, grad: Tensor, u: Tensor, wanted: Sequence[bool], kinds: int) -> None:
    """The gradient of a result that is like `u`, and a flag for each of `kinds`."""
    if len(wanted) != kinds:
        raise argument_error(op, "wanted", f"{kinds} flags", len(wanted))
    if grad.shape != u.shape:
        raise argument_error(op, "grad", f"shape {list(u.shape)}", list(grad.shape))
    if grad.dtype != u.dtype or grad.device != u.device:
        expected = f"{u.dtype} on {u.device} like the result"
        raise argument_error(op, "grad", expected, f"{grad.dtype} on {grad.device}")


def check(
    u: Tensor,
    weights: Tensor,
    mix: Tensor,
    scale: Tensor,
    shift: Tensor,
    octaves: Sequence[int],
    dilations: Sequence[int],
) -> None:
    """Raise ValueError unless the op can compute these arguments."""
    check_branches(OP, u, weights, mix, octaves, dilations)
    shape = (len(octaves), u.shape[1])
    check_table(OP, "affine scale", scale, shape, u)
    check_table(OP, "affine shift", shift, shape, u)


def check_backward(
    grad: Tensor,
    u: Tensor,
    weights: Tensor,
    mix: Tensor,
    scale: Tensor,
    shift: Tensor,
    octaves: Sequence[int],
    dilations: Sequence[int],
    wanted: Sequence[bool],
) -> None:
    """Raise ValueError unless these are arguments of the op and the gradient of its result."""
    check(u, weights, mix, scale, shift, octaves, dilations)
    check_gradient(OP, grad, u, wanted, kinds=5)
