"""goctconv2d in plain PyTorch: the truth in tests, the baseline in benchmarks, the fallback."""

from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch.nn.functional as F
from torch import Tensor

from lmwp_ops.ops._arguments import Affine
from lmwp_ops.ops._epilogue import apply_epilogue

Size = tuple[int, int]


def branch_sizes(inputs: Mapping[int, Size], out_channels: Sequence[int]) -> dict[int, Size]:
    """Size (H, W) of every present output branch, given those of the present input branches."""
    finest = min(inputs)
    height, width = inputs[finest]
    sizes = {}
    for j, channels in enumerate(out_channels):
        if not channels:
            continue
        if j in inputs:
            sizes[j] = inputs[j]
        elif j > finest:
            sizes[j] = (height >> (j - finest), width >> (j - finest))
        else:
            sizes[j] = (height << (finest - j), width << (finest - j))
    return sizes


def goctconv2d_reference(
    xs: Sequence[Tensor],
    weight: Tensor,
    in_channels: Sequence[int],
    out_channels: Sequence[int],
    *,
    entry_pool: bool,
    cross_scale: bool,
    down: str,
    affine: Affine | None,
    slope: Sequence[Tensor] | None,
) -> list[Tensor]:
    """See `lmwp_ops.goctconv2d`; arguments are taken as already checked."""
    if entry_pool:
        xs = [F.avg_pool2d(x, kernel_size=2, stride=2) for x in xs]
    present = [i for i, channels in enumerate(in_channels) if channels]
    inputs = dict(zip(present, xs, strict=True))
    sizes = branch_sizes({i: (x.shape[-2], x.shape[-1]) for i, x in inputs.items()}, out_channels)
    columns = _slices(in_channels)
    rows = _slices(out_channels)

    sums = []
    for j, size in sizes.items():
        terms = [
            _term(x, weight[rows[j], columns[i]], j - i, size, down)
            for i, x in inputs.items()
            if cross_scale or i == j
        ]
        sums.append(sum(terms[1:], start=terms[0]))
    return apply_epilogue(sums, affine, slope)


def _term(x: Tensor, weight: Tensor, steps_down: int, size: Size, down: str) -> Tensor:
    """What one input branch adds to an output branch that is `steps_down` scales coarser."""
    if steps_down > 0 and down == "max":
        x = F.max_pool2d(x, kernel_size=2**steps_down)
    elif steps_down > 0:
        x = _resize(x, size)
    y = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    return _resize(y, size) if steps_down < 0 else y


def _resize(x: Tensor, size: Size) -> Tensor:
    # Autocast on the CPU resizes in float32; the terms of a sum keep one dtype.
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False).to(x.dtype)


def _slices(channels: Sequence[int]) -> list[slice]:
    ends = list(accumulate(channels))
    return [slice(end - width, end) for end, width in zip(ends, channels, strict=True)]
