"""Checks of the Triton kernels of depthwise_scales, for a process that interprets Triton."""

import sys

import pytest
import torch

import lmwp_ops
from lmwp_ops.ops.depthwise_scales import reference

from ..ops.depthwise_scales.cases import Case, assert_as_exact_as_eager, call, double, draw, eager
from ..ops.exactness import assert_as_exact

HALF, BFLOAT = torch.float16, torch.bfloat16

FORWARD = (
    # Several branches: all sizes of a map, more of them than a launch takes, an empty one.
    Case(((1, 1, 1, 1), (1, 3, 7, 7), (1, 2, 13, 13), (1, 1, 4, 4), (0, 2, 3, 3), (2, 2, 2, 2))),
    # A block of 128 pixels less one, full, and one over.
    Case(((1, 1, 4, 127),), epilogue=False),
    Case(((1, 1, 7, 256),), 1, 2),
    Case(((2, 1, 4, 129),)),
    # Vectors of columns, and of channels.
    *(Case(((1, 1, 5, 16),), k, dtype=HALF) for k in (1, 3, 5, 7)),
    *(Case(((1, 1, 5, 8),), k, dtype=BFLOAT) for k in (3, 7)),
    *(Case(((2, 1, 9, 12), (1, 2, 4, 4)), k) for k in (3, 5)),
    *(Case(((1, 16, 5, 3),), k, dtype=HALF, layout="channels_last") for k in (1, 3, 5, 7)),
    Case(((2, 40, 3, 4), (1, 8, 2, 2)), dtype=BFLOAT, layout="channels_last"),
    Case(((1, 12, 3, 4),), stride=2, layout="channels_last"),
    # Single columns and channels: strides, dilations, views.
    Case(((1, 2, 9, 13),), 5, 2),
    Case(((1, 2, 6, 5),), 7, 2, 16, HALF, "channels_last"),
    Case(((1, 3, 9, 8),), 3, 1, 2, layout="sliced"),
    Case(((1, 3, 5, 7),), 3, 2, 3, BFLOAT, "sliced_channels_last"),
    Case(((1, 3, 5, 8),), 3, dtype=HALF, layout="expanded"),
    Case(((1, 2, 6, 8),), 3, layout="transposed"),
)
GRADIENTS = (
    Case(((1, 1, 1, 1), (2, 2, 7, 7), (0, 2, 3, 3), (1, 1, 13, 8), (1, 1, 2, 2), (1, 1, 1, 4))),
    Case(((1, 1, 5, 16),), 5, dtype=HALF),
    Case(((1, 1, 4, 8),), 3, dtype=BFLOAT),
    Case(((1, 1, 3, 4),), 7),
    Case(((1, 10, 3, 4),), 3, dtype=HALF, layout="channels_last"),
    Case(((2, 8, 3, 4),), 3, layout="channels_last"),
    Case(((1, 3, 5, 6),), 3, 2, 2, layout="sliced_channels_last"),
    Case(((1, 2, 7, 5),), 3, 2, 3, layout="expanded"),
    Case(((1, 1, 6, 9),), 5, 2, dtype=HALF, layout="transposed"),
    Case(((1, 1, 5, 4),), 1, 2, epilogue=False),
)
ALL = [True] * 5


def check_forward(case: Case) -> None:
    from lmwp_ops.ops.depthwise_scales import triton_launch

    args = draw(case)
    assert_as_exact_as_eager(triton_launch.forward(*args), args)


def check_gradients(case: Case, wanted: list[bool] | None = None) -> None:
    from lmwp_ops.ops.depthwise_scales import triton_launch

    args = draw(case)
    wanted = wanted or [True, True] + [case.epilogue] * 3
    grads = [torch.randn(y.shape).to(y.dtype) for y in eager(args)]
    got = triton_launch.backward(grads, *args, wanted)
    plain = reference.backward(grads, *args, wanted)
    truth = reference.backward([g.double() for g in grads], *double(args), wanted)
    for kinds in zip(got, plain, truth, strict=True):
        # The gradient of z is rounded on its way to that of x, and float32 sums have many terms.
        assert_as_exact(*kinds, roundings=16 if case.dtype == torch.float32 else 2)
        assert [g.stride() for g in kinds[0]] == [p.stride() for p in kinds[1]]


def forward() -> None:
    for case in FORWARD:
        report(check_forward, case)


def gradients() -> None:
    for case in GRADIENTS:
        report(check_gradients, case)


def public() -> None:
    """Through the dispatcher and autograd, as a user calls it."""
    args = draw(Case(((1, 2, 5, 8), (1, 3, 3, 4))))
    leaves = [t.requires_grad_() for kind in args[:5] for t in kind]
    with lmwp_ops.use_backend("triton"):
        assert lmwp_ops.explain("depthwise_scales", *args[:2]).backend == "triton"
        assert "triton" not in sys.modules
        ys = call(args)
        assert "triton" in sys.modules
        got = torch.autograd.grad(sum(y.sum() for y in ys), leaves)
    assert_as_exact_as_eager(ys, args)
    expected = torch.autograd.grad(sum(y.sum() for y in eager(args)), leaves)
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(g, e)
    reason = "computes in float32; xs is float64"
    with lmwp_ops.use_backend("triton"), pytest.raises(lmwp_ops.BackendError, match=reason):
        call(double(args))


def options() -> None:
    """What no layout or size decides: gradients wanted, dtypes of parameters, many steps."""
    from lmwp_ops.ops.depthwise_scales import triton_launch

    case = Case(((1, 1, 3, 5),))
    for wanted in ((1, 0, 0, 0, 0), (0, 1, 0, 0, 0), (0, 0, 1, 0, 1), (0, 0, 0, 1, 0), (0,) * 5):
        check_gradients(case, [bool(flag) for flag in wanted])
    xs, weights, *rest = draw(Case(((1, 2, 5, 8), (1, 3, 3, 4)), dtype=HALF))
    weights[0] = weights[0].float()
    args = (xs, weights, *rest)
    assert_as_exact_as_eager(triton_launch.forward(*args), args)
    grads = triton_launch.backward(xs, *args, ALL)
    assert [grad.dtype for grad in grads[1]] == [torch.float32, HALF]
    for triton_launch._SUM_PROGRAMS in (1024, 2):  # three parts, then two of up to two steps
        check_gradients(Case(((3, 1, 9, 41),)))


def report(check: object, case: Case) -> None:
    """Name the case that is about to be checked, for the message of a failure."""
    print(case, flush=True)
    torch.manual_seed(0)
    check(case)
