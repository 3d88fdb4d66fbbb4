"""bn_prelu_gap on a GPU: right in every layout, in graphs, on streams and beyond 2^31."""

import pytest
import torch
from torch import Tensor
from torch.library import opcheck

import lmwp_ops
from lmwp_ops import _dispatch

from ..ops.bn_prelu_gap.cases import (
    EPS,
    Args,
    Case,
    assert_as_exact_as_eager,
    draw,
    eager_gradients,
    flat,
    grid,
    true_gradients,
)
from ..ops.exactness import assert_as_exact

op = torch.ops.lmwp_ops.bn_prelu_gap.default
op_backward = torch.ops.lmwp_ops.bn_prelu_gap_backward.default
BACKENDS = [name for name in _dispatch.registered()["bn_prelu_gap"] if name != "cpp"]
CYCLES = 200_000_000  # about a tenth of a second


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, device: torch.device) -> str:
    name: str = request.param
    if reason := _dispatch.registered()["bn_prelu_gap"][name]:
        pytest.skip(reason)
    return name


@pytest.fixture
def draw_there(on_gpu):
    """The arguments of a case on the GPU."""

    def drawn(case: Case) -> Args:
        args = draw(case)
        return (*([on_gpu(t) for t in kind] for kind in args[:4]), EPS)

    return drawn


def on_cpu(args: Args) -> Args:
    return (*([t.cpu() for t in kind] for kind in args[:4]), EPS)


def backward(grads: list[Tensor], args: Args) -> list[Tensor]:
    """Every gradient there is, with the statistics of the batch."""
    statistics = op(*args)[2:]
    wanted = [True, True, True, bool(args[3])]
    return flat(op_backward(grads, *args[:4], *statistics, EPS, wanted))


def draw_gradients(args: Args) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(x.shape, generator=generator).to(x) for x in args[0]]


@pytest.mark.parametrize("case", grid(), ids=str)
def test_values(backend: str, draw_there, case: Case) -> None:
    args = draw_there(case)
    with lmwp_ops.use_backend(backend):
        outputs = op(*args)
    assert all(t.is_cuda for t in flat(outputs))
    there = tuple([t.cpu() for t in kind] for kind in outputs)
    assert_as_exact_as_eager(there, on_cpu(args))
    assert [y.stride() for y in outputs[0]] == [y.stride() for y in op(*on_cpu(args))[0]]


@pytest.mark.parametrize("case", grid(), ids=str)
def test_every_gradient(backend: str, draw_there, case: Case) -> None:
    args = draw_there(case)
    grads = draw_gradients(args)
    with lmwp_ops.use_backend(backend):
        got = backward(grads, args)
    near = [g.cpu() for g in grads]
    truth = flat(true_gradients(near, on_cpu(args)))
    assert_as_exact(got, eager_gradients(near, on_cpu(args)), truth, roundings=16)


def test_an_empty_batch(backend: str, draw_there) -> None:
    args = draw_there(Case(((0, 3, 5, 4),)))
    with lmwp_ops.use_backend(backend):
        (y,), (means,), (mean,), (var,) = op(*args)
        gradients = backward(args[0], args)
    assert y.shape == (0, 3, 5, 4)
    assert means.shape == (0, 3)
    assert not any(t.any() for t in (mean, var, *gradients))


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_results_repeat_bit_for_bit(draw_there, layout: str) -> None:
    """Of the kernel; torch promises nothing of the reference."""
    if reason := _dispatch.registered()["bn_prelu_gap"]["triton"]:
        pytest.skip(reason)
    args = draw_there(Case(((8, 33, 112, 112), (8, 20, 28, 29)), layout=layout))
    grads = draw_gradients(args)
    with lmwp_ops.use_backend("triton"):
        first, second = ([*flat(op(*args)), *backward(grads, args)] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_waits_for_its_stream(backend: str, draw_there) -> None:
    """The input is written late on a stream of its own; no other stream orders the call."""
    args = draw_there(Case(((2, 20, 56, 56),)))
    late = [torch.zeros_like(x) for x in args[0]]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with lmwp_ops.use_backend(backend):
        op(*args)  # whatever happens at first use happens now
        with torch.cuda.stream(stream):
            torch.cuda._sleep(CYCLES)
            for target, x in zip(late, args[0], strict=True):
                target.copy_(x)
            outputs = op(late, *args[1:])
        stream.synchronize()
        torch.testing.assert_close(flat(outputs), flat(op(*args)))


def test_is_captured_in_a_graph(backend: str, draw_there) -> None:
    args = draw_there(Case(((2, 20, 28, 28), (2, 10, 14, 14))))
    grads = draw_gradients(args)
    with lmwp_ops.use_backend(backend), torch.no_grad():
        op(*args), backward(grads, args)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = [*flat(op(*args)), *backward(grads, args)]
        for x in args[0]:
            x.copy_(torch.randn_like(x))
        graph.replay()
        torch.cuda.synchronize()
        torch.testing.assert_close(captured, [*flat(op(*args)), *backward(grads, args)])


def test_opcheck(backend: str, draw_there) -> None:
    args = draw_there(Case(((2, 3, 5, 6), (2, 2, 4, 3))))
    for t in flat(args[:4]):
        t.requires_grad_()
    with lmwp_ops.use_backend(backend):
        opcheck(op, args)


@pytest.mark.alone
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_beyond_32_bit_offsets(backend: str, device: torch.device, layout: str) -> None:
    channels, side = 3, 27_000  # 2.19e9 elements
    needed = 8 * channels * side**2 * (4 if backend == "reference" else 1)
    if torch.cuda.mem_get_info(device)[0] < needed:
        pytest.skip(f"needs {needed / 2**30:.0f} GiB of free GPU memory")
    x = torch.empty(1, channels, side, side, dtype=torch.float16, device=device)
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    x.normal_()
    weight, bias, slope = torch.ones(3, device=device), torch.zeros(3, device=device), None
    with lmwp_ops.use_backend(backend):
        y, _, mean, var = lmwp_ops.bn_prelu_gap(x, weight, bias, slope)
    torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-3)
    torch.testing.assert_close(var, torch.ones_like(var), rtol=0, atol=1e-3)
    for rows in (slice(0, 4), slice(side - 4, side)):
        torch.testing.assert_close(y[:, :, rows], x[:, :, rows], rtol=2e-3, atol=2e-3)
