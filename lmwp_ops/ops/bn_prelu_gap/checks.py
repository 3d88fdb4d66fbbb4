"""What `bn_prelu_gap` accepts; every error names op, argument, expected and got."""

from collections.abc import Sequence
from typing import NoReturn

from torch import Tensor

from lmwp_ops.ops._arguments import argument_error, check_branches, check_parameter, fits

OP = "bn_prelu_gap"


def _fail(argument: str, expected: str, got: object) -> NoReturn:
    raise argument_error(OP, argument, expected, got)


def check(
    xs: Sequence[Tensor],
    weight: Sequence[Tensor],
    bias: Sequence[Tensor],
    slope: Sequence[Tensor],
    eps: float,
) -> None:
    """Raise ValueError unless the op can compute these arguments."""
    check_branches(OP, xs)
    if not eps > 0:
        _fail("eps", "a positive number", eps)
    for b, x in enumerate(xs):
        n, c, h, w = x.shape
        if c == 0 or h == 0 or w == 0:
            expected = "at least one channel and one pixel (leave an absent branch out)"
            _fail(f"xs[{b}]", expected, f"shape {list(x.shape)}")
        if n * h * w == 1:
            _fail(f"xs[{b}]", "more than one value per channel", f"shape {list(x.shape)}")
    for name, given in (("weight", weight), ("bias", bias), ("slope", slope)):
        if len(given) != len(xs) and (given or name != "slope"):
            _fail(name, f"{len(xs)} tensors, one per branch", len(given))
        for b, parameter in enumerate(given):
            if not fits(parameter, (xs[b].shape[1],), xs[b]):
                check_parameter(OP, f"{name}[{b}]", parameter, (xs[b].shape[1],), xs[b])


def check_backward(
    grads: Sequence[Tensor],
    xs: Sequence[Tensor],
    weight: Sequence[Tensor],
    bias: Sequence[Tensor],
    slope: Sequence[Tensor],
    batch_mean: Sequence[Tensor],
    batch_var: Sequence[Tensor],
    eps: float,
    wanted: Sequence[bool],
) -> None:
    """Raise ValueError unless these are arguments of the op, gradients of its ys and statistics."""
    check(xs, weight, bias, slope, eps)
    if len(wanted) != 4:
        _fail("wanted", "4 flags", len(wanted))
    named = (("grads", grads), ("batch_mean", batch_mean), ("batch_var", batch_var))
    for name, given in named:
        if len(given) != len(xs):
            _fail(name, f"{len(xs)} tensors, one per branch", len(given))
    for b, (grad, x) in enumerate(zip(grads, xs, strict=True)):
        if grad.shape != x.shape:
            _fail(f"grads[{b}]", f"shape {list(x.shape)}", list(grad.shape))
        if grad.dtype != x.dtype or grad.device != x.device:
            expected = f"{x.dtype} on {x.device} as xs[{b}]"
            _fail(f"grads[{b}]", expected, f"{grad.dtype} on {grad.device}")
    for name, given in named[1:]:
        for b, statistics in enumerate(given):
            check_parameter(OP, f"{name}[{b}]", statistics, (xs[b].shape[1],), xs[b])
