"""Values of bn_prelu_gap, forward and backward, on every backend of this machine."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lmwp_ops
from lmwp_ops import _dispatch

from ..exactness import LAYOUTS, assert_as_exact, assert_same_for_any_threads, feature
from .cases import (
    DTYPES,
    EPS,
    Args,
    Case,
    assert_as_exact_as_eager,
    double,
    draw,
    eager,
    eager_gradients,
    flat,
    grid,
    true_gradients,
)

op = torch.ops.lmwp_ops.bn_prelu_gap.default
op_backward = torch.ops.lmwp_ops.bn_prelu_gap_backward.default


@pytest.fixture(params=("cpp", "reference"))
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if reason := _dispatch.registered()["bn_prelu_gap"][name]:
        pytest.skip(reason)
    return name


def gradients(args: Args, layout: str = "nchw") -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Random gradients of ys, and what the op makes of them."""
    _, _, mean, var = op(*args)
    grads = [feature(x.shape, x.dtype, layout) for x in args[0]]
    wanted = [True, True, True, bool(args[3])]
    return grads, flat(op_backward(grads, *args[:4], mean, var, EPS, wanted))


@pytest.mark.parametrize("case", grid(), ids=str)
def test_is_as_exact_as_eager(case: Case, backend: str) -> None:
    args = draw(case)
    with lmwp_ops.use_backend(backend):
        assert_as_exact_as_eager(op(*args), args)


@pytest.mark.parametrize("case", grid(), ids=str)
def test_gradients_are_as_exact_as_eagers(case: Case, backend: str) -> None:
    args = draw(case)
    with lmwp_ops.use_backend(backend):
        grads, found = gradients(args)
    truth = flat(true_gradients(grads, args))
    # A dslope sums products of rounded values that eager rounds to 16 bits and sums as such.
    assert_as_exact(found, eager_gradients(grads, args), truth, roundings=4)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_width_around_a_vector(dtype: torch.dtype) -> None:
    for width in (*range(1, 20), 31, 32, 33, 47, 49, 65):
        for layout in ("sliced", "channels_last"):
            args = draw(Case(((2, 2, 3, width), (2, width, 2, 2)), dtype, layout))
            assert_as_exact_as_eager(op(*args), args)
            grads, found = gradients(args)
            truth = flat(true_gradients(grads, args))
            assert_as_exact(found, eager_gradients(grads, args), truth, roundings=4)


def test_large_maps_in_several_tasks(backend: str) -> None:
    shapes = ((1, 2, 300, 224), (1, 3, 150, 1), (1, 1, 2, 40000))
    for layout in ("nchw", "channels_last"):
        args = draw(Case(shapes, layout=layout))
        with lmwp_ops.use_backend(backend):
            assert_as_exact_as_eager(op(*args), args)
            grads, found = gradients(args)
        truth = flat(true_gradients(grads, args))
        assert_as_exact(found, eager_gradients(grads, args), truth, roundings=4)


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("first", [None, 0.0, -1e6], ids=str)
def test_large_means_cancel_nothing(layout: str, first: float | None, backend: str) -> None:
    """Mean 1e4 and deviation 1, also where the first values, which the sums lean on, are far."""
    (x,), *rest = draw(Case(((4, 3, 30, 31),), layout=layout))
    x += 1e4
    if first is not None:
        x[0, :, 0, 0] = first
    with lmwp_ops.use_backend(backend):
        assert_as_exact_as_eager(op([x], *rest), ([x], *rest))


def test_float64_is_computed_in_float64() -> None:
    args = double(draw(Case(((2, 3, 9, 8),))))
    found = op(*args)
    torch.testing.assert_close([*found[0], *found[1]], eager(args), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_only_the_result_is_rounded(dtype: torch.dtype, backend: str) -> None:
    args = draw(Case(((2, 7, 15, 17),), dtype))
    with lmwp_ops.use_backend(backend):
        (y,), (means,), *_ = op(*args)
    truth, true_means = eager(double(args))
    error = (y.double() - truth).abs() / truth.abs().clamp(min=torch.finfo(dtype).tiny * 2**12)
    assert error.max() <= torch.finfo(dtype).eps
    torch.testing.assert_close(means.double(), true_means, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("grad_layout", LAYOUTS)
def test_layout_is_kept(layout: str, grad_layout: str, backend: str) -> None:
    args = draw(Case(((2, 5, 6, 7),), layout=layout))
    with lmwp_ops.use_backend(backend):
        (y,) = op(*args)[0]
        grads, (dx, *others) = gradients(args, grad_layout)
    expected = torch.channels_last if "channels_last" in layout else torch.contiguous_format
    strides = torch.empty(y.shape, memory_format=expected).stride()
    assert y.stride() == dx.stride() == strides
    truth = flat(true_gradients(grads, args))
    assert_as_exact([dx, *others], eager_gradients(grads, args), truth, roundings=4)


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_special_values_stay_in_their_channel(layout: str, value: float, backend: str) -> None:
    args = draw(Case(((2, 3, 5, 20),), layout=layout))
    args[0][0][1, 1, 4, 19] = value
    with lmwp_ops.use_backend(backend):
        (y,), (means,), (mean,), (var,) = op(*args)
        _, (dx, *parameters) = gradients(args)
    assert y[:, 1].isnan().all()
    assert dx[:, 1].isnan().all()
    assert means[:, 1].isnan().all()
    dweight, _, dslope = parameters
    assert not any(found[1].isfinite() for found in (mean, var, dweight, dslope))
    for found in (y, dx, means):
        assert found[:, ::2].isfinite().all()
    for found in (mean, var, *parameters):
        assert found[::2].isfinite().all()


def test_empty_batch(backend: str) -> None:
    args = draw(Case(((0, 3, 5, 6), (0, 2, 3, 3))))
    with lmwp_ops.use_backend(backend):
        ys, means, mean, var = op(*args)
        _, found = gradients(args)
    assert [y.shape for y in ys] == [(0, 3, 5, 6), (0, 2, 3, 3)]
    assert [m.shape for m in means] == [(0, 3), (0, 2)]
    assert not any(t.any() for t in (*mean, *var, *found))


def test_branches_are_independent(backend: str) -> None:
    args = draw(Case(((2, 3, 9, 8), (2, 7, 20, 33), (2, 1, 1, 1))))
    with lmwp_ops.use_backend(backend):
        together = op(*args)
        for b in range(3):
            alone = op(*([kind[b]] for kind in args[:4]), EPS)
            assert all(torch.equal(a[0], t[b]) for a, t in zip(alone, together, strict=True))


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_results_do_not_depend_on_threads(layout: str) -> None:
    args = draw(Case(((2, 3, 100, 104), (2, 9, 30, 31)), layout=layout))
    assert_same_for_any_threads(lambda: flat(op(*args)))
    torch.manual_seed(1)
    grads = [torch.randn_like(x) for x in args[0]]
    _, _, mean, var = op(*args)
    assert_same_for_any_threads(
        lambda: flat(op_backward(grads, *args[:4], mean, var, EPS, [True] * 4))
    )


def test_denormals_are_flushed_inside_only() -> None:
    tiny = torch.full((1, 1, 4, 40), 1e-40)
    one = torch.ones(1)
    lmwp_ops.bn_prelu_gap(tiny, one, one, one)
    assert (tiny * 1).ne(0).all()


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(2, 4), *(st.integers(1, n) for n in (40, 9, 70))),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(LAYOUTS),
    prelu=st.booleans(),
)
def test_any_arguments(
    shape: tuple[int, int, int, int], dtype: torch.dtype, layout: str, prelu: bool
) -> None:
    args = draw(Case((shape,), dtype, layout, prelu))
    found = op(*args)
    assert_as_exact_as_eager(found, args)
    # Whatever the parameters, the normalised features have mean 0 and deviation 1 at most.
    (plain,), *_ = op(args[0], [torch.ones(shape[1])], [torch.zeros(shape[1])], [], EPS)
    assert plain.double().mean((0, 2, 3)).abs().max() < 16 * torch.finfo(dtype).eps
    assert plain.double().var((0, 2, 3), correction=0).max() < 1 + 16 * torch.finfo(dtype).eps
