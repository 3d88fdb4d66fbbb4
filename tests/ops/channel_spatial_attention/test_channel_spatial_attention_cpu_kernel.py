"""The compiled CPU kernels of channel_spatial_attention: shapes, options, instruction sets."""

import itertools
from typing import Any

import pytest
import torch

from lmwp_ops import _loader

from ..exactness import (
    LAYOUTS,
    assert_as_exact,
    assert_same_for_any_threads,
    errors_in_roundings,
)
from ..feature_ops import double
from ..instruction_sets import INSTRUCTION_SETS, run_under
from .cases import draw, eager

pytestmark = pytest.mark.skipif(
    _loader.status()["_C"] is not None, reason=str(_loader.status()["_C"])
)

op = torch.ops.lmwp_ops.channel_spatial_attention_cpp.default

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


def worst_errors() -> list[float]:
    """Largest error of each result in units of its dtype's rounding of the largest value."""
    errors = []
    for shape, dtype, layout, options in GRID:
        torch.manual_seed(0)
        args = draw(shape, dtype, layout, **options)
        errors += errors_in_roundings([op(*args)], [eager(*double(args))])
    return errors


@pytest.mark.parametrize("capability", INSTRUCTION_SETS)
def test_every_instruction_set(capability: str) -> None:
    module = "channel_spatial_attention.test_channel_spatial_attention_cpu_kernel"
    errors = run_under(capability, module, "worst_errors")
    assert len(errors) >= len(GRID)
    assert max(errors) < 16


@pytest.mark.parametrize("shape", [(1, 33, 56, 56), (3, 16, 37, 41), (8, 7, 11, 11)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_threads_change_no_bit(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    args = draw(shape, dtype)
    assert_same_for_any_threads(lambda: [op(*args)])


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
        op(x, [r], [e], [], False, False)
