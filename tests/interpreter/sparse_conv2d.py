"""Checks of the Triton kernels of sparse_conv2d, for a process that interprets Triton."""

from collections.abc import Callable
from dataclasses import replace

import torch

import lmwp_ops
from lmwp_ops._examples import tensors
from lmwp_ops.ops.sparse_conv2d import reference
from lmwp_ops.ops.sparse_conv2d import triton_launch as launch

from ..ops.exactness import assert_as_exact
from ..ops.sparse_conv2d.cases import Args, Case, double, draw, eager

HALF, BFLOAT, FLOAT = torch.float16, torch.bfloat16, torch.float32

CASES = (
    (Case((2, 7, 3, 13), 5, "unstructured"), FLOAT),
    (Case((1, 66, 4, 8), 3, "unstructured", density=0.1, epilogue="slope"), HALF),
    (Case((1, 6, 9, 7), 4, "unstructured", groups=2, stride=(2, 1), padding=(1, 0)), BFLOAT),
    (Case((1, 5, 7, 7), 3, "unstructured", density=0.0), FLOAT),
    (Case((1, 9, 2, 8), 2, "unstructured", density=1.0, epilogue="bias"), HALF),
    (Case((1, 6, 7, 9), 6, "block", block=(4, 1), density=0.5), FLOAT),
    (Case((1, 5, 4, 8), 20, "block", block=(16, 1), epilogue="affine slope"), BFLOAT),
    (Case((1, 32, 4, 8), 20, "block", block=(16, 16), density=0.5), HALF),
    (Case((1, 8, 6, 10), 12, "block", block=(2, 4), groups=2, stride=(1, 2)), HALF),
    (Case((1, 2, 5, 6), 5, "block", (3, 3), block=(2, 9), padding=(1, 1)), HALF),
    (Case((2, 3, 5, 9), 3, "taps", (3, 3), groups=3, padding=(1, 1), density=0.6), FLOAT),
    (Case((1, 3, 10, 5), 3, "taps", (5, 3), groups=3, padding=(4, 2), dilation=(2, 2)), HALF),
    (Case((1, 2, 7, 6), 3, "taps", (3, 3), stride=(3, 2), padding=(2, 0), dilation=(1, 2)), BFLOAT),
    (Case((2, 13, 4, 11), 7, "channels", density=0.5), FLOAT),
    (Case((1, 9, 9, 8), 21, "channels", (3, 3), padding=(1, 1), epilogue="bias"), HALF),
    (Case((1, 6, 5, 6), 5, "channels", (3, 3), stride=(2, 2), padding=(1, 1), density=0.7), HALF),
    (Case((1, 6, 9, 9), 5, "channels", density=0.0), FLOAT),
    (Case((0, 6, 9, 9), 5, "channels", density=0.5), HALF),
)
"""Every format; vectors of pixels and single ones, blocks that are not full, nothing kept."""

PARTS = (
    (Case((2, 66, 2, 16), 2, "unstructured", density=0.06), FLOAT),
    (Case((1, 16, 4, 16), 70, "channels", density=0.7), HALF),
    (Case((3, 32, 4, 5), 32, "block", block=(16, 16), density=0.6), HALF),
)
"""Several blocks of channels, of entries and of pixels."""


def check_forward(args: Args) -> None:
    assert_as_exact([launch.forward(*args)], [eager(args)], [eager(double(args))], roundings=16)


def check_gradients(args: Args) -> None:
    """All of them at once, and alone that of x or of the values."""
    grad = torch.randn(eager(args).shape).to(args[0].dtype)
    wanted = [True, True, False, *(bool(kind) for kind in args[3:7])]
    found = list(tensors(launch.backward(grad, *args, wanted)))
    plain, truth = (
        list(tensors(reference.backward(g, *a, wanted)))
        for g, a in ((grad, args), (grad.double(), double(args)))
    )
    assert_as_exact(found, plain, truth, roundings=32)
    kind = args[0].shape[1] % 2
    (alone,) = tensors(launch.backward(grad, *args, [k == kind for k in range(7)]))
    assert torch.equal(alone, found[kind])


def each(cases: tuple[tuple[Case, torch.dtype], ...], check: Callable[[Args], None]) -> None:
    """Name each case before it is checked, for the message of a failure."""
    for i, (case, dtype) in enumerate(cases):
        print(case, dtype, flush=True)
        torch.manual_seed(i)
        check(draw(case, dtype))


def forward() -> None:
    each(CASES, check_forward)


def gradients() -> None:
    launch._ENOUGH_PROGRAMS = 4
    each(CASES[2:5] + CASES[7:13:2] + CASES[12:13] + CASES[15:], check_gradients)


def parts() -> None:
    """Programs with several blocks; values that are wider than the feature; wrong indices."""
    launch._FEW_PIXELS, launch._FEWEST_PIXELS, launch._MOST_ELEMENTS = 1, 16, 1024
    launch._ENOUGH_PROGRAMS = 4
    each(PARTS, check_forward)
    each(PARTS, check_gradients)
    x, values, *rest = draw(replace(PARTS[2][0], epilogue=""), HALF)
    wide = (x, values.float(), *rest)
    assert torch.equal(launch.forward(*wide), launch.forward(x, values, *rest))
    for case, dtype in PARTS:
        x, values, indices, *rest = draw(case, dtype)
        indices[-1][0], indices[0][-1] = 2**30, 2**30
        assert launch.forward(x, values, indices, *rest).shape[0] == len(x)


def layouts() -> None:
    """Of the feature, whose layout the result has; through the public op."""
    launch._ENOUGH_PROGRAMS = 4
    case = Case((1, 2, 4, 5), 3, "taps", (3, 3), padding=(1, 1), density=0.4, epilogue="")
    for layout in ("channels_last", "sliced"):
        args = draw(case, FLOAT, layout)
        with lmwp_ops.use_backend("triton"):
            y = torch.ops.lmwp_ops.sparse_conv2d(*args)
        assert y.stride() == reference.forward(*args).stride()
        check_forward(args)
        check_gradients(args)
