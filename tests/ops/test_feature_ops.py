"""What every op on one feature promises: values, gradients, layouts, opcheck, compile, autocast."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck

import lmwp_ops
from lmwp_ops._examples import convert, tensors

from .exactness import LAYOUTS
from .feature_ops import (
    FEATURE_OPS,
    FeatureOp,
    assert_forward_is_exact,
    assert_gradients_are_exact,
    double,
    leaves,
)

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
SHAPES = (
    *((2, 3, 7, 7), (1, 1, 14, 14), (3, 10, 15, 17), (2, 7, 1, 13), (2, 33, 9, 1)),
    *((2, 20, 28, 28), (1, 8, 3, 40)),
)
GRID = [(SHAPES[i % 7], DTYPES[(i + i // 3) % 3], LAYOUTS[(i + i // 6) % 6]) for i in range(30)]
CHECKED = [
    *(((2, 3, 7, 6), layout) for layout in ("nchw", "channels_last", "sliced", "expanded")),
    *(((2, 1, 5, 4), "channels_last"), ((0, 3, 5, 4), "nchw")),
]
each_op = pytest.mark.parametrize("which", FEATURE_OPS, ids=str)


@each_op
@pytest.mark.parametrize(("shape", "dtype", "layout"), GRID, ids=str)
def test_as_exact_as_eager(
    which: FeatureOp, shape: tuple[int, ...], dtype: torch.dtype, layout: str
) -> None:
    args = which.draw(shape, dtype, layout)
    assert_forward_is_exact(which, args)
    assert_gradients_are_exact(which, args)


@each_op
def test_float64_is_computed_in_float64(which: FeatureOp) -> None:
    args = which.draw((2, 4, 9, 11), torch.float64)
    torch.testing.assert_close(which.forward(*args), which.eager(*args), rtol=1e-12, atol=1e-12)


@each_op
def test_finite_differences(which: FeatureOp) -> None:
    args = leaves(which.draw((2, 2, 5, 3), torch.float64))
    inputs = list(tensors(args))

    def function(*given: torch.Tensor) -> torch.Tensor:
        left = iter(given)
        return which.forward(*convert(args, lambda _: next(left)))

    assert torch.autograd.gradcheck(function, inputs)


@each_op
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_is_kept_whatever_that_of_the_gradient(which: FeatureOp, layout: str) -> None:
    args = which.draw((2, 5, 6, 7), torch.float32, layout)
    expected = torch.channels_last if "channels_last" in layout else torch.contiguous_format
    strides = torch.empty(2, 5, 6, 7).contiguous(memory_format=expected).stride()
    assert which.forward(*args).stride() == strides
    wanted = [True] * which.kinds
    grad = torch.randn(2, 5, 6, 7)
    found = which.op_backward(*which.backward_args(grad, args, wanted))
    assert found[0][0].stride() == strides
    other = grad.transpose(2, 3).contiguous().transpose(2, 3)
    again = which.op_backward(*which.backward_args(other, args, wanted))
    torch.testing.assert_close(list(tensors(found)), list(tensors(again)))


@each_op
@pytest.mark.parametrize(("shape", "layout"), CHECKED, ids=str)
def test_opcheck(which: FeatureOp, shape: tuple[int, ...], layout: str) -> None:
    args = which.draw(shape, torch.float32, layout)
    opcheck(which.op, leaves(args) if layout == "nchw" else args)
    wanted = [True] * which.kinds
    opcheck(which.op_backward, which.backward_args(torch.randn(shape), args, wanted))


@each_op
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_fakes_have_the_strides_of_real_results(
    which: FeatureOp, dtype: torch.dtype, layout: str
) -> None:
    args = which.draw((2, 3, 7, 6), dtype, layout)
    grad = torch.randn(2, 3, 7, 6).to(dtype)
    backward = which.backward_args(grad, args, [True] * which.kinds)
    real = list(tensors([which.op(*args), which.op_backward(*backward)]))
    with FakeTensorMode() as mode:
        fake_args, fake_backward = (convert(a, mode.from_tensor) for a in (args, backward))
        fake = list(tensors([which.op(*fake_args), which.op_backward(*fake_backward)]))
    for r, f in zip(real, fake, strict=True):
        assert (r.shape, r.dtype, r.stride()) == (f.shape, f.dtype, f.stride())


@each_op
def test_every_mask_of_wanted_kinds(which: FeatureOp) -> None:
    args, grad = which.draw((2, 3, 7, 6), torch.float32), torch.randn(2, 3, 7, 6)
    every = which.op_backward(*which.backward_args(grad, args, [True] * which.kinds))
    for mask in itertools.product([False, True], repeat=which.kinds):
        found = which.op_backward(*which.backward_args(grad, args, list(mask)))
        for kind, full, want in zip(found, every, mask, strict=True):
            assert len(kind) == (len(full) if want else 0)
            assert all(torch.equal(a, b) for a, b in zip(kind, full, strict=False))


@each_op
def test_second_derivative_is_refused_with_a_reason(which: FeatureOp) -> None:
    args = leaves(which.draw((2, 2, 5, 4), torch.float32))
    (g,) = torch.autograd.grad(which.public(*args).pow(3).sum(), args[0], create_graph=True)
    with pytest.raises(NotImplementedError, match=rf"{which.name}: .* once only"):
        g.sum().backward()


@each_op
@pytest.mark.parametrize("parameters", [torch.float32, torch.bfloat16], ids=str)
def test_gradients_have_the_dtype_of_their_tensors(
    which: FeatureOp, parameters: torch.dtype
) -> None:
    args = which.draw((2, 3, 7, 6), torch.bfloat16)
    args = (args[0], *convert(args[1:], lambda t: t.to(parameters)))
    if "mix" in which.name:
        args = (*args[:2], args[2].float(), *args[3:])
    args = leaves(args)
    given = list(tensors(args))
    found = torch.autograd.grad(which.public(*args).float().sum(), given)
    assert [g.dtype for g in found] == [t.dtype for t in given]


@each_op
def test_autocast_casts_the_feature_and_no_parameter(which: FeatureOp) -> None:
    args = leaves(which.draw((2, 3, 9, 8), torch.float32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = which.public(*args)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, which.public(args[0].bfloat16(), *args[1:]))
    (g,) = torch.autograd.grad(y.float().sum(), args[0])
    assert g.dtype == torch.float32


@each_op
def test_empty_batch(which: FeatureOp) -> None:
    args = leaves(which.draw((0, 3, 5, 6), torch.float32))
    y = which.public(*args)
    assert y.shape == (0, 3, 5, 6)
    assert not any(g.any() for g in torch.autograd.grad(y.sum(), list(tensors(args))))


@each_op
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_step_is_one_graph_with_the_eager_values(which: FeatureOp, backend: str) -> None:
    torch._dynamo.reset()
    args = leaves(which.draw((2, 3, 9, 8), torch.float32))

    def function(*args: object) -> torch.Tensor:
        return (which.public(args[0] * 2, *args[1:]).sigmoid() * 3).sum()

    compiled = torch.compile(function, fullgraph=True, backend=backend)
    steps = [torch.autograd.grad(f(*args), list(tensors(args))) for f in (function, compiled)]
    # Little is left of the gradient of a weight before a batch norm over four values.
    torch.testing.assert_close(*steps, rtol=1e-4, atol=1e-4)


@each_op
def test_sizes_do_not_recompile(which: FeatureOp) -> None:
    torch._dynamo.reset()
    function = torch.compile(
        lambda *args: which.public(args[0] + 1, *args[1:]).sum(),
        fullgraph=True,
        dynamic=True,
        backend="aot_eager",
    )
    parameters = leaves(which.draw((2, 3, 12, 14), torch.float32)[1:])
    function(torch.randn(2, 3, 12, 14), *parameters).backward()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for height, width in ((16, 10), (9, 33)):
            x = torch.randn(2, 3, height, width)
            expected = which.public(x + 1, *parameters).sum()
            torch.testing.assert_close(function(x, *parameters), expected)


@each_op
def test_decomposed_is_plain_torch_with_its_own_gradients(which: FeatureOp) -> None:
    args = leaves(which.draw((2, 3, 7, 6), torch.float64))
    if "mix" in which.name:  # decomposed, what is skipped has no gradient of its mix
        args = (*args[:2], torch.rand_like(args[2]).requires_grad_(), *args[3:])
    with lmwp_ops.decomposed():
        apart = which.public(*args)
    whole, given = which.public(*args), list(tensors(args))
    torch.testing.assert_close(apart, whole)
    gradients = [torch.autograd.grad(y.square().sum(), given) for y in (apart, whole)]
    torch.testing.assert_close(*gradients)


@each_op
def test_backward_checks_its_gradient(which: FeatureOp) -> None:
    args, wanted = which.draw((2, 3, 7, 6), torch.float32), [True] * which.kinds
    with pytest.raises(ValueError, match=rf"{which.name}: grad: expected shape \[2, 3, 7, 6\]"):
        which.op_backward(*which.backward_args(torch.ones(2, 3, 7, 5), args, wanted))
    with pytest.raises(ValueError, match=rf"{which.name}: grad: expected torch.float32 on cpu"):
        which.op_backward(*which.backward_args(torch.ones(2, 3, 7, 6).half(), args, wanted))


@each_op
@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(2, 3), *(st.integers(1, n) for n in (12, 19, 21))),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(LAYOUTS),
)
def test_any_shape(
    which: FeatureOp, shape: tuple[int, ...], dtype: torch.dtype, layout: str
) -> None:
    args = which.draw(shape, dtype, layout)
    y = which.forward(*args)
    truth = which.eager(*double(args))
    floor = 16 * torch.finfo(dtype).eps * truth.abs().max().clamp(min=1)
    assert (y.double() - truth).abs().max() <= floor
    # Images of a batch are independent but for batch norms.
    if which.name != "multiscale_norm_mix":
        alone = [
            which.forward(args[0][:1], *args[1:])
            if "mix" not in which.name
            else which.forward(args[0][:1], args[1], args[2][:1], *args[3:])
        ]
        torch.testing.assert_close(y[:1], alone[0])
