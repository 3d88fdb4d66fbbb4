"""Gradients of public functions, past torch's dispatcher and through it."""

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import lmwp_ops
from lmwp_ops import _autograd, _dispatch
from lmwp_ops._examples import convert, tensors

DIFFERENTIABLE = sorted(
    op for op in _dispatch.registered() if f"{op}_backward" in _dispatch.registered()
)
CPU = torch.device("cpu")


def arguments(op: str) -> tuple[Any, ...]:
    args = _dispatch.op_named(op).example(CPU, torch.float32, None)
    leaves = {}

    def require(t: Tensor) -> Tensor:
        if not t.is_floating_point():
            return t
        return leaves.setdefault(id(t), t.requires_grad_())

    return convert(args, require)


def leaves_of(args: tuple[Any, ...]) -> list[Tensor]:
    return [t for t in tensors(args) if t.requires_grad]


def differentiable(outputs: Any) -> list[Tensor]:
    return [y for y in tensors(outputs) if y.requires_grad]


def gradients(run: Callable[..., Any], args: tuple[Any, ...]) -> list[Tensor | None]:
    ys = differentiable(run(*args))
    torch.manual_seed(0)
    grads = [torch.randn_like(y) for y in ys]
    return list(torch.autograd.grad(ys, leaves_of(args), grads, allow_unused=True))


class Seen(TorchDispatchMode):
    """The names of all ops that pass the dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def invoked(op: str) -> Callable[..., Any]:
    return lambda *args: _autograd.invoke(op, lambda *_: None, args)


@pytest.mark.parametrize("op", DIFFERENTIABLE)
def test_both_ways_give_the_same(op: str) -> None:
    args = arguments(op)
    direct = invoked(op)(*args)
    through = getattr(torch.ops.lmwp_ops, op).default(*args)
    assert type(direct) is type(through)
    for ours, theirs in zip(tensors(direct), tensors(through), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.requires_grad == theirs.requires_grad
    found = gradients(invoked(op), args)
    expected = gradients(getattr(torch.ops.lmwp_ops, op).default, args)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or torch.equal(ours, theirs)


@pytest.mark.parametrize("op", DIFFERENTIABLE)
def test_both_ways_give_the_same_under_autocast(op: str) -> None:
    args = arguments(op)
    with torch.autocast("cpu", torch.bfloat16):
        direct = list(tensors(invoked(op)(*args)))
        through = list(tensors(getattr(torch.ops.lmwp_ops, op).default(*args)))
        found = gradients(invoked(op), args)
        expected = gradients(getattr(torch.ops.lmwp_ops, op).default, args)
    assert direct[0].dtype == torch.bfloat16
    for ours, theirs in zip(direct + found, through + expected, strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or (ours.dtype == theirs.dtype and torch.equal(ours, theirs))


@pytest.mark.parametrize("op", DIFFERENTIABLE)
def test_only_what_is_wanted_is_given(op: str) -> None:
    args = arguments(op)
    everything = gradients(invoked(op), args)
    alone = leaves_of(args)[-1]
    for leaf in leaves_of(args):
        leaf.requires_grad_(leaf is alone)
    (found,) = gradients(invoked(op), args)
    assert found is not None
    torch.testing.assert_close(found, everything[-1])


def depthwise(x: Tensor, w: Tensor) -> Tensor:
    return lmwp_ops.depthwise_scales([x], [w])[0]


def inputs() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(1, 3, 6, 5, requires_grad=True), torch.randn(3, 1, 3, 3, requires_grad=True)


def test_a_dispatch_mode_sees_the_op_and_its_gradient() -> None:
    x, w = inputs()
    with Seen() as seen:
        depthwise(x, w).sum().backward()
    assert "lmwp_ops::depthwise_scales" in seen.names
    assert "lmwp_ops::depthwise_scales_backward" in seen.names


def test_a_mode_around_the_backward_pass_alone_sees_the_gradient() -> None:
    x, w = inputs()
    y = depthwise(x, w).sum()
    with Seen() as seen:
        y.backward()
    assert "lmwp_ops::depthwise_scales_backward" in seen.names


def test_shapes_alone_can_be_computed() -> None:
    x, w = (t.to("meta") for t in inputs())
    for with_gradients in (True, False):
        with torch.set_grad_enabled(with_gradients):
            assert depthwise(x, w).shape == x.shape


def test_vmap_is_refused_by_the_name_of_the_op() -> None:
    _, w = inputs()
    with pytest.raises(RuntimeError, match="Batching rule not implemented for lmwp_ops::depthwise"):
        torch.func.vmap(lambda x: depthwise(x, w.detach()))(torch.randn(3, 1, 3, 6, 5))


def test_checkpointing_gets_the_same() -> None:
    x, w = inputs()
    expected = torch.autograd.grad(depthwise(x, w).sum(), [x, w])
    y = checkpoint(depthwise, x, w, use_reentrant=False)
    found = torch.autograd.grad(y.sum(), [x, w])
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_nothing_outlives_the_graph() -> None:
    x, w = inputs()
    y = depthwise(x * 1, w)
    saved = weakref.ref(y.grad_fn)
    held = weakref.ref(y)
    y.sum().backward()
    del y
    assert saved() is None
    assert held() is None


def test_an_input_changed_in_place_is_noticed() -> None:
    x, w = inputs()
    inner = x * 1
    y = depthwise(inner, w)
    with torch.no_grad():
        inner.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_second_backward_pass_needs_the_graph_kept() -> None:
    x, w = inputs()
    y = depthwise(x, w).sum()
    y.backward(retain_graph=True)
    y.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.backward()
