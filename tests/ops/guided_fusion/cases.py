"""Cases of guided_fusion and the arguments drawn for them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lmwp_ops._examples import convert
from lmwp_ops.ops.guided_fusion import reference

from ..exactness import feature

Size = tuple[int, int]


@dataclass(frozen=True)
class Case:
    encoder: int
    decoder: int
    channels: int
    size: Size
    low: Size
    out: int = 0  # as `channels` where 0
    dilations: tuple[int, ...] = (1, 2)
    batch: int = 2
    dtype: torch.dtype = torch.float32
    layout: str = "nchw"

    def __str__(self) -> str:
        widths = f"{self.encoder}-{self.decoder}-{self.channels}-{self.out or self.channels}"
        sizes = "x".join(map(str, self.size)) + "-" + "x".join(map(str, self.low))
        dtype = str(self.dtype).removeprefix("torch.")
        dilations = "_".join(map(str, self.dilations))
        return f"{self.batch}x{widths}-{sizes}-{dilations}-{dtype}-{self.layout}"


# The fusions of LMWP-Net, and what is odd: one pixel, sizes that are no half, a decoder feature
# that is finer, widths beside those of vectors, taps that reach no pixel.
CASES = [
    Case(16, 32, 16, (42, 60), (21, 30)),
    Case(64, 104, 64, (21, 21), (11, 11), batch=1),
    Case(128, 40, 104, (9, 11), (5, 6)),
    Case(1, 1, 1, (1, 1), (1, 1)),
    Case(3, 2, 5, (1, 7), (1, 1), batch=3),
    Case(17, 31, 33, (9, 33), (5, 17), out=15),
    Case(16, 16, 16, (5, 2), (7, 9)),
    Case(6, 7, 8, (44, 68), (11, 17), dilations=(3,)),
    Case(6, 7, 8, (20, 23), (7, 9), dilations=(1, 30, 2), layout="channels_last"),
    Case(5, 12, 9, (10, 31), (5, 15), layout="sliced"),
    Case(5, 12, 9, (10, 14), (5, 7), layout="expanded"),
    Case(8, 16, 12, (14, 22), (7, 11), dtype=torch.bfloat16),
    Case(8, 16, 12, (14, 22), (7, 11), dtype=torch.float16, layout="channels_last"),
    Case(8, 16, 12, (14, 22), (7, 11), batch=0),
]


def draw(case: Case) -> tuple[Any, ...]:
    """Arguments of the op."""
    c, k, out = case.channels, len(case.dilations), case.out or case.channels

    def normed(*shape: int) -> list[Tensor]:
        return [0.5 + torch.rand(shape), torch.randn(shape)]

    def layer(width: int, inputs: int) -> list[Tensor]:
        return [torch.randn(width, inputs, 1, 1) / inputs**0.5, *normed(width)]

    layers = [
        layer(c, case.encoder),
        layer(c, case.decoder),
        [torch.randn(1, case.decoder, 1, 1) / case.decoder**0.5, torch.randn(1)],
        [torch.randn(k, c, 3, 3) / 3, *normed(k, c)],
        [*layer(out, c), torch.empty(out).uniform_(-0.2, 0.5)],
    ]
    gate = torch.rand(case.batch, c)
    parameters = convert([gate, *layers], lambda p: p.to(case.dtype))
    shapes = ((case.encoder, *case.size), (case.decoder, *case.low))
    xs = [feature((case.batch, *shape), case.dtype, case.layout) for shape in shapes]
    return (xs, *parameters, list(case.dilations))


def truth(args: tuple[Any, ...]) -> Tensor:
    return reference.forward(*convert(args, lambda t: t.double()))
