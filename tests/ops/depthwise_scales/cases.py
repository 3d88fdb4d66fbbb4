"""Cases of depthwise_scales: shapes, layouts, dtypes, and the arguments drawn for them."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

import lmwp_ops

from ..exactness import LAYOUTS, assert_as_exact, feature

CHANNELS = (1, 3, 7, 10, 20, 33, 40, 80)
SIZES = ((1, 1), (7, 7), (14, 14), (15, 17), (56, 56), (1, 130), (13, 13), (33, 2), (5, 4))
KERNELS = (3, 5, 7, 1)
DILATIONS = (1, 2, 4, 8, 16)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
Args = tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor], list[Tensor], int, int]


@dataclass(frozen=True)
class Case:
    shapes: tuple[tuple[int, int, int, int], ...]
    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    dtype: torch.dtype = torch.float32
    layout: str = "nchw"
    epilogue: bool = True

    def __str__(self) -> str:
        shapes = "+".join("x".join(map(str, shape)) for shape in self.shapes)
        dtype = str(self.dtype).removeprefix("torch.")
        end = "" if self.epilogue else "-bare"
        return f"{shapes}-k{self.kernel}s{self.stride}d{self.dilation}-{dtype}-{self.layout}{end}"


def draw(case: Case, parameter_dtype: torch.dtype | None = None) -> Args:
    dtype = parameter_dtype or case.dtype
    channels = [shape[1] for shape in case.shapes]
    k = case.kernel

    def parameters(*shape: int, low: float = -1.0, high: float = 1.0) -> list[Tensor]:
        return [torch.empty(c, *shape).uniform_(low, high).to(dtype) for c in channels]

    epilogue = (parameters(low=0.5, high=2), parameters(), parameters(low=-0.2, high=0.5))
    scale, shift, slope = epilogue if case.epilogue else ([], [], [])
    xs = [feature(shape, case.dtype, case.layout) for shape in case.shapes]
    return xs, parameters(1, k, k), scale, shift, slope, case.stride, case.dilation


def eager(args: Args) -> list[Tensor]:
    """What a user of plain torch writes, in the dtype of xs."""
    xs, weights, scale, shift, slope, stride, dilation = args
    ys = []
    for b, x in enumerate(xs):
        w = weights[b].to(x.dtype)
        padding = dilation * (w.shape[-1] // 2)
        y = F.conv2d(x, w, None, stride, padding, dilation, x.shape[1])
        if scale:
            y = y * scale[b].to(x.dtype)[:, None, None] + shift[b].to(x.dtype)[:, None, None]
        if slope:
            y = F.prelu(y, slope[b].to(x.dtype))
        ys.append(y)
    return ys


def double(args: Args) -> Args:
    lists = [[t.to("cpu", torch.float64) for t in kind] for kind in args[:5]]
    return (*lists, *args[5:])


def assert_as_exact_as_eager(got: list[Tensor], args: Args) -> None:
    """The error against float64 is at most twice eager's, plus one rounding of the maximum.

    The truth is computed on the CPU, wherever `got` and `args` are.
    """
    assert_as_exact(got, eager(args), eager(double(args)))


def grid() -> list[Case]:
    """Every value meets most others: the lists' lengths are coprime or stepped apart."""
    cases = []
    for i in range(90):
        c, (h, w) = CHANNELS[i % 8], SIZES[i % 9]
        shapes = [(1 + i % 2, c, h, w)]
        if i % 3 == 0:
            shapes.append((1 + i % 2, CHANNELS[(i + 3) % 8], (h + 1) // 2, (w + 1) // 2))
        cases.append(
            Case(
                tuple(shapes),
                kernel=KERNELS[(i + i // 8) % 4],
                stride=1 + (i // 2) % 2,
                dilation=DILATIONS[i % 5],
                dtype=DTYPES[(i + i // 9) % 3],
                layout=LAYOUTS[(i + i // 6) % 6],
                epilogue=i % 7 != 0,
            )
        )
    return cases


def call(args: Args) -> list[Tensor]:
    xs, weights, scale, shift, slope, stride, dilation = args
    affine = list(zip(scale, shift, strict=True)) or None
    return lmwp_ops.depthwise_scales(
        xs, weights, dilation=dilation, stride=stride, affine=affine, slope=slope or None
    )
