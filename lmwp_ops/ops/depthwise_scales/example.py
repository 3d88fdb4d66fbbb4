"""Arguments to try `depthwise_scales` with."""

from typing import Any

import torch

from lmwp_ops._examples import Draw, Shapes


def example(device: torch.device, dtype: torch.dtype, shapes: Shapes | None) -> tuple[Any, ...]:
    """3 x 3 with dilation 2 and the epilogue; one wide branch NCHW, one of odd sizes NHWC."""
    draw = Draw(device, dtype)
    xs = [draw(*shape) for shape in shapes or ((2, 5, 9, 16), (1, 3, 5, 7))]
    if not shapes:
        xs[1] = xs[1].contiguous(memory_format=torch.channels_last)
    widths = [x.shape[1] for x in xs]
    weights = [draw.weight(c, 1, 3, 3) for c in widths]
    scale, shift = ([draw(c) for c in widths] for _ in range(2))
    return xs, weights, scale, shift, [draw.slope(c) for c in widths], 1, 2
