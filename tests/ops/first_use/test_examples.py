"""What kernels are checked with reaches every argument, and right kernels pass with it."""

import pytest
import torch

from lmwp_ops import _dispatch
from lmwp_ops._examples import convert, double, tensors
from lmwp_ops._verification import mismatch

OPS = sorted(_dispatch.registered())
CPU = torch.device("cpu")
WITH_CPU_KERNEL = [name for name in OPS if "cpp" in _dispatch.op_named(name).candidates]
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def results(op: _dispatch.Op, backend: str, args: tuple) -> list[torch.Tensor]:
    return list(tensors(op.candidates[backend].run(*args)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", WITH_CPU_KERNEL)
def test_the_cpu_kernel_passes(name: str, dtype: torch.dtype) -> None:
    op = _dispatch.op_named(name)
    if reason := op.candidates["cpp"].unavailable:
        pytest.skip(reason)
    args = op.example(CPU, dtype, None)
    plain = results(op, "reference", args)
    truth = results(op, "reference", convert(args, double))
    assert all(t.dtype == torch.float64 for t in truth)
    assert mismatch(results(op, "cpp", args), plain, truth) is None


def changed_by_halves(t: torch.Tensor) -> torch.Tensor:
    """Moved, its halves by different amounts: what moves all of a softmax's arguments is lost."""
    first = torch.arange(t.numel()).view(t.shape) < (t.numel() + 1) // 2
    return t + torch.where(first, 0.5, 1.0).to(t.dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OPS)
def test_every_argument_matters(name: str, dtype: torch.dtype) -> None:
    op = _dispatch.op_named(name)
    args = op.example(CPU, dtype, None)
    plain = results(op, "reference", args)
    truth = results(op, "reference", convert(args, double))
    for changed in filter(torch.is_floating_point, tensors(args)):
        others = convert(args, lambda t, one=changed: changed_by_halves(t) if t is one else t)
        assert mismatch(results(op, "reference", others), plain, truth), list(changed.shape)


@pytest.mark.parametrize("name", OPS)
def test_the_same_everywhere_without_touching_the_generator(name: str) -> None:
    example = _dispatch.op_named(name).example
    state = torch.get_rng_state()
    first = list(tensors(example(CPU, torch.float32, None)))
    with torch.device("meta"), torch.autocast("cpu", torch.bfloat16):
        again = list(tensors(example(CPU, torch.float32, None)))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("name", [name for name in OPS if not name.endswith("_backward")])
def test_takes_the_shapes_of_a_user(name: str) -> None:
    op = _dispatch.op_named(name)
    shapes = [(3, 4, 16, 24), (3, 2, 8, 12)]
    args = op.example(CPU, torch.float32, shapes)
    if isinstance(args[0], torch.Tensor):
        shapes = shapes[:1]  # it has one feature
    assert [tuple(x.shape) for x in tensors(args[:1])] == shapes
    count = 1 if name == "guided_fusion" else len(shapes)  # it makes one feature of two
    ys = results(op, "reference", args)[:count]
    halved = name == "stem_conv2d"  # its stride is 2
    assert [tuple(y.shape[2:]) for y in ys] == [(16, 24), (8, 12)][halved : halved + count]
    if (backward := f"{name}_backward") in OPS:
        grad, x, *_, wanted = _dispatch.op_named(backward).example(CPU, torch.float32, shapes)
        grads, xs = list(tensors([grad])), list(tensors([x]))
        assert [tuple(x.shape) for x in xs] == shapes
        assert [g.shape for g in grads] == [y.shape for y in ys]
        assert not torch.equal(grads[0], xs[0])
        assert all(wanted)
