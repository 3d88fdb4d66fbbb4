"""Arguments to try `bn_prelu_gap` and its backward op with."""

from typing import Any

import torch

from lmwp_ops._examples import Draw, Shapes
from lmwp_ops.ops.bn_prelu_gap.reference import statistics_dtype


def example(device: torch.device, dtype: torch.dtype, shapes: Shapes | None) -> tuple[Any, ...]:
    """One branch NCHW and one of odd sizes NHWC, with statistics far from 0 and 1."""
    draw = Draw(device, dtype)
    xs = [3 * draw(*shape) + 1 for shape in shapes or ((2, 5, 9, 16), (2, 3, 5, 7))]
    if not shapes:
        xs[1] = xs[1].contiguous(memory_format=torch.channels_last)
    widths = [x.shape[1] for x in xs]
    weight, bias = ([draw(c) for c in widths] for _ in range(2))
    return xs, weight, bias, [draw.slope(c) for c in widths], 1e-5


def example_of_backward(
    device: torch.device, dtype: torch.dtype, shapes: Shapes | None
) -> tuple[Any, ...]:
    """Every gradient of the example."""
    xs, *parameters, eps = example(device, dtype, shapes)
    draw = Draw(device, dtype, seed=1)
    wide = [x.to(statistics_dtype(x)) for x in xs]
    batch_mean = [x.mean((0, 2, 3)) for x in wide]
    batch_var = [x.var((0, 2, 3), correction=0) for x in wide]
    grads = [draw(*x.shape) for x in xs]
    return grads, xs, *parameters, batch_mean, batch_var, eps, [True] * 4
