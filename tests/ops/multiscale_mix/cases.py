"""Arguments of the two multi-scale mixes, and what a user of plain torch writes instead."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..exactness import feature

OCTAVES, DILATIONS = [0, 0, 1, 2, 3], [1, 2, 1, 1, 4]
BRANCHES = list(zip(OCTAVES, DILATIONS, strict=True))
EPS = 1e-5


def draw(shape: tuple[int, ...], dtype: torch.dtype, layout: str = "nchw") -> tuple[Any, ...]:
    """Arguments of `multiscale_mix`; every third weight of a branch is 0."""
    n, m, _, _ = shape
    wide = torch.promote_types(dtype, torch.float32)
    mix = torch.rand(n, len(BRANCHES), m, dtype=wide)
    mix.view(-1)[::3] = 0
    weights = torch.randn(len(BRANCHES), m, 3, 3, dtype=wide) / 3
    scale, shift = torch.randn(2, len(BRANCHES), m, dtype=wide).unbind()
    return feature(shape, dtype, layout), weights, mix, scale, shift, OCTAVES, DILATIONS


def draw_norm(shape: tuple[int, ...], dtype: torch.dtype, layout: str = "nchw") -> tuple[Any, ...]:
    """Arguments of `multiscale_norm_mix`."""
    return *draw(shape, dtype, layout), EPS


def eager(
    u: Tensor,
    weights: Tensor,
    mix: Tensor,
    scale: Tensor,
    shift: Tensor,
    octaves: list[int],
    dilations: list[int],
    eps: float | None = None,
) -> Tensor:
    """In the dtype of u; with `eps`, scale and shift are those of a batch norm in training."""
    out = torch.zeros_like(u)
    for k, (octave, rate) in enumerate(zip(octaves, dilations, strict=True)):
        kernel = weights[k][:, None].to(u.dtype)
        pooled = F.avg_pool2d(u, 2**octave, ceil_mode=True)
        y = F.conv2d(pooled, kernel, padding=rate, dilation=rate, groups=u.shape[1])
        if eps is None:
            y = y * scale[k][:, None, None].to(u.dtype) + shift[k][:, None, None].to(u.dtype)
        else:
            y = F.batch_norm(y, None, None, scale[k], shift[k], True, eps=eps)
        y = F.interpolate(y, size=u.shape[2:], mode="bilinear", align_corners=False)
        out = out + mix[:, k, :, None, None].to(u.dtype) * y
    return out
