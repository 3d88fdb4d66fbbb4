"""Gradients of the convolution ops: how they are drawn and judged, whatever the op."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .exactness import assert_as_exact, errors_in_roundings
from .goctconv2d.cases import in_dtype

Backward = Callable[..., Sequence[Sequence[Tensor]]]


def draw_gradients(forward: Callable[..., list[Tensor]], args: tuple[Any, ...]) -> list[Tensor]:
    """Gradients of the results of `forward(*args)`, with their dtype and layout."""
    return [torch.randn_like(y) for y in forward(*args)]


def wanted_kinds(args: tuple[Any, ...]) -> list[bool]:
    """Every kind of gradient whose tensors there are."""
    return [True, True, *(bool(kind) for kind in args[2:5])]


def flat(kinds: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    return [t for kind in kinds for t in kind]


def truth(reference: Backward, grads: list[Tensor], args: tuple[Any, ...]) -> list[Tensor]:
    """The gradients in float64, on the CPU."""
    wide = [g.to("cpu", torch.float64) for g in grads]
    return flat(reference(wide, *in_dtype(args, torch.float64), wanted_kinds(args)))


def assert_gradients_are_exact(
    backward: Backward, reference: Backward, grads: list[Tensor], args: tuple[Any, ...]
) -> None:
    """As exact as those of `reference`, which also runs in float64 for the truth."""
    wanted = wanted_kinds(args)
    got = flat(backward(grads, *args, wanted))
    assert_as_exact(
        got,
        flat(reference(grads, *args, wanted)),
        truth(reference, grads, args),
        roundings=16,
    )


def gradient_errors(
    backward: Backward, reference: Backward, grads: list[Tensor], args: tuple[Any, ...]
) -> list[float]:
    """Largest errors in units of the dtype's rounding of the largest value."""
    got = flat(backward(grads, *args, wanted_kinds(args)))
    return errors_in_roundings(got, truth(reference, grads, args))
