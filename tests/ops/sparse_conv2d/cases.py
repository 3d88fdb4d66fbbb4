"""Arguments of sparse_conv2d: shapes, formats and settings in every combination that matters."""

import itertools
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmwp_ops import SparseConvWeight
from lmwp_ops._examples import convert

from ..exactness import feature

Args = tuple[Any, ...]


@dataclass(frozen=True)
class Case:
    """A pruned convolution of x [N, C, H, W] into `out` channels, and what follows it."""

    shape: tuple[int, int, int, int]
    out: int
    format: str
    kernel: tuple[int, int] = (1, 1)
    density: float = 0.3
    block: tuple[int, int] | None = None
    groups: int = 1
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    epilogue: str = "bias affine slope"

    def __str__(self) -> str:
        sizes = "x".join(map(str, (*self.shape, self.out, *self.kernel)))
        return f"{self.format}-{sizes}-{self.density}-g{self.groups}-s{self.stride}"


CASES = [
    Case((2, 7, 5, 13), 13, "unstructured"),
    Case((1, 64, 16, 16), 32, "unstructured", density=0.1, epilogue=""),
    Case((1, 130, 11, 11), 20, "unstructured", epilogue="slope"),
    Case((2, 66, 8, 24), 70, "unstructured", density=0.05, epilogue="bias"),
    Case((1, 33, 7, 7), 33, "unstructured", density=0.0),
    Case((1, 20, 56, 56), 10, "unstructured", density=1.0, epilogue="affine"),
    Case((2, 12, 9, 7), 8, "unstructured", groups=2, stride=(2, 1), padding=(1, 0)),
    Case((1, 3, 1, 1), 1, "unstructured", density=0.5),
    Case((2, 16, 7, 13), 14, "block", block=(4, 1)),
    Case((1, 32, 12, 12), 40, "block", block=(16, 1), epilogue="affine slope"),
    Case((1, 64, 14, 14), 50, "block", block=(16, 16), density=0.5),
    Case((1, 8, 6, 10), 12, "block", block=(2, 4), groups=2, stride=(1, 2)),
    Case((2, 3, 8, 9), 6, "block", (3, 3), block=(2, 9), padding=(1, 1), density=0.5),
    Case((2, 5, 15, 17), 5, "taps", (3, 3), groups=5, padding=(1, 1), density=0.6),
    Case((1, 40, 28, 28), 40, "taps", (3, 3), groups=40, stride=(2, 2), padding=(1, 1)),
    Case((1, 5, 7, 75), 5, "taps", (3, 3), groups=5, stride=(2, 2), padding=(1, 1)),
    Case((1, 6, 20, 9), 6, "taps", (5, 3), groups=6, padding=(4, 2), dilation=(2, 2)),
    Case((2, 4, 13, 11), 6, "taps", (3, 3), stride=(3, 2), padding=(2, 0), dilation=(1, 2)),
    Case((1, 10, 30, 30), 20, "taps", (3, 3), padding=(1, 1), epilogue=""),
    Case((1, 2, 3, 140), 3, "taps", (1, 7), padding=(0, 3), density=0.5),
    Case((1, 3, 2, 5000), 2, "taps", (1, 3), padding=(0, 1), density=0.5),
    Case((1, 3, 5, 4), 2, "taps", (3, 3), padding=(7, 6), dilation=(4, 5)),
    Case((2, 13, 9, 11), 7, "channels", density=0.5),
    Case((1, 40, 16, 16), 33, "channels", density=0.5, epilogue="bias affine"),
    Case((1, 9, 14, 15), 21, "channels", (3, 3), padding=(1, 1), density=0.5),
    Case((2, 6, 9, 9), 5, "channels", (3, 3), stride=(2, 2), padding=(1, 1), density=0.7),
    Case((1, 6, 9, 9), 5, "channels", density=0.0),
    Case((2, 3, 10, 21), 6, "taps", (3, 3), groups=3, padding=(1, 1), density=0.6),
    Case((1, 4, 25, 40), 4, "taps", (5, 3), groups=4, padding=(3, 7), dilation=(2, 9)),
]
"""Maps of one pixel and of many, odd widths, empty and full masks, every format."""


def draw_mask(case: Case) -> Tensor:
    """A random mask that the format allows."""
    shape = (case.out, case.shape[1] // case.groups, *case.kernel)

    def kept(*sizes: int) -> Tensor:
        return torch.rand(sizes) < case.density

    if case.format == "2:4":
        ranks = torch.rand(case.out, shape[1] // 4, 4).argsort(2)
        return (ranks < 2).reshape(shape)
    if case.format == "channels":
        return (kept(case.out, 1, 1, 1) & kept(1, shape[1], 1, 1)).expand(shape)
    rows, columns = case.block or (1, 1)
    width = shape[1] * shape[2] * shape[3]
    blocks = kept(-(-case.out // rows), width // columns)
    matrix = blocks.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
    return matrix[: case.out].view(shape)


def draw(case: Case, dtype: torch.dtype = torch.float32, layout: str = "nchw") -> Args:
    """Arguments of the op."""
    x = feature(case.shape, dtype, layout)
    mask = draw_mask(case)
    dense = torch.randn(mask.shape, dtype=torch.float64).to(dtype)
    weight = SparseConvWeight.from_dense(
        dense, mask, case.format, block=case.block, groups=case.groups
    )
    return with_settings(case, x, weight)


def with_settings(case: Case, x: Tensor, weight: SparseConvWeight) -> Args:
    def parameter(name: str) -> list[Tensor]:
        drawn = torch.randn(case.out, dtype=torch.float64).to(x.dtype)
        return [drawn] if name in case.epilogue.split() else []

    bias, scale, shift, slope = (parameter(n) for n in ("bias", "affine", "affine", "slope"))
    settings = (list(case.stride), list(case.padding), list(case.dilation), case.groups)
    packed = (weight.format, list(weight.shape), list(weight.block))
    return x, weight.values, list(weight.indices), bias, scale, shift, slope, *packed, *settings


def dense_of(args: Args) -> Tensor:
    """The weight that the packed one stands for, without the code under test."""
    _, values, indices, *_, format, shape, block, _, _, _, _ = args
    if format == "dense":
        return values
    weight = values.new_zeros(shape)
    if format == "2:4":
        weight.view(-1)[indices[0].long()] = values.reshape(-1)
        return weight
    if format == "channels":
        for i, o in enumerate(indices[0].tolist()):
            for j, c in enumerate(indices[1].tolist()):
                weight[o, c] = values[i, j]
        return weight
    flat = weight.view(shape[0], -1)
    offsets, columns = (index.tolist() for index in indices)
    block_rows = -(-shape[0] // block[0])
    for i, (begin, end) in enumerate(itertools.pairwise(offsets)):
        top = i % block_rows * block[0]
        for k in range(begin, end):
            left = columns[k] * block[1]
            part = values[k].T[: shape[0] - top]
            flat[top : top + block[0], left : left + block[1]] = part
    return weight


def eager(args: Args, weight: Tensor | None = None) -> Tensor:
    """What a user of plain torch writes."""
    x, _, _, bias, scale, shift, slope, *_, stride, padding, dilation, groups = args
    weight = dense_of(args) if weight is None else weight
    b = bias[0].to(x.dtype) if bias else None
    y = F.conv2d(x, weight.to(x.dtype), b, stride, padding, dilation, groups)
    if scale:
        y = y * scale[0].to(x.dtype)[:, None, None] + shift[0].to(x.dtype)[:, None, None]
    return F.prelu(y, slope[0].to(x.dtype)) if slope else y


def double(args: Args) -> Args:
    return convert(args, lambda t: t.detach().double() if t.is_floating_point() else t)
