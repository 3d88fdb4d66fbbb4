"""Cases of bn_prelu_gap: shapes, layouts, dtypes, and the arguments drawn for them."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lmwp_ops.ops.bn_prelu_gap import reference

from ..exactness import LAYOUTS, assert_as_exact, feature

CHANNELS = (1, 3, 7, 10, 20, 33, 40, 80)
SIZES = ((1, 1), (7, 7), (14, 14), (15, 17), (28, 28), (1, 130), (13, 13), (33, 2), (40, 1))
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
EPS = 1e-5
Tensors = list[Tensor]
Args = tuple[Tensors, Tensors, Tensors, Tensors, float]


@dataclass(frozen=True)
class Case:
    shapes: tuple[tuple[int, int, int, int], ...]
    dtype: torch.dtype = torch.float32
    layout: str = "nchw"
    prelu: bool = True

    def __str__(self) -> str:
        shapes = "+".join("x".join(map(str, shape)) for shape in self.shapes)
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{shapes}-{dtype}-{self.layout}{'' if self.prelu else '-bare'}"


def draw(case: Case) -> Args:
    """Features of any mean and deviation under parameters of their dtype, float32 if 16-bit."""
    wide = case.dtype if case.dtype == torch.float64 else torch.float32

    def parameters(low: float, high: float) -> Tensors:
        return [torch.empty(c, dtype=wide).uniform_(low, high) for _, c, _, _ in case.shapes]

    slope = parameters(-0.2, 0.5) if case.prelu else []
    xs = [feature(shape, case.dtype, case.layout) for shape in case.shapes]
    return xs, parameters(0.5, 2), parameters(-1, 1), slope, EPS


def double(args: Args) -> Args:
    xs, weight, bias, slope = ([t.detach().double() for t in kind] for kind in args[:4])
    return xs, weight, bias, slope, args[4]


def eager(args: Args) -> list[Tensor]:
    """ys and means of what a user of plain torch writes, in the dtype of x."""
    ys, means = [], []
    for b, x in enumerate(args[0]):
        y = F.batch_norm(x, None, None, args[1][b], args[2][b], True, eps=args[4])
        if args[3]:
            y = F.prelu(y, args[3][b].to(y.dtype))
        ys.append(y)
        means.append(y.mean((2, 3), dtype=args[1][b].dtype))
    return [*ys, *means]


def flat(lists: tuple[Tensors, ...]) -> Tensors:
    return [t for kind in lists for t in kind]


def assert_as_exact_as_eager(outputs: tuple[Tensors, ...], args: Args) -> None:
    """ys and means against eager's error; the statistics to two roundings."""
    assert_as_exact([*outputs[0], *outputs[1]], eager(args), eager(double(args)))
    for b, x in enumerate(args[0]):
        if x.numel():
            var, mean = torch.var_mean(x.double(), (0, 2, 3), correction=0)
            tight = {"rtol": 3e-7, "atol": 3e-7}
            torch.testing.assert_close(outputs[2][b].double(), mean, **tight)
            torch.testing.assert_close(outputs[3][b].double(), var, **tight)


def true_gradients(grads: Tensors, args: Args) -> tuple[Tensors, ...]:
    """Those of the float64 reference, with its own statistics."""
    wide = double(args)
    _, _, mean, var = reference.forward(*wide)
    wanted = [True, True, True, bool(args[3])]
    return reference.backward([g.double() for g in grads], *wide[:4], mean, var, EPS, wanted)


def eager_gradients(grads: Tensors, args: Args) -> Tensors:
    """Of xs, weight, bias and slope, by torch's own backward."""
    leaves = [[t.detach().requires_grad_() for t in kind] for kind in args[:4]]
    ys = eager((*leaves, args[4]))[: len(grads)]
    return list(torch.autograd.grad(ys, flat(tuple(leaves)), grads))


def grid() -> list[Case]:
    """Every value meets most others: the lists' lengths are coprime or stepped apart."""
    cases = []
    for i in range(72):
        c, (h, w) = CHANNELS[i % 8], SIZES[i % 9]
        shapes = [(2 + i % 2, c, h, w)]
        if i % 3 == 0:
            shapes.append((2 + i % 2, CHANNELS[(i + 3) % 8], (h + 1) // 2, (w + 1) // 2))
        dtype, layout = DTYPES[(i + i // 9) % 3], LAYOUTS[(i + i // 6) % 6]
        cases.append(Case(tuple(shapes), dtype, layout, prelu=i % 7 != 0))
    return cases
