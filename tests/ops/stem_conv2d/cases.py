"""Cases of stem_conv2d and the arguments drawn for them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lmwp_ops._examples import convert
from lmwp_ops.ops.stem_conv2d import reference

from ..exactness import feature


@dataclass(frozen=True)
class Case:
    channels: int
    out: int
    size: tuple[int, int]
    kernel: int = 3
    stride: int = 2
    channels_last: bool = False
    batch: int = 2
    dtype: torch.dtype = torch.float32
    layout: str = "nchw"
    affine: bool = True
    slope: bool = True

    def __str__(self) -> str:
        height, width = self.size
        shape = f"{self.batch}x{self.channels}-{self.out}x{height}x{width}"
        kind = f"k{self.kernel}s{self.stride}{'-last' if self.channels_last else ''}"
        return f"{shape}-{kind}-{str(self.dtype).removeprefix('torch.')}-{self.layout}"


# The first layers of the networks, and what is odd: one pixel, one channel, kernels wider than the
# map, widths beside those of vectors and of tiles.
CASES = [
    Case(3, 16, (40, 56), channels_last=True, batch=1),
    Case(3, 20, (30, 34)),
    Case(1, 1, (1, 1), channels_last=True),
    Case(2, 1, (5, 3), kernel=7, channels_last=True),
    Case(3, 48, (9, 27), stride=1, kernel=5),
    Case(5, 33, (7, 50), stride=1, kernel=1, channels_last=True),
    Case(4, 17, (6, 13), kernel=7, affine=False, layout="channels_last"),
    Case(3, 16, (11, 25), slope=False, layout="sliced"),
    Case(3, 16, (12, 25), layout="expanded", channels_last=True),
    Case(3, 12, (10, 31), dtype=torch.bfloat16),
    Case(3, 32, (10, 31), dtype=torch.float16, channels_last=True),
    Case(3, 12, (10, 31), batch=0),
]


def draw(case: Case) -> tuple[Any, ...]:
    """Arguments of the op."""
    k, out = case.kernel, case.out
    weight = torch.randn(out, case.channels, k, k) / (case.channels * k * k) ** 0.5
    scale = [0.5 + torch.rand(out)] if case.affine else []
    shift = [torch.randn(out)] if case.affine else []
    slope = [torch.empty(out).uniform_(-0.2, 0.5)] if case.slope else []
    parameters = convert([weight, scale, shift, slope], lambda p: p.to(case.dtype))
    x = feature((case.batch, case.channels, *case.size), case.dtype, case.layout)
    return (x, *parameters, case.stride, case.channels_last)


def truth(args: tuple[Any, ...]) -> Tensor:
    return reference.forward(*convert(args, lambda t: t.double()))
