"""Every backend of goctconv2d against the float64 reference, and what the op promises."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck

import lmwp_ops
from lmwp_ops.ops.goctconv2d import reference

from ..exactness import LAYOUTS, assert_as_exact, assert_same_for_any_threads
from .cases import DTYPES, PIXELS, Case, draw, grid, in_dtype, shapes, truth

op = torch.ops.lmwp_ops.goctconv2d.default
op_backward = torch.ops.lmwp_ops.goctconv2d_backward.default


def assert_right(case: Case, args: tuple[Any, ...]) -> None:
    ys = op(*args)
    assert_as_exact(ys, reference.forward(*args), truth(args), roundings=16)
    assert [tuple(y.shape) for y in ys] == shapes(args)


@pytest.mark.parametrize("case", [*grid(), *PIXELS], ids=str)
def test_is_as_exact_as_the_reference(case: Case) -> None:
    assert_right(case, draw(case))


def test_bands_fit_together() -> None:
    """Maps that do not fit into one task, with terms from finer and coarser scales."""
    for kernel in (1, 3):
        for entry_pool in (False, True):
            case = Case((10, 9), (11, 10), (200, 224), kernel, entry_pool=entry_pool)
            assert_right(case, draw(case))
    assert_right(case := Case((34, 38, 50), (60,), (112, 112)), draw(case))
    case = Case((3, 4, 2), (4, 2, 3), (150, 90), bilinear_down=True)
    args = draw(case)
    args[0][1] = torch.randn(1, 4, 61, 47)
    args[0][2] = torch.randn(1, 2, 40, 100)
    assert_right(case, args)


def test_float32_parameters_with_narrow_features() -> None:
    for dtype in DTYPES[1:]:
        case = Case((4, 5), (5, 4), (12, 16), 3, dtype=dtype)
        args = draw(case, torch.float32)
        assert_right(case, args)


@pytest.mark.parametrize("branch", [0, 1])
def test_nan_reaches_what_it_reaches_in_torch(branch: int) -> None:
    args = draw(Case((2, 2), (2, 2), (8, 8)))
    args[0][branch][0, 1, 2, 2] = torch.nan
    for y, t in zip(op(*args), truth(args), strict=True):
        assert torch.equal(y.isnan(), t.isnan())


@settings(max_examples=120, deadline=None)
@given(
    ins=st.lists(st.integers(0, 12), min_size=1, max_size=3).filter(any),
    outs=st.lists(st.integers(0, 20), min_size=1, max_size=3).filter(any),
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
    case = Case(tuple(ins), tuple(outs), size, kernel, **options)
    assert_right(case, draw(case))


def test_results_do_not_depend_on_threads() -> None:
    args = draw(Case((10, 12), (12, 9), (96, 112), 3, batch=2))
    assert_same_for_any_threads(lambda: op(*args))


CONTRACT = [
    Case((3, 2), (2, 3), (8, 6)),
    Case((3, 2), (2, 3), (8, 12), 3, entry_pool=True, layout="channels_last"),
    Case((3, 2), (0, 3), (8, 6), layout="sliced"),
    Case((3,), (1,), (5, 4), layout="sliced_channels_last"),
    Case((3, 2), (2, 3), (8, 6), layout="expanded"),
    Case((1,), (2,), (5, 4), layout="channels_last"),
    Case((3, 2), (2, 3), (8, 6), batch=0),
    Case((3, 2), (2, 3), (8, 6), epilogue=False),
    Case((3, 2), (2, 3), (8, 6), dtype=torch.bfloat16),
    Case((3, 2), (2, 3), (9, 7), bilinear_down=True, cross_scale=True),
]


def with_gradients(args: tuple[Any, ...]) -> list[Tensor]:
    """Every tensor of the arguments, set to require a gradient."""
    kinds = [arg if isinstance(arg, list) else [arg] for arg in args[:5]]
    return [t.requires_grad_() for kind in kinds for t in kind]


@pytest.mark.parametrize("case", CONTRACT, ids=str)
@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
def test_opcheck(case: Case, trained: bool) -> None:
    args = draw(case)
    if trained:
        with_gradients(args)
    opcheck(op, args)


@pytest.mark.parametrize("case", CONTRACT, ids=str)
def test_fakes_have_the_strides_of_real_results(case: Case) -> None:
    args = draw(case)
    wanted = [True, True, *[case.epilogue] * 3]
    ys = op(*args)
    real = [*ys, *(t for kind in op_backward(ys, *args, wanted) for t in kind)]
    with FakeTensorMode() as mode:
        fakes: Any = [
            [mode.from_tensor(t) for t in kind]
            if isinstance(kind, list)
            else mode.from_tensor(kind)
            for kind in args[:5]
        ]
        fake_ys = op(*fakes, *args[5:])
        backward = op_backward(fake_ys, *fakes, *args[5:], wanted)
        fake = [*fake_ys, *(t for kind in backward for t in kind)]
    for r, f in zip(real, fake, strict=True):
        assert (r.shape, r.dtype, r.stride()) == (f.shape, f.dtype, f.stride())


@pytest.mark.parametrize("mask", list(itertools.product([False, True], repeat=5)), ids=str)
def test_every_mask_of_wanted_kinds(mask: tuple[bool, ...]) -> None:
    args = in_dtype(draw(Case((2, 3), (3, 2), (8, 6), 3, entry_pool=True)), torch.float64)
    grads = [torch.randn(shape, dtype=torch.float64) for shape in shapes(args)]
    kinds = op_backward(grads, *args, list(mask))
    assert [bool(kind) for kind in kinds] == list(mask)
    leaves = with_gradients(args)
    truths = iter(torch.autograd.grad(reference.forward(*args), leaves, grads))
    for kind, arg in zip(kinds, args[:5], strict=True):
        expected = [next(truths) for _ in (arg if isinstance(arg, list) else [arg])]
        for g, t in zip(kind, expected, strict=False):
            torch.testing.assert_close(g, t)


def test_double_backward_is_refused() -> None:
    args = draw(Case((2,), (2,), (4, 4)))
    args[0][0].requires_grad_()
    (y,) = op(*args)
    (g,) = torch.autograd.grad(y.square().sum(), args[0][0], create_graph=True)
    with pytest.raises(NotImplementedError, match=r"goctconv2d: can be differentiated once"):
        g.sum().backward()


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_training_step(backend: str) -> None:
    torch._dynamo.reset()
    module = lmwp_ops.nn.GOctConv2d([3, 2], [2, 3], 3)
    xs = [torch.randn(1, 3, 10, 8).requires_grad_(), torch.randn(1, 2, 5, 4).requires_grad_()]

    def step(function: Any) -> list[Tensor]:
        high, low = function([x * 2 for x in xs])
        loss = high.square().mean() + low.sigmoid().mean()
        return [loss.detach(), *torch.autograd.grad(loss, [*xs, module.weight])]

    compiled = torch.compile(module, fullgraph=True, backend=backend)
    torch.testing.assert_close(step(compiled), step(module))


def test_dynamic_sizes_do_not_recompile() -> None:
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    module = lmwp_ops.nn.GOctConv2d([3, 2], [2, 3])
    compiled = torch.compile(module, fullgraph=True, backend=counter, dynamic=True)
    for height, width in ((8, 12), (16, 8), (24, 20), (12, 40)):
        xs = [torch.randn(1, 3, height, width), torch.randn(1, 2, height // 2, width // 2)]
        torch.testing.assert_close(compiled(xs), module(xs))
    assert counter.frame_count == 1
