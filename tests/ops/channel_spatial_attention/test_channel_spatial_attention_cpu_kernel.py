"""The compiled CPU kernels of channel_spatial_attention: shapes, options, instruction sets."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from lmwp_ops import _loader
from lmwp_ops._examples import tensors
from lmwp_ops.ops.channel_spatial_attention import reference

from ..exactness import (
    LAYOUTS,
    assert_as_exact,
    assert_same_for_any_threads,
)
from ..feature_ops import Args, FeatureOp, double, eager_gradients
from ..instruction_sets import INSTRUCTION_SETS, run_under
from .cases import draw, eager

pytestmark = pytest.mark.skipif(
    _loader.status()["_C"] is not None, reason=str(_loader.status()["_C"])
)

op = torch.ops.lmwp_ops.channel_spatial_attention_cpp.default
op_backward = torch.ops.lmwp_ops.channel_spatial_attention_backward_cpp.default
WHICH = FeatureOp("channel_spatial_attention", draw, eager, op, 4)

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
CHANNELS = (1, 3, 16, 33, 40, 320)
MAPS = ((1, 1), (7, 7), (11, 11), (15, 17), (56, 56), (3, 16), (5, 2))
OPTIONS: tuple[dict[str, Any], ...] = (
    {"sizes": (3, 5, 7)},
    {"sizes": (3,), "max": False},
    {"sizes": (5, 3), "bias": False, "mean": False},
    {"sizes": ()},
    {"sizes": (7,), "gate": False},
)
GRID = [
    ((1 + i % 3, c, *size), DTYPES[i % 3], LAYOUTS[i % 6], OPTIONS[i % 5])
    for i, (c, size) in enumerate(itertools.product(CHANNELS, MAPS))
    if c * size[0] * size[1] < 60000
]
GRID.append(((1, 16, 168, 168), torch.float32, "nchw", OPTIONS[0]))


@pytest.mark.parametrize(("shape", "dtype", "layout", "options"), GRID, ids=str)
def test_forward_is_as_exact_as_eager(
    shape: tuple[int, ...], dtype: torch.dtype, layout: str, options: dict[str, Any]
) -> None:
    args = draw(shape, dtype, layout, **options)
    assert_as_exact([op(*args)], [eager(*args)], [eager(*double(args))], roundings=2)


def gradients(grad: Tensor, args: Args, wanted: Sequence[bool] = (True,) * 4) -> list[Tensor]:
    return list(tensors(op_backward(grad, *args, list(wanted))))


def gradient_like(x: Tensor) -> Tensor:
    return torch.randn(x.shape, dtype=torch.float64).to(x.dtype)


@pytest.mark.parametrize(("shape", "dtype", "layout", "options"), GRID, ids=str)
def test_gradients_are_as_exact_as_those_of_eager(
    shape: tuple[int, ...], dtype: torch.dtype, layout: str, options: dict[str, Any]
) -> None:
    args = draw(shape, dtype, layout, **options)
    grad = gradient_like(args[0])
    truth = eager_gradients(WHICH, grad.double(), double(args))
    found = gradients(grad, args)
    assert_as_exact(found, eager_gradients(WHICH, grad, args), truth, roundings=16)


def test_the_gradient_may_have_any_layout() -> None:
    args = draw((2, 5, 9, 11), torch.float32)
    grad = gradient_like(args[0])
    expected = gradients(grad, args)
    transposed = grad.transpose(2, 3).contiguous().transpose(2, 3)
    for other in (grad.contiguous(memory_format=torch.channels_last), transposed):
        assert all(torch.equal(a, b) for a, b in zip(gradients(other, args), expected, strict=True))
    broadcast = grad[:1, :1, :1, :1].expand(grad.shape)
    expected = gradients(broadcast.contiguous(), args)
    assert all(torch.equal(a, b) for a, b in zip(gradients(broadcast, args), expected, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("gate", [True, False])
def test_of_equal_maxima_the_first_has_the_gradient(dtype: torch.dtype, gate: bool) -> None:
    """Whole numbers, and zeros of both signs: most maxima are shared."""
    args = draw((2, 19, 12, 21), dtype, mean=False, gate=gate)
    args[0].copy_(torch.randint(-3, 1, args[0].shape))
    args[0][:, ::2].abs_().neg_()
    grad = gradient_like(args[0])
    truth = eager_gradients(WHICH, grad.double(), double(args))
    found = gradients(grad, args)
    assert_as_exact(found, eager_gradients(WHICH, grad, args), truth, roundings=16)


def test_the_gradient_goes_to_the_first_nan() -> None:
    args = draw((1, 3, 7, 40), torch.float32, mean=False, sizes=())
    args[0][0, 1, 2, 3] = args[0][0, 1, 2, 5] = torch.nan
    grad = gradient_like(args[0])
    expected = list(tensors(reference.backward(grad, *args, [True] * 4)))
    torch.testing.assert_close(gradients(grad, args), expected, equal_nan=True)


def test_empty_batch() -> None:
    args = draw((0, 5, 9, 11), torch.float32)
    assert op(*args).shape == (0, 5, 9, 11)
    found = gradients(args[0], args)
    assert [g.shape for g in found] == [t.shape for t in tensors(args)]
    assert not any(g.any() for g in found)


def check_every_case() -> int:
    """How many cases of the grid were found exact."""
    for case in GRID:
        torch.manual_seed(0)
        test_forward_is_as_exact_as_eager(*case)
        test_gradients_are_as_exact_as_those_of_eager(*case)
    return len(GRID)


@pytest.mark.parametrize("capability", INSTRUCTION_SETS)
def test_every_instruction_set(capability: str) -> None:
    module = "channel_spatial_attention.test_channel_spatial_attention_cpu_kernel"
    assert run_under(capability, module, "check_every_case") == len(GRID)


@pytest.mark.parametrize("shape", [(1, 33, 56, 56), (3, 16, 37, 41), (8, 7, 11, 11)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_threads_change_no_bit(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    args = draw(shape, dtype)
    grad = gradient_like(args[0])
    assert_same_for_any_threads(lambda: [op(*args), *gradients(grad, args)])


# Kernels of several sizes are added before any infinity meets one of them.
SPECIAL = [
    (value, options)
    for value, options in itertools.product((torch.nan, torch.inf, -torch.inf), OPTIONS)
    if value != value or len(options["sizes"]) < 2
]


@pytest.mark.parametrize(("value", "options"), SPECIAL, ids=str)
@pytest.mark.parametrize("at", [(0, 0), (4, 5), (10, 18)])
def test_special_values_go_where_torch_takes_them(
    value: float, options: dict[str, Any], at: tuple[int, int]
) -> None:
    args = draw((2, 3, 11, 19), torch.float32, **options)
    args[0][1, 1, *at] = value
    got, expected = op(*args), eager(*args)
    torch.testing.assert_close(got, expected, equal_nan=True)
    assert got[0].isfinite().all()
    assert not got.isfinite().all()


def test_large_logits_saturate() -> None:
    """Gates of zero and one, whatever the size of what the sigmoid is applied to."""
    x = torch.ones(1, 4, 5, 5)
    for size in (1e2, 1e4, 1e30):
        expand = torch.tensor([[size], [-size], [0.0], [1.0]])
        y = op(x, [torch.ones(1, 4)], [expand], [], True, False)
        torch.testing.assert_close(y, eager(x, [torch.ones(1, 4)], [expand], [], True, False))


def test_refuses_what_would_read_out_of_bounds() -> None:
    x, r, e = torch.randn(2, 4, 5, 5), torch.ones(3, 4), torch.ones(4, 3)
    k = torch.ones(2, 3, 3)
    for wrong in (
        (x[0], [r], [e], [k]),
        (x[:, :0], [r], [e], [k]),
        (x[:, :, :0], [r], [e], [k]),
        (x.double(), [r], [e], [k]),
        (x, [r], [], [k]),
        (x, [], [], []),
        (x, [r[0]], [e], [k]),
        (x, [r[:0]], [e[:, :0]], [k]),
        (x, [r[:, :3]], [e], [k]),
        (x, [r], [r], [k]),
        (x, [r, r], [e], [k]),
        (x, [r], [e, e[:3, 0]], [k]),
        (x, [r, r[:, 0], r], [e], [k]),
        (x, [r], [e], [k[:1]]),
        (x, [r], [e], [k[0]]),
        (x, [r], [e], [k[:, :, :2]]),
        (x, [r], [e], [torch.ones(2, 9, 9)]),
        (x, [r], [e], [torch.ones(2, 5, 3)]),
        (x, [r], [e], [k] * 4),
        (x, [r.half()], [e], [k]),
    ):
        with pytest.raises(RuntimeError):
            op(*wrong, True, True)
        with pytest.raises(RuntimeError):
            op_backward(x, *wrong, True, True, [True] * 4)
    with pytest.raises(RuntimeError):
        op(x, [r], [e], [], False, False)
    for grad, flags in ((x[:1], 4), (x.half(), 4), (x[0], 4), (x, 3)):
        with pytest.raises(RuntimeError):
            op_backward(grad, x, [r], [e], [k], True, True, [True] * flags)
