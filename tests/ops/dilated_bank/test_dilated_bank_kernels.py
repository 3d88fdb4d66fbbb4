"""Every backend of dilated_bank against the float64 reference, and what the op promises."""

import itertools
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck

from lmwp_ops import _loader
from lmwp_ops.ops.dilated_bank import reference
from lmwp_ops.ops.dilated_bank.checks import output_shapes

from ..exactness import LAYOUTS, assert_as_exact, errors_in_roundings, feature
from ..goctconv2d.cases import DTYPES, in_dtype
from ..gradients import assert_gradients_are_exact, draw_gradients, gradient_errors
from ..instruction_sets import INSTRUCTION_SETS, run_under

op = torch.ops.lmwp_ops.dilated_bank.default
op_backward = torch.ops.lmwp_ops.dilated_bank_backward.default
RATES = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Case:
    scales: tuple[tuple[int, int, int], ...]  # channels, height, width
    outs: tuple[tuple[int, ...], ...]
    batch: int = 1
    dtype: torch.dtype = torch.float32
    layout: str = "nchw"
    epilogue: bool = True

    def __str__(self) -> str:
        scales = "+".join("x".join(map(str, scale)) for scale in self.scales)
        end = "" if self.epilogue else "-bare"
        return f"{scales}-n{self.batch}-{self.dtype}-{self.layout}{end}"


def draw(case: Case) -> tuple[Any, ...]:
    """Arguments of the op."""
    xs = [feature((case.batch, *scale), case.dtype, case.layout) for scale in case.scales]
    weights = [
        torch.randn(out, scale[0], 3, 3).to(case.dtype) / (3 * scale[0] ** 0.5)
        for scale, row in zip(case.scales, case.outs, strict=True)
        for out in row
        if out
    ]
    dilations = [
        r for row in case.outs for out, r in zip(row, RATES[: len(row)], strict=True) if out
    ]
    counts = [sum(out > 0 for out in row) for row in case.outs]
    widths = [sum(row) for row in case.outs if any(row)]
    epilogue: list[list[Tensor]] = [[], [], []]
    if case.epilogue:
        ranges = ((0.5, 2), (-1, 1), (-0.2, 0.5))
        epilogue = [
            [torch.empty(c).uniform_(low, high).to(case.dtype) for c in widths]
            for low, high in ranges
        ]
    return (xs, weights, *epilogue, dilations, counts)


def truth(args: tuple[Any, ...]) -> list[Tensor]:
    return reference.forward(*in_dtype(args, torch.float64))


FUSION = Case(
    ((12, 112, 112), (24, 56, 56), (24, 28, 28)),
    ((1, 2, 2, 2, 4), (1, 4, 4, 4, 5), (2, 2, 4, 5, 4)),
)
CASES = [
    FUSION,
    Case(((7, 33, 13),), ((3, 0, 9, 1, 2),), batch=2),
    Case(((3, 5, 4), (2, 7, 9)), ((1, 2), (0, 4))),
    Case(((3, 5, 4), (2, 7, 9)), ((0, 0), (2, 4))),
    Case(((4, 1, 1),), ((2, 3, 1),)),
    Case(((4, 1, 40),), ((2, 3, 1, 1, 1),)),
    *(Case(((5, 9, 18),), ((2, 1, 3),), dtype=dtype) for dtype in DTYPES),
    *(Case(((5, 9, 18),), ((2, 1, 3),), layout=layout) for layout in LAYOUTS),
    Case(((5, 9, 18),), ((2, 1, 3),), epilogue=False),
    Case(((5, 9, 18),), ((2, 1, 3),), batch=0),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_is_as_exact_as_the_reference(case: Case) -> None:
    args = draw(case)
    assert_as_exact(op(*args), reference.forward(*args), truth(args), roundings=16)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_are_as_exact_as_those_of_the_reference(case: Case) -> None:
    args = draw(case)
    assert_gradients_are_exact(op_backward, reference.backward, draw_gradients(op, args), args)


def worst_errors() -> list[float]:
    """Largest error of each case in units of its dtype's rounding of the largest value."""
    errors = []
    for case in CASES:
        torch.manual_seed(0)
        args = draw(case)
        ys = torch.ops.lmwp_ops.dilated_bank_cpp.default(*args)
        errors += errors_in_roundings(ys, truth(args))
        grads = draw_gradients(reference.forward, args)
        kernel = torch.ops.lmwp_ops.dilated_bank_backward_cpp.default
        errors += gradient_errors(kernel, reference.backward, grads, args)
    return errors


@pytest.mark.skipif(_loader.status()["_C"] is not None, reason=str(_loader.status()["_C"]))
@pytest.mark.parametrize("capability", INSTRUCTION_SETS)
def test_every_instruction_set(capability: str) -> None:
    errors = run_under(capability, "dilated_bank.test_dilated_bank_kernels", "worst_errors")
    assert errors
    assert max(errors) < 24


@pytest.mark.parametrize("case", [*CASES[1:5], CASES[8], CASES[10], CASES[-1]], ids=str)
@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
def test_opcheck(case: Case, trained: bool) -> None:
    args = draw(case)
    if trained:
        for kind in args[:5]:
            for t in kind:
                t.requires_grad_()
    opcheck(op, args)


@pytest.mark.parametrize("case", [*CASES[1:5], CASES[8], CASES[10], CASES[-1]], ids=str)
def test_fakes_have_the_strides_of_real_results(case: Case) -> None:
    args = draw(case)
    wanted = [True, True, *[case.epilogue] * 3]
    ys = op(*args)
    real = [*ys, *(t for kind in op_backward(ys, *args, wanted) for t in kind)]
    with FakeTensorMode() as mode:
        fakes: Any = [[mode.from_tensor(t) for t in kind] for kind in args[:5]]
        fake_ys = op(*fakes, *args[5:])
        backward = op_backward(fake_ys, *fakes, *args[5:], wanted)
        fake = [*fake_ys, *(t for kind in backward for t in kind)]
    for r, f in zip(real, fake, strict=True):
        assert (r.shape, r.dtype, r.stride()) == (f.shape, f.dtype, f.stride())


@pytest.mark.parametrize("mask", list(itertools.product([False, True], repeat=5)), ids=str)
def test_every_mask_of_wanted_kinds(mask: tuple[bool, ...]) -> None:
    args = in_dtype(draw(CASES[3]), torch.float64)
    grads = [
        torch.randn(shape, dtype=torch.float64)
        for shape in output_shapes(args[0], args[1], args[-1])
    ]
    kinds = op_backward(grads, *args, list(mask))
    assert [bool(kind) for kind in kinds] == list(mask)
    leaves = [t.requires_grad_() for kind in args[:5] for t in kind]
    truths = iter(
        torch.autograd.grad(
            reference.forward(*args), leaves, grads, allow_unused=True, materialize_grads=True
        )
    )
    for kind, given in zip(kinds, args[:5], strict=True):
        expected = [next(truths) for _ in given]
        for g, t in zip(kind, expected, strict=False):
            torch.testing.assert_close(g, t)


def test_double_backward_is_refused() -> None:
    args = draw(CASES[2])
    args[0][0].requires_grad_()
    ys = op(*args)
    (g,) = torch.autograd.grad(ys[0].square().sum(), args[0][0], create_graph=True)
    with pytest.raises(NotImplementedError, match=r"dilated_bank: can be differentiated once"):
        g.sum().backward()


def test_refuses_what_would_read_out_of_bounds() -> None:
    xs, weights, scale, shift, slope, dilations, counts = draw(CASES[2])
    kernel = torch.ops.lmwp_ops.dilated_bank_cpp.default
    epilogue = (scale, shift, slope)
    for wrong in (
        ([], [], [], [], [], [], []),
        (xs, weights, *epilogue, dilations[:1], counts),
        (xs, weights, *epilogue, dilations, counts[:1]),
        (xs, weights, *epilogue, dilations, [3, 3]),
        (xs, weights, *epilogue, [0, *dilations[1:]], counts),
        (xs, [weights[0][:, :1], *weights[1:]], *epilogue, dilations, counts),
        (xs, weights, [scale[0][:1], scale[1]], shift, slope, dilations, counts),
        (xs, weights, scale[:1], shift, slope, dilations, counts),
        ([x.double() for x in xs], weights, *epilogue, dilations, counts),
        ([x[0] for x in xs], weights, *epilogue, dilations, counts),
        ([x[:, :, :0] for x in xs], weights, *epilogue, dilations, counts),
    ):
        with pytest.raises(RuntimeError):
            kernel(*wrong)
