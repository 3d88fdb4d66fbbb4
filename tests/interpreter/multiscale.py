"""Checks of the Triton kernels of goctconv2d and dilated_bank, for an interpreting process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

from lmwp_ops.ops.dilated_bank import reference as bank_reference
from lmwp_ops.ops.dilated_bank import triton_launch as bank
from lmwp_ops.ops.goctconv2d import reference as goct_reference
from lmwp_ops.ops.goctconv2d import triton_launch as goct
from lmwp_ops.ops.multiscale import triton_kernels, triton_launch

from ..ops.dilated_bank import test_dilated_bank_kernels as banks
from ..ops.exactness import assert_as_exact
from ..ops.goctconv2d import cases
from ..ops.goctconv2d.cases import Case
from ..ops.gradients import assert_gradients_are_exact, draw_gradients, in_dtype

HALF, BFLOAT = torch.float16, torch.bfloat16

# For each kernel size: same scale, pools by 2 and 4, resizes by 2 and 4, few and many pixels.
SUMS = (
    Case((3, 2), (2, 3), (8, 16)),
    Case((2, 1, 3), (1, 2, 1), (12, 8), dtype=HALF, layout="channels_last"),
    Case((2, 1, 3), (1, 0, 1), (5, 7), 3, layout="sliced"),
    Case((2, 17), (18, 1), (4, 4), 3, dtype=HALF),
)
OPTIONS = (
    Case((2, 3), (3, 1), (9, 14), 3, entry_pool=True, layout="transposed"),
    Case((2, 0, 3), (0, 1, 2), (10, 13), 3, bilinear_down=True, dtype=BFLOAT),
    Case((2, 3), (3, 1), (8, 6), 3, 2, cross_scale=False, epilogue=False, layout="expanded"),
    Case((0, 2), (3, 1), (8, 8), batch=2, entry_pool=True, dtype=BFLOAT),
    Case((2, 3), (3, 1), (8, 6), batch=0),
)
BANKS = (
    banks.Case(((2, 5, 9), (3, 3, 4)), ((1, 0, 3), (2, 1, 0)), batch=2),
    banks.Case(((3, 4, 5), (1, 2, 2)), ((2, 1, 1, 1, 20), (0, 0, 0, 0, 0)), dtype=HALF),
)


@contextmanager
def configured(config: dict[str, int]) -> Iterator[None]:
    """Sums of convolutions in one configuration, instead of what suits their sizes."""
    before = triton_launch._conv_config
    triton_launch._conv_config = lambda *_: config
    try:
        yield
    finally:
        triton_launch._conv_config = before


def check(op: ModuleType, reference: ModuleType, args: tuple[Any, ...]) -> None:
    """Values and gradients; by `tl.dot` but in bfloat16, of which the interpreter has no products
    of matrices."""
    config = triton_kernels.CONFIGS[1 if args[0][0].dtype == BFLOAT else 4]
    with configured(config):
        truth = reference.forward(*in_dtype(args, torch.float64))
        assert_as_exact(op.forward(*args), reference.forward(*args), truth, roundings=16)
        grads = draw_gradients(reference.forward, args)
        assert_gradients_are_exact(op.backward, reference.backward, grads, args)


def each(choices: tuple[Any, ...], run: Callable[[Any], None]) -> None:
    """Name each case before it is checked, for the message of a failure."""
    for case in choices:
        print(case, flush=True)
        torch.manual_seed(0)
        run(case)


def sums() -> None:
    each(SUMS, lambda case: check(goct, goct_reference, cases.draw(case)))


def defaults() -> None:
    """Vectors of pixels, parameters in float32, ties and NaN, in the configurations of a call."""
    args = cases.draw(Case((3, 2), (2, 3), (16, 128), batch=2, dtype=HALF), torch.float32)
    truth = cases.truth(args)
    triton_launch._FEW_PIXELS = 1
    assert_as_exact(goct.forward(*args), goct_reference.forward(*args), truth, roundings=16)
    args = cases.draw(Case((2, 1, 1), (1, 1, 1), (16, 24), epilogue=False))
    args[0][0].copy_(torch.randint(-1, 2, args[0][0].shape))
    triton_launch.MOST_SPLITS = 2  # so that the sums for the finest weights take two steps
    grads = draw_gradients(goct_reference.forward, args)
    assert_gradients_are_exact(goct.backward, goct_reference.backward, grads, args)
    args[0][0][0, 1, 2, 2] = torch.nan
    for y, t in zip(goct.forward(*args), cases.truth(args), strict=True):
        assert torch.equal(y.isnan(), t.isnan())


def options() -> None:
    each(OPTIONS, lambda case: check(goct, goct_reference, cases.draw(case)))


def dilations() -> None:
    each(BANKS, lambda case: check(bank, bank_reference, banks.draw(case)))
