"""Arguments to try `dilated_bank` with."""

from typing import Any

import torch

from lmwp_ops._examples import Draw, Shapes

_DILATIONS = (1, 2, 4)


def example(device: torch.device, dtype: torch.dtype, shapes: Shapes | None) -> tuple[Any, ...]:
    """As many channels out as in for each of three dilations at every scale, and the epilogue."""
    draw = Draw(device, dtype)
    xs = [draw(*shape) for shape in shapes or ((2, 3, 9, 16), (2, 2, 5, 7))]
    weights = [draw.weight(x.shape[1], x.shape[1], 3, 3) for x in xs for _ in _DILATIONS]
    widths = [len(_DILATIONS) * x.shape[1] for x in xs]
    scale, shift = ([draw(c) for c in widths] for _ in range(2))
    slope = [draw.slope(c) for c in widths]
    counts = [len(_DILATIONS)] * len(xs)
    return xs, weights, scale, shift, slope, [*_DILATIONS] * len(xs), counts
