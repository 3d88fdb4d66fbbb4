"""Gradients of goctconv2d against the float64 reference, and those of the compiled CPU kernels."""

import pytest
import torch

from lmwp_ops import _loader
from lmwp_ops.ops.goctconv2d import reference

from ..exactness import LAYOUTS, assert_same_for_any_threads
from ..gradients import (
    assert_gradients_are_exact,
    draw_gradients,
    flat,
    gradient_errors,
    wanted_kinds,
)
from ..instruction_sets import INSTRUCTION_SETS, run_under
from .cases import DTYPES, Case, draw, grid

op = torch.ops.lmwp_ops.goctconv2d.default
op_backward = torch.ops.lmwp_ops.goctconv2d_backward.default
needs_library = pytest.mark.skipif(
    _loader.status()["_C"] is not None, reason=str(_loader.status()["_C"])
)


def assert_right(case: Case) -> None:
    args = draw(case)
    assert_gradients_are_exact(op_backward, reference.backward, draw_gradients(op, args), args)


@pytest.mark.parametrize("case", grid(), ids=str)
def test_are_as_exact_as_those_of_the_reference(case: Case) -> None:
    assert_right(case)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("entry_pool", [False, True])
def test_bands_fit_together(kernel: int, entry_pool: bool) -> None:
    """Maps that do not fit into one task, with terms from finer and coarser scales."""
    ins, outs = (10, 9), (11, 10)
    assert_right(Case(ins, outs, (200, 226), kernel, entry_pool=entry_pool, epilogue=False))
    assert_right(Case((4, 5, 6), (7,), (148, 132), kernel, epilogue=False))
    assert_right(Case((7,), (4, 5, 6), (148, 132), kernel, epilogue=False))


MANY_CHANNELS = (
    Case((80,), (40, 40), (28, 28), 3, batch=2, epilogue=False),
    Case((40, 41), (39, 40), (14, 14), batch=2, epilogue=False),
    Case((64, 70), (61, 40), (21, 13), batch=2, epilogue=False),
    Case((33,), (64,), (11, 11), 3, epilogue=False),
    Case((35,), (130,), (31, 33), batch=2, epilogue=False),
    Case((130, 33), (100,), (6, 7), entry_pool=True, dtype=torch.float16, epilogue=False),
)


@pytest.mark.parametrize("case", MANY_CHANNELS, ids=str)
def test_many_channels(case: Case) -> None:
    """More sums than a first-level cache holds, and narrow maps."""
    assert_right(case)


def test_branches_of_any_size() -> None:
    case = Case((3, 4, 2), (4, 2, 3), (50, 90), bilinear_down=True, epilogue=False)
    args = draw(case)
    args[0][1] = torch.randn(1, 4, 61, 47)
    args[0][2] = torch.randn(1, 2, 20, 100)
    assert_gradients_are_exact(op_backward, reference.backward, draw_gradients(op, args), args)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("ins", [(3, 2), (3, 2, 4)], ids=str)
def test_of_equal_maxima_the_first_takes_it_all(dtype: torch.dtype, ins: tuple[int, ...]) -> None:
    args = draw(Case(ins, (2, 3, 4)[: len(ins)], (24, 40), dtype=dtype, epilogue=False))
    for x in args[0]:
        x.copy_(torch.randint(-1, 2, x.shape))
    assert_gradients_are_exact(op_backward, reference.backward, draw_gradients(op, args), args)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_of_results_come_in_any_layout(layout: str) -> None:
    args = draw(Case((3, 5), (4, 6), (12, 20), layout=layout, epilogue=False))
    grads = draw_gradients(op, args)
    whole = [torch.full((*g.shape[:2], g.shape[2] + 1, g.shape[3] + 3), torch.nan) for g in grads]
    for gap, g in zip(whole, grads, strict=True):
        gap[:, :, :-1, 2:-1] = g
    sliced = [gap[:, :, :-1, 2:-1] for gap in whole]
    transposed = [g.transpose(2, 3).contiguous().transpose(2, 3) for g in grads]
    expected = flat(op_backward(grads, *args, wanted_kinds(args)))
    for other in (sliced, transposed):
        got = flat(op_backward(other, *args, wanted_kinds(args)))
        torch.testing.assert_close(got, expected)
    ones = [torch.ones(1).expand(g.shape) for g in grads]
    assert_gradients_are_exact(op_backward, reference.backward, ones, args)


def test_an_input_that_no_output_reads_has_zeros() -> None:
    args = draw(Case((3, 2), (4,), (8, 8), cross_scale=False, epilogue=False))
    kinds = op_backward(draw_gradients(op, args), *args, wanted_kinds(args))
    assert torch.equal(kinds[0][1], torch.zeros(1, 2, 4, 4))
    assert torch.equal(kinds[1][0][:, 3:], torch.zeros(4, 2, 1, 1))


def test_empty_batch() -> None:
    args = draw(Case((3, 2), (4, 2), (8, 8), batch=0))
    grads = draw_gradients(op, args)
    kinds = op_backward(grads, *args, wanted_kinds(args))
    assert all(torch.equal(g, torch.zeros_like(g)) for g in flat(kinds))


def test_do_not_depend_on_threads() -> None:
    args = draw(Case((10, 12), (12, 9), (96, 112), 3, batch=2))
    grads = draw_gradients(op, args)
    assert_same_for_any_threads(lambda: flat(op_backward(grads, *args, wanted_kinds(args))))


def worst_errors() -> list[float]:
    errors = []
    for case in (*grid(), *MANY_CHANNELS):
        torch.manual_seed(0)
        args = draw(case)
        grads = draw_gradients(reference.forward, args)
        kernel = torch.ops.lmwp_ops.goctconv2d_backward_cpp.default
        errors += gradient_errors(kernel, reference.backward, grads, args)
    return errors


@needs_library
@pytest.mark.parametrize("capability", INSTRUCTION_SETS)
def test_every_instruction_set(capability: str) -> None:
    errors = run_under(capability, "goctconv2d.test_goctconv2d_gradients", "worst_errors")
    assert len(errors) >= 2 * len(grid())
    assert max(errors) < 24


@needs_library
def test_the_kernel_refuses_gradients_that_do_not_fit() -> None:
    xs, weight, _, _, _, *settings = draw(Case((3, 2), (2, 3), (8, 6), epilogue=False))
    kernel = torch.ops.lmwp_ops.goctconv2d_backward_cpp.default
    high, low = draw_gradients(op, (xs, weight, [], [], [], *settings))
    for wrong in ([high], [low, high], [high.half(), low.half()], [high[..., 1:], low]):
        with pytest.raises(RuntimeError, match="grads"):
            kernel(wrong, xs, weight, [], [], [], *settings, [True] * 5)
