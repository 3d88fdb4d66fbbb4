"""What is particular to channel_spatial_attention: its options, ties, NaN, errors, and CBAM."""

import itertools
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lmwp_ops
from lmwp_ops.nn import CBAM
from lmwp_ops.ops.channel_spatial_attention import cuda_limits

from ..feature_ops import FEATURE_OPS, assert_forward_is_exact, assert_gradients_are_exact
from .cases import draw, eager

WHICH = next(which for which in FEATURE_OPS if which.name == "channel_spatial_attention")
POOLS = [(True, True), (True, False), (False, True)]
OPTIONS = [
    (gate, bias, sizes, pools)
    for gate, bias, sizes, pools in itertools.product(
        (True, False), (True, False), ((), (7,), (3, 5, 7)), POOLS
    )
    if (gate or sizes) and (gate or bias)
]


@pytest.mark.parametrize(("gate", "bias", "sizes", "pools"), OPTIONS, ids=str)
def test_every_option(
    gate: bool, bias: bool, sizes: tuple[int, ...], pools: tuple[bool, bool]
) -> None:
    options = {"gate": gate, "bias": bias, "sizes": sizes, "mean": pools[0], "max": pools[1]}
    args = draw((2, 5, 9, 11), torch.float32, **options)
    assert_forward_is_exact(WHICH, args)
    assert_gradients_are_exact(WHICH, args)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_of_equal_maxima_the_first_has_the_gradient(dtype: torch.dtype) -> None:
    """Whole numbers: most maxima are shared, over pixels and over channels."""
    args = draw((2, 4, 6, 5), dtype, mean=False)
    args[0].copy_(torch.randint(-1, 2, args[0].shape))
    assert_gradients_are_exact(WHICH, args)
    one = torch.ones(1, 1, 2, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.ones(1, 1, dtype=torch.float64)
    y = lmwp_ops.channel_spatial_attention(one, weight, weight, mean=False)
    (g,) = torch.autograd.grad(y.sum(), one)
    assert g[0, 0, 0, 0] > g[0, 0, 0, 1]
    assert g[0, 0].flatten()[1:].unique().numel() == 1


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("options", [{}, {"gate": False}, {"sizes": ()}, {"mean": False}], ids=str)
def test_special_values_go_where_torch_takes_them(value: float, options: dict[str, Any]) -> None:
    args = draw((2, 3, 8, 9), torch.float64, **options)
    args[0][1, 1, 4, 5] = value
    got, expected = WHICH.forward(*args), eager(*args)
    torch.testing.assert_close(got, expected, equal_nan=True)
    assert got[0].isfinite().all()
    assert not got.isfinite().all()


def test_squeeze_and_excitation_is_one_pool_without_kernels() -> None:
    x, reduce, expand = torch.randn(2, 6, 5, 7), nn.Linear(6, 2), nn.Linear(2, 6)
    gate = torch.sigmoid(expand(reduce(x.mean((2, 3))).relu()))
    layers = [(layer.weight, layer.bias) for layer in (reduce, expand)]
    y = lmwp_ops.channel_spatial_attention(x, *layers, max=False)
    torch.testing.assert_close(y, x * gate[:, :, None, None])


def test_the_cuda_kernel_takes_images_that_fit_into_shared_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of LMWP-Net's maps at 336 x 336 the smallest, on a GPU with 227 KB."""
    monkeypatch.setattr(cuda_limits, "most_shared_bytes", lambda device: 227 << 10)
    fits = draw((1, 128, 21, 21), torch.float32, sizes=(3, 5, 7))
    assert cuda_limits.refuse(*fits) is None
    assert cuda_limits.refuse(*draw((9, 64, 40, 40), torch.float16)) is None
    larger = draw((1, 64, 42, 42), torch.float16, sizes=(3, 5, 7))
    message = r"an image needs 24\d{4} bytes of shared memory; a block has 232448"
    assert re.fullmatch(message, cuda_limits.refuse(*larger) or "")
    malformed = fits[0][0], *fits[1:]
    assert cuda_limits.refuse(*malformed) is None  # the checks name what is wrong with it


X, R, E = torch.ones(2, 4, 5, 5), torch.ones(2, 4), torch.ones(4, 2)
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "3-D": ({"x": X[0]}, r"x: expected a 4-D tensor"),
    "no channels": ({"x": X[:, :0]}, r"x: expected at least one channel and one pixel, got shape"),
    "no pool": ({"mean": False, "max": False}, r"mean, max: expected at least one of them, got n"),
    "half a gate": ({"expand": None}, r"reduce, expand: expected both or neither, got one"),
    "nothing": ({"reduce": None, "expand": None}, r"reduce, expand, spatial: expected a channel"),
    "reduce": ({"reduce": R[0]}, r"reduce: expected a weight \[h, 4\] with h at least 1, got \[4"),
    "columns": ({"reduce": R[:, :3]}, r"reduce weight: expected shape \[2, 4\], got \[2, 3\]"),
    "expand": ({"expand": R}, r"expand weight: expected shape \[4, 2\], got \[2, 4\]"),
    "bias": ({"expand": (E, E)}, r"expand bias: expected shape \[4\], got \[4, 2\]"),
    "triple": ({"expand": (E, E, E)}, r"expand: expected a weight, or a weight and a bias, got 3"),
    "even": ({"spatial": [torch.ones(2, 4, 4)]}, r"spatial\[0\]: expected a kernel of size 3, 5"),
    "planes": ({"spatial": [torch.ones(1, 3, 3)]}, r"spatial\[0\]: expected shape \[2, 3, 3\]"),
    "kernels": ({"spatial": [torch.ones(2, 3, 3)] * 4}, r"spatial: expected at most 3 kernels"),
    "narrow": ({"reduce": R.half()}, r"reduce weight: expected torch.float32 like x, got torch.fl"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("inference", [False, True], ids=["op", "inference"])
def test_errors_name_argument_expected_and_got(name: str, inference: bool) -> None:
    changes, message = BAD[name]
    arguments = {"x": X, "reduce": R, "expand": E, **changes}
    with (
        torch.set_grad_enabled(not inference),
        pytest.raises(ValueError, match=r"^channel_spatial_attention: " + message),
    ):
        lmwp_ops.channel_spatial_attention(**arguments)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("pools", POOLS, ids=str)
def test_module_is_the_op(bias: bool, pools: tuple[bool, bool]) -> None:
    module = CBAM(8, 4, (3, 7), bias=bias, mean=pools[0], max=pools[1])
    layers = [[layer.weight, layer.bias][: 1 + bias] for layer in (module.reduce, module.expand)]
    kernels = [conv.weight[0] for conv in module.spatial]
    x = torch.randn(2, 8, 9, 7)
    torch.testing.assert_close(module(x), eager(x, *layers, kernels, *pools))
    module(x).sum().backward()
    assert all(p.grad is not None for p in module.parameters())


def test_module_options() -> None:
    names = {key: tuple(value.shape) for key, value in CBAM(32).state_dict().items()}
    assert names == {
        "reduce.weight": (2, 32),
        "expand.weight": (32, 2),
        "spatial.0.weight": (1, 2, 7, 7),
    }
    assert CBAM(8, 16).reduce.out_features == 1
    assert CBAM(8, 4, min_hidden=4).reduce.out_features == 4
    gates: list[tuple[CBAM, Tensor]] = [
        (CBAM(3, None), torch.randn(1, 3, 5, 6)),
        (CBAM(3, 1, ()), torch.randn(1, 3, 5, 6)),
    ]
    assert list(gates[0][0].state_dict()) == ["spatial.0.weight"]
    assert list(gates[1][0].state_dict()) == ["reduce.weight", "expand.weight"]
    for module, x in gates:
        assert module(x).shape == x.shape
    assert "mean=True, max=True" in repr(gates[0][0])
