"""Cases of mwpm_block and the arguments drawn for them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lmwp_ops._examples import convert
from lmwp_ops.ops.mwpm_block import reference

from ..exactness import feature

BRANCHES = ((0, 1), (0, 2), (1, 1), (2, 1))


@dataclass(frozen=True)
class Case:
    channels: int
    width: int
    size: tuple[int, int]
    branches: tuple[tuple[int, int], ...] = BRANCHES
    hidden: int = 8
    batch: int = 2
    dtype: torch.dtype = torch.float32
    layout: str = "nchw"

    def __str__(self) -> str:
        height, width = self.size
        octaves = "_".join(f"{o}x{d}" for o, d in self.branches)
        dtype = str(self.dtype).removeprefix("torch.")
        shape = f"{self.batch}x{self.channels}-{self.width}x{height}x{width}"
        return f"{shape}-{octaves}-{self.hidden}-{dtype}-{self.layout}"


# Blocks of LMWP-Net, and what is odd: one pixel, one channel, widths beside those of vectors,
# bands that end within a window, branches without an octave 0 and taps that reach no pixel.
CASES = [
    Case(16, 32, (40, 56)),
    Case(64, 128, (21, 21), hidden=32, batch=1),
    Case(40, 80, (11, 11), hidden=160),
    Case(1, 1, (1, 1)),
    Case(3, 5, (2, 1), batch=3),
    Case(17, 33, (9, 33), hidden=17),
    Case(15, 31, (7, 13), ((2, 1), (1, 3))),
    Case(6, 20, (37, 19), ((3, 1), (0, 30), (5, 2)), batch=1),
    Case(6, 12, (30, 31), ((0, 1),)),
    Case(6, 12, (30, 31), ((0, 3), (0, 1), (0, 2)), layout="channels_last"),
    Case(5, 12, (10, 31), layout="sliced"),
    Case(5, 12, (10, 14), layout="expanded"),
    Case(8, 16, (14, 22), dtype=torch.bfloat16),
    Case(8, 16, (14, 22), dtype=torch.float16, layout="channels_last"),
    Case(8, 16, (14, 22), batch=0),
]


def draw(case: Case) -> tuple[Any, ...]:
    """Arguments of the op; of the branches' shares, some are pruned."""
    c, m, h, k = case.channels, case.width, case.hidden, len(case.branches)

    def normed(*shape: int) -> list[Tensor]:
        return [0.5 + torch.rand(shape), torch.randn(shape)]

    def layer(out: int, width: int) -> list[Tensor]:
        weight = torch.randn(out, width, 1, 1) / width**0.5
        return [weight, *normed(out), torch.empty(out).uniform_(-0.2, 0.5)]

    gate = [torch.randn(h, m) / m**0.5, torch.randn(h), torch.rand(h) / 2]
    gate += [torch.randn(k * m, h) / h**0.5, torch.randn(k * m), torch.rand(m) * 0.99 / k]
    depthwise = [torch.randn(k, m, 3, 3) / 3, *normed(k, m)]
    parameters = convert([layer(m, c), gate, depthwise, layer(c, m)], lambda p: p.to(case.dtype))
    octaves, dilations = map(list, zip(*case.branches, strict=True))
    x = feature((case.batch, c, *case.size), case.dtype, case.layout)
    return (x, *parameters, octaves, dilations)


def truth(args: tuple[Any, ...]) -> Tensor:
    return reference.forward(*convert(args, lambda t: t.double()))
