"""Arguments to try `guided_fusion` with."""

from typing import Any

import torch

from lmwp_ops._examples import Draw, Shapes

DILATIONS = [1, 2]


def example(device: torch.device, dtype: torch.dtype, shapes: Shapes | None) -> tuple[Any, ...]:
    """Both depthwise branches of LMWP-Net, on odd sizes."""
    draw = Draw(device, dtype)
    encoder, decoder = (draw(*shape) for shape in shapes or ((2, 5, 11, 18), (2, 7, 6, 9)))
    ce, cd = encoder.shape[1], decoder.shape[1]
    c, k = ce, len(DILATIONS)
    gate = draw(encoder.shape[0], c).sigmoid()
    encode = [draw.weight(c, ce, 1, 1), 1 + 0.1 * draw(c), draw(c)]
    decode = [draw.weight(c, cd, 1, 1), 1 + 0.1 * draw(c), draw(c)]
    guide = [draw.weight(1, cd, 1, 1), draw(1)]
    depthwise = [draw(k, c, 3, 3) / 3, 1 + 0.1 * draw(k, c), draw(k, c)]
    fuse = [draw.weight(c, c, 1, 1), 1 + 0.1 * draw(c), draw(c), draw.slope(c)]
    return [encoder, decoder], gate, encode, decode, guide, depthwise, fuse, DILATIONS
