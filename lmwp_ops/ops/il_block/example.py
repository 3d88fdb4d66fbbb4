"""Arguments to try `il_block` with."""

from typing import Any

import torch

from lmwp_ops._examples import Draw, Shapes

_STAGES = 3


def example(device: torch.device, dtype: torch.dtype, shapes: Shapes | None) -> tuple[Any, ...]:
    """A 1 x 1 octave convolution from every scale to every scale, with all three epilogues."""
    draw = Draw(device, dtype)
    xs = [draw(*shape) for shape in shapes or ((2, 5, 12, 20), (2, 3, 6, 10))]
    widths = [x.shape[1] for x in xs]
    weight = draw.weight(sum(widths), sum(widths), 1, 1)
    depthwise = [draw.weight(c, 1, 3, 3) for c in widths * (_STAGES - 1)]
    scale, shift = ([draw(c) for c in widths * _STAGES] for _ in range(2))
    slope = [draw.slope(c) for c in widths * _STAGES]
    return xs, weight, depthwise, scale, shift, slope, widths, widths, False
