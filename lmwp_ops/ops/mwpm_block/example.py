"""Arguments to try `mwpm_block` with."""

from typing import Any

import torch

from lmwp_ops._examples import Draw, Shapes
from lmwp_ops.ops.multiscale_mix.example import BRANCHES

_HIDDEN = 8


def example(device: torch.device, dtype: torch.dtype, shapes: Shapes | None) -> tuple[Any, ...]:
    """A block twice as wide inside, with every kind of branch that LMWP-Net has."""
    draw = Draw(device, dtype)
    x = draw(*(shapes[0] if shapes else (2, 6, 11, 18)))
    c, k = x.shape[1], len(BRANCHES)
    m = 2 * c
    expand = [draw.weight(m, c, 1, 1), 1 + 0.1 * draw(m), draw(m), draw.slope(m)]
    gate = [draw(_HIDDEN, m) / m**0.5, draw(_HIDDEN), draw.slope(_HIDDEN)]
    gate += [draw(k * m, _HIDDEN) / 2, draw(k * m), 0.1 + 0.02 * draw(m).tanh()]
    depthwise = [draw(k, m, 3, 3) / 3, 1 + 0.1 * draw(k, m), draw(k, m)]
    project = [draw.weight(c, m, 1, 1), 1 + 0.1 * draw(c), draw(c), draw.slope(c)]
    octaves, dilations = map(list, zip(*BRANCHES, strict=True))
    return x, expand, gate, depthwise, project, octaves, dilations
