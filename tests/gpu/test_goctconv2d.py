"""goctconv2d and dilated_bank on a GPU: values, gradients, streams and graphs."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.library import opcheck

import lmwp_ops
from lmwp_ops import _dispatch
from lmwp_ops.ops.dilated_bank import reference as bank_reference
from lmwp_ops.ops.goctconv2d import reference

from ..ops.dilated_bank import test_dilated_bank_kernels as banks
from ..ops.exactness import assert_as_exact
from ..ops.goctconv2d.cases import DTYPES, Case, draw, grid, truth
from ..ops.gradients import assert_gradients_are_exact, draw_gradients, flat, wanted_kinds

op = torch.ops.lmwp_ops.goctconv2d.default
op_backward = torch.ops.lmwp_ops.goctconv2d_backward.default
bank = torch.ops.lmwp_ops.dilated_bank.default
bank_backward = torch.ops.lmwp_ops.dilated_bank_backward.default
BACKENDS = [name for name in _dispatch.registered()["goctconv2d"] if name != "cpp"]
CYCLES = 200_000_000  # about a tenth of a second
Args = tuple[Any, ...]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, device: torch.device) -> str:
    name: str = request.param
    if reason := _dispatch.registered()["goctconv2d"][name]:
        pytest.skip(reason)
    return name


@pytest.fixture
def there(on_gpu) -> Callable[[Args], Args]:
    """Arguments of an op, moved to the GPU."""

    def moved(arg: Any) -> Any:
        if isinstance(arg, Tensor):
            return on_gpu(arg)
        return [moved(inner) for inner in arg] if isinstance(arg, list) else arg

    return lambda args: tuple(moved(arg) for arg in args)


def same(got: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("case", grid(), ids=str)
def test_values_and_gradients(backend: str, there, case: Case) -> None:
    args = there(draw(case))
    with lmwp_ops.use_backend(backend):
        ys = op(*args)
        assert all(y.is_cuda for y in ys)
        assert_as_exact(ys, reference.forward(*args), truth(args), roundings=16)
        grads = draw_gradients(op, args)
        assert_gradients_are_exact(op_backward, reference.backward, grads, args)


@pytest.mark.parametrize("case", banks.CASES, ids=str)
def test_bank(backend: str, there, case: banks.Case) -> None:
    args = there(banks.draw(case))
    with lmwp_ops.use_backend(backend):
        assert_as_exact(bank(*args), bank_reference.forward(*args), banks.truth(args), roundings=16)
        grads = draw_gradients(bank, args)
        assert_gradients_are_exact(bank_backward, bank_reference.backward, grads, args)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_parameters_may_stay_float32(backend: str, there, dtype: torch.dtype) -> None:
    args = there(draw(Case((4, 5), (5, 4), (12, 16), 3, dtype=dtype), torch.float32))
    with lmwp_ops.use_backend(backend):
        assert_as_exact(op(*args), reference.forward(*args), truth(args), roundings=16)


def test_of_equal_maxima_the_first_takes_it_all(backend: str, there) -> None:
    args = there(draw(Case((3, 2, 4), (2, 3, 4), (24, 40), epilogue=False)))
    for x in args[0]:
        x.copy_(torch.randint(-1, 2, x.shape))
    with lmwp_ops.use_backend(backend):
        grads = draw_gradients(op, args)
        assert_gradients_are_exact(op_backward, reference.backward, grads, args)


@pytest.mark.parametrize("kernel", [1, 3])
def test_results_repeat_bit_for_bit(there, device: torch.device, kernel: int) -> None:
    """Of the kernels; the reference resizes by atomics."""
    args = there(draw(Case((20, 13), (13, 20), (112, 56), kernel, 4)))
    for backend in BACKENDS:
        if backend == "reference" or _dispatch.registered()["goctconv2d"][backend]:
            continue
        with lmwp_ops.use_backend(backend):
            grads = [torch.ones_like(y) for y in op(*args)]
            first, second = (
                [*op(*args), *flat(op_backward(grads, *args, wanted_kinds(args)))] for _ in range(2)
            )
        assert same(first, second)


def test_waits_for_its_stream(backend: str, there) -> None:
    """The inputs are written late on a stream of their own; no other stream orders the call."""
    args = there(draw(Case((10, 10), (10, 10), (56, 56))))
    late = [torch.zeros_like(x) for x in args[0]]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with lmwp_ops.use_backend(backend):
        op(*args)  # whatever happens at first use happens now
        with torch.cuda.stream(stream):
            torch.cuda._sleep(CYCLES)
            for target, x in zip(late, args[0], strict=True):
                target.copy_(x)
            ys = op(late, *args[1:])
        stream.synchronize()
        assert same(ys, op(*args))


def test_is_captured_in_a_graph(backend: str, there) -> None:
    args = there(draw(Case((10, 10), (10, 10), (56, 56), 3)))
    with lmwp_ops.use_backend(backend), torch.no_grad():
        op(*args)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            ys = op(*args)
        for x in args[0]:
            x.copy_(torch.randn_like(x))
        graph.replay()
        torch.cuda.synchronize()
        assert same(ys, op(*args))


@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
def test_opcheck(backend: str, there, trained: bool) -> None:
    args = there(draw(Case((3, 2), (2, 3), (8, 12), 3, entry_pool=True)))
    if trained:
        for arg in args[:5]:
            for t in arg if isinstance(arg, list) else [arg]:
                t.requires_grad_()
    with lmwp_ops.use_backend(backend):
        opcheck(op, args)


@pytest.mark.alone
def test_beyond_32_bit_offsets(backend: str, device: torch.device) -> None:
    if backend == "reference":
        pytest.skip("the convolutions of torch are not what is tested")
    channels, side = 3, 27_000  # 2.19e9 elements
    needed = 3 * 2 * channels * side**2
    if torch.cuda.mem_get_info(device)[0] < needed:
        pytest.skip(f"needs {needed / 2**30:.0f} GiB of free GPU memory")
    x = torch.empty(1, channels, side, side, dtype=torch.float16, device=device).normal_()
    weight = torch.randn(channels, channels, 1, 1, device=device)
    with lmwp_ops.use_backend(backend):
        (y,) = lmwp_ops.goctconv2d([x], weight, [channels], [channels])
        part = x[:, :, -4:, -64:].contiguous()
        (expected,) = lmwp_ops.goctconv2d([part], weight, [channels], [channels])
    torch.testing.assert_close(y[:, :, -4:, -64:], expected)
