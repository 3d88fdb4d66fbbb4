"""lmwp_ops.mwpm_block against the layers it fuses."""

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
from lmwp_ops.ops.mwpm_block import pack, reference

from ..exactness import (
    LAYOUTS,
    assert_as_exact,
    assert_same_for_any_threads,
    errors_in_roundings,
)
from ..instruction_sets import INSTRUCTION_SETS, run_under
from .cases import BRANCHES, CASES, Case, draw, truth

op = torch.ops.lmwp_ops.mwpm_block.default
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_is_as_exact_as_its_layers(case: Case) -> None:
    args = draw(case)
    assert_as_exact([op(*args)], [reference.forward(*args)], [truth(args)], roundings=16)


@settings(max_examples=60, deadline=None)
@given(
    channels=st.integers(1, 20),
    width=st.integers(1, 40),
    height=st.integers(1, 20),
    columns=st.integers(1, 20),
    branches=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5)), min_size=1, max_size=5),
    hidden=st.integers(1, 20),
    batch=st.integers(1, 3),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(LAYOUTS),
)
def test_any_arguments(
    channels: int, width: int, height: int, columns: int, branches: Any, **options: Any
) -> None:
    args = draw(Case(channels, width, (height, columns), tuple(branches), **options))
    assert_as_exact([op(*args)], [reference.forward(*args)], [truth(args)], roundings=16)


def worst_errors() -> list[float]:
    """Largest error of each case in units of its dtype's rounding of the largest value."""
    errors = []
    for case in CASES:
        torch.manual_seed(0)
        args = draw(case)
        errors += errors_in_roundings([torch.ops.lmwp_ops.mwpm_block_cpp(*args)], [truth(args)])
    return errors


@pytest.mark.skipif(_loader.status()["_C"] is not None, reason=str(_loader.status()["_C"]))
@pytest.mark.parametrize("capability", INSTRUCTION_SETS)
def test_every_instruction_set(capability: str) -> None:
    errors = run_under(capability, "mwpm_block.test_mwpm_block", "worst_errors")
    assert errors
    assert max(errors) < 16


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_results_do_not_depend_on_threads(batch: int) -> None:
    args = draw(Case(20, 40, (50, 70), batch=batch))
    assert_same_for_any_threads(lambda: [op(*args)])


def test_a_pruned_branch_adds_nothing() -> None:
    args = draw(Case(20, 40, (9, 14)))
    _, _, gate, depthwise, *_ = args
    gate[3].zero_()
    gate[4].view(4, 40)[:] = torch.tensor([0.0, 3.0, 0.0, 0.0])[:, None]
    gate[5].fill_(0.2)
    expected = op(*args)
    for table in depthwise:
        table[[0, 2, 3]] = torch.nan
    assert torch.equal(op(*args), expected)
    for table in depthwise:
        table[1] += 1
    assert not torch.allclose(op(*args), expected)


def test_nan_reaches_its_own_image_only() -> None:
    args = draw(CASES[0])
    args[0][1, 2, 3, 4] = torch.nan
    y = op(*args)
    assert y[0].isfinite().all()
    assert y[1].isnan().any()


@pytest.mark.parametrize("case", [CASES[3], CASES[5], CASES[9], CASES[12], CASES[14]], ids=str)
def test_opcheck(case: Case) -> None:
    opcheck(op, draw(case))


def public(args: tuple[Any, ...]) -> torch.Tensor:
    *first, octaves, dilations = args
    return lmwp_ops.mwpm_block(*first, list(zip(octaves, dilations, strict=True)))


def test_function_equals_the_op_and_its_decomposition() -> None:
    args = draw(CASES[5])
    y = public(args)
    assert torch.equal(y, op(*args))
    with lmwp_ops.decomposed():
        torch.testing.assert_close(public(args), y)


def test_parameters_may_stay_float32_and_autocast_casts_the_feature() -> None:
    args = draw(CASES[0])
    half = (args[0].bfloat16(), *args[1:])
    y = op(*half)
    assert y.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(public(args), y)


BAD = [
    ({"x": torch.zeros(2, 3)}, "x: expected a 4-D tensor [N, C, H, W], got [2, 3]"),
    ({"x": torch.zeros(1, 3, 0, 2)}, "x: expected at least one channel and one pixel"),
    ({"expand": []}, "expand: expected 4 tensors, got 0"),
    ({"project": [torch.zeros(6)] * 3}, "project: expected 4 tensors: weight, scale, shift, slope"),
    ({"gate": [torch.tensor(1.0)] * 6}, "gate weight: expected [h, 12], got []"),
    ({"gate": [torch.zeros(4, 12)] * 6}, "gate reduce bias: expected shape [4], got [4, 12]"),
    ({"depthwise": [torch.zeros(3, 12, 3, 3)] * 3}, "depthwise weights: expected shape [4, 12, 3"),
    ({"branches": [(0, 1, 2)]}, "branches[0]: expected a pair (octave, dilation) of ints"),
    ({"branches": [(0, 1), (16, 1)]}, "branches[1]: expected an octave of 0 to 15"),
    ({"branches": []}, "branches: expected at least one pair"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_bad_arguments_are_named(changes: dict[str, Any], message: str) -> None:
    names = ("x", "expand", "gate", "depthwise", "project")
    *first, _, _ = draw(Case(6, 12, (4, 5)))
    arguments = dict(zip(names, first, strict=True)) | {"branches": BRANCHES} | changes
    for grad in (True, False):
        with (
            torch.set_grad_enabled(grad),
            pytest.raises(ValueError, match="^mwpm_block: " + re.escape(message)),
        ):
            lmwp_ops.mwpm_block(**arguments)


def test_a_gradient_through_the_op_is_refused() -> None:
    args = draw(CASES[5])
    args[1][0].requires_grad_()
    with pytest.raises(ValueError, match=r"mwpm_block: expand: expected no tensor that requires"):
        op(*args)


def test_the_kernel_names_what_it_cannot_take() -> None:
    kernel = torch.ops.lmwp_ops.mwpm_block_cpp
    args = draw(CASES[0])
    with pytest.raises(RuntimeError, match="expected float32, float16 or bfloat16"):
        kernel(*convert(args, lambda t: t.double()))
    with pytest.raises(RuntimeError, match="expected layers from and to the channels of x"):
        kernel(args[0][:, 1:], *args[1:])


@pytest.mark.skipif(_loader.status()["_C"] is not None, reason=str(_loader.status()["_C"]))
@pytest.mark.parametrize("case", [CASES[0], CASES[5], CASES[12]], ids=str)
def test_parameters_may_be_packed_before(case: Case) -> None:
    args = draw(case)
    packed = pack(args[1], args[3], args[4])
    assert torch.equal(op(*args, packed), op(*args))
    with pytest.raises(RuntimeError, match="packed: expected what was made of these"):
        op(*args, packed[1:])


def test_float64_parameters_are_not_packed() -> None:
    args = draw(CASES[5])
    assert pack(*([p.double() for p in args[i]] for i in (1, 3, 4))) is None
