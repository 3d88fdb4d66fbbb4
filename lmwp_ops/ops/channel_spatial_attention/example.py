"""Arguments to try `channel_spatial_attention` with."""

from typing import Any

import torch

from lmwp_ops._examples import Draw, Shapes


def example(device: torch.device, dtype: torch.dtype, shapes: Shapes | None) -> tuple[Any, ...]:
    """Both gates with both pools, biases and a kernel of every size, on odd sizes."""
    draw = Draw(device, dtype)
    x = 2 * draw(*(shapes[0] if shapes else (2, 6, 9, 13))) + 1
    channels, hidden = x.shape[1], 3
    reduce = [draw(hidden, channels), draw(hidden) + 1]
    expand = [draw(channels, hidden), draw(channels)]
    spatial = [draw(2, k, k) / k for k in (3, 5, 7)]
    return x, reduce, expand, spatial, True, True
