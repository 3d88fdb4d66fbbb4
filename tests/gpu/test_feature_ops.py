"""The ops on one feature on a GPU: right in every layout, in graphs, on streams and beyond 2^31."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.library import opcheck

import lmwp_ops
from lmwp_ops import _dispatch
from lmwp_ops._examples import convert, tensors

from ..ops.exactness import LAYOUTS, assert_as_exact
from ..ops.feature_ops import FEATURE_OPS, Args, FeatureOp, double, eager_gradients, leaves

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
SHAPES = (
    *((2, 3, 7, 7), (1, 1, 14, 14), (3, 10, 15, 17), (2, 7, 1, 13), (2, 33, 9, 1)),
    *((2, 20, 56, 56), (1, 8, 120, 160)),
)
SMALL = (2, 12, 32, 32)  # an image fits into the shared memory of any GPU in float32
GRID = [(SHAPES[i % 7], DTYPES[(i + i // 3) % 3], LAYOUTS[(i + i // 6) % 6]) for i in range(42)]
CASES = [
    pytest.param(which, backend, id=f"{which}-{backend}")
    for which in FEATURE_OPS
    for backend in _dispatch.registered()[which.name]
    if backend != "cpp"
]
KERNELS = [case for case in CASES if case.values[1] != "reference"]
CYCLES = 200_000_000  # about a tenth of a second
each_backend = pytest.mark.parametrize(("which", "backend"), CASES)
each_kernel = pytest.mark.parametrize(("which", "backend"), KERNELS)


@pytest.fixture(autouse=True)
def _there_is_one(which: FeatureOp, backend: str, device: torch.device) -> None:
    if reason := _dispatch.registered()[which.name][backend]:
        pytest.skip(reason)


def skip_if_refused(which: FeatureOp, backend: str, args: Args) -> None:
    if reason := _dispatch.op_named(which.name).candidates[backend].reason(args):
        pytest.skip(reason)


@pytest.fixture
def drawn(on_gpu):
    """Arguments on the GPU."""

    def draw(
        which: FeatureOp,
        shape: tuple[int, ...] = SMALL,
        dtype: torch.dtype = torch.float32,
        layout: str = "nchw",
    ) -> Args:
        return convert(which.draw(shape, dtype, layout), on_gpu)

    return draw


def on_cpu(args: Args) -> Args:
    return convert(args, Tensor.cpu)


def like(args: Args) -> Tensor:
    """A gradient of the result."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(args[0].shape, generator=generator).to(args[0])


def everything(which: FeatureOp, args: Args, grad: Tensor) -> list[Tensor]:
    """All results, and every gradient."""
    backward = which.backward_args(grad, args, [True] * which.kinds)
    return list(tensors([which.op(*args), which.op_backward(*backward)]))


@each_backend
@pytest.mark.parametrize(("shape", "dtype", "layout"), GRID, ids=str)
def test_as_exact_as_eager(
    which: FeatureOp,
    backend: str,
    drawn,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    layout: str,
) -> None:
    args = drawn(which, shape, dtype, layout)
    skip_if_refused(which, backend, args)
    grad = like(args)
    with lmwp_ops.use_backend(backend):
        y = which.forward(*args)
        wanted = [True] * which.kinds
        got = list(tensors(which.op_backward(*which.backward_args(grad, args, wanted))))
    assert all(t.is_cuda for t in (y, *got))
    near, wide = on_cpu(args), double(on_cpu(args))
    assert_as_exact([y], [which.eager(*near)], [which.eager(*wide)], roundings=2)
    assert y.stride() == which.forward(*near).stride()
    truth = eager_gradients(which, grad.cpu().double(), wide)
    assert_as_exact(got, eager_gradients(which, grad.cpu(), near), truth, roundings=16)


@each_backend
def test_an_empty_batch(which: FeatureOp, backend: str, drawn) -> None:
    args = drawn(which, (0, 3, 5, 4))
    with lmwp_ops.use_backend(backend):
        results = everything(which, args, like(args))
    assert results[0].shape == (0, 3, 5, 4)
    assert not any(t.any() for t in results)


@each_kernel
@pytest.mark.parametrize("shape", [(8, 33, 112, 112), (300, 33, 23, 23)], ids=str)
def test_results_repeat_bit_for_bit(
    which: FeatureOp, backend: str, drawn, shape: tuple[int, ...]
) -> None:
    args = drawn(which, shape)
    skip_if_refused(which, backend, args)
    grad = like(args)
    with lmwp_ops.use_backend(backend):
        first, second = (everything(which, args, grad) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@each_backend
def test_waits_for_its_stream(which: FeatureOp, backend: str, drawn) -> None:
    """The input is written late on a stream of its own; no other stream orders the call."""
    x, *rest = drawn(which)
    late = torch.zeros_like(x)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with lmwp_ops.use_backend(backend):
        which.forward(x, *rest)  # whatever happens at first use happens now
        with torch.cuda.stream(stream):
            torch.cuda._sleep(CYCLES)
            late.copy_(x)
            y = which.forward(late, *rest)
        stream.synchronize()
        torch.testing.assert_close(y, which.forward(x, *rest))


@each_backend
def test_is_captured_in_a_graph(which: FeatureOp, backend: str, drawn) -> None:
    args = drawn(which)
    grad = like(args)  # drawn on the CPU: no copy from there can be captured
    with lmwp_ops.use_backend(backend), torch.no_grad():
        everything(which, args, grad)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = everything(which, args, grad)
        args[0].copy_(torch.randn_like(args[0]))
        graph.replay()
        torch.cuda.synchronize()
        torch.testing.assert_close(captured, everything(which, args, grad))


@each_backend
def test_opcheck(which: FeatureOp, backend: str, drawn) -> None:
    args = drawn(which, (2, 3, 7, 6))
    with lmwp_ops.use_backend(backend):
        opcheck(which.op, leaves(args))


@pytest.mark.alone
@each_kernel
def test_beyond_32_bit_offsets(which: FeatureOp, backend: str, device: torch.device) -> None:
    side = 27_000
    needed = 3 * side**2 * 40  # bytes; 2.19e9 elements
    if torch.cuda.mem_get_info(device)[0] < needed:
        pytest.skip(f"needs {needed / 2**30:.0f} GiB of free GPU memory")
    _, *rest = convert(which.draw((1, 3, 8, 8), torch.float16), lambda t: t.to(device))
    x = torch.empty(1, 3, side, side, dtype=torch.float16, device=device).normal_()
    skip_if_refused(which, backend, (x, *rest))
    with lmwp_ops.use_backend(backend), torch.no_grad():
        whole = which.op(x, *rest)
    y, *statistics = whole if isinstance(whole, tuple) else (whole,)
    with lmwp_ops.use_backend("reference"), torch.no_grad():
        expected = end_of_expected(which, x, rest, statistics)
    torch.testing.assert_close(y[:, :, -128:, -128:], expected, rtol=1e-2, atol=1e-2)


def end_of_expected(
    which: FeatureOp, x: Tensor, rest: list[Any], statistics: list[Tensor]
) -> Tensor:
    """The last 128 x 128 pixels of the result; what is far from them counts through statistics."""
    if which.name == "channel_spatial_attention":
        return which.forward(x, *rest)[:, :, -128:, -128:]
    if which.name == "multiscale_norm_mix":
        *rest, eps = rest
        _, batch_mean, batch_var = statistics
        scale = rest[2] * torch.rsqrt(batch_var + eps)
        rest[2:4] = scale, rest[3] - batch_mean * scale
    part = x[:, :, -256:, -256:].contiguous()
    return torch.ops.lmwp_ops.multiscale_mix(part, *rest)[:, :, -128:, -128:]
