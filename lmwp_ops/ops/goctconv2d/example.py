"""Arguments to try `goctconv2d` with."""

from typing import Any

import torch

from lmwp_ops._examples import Draw, Shapes


def example(device: torch.device, dtype: torch.dtype, shapes: Shapes | None) -> tuple[Any, ...]:
    """3 x 3 from every scale to every scale, so with pooling and resizing, and the epilogue."""
    draw = Draw(device, dtype)
    xs = [draw(*shape) for shape in shapes or ((2, 5, 12, 20), (2, 3, 6, 10), (2, 2, 3, 5))]
    widths = [x.shape[1] for x in xs]
    weight = draw.weight(sum(widths), sum(widths), 3, 3)
    scale, shift = ([draw(c) for c in widths] for _ in range(2))
    slope = [draw.slope(c) for c in widths]
    return xs, weight, scale, shift, slope, widths, widths, False, True, False
