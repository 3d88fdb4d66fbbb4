"""Checks of the Triton kernels of multiscale_mix, for a process that interprets Triton."""

from collections.abc import Callable

import torch

import lmwp_ops
from lmwp_ops.ops.multiscale_mix import reference, triton_maps
from lmwp_ops.ops.multiscale_mix import triton_launch as launch

from ..ops.exactness import assert_as_exact
from ..ops.feature_ops import (
    FEATURE_OPS,
    Args,
    FeatureOp,
    assert_forward_is_exact,
    assert_gradients_are_exact,
    double,
)

HALF, BFLOAT = torch.float16, torch.bfloat16
(OP,) = (op for op in FEATURE_OPS if op.name == "multiscale_mix")

CASES = (
    # Windows that are cut at both borders, several blocks of a plane, single rows and pixels.
    ((2, 1, 9, 13), torch.float32, "nchw"),
    ((1, 1, 14, 20), HALF, "transposed"),
    ((1, 2, 3, 8), BFLOAT, "sliced_channels_last"),
    ((1, 1, 1, 1), torch.float32, "nchw"),
    ((0, 2, 5, 4), torch.float32, "nchw"),
)


def each(check: Callable[[FeatureOp, Args], None]) -> None:
    """Name each case before it is checked, for the message of a failure."""
    for shape, dtype, layout in CASES:
        print(shape, dtype, layout, flush=True)
        torch.manual_seed(0)
        with lmwp_ops.use_backend("triton"):
            check(OP, OP.draw(shape, dtype, layout))


def forward() -> None:
    each(assert_forward_is_exact)


def gradients() -> None:
    each(assert_gradients_are_exact)


def levels() -> None:
    """No coarse level, or nothing else; what is skipped."""
    u, weights, mix, scale, shift, *_ = OP.draw((2, 1, 6, 8), torch.float32)
    weights[2, 0, 1, 1] = torch.nan
    mix[:, 2] = 0
    for octaves, dilations in (([0, 0, 0, 0, 0], [1, 2, 3, 7, 40]), ([1, 1, 2, 2, 4], [1] * 5)):
        args = (u, weights, mix, scale, shift, octaves, dilations)
        truth = reference.forward(*double(args))
        assert_as_exact([launch.forward(*args)], [reference.forward(*args)], [truth], roundings=2)
        found = launch.backward(u, *args, [True, True, False, True, True])
        assert all(kind[0].isfinite().all() for kind in found if kind)


def parts() -> None:
    """Two parts of a plane with two blocks each, the last of which is not full."""
    triton_maps._ENOUGH_PROGRAMS = 10
    with lmwp_ops.use_backend("triton"):
        assert_gradients_are_exact(OP, OP.draw((1, 1, 9, 70), torch.float32))


def kinds() -> None:
    """Gradients of a kind alone; parameters in 16 bits."""
    args = OP.draw((1, 1, 2, 3), torch.float32)
    grad = torch.randn_like(args[0])
    every = launch.backward(grad, *args, [True] * 5)
    for kind in range(5):
        alone = launch.backward(grad, *args, [kind == k for k in range(5)])
        assert [len(found) for found in alone] == [int(k == kind) for k in range(5)]
        assert torch.equal(*alone[kind], *every[kind])
        assert alone[kind][0].is_contiguous()
    u, weights, mix, *affine = (t.half() for t in args[:5])
    with lmwp_ops.use_backend("triton"):
        assert_forward_is_exact(OP, (u, weights, mix.float(), *affine, *args[5:]))
