"""What sparse_conv2d promises: gradients, layouts, opcheck, compile, autocast, errors."""

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck

import lmwp_ops
from lmwp_ops import SparseConvWeight, sparse_conv2d
from lmwp_ops._examples import convert, tensors

from ..exactness import LAYOUTS, assert_as_exact
from .cases import CASES, Args, Case, draw, draw_mask, eager

op = torch.ops.lmwp_ops.sparse_conv2d.default
op_backward = torch.ops.lmwp_ops.sparse_conv2d_backward.default
SMALL = [
    Case((2, 4, 5, 3), 6, "unstructured", density=0.5),
    Case((2, 4, 5, 4), 6, "block", block=(4, 1), density=0.5),
    Case((2, 3, 5, 4), 3, "taps", (3, 3), groups=3, padding=(1, 1), stride=(2, 1), density=0.5),
    Case((2, 4, 4, 4), 5, "channels", (3, 3), padding=(1, 1), dilation=(2, 1), density=0.6),
    Case((2, 4, 5, 4), 3, "dense", (3, 3), density=0.5),
    Case((2, 8, 4, 3), 5, "2:4"),
]
each_format = pytest.mark.parametrize("case", SMALL, ids=str)


def leaves(args: Args) -> tuple[Args, list[Tensor]]:
    """The arguments, whose floating-point tensors ask for a gradient, and those tensors."""
    asking = convert(args, lambda t: t.detach().requires_grad_(t.is_floating_point()))
    return asking, [t for t in tensors(asking) if t.requires_grad]


def wanted_kinds(args: Args) -> list[bool]:
    return [True, True, False, *(bool(kind) for kind in args[3:7])]


@pytest.mark.parametrize("case", [c for c in SMALL if c.format != "dense"], ids=str)
def test_finite_differences(case: Case) -> None:
    args, inputs = leaves(draw(case, torch.float64))

    def function(*given: Tensor) -> Tensor:
        left = iter(given)
        return op(*convert(args, lambda t: next(left) if t.requires_grad else t))

    assert torch.autograd.gradcheck(function, inputs)


@each_format
def test_opcheck(case: Case) -> None:
    args = draw(case)
    opcheck(op, leaves(args)[0])
    grad = torch.randn_like(op(*args))
    opcheck(op_backward, (grad, *args, wanted_kinds(args)))


@pytest.mark.parametrize("layout", LAYOUTS)
@each_format
def test_fakes_have_the_strides_of_real_results(case: Case, layout: str) -> None:
    args = draw(case, layout=layout)
    real_y = op(*args)
    backward = (torch.randn_like(real_y), *args, wanted_kinds(args))
    real = list(tensors([real_y, op_backward(*backward)]))
    with FakeTensorMode() as mode:
        fake_args, fake_backward = (convert(a, mode.from_tensor) for a in (args, backward))
        fake = list(tensors([op(*fake_args), op_backward(*fake_backward)]))
    for r, f in zip(real, fake, strict=True):
        assert (r.shape, r.dtype, r.stride()) == (f.shape, f.dtype, f.stride())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_are_as_exact_as_those_of_eager(case: Case, dtype: torch.dtype) -> None:
    args = draw(case, dtype)
    grad = torch.randn_like(op(*args))
    found = list(tensors(op_backward(grad, *args, wanted_kinds(args))))

    def plain(args: Args, grad: Tensor) -> list[Tensor]:
        asking, inputs = leaves(args)
        given = torch.autograd.grad(eager(asking), inputs, grad, materialize_grads=True)
        return list(given)

    wide = convert(args, lambda t: t.double() if t.is_floating_point() else t)
    truth = plain(wide, grad.double())
    assert_as_exact(found, plain(args, grad), truth, roundings=32)


@each_format
def test_every_mask_of_wanted_kinds(case: Case) -> None:
    args = draw(case)
    grad = torch.randn_like(op(*args))
    every = op_backward(grad, *args, wanted_kinds(args))
    for mask in itertools.product([False, True], repeat=6):
        wanted = [*mask[:2], False, *mask[2:]]
        found = op_backward(grad, *args, wanted)
        for kind, full, want in zip(found, every, wanted, strict=True):
            assert len(kind) == (len(full) if want else 0)
            assert all(torch.equal(a, b) for a, b in zip(kind, full, strict=False))


@each_format
def test_second_derivative_is_refused_with_a_reason(case: Case) -> None:
    args, (x, *_) = leaves(draw(case))
    (g,) = torch.autograd.grad(op(*args).pow(3).sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"sparse_conv2d: .* once only"):
        g.sum().backward()


def drawn_weight(case: Case) -> tuple[Tensor, SparseConvWeight]:
    mask = draw_mask(case)
    dense = torch.randn(mask.shape) * mask
    settings: dict[str, Any] = {"block": case.block, "groups": case.groups}
    return dense, SparseConvWeight.from_dense(dense, mask, case.format, **settings)


@each_format
def test_public_function_is_the_convolution(case: Case) -> None:
    dense, weight = drawn_weight(case)
    x, bias, scale, shift = torch.randn(case.shape), *torch.randn(3, case.out)
    slope = torch.rand(case.out)
    settings: dict[str, Any] = {
        "stride": case.stride,
        "padding": case.padding,
        "dilation": case.dilation,
    }
    y = sparse_conv2d(x, weight, bias, affine=(scale, shift), slope=slope, **settings)
    z = F.conv2d(x, dense, bias, groups=case.groups, **settings)
    expected = F.prelu(z * scale[:, None, None] + shift[:, None, None], slope)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
    with lmwp_ops.decomposed():
        again = sparse_conv2d(x, weight, bias, affine=(scale, shift), slope=slope, **settings)
    torch.testing.assert_close(again, expected, rtol=1e-4, atol=1e-4)


@each_format
def test_compiles_without_a_graph_break(case: Case) -> None:
    _, weight = drawn_weight(case)
    values = weight.values.clone().requires_grad_()
    x = torch.randn(case.shape, requires_grad=True)

    def function(x: Tensor, values: Tensor) -> Tensor:
        packed = (weight.format, weight.shape, values, weight.indices, weight.block, weight.groups)
        return sparse_conv2d(x, SparseConvWeight(*packed), padding=case.padding).relu()

    expected = function(x, values)
    torch._dynamo.reset()
    found = torch.compile(function, fullgraph=True, backend="aot_eager")(x, values)
    torch.testing.assert_close(found, expected)
    for a, b in zip(
        torch.autograd.grad(found.sum(), (x, values)),
        torch.autograd.grad(expected.sum(), (x, values)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@each_format
def test_autocast_casts_the_feature_alone(case: Case) -> None:
    _, weight = drawn_weight(case)
    x = torch.randn(case.shape)
    with torch.autocast("cpu", torch.bfloat16):
        y = sparse_conv2d(x, weight, padding=case.padding)
    assert y.dtype == torch.bfloat16
    wide = sparse_conv2d(x.bfloat16().float(), weight, padding=case.padding)
    torch.testing.assert_close(y.float(), wide, rtol=2e-2, atol=2e-2)


@each_format
def test_only_kept_values_have_a_gradient(case: Case) -> None:
    """That of the dense weight where it is kept; in the dense format zero where it is pruned."""
    mask = draw_mask(case)
    dense = torch.randn(mask.shape).requires_grad_()
    packed = SparseConvWeight.from_dense(
        dense, mask, case.format, block=case.block, groups=case.groups
    )
    packed.values.requires_grad_()
    x = torch.randn(case.shape)
    sparse_conv2d(x, packed, padding=(2, 2)).pow(2).sum().backward()
    F.conv2d(x, dense * mask, padding=(2, 2), groups=case.groups).pow(2).sum().backward()
    assert packed.values.grad is not None
    assert dense.grad is not None
    with torch.no_grad():
        packed.values.copy_(packed.values.grad)
    torch.testing.assert_close(packed.to_dense().detach(), dense.grad, rtol=1e-4, atol=1e-4)


def test_explain_says_who_convolves() -> None:
    x, w = torch.randn(1, 4, 5, 5), torch.randn(6, 4, 1, 1)
    mask = torch.rand(w.shape) < 0.5
    sparse = lmwp_ops.explain("sparse_conv2d", x, SparseConvWeight.from_dense(w, mask, "taps"))
    assert sparse.backend in ("cpp", "reference")
    dense = lmwp_ops.explain(sparse_conv2d, x, SparseConvWeight.from_dense(w, mask, "dense"))
    assert dense.backend == "reference"
    halves = torch.tensor([1, 0, 0, 1]).expand(6, 4)[:, :, None, None]
    two_of_four = SparseConvWeight.from_dense(w, halves, "2:4")
    if sparse.backend == "cpp":
        assert "dense" in dense.refusals["cpp"]
        refused = lmwp_ops.explain(sparse_conv2d, x, two_of_four).refusals["cpp"]
        assert "two of every four inputs are for torch's own kernels" in refused


W = SparseConvWeight.from_dense(torch.ones(6, 4, 3, 3), torch.ones(6, 4, 3, 3), "taps")
X = torch.ones(2, 4, 5, 5)
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "3-D": ({"x": X[0]}, r"x: expected a 4-D tensor"),
    "channels": ({"x": X[:, :3]}, r"x: expected 4 channels, as the weight has, got 3"),
    "weight": ({"weight": torch.ones(6, 4, 3, 3)}, r"weight: expected a SparseConvWeight, got Ten"),
    "small": ({"x": X[:, :, :2]}, r"x: expected a map that the kernel fits into, got 2 x 5"),
    "stride": ({"stride": 0}, r"stride: expected two ints, 1 or more, got \[0, 0\]"),
    "padding": ({"padding": (1, 2, 3)}, r"padding: expected an int or two, got \(1, 2, 3\)"),
    "negative": ({"padding": (0, -1)}, r"padding: expected two ints, 0 or more, got \[0, -1\]"),
    "dilation": ({"dilation": 0}, r"dilation: expected two ints, 1 or more"),
    "bias": ({"bias": torch.ones(4)}, r"bias: expected shape \[6\], got \[4\]"),
    "slope": ({"slope": torch.ones(6).half()}, r"slope\[0\]: expected torch.float32 like xs, got"),
    "affine": ({"affine": (torch.ones(6), torch.ones(5))}, r"affine\[0\] shift: expected shape"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("inference", [False, True], ids=["op", "inference"])
def test_errors_name_argument_expected_and_got(name: str, inference: bool) -> None:
    changes, message = BAD[name]
    with (
        torch.set_grad_enabled(not inference),
        pytest.raises(ValueError, match=r"^sparse_conv2d: " + message),
    ):
        sparse_conv2d(**{"x": X, "weight": W, **changes})
