"""Checks of the Triton kernels of bn_prelu_gap, for a process that interprets Triton."""

from collections.abc import Callable

import torch

import lmwp_ops
from lmwp_ops.ops.bn_prelu_gap import reference, triton_kernels
from lmwp_ops.ops.bn_prelu_gap import triton_launch as launch

from ..ops.bn_prelu_gap.cases import (
    EPS,
    Case,
    assert_as_exact_as_eager,
    draw,
    eager_gradients,
    flat,
    true_gradients,
)
from ..ops.exactness import assert_as_exact

HALF, BFLOAT = torch.float16, torch.bfloat16

CASES = (
    # More branches than a launch takes, with tiles of one shape; an empty one.
    Case(((2, 1, 7, 7), (3, 3, 7, 5), (1, 2, 6, 6), (0, 2, 3, 3), (5, 2, 4, 4), (2, 2, 2, 2))),
    # Several images, and several parts of a map, in tiles that are not full.
    Case(((70, 2, 8, 8), (3, 2, 8, 5))),
    Case(((34, 1, 64, 64),)),  # more tiles than are added up at once
    Case(((2, 2, 33, 130),), HALF),
    Case(((2, 3, 64, 65),), BFLOAT, prelu=False),
    # Vectors of channels, more of them than in a tile, single ones.
    Case(((3, 40, 6, 7), (2, 8, 3, 3)), layout="channels_last"),
    Case(((2, 16, 9, 30),), HALF, "channels_last"),
    Case(((2, 7, 5, 3),), BFLOAT, "channels_last"),
    *(Case(((2, 6, 5, 6),), layout=layout) for layout in ("sliced", "expanded", "transposed")),
    Case(((2, 6, 5, 6),), HALF, "sliced_channels_last"),
    Case(((2, 3, 40, 1), (3, 3, 1, 1))),
)


def each(check: Callable[[Case], None]) -> None:
    """Name each case before it is checked, for the message of a failure."""
    launch.MAX_BRANCHES = 3
    for case in CASES:
        print(case, flush=True)
        torch.manual_seed(0)
        check(case)


def forward() -> None:
    def check(case: Case) -> None:
        args = draw(case)
        outputs = launch.forward(*args)
        assert_as_exact_as_eager(outputs, args)
        plain = reference.forward(*args)
        assert [y.stride() for y in flat(outputs)] == [y.stride() for y in flat(plain)]

    each(check)


def gradients() -> None:
    def check(case: Case) -> None:
        args = draw(case)
        grads = [torch.randn(x.shape).to(x.dtype) for x in args[0]]
        wanted = [True, True, True, case.prelu]
        statistics = reference.forward(*args)[2:]
        got = launch.backward(grads, *args[:4], *statistics, EPS, wanted)
        plain, truth = eager_gradients(grads, args), flat(true_gradients(grads, args))
        assert_as_exact(flat(got), plain, truth, roundings=16)

    each(check)


def options() -> None:
    """Every kind of gradient alone, and all through the dispatcher and autograd."""
    args = draw(Case(((4, 2, 12, 12),)))
    grads = [torch.randn_like(x) for x in args[0]]
    statistics = reference.forward(*args)[2:]
    for mask in ((1, 0, 0, 0), (0, 1, 0, 1), (0, 0, 1, 0)):
        wanted = [bool(flag) for flag in mask]
        got = launch.backward(grads, *args[:4], *statistics, EPS, wanted)
        assert [len(kind) for kind in got] == list(mask)
    with lmwp_ops.use_backend("triton"):
        leaves = [kind[0].requires_grad_() for kind in args[:4]]
        y, *_ = lmwp_ops.bn_prelu_gap(*leaves)
        got = torch.autograd.grad(y, leaves, grads)
    truth = flat(true_gradients(grads, args))
    assert_as_exact(got, eager_gradients(grads, args), truth, roundings=16)


def statistics() -> None:
    """Far from 0 and 1, and of a map that every candidate divides in its own way."""
    for config in tuple(triton_kernels.CONFIGS):
        triton_kernels.CONFIGS[:] = [config]
        for layout in ("nchw", "channels_last"):
            xs, *parameters = draw(Case(((3, 5, 50, 48),), layout=layout))
            for args in ((xs, *parameters), ([x + 100 for x in xs], *parameters)):
                assert_as_exact_as_eager(launch.forward(*args), args)
