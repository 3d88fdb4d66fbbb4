"""Gradients: against finite differences, against eager, for every mask of wanted kinds."""

import itertools

import pytest
import torch
from torch import Tensor

import lmwp_ops
from lmwp_ops import _loader
from lmwp_ops.ops.depthwise_scales import reference

from ..exactness import assert_same_for_any_threads
from ..gradients import (
    assert_gradients_are_exact,
    draw_gradients,
    gradient_errors,
    wanted_kinds,
)
from ..gradients import flat as flat_kinds
from ..instruction_sets import INSTRUCTION_SETS, run_under
from .cases import Args, Case, double, draw, eager, grid

op = torch.ops.lmwp_ops.depthwise_scales.default
op_backward = torch.ops.lmwp_ops.depthwise_scales_backward.default


def flat(args: Args) -> list[Tensor]:
    return [t for kind in args[:5] for t in kind]


def gradients(function: object, args: Args, wanted: list[Tensor]) -> list[Tensor | None]:
    for t in wanted:
        t.requires_grad_()
    ys = function(args)
    torch.manual_seed(1)
    return list(torch.autograd.grad(ys, wanted, [torch.randn(y.shape).to(y) for y in ys]))


@pytest.mark.parametrize(
    ("stride", "dilation", "epilogue"), [(1, 1, True), (2, 2, True), (1, 1, False)]
)
def test_finite_differences(stride: int, dilation: int, epilogue: bool) -> None:
    case = Case(((1, 2, 3, 3), (2, 1, 2, 2)), 3, stride, dilation, epilogue=epilogue)
    args = double(draw(case))
    lengths = [len(kind) for kind in args[:5]]

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        left = iter(tensors)
        kinds = [[next(left) for _ in range(n)] for n in lengths]
        return tuple(op(*kinds, stride, dilation))

    inputs = tuple(t.requires_grad_() for t in flat(args))
    assert torch.autograd.gradcheck(function, inputs, check_undefined_grad=False)


@pytest.mark.parametrize("mask", list(itertools.product([False, True], repeat=5)), ids=str)
def test_every_mask_of_wanted_kinds(mask: tuple[bool, ...]) -> None:
    args = double(draw(Case(((2, 3, 5, 6), (1, 2, 4, 3)), dilation=2)))
    wanted = [t for kind, want in zip(args, mask, strict=False) if want for t in kind]
    if wanted:
        torch.testing.assert_close(
            gradients(lambda a: op(*a), args, wanted), gradients(eager, args, wanted)
        )
    grads = [torch.ones(x.shape, dtype=x.dtype) for x in args[0]]
    kinds = op_backward(grads, *[[t.detach() for t in k] for k in args[:5]], 1, 2, list(mask))
    assert [len(kind) for kind in kinds] == [2 if want else 0 for want in mask]


@pytest.mark.parametrize("layout", ["nchw", "channels_last", "sliced", "expanded", "transposed"])
@pytest.mark.parametrize("stride", [1, 2])
def test_layouts(layout: str, stride: int) -> None:
    args = double(draw(Case(((2, 3, 7, 6),), stride=stride, layout=layout)))
    wanted = [*args[0], *args[1]]
    got = gradients(lambda a: op(*a), args, wanted)
    torch.testing.assert_close(got, gradients(eager, args, wanted))
    grad_x = got[0]
    assert grad_x is not None
    expected = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    assert grad_x.stride() == torch.empty(grad_x.shape, memory_format=expected).stride()


@pytest.mark.parametrize("case", grid(), ids=str)
def test_are_as_exact_as_those_of_the_reference(case: Case) -> None:
    args = draw(case)
    assert_gradients_are_exact(op_backward, reference.backward, draw_gradients(op, args), args)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_bands_fit_together(stride: int, layout: str) -> None:
    """Planes of several tasks."""
    for dilation in (1, 7):
        case = Case(((2, 3, 310, 201),), 3, stride, dilation, layout=layout, epilogue=False)
        args = draw(case)
        assert_gradients_are_exact(op_backward, reference.backward, draw_gradients(op, args), args)


def test_nan_reaches_what_it_reaches_in_torch() -> None:
    args = draw(Case(((1, 2, 9, 40),), epilogue=False))
    args[0][0][0, 1, 2, 2] = torch.nan
    grads = draw_gradients(op, args)
    wanted = wanted_kinds(args)
    got, expected = op_backward(grads, *args, wanted), reference.backward(grads, *args, wanted)
    for g, e in zip(flat_kinds(got), flat_kinds(expected), strict=True):
        assert torch.equal(g.isnan(), e.isnan())


def worst_errors() -> list[float]:
    errors = []
    for case in grid():
        torch.manual_seed(0)
        args = draw(case)
        grads = draw_gradients(lambda *a: reference.forward(*a), args)
        kernel = torch.ops.lmwp_ops.depthwise_scales_backward_cpp.default
        errors += gradient_errors(kernel, reference.backward, grads, args)
    return errors


@pytest.mark.skipif(_loader.status()["_C"] is not None, reason=str(_loader.status()["_C"]))
@pytest.mark.parametrize("capability", INSTRUCTION_SETS)
def test_every_instruction_set(capability: str) -> None:
    errors = run_under(capability, "depthwise_scales.test_gradients", "worst_errors")
    assert len(errors) >= 2 * len(grid())
    assert max(errors) < 24


def test_do_not_depend_on_threads() -> None:
    args = draw(Case(((4, 5, 130, 131),)))
    grads = draw_gradients(op, args)
    assert_same_for_any_threads(lambda: flat_kinds(op_backward(grads, *args, [True] * 5)))


def test_gradients_have_the_dtype_of_their_tensors() -> None:
    case = Case(((1, 3, 5, 6),), dtype=torch.bfloat16)
    args = draw(case, parameter_dtype=torch.float32)
    got = gradients(lambda a: op(*a), args, flat(args))
    assert [g.dtype for g in got if g is not None] == [torch.bfloat16, *[torch.float32] * 4]


def test_an_output_left_out_gives_zeros() -> None:
    args = double(draw(Case(((1, 2, 5, 4), (1, 3, 3, 3)))))
    for t in flat(args):
        t.requires_grad_()
    op(*args)[0].sum().backward()
    assert args[0][0].grad is not None
    assert args[0][0].grad.abs().sum() > 0
    assert args[0][1].grad is None or not args[0][1].grad.any()


def test_empty_batch() -> None:
    args = draw(Case(((0, 2, 5, 4),)))
    got = gradients(lambda a: op(*a), args, flat(args))
    assert [g.shape for g in got if g is not None] == [t.shape for t in flat(args)]
    assert not any(g.any() for g in got[1:] if g is not None)


def test_second_derivative_is_refused_with_a_reason() -> None:
    (x,), (w,), *_ = draw(Case(((1, 2, 5, 4),)))
    x.requires_grad_()
    (y,) = lmwp_ops.depthwise_scales([x], [w])
    (g,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"depthwise_scales: .* once only"):
        g.sum().backward()


def test_gradients_are_reproducible() -> None:
    args = draw(Case(((4, 5, 30, 31),)))
    first = gradients(lambda a: op(*a), args, flat(args))
    second = gradients(lambda a: op(*a), args, flat(args))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_backward_checks_its_gradients() -> None:
    args = draw(Case(((1, 2, 5, 4),)))
    with pytest.raises(ValueError, match=r"grads\[0\]: expected shape \[1, 2, 5, 4\], got"):
        op_backward([torch.ones(1, 2, 5, 5)], *args, [True] * 5)
    with pytest.raises(ValueError, match=r"grads: expected 1 tensors"):
        op_backward([], *args, [True] * 5)
