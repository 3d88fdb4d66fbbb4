"""Arguments of channel_spatial_attention, and what a user of plain torch writes instead."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..exactness import feature


def draw(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    layout: str = "nchw",
    *,
    gate: bool = True,
    bias: bool = True,
    sizes: tuple[int, ...] = (3, 7),
    mean: bool = True,
    max: bool = True,
) -> tuple[Any, ...]:
    """Arguments of the op."""
    c, hidden = shape[1], 3
    wide = torch.promote_types(dtype, torch.float32)

    def layer(rows: int, columns: int) -> list[Tensor]:
        parts = [torch.randn(rows, columns, dtype=wide), torch.randn(rows, dtype=wide)]
        return parts[: 1 + bias] if gate else []

    spatial = [torch.randn(mean + max, k, k, dtype=wide) / k for k in sizes]
    x = feature(shape, dtype, layout)
    return x, layer(hidden, c), layer(c, hidden), spatial, mean, max


def eager(
    x: Tensor,
    reduce: list[Tensor],
    expand: list[Tensor],
    spatial: list[Tensor],
    mean: bool,
    max: bool,
) -> Tensor:
    """In the dtype of x."""

    def pools(y: Tensor, dim: int) -> list[Tensor]:
        every = [y.mean(dim, keepdim=True), y.max(dim, keepdim=True).values]
        return [pool for pool, used in zip(every, (mean, max), strict=True) if used]

    def layer(v: Tensor, parameters: list[Tensor]) -> Tensor:
        return F.linear(v, *(p.to(v.dtype) for p in parameters))

    if reduce:
        logits = [layer(layer(v[..., 0], reduce).relu(), expand) for v in pools(x.flatten(2), 2)]
        x = x * torch.sigmoid(sum(logits))[:, :, None, None]
    if spatial:
        q = torch.cat(pools(x, 1), 1)
        sums = [F.conv2d(q, k[None].to(q.dtype), padding=k.shape[-1] // 2) for k in spatial]
        x = x * torch.sigmoid(sum(sums))
    return x
