"""What is particular to the two multi-scale mixes: what they skip, refuse, count; their module."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lmwp_ops
from lmwp_ops._examples import tensors
from lmwp_ops.nn import MultiscaleMix

from .cases import BRANCHES, EPS, OCTAVES, draw, draw_norm, eager

op = torch.ops.lmwp_ops.multiscale_mix.default
op_backward = torch.ops.lmwp_ops.multiscale_mix_backward.default
norm_op = torch.ops.lmwp_ops.multiscale_norm_mix.default


def pixel_by_pixel(u: Tensor, weight: Tensor, octave: int, dilation: int) -> Tensor:
    """A branch without its affine, for one channel [H, W], from the definition."""
    window = 2**octave
    rows, columns = (-(-side // window) for side in u.shape)
    pooled = torch.empty(rows, columns, dtype=u.dtype)
    for i in range(rows):
        for j in range(columns):
            part = u[i * window : (i + 1) * window, j * window : (j + 1) * window]
            pooled[i, j] = part.sum() / part.numel()
    z = torch.zeros_like(pooled)
    for i in range(rows):
        for j in range(columns):
            for a in range(3):
                for b in range(3):
                    y, x = i + (a - 1) * dilation, j + (b - 1) * dilation
                    if 0 <= y < rows and 0 <= x < columns:
                        z[i, j] += weight[a, b] * pooled[y, x]
    out = torch.empty_like(u)
    for i in range(u.shape[0]):
        for j in range(u.shape[1]):
            y = max((i + 0.5) * rows / u.shape[0] - 0.5, 0)
            x = max((j + 0.5) * columns / u.shape[1] - 0.5, 0)
            top, left = int(y), int(x)
            down, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            upper = z[top, left] * (left + 1 - x) + z[top, right] * (x - left)
            lower = z[down, left] * (left + 1 - x) + z[down, right] * (x - left)
            out[i, j] = upper * (top + 1 - y) + lower * (y - top)
    return out


@pytest.mark.parametrize("size", [(5, 6), (1, 3), (9, 4)], ids=str)
@pytest.mark.parametrize("branch", [(0, 1), (0, 2), (1, 1), (2, 1), (3, 2)], ids=str)
def test_a_branch_is_its_definition(size: tuple[int, int], branch: tuple[int, int]) -> None:
    u = torch.randn(1, 1, *size, dtype=torch.float64)
    weights = torch.randn(1, 1, 3, 3, dtype=torch.float64)
    scale, shift = torch.randn(2, 1, 1, dtype=torch.float64).unbind()
    mix = torch.full((1, 1, 1), 0.75, dtype=torch.float64)
    out = lmwp_ops.multiscale_mix(u, weights, mix, [branch], (scale, shift))
    expected = 0.75 * (scale * pixel_by_pixel(u[0, 0], weights[0, 0], *branch) + shift)
    torch.testing.assert_close(out[0, 0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("place", ["weights", "scale", "shift"])
def test_what_is_skipped_does_not_spread(place: str, value: float) -> None:
    """Branch 2 of channel 1 is broken, and left out of the second image only."""
    u, weights, mix, scale, shift, *settings = draw((2, 3, 7, 6), torch.float32)
    mix = torch.rand_like(mix) + 0.1
    mix[1, 2, 1] = 0
    broken = {"weights": weights, "scale": scale, "shift": shift}[place]
    expected = eager(u, weights, mix, scale, shift, *settings)
    broken[2, 1] = value
    args = (u, weights, mix, scale, shift, *settings)
    for decompose in (False, True):
        with lmwp_ops.decomposed() if decompose else lmwp_ops.use_backend("auto"):
            out = lmwp_ops.multiscale_mix(u, weights, mix, BRANCHES, (scale, shift))
        assert not out[0, 1].isfinite().any()
        others = torch.ones(2, 3, dtype=torch.bool)
        others[0, 1] = False
        torch.testing.assert_close(out[others], expected[others])
    (du,), (dweights,), _, (dscale,), (dshift,) = op_backward(
        torch.randn_like(u), *args, [True] * 5
    )
    assert du[others].isfinite().all()
    assert dshift.isfinite().all()
    rest = torch.ones(len(BRANCHES), 3, dtype=torch.bool)
    rest[2, 1] = False
    assert dscale[rest].isfinite().all()
    assert dweights[rest].isfinite().all()


def test_a_feature_that_is_skipped_does_not_spread() -> None:
    u, weights, mix, scale, shift, *settings = draw((2, 3, 7, 6), torch.float32)
    u[1, 1] = torch.nan
    mix[1, :, 1] = 0
    out = op(u, weights, mix, scale, shift, *settings)
    assert out.isfinite().all()
    assert not out[1, 1].any()
    grad = torch.randn_like(u)
    (du,), *parameters = op_backward(
        grad, u, weights, mix, scale, shift, *settings, [True, True, False, True, True]
    )
    assert all(t.isfinite().all() for t in tensors([du, parameters]))
    assert not du[1, 1].any()


def test_mix_has_its_gradient_where_it_is_zero() -> None:
    args = draw((1, 2, 6, 5), torch.float64)
    mix = args[2].zero_().requires_grad_()
    out = op(*args)
    assert not out.any()
    (found,) = torch.autograd.grad(out.sum(), mix)
    ones = torch.autograd.grad(eager(*args).sum(), mix)
    torch.testing.assert_close(found, *ones)
    assert found.ne(0).all()


def test_training_is_the_mix_with_its_own_statistics() -> None:
    u, weights, mix, gamma, beta, *_ = draw_norm((3, 4, 13, 10), torch.float64)
    out, means, mean, var = lmwp_ops.multiscale_norm_mix(u, weights, mix, gamma, beta, BRANCHES)
    scale = gamma / (var + EPS).sqrt()
    affine = (scale, beta - mean * scale)
    torch.testing.assert_close(out, lmwp_ops.multiscale_mix(u, weights, mix, BRANCHES, affine))
    for k, (octave, dilation) in enumerate(BRANCHES):
        pooled = nn.functional.avg_pool2d(u, 2**octave, ceil_mode=True)
        z = nn.functional.conv2d(
            pooled, weights[k][:, None], padding=dilation, dilation=dilation, groups=4
        )
        torch.testing.assert_close(mean[k], z.mean((0, 2, 3)))
        torch.testing.assert_close(var[k], z.var((0, 2, 3), correction=0))
        normal = z * affine[0][k][:, None, None] + affine[1][k][:, None, None]
        torch.testing.assert_close(means[:, k], normal.mean((2, 3)))


def test_statistics_are_those_of_torch_whatever_the_mean() -> None:
    u, *rest = draw_norm((4, 3, 20, 21), torch.float32)
    _, _, mean, var = norm_op(u + 1e3, *rest)
    _, _, true_mean, true_var = norm_op(
        u.double() + 1e3, *(t.double() for t in rest[:4]), *rest[4:]
    )
    # The features themselves have seven digits.
    torch.testing.assert_close(mean.double(), true_mean, rtol=1e-6, atol=1e-3)
    torch.testing.assert_close(var.double(), true_var, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("decompose", [False, True], ids=["op", "decomposed"])
def test_statistics_have_no_gradient(decompose: bool) -> None:
    u, weights, mix, gamma, beta, *_ = (
        t.requires_grad_() if isinstance(t, Tensor) else t
        for t in draw_norm((2, 3, 7, 6), torch.float32)
    )
    with lmwp_ops.decomposed() if decompose else lmwp_ops.use_backend("auto"):
        out, *others = lmwp_ops.multiscale_norm_mix(u, weights, mix, gamma, beta, BRANCHES)
    assert out.requires_grad
    assert not any(t.requires_grad for t in others)


@pytest.mark.parametrize(
    ("shape", "refused"),
    [((1, 2, 8, 8), True), ((1, 2, 9, 8), False), ((2, 2, 1, 1), False), ((0, 2, 1, 1), False)],
)
def test_one_value_per_channel_is_refused_as_in_torch(
    shape: tuple[int, ...], refused: bool
) -> None:
    u, weights, mix, gamma, beta, *_ = draw_norm(shape, torch.float32)
    pooled = nn.functional.avg_pool2d(u, 2 ** max(OCTAVES), ceil_mode=True)
    norm = nn.BatchNorm2d(2)
    if refused:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            norm(pooled)
        with pytest.raises(ValueError, match=r"u: expected more than one value per channel, also"):
            lmwp_ops.multiscale_norm_mix(u, weights, mix, gamma, beta, BRANCHES)
    else:
        norm(pooled)
        lmwp_ops.multiscale_norm_mix(u, weights, mix, gamma, beta, BRANCHES)


U, W, T = torch.ones(2, 3, 5, 5), torch.ones(1, 3, 3, 3), torch.ones(1, 3)
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "3-D": ({"u": U[0]}, r"u: expected a 4-D tensor \[N, C, H, W\], got \[3, 5, 5\]"),
    "no pixels": ({"u": U[:, :, :0]}, r"u: expected at least one channel and one pixel, got shape"),
    "integers": ({"u": U.int()}, r"u: expected a floating-point dtype, got torch.int32"),
    "weights": ({"weights": W[:, :2]}, r"weights: expected shape \[1, 3, 3, 3\], got \[1, 2"),
    "kernel": ({"weights": torch.ones(1, 3, 5, 5)}, r"weights: expected shape \[1, 3, 3, 3\]"),
    "narrow": ({"weights": W.half()}, r"weights: expected torch.float32 like u, got torch.float16"),
    "mix": ({"mix": torch.ones(2, 3)}, r"mix: expected shape \[2, 1, 3\], got \[2, 3\]"),
    "mix dtype": ({"mix": torch.ones(2, 1, 3).half()}, r"mix: expected torch.float32 on cpu, whe"),
    "none": ({"branches": []}, r"branches: expected at least one pair, got"),
    "triple": ({"branches": [(0, 1, 2)]}, r"branches\[0\]: expected a pair \(octave, dilation\)"),
    "fraction": ({"branches": [(0.5, 1)]}, r"branches\[0\]: expected a pair .* got \(0.5, 1\)"),
    "octave": ({"branches": [(16, 1)]}, r"branches\[0\]: expected an octave of 0 to 15 and a po"),
    "dilation": ({"branches": [(0, 0)]}, r"branches\[0\]: expected .* dilation, got \(0, 0\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("inference", [False, True], ids=["op", "inference"])
def test_errors_name_argument_expected_and_got(name: str, inference: bool) -> None:
    changes, message = BAD[name]
    arguments = {"u": U, "weights": W, "mix": torch.ones(2, 1, 3), "branches": [(0, 1)], **changes}
    with torch.set_grad_enabled(not inference):
        with pytest.raises(ValueError, match=r"^multiscale_mix: " + message):
            lmwp_ops.multiscale_mix(**arguments, affine=(T, T))
        with pytest.raises(ValueError, match=r"^multiscale_norm_mix: " + message):
            lmwp_ops.multiscale_norm_mix(**arguments, gamma=T, beta=T)


def test_errors_of_the_parameters_of_a_norm() -> None:
    shared = (U, W, torch.ones(2, 1, 3))
    with pytest.raises(ValueError, match=r"affine shift: expected shape \[1, 3\], got \[3\]"):
        lmwp_ops.multiscale_mix(*shared, [(0, 1)], (T, T[0]))
    with pytest.raises(ValueError, match=r"affine\[0\]: expected a pair \(scale, shift\)"):
        lmwp_ops.multiscale_mix(*shared, [(0, 1)], (T,))
    with pytest.raises(ValueError, match=r"gamma: expected shape \[1, 3\], got \[3\]"):
        lmwp_ops.multiscale_norm_mix(*shared, T[0], T, [(0, 1)])
    with pytest.raises(ValueError, match=r"eps: expected a positive number, got 0"):
        lmwp_ops.multiscale_norm_mix(*shared, T, T, [(0, 1)], eps=0)
    backward = torch.ops.lmwp_ops.multiscale_norm_mix_backward.default
    with pytest.raises(ValueError, match=r"batch_var: expected torch.float32 of shape \[1, 3\]"):
        backward(U, *shared, T, T, T, T[0], [0], [1], EPS, [True] * 5)


def plain(module: MultiscaleMix, u: Tensor, mix: Tensor) -> Tensor:
    """What the module computes, through its own layers."""
    out = 0
    for k, (octave, _) in enumerate(module.branches):
        pooled = nn.functional.avg_pool2d(u, 2**octave, ceil_mode=True)
        y = module.norms[k](module.convs[k](pooled))
        y = nn.functional.interpolate(y, u.shape[2:], mode="bilinear", align_corners=False)
        out = out + mix[:, k, :, None, None] * y
    return out


def make_module(**changes: Any) -> tuple[MultiscaleMix, MultiscaleMix, Tensor, Tensor]:
    """A module, its twin, and what to call them with."""
    module = MultiscaleMix(4, BRANCHES)
    for norm in module.norms:
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.normal_(norm.bias)
        for name, value in changes.items():
            setattr(norm, name, value)
    u, mix = torch.randn(3, 4, 13, 18) * 2 + 1, torch.rand(3, len(BRANCHES), 4)
    return module, copy.deepcopy(module), u, mix


@pytest.mark.parametrize("changes", [{}, {"momentum": None}, {"eps": 1e-3}], ids=str)
def test_module_is_its_layers_one_after_the_other(changes: dict[str, Any]) -> None:
    module, twin, u, mix = make_module(**changes)
    for _ in range(2):
        got, expected = module(u, mix), plain(twin, u, mix)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    weight = torch.randn_like(got)
    found = torch.autograd.grad((got * weight).sum(), list(module.parameters()))
    wanted = torch.autograd.grad((expected * weight).sum(), list(twin.parameters()))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(module.state_dict(), twin.state_dict(), rtol=1e-5, atol=1e-5)
    module.eval(), twin.eval()
    torch.testing.assert_close(module(u, mix), plain(twin, u, mix), rtol=1e-4, atol=1e-5)


def test_module_keeps_channel_means_in_training_only() -> None:
    module, twin, u, mix = make_module()
    module.eval()(u, mix)
    assert module.channel_means is None
    module.train()(u, mix)
    seen: list[Tensor] = []
    for norm in twin.norms:
        norm.register_forward_hook(lambda _, args, y: seen.append(y.detach().mean((2, 3))))
    twin(u, mix)  # is watched: goes one by one
    torch.testing.assert_close(module.channel_means, seen, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(twin.channel_means, seen)
    assert not any(means.requires_grad for means in module.channel_means)


def test_frozen_norms_train_the_rest_with_running_statistics() -> None:
    module, twin, u, mix = make_module()
    for one in (module, twin):
        one(u, mix)
        for norm in one.norms:
            norm.eval()
    got, expected = module(u, mix), plain(twin, u, mix)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    found = torch.autograd.grad(got.square().sum(), list(module.parameters()))
    wanted = torch.autograd.grad(expected.square().sum(), list(twin.parameters()))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-2)


def test_module_in_bfloat16_is_as_exact_as_its_layers() -> None:
    module, twin, u, mix = make_module()
    module(u, mix), twin(u, mix)
    module.eval(), twin.eval().double()
    exact = plain(twin, u.double(), mix.double())
    low = u.bfloat16()
    got = module.bfloat16()(low, mix)
    apart = plain(copy.deepcopy(module), low, mix.bfloat16())
    errors = [float((y.double() - exact).detach().abs().max()) for y in (got, apart)]
    assert got.dtype == torch.bfloat16
    assert errors[0] <= 2 * errors[1] + torch.finfo(torch.bfloat16).eps * float(
        exact.detach().abs().max()
    )


def test_module_names_and_text() -> None:
    module = MultiscaleMix(2, [(0, 1), (1, 1)])
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert list(module.state_dict()) == [
        *("convs.0.weight", "convs.1.weight"),
        *(f"norms.{k}.{name}" for k in (0, 1) for name in norm),
    ]
    assert module.state_dict()["convs.0.weight"].shape == (2, 1, 3, 3)
    assert "branches=[(0, 1), (1, 1)]" in repr(module)


def test_is_explained() -> None:
    u, weights, mix, one = (t.double() for t in (U, W, torch.ones(2, 1, 3), T))
    explanation = lmwp_ops.explain("multiscale_mix", u, weights, mix, [(0, 1)], (one, one))
    assert explanation.backend == "reference"
