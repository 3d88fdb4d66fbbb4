"""depthwise_scales on a GPU: right in every layout, in graphs, on streams and beyond 2^31."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.library import opcheck

import lmwp_ops
from lmwp_ops import _dispatch

from ..ops.depthwise_scales.cases import (
    DTYPES,
    LAYOUTS,
    Args,
    Case,
    assert_as_exact_as_eager,
    call,
    double,
    draw,
    eager,
    grid,
)
from ..ops.exactness import assert_as_exact

BACKWARD = "depthwise_scales_backward"
BACKENDS = [name for name in _dispatch.registered()["depthwise_scales"] if name != "cpp"]
CYCLES = 200_000_000  # about a tenth of a second


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, device: torch.device) -> str:
    name: str = request.param
    if reason := _dispatch.registered()["depthwise_scales"][name]:
        pytest.skip(reason)
    return name


@pytest.fixture
def draw_there(on_gpu):
    """The arguments of a case on the GPU."""

    def drawn(case: Case, parameter_dtype: torch.dtype | None = None) -> Args:
        args = draw(case, parameter_dtype)
        return (*([on_gpu(t) for t in kind] for kind in args[:5]), *args[5:])

    return drawn


def flat(args: Args) -> list[Tensor]:
    return [t for kind in args[:5] for t in kind]


def gradients(function, args: Args) -> list[Tensor]:
    wanted = [t.requires_grad_() for t in flat(args)]
    ys = function(args)
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(y.shape, generator=generator).to(y) for y in ys]
    return list(torch.autograd.grad(ys, wanted, grads))


@pytest.mark.parametrize("case", grid(), ids=str)
def test_values(backend: str, draw_there, case: Case) -> None:
    args = draw_there(case)
    with lmwp_ops.use_backend(backend):
        assert_as_exact_as_eager(call(args), args)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_parameters_may_stay_float32(backend: str, draw_there, dtype: torch.dtype) -> None:
    args = draw_there(Case(((2, 7, 15, 17),), dtype=dtype), torch.float32)
    with lmwp_ops.use_backend(backend):
        assert_as_exact_as_eager(call(args), args)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_is_that_of_the_cpu(backend: str, draw_there, layout: str) -> None:
    case = Case(((2, 3, 7, 6),), stride=2, layout=layout)
    with lmwp_ops.use_backend(backend):
        (y,) = call(draw_there(case))
    assert y.is_cuda
    assert y.stride() == call(draw(case))[0].stride()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("stride", "layout"), [(1, "nchw"), (2, "channels_last"), (1, "sliced")])
def test_gradients(backend: str, draw_there, dtype, stride: int, layout: str) -> None:
    args = draw_there(Case(((2, 5, 15, 17), (2, 3, 8, 9)), 5, stride, dtype=dtype, layout=layout))
    truth = gradients(eager, double(args))
    plain = gradients(eager, args)
    with lmwp_ops.use_backend(backend):
        got = gradients(call, args)
    for g, p, t in zip(got, plain, truth, strict=True):
        assert g.is_cuda
        error, plain_error = ((x.cpu().double() - t).abs().max() for x in (g, p))
        floor = 2 * torch.finfo(dtype).eps * t.abs().max().clamp(min=1)
        assert error <= 2 * plain_error + floor


def test_results_repeat_bit_for_bit(backend: str, draw_there) -> None:
    args = draw_there(Case(((4, 33, 56, 57), (4, 20, 28, 29))))
    with lmwp_ops.use_backend(backend):
        first, second = ([*call(args), *gradients(call, args)] for _ in range(2))
        alone = call(([x[1:2] for x in args[0]], *args[1:]))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(a[1:2], b) for a, b in zip(first, alone, strict=False))


@pytest.fixture(params=[name for name in _dispatch.registered()[BACKWARD] if name != "cpp"])
def backward_backend(request: pytest.FixtureRequest, device: torch.device) -> str:
    name: str = request.param
    if reason := _dispatch.registered()[BACKWARD][name]:
        pytest.skip(reason)
    return name


def backward(args: Args, wanted: tuple[bool, ...] = (True,) * 5) -> list[list[Tensor]]:
    """The gradients of every kind for fixed gradients of the outputs."""
    generator = torch.Generator().manual_seed(1)
    shapes = [y.shape for y in eager(args)]
    # Rounded so that every dtype holds the same values.
    drawn = [torch.randn(shape, generator=generator).bfloat16() for shape in shapes]
    grads = [grad.to(args[0][0]) for grad in drawn]
    return list(torch.ops.lmwp_ops.depthwise_scales_backward.default(grads, *args, list(wanted)))


@pytest.mark.parametrize("case", grid(), ids=str)
def test_every_gradient(backward_backend: str, draw_there, case: Case) -> None:
    args = draw_there(case)
    wanted = (True, True, *[case.epilogue] * 3)
    truth = backward(double(args), wanted)
    with lmwp_ops.use_backend("reference"):
        plain = backward(args, wanted)
    with lmwp_ops.use_backend(backward_backend):
        got = backward(args, wanted)
    for g, p, t in zip(got, plain, truth, strict=True):
        assert_as_exact(g, p, t, roundings=16)
        assert [a.stride() for a in g] == [b.stride() for b in p]


@pytest.mark.parametrize("mask", list(itertools.product([False, True], repeat=5)), ids=str)
@pytest.mark.parametrize("stride", [1, 2])
def test_every_mask_of_wanted_kinds(
    backward_backend: str, draw_there, mask: tuple[bool, ...], stride: int
) -> None:
    args = draw_there(Case(((2, 3, 40, 64), (1, 2, 9, 7)), stride=stride))
    with lmwp_ops.use_backend(backward_backend):
        everything, some = backward(args), backward(args, mask)
    for all_of_kind, kind, want in zip(everything, some, mask, strict=True):
        assert len(kind) == (2 if want else 0)
        for a, b in zip(all_of_kind, kind, strict=False):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_gradients_repeat_bit_for_bit(backward_backend: str, draw_there, layout: str) -> None:
    args = draw_there(Case(((8, 33, 112, 112), (8, 20, 28, 29)), layout=layout))
    with lmwp_ops.use_backend(backward_backend):
        first, second = ([g for kind in backward(args) for g in kind] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_gradients_of_an_empty_batch_are_zero(backward_backend: str, draw_there) -> None:
    args = draw_there(Case(((0, 3, 5, 4),)))
    with lmwp_ops.use_backend(backward_backend):
        (grad_x,), *parameters = backward(args)
    assert grad_x.shape == (0, 3, 5, 4)
    assert not any(g.any() for kind in parameters for g in kind)


def test_empty_batch(backend: str, draw_there) -> None:
    with lmwp_ops.use_backend(backend):
        assert call(draw_there(Case(((0, 3, 5, 4),))))[0].shape == (0, 3, 5, 4)


def test_autocast(backend: str, draw_there) -> None:
    args = draw_there(Case(((2, 5, 15, 17),)))
    with lmwp_ops.use_backend(backend), torch.autocast("cuda", torch.float16):
        (y,) = call(args)
    half = ([x.half() for x in args[0]], *args[1:])
    assert y.dtype == torch.float16
    assert_as_exact_as_eager([y], half)


def test_waits_for_its_stream(backend: str, draw_there) -> None:
    """The inputs are written late on a stream of their own; no other stream orders the call."""
    args = draw_there(Case(((2, 20, 56, 56),)))
    late = [torch.zeros_like(x) for x in args[0]]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with lmwp_ops.use_backend(backend):
        call(args)  # whatever happens at first use happens now
        with torch.cuda.stream(stream):
            torch.cuda._sleep(CYCLES)
            for target, x in zip(late, args[0], strict=True):
                target.copy_(x)
            ys = call((late, *args[1:]))
        stream.synchronize()
        expected = call(args)
    assert all(torch.equal(y, e) for y, e in zip(ys, expected, strict=True))


def test_is_captured_in_a_graph(backend: str, draw_there) -> None:
    args = draw_there(Case(((2, 20, 28, 28), (2, 10, 14, 14))))
    with lmwp_ops.use_backend(backend), torch.no_grad():
        call(args)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            ys = call(args)
        for x in args[0]:
            x.copy_(torch.randn_like(x))
        graph.replay()
        expected = call(args)
    torch.cuda.synchronize()
    assert all(torch.equal(y, e) for y, e in zip(ys, expected, strict=True))


def test_compiles_into_one_graph(backend: str, draw_there) -> None:
    args = draw_there(Case(((2, 5, 15, 17), (2, 3, 8, 9))))

    def function(args: Args) -> list[Tensor]:
        ys = call((([x * 2 for x in args[0]]), *args[1:]))
        return [y.relu() for y in ys]

    torch._dynamo.reset()
    with lmwp_ops.use_backend(backend):
        compiled = torch.compile(function, fullgraph=True)
        torch.testing.assert_close(gradients(compiled, args), gradients(function, args))


def test_opcheck(backend: str, draw_there) -> None:
    args = draw_there(Case(((2, 3, 5, 6), (1, 2, 4, 3)), dilation=2))
    for t in flat(args):
        t.requires_grad_()
    with lmwp_ops.use_backend(backend):
        opcheck(torch.ops.lmwp_ops.depthwise_scales.default, args)


@pytest.mark.alone
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_beyond_32_bit_offsets(backend: str, device: torch.device, layout: str) -> None:
    if backend == "reference":
        pytest.skip("the convolutions of torch are not what is tested")
    channels, side = 3, 27_000  # 2.19e9 elements
    needed = 3 * 2 * channels * side**2
    if torch.cuda.mem_get_info(device)[0] < needed:
        pytest.skip(f"needs {needed / 2**30:.0f} GiB of free GPU memory")
    x = torch.empty(1, channels, side, side, dtype=torch.float16, device=device)
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    x.normal_()
    w = torch.randn(channels, 1, 3, 3, device=device)
    with lmwp_ops.use_backend(backend):
        (y,) = lmwp_ops.depthwise_scales([x], [w])
        for rows in (slice(0, 4), slice(side - 4, side)):
            part = x[:, :, rows, -64:].contiguous()
            inner = slice(0, 3) if rows.start == 0 else slice(1, 4)
            (expected,) = lmwp_ops.depthwise_scales([part], [w])
            got = y[:, :, rows, -64:]
            assert torch.equal(got[:, :, inner, 1:], expected[:, :, inner, 1:])


def test_mixed_devices_are_an_error(backend: str, device: torch.device) -> None:
    x, w = torch.randn(1, 3, 5, 4, device=device), torch.randn(3, 1, 3, 3)
    with lmwp_ops.use_backend(backend), pytest.raises(ValueError, match="device"):
        lmwp_ops.depthwise_scales([x], [w])


def test_the_fastest_backend_is_chosen(device: torch.device) -> None:
    usable = [name for name in BACKENDS if not _dispatch.registered()["depthwise_scales"][name]]
    x, w = torch.randn(1, 3, 5, 4, device=device), torch.randn(3, 1, 3, 3, device=device)
    explanation = lmwp_ops.explain("depthwise_scales", [x], [w])
    assert usable[0] in str(explanation)
