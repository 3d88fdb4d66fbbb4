"""Values, shapes and layouts of the forward pass, on every backend of this machine."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lmwp_ops
from lmwp_ops import _dispatch

from .cases import (
    DTYPES,
    KERNELS,
    LAYOUTS,
    Case,
    assert_as_exact_as_eager,
    call,
    double,
    draw,
    eager,
    grid,
)

BACKENDS = ("cpp", "reference")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if reason := _dispatch.registered()["depthwise_scales"][name]:
        pytest.skip(reason)
    return name


@pytest.mark.parametrize("case", grid(), ids=str)
def test_is_as_exact_as_eager(case: Case, backend: str) -> None:
    args = draw(case)
    with lmwp_ops.use_backend(backend):
        assert_as_exact_as_eager(call(args), args)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_width_around_a_vector(kernel: int, stride: int, dtype: torch.dtype) -> None:
    for width in (*range(1, 20), 31, 32, 33, 47, 48, 49, 63, 64, 65):
        args = draw(Case(((1, 2, 6, width),), kernel, stride, dtype=dtype))
        assert_as_exact_as_eager(call(args), args)


def test_large_map_in_several_tasks(backend: str) -> None:
    args = draw(Case(((1, 2, 300, 224), (1, 3, 150, 1), (1, 1, 2, 40000)), dilation=3))
    with lmwp_ops.use_backend(backend):
        assert_as_exact_as_eager(call(args), args)


def test_float64_is_computed_in_float64() -> None:
    args = double(draw(Case(((2, 3, 9, 8),), kernel=5)))
    torch.testing.assert_close(call(args), eager(args), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_parameters_may_stay_float32(dtype: torch.dtype, backend: str) -> None:
    args = draw(Case(((2, 7, 15, 17),), dtype=dtype), parameter_dtype=torch.float32)
    wide = double(args)
    with lmwp_ops.use_backend(backend):
        (y,) = call(args)
    assert y.dtype == dtype
    # Only the result is rounded, neither the parameters nor a step between.
    (truth,) = eager(wide)
    error = (y.double() - truth).abs() / truth.abs().clamp(min=torch.finfo(dtype).tiny * 2**12)
    assert error.max() <= torch.finfo(dtype).eps


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_special_values_reach_their_neighbours_only(value: float, backend: str) -> None:
    x = torch.zeros(1, 1, 9, 20)
    x[0, 0, 4, 15] = value
    with lmwp_ops.use_backend(backend):
        (y,) = lmwp_ops.depthwise_scales([x], [torch.ones(1, 1, 3, 3)])
    touched = torch.zeros_like(x, dtype=torch.bool)
    touched[0, 0, 3:6, 14:17] = True
    assert torch.equal(~y.isfinite(), touched)
    assert (y[~touched] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_16_bit_value_passes_unchanged(dtype: torch.dtype, backend: str) -> None:
    """A 1 x 1 weight of one copies all finite values, float16's subnormals included."""
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    x = bits.view(dtype).reshape(1, 1, 256, 256)
    if dtype == torch.bfloat16:  # its subnormals are float32's and are flushed
        x = torch.where(x.abs() < torch.finfo(dtype).tiny, 0, x)
    with lmwp_ops.use_backend(backend):
        (y,) = lmwp_ops.depthwise_scales([x], [torch.ones(1, 1, 1, 1)])
    assert torch.equal(y.isnan(), x.isnan())
    assert torch.equal(y[~y.isnan()], x[~x.isnan()])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_results_round_to_nearest_even(dtype: torch.dtype, backend: str) -> None:
    x = torch.randn(1, 1, 128, 129).to(dtype)
    weight = torch.tensor([[[[1.0 / 3]]]])
    with lmwp_ops.use_backend(backend):
        (y,) = lmwp_ops.depthwise_scales([x], [weight])
    assert torch.equal(y, (x.float() * weight.float()).to(dtype))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("stride", [1, 2])
def test_layout_is_kept(layout: str, stride: int, backend: str) -> None:
    args = draw(Case(((2, 5, 6, 7),), stride=stride, layout=layout))
    with lmwp_ops.use_backend(backend):
        (y,) = call(args)
    channels_last = "channels_last" in layout
    expected = torch.channels_last if channels_last else torch.contiguous_format
    assert y.stride() == torch.empty(y.shape, memory_format=expected).stride()


def test_empty_batch(backend: str) -> None:
    args = draw(Case(((0, 3, 5, 6), (0, 2, 3, 3)), stride=2))
    with lmwp_ops.use_backend(backend):
        assert [y.shape for y in call(args)] == [(0, 3, 3, 3), (0, 2, 2, 2)]


def test_branches_are_independent(backend: str) -> None:
    args = draw(Case(((1, 3, 9, 8), (1, 7, 20, 33), (1, 1, 1, 1))))
    with lmwp_ops.use_backend(backend):
        together = call(args)
        for b, y in enumerate(together):
            alone = call((*([kind[b]] for kind in args[:5]), 1, 1))
            assert torch.equal(alone[0], y)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*(st.integers(1, n) for n in (2, 4, 40, 70))),
    kernel=st.sampled_from(KERNELS),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 90),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(LAYOUTS),
    epilogue=st.booleans(),
)
def test_any_arguments(
    shape: tuple[int, int, int, int],
    kernel: int,
    stride: int,
    dilation: int,
    dtype: torch.dtype,
    layout: str,
    epilogue: bool,
) -> None:
    args = draw(Case((shape,), kernel, stride, dilation, dtype, layout, epilogue))
    assert_as_exact_as_eager(call(args), args)


@settings(max_examples=20, deadline=None)
@given(height=st.integers(4, 20), width=st.integers(4, 40), dilation=st.integers(1, 5))
def test_commutes_with_a_mirrored_map(height: int, width: int, dilation: int) -> None:
    args = draw(Case(((1, 2, height, width),), dilation=dilation))
    flipped = ([args[0][0].flip(2, 3)], [args[1][0].flip(2, 3)], *args[2:])
    torch.testing.assert_close(call(flipped)[0].flip(2, 3), call(args)[0])
