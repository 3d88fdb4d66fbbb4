"""The memory layout rule of every op: an output keeps the layout of its input."""

from collections.abc import Sequence

import torch
from torch import Tensor

Shape = tuple[int, ...]


def leading(xs: Tensor | Sequence[Tensor]) -> Tensor:
    """The tensor whose device, dtype and layout hold for an op: its feature or first branch."""
    return xs if isinstance(xs, Tensor) else xs[0]


def is_channels_last(x: Tensor) -> bool:
    """Whether channels are innermost in the 4-D `x`.

    Slices of a channels_last tensor count as channels_last; a tensor with one channel or one
    pixel, where the two layouts coincide, does not. The compiled kernels apply the same rule.
    """
    _, channels, height, width = x.shape
    return channels > 1 and x.stride(1) == 1 and (height > 1 or width > 1)


def strides_like(x: Tensor, shape: Shape) -> Shape:
    """The strides of a dense tensor [N, C, H, W] of `shape` with the layout of `x`."""
    _, c, h, w = shape
    return (h * w * c, 1, w * c, c) if is_channels_last(x) else (c * h * w, h * w, w, 1)


def empty_like_layout(x: Tensor, shape: Shape) -> Tensor:
    """An uninitialised tensor of `shape` with dtype, device and layout of `x`."""
    return torch.empty_strided(shape, strides_like(x, shape), dtype=x.dtype, device=x.device)


def with_layout_of(x: Tensor, y: Tensor) -> Tensor:
    """`y`, copied where needed, with the exact strides of the layout of `x`."""
    memory_format = torch.channels_last if is_channels_last(x) else torch.contiguous_format
    y = y.contiguous(memory_format=memory_format)
    strides = strides_like(x, y.shape)
    # Dimensions of one element may still have any stride.
    return y if y.stride() == strides else y.as_strided(y.shape, strides)
