"""Arguments to try `multiscale_mix` with."""

from typing import Any

import torch
from torch import Tensor

from lmwp_ops._examples import Draw, Shapes

BRANCHES = ((0, 1), (0, 2), (1, 1), (2, 1))


def feature_and_weights(draw: Draw, shapes: Shapes | None) -> tuple[Tensor, Tensor]:
    """u of odd sizes and depthwise weights of every branch."""
    u = draw(*(shapes[0] if shapes else (2, 5, 11, 18)))
    return u, draw(len(BRANCHES), u.shape[1], 3, 3) / 3


def shares(draw: Draw, u: Tensor) -> Tensor:
    """Weights of the branches that sum to 1, a good part of them 0."""
    wide = u.double() if u.dtype == torch.float64 else u.float()
    kept = draw(u.shape[0], len(BRANCHES), u.shape[1]).to(wide.dtype).relu()
    kept[:, 0] += 0.125  # so that something is left
    return kept / kept.sum(1, keepdim=True)


def example(device: torch.device, dtype: torch.dtype, shapes: Shapes | None) -> tuple[Any, ...]:
    """Every kind of branch that LMWP-Net has, with an affine far from the identity."""
    draw = Draw(device, dtype)
    u, weights = feature_and_weights(draw, shapes)
    scale, shift = (draw(*weights.shape[:2]) for _ in range(2))
    octaves, dilations = map(list, zip(*BRANCHES, strict=True))
    return u, weights, shares(draw, u), scale, shift, octaves, dilations
