"""lmwp_ops.il_block against the three layers it fuses."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.library import opcheck

import lmwp_ops
from lmwp_ops import _loader
from lmwp_ops.ops.il_block import reference
from lmwp_ops.ops.il_block.op import _refuse_cuda

from ..exactness import (
    LAYOUTS,
    assert_as_exact,
    assert_same_for_any_threads,
    errors_in_roundings,
)
from ..goctconv2d.cases import DTYPES, Case
from ..instruction_sets import INSTRUCTION_SETS, run_under
from .cases import CASES, draw, truth

op = torch.ops.lmwp_ops.il_block.default


@pytest.mark.parametrize("case", CASES, ids=str)
def test_is_as_exact_as_the_three_layers(case: Case) -> None:
    args = draw(case)
    assert_as_exact(op(*args), reference.forward(*args), truth(args), roundings=16)


@settings(max_examples=60, deadline=None)
@given(
    ins=st.lists(st.integers(0, 12), min_size=1, max_size=3).filter(any),
    outs=st.lists(st.integers(0, 12), min_size=1, max_size=3).filter(any),
    height=st.integers(1, 9),
    width=st.integers(1, 17),
    kernel=st.sampled_from((1, 3)),
    entry_pool=st.booleans(),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(LAYOUTS),
)
def test_any_arguments(
    ins: list[int],
    outs: list[int],
    height: int,
    width: int,
    kernel: int,
    entry_pool: bool,
    dtype: torch.dtype,
    layout: str,
) -> None:
    size = (height * 8, width * 8)
    options = {"entry_pool": entry_pool, "dtype": dtype, "layout": layout}
    args = draw(Case(tuple(ins), tuple(outs), size, kernel, **options))
    assert_as_exact(op(*args), reference.forward(*args), truth(args), roundings=16)


def worst_errors() -> list[float]:
    """Largest error of each case in units of its dtype's rounding of the largest value."""
    errors = []
    for case in CASES:
        torch.manual_seed(0)
        args = draw(case)
        ys = torch.ops.lmwp_ops.il_block_cpp.default(*args)
        errors += errors_in_roundings(ys, truth(args))
    return errors


@pytest.mark.skipif(_loader.status()["_C"] is not None, reason=str(_loader.status()["_C"]))
@pytest.mark.parametrize("capability", INSTRUCTION_SETS)
def test_every_instruction_set(capability: str) -> None:
    errors = run_under(capability, "il_block.test_il_block", "worst_errors")
    assert errors
    assert max(errors) < 8


def test_results_do_not_depend_on_threads() -> None:
    args = draw(Case((10, 12), (12, 9), (96, 112), 3, batch=2))
    assert_same_for_any_threads(lambda: op(*args))


@pytest.mark.parametrize("case", [CASES[2], CASES[4], CASES[11], CASES[13], CASES[15]], ids=str)
def test_opcheck(case: Case) -> None:
    opcheck(op, draw(case))


def public(case: Case, **changes: Any) -> list[Tensor]:
    xs, weight, depthwise, scale, shift, slope, ins, outs, entry_pool = draw(case)
    count = len(depthwise) // 2
    stages = [slice(s * count, (s + 1) * count) for s in range(3)]
    pairs = list(zip(scale, shift, strict=True))
    arguments: dict[str, Any] = {
        "xs": xs,
        "weight": weight,
        "in_channels": ins,
        "out_channels": outs,
        "depthwise": [depthwise[:count], depthwise[count:]],
        "entry_pool": entry_pool,
        "affine": [pairs[stage] for stage in stages],
        "slope": [slope[stage] for stage in stages],
        **changes,
    }
    return lmwp_ops.il_block(**arguments)


def test_function_equals_the_op_and_its_decomposition() -> None:
    case = Case((3, 2), (2, 3), (8, 6))
    torch.manual_seed(0)
    ys = public(case)
    torch.manual_seed(0)
    for y, expected in zip(ys, op(*draw(case)), strict=True):
        assert torch.equal(y, expected)
    torch.manual_seed(0)
    with lmwp_ops.decomposed():
        for y, expected in zip(public(case), ys, strict=True):
            torch.testing.assert_close(y, expected)


@pytest.mark.parametrize(("outs", "entry_pool"), [((2, 3), False), ((0, 4), True), ((5,), True)])
def test_module_is_its_three_layers(outs: tuple[int, ...], entry_pool: bool) -> None:
    module = lmwp_ops.nn.ILBlock((3, 2), outs, 3, entry_pool=entry_pool)
    state = {key: torch.rand_like(t) - 0.25 for key, t in module.state_dict().items()}
    module.load_state_dict(state)
    present = range(sum(c > 0 for c in outs))
    xs = [torch.randn(1, 3, 12, 16), torch.randn(1, 2, 6, 8)]

    def epilogue(s: int) -> dict[str, list[Any]]:
        named = [[state[f"{kind}.{s}.{b}"] for b in present] for kind in ("scale", "shift")]
        slope = [state[f"slope.{s}.{b}"] for b in present]
        return {"affine": list(zip(*named, strict=True)), "slope": slope}

    weight = state["weight"]
    ys = lmwp_ops.goctconv2d(xs, weight, (3, 2), outs, entry_pool=entry_pool, **epilogue(0))
    for s in (1, 2):
        depthwise = [state[f"depthwise.{s - 1}.{b}"] for b in present]
        ys = lmwp_ops.depthwise_scales(ys, depthwise, **epilogue(s))
    torch.testing.assert_close(module(xs), ys)
    assert not any(p.requires_grad for p in module.parameters())


W = torch.zeros(2, 1, 3, 3)
BAD = [
    ({"depthwise": [[W, W]]}, r"depthwise: expected 2 lists, one per layer, got 1"),
    ({"depthwise": [[W], [W]]}, r"depthwise\[0\]: expected 2 entries, one per output"),
    ({"depthwise": [[W, W], [W, W]]}, r"depthwise\[0\]\[1\]: expected shape \[3, 1, 3, 3\], got"),
    ({"affine": [[]]}, r"affine: expected 3 lists, one per layer, got 1"),
    ({"slope": [[], [], []]}, r"slope\[0\]: expected 2 entries, one per output branch, got 0"),
    ({"weight": torch.zeros(5, 5, 5, 5)}, r"weight: expected shape \[5, 5, k, k\]"),
    ({"xs": [torch.zeros(1, 3, 8, 6)]}, r"xs: expected 2 tensors"),
    ({"in_channels": [3, -2]}, r"in_channels: expected one non-negative int per branch"),
    (
        {"weight": torch.zeros(5, 5, 1, 1, requires_grad=True)},
        r"weight: expected no tensor that requires a gradient, or torch.no_grad\(\)",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_bad_arguments_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"^il_block: " + message):
        public(Case((3, 2), (2, 3), (8, 6)), **changes)


def test_a_gradient_through_the_op_is_refused() -> None:
    args = draw(Case((3, 2), (2, 3), (8, 6)))
    args[0][0].requires_grad_()
    with pytest.raises(ValueError, match=r"il_block: xs: expected no tensor that requires"):
        op(*args)


@pytest.mark.parametrize(
    ("ins", "outs", "size", "reason"),
    [
        ((2,), (2,) + (0,) * 8, (4, 4), "at most 8 branches"),
        ((2,), (2,), (1, 2**20 + 1), "at most 1048576 channels, rows and columns"),
        ((0, 2), (2, 0), (1, 2**19 + 1), "at most 1048576 channels, rows and columns"),
        ((2,), (2,), (4, 4), None),
    ],
)
def test_the_cuda_kernel_refuses_what_it_cannot_compute(
    ins: tuple[int, ...], outs: tuple[int, ...], size: tuple[int, int], reason: str | None
) -> None:
    x = torch.empty(1, 2, 1, 1).expand(1, 2, *size)
    got = _refuse_cuda([x], torch.empty(0), [], [], [], [], list(ins), list(outs), False)
    assert got == (reason and f"it takes {reason}")
