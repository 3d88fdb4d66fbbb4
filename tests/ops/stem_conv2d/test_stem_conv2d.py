"""lmwp_ops.stem_conv2d against the convolution and the epilogue it fuses."""

import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.library import opcheck

import lmwp_ops
from lmwp_ops import _loader
from lmwp_ops.ops.stem_conv2d import reference

from ..exactness import (
    LAYOUTS,
    assert_as_exact,
    assert_same_for_any_threads,
    errors_in_roundings,
)
from ..instruction_sets import INSTRUCTION_SETS, run_under
from .cases import CASES, Case, draw, truth

op = torch.ops.lmwp_ops.stem_conv2d.default


@pytest.mark.parametrize("case", CASES, ids=str)
def test_is_as_exact_as_its_layers(case: Case) -> None:
    args = draw(case)
    y, expected = op(*args), reference.forward(*args)
    assert_as_exact([y], [expected], [truth(args)], roundings=4)
    assert y.stride() == expected.stride()


@settings(max_examples=40, deadline=None)
@given(
    channels=st.integers(1, 6),
    out=st.integers(1, 40),
    height=st.integers(1, 20),
    columns=st.integers(1, 40),
    kernel=st.sampled_from((1, 3, 5, 7)),
    stride=st.integers(1, 2),
    channels_last=st.booleans(),
    dtype=st.sampled_from((torch.float32, torch.float16, torch.bfloat16)),
    layout=st.sampled_from(LAYOUTS),
)
def test_any_arguments(channels: int, out: int, height: int, columns: int, **options: Any) -> None:
    args = draw(Case(channels, out, (height, columns), **options))
    assert_as_exact([op(*args)], [reference.forward(*args)], [truth(args)], roundings=4)


def worst_errors() -> list[float]:
    """Largest error of each case in units of its dtype's rounding of the largest value."""
    errors = []
    for case in CASES:
        torch.manual_seed(0)
        args = draw(case)
        errors += errors_in_roundings([torch.ops.lmwp_ops.stem_conv2d_cpp(*args)], [truth(args)])
    return errors


@pytest.mark.skipif(_loader.status()["_C"] is not None, reason=str(_loader.status()["_C"]))
@pytest.mark.parametrize("capability", INSTRUCTION_SETS)
def test_every_instruction_set(capability: str) -> None:
    errors = run_under(capability, "stem_conv2d.test_stem_conv2d", "worst_errors")
    assert errors
    assert max(errors) < 8


def test_results_do_not_depend_on_threads() -> None:
    args = draw(Case(3, 33, (150, 170)))
    assert_same_for_any_threads(lambda: [op(*args)])


@pytest.mark.parametrize("case", [CASES[1], CASES[2], CASES[6], CASES[10], CASES[11]], ids=str)
def test_opcheck(case: Case) -> None:
    opcheck(op, draw(case))


def public(args: tuple[Any, ...]) -> Tensor:
    x, weight, (scale,), (shift,), (slope,), stride, channels_last = args
    return lmwp_ops.stem_conv2d(
        x,
        weight,
        stride=stride,
        affine=(scale, shift),
        slope=slope,
        channels_last=channels_last,
    )


def test_function_equals_the_op_and_its_decomposition() -> None:
    args = draw(CASES[0])
    y = public(args)
    assert torch.equal(y, op(*args))
    assert y.is_contiguous(memory_format=torch.channels_last)
    with lmwp_ops.decomposed():
        torch.testing.assert_close(public(args), y)


def test_parameters_may_stay_float32_and_autocast_casts_the_feature() -> None:
    args = draw(CASES[1])
    y = op(args[0].bfloat16(), *args[1:])
    assert y.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(public(args), y)


BAD = [
    ({"x": torch.zeros(2, 3)}, "x: expected a 4-D tensor [N, C, H, W], got [2, 3]"),
    ({"weight": torch.zeros(4, 3, 2, 2)}, "weight: expected [out, 3, k, k] with k one of (1, 3"),
    ({"weight": torch.zeros(4, 2, 3, 3)}, "weight: expected shape [4, 3, 3, 3], got [4, 2, 3, 3]"),
    ({"stride": 3}, "stride: expected one of (1, 2), got 3"),
    ({"affine": (torch.ones(3), torch.ones(4))}, "affine[0] scale: expected shape [4], got [3]"),
    ({"slope": torch.ones(5)}, "slope[0]: expected shape [4], got [5]"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_bad_arguments_are_named(changes: dict[str, Any], message: str) -> None:
    arguments = {"x": torch.zeros(1, 3, 4, 5), "weight": torch.zeros(4, 3, 3, 3)} | changes
    for grad in (True, False):
        with (
            torch.set_grad_enabled(grad),
            pytest.raises(ValueError, match="^stem_conv2d: " + re.escape(message)),
        ):
            lmwp_ops.stem_conv2d(**arguments)


def test_a_gradient_through_the_op_is_refused() -> None:
    args = draw(CASES[1])
    args[1].requires_grad_()
    with pytest.raises(ValueError, match=r"stem_conv2d: weight: expected no tensor that requires"):
        op(*args)
