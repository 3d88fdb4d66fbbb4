"""Checks of the Triton kernels of channel_spatial_attention, for a process that interprets
Triton."""

from typing import Any

import torch

import lmwp_ops
from lmwp_ops._examples import tensors
from lmwp_ops.ops.channel_spatial_attention import gradient_kernels, reference
from lmwp_ops.ops.channel_spatial_attention import triton_launch as launch

from ..ops.channel_spatial_attention.cases import draw
from ..ops.exactness import assert_as_exact
from ..ops.feature_ops import (
    FEATURE_OPS,
    assert_forward_is_exact,
    assert_gradients_are_exact,
    double,
)

HALF, BFLOAT = torch.float16, torch.bfloat16
(OP,) = (op for op in FEATURE_OPS if op.name == "channel_spatial_attention")

CASES: tuple[tuple[Any, ...], ...] = (
    # (shape, dtype, layout, options); all sizes of kernels, vectors of 16 bytes.
    ((2, 5, 9, 13), torch.float32, "nchw", {"sizes": (3, 5, 7)}),
    ((2, 3, 12, 10), HALF, "nchw", {"sizes": (5,)}),
    ((1, 3, 9, 8), BFLOAT, "nchw", {"sizes": (3,), "max": False}),
    ((3, 9, 4, 5), torch.float32, "nchw", {"sizes": (3,), "mean": False, "bias": False}),
    # One gate only.
    ((2, 10, 7, 7), torch.float32, "nchw", {"sizes": ()}),
    ((2, 4, 5, 6), HALF, "nchw", {"gate": False, "sizes": (3, 3)}),
    ((2, 1, 1, 1), torch.float32, "nchw", {"sizes": (7,)}),
    *(
        ((2, 3, 4, 6), torch.float32, layout, {"sizes": (3,)})
        for layout in ("channels_last", "sliced", "sliced_channels_last", "expanded", "transposed")
    ),
    ((0, 3, 4, 6), torch.float32, "nchw", {"sizes": (3,)}),
)


def each(check: Any) -> None:
    """Name each case before it is checked, for the message of a failure."""
    for shape, dtype, layout, options in CASES:
        print(shape, dtype, layout, options, flush=True)
        torch.manual_seed(0)
        with lmwp_ops.use_backend("triton"):
            check(OP, draw(shape, dtype, layout, **options))


def forward() -> None:
    each(assert_forward_is_exact)


def gradients() -> None:
    each(assert_gradients_are_exact)


def steps() -> None:
    """Programs with several blocks of pixels, and of channels, the last of which are not full;
    gradients of a kind alone."""
    launch._ENOUGH_PROGRAMS, gradient_kernels.MOST_SPLITS = 30, 2
    args = draw((3, 70, 9, 30), torch.float32, sizes=(3,))
    with lmwp_ops.use_backend("triton"):
        assert_forward_is_exact(OP, args)
        assert_gradients_are_exact(OP, args)
    args = draw((2, 3, 4, 6), torch.float32, sizes=(3,))
    grad = torch.randn_like(args[0])
    every = launch.backward(grad, *args, [True] * 4)
    for kind in range(4):
        alone = launch.backward(grad, *args, [kind == k for k in range(4)])
        assert [len(found) for found in alone] == [len(every[kind]) * (k == kind) for k in range(4)]
        assert all(torch.equal(*pair) for pair in zip(alone[kind], every[kind], strict=True))


def ties() -> None:
    """Equal maxima in a plane, in a block and across blocks; NaN; parameters in 16 bits."""
    launch._ENOUGH_PROGRAMS = 6
    args = draw((2, 40, 9, 15), torch.float32, sizes=(3,))
    args[0].copy_(torch.randint(-1, 2, args[0].shape))
    grad, wanted = torch.randn_like(args[0]), [True] * 4
    kinds = (
        list(tensors(function(*given, wanted)))
        for function, given in (
            (launch.backward, (grad, *args)),
            (reference.backward, (grad, *args)),
            (reference.backward, double((grad, *args))),
        )
    )
    assert_as_exact(*kinds, roundings=16)
    args[0][0, 3, 2, 4] = args[0][1, 37, 8, 14] = torch.nan
    for options in ({"gate": False}, {"mean": False}):
        shared = (args[0], *draw((2, 40, 9, 15), HALF, sizes=(3,), **options)[1:])
        assert torch.equal(launch.forward(*shared).isnan(), reference.forward(*shared).isnan())
    narrow = [[p.half() for p in kind] for kind in args[1:4]]
    x = torch.randn(2, 40, 9, 15).half()
    with lmwp_ops.use_backend("triton"):
        assert_forward_is_exact(OP, (x, *narrow, True, True))
