"""The compiled CPU kernel of sparse_conv2d: formats, settings, layouts, instruction sets."""

from typing import Any

import pytest
import torch

from lmwp_ops import _loader

from ..exactness import LAYOUTS, assert_as_exact, assert_same_for_any_threads, feature
from ..instruction_sets import INSTRUCTION_SETS, run_under
from .cases import CASES, Args, Case, dense_of, double, draw, eager

pytestmark = pytest.mark.skipif(
    _loader.status()["_C"] is not None, reason=str(_loader.status()["_C"])
)

op = torch.ops.lmwp_ops.sparse_conv2d_cpp.default
backward = torch.ops.lmwp_ops.sparse_conv2d_backward_cpp.default
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


def gradients(args: Args, grad: torch.Tensor) -> list[torch.Tensor]:
    """Of x, the kept values and the parameters that there are."""
    found = backward(grad, *args, [True] * 7)
    assert found[2] == []
    return [gradient for kind in found for gradient in kind]


def eager_gradients(args: Args, grad: torch.Tensor) -> list[torch.Tensor]:
    x, values, indices, *lists = args[:7]
    asked = [x, values, *(parameter for kind in lists for parameter in kind)]
    asked = [tensor.detach().requires_grad_() for tensor in asked]
    rest = iter(asked[2:])
    asking = asked[0], asked[1], indices, *([next(rest) for _ in kind] for kind in lists)
    asking += args[7:]
    y = eager(asking, dense_of(asking))
    return list(torch.autograd.grad(y, asked, grad, materialize_grads=True))


GRADIENTS = [
    (case, DTYPES[i % 3], LAYOUTS[i % 6], LAYOUTS[i // 2 % 6]) for i, case in enumerate(CASES)
]


@pytest.mark.parametrize(("case", "dtype", "layout", "grad_layout"), GRADIENTS, ids=str)
def test_gradients_are_as_exact_as_those_of_eager(
    case: Case, dtype: torch.dtype, layout: str, grad_layout: str
) -> None:
    args = draw(case, dtype, layout)
    grad = feature(op(*args).shape, dtype, grad_layout)
    truth = eager_gradients(double(args), grad.double())
    found = gradients(args, grad)
    assert_as_exact(found, eager_gradients(args, grad), truth, roundings=32)


def check_every_case() -> int:
    """How many cases of the grids were found exact."""
    for case, dtype, layout in GRID:
        torch.manual_seed(0)
        test_as_exact_as_eager(case, dtype, layout)
    for given in GRADIENTS:
        test_gradients_are_as_exact_as_those_of_eager(*given)
    return len(GRID) + len(GRADIENTS)


@pytest.mark.parametrize("capability", INSTRUCTION_SETS)
def test_every_instruction_set(capability: str) -> None:
    module = "sparse_conv2d.test_sparse_conv2d_cpu_kernel"
    assert run_under(capability, module, "check_every_case") == len(GRID) + len(GRADIENTS)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_threads_change_no_bit(case: Case) -> None:
    args = draw(case)
    grad = torch.randn_like(op(*args))
    assert_same_for_any_threads(lambda: [op(*args), *gradients(args, grad)])


def test_parameters_of_16_bit_features_may_be_float32() -> None:
    wide = draw(CASES[0])
    narrow = (wide[0].bfloat16(), *wide[1:])
    expected = eager(double((wide[0].bfloat16().float(), *wide[1:])))
    torch.testing.assert_close(op(*narrow).double(), expected, rtol=1e-2, atol=1e-2)


def test_empty_batch() -> None:
    args = draw(Case((0, 7, 5, 13), 13, "unstructured"))
    y = op(*args)
    assert y.shape == (0, 13, 5, 13)
    grad_x, *of_parameters = gradients(args, y)
    assert grad_x.shape == args[0].shape
    assert len(of_parameters) == 5
    assert not any(gradient.any() for gradient in of_parameters)


def test_gives_the_gradients_that_are_wanted() -> None:
    args = draw(CASES[0])
    grad = torch.randn_like(op(*args))
    whole = backward(grad, *args, [True] * 7)
    for place in range(7):
        kinds = backward(grad, *args, [i == place for i in range(7)])
        assert [len(kind) for kind in kinds] == [i == place != 2 for i in range(7)]
        assert all(torch.equal(a, b) for a, b in zip(kinds[place], whole[place], strict=True))


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
    with pytest.raises(RuntimeError):
        gradients(BAD[name], torch.zeros(1, 8, 6, 6))
