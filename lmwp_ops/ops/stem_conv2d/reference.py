"""Plain-torch truth of `stem_conv2d`."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lmwp_ops._layout import is_channels_last
from lmwp_ops.ops._epilogue import apply_epilogue, compute_dtype, output_dtype


def forward(
    x: Tensor,
    weight: Tensor,
    scale: Sequence[Tensor],
    shift: Sequence[Tensor],
    slope: Sequence[Tensor],
    stride: int,
    channels_last: bool,
) -> Tensor:
    """See `lmwp_ops.stem_conv2d`; arguments are taken as already checked."""
    read = x.to(compute_dtype(x))
    z = F.conv2d(read, weight.to(read.dtype), stride=stride, padding=weight.shape[-1] // 2)
    y = apply_epilogue(z, 0, scale, shift, slope)
    y = y.to(output_dtype(x, y))
    wide = channels_last or is_channels_last(x)
    y = y.contiguous(memory_format=torch.channels_last if wide else torch.contiguous_format)
    strides = output_strides(x, y.shape, channels_last)
    # Dimensions of one element may still have any stride.
    return y if y.stride() == strides else y.as_strided(y.shape, strides)


def output_strides(x: Tensor, shape: Sequence[int], channels_last: bool) -> tuple[int, ...]:
    """Those of the dense output, channels_last where it is asked for or x is."""
    _, c, h, w = shape
    wide = channels_last or is_channels_last(x)
    return (h * w * c, 1, w * c, c) if wide else (c * h * w, h * w, w, 1)
