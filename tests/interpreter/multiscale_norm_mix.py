"""Checks of the Triton kernels of multiscale_norm_mix, for a process that interprets Triton."""

from collections.abc import Callable

import torch

import lmwp_ops
from lmwp_ops.ops.multiscale_mix import triton_maps
from lmwp_ops.ops.multiscale_norm_mix import reference
from lmwp_ops.ops.multiscale_norm_mix import triton_launch as launch

from ..ops.exactness import assert_as_exact
from ..ops.feature_ops import (
    FEATURE_OPS,
    Args,
    FeatureOp,
    assert_forward_is_exact,
    assert_gradients_are_exact,
    double,
)

(OP,) = (op for op in FEATURE_OPS if op.name == "multiscale_norm_mix")

CASES = (
    ((2, 1, 9, 13), torch.float32, "nchw"),
    ((2, 2, 3, 2), torch.float16, "channels_last"),
    ((2, 1, 4, 6), torch.bfloat16, "sliced"),
    ((0, 2, 5, 4), torch.float32, "nchw"),
)


def each(check: Callable[[FeatureOp, Args], None]) -> None:
    """Name each case before it is checked, for the message of a failure."""
    for shape, dtype, layout in CASES:
        print(shape, dtype, layout, flush=True)
        torch.manual_seed(0)
        with lmwp_ops.use_backend("triton"):
            check(OP, OP.draw(shape, dtype, layout))


def statistics_are_exact(_: FeatureOp, args: Args) -> None:
    """The result, the means after the norms, and the statistics of the batch."""
    outputs, plain = launch.forward(*args), reference.forward(*args)
    assert_as_exact(outputs, plain, reference.forward(*double(args)), roundings=4)
    assert [y.stride() for y in outputs] == [y.stride() for y in plain]


def forward() -> None:
    each(assert_forward_is_exact)
    each(statistics_are_exact)


def gradients() -> None:
    each(assert_gradients_are_exact)


def parts() -> None:
    """Two parts of a plane with two blocks each, the last of which is not full, and statistics
    far from 0 and 1."""
    triton_maps._ENOUGH_PROGRAMS = 10
    args = OP.draw((1, 1, 9, 70), torch.float32)
    args = (3 * args[0] + 20, *args[1:])
    statistics_are_exact(OP, args)
    with lmwp_ops.use_backend("triton"):
        assert_gradients_are_exact(OP, args)


def kinds() -> None:
    """Gradients of a kind alone."""
    args = OP.draw((2, 1, 2, 3), torch.float32)
    given = (torch.randn_like(args[0]), *args[:5], *reference.forward(*args)[2:], *args[5:])
    every = launch.backward(*given, [True] * 5)
    for kind in range(5):
        alone = launch.backward(*given, [kind == k for k in range(5)])
        assert [len(found) for found in alone] == [int(k == kind) for k in range(5)]
        assert torch.equal(*alone[kind], *every[kind])
        assert alone[kind][0].is_contiguous()
