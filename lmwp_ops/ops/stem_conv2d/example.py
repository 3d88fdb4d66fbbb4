"""Arguments to try `stem_conv2d` with."""

from typing import Any

import torch

from lmwp_ops._examples import Draw, Shapes

_OUT = 18


def example(device: torch.device, dtype: torch.dtype, shapes: Shapes | None) -> tuple[Any, ...]:
    """The first convolution of a network on images, odd in size, with its epilogue."""
    draw = Draw(device, dtype)
    x = draw(*(shapes[0] if shapes else (2, 3, 13, 22)))
    weight = draw.weight(_OUT, x.shape[1], 3, 3)
    return x, weight, [1 + 0.1 * draw(_OUT)], [draw(_OUT)], [draw.slope(_OUT)], 2, False
