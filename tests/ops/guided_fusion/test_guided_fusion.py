"""lmwp_ops.guided_fusion against the steps it fuses."""

import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.library import opcheck

import lmwp_ops
from lmwp_ops import _loader
from lmwp_ops._examples import convert
from lmwp_ops.ops.guided_fusion import reference

from ..exactness import (
    LAYOUTS,
    assert_as_exact,
    assert_same_for_any_threads,
    errors_in_roundings,
)
from ..instruction_sets import INSTRUCTION_SETS, run_under
from .cases import CASES, Case, draw, truth

op = torch.ops.lmwp_ops.guided_fusion.default
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_is_as_exact_as_its_layers(case: Case) -> None:
    args = draw(case)
    assert_as_exact([op(*args)], [reference.forward(*args)], [truth(args)], roundings=16)


@settings(max_examples=60, deadline=None)
@given(
    encoder=st.integers(1, 20),
    decoder=st.integers(1, 20),
    channels=st.integers(1, 20),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    low=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    out=st.integers(1, 40),
    dilations=st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple),
    batch=st.integers(1, 3),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(LAYOUTS),
)
def test_any_arguments(**arguments: Any) -> None:
    args = draw(Case(**arguments))
    assert_as_exact([op(*args)], [reference.forward(*args)], [truth(args)], roundings=16)


def worst_errors() -> list[float]:
    """Largest error of each case in units of its dtype's rounding of the largest value."""
    errors = []
    for case in CASES:
        torch.manual_seed(0)
        args = draw(case)
        errors += errors_in_roundings([torch.ops.lmwp_ops.guided_fusion_cpp(*args)], [truth(args)])
    return errors


@pytest.mark.skipif(_loader.status()["_C"] is not None, reason=str(_loader.status()["_C"]))
@pytest.mark.parametrize("capability", INSTRUCTION_SETS)
def test_every_instruction_set(capability: str) -> None:
    errors = run_under(capability, "guided_fusion.test_guided_fusion", "worst_errors")
    assert errors
    assert max(errors) < 16


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_results_do_not_depend_on_threads(batch: int) -> None:
    args = draw(Case(20, 30, 40, (70, 90), (35, 45), batch=batch))
    assert_same_for_any_threads(lambda: [op(*args)])


def test_nan_reaches_its_own_image_only() -> None:
    args = draw(CASES[0])
    args[0][1][1, 2, 3, 4] = torch.nan
    y = op(*args)
    assert y[0].isfinite().all()
    assert y[1].isnan().any()


@pytest.mark.parametrize("case", [CASES[3], CASES[5], CASES[8], CASES[11], CASES[13]], ids=str)
def test_opcheck(case: Case) -> None:
    opcheck(op, draw(case))


def public(args: tuple[Any, ...]) -> torch.Tensor:
    return lmwp_ops.guided_fusion(*args[0], *args[1:])


def test_function_equals_the_op_and_its_decomposition() -> None:
    args = draw(CASES[5])
    y = public(args)
    assert torch.equal(y, op(*args))
    with lmwp_ops.decomposed():
        torch.testing.assert_close(public(args), y)


def test_parameters_may_stay_float32_and_autocast_casts_the_features() -> None:
    args = draw(CASES[0])
    half = ([x.bfloat16() for x in args[0]], *args[1:])
    y = op(*half)
    assert y.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(public(args), y)


BAD = [
    ({"encoder": torch.zeros(2, 3)}, "encoder: expected a 4-D tensor [N, C, H, W], got [2, 3]"),
    ({"decoder": torch.zeros(1, 7, 0, 2)}, "decoder: expected at least one channel and one pixel"),
    ({"decoder": torch.zeros(3, 7, 2, 2)}, "decoder: expected batch size 2 like encoder, got 3"),
    ({"decoder": torch.zeros(2, 7, 2, 2).half()}, "decoder: expected torch.float32 on cpu like"),
    ({"gate": torch.zeros(2, 3)}, "gate: expected shape [2, 8], got [2, 3]"),
    ({"encode": []}, "encode: expected 3 tensors: weight, scale, shift, got 0"),
    ({"fuse": [torch.tensor(1.0)] * 4}, "fuse weight: expected rows, got []"),
    ({"decode": [torch.zeros(8, 6, 1, 1)] * 3}, "decode weight: expected shape [8, 7, 1, 1], got"),
    ({"guide": [torch.zeros(1, 7, 1, 1)] * 2}, "guide bias: expected shape [1], got [1, 7, 1, 1]"),
    ({"dilations": [1]}, "depthwise weight: expected shape [1, 8, 3, 3], got [2, 8, 3, 3]"),
    ({"dilations": [1, 0]}, "dilations: expected positive ones, at least one, got [1, 0]"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_bad_arguments_are_named(changes: dict[str, Any], message: str) -> None:
    names = ("gate", "encode", "decode", "guide", "depthwise", "fuse", "dilations")
    (encoder, decoder), *rest = draw(Case(6, 7, 8, (4, 5), (2, 2)))
    arguments = {"encoder": encoder, "decoder": decoder, **dict(zip(names, rest, strict=True))}
    for grad in (True, False):
        with (
            torch.set_grad_enabled(grad),
            pytest.raises(ValueError, match="^guided_fusion: " + re.escape(message)),
        ):
            lmwp_ops.guided_fusion(**(arguments | changes))


def test_a_gradient_through_the_op_is_refused() -> None:
    args = draw(CASES[5])
    args[0][1].requires_grad_()
    with pytest.raises(ValueError, match=r"guided_fusion: encoder, decoder: expected no tensor"):
        op(*args)


def test_the_kernel_names_what_it_cannot_take() -> None:
    kernel = torch.ops.lmwp_ops.guided_fusion_cpp
    args = draw(CASES[0])
    with pytest.raises(RuntimeError, match="expected float32, float16 or bfloat16"):
        kernel(*convert(args, lambda t: t.double()))
    with pytest.raises(RuntimeError, match="expected two features"):
        kernel(args[0][:1], *args[1:])
