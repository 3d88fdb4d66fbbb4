"""What `dilated_bank` accepts, and the shapes it returns."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from lmwp_ops.ops._arguments import (
    argument_error,
    check_branches,
    check_epilogue,
    check_parameter,
)

OP = "dilated_bank"


def per_scale(items: Sequence[Tensor], counts: Sequence[int]) -> Iterator[Sequence[Tensor]]:
    """`items` cut into as many as each scale has."""
    first = 0
    for count in counts:
        yield items[first : first + count]
        first += count


def check(
    xs: Sequence[Tensor],
    weights: Sequence[Tensor],
    scale: Sequence[Tensor],
    shift: Sequence[Tensor],
    slope: Sequence[Tensor],
    dilations: Sequence[int],
    counts: Sequence[int],
) -> None:
    """Raise ValueError unless the op can compute these arguments."""
    check_branches(OP, xs)
    if any(dilation < 1 for dilation in dilations):
        raise argument_error(OP, "dilations", "one or more positive ints", list(dilations))
    if not weights:
        raise argument_error(OP, "weights", "at least one tensor", "None everywhere")
    if len(counts) != len(xs) or sum(counts) != len(weights) or len(dilations) != len(weights):
        expected = "one dilation per weight and a number of weights per scale"
        raise argument_error(OP, "counts", expected, list(counts))
    for b, (x, row) in enumerate(zip(xs, per_scale(weights, counts), strict=True)):
        if 0 in x.shape[1:]:
            expected = "at least one channel and one pixel"
            raise argument_error(OP, f"xs[{b}]", expected, f"shape {list(x.shape)}")
        for d, weight in enumerate(row):
            shape = tuple(weight.shape)
            if len(shape) != 4 or shape[0] == 0 or shape[1:] != (x.shape[1], 3, 3):
                expected = f"shape [out, {x.shape[1]}, 3, 3] with out > 0, or None"
                raise argument_error(OP, f"weights[{b}][{d}]", expected, list(shape))
            check_parameter(OP, f"weights[{b}][{d}]", weight, shape, x)
    widths = [shape[1] for shape in output_shapes(xs, weights, counts)]
    check_epilogue(OP, scale, shift, slope, widths, xs[0])


def check_gradients(
    grads: Sequence[Tensor],
    xs: Sequence[Tensor],
    weights: Sequence[Tensor],
    counts: Sequence[int],
) -> None:
    """Raise ValueError unless `grads` are gradients of the outputs."""
    shapes = output_shapes(xs, weights, counts)
    if len(grads) != len(shapes):
        raise argument_error(OP, "grads", f"{len(shapes)} tensors, one per output", len(grads))
    for b, (grad, shape) in enumerate(zip(grads, shapes, strict=True)):
        if tuple(grad.shape) != shape:
            raise argument_error(OP, f"grads[{b}]", f"shape {list(shape)}", list(grad.shape))


def output_shapes(
    xs: Sequence[Tensor], weights: Sequence[Tensor], counts: Sequence[int]
) -> list[tuple[int, int, int, int]]:
    """[N, C, H, W] of every scale with weights."""
    return [
        (x.shape[0], sum(weight.shape[0] for weight in row), x.shape[2], x.shape[3])
        for x, row in zip(xs, per_scale(weights, counts), strict=True)
        if row
    ]
