"""Arguments to try `multiscale_norm_mix` and its backward op with."""

from typing import Any

import torch

from lmwp_ops._examples import Draw, Shapes
from lmwp_ops.ops.multiscale_mix.example import BRANCHES, feature_and_weights, shares
from lmwp_ops.ops.multiscale_norm_mix import reference


def example(device: torch.device, dtype: torch.dtype, shapes: Shapes | None) -> tuple[Any, ...]:
    """Every kind of branch that LMWP-Net has, with statistics far from 0 and 1."""
    draw = Draw(device, dtype)
    u, weights = feature_and_weights(draw, shapes)
    gamma, beta = (draw(*weights.shape[:2]) for _ in range(2))
    octaves, dilations = map(list, zip(*BRANCHES, strict=True))
    return 3 * u + 1, weights, shares(draw, u), gamma, beta, octaves, dilations, 1e-5


def example_of_backward(
    device: torch.device, dtype: torch.dtype, shapes: Shapes | None
) -> tuple[Any, ...]:
    """Every gradient of the example."""
    args = example(device, dtype, shapes)
    with torch.autocast(device.type, enabled=False):
        out, _, batch_mean, batch_var = reference.forward(*args)
    grad = Draw(device, dtype, seed=1)(*out.shape)
    return grad, *args[:5], batch_mean, batch_var, *args[5:], [True] * 5
