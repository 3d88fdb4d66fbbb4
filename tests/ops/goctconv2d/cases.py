"""Cases of goctconv2d: widths, sizes, layouts, dtypes, and the arguments drawn for them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lmwp_ops.ops.goctconv2d import reference
from lmwp_ops.ops.goctconv2d.checks import branch_sizes, output_shapes

from ..exactness import LAYOUTS, feature

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
CHANNELS = (
    *(((3,), (4, 5)), ((10, 10), (10, 10)), ((9, 10), (10, 7)), ((7, 13), (33,)), ((5,), (6,))),
    *(((0, 6), (5,)), ((4, 3, 5), (5, 4, 3)), ((2, 0, 9), (0, 17, 1)), ((3, 1, 2), (11,))),
)
SIZES = ((16, 16), (32, 56), (12, 20), (7, 13), (4, 4), (64, 8), (21, 33), (8, 130))


@dataclass(frozen=True)
class Case:
    ins: tuple[int, ...]
    outs: tuple[int, ...]
    size: tuple[int, int]  # of branch 0
    kernel: int = 1
    batch: int = 1
    entry_pool: bool = False
    cross_scale: bool = True
    bilinear_down: bool = False
    dtype: torch.dtype = torch.float32
    layout: str = "nchw"
    epilogue: bool = True

    def __str__(self) -> str:
        branches = ["+".join(map(str, c)) for c in (self.ins, self.outs)]
        size = "x".join(map(str, self.size))
        options = ["entry"] * self.entry_pool + ["bilinear"] * self.bilinear_down
        options += ["apart"] * (not self.cross_scale) + ["bare"] * (not self.epilogue)
        dtype = str(self.dtype).removeprefix("torch.")
        words = ["-".join(branches), size, f"k{self.kernel}", *options, dtype, self.layout]
        return "-".join(words)


# 1 x 1 convolutions of one branch of pixels, which have a kernel of their own.
PIXELS = [
    Case((16,), (32,), (21, 19), layout="channels_last"),
    Case((33,), (20,), (7, 13), batch=2, layout="sliced_channels_last"),
    Case((0, 5), (0, 17), (14, 26), dtype=torch.bfloat16, layout="channels_last"),
    Case((40,), (1,), (8, 6), dtype=torch.float16, layout="channels_last", epilogue=False),
]


def draw(case: Case, parameter_dtype: torch.dtype | None = None) -> tuple[Any, ...]:
    """Arguments of the op."""
    dtype = parameter_dtype or case.dtype
    height, width = case.size
    xs = [
        feature((case.batch, c, height >> i, width >> i), case.dtype, case.layout)
        for i, c in enumerate(case.ins)
        if c
    ]
    bound = 1 / (sum(case.ins) * case.kernel**2) ** 0.5
    shape = (sum(case.outs), sum(case.ins), case.kernel, case.kernel)
    weight = (2 * bound * torch.randn(shape)).to(dtype)

    def parameters(low: float, high: float) -> list[Tensor]:
        return [torch.empty(c).uniform_(low, high).to(dtype) for c in case.outs if c]

    epilogue: list[list[Tensor]] = [[], [], []]
    if case.epilogue:
        epilogue = [parameters(0.5, 2), parameters(-1, 1), parameters(-0.2, 0.5)]
    channels = (list(case.ins), list(case.outs))
    options = (case.entry_pool, case.cross_scale, case.bilinear_down)
    return (xs, weight, *epilogue, *channels, *options)


def in_dtype(args: tuple[Any, ...], dtype: torch.dtype) -> tuple[Any, ...]:
    """The same arguments with every tensor in another dtype, on the CPU."""
    return tuple(
        arg.to("cpu", dtype)
        if isinstance(arg, Tensor)
        else [t.to("cpu", dtype) if isinstance(t, Tensor) else t for t in arg]
        if isinstance(arg, list)
        else arg
        for arg in args
    )


def truth(args: tuple[Any, ...]) -> list[Tensor]:
    return reference.forward(*in_dtype(args, torch.float64))


def grid() -> list[Case]:
    """Every value meets most others: the lists' lengths are coprime or stepped apart."""
    cases = []
    for i in range(144):
        ins, outs = CHANNELS[i % 9]
        apart = i % 11 == 0 and all(j < len(ins) and ins[j] for j, c in enumerate(outs) if c)
        size = SIZES[i % 8]
        entry_pool = i % 5 == 0
        case = Case(
            ins,
            outs,
            size,
            kernel=1 + 2 * ((i + i // 9) % 2),
            batch=1 + i % 2,
            entry_pool=entry_pool,
            cross_scale=not apart,
            bilinear_down=i % 7 == 3,
            dtype=DTYPES[(i + i // 8) % 3],
            layout=LAYOUTS[(i + i // 6) % 6],
            epilogue=i % 6 != 0,
        )
        if _possible(case):
            cases.append(case)
    return cases


def _possible(case: Case) -> bool:
    """Whether no branch vanishes and, for pooling by maxima, branches halve exactly."""
    step = 2 if case.entry_pool else 1
    sizes = {
        i: tuple((side >> i) // step for side in case.size) for i, c in enumerate(case.ins) if c
    }
    finest = min(sizes)
    if any(0 in size for size in (*sizes.values(), *branch_sizes(sizes, case.outs).values())):
        return False
    aligned = all(
        size == tuple(side >> (i - finest) for side in sizes[finest]) for i, size in sizes.items()
    )
    return aligned or case.bilinear_down or not case.cross_scale


def shapes(args: tuple[Any, ...]) -> list[tuple[int, ...]]:
    xs, _, _, _, _, ins, outs, entry_pool, _, _ = args
    return list(output_shapes(xs, ins, outs, entry_pool))
