"""What every op promises: opcheck, strides, errors, gradients, compile, autocast; its module."""

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck

import lmwp_ops
from lmwp_ops.nn import BatchNormPReLU2d, norm_prelu_in_training

from .cases import EPS, Case, assert_as_exact_as_eager, double, draw, eager, flat

op = torch.ops.lmwp_ops.bn_prelu_gap.default
op_backward = torch.ops.lmwp_ops.bn_prelu_gap_backward.default

CASES = [
    Case(((2, 3, 7, 6), (2, 5, 4, 3))),
    Case(((2, 3, 7, 6), (2, 5, 4, 3)), layout="channels_last"),
    Case(((2, 3, 7, 6),), layout="sliced"),
    Case(((2, 3, 7, 6),), layout="sliced_channels_last"),
    Case(((2, 3, 7, 6),), layout="expanded"),
    Case(((2, 1, 5, 4),), layout="channels_last"),
    Case(((2, 4, 1, 1),), layout="channels_last"),
    Case(((0, 3, 5, 4),)),
    Case(((1, 3, 5, 4),), prelu=False),
    Case(((1, 3, 5, 4),), torch.bfloat16),
]


def backward_args(case: Case) -> tuple[Any, ...]:
    args = draw(case)
    ys, _, mean, var = op(*args)
    return ys, *args[:4], mean, var, EPS, [True, True, True, case.prelu]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("requires_grad", [False, True], ids=["frozen", "trained"])
def test_opcheck(case: Case, requires_grad: bool) -> None:
    args = draw(case)
    for t in flat(args[:4]):
        t.requires_grad_(requires_grad)
    opcheck(op, args)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_opcheck_of_backward(case: Case) -> None:
    opcheck(op_backward, backward_args(case))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_fakes_have_the_strides_of_real_results(case: Case) -> None:
    args = backward_args(case)
    real = [*flat(op(*args[1:5], EPS)), *flat(op_backward(*args))]
    with FakeTensorMode() as mode:
        kinds: Any = [[mode.from_tensor(t) for t in kind] for kind in args[:7]]
        fake = [*flat(op(*kinds[1:5], EPS)), *flat(op_backward(*kinds, *args[7:]))]
    for r, f in zip(real, fake, strict=True):
        assert (r.shape, r.dtype, r.stride()) == (f.shape, f.dtype, f.stride())


@pytest.mark.parametrize("prelu", [True, False])
def test_finite_differences(prelu: bool) -> None:
    args = double(draw(Case(((2, 2, 3, 2), (2, 1, 2, 2)), prelu=prelu)))
    lengths = [len(kind) for kind in args[:4]]

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        left = iter(tensors)
        return tuple(op(*([next(left) for _ in range(n)] for n in lengths), EPS)[0])

    inputs = tuple(t.requires_grad_() for t in flat(args[:4]))
    assert torch.autograd.gradcheck(function, inputs, check_undefined_grad=False)


@pytest.mark.parametrize("mask", list(itertools.product([False, True], repeat=4)), ids=str)
def test_every_mask_of_wanted_kinds(mask: tuple[bool, ...]) -> None:
    args = draw(Case(((2, 3, 5, 6), (2, 2, 4, 3))))
    every = op_backward(*_with_grads(args), EPS, [True] * 4)
    found = op_backward(*_with_grads(args), EPS, list(mask))
    for kind, full, want in zip(found, every, mask, strict=True):
        assert len(kind) == (2 if want else 0)
        assert all(torch.equal(a, b) for a, b in zip(kind, full, strict=False))
    wanted = [t for kind, want in zip(args, mask, strict=False) if want for t in kind]
    if wanted:
        for t in wanted:
            t.requires_grad_()
        outputs = sum(y.square().sum() for y in op(*args)[0])
        plain = sum(y.square().sum() for y in eager(args)[:2])
        torch.testing.assert_close(
            torch.autograd.grad(outputs, wanted),
            torch.autograd.grad(plain, wanted),
            rtol=1e-4,
            atol=1e-4,
        )


def _with_grads(args: Any) -> tuple[Any, ...]:
    torch.manual_seed(1)
    _, _, mean, var = op(*args)
    return [torch.randn_like(x) for x in args[0]], *args[:4], mean, var


def test_statistics_and_means_have_no_gradient() -> None:
    args = draw(Case(((2, 3, 5, 6),)))
    for t in flat(args[:4]):
        t.requires_grad_()
    for decompose in (False, True):
        with lmwp_ops.decomposed() if decompose else lmwp_ops.use_backend("auto"):
            outputs = lmwp_ops.bn_prelu_gap(*args[:4])
        (y,), *others = outputs
        assert y.requires_grad
        assert not any(t.requires_grad for t in flat(tuple(others)))


def test_second_derivative_is_refused_with_a_reason() -> None:
    (x,), (w,), (b,), (s,), _ = draw(Case(((2, 2, 5, 4),)))
    x.requires_grad_()
    y, *_ = lmwp_ops.bn_prelu_gap(x, w, b, s)
    (g,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"bn_prelu_gap: .* once only"):
        g.sum().backward()


def test_gradients_have_the_dtype_of_their_tensors() -> None:
    args = draw(Case(((2, 3, 5, 6),), torch.bfloat16))
    for dtype in (torch.float32, torch.bfloat16):
        leaves = [args[0][0], *(kind[0].to(dtype) for kind in args[1:4])]
        leaves = [t.detach().requires_grad_() for t in leaves]
        y, means, *_ = lmwp_ops.bn_prelu_gap(*leaves)
        found = torch.autograd.grad(y.float().sum(), leaves)
        assert [g.dtype for g in found] == [torch.bfloat16, dtype, dtype, dtype]
        assert means.dtype == torch.float32


def test_autocast_casts_features_and_not_parameters() -> None:
    (x,), (w,), (b,), (s,), _ = draw(Case(((2, 3, 9, 8),)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, means, *_ = lmwp_ops.bn_prelu_gap(x, w, b, s)
    expected, expected_means, *_ = lmwp_ops.bn_prelu_gap(x.bfloat16(), w, b, s)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, expected)
    assert torch.equal(means, expected_means)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "one value": ({"x": torch.ones(1, 3, 1, 1)}, r"xs\[0\]: expected more than one value per"),
    "no pixels": ({"x": torch.ones(2, 3, 0, 5)}, r"xs\[0\]: expected at least one channel"),
    "3-D": ({"x": torch.ones(3, 5, 5)}, r"xs\[0\]: expected a 4-D tensor"),
    "integers": ({"x": torch.ones(2, 3, 5, 5).int()}, r"xs\[0\]: expected a floating-point dtype"),
    "weight": ({"weight": torch.ones(4)}, r"weight\[0\]: expected shape \[3\], got \[4\]"),
    "bias": ({"bias": torch.ones(3, 1)}, r"bias\[0\]: expected shape \[3\], got \[3, 1\]"),
    "slope": ({"slope": torch.ones(1)}, r"slope\[0\]: expected shape \[3\], got \[1\]"),
    "narrow": ({"weight": torch.ones(3).half()}, r"weight\[0\]: expected torch.float32 like xs"),
    "branches": (
        {"x": [torch.ones(2, 3, 5, 5)] * 2},
        r"weight: expected 2 tensors, one per branch, got 1",
    ),
    "eps": ({"eps": 0.0}, r"eps: expected a positive number, got 0.0"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("inference", [False, True], ids=["op", "inference"])
def test_errors_name_argument_expected_and_got(name: str, inference: bool) -> None:
    changes, message = BAD[name]
    one = torch.ones(3)
    arguments = {"x": torch.ones(2, 3, 5, 5), "weight": one, "bias": one, "slope": one, **changes}
    with (
        torch.set_grad_enabled(not inference),
        pytest.raises(ValueError, match="bn_prelu_gap: " + message),
    ):
        lmwp_ops.bn_prelu_gap(**arguments)


def test_backward_checks_its_gradients() -> None:
    grads, *rest = backward_args(Case(((2, 2, 5, 4),)))
    with pytest.raises(ValueError, match=r"grads\[0\]: expected shape \[2, 2, 5, 4\], got"):
        op_backward([grads[0][:, :, 1:]], *rest)
    with pytest.raises(ValueError, match=r"grads: expected 1 tensors"):
        op_backward([], *rest)


@pytest.mark.parametrize("momentum", [0.1, 1.0, None])
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_module_is_batch_norm_and_prelu(momentum: float | None, layout: str) -> None:
    norm, prelu = nn.BatchNorm2d(5, momentum=momentum), nn.PReLU(5)
    module = BatchNormPReLU2d(5, momentum=momentum)
    assert list(module.state_dict()) == [
        *list(norm.state_dict())[:2],
        "slope",
        *list(norm.state_dict())[2:],
    ]
    for _ in range(3):
        x = draw(Case(((4, 5, 9, 8),), layout=layout))[0][0] * 3 + 2
        torch.testing.assert_close(module(x), prelu(norm(x)), rtol=1e-5, atol=1e-5)
        for name, buffer in norm.named_buffers():
            torch.testing.assert_close(module.get_buffer(name), buffer, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(module.channel_means, prelu(norm(x)).mean((2, 3)))
    before = copy.deepcopy(module.state_dict())
    module.eval()
    norm.load_state_dict({k: v for k, v in before.items() if k != "slope"})
    torch.testing.assert_close(module(x), prelu(norm.eval()(x)))
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_empty_batch_leaves_the_running_statistics() -> None:
    module = BatchNormPReLU2d(3)
    assert module(torch.ones(0, 3, 4, 5)).shape == (0, 3, 4, 5)
    assert torch.equal(module.running_mean, torch.zeros(3))
    assert torch.equal(module.running_var, torch.ones(3))


def test_norms_of_other_eps_are_refused() -> None:
    norms = [nn.BatchNorm2d(3), nn.BatchNorm2d(3, eps=1e-3)]
    xs, slopes = [torch.randn(2, 3, 4, 4)] * 2, [torch.ones(3)] * 2
    with pytest.raises(ValueError, match="one eps"):
        norm_prelu_in_training(xs, norms, slopes)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_step_is_one_graph_with_the_eager_values(backend: str) -> None:
    torch._dynamo.reset()
    module, x = BatchNormPReLU2d(3), torch.randn(2, 3, 9, 8, requires_grad=True)
    other = copy.deepcopy(module)
    compiled = torch.compile(module, fullgraph=True, backend=backend)

    def step(function: Any, owner: nn.Module) -> list[Tensor]:
        loss = (function(x * 2).sigmoid() * 3).sum()
        return list(torch.autograd.grad(loss, [x, *owner.parameters()]))

    torch.testing.assert_close(step(compiled, module), step(other, other))
    torch.testing.assert_close(module.channel_means, other.channel_means)
    torch.testing.assert_close(module.state_dict(), other.state_dict())


def test_sizes_do_not_recompile() -> None:
    torch._dynamo.reset()

    def function(x: Tensor, w: Tensor) -> Tensor:
        y, means, *_ = lmwp_ops.bn_prelu_gap(x + 1, w, w, w)
        return y.sum() + means.sum()

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    w = torch.rand(3, requires_grad=True)
    compiled(torch.randn(2, 3, 12, 14), w).backward()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for height, width in ((16, 10), (9, 33)):
            x = torch.randn(2, 3, height, width)
            torch.testing.assert_close(compiled(x, w), function(x, w))


def test_one_tensor_or_one_per_branch() -> None:
    args = draw(Case(((2, 3, 5, 6), (2, 2, 3, 3))))
    together = lmwp_ops.bn_prelu_gap(*args[:4])
    assert_as_exact_as_eager(together, args)
    alone = lmwp_ops.bn_prelu_gap(*(kind[1] for kind in args[:4]))
    assert all(torch.equal(a, t[1]) for a, t in zip(alone, together, strict=True))
    assert lmwp_ops.explain("bn_prelu_gap", *(kind[1] for kind in args[:4])).backend
