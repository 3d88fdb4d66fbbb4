"""`dilated_bank` on the Triton kernels of multi-scale convolutions."""

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from lmwp_ops._layout import empty_like_layout
from lmwp_ops.ops._epilogue import strip_epilogue
from lmwp_ops.ops.dilated_bank.checks import output_shapes
from lmwp_ops.ops.multiscale.triton_launch import (
    SAME,
    Block,
    Result,
    Term,
    convolve,
    size_of,
    weight_gradients,
)

Tensors = list[Tensor]
TAPS = 9


class _Conv(NamedTuple):
    """One convolution of the bank: scale, output that it is in, its channels there, dilation."""

    scale: int
    output: int
    first: int
    weight: Tensor
    dilation: int

    def of(self, ys: Tensors) -> Tensor:
        """Its part of its output, or of a parameter of the epilogue."""
        y = ys[self.output]
        return y.narrow(1 if y.dim() == 4 else 0, self.first, self.weight.shape[0])


def _convs(weights: Tensors, dilations: list[int], counts: list[int]) -> Iterator[_Conv]:
    at, output = 0, 0
    for b, count in enumerate(counts):
        first = 0
        for weight, dilation in zip(
            weights[at : at + count], dilations[at : at + count], strict=True
        ):
            yield _Conv(b, output, first, weight.contiguous(), dilation)
            first += weight.shape[0]
        at += count
        output += count > 0


def forward(
    xs: Tensors,
    weights: Tensors,
    scale: Tensors,
    shift: Tensors,
    slope: Tensors,
    dilations: list[int],
    counts: list[int],
) -> Tensors:
    """`reference.forward` on the GPU, in one launch for every eight convolutions."""
    present = [x for x, count in zip(xs, counts, strict=True) if count]
    shapes = output_shapes(xs, weights, counts)
    ys = [empty_like_layout(x, shape) for x, shape in zip(present, shapes, strict=True)]
    epilogue = [[p.contiguous() for p in kind] for kind in (scale, shift, slope)]
    results = [
        Result(
            conv.of(ys),
            size_of(xs[conv.scale]),
            [_term(xs[conv.scale], conv)],
            conv.weight.shape[1] * TAPS,
            TAPS,
            *(conv.of(kind) if kind else None for kind in epilogue),
        )
        for conv in _convs(weights, dilations, counts)
    ]
    convolve(results, 3, entry_pool=False, adjoint=False)
    return ys


def backward(
    grads: Tensors,
    xs: Tensors,
    weights: Tensors,
    scale: Tensors,
    shift: Tensors,
    slope: Tensors,
    dilations: list[int],
    counts: list[int],
    wanted: list[bool],
) -> tuple[Tensors, Tensors, Tensors, Tensors, Tensors]:
    """As `reference.backward`, in one launch for the inputs and one or two for the weights."""
    wants_xs, wants_weights, *wants_epilogue = wanted

    def convolve_again(wide: Tensors) -> Tensors:
        return forward(wide, weights, [], [], [], dilations, counts)

    dzs, kinds = strip_epilogue(grads, xs, convolve_again, scale, shift, slope, wants_epilogue)
    convs = list(_convs(weights, dilations, counts))
    grad_xs = _grad_inputs(dzs, xs, convs) if wants_xs else []
    grad_weights = _grad_weights(dzs, xs, convs) if wants_weights else []
    return grad_xs, grad_weights, *kinds


def _grad_inputs(dzs: Tensors, xs: Tensors, convs: list[_Conv]) -> Tensors:
    grad_xs = [empty_like_layout(x, x.shape) for x in xs]
    results = [
        Result(
            grad_x,
            size_of(grad_x),
            [_term(conv.of(dzs), conv) for conv in convs if conv.scale == b],
            TAPS,
            grad_x.shape[1] * TAPS,
        )
        for b, grad_x in enumerate(grad_xs)
    ]
    convolve(results, 3, entry_pool=False, adjoint=True)
    return grad_xs


def _grad_weights(dzs: Tensors, xs: Tensors, convs: list[_Conv]) -> Tensors:
    blocks, offset = [], 0
    for conv in convs:
        x = xs[conv.scale]
        row = x.shape[1] * TAPS
        blocks.append(Block(conv.of(dzs), x, size_of(x), SAME, offset, row, TAPS, conv.dilation))
        offset += conv.weight.numel()
    total = weight_gradients(blocks, offset, 3, entry_pool=False)
    parts = total.split([conv.weight.numel() for conv in convs])
    return [
        part.view(conv.weight.shape).to(conv.weight.dtype)
        for part, conv in zip(parts, convs, strict=True)
    ]


def _term(source: Tensor, conv: _Conv) -> Term:
    return Term(source, size_of(source), SAME, conv.weight, dilation=conv.dilation)
