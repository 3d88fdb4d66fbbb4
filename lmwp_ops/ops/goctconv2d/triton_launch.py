"""`goctconv2d` on the Triton kernels of multi-scale convolutions."""

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from torch import Tensor

from lmwp_ops._layout import empty_like_layout
from lmwp_ops.ops._epilogue import strip_epilogue
from lmwp_ops.ops.goctconv2d.checks import branch_sizes, input_sizes, output_shapes
from lmwp_ops.ops.multiscale.triton_launch import (
    SAME,
    Block,
    Mode,
    Result,
    Term,
    convolve,
    gather,
    most_gathered,
    size_of,
    weight_gradients,
)

Tensors = list[Tensor]


class _Pairs:
    """The pairs of branches that a weight connects, and where each one's block begins."""

    def __init__(
        self,
        xs: Tensors,
        weight: Tensor,
        in_channels: list[int],
        out_channels: list[int],
        entry_pool: bool,
        cross_scale: bool,
        bilinear_down: bool,
    ) -> None:
        self.inputs = input_sizes(xs, in_channels, entry_pool)
        self.outputs = branch_sizes(self.inputs, out_channels)
        self.kernel_size = weight.shape[-1]
        self.column = self.kernel_size**2
        self.row = weight.shape[1] * self.column
        self._first_in = list(accumulate(in_channels, initial=0))
        self._first_out = list(accumulate(out_channels, initial=0))
        self._cross_scale = cross_scale
        self._bilinear_down = bilinear_down

    def sources_of(self, j: int) -> Iterator[tuple[int, int]]:
        """Position and scale of the inputs that output branch `j` sums over."""
        return ((n, i) for n, i in enumerate(self.inputs) if self._cross_scale or i == j)

    def offset(self, i: int, j: int) -> int:
        return self._first_out[j] * self.row + self._first_in[i] * self.column

    def mode(self, i: int, j: int) -> Mode:
        """How output `j` reads input `i`."""
        if i == j:
            return SAME
        if i > j:
            return "resize_last", 2
        return ("resize_first", 2) if self._bilinear_down else ("pool", 2 ** (j - i))

    def adjoint_mode(self, i: int, j: int) -> Mode:
        """How the gradient of input `i` reads that of output `j`, gathered where it was resized."""
        if i > j:
            return SAME
        kind, size = self.mode(i, j)
        if kind == "resize_first":
            return "resize_last", most_gathered(self.outputs[j], self.inputs[i])
        return kind, size


def _gathered(dzs: Tensors, pairs: _Pairs) -> dict[tuple[int, int], Tensor]:
    """For each pair (i, j) the gradient of what output `j` resized after convolving input `i`, or
    where it did not, that of the output."""
    read = {
        (i, j): dz for dz, j in zip(dzs, pairs.outputs, strict=True) for _, i in pairs.sources_of(j)
    }
    resized = [(i, j) for i, j in read if i > j]
    targets = [pairs.inputs[i] for i, _ in resized]
    if resized:
        gathered = gather([read[pair] for pair in resized], targets)
        read.update(zip(resized, gathered, strict=True))
    return read


def forward(
    xs: Tensors,
    weight: Tensor,
    scale: Tensors,
    shift: Tensors,
    slope: Tensors,
    in_channels: list[int],
    out_channels: list[int],
    entry_pool: bool,
    cross_scale: bool,
    bilinear_down: bool,
) -> Tensors:
    """`reference.forward` on the GPU, in one launch."""
    pairs = _Pairs(xs, weight, in_channels, out_channels, entry_pool, cross_scale, bilinear_down)
    shapes = output_shapes(xs, in_channels, out_channels, entry_pool)
    ys = [empty_like_layout(xs[0], shape) for shape in shapes]
    weight = weight.contiguous()
    results = [
        Result(
            y,
            size,
            [
                Term(xs[n], pairs.inputs[i], pairs.mode(i, j), weight, pairs.offset(i, j))
                for n, i in pairs.sources_of(j)
            ],
            pairs.row,
            pairs.column,
            *(kind[b].contiguous() if kind else None for kind in (scale, shift, slope)),
        )
        for b, (y, (j, size)) in enumerate(zip(ys, pairs.outputs.items(), strict=True))
    ]
    convolve(results, pairs.kernel_size, entry_pool=entry_pool, adjoint=False)
    return ys


def backward(
    grads: Tensors,
    xs: Tensors,
    weight: Tensor,
    scale: Tensors,
    shift: Tensors,
    slope: Tensors,
    *settings_and_wanted: Any,
) -> tuple[Tensors, Tensors, Tensors, Tensors, Tensors]:
    """As `reference.backward`; a launch each for what was resized, the inputs and the weight."""
    *settings, (wants_xs, wants_weight, *wants_epilogue) = settings_and_wanted

    def convolve_again(wide: Tensors) -> Tensors:
        return forward(wide, weight, [], [], [], *settings)

    dzs, kinds = strip_epilogue(grads, xs, convolve_again, scale, shift, slope, wants_epilogue)
    if not (wants_xs or wants_weight):
        return [], [], *kinds
    pairs = _Pairs(xs, weight, *settings)
    entry_pool = settings[2]
    read = _gathered(dzs, pairs)
    grad_xs = _grad_inputs(read, xs, weight, pairs, entry_pool) if wants_xs else []
    grad_weight = [_grad_weight(read, xs, weight, pairs, entry_pool)] if wants_weight else []
    return grad_xs, grad_weight, *kinds


def _grad_inputs(
    read: dict[tuple[int, int], Tensor],
    xs: Tensors,
    weight: Tensor,
    pairs: _Pairs,
    entry_pool: bool,
) -> Tensors:
    weight = weight.contiguous()
    grad_xs, results = [], []
    for x, (i, size) in zip(xs, pairs.inputs.items(), strict=True):
        grad_x = empty_like_layout(x, x.shape)
        grad_xs.append(grad_x)
        if entry_pool and (x.shape[2] % 2 or x.shape[3] % 2):
            grad_x.zero_()  # the last row or column is in no window
        terms = [
            Term(g, size_of(g), pairs.adjoint_mode(i, j), weight, pairs.offset(i, j))
            for (source, j), g in read.items()
            if source == i
        ]
        pools = any(term.mode[0] == "pool" for term in terms)
        results.append(
            Result(grad_x, size, terms, pairs.column, pairs.row, maxima=x if pools else None)
        )
    convolve(results, pairs.kernel_size, entry_pool=entry_pool, adjoint=True)
    return grad_xs


def _grad_weight(
    read: dict[tuple[int, int], Tensor],
    xs: Tensors,
    weight: Tensor,
    pairs: _Pairs,
    entry_pool: bool,
) -> Tensor:
    inputs = dict(zip(pairs.inputs, xs, strict=True))
    blocks = [
        Block(
            g,
            inputs[i],
            pairs.inputs[i],
            SAME if i > j else pairs.mode(i, j),
            pairs.offset(i, j),
            pairs.row,
            pairs.column,
        )
        for (i, j), g in read.items()
    ]
    total = weight_gradients(blocks, weight.numel(), pairs.kernel_size, entry_pool=entry_pool)
    return total.view(weight.shape).to(weight.dtype)
