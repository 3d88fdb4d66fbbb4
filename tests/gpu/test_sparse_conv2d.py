"""sparse_conv2d on a GPU: right in every format, in graphs, on streams and beyond 2^31."""

import pytest
import torch
from torch import Tensor
from torch.library import opcheck

import lmwp_ops
from lmwp_ops import SparseConvWeight, _dispatch
from lmwp_ops._examples import convert, tensors
from lmwp_ops.ops.sparse_conv2d import reference

from ..ops.exactness import LAYOUTS, assert_as_exact
from ..ops.sparse_conv2d.cases import CASES, Args, Case, double, draw, eager

op = torch.ops.lmwp_ops.sparse_conv2d.default
op_backward = torch.ops.lmwp_ops.sparse_conv2d_backward.default

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
BACKENDS = [name for name in _dispatch.registered()["sparse_conv2d"] if name != "cpp"]
KERNELS = [name for name in BACKENDS if name != "reference"]
CYCLES = 200_000_000  # about a tenth of a second
# Convolutions of networks: vectors, blocks on tensor cores, channels in several blocks.
LARGE = (
    Case((2, 256, 28, 28), 256, "unstructured", density=0.1),
    Case((2, 320, 14, 14), 640, "block", block=(16, 16), density=0.2),
    Case((2, 128, 56, 56), 128, "block", block=(16, 1), density=0.2),
    Case((2, 64, 56, 56), 128, "block", block=(4, 1), density=0.2),
    Case((2, 160, 28, 28), 160, "channels", density=0.5),
    Case((2, 80, 28, 28), 80, "channels", (3, 3), padding=(1, 1), density=0.5),
    Case((2, 40, 56, 56), 40, "taps", (3, 3), groups=40, padding=(1, 1), density=0.6),
)
SMALL = (CASES[0], CASES[8], CASES[10], CASES[13], CASES[22], CASES[23])


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, device: torch.device) -> str:
    name: str = request.param
    if reason := _dispatch.registered()["sparse_conv2d"][name]:
        pytest.skip(reason)
    return name


@pytest.fixture
def drawn(on_gpu, backend: str):
    """Arguments on the GPU that the backend can compute."""

    def draw_there(case: Case, dtype: torch.dtype = torch.float32, layout: str = "nchw") -> Args:
        torch.manual_seed(0)
        args = convert(draw(case, dtype, layout), on_gpu)
        candidate = _dispatch.op_named("sparse_conv2d").candidates[backend]
        if reason := candidate.refuse(*args):
            pytest.skip(reason)
        return args

    return draw_there


def on_cpu(args: Args) -> Args:
    return convert(args, Tensor.cpu)


def wanted_kinds(args: Args) -> list[bool]:
    return [True, True, False, *(bool(kind) for kind in args[3:7])]


def gradients(args: Args) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    y = op(*args)
    grad = torch.randn(y.shape, generator=generator).to(y)
    return list(tensors(op_backward(grad, *args, wanted_kinds(args))))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", [*CASES, *LARGE], ids=str)
def test_values(drawn, backend: str, case: Case, dtype: torch.dtype) -> None:
    args = drawn(case, dtype)
    with lmwp_ops.use_backend(backend):
        y = op(*args)
    near = on_cpu(args)
    assert_as_exact([y], [eager(near)], [eager(double(near))], roundings=16)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", [*CASES, *LARGE], ids=str)
def test_gradients(drawn, backend: str, case: Case, dtype: torch.dtype) -> None:
    if backend not in _dispatch.registered()["sparse_conv2d_backward"]:
        pytest.skip("it has no gradients")
    args = drawn(case, dtype)
    with lmwp_ops.use_backend(backend):
        found = gradients(args)
    near = on_cpu(args)
    with lmwp_ops.use_backend("reference"):
        plain, truth = gradients(near), gradients(double(near))
    assert_as_exact(found, plain, truth, roundings=32)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_layout_is_that_of_the_cpu(drawn, backend: str, case: Case, layout: str) -> None:
    args = drawn(case, torch.float32, layout)
    with lmwp_ops.use_backend(backend):
        y = op(*args)
    expected = reference.forward(*on_cpu(args))
    assert y.is_cuda
    assert y.stride() == expected.stride()
    torch.testing.assert_close(y.cpu(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_parameters_may_stay_float32(drawn, backend: str, case: Case, dtype) -> None:
    x, *rest = drawn(case)
    args = (x.to(dtype), *rest)
    if reason := _dispatch.op_named("sparse_conv2d").candidates[backend].refuse(*args):
        pytest.skip(reason)
    with lmwp_ops.use_backend(backend):
        y = op(*args)
    assert y.dtype == dtype
    near = on_cpu(args)
    assert_as_exact([y], [eager(near)], [eager(double(near))], roundings=16)


@pytest.mark.parametrize("case", LARGE, ids=str)
def test_results_repeat_bit_for_bit(drawn, backend: str, case: Case) -> None:
    if backend not in KERNELS:
        pytest.skip("torch's own convolutions promise nothing")
    args = drawn(case)
    with lmwp_ops.use_backend(backend):
        first, second = op(*args), op(*args)
    assert torch.equal(first, second)
    with lmwp_ops.use_backend("triton"):
        once, again = gradients(args), gradients(args)
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_waits_for_its_stream(drawn, backend: str, case: Case) -> None:
    """The input is written late on a stream of its own; no other stream orders the call."""
    x, *rest = drawn(case)
    late, stream = torch.zeros_like(x), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with lmwp_ops.use_backend(backend):
        op(x, *rest)  # whatever happens at first use happens now
        with torch.cuda.stream(stream):
            torch.cuda._sleep(CYCLES)
            late.copy_(x)
            y = op(late, *rest)
        stream.synchronize()
        torch.testing.assert_close(y, op(x, *rest))


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_is_captured_in_a_graph(drawn, backend: str, case: Case) -> None:
    """Backward, too: nothing in it waits for the GPU."""
    if backend not in KERNELS:
        pytest.skip("the reference looks where values are kept")
    args = drawn(case)
    with torch.no_grad(), lmwp_ops.use_backend(backend):
        y = op(*args)
    grad = torch.randn_like(y)

    def everything() -> list[Tensor]:
        with lmwp_ops.use_backend(backend):
            y = op(*args)
        with lmwp_ops.use_backend("triton"):
            return [y, *tensors(op_backward(grad, *args, wanted_kinds(args)))]

    with torch.no_grad():
        everything()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = everything()
        args[0].copy_(torch.randn_like(args[0]))
        graph.replay()
        torch.cuda.synchronize()
        torch.testing.assert_close(captured, everything())


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_opcheck(drawn, backend: str, case: Case) -> None:
    args = drawn(case)
    with lmwp_ops.use_backend(backend):
        opcheck(op, args)


@pytest.mark.parametrize("rows", [1, 16])
def test_beyond_32_bit_offsets(backend: str, device: torch.device, rows: int) -> None:
    channels, side = 16, 12_000  # 2.3e9 elements
    needed = 6 * channels * side**2
    if backend == "reference" or torch.cuda.mem_get_info(device)[0] < needed:
        pytest.skip(f"needs {needed / 2**30:.0f} GiB of free GPU memory, the reference far more")
    dense = torch.randn(16, channels, 1, 1)
    mask = torch.ones_like(dense)
    format, block = ("block", (16, 16)) if rows == 16 else ("unstructured", None)
    weight = SparseConvWeight.from_dense(dense.half().to(device), mask, format, block=block)
    x = torch.empty(1, channels, side, side, dtype=torch.float16, device=device).normal_()
    sparse = _dispatch.op_named("sparse_conv2d")
    if reason := sparse.candidates[backend].refuse(*sparse.bind(x, weight)):
        pytest.skip(reason)
    with lmwp_ops.use_backend(backend), torch.no_grad():
        y = lmwp_ops.sparse_conv2d(x, weight)
    for corner in (slice(0, 64), slice(side - 64, side)):
        part = x[:, :, corner, corner].contiguous()
        expected = torch.nn.functional.conv2d(part.float(), weight.to_dense().float())
        torch.testing.assert_close(y[:, :, corner, corner].float(), expected, rtol=1e-2, atol=2e-2)
