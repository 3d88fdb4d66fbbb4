"""il_block on a GPU: right for all widths and layouts, in graphs, on streams and beyond 2^31."""

import pytest
import torch
from torch import Tensor
from torch.library import opcheck

import lmwp_ops
from lmwp_ops import _dispatch
from lmwp_ops.ops.il_block import reference

from ..ops.exactness import assert_as_exact
from ..ops.goctconv2d.cases import DTYPES, Case, grid
from ..ops.il_block.cases import CASES, draw, truth

op = torch.ops.lmwp_ops.il_block.default

BACKENDS = [name for name in _dispatch.registered()["il_block"] if name != "cpp"]
CYCLES = 200_000_000  # about a tenth of a second
GRID = [case for case in grid() if case.cross_scale and not case.bilinear_down]
# CSNet's blocks at 224 x 224: entries, middles and ends of stages.
CSNET = [
    Case((3,), (10, 10), (224, 224), 3),
    Case((10, 10), (10, 10), (224, 224)),
    Case((10, 10), (20, 20), (224, 224), 3, entry_pool=True),
    Case((20, 20), (40,), (112, 112)),
    Case((40,), (40, 40), (112, 112), 3, entry_pool=True),
    Case((40, 40), (40, 40), (28, 28)),
    Case((40, 40), (80,), (28, 28), dtype=torch.float16),
    Case((40, 40), (40, 40), (28, 28), batch=8, dtype=torch.bfloat16),
]
# More channels than a block stages at once, or computes.
WIDE = [Case((150, 70), (130, 33), (16, 12)), Case((70, 33), (33, 130), (16, 12), 3)]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, device: torch.device) -> str:
    name: str = request.param
    if reason := _dispatch.registered()["il_block"][name]:
        pytest.skip(reason)
    return name


@pytest.fixture
def draw_there(on_gpu):
    """The arguments of a case on the GPU, and those on the CPU."""

    def drawn(case: Case):
        args = draw(case)
        moved = tuple(
            on_gpu(arg)
            if isinstance(arg, Tensor)
            else [on_gpu(t) if isinstance(t, Tensor) else t for t in arg]
            if isinstance(arg, list)
            else arg
            for arg in args
        )
        return moved, args

    return drawn


@pytest.mark.parametrize("case", [*CASES, *CSNET, *WIDE, *GRID], ids=str)
def test_values(backend: str, draw_there, case: Case) -> None:
    args, there = draw_there(case)
    with lmwp_ops.use_backend(backend):
        ys = op(*args)
    assert_as_exact(ys, reference.forward(*args), truth(there), roundings=16)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_parameters_may_stay_float32(backend: str, draw_there, dtype: torch.dtype) -> None:
    (_, *parameters), (_, *there) = draw_there(Case((6, 5), (5, 6), (20, 34), 3))
    xs = [torch.randn(1, c, 20 >> b, 34 >> b).to(dtype) for b, c in enumerate((6, 5))]
    args = ([x.cuda() for x in xs], *parameters)
    with lmwp_ops.use_backend(backend):
        ys = op(*args)
    assert all(y.dtype == dtype for y in ys)
    assert_as_exact(ys, reference.forward(*args), truth((xs, *there)), roundings=16)


@pytest.mark.parametrize("layout", ["nchw", "channels_last", "sliced"])
def test_layout_is_that_of_the_cpu(backend: str, draw_there, layout: str) -> None:
    args, there = draw_there(Case((4, 3), (3, 5), (8, 12), layout=layout))
    with lmwp_ops.use_backend(backend):
        ys = op(*args)
    for y, expected in zip(ys, op(*there), strict=True):
        assert y.is_cuda
        assert y.stride() == expected.stride()


@pytest.mark.parametrize("case", [CSNET[1], CSNET[2], CSNET[7]], ids=str)
def test_results_repeat_bit_for_bit(backend: str, draw_there, case: Case) -> None:
    args, _ = draw_there(case)
    with lmwp_ops.use_backend(backend):
        first, second = op(*args), op(*args)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("kernel", [1, 3])
def test_waits_for_its_stream(backend: str, draw_there, kernel: int) -> None:
    """The inputs are written late on a stream of their own; no other stream orders the call."""
    (xs, *rest), _ = draw_there(Case((10, 10), (10, 10), (56, 56), kernel))
    late, stream = [torch.zeros_like(x) for x in xs], torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with lmwp_ops.use_backend(backend):
        op(xs, *rest)  # whatever happens at first use happens now
        with torch.cuda.stream(stream):
            torch.cuda._sleep(CYCLES)
            for target, x in zip(late, xs, strict=True):
                target.copy_(x)
            ys = op(late, *rest)
        stream.synchronize()
        expected = op(xs, *rest)
    assert all(torch.equal(y, e) for y, e in zip(ys, expected, strict=True))


@pytest.mark.parametrize("kernel", [1, 3])
def test_is_captured_in_a_graph(backend: str, draw_there, kernel: int) -> None:
    args, _ = draw_there(Case((10, 10), (10, 10), (56, 56), kernel))
    with lmwp_ops.use_backend(backend):
        op(*args)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            ys = op(*args)
        for x in args[0]:
            x.copy_(torch.randn_like(x))
        graph.replay()
        expected = op(*args)
    torch.cuda.synchronize()
    assert all(torch.equal(y, e) for y, e in zip(ys, expected, strict=True))


def test_compiles_into_one_graph(backend: str, draw_there) -> None:
    args, _ = draw_there(Case((4, 3), (3, 5), (8, 12)))

    def function(*args) -> list[Tensor]:
        return [y.relu() for y in op([x * 2 for x in args[0]], *args[1:])]

    torch._dynamo.reset()
    with lmwp_ops.use_backend(backend), torch.no_grad():
        compiled = torch.compile(function, fullgraph=True)
        torch.testing.assert_close(compiled(*args), function(*args))


@pytest.mark.parametrize("case", [CASES[3], CASES[11], CASES[13], CASES[15]], ids=str)
def test_opcheck(backend: str, draw_there, case: Case) -> None:
    args, _ = draw_there(case)
    with lmwp_ops.use_backend(backend):
        opcheck(op, args)


def test_nan_reaches_every_output(backend: str, draw_there) -> None:
    """As in torch, a maximum over a window with NaN is NaN."""
    (xs, *rest), _ = draw_there(Case((3, 2), (2, 3), (8, 12)))
    xs[0][0, 1, 5, 7] = torch.nan
    with lmwp_ops.use_backend(backend):
        ys = op(xs, *rest)
    for y, expected in zip(ys, reference.forward(xs, *rest), strict=True):
        assert torch.equal(y.isnan(), expected.isnan())


def test_one_launch_computes_a_block(backend: str, draw_there) -> None:
    if backend != "cuda":
        pytest.skip("the reference launches a kernel for every step")
    args, _ = draw_there(CSNET[1])
    with lmwp_ops.use_backend(backend):
        op(*args)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            op(*args)
            torch.cuda.synchronize()
    kernels = [event for event in profile.events() if "il_block" in event.name]
    assert len(kernels) == 1


@pytest.mark.alone
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_beyond_32_bit_offsets(backend: str, device: torch.device, layout: str) -> None:
    channels, side = 3, 27_000  # 2.19e9 elements
    needed = 3 * 2 * channels * side**2
    if backend == "reference" or torch.cuda.mem_get_info(device)[0] < needed:
        pytest.skip(f"needs {needed / 2**30:.0f} GiB of free GPU memory, the reference far more")
    x = torch.empty(1, channels, side, side, dtype=torch.float16, device=device)
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    x.normal_()
    weight = torch.randn(channels, channels, 1, 1, device=device)
    depthwise = [[torch.randn(channels, 1, 3, 3, device=device)] for _ in range(2)]

    def block(x: Tensor) -> Tensor:
        (y,) = lmwp_ops.il_block([x], weight, [channels], [channels], depthwise)
        return y

    with lmwp_ops.use_backend(backend), torch.no_grad():
        y = block(x)
        for rows in (slice(0, 16), slice(side - 16, side)):
            expected = block(x[:, :, rows, -64:].contiguous())
            inner = slice(0, 14) if rows.start == 0 else slice(2, 16)
            assert torch.equal(y[:, :, rows, -64:][:, :, inner, 2:], expected[:, :, inner, 2:])


def test_what_the_kernel_cannot_take_runs_elsewhere(device: torch.device) -> None:
    x = torch.randn(1, 2, 256, 256, device=device)
    widths = [2] + [0] * 7 + [2]
    args = ([x], torch.randn(4, 2, 1, 1, device=device), [2], widths)
    depthwise = [[torch.randn(2, 1, 3, 3, device=device) for _ in range(2)]] * 2
    assert "at most 8 branches" in str(lmwp_ops.explain("il_block", *args, depthwise))
    with torch.no_grad():
        assert lmwp_ops.il_block(*args, depthwise)[1].shape == (1, 2, 1, 1)
