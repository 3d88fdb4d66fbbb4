"""The ops on one feature: how their arguments are drawn, called and judged, whatever the op."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import lmwp_ops
from lmwp_ops._examples import convert, tensors

from .channel_spatial_attention import cases as attention
from .exactness import assert_as_exact
from .multiscale_mix import cases as mixes

Args = tuple[Any, ...]


@dataclass(frozen=True)
class FeatureOp:
    """`draw(shape, dtype, layout)` gives arguments of the op, `public(*args)` calls its function
    and `eager(*args)` what a user of plain torch writes; `kinds` of tensors have gradients."""

    name: str
    draw: Callable[..., Args]
    eager: Callable[..., Tensor]
    public: Callable[..., Tensor]
    kinds: int
    kept: int = 0

    @property
    def op(self) -> Any:
        return getattr(torch.ops.lmwp_ops, self.name).default

    @property
    def op_backward(self) -> Any:
        return getattr(torch.ops.lmwp_ops, f"{self.name}_backward").default

    def forward(self, *args: Any) -> Tensor:
        """The result that has a gradient."""
        return next(tensors([self.op(*args)]))

    def backward_args(self, grad: Tensor, args: Args, wanted: list[bool]) -> Args:
        kept = self.op(*args)[-self.kept :] if self.kept else ()
        return grad, *args[: self.kinds], *kept, *args[self.kinds :], wanted

    def __str__(self) -> str:
        return self.name


def _mix(u: Tensor, weights: Tensor, mix: Tensor, *rest: Any) -> Tensor:
    scale, shift, octaves, dilations = rest
    branches = list(zip(octaves, dilations, strict=True))
    return lmwp_ops.multiscale_mix(u, weights, mix, branches, (scale, shift))


def _norm_mix(u: Tensor, weights: Tensor, mix: Tensor, *rest: Any) -> Tensor:
    gamma, beta, octaves, dilations, eps = rest
    branches = list(zip(octaves, dilations, strict=True))
    return lmwp_ops.multiscale_norm_mix(u, weights, mix, gamma, beta, branches, eps=eps)[0]


def _attention(x: Tensor, reduce: list[Tensor], expand: list[Tensor], *rest: Any) -> Tensor:
    spatial, mean, max = rest
    layers = [tuple(layer) if layer else None for layer in (reduce, expand)]
    return lmwp_ops.channel_spatial_attention(x, *layers, spatial, mean=mean, max=max)


FEATURE_OPS = [
    FeatureOp("multiscale_mix", mixes.draw, mixes.eager, _mix, 5),
    FeatureOp("multiscale_norm_mix", mixes.draw_norm, mixes.eager, _norm_mix, 5, kept=2),
    FeatureOp("channel_spatial_attention", attention.draw, attention.eager, _attention, 4),
]


def leaves(args: Args) -> Args:
    """The same arguments, all tensors of which ask for a gradient."""
    return convert(args, lambda t: t.detach().requires_grad_())


def double(args: Args) -> Args:
    return convert(args, lambda t: t.detach().double())


def eager_gradients(which: FeatureOp, grad: Tensor, args: Args) -> list[Tensor]:
    """By torch's own backward."""
    args = leaves(args)
    return list(torch.autograd.grad(which.eager(*args), list(tensors(args)), grad))


def assert_forward_is_exact(which: FeatureOp, args: Args, *, roundings: int = 2) -> None:
    got, plain, truth = which.forward(*args), which.eager(*args), which.eager(*double(args))
    assert_as_exact([got], [plain], [truth], roundings=roundings)


def assert_gradients_are_exact(which: FeatureOp, args: Args, *, roundings: int = 16) -> None:
    """As exact as eager's; a few roundings are for sums in another order."""
    grad = torch.randn(args[0].shape, dtype=torch.float64).to(args[0].dtype)
    wanted = [True] * which.kinds
    got = list(tensors(which.op_backward(*which.backward_args(grad, args, wanted))))
    truth = eager_gradients(which, grad.double(), double(args))
    assert_as_exact(got, eager_gradients(which, grad, args), truth, roundings=roundings)
