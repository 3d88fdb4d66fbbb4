"""The compiled CPU kernel of sparse_conv2d: formats, settings, layouts, instruction sets."""

from typing import Any

import pytest
import torch

from lmwp_ops import _loader

from ..exactness import LAYOUTS, assert_as_exact, assert_same_for_any_threads
from ..instruction_sets import INSTRUCTION_SETS, run_under
from .cases import CASES, Case, double, draw, eager

pytestmark = pytest.mark.skipif(
    _loader.status()["_C"] is not None, reason=str(_loader.status()["_C"])
)

op = torch.ops.lmwp_ops.sparse_conv2d_cpp.default
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
GRID = [
    *((case, torch.float32, "nchw") for case in CASES),
    *((case, DTYPES[1 + i % 2], LAYOUTS[i % 6]) for i, case in enumerate(CASES)),
    *((case, torch.float32, LAYOUTS[1 + i % 5]) for i, case in enumerate(CASES)),
]


@pytest.mark.parametrize(("case", "dtype", "layout"), GRID, ids=str)
def test_as_exact_as_eager(case: Case, dtype: torch.dtype, layout: str) -> None:
    args = draw(case, dtype, layout)
    assert_as_exact([op(*args)], [eager(args)], [eager(double(args))], roundings=4)


def check_every_case() -> int:
    """How many cases of the grid were found exact."""
    for case, dtype, layout in GRID:
        torch.manual_seed(0)
        test_as_exact_as_eager(case, dtype, layout)
    return len(GRID)


@pytest.mark.parametrize("capability", INSTRUCTION_SETS)
def test_every_instruction_set(capability: str) -> None:
    module = "sparse_conv2d.test_sparse_conv2d_cpu_kernel"
    assert run_under(capability, module, "check_every_case") == len(GRID)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_threads_change_no_bit(case: Case) -> None:
    args = draw(case)
    assert_same_for_any_threads(lambda: [op(*args)])


def test_parameters_of_16_bit_features_may_be_float32() -> None:
    wide = draw(CASES[0])
    narrow = (wide[0].bfloat16(), *wide[1:])
    expected = eager(double((wide[0].bfloat16().float(), *wide[1:])))
    torch.testing.assert_close(op(*narrow).double(), expected, rtol=1e-2, atol=1e-2)


def test_empty_batch() -> None:
    args = draw(Case((0, 7, 5, 13), 13, "unstructured"))
    assert op(*args).shape == (0, 13, 5, 13)


def replaced(args: tuple[Any, ...], place: int, value: Any) -> tuple[Any, ...]:
    return *args[:place], value, *args[place + 1 :]


BLOCKS = draw(Case((1, 8, 6, 6), 8, "unstructured", density=1.0))
CHANNELS = draw(Case((1, 8, 6, 6), 8, "channels", density=1.0))


def index(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


OFFSETS, COLUMNS = BLOCKS[2]
EVERY = CHANNELS[2][0]
BAD: dict[str, tuple[Any, ...]] = {
    "3-D": replaced(BLOCKS, 0, BLOCKS[0][0]),
    "float64": replaced(BLOCKS, 0, BLOCKS[0].double()),
    "channels": replaced(BLOCKS, 0, BLOCKS[0][:, :7]),
    "no pixels": replaced(BLOCKS, 0, BLOCKS[0][:, :, :0]),
    "values": replaced(BLOCKS, 1, BLOCKS[1][:-1]),
    "value rank": replaced(BLOCKS, 1, BLOCKS[1][:, 0]),
    "no indices": replaced(BLOCKS, 2, []),
    "long": replaced(BLOCKS, 2, [OFFSETS.long(), COLUMNS]),
    "short offsets": replaced(BLOCKS, 2, [OFFSETS[:-1], COLUMNS]),
    "falling": replaced(BLOCKS, 2, [index(0, 9, 8, 24, 32, 40, 48, 56, 64), COLUMNS]),
    "from 1": replaced(BLOCKS, 2, [index(1, 8, 16, 24, 32, 40, 48, 56, 64), COLUMNS]),
    "beyond": replaced(BLOCKS, 2, [OFFSETS + 1, COLUMNS]),
    "column": replaced(BLOCKS, 2, [OFFSETS, COLUMNS + 1]),
    "negative": replaced(BLOCKS, 2, [OFFSETS, COLUMNS - 1]),
    "kept out": replaced(CHANNELS, 2, [EVERY + 1, EVERY]),
    "kept in": replaced(CHANNELS, 2, [EVERY, EVERY + 1]),
    "negative in": replaced(CHANNELS, 2, [EVERY, EVERY - 1]),
    "twice": replaced(CHANNELS, 2, [index(0, 1, 2, 2, 4, 5, 6, 7), EVERY]),
    "groups of channels": replaced(CHANNELS, 13, 2),
    "bias": replaced(BLOCKS, 3, [torch.ones(7)]),
    "half an affine": replaced(BLOCKS, 4, []),
    "slopes": replaced(BLOCKS, 6, [torch.ones(8), torch.ones(8)]),
    "shape": replaced(BLOCKS, 8, [8, 8, 1]),
    "block": replaced(BLOCKS, 9, [0, 1]),
    "block columns": replaced(BLOCKS, 9, [1, 3]),
    "stride": replaced(BLOCKS, 10, [0, 1]),
    "padding": replaced(BLOCKS, 11, [-1, 0]),
    "dilation": replaced(BLOCKS, 12, [1]),
    "groups": replaced(BLOCKS, 13, 3),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses_what_would_read_out_of_bounds(name: str) -> None:
    with pytest.raises(RuntimeError):
        op(*BAD[name])
