"""Whether a variant is right, which comes before how fast it is.

The truth is the float64 reference. A variant may miss it by twice what plain eager PyTorch misses
it by at the same dtype, plus a floor that scales with the outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

EAGER_FACTOR = 2.0
_ROUNDINGS = 4  # a network rounds in every layer, not in its pictures alone


def error(outputs: Sequence[Tensor], truth: Sequence[Tensor]) -> float:
    """Largest deviation from `truth`, in units of the largest magnitude of the same tensor.

    Infinite where shapes or counts differ, or where an output is not finite and the truth is.
    """
    if len(outputs) != len(truth):
        return math.inf
    worst = 0.0
    for output, true in zip(outputs, truth, strict=True):
        if output.shape != true.shape:
            return math.inf
        if true.numel() == 0:
            continue
        deviation = (output.detach().to("cpu", torch.float64) - true).abs().max().item()
        scale = true.abs().max().item()
        worst = max(worst, deviation / scale if scale > 0 else deviation)
        if math.isnan(deviation):
            return math.inf
    return worst


@dataclass(frozen=True)
class Tolerance:
    """What counts as right: `eager` bounds the baseline itself, `floor` is granted on top of it."""

    floor: float
    eager: float

    def allowed(self, eager_error: float) -> float:
        """The largest error of a variant."""
        return EAGER_FACTOR * eager_error + self.floor


def for_op(dtype: torch.dtype) -> Tolerance:
    """One op: a few roundings at `dtype`, and those of long sums in float32."""
    eps = torch.finfo(dtype).eps
    return Tolerance(floor=4 * eps + 32 * torch.finfo(torch.float32).eps, eager=math.sqrt(eps))


def for_network(dtype: torch.dtype) -> Tolerance:
    """A whole network, in which runtimes reorder hundreds of layers."""
    floor, eager = {
        torch.float32: (2e-4, 1e-2),
        torch.float16: (2e-2, 0.5),
        torch.bfloat16: (8e-2, 0.8),
    }[dtype]
    return Tolerance(floor, eager)


def for_gradients(dtype: torch.dtype, response: float) -> Tolerance:
    """The gradients of a whole network.

    `response` is by how much the exact gradients change when the pictures are rounded to `dtype`:
    at the kinks of ReLUs and max pools a rounding can turn into any error.
    """
    floor = {torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 1e-1}[dtype]
    floor += _ROUNDINGS * response
    return Tolerance(floor=floor, eager=2 * floor)
