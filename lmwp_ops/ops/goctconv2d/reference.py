"""Plain-torch truth of `goctconv2d` and of its gradients."""

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from lmwp_ops._layout import with_layout_of
from lmwp_ops.ops._epilogue import apply_epilogue, compute_dtype, epilogue_backward, output_dtype
from lmwp_ops.ops.goctconv2d.checks import Size, branch_sizes, input_sizes

aten = torch.ops.aten

Kinds = tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor], list[Tensor]]


def forward(
    xs: Sequence[Tensor],
    weight: Tensor,
    scale: Sequence[Tensor],
    shift: Sequence[Tensor],
    slope: Sequence[Tensor],
    in_channels: Sequence[int],
    out_channels: Sequence[int],
    entry_pool: bool,
    cross_scale: bool,
    bilinear_down: bool,
) -> list[Tensor]:
    """See `lmwp_ops.goctconv2d`; arguments are taken as already checked."""
    sums = _sums(xs, weight, in_channels, out_channels, entry_pool, cross_scale, bilinear_down)
    ys = [apply_epilogue(z, b, scale, shift, slope) for b, z in enumerate(sums)]
    return [with_layout_of(xs[0], y.to(output_dtype(xs[0], y))) for y in ys]


def _sums(
    xs: Sequence[Tensor],
    weight: Tensor,
    in_channels: Sequence[int],
    out_channels: Sequence[int],
    entry_pool: bool,
    cross_scale: bool,
    bilinear_down: bool,
) -> list[Tensor]:
    """What the epilogue is applied to."""
    inputs = _inputs(xs, in_channels, entry_pool)
    sizes = branch_sizes(input_sizes(xs, in_channels, entry_pool), out_channels)
    weight = weight.to(compute_dtype(xs[0]))
    columns, rows = _slices(in_channels), _slices(out_channels)
    sums = []
    for j, size in sizes.items():
        terms = [
            _term(x, weight[rows[j], columns[i]], j - i, size, bilinear_down)
            for i, x in inputs.items()
            if cross_scale or i == j
        ]
        sums.append(sum(terms[1:], start=terms[0]))
    return sums


def _inputs(
    xs: Sequence[Tensor], in_channels: Sequence[int], entry_pool: bool
) -> dict[int, Tensor]:
    """The branches by scale, after the entry pool, in the dtype of computation."""
    present = [i for i, channels in enumerate(in_channels) if channels]
    wide = [x.to(compute_dtype(x)) for x in xs]
    if entry_pool:
        wide = [F.avg_pool2d(x, kernel_size=2, stride=2) for x in wide]
    return dict(zip(present, wide, strict=True))


def _term(x: Tensor, weight: Tensor, steps_down: int, size: Size, bilinear_down: bool) -> Tensor:
    """What one input branch adds to an output branch that is `steps_down` scales coarser."""
    if steps_down > 0:
        x = _resize(x, size) if bilinear_down else F.max_pool2d(x, kernel_size=2**steps_down)
    y = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    return _resize(y, size) if steps_down < 0 else y


def _resize(x: Tensor, size: Size) -> Tensor:
    # Autocast on the CPU resizes in float32; the terms of a sum keep one dtype.
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False).to(x.dtype)


def _slices(channels: Sequence[int]) -> list[slice]:
    ends = list(accumulate(channels))
    return [slice(end - width, end) for end, width in zip(ends, channels, strict=True)]


def backward(
    grads: Sequence[Tensor],
    xs: Sequence[Tensor],
    weight: Tensor,
    scale: Sequence[Tensor],
    shift: Sequence[Tensor],
    slope: Sequence[Tensor],
    in_channels: Sequence[int],
    out_channels: Sequence[int],
    entry_pool: bool,
    cross_scale: bool,
    bilinear_down: bool,
    wanted: Sequence[bool],
) -> Kinds:
    """Gradients of (xs, weight, scale, shift, slope); a kind not `wanted` is an empty list.

    Nothing but the inputs is kept from the forward pass: pooled branches, and the sums where the
    epilogue needs them, are computed again.
    """
    wants_xs, wants_weight, *wants_epilogue = wanted
    dtype = compute_dtype(xs[0])
    inputs = _inputs(xs, in_channels, entry_pool)
    sizes = branch_sizes({i: (x.shape[2], x.shape[3]) for i, x in inputs.items()}, out_channels)
    wide = weight.to(dtype)
    columns, rows = _slices(in_channels), _slices(out_channels)
    sums: Sequence[Tensor | None] = [None] * len(grads)
    if slope or wants_epilogue[0]:
        sums = _sums(xs, weight, in_channels, out_channels, entry_pool, cross_scale, bilinear_down)

    grad_inputs = {i: torch.zeros_like(x) for i, x in inputs.items()} if wants_xs else {}
    grad_weight = torch.zeros(weight.shape, dtype=dtype, device=weight.device)
    grad_epilogue: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
    for b, j in enumerate(sizes):
        dz, parameters = epilogue_backward(
            grads[b].to(dtype), sums[b], b, scale, shift, slope, wants_epilogue
        )
        for kind, gradient in zip(grad_epilogue, parameters, strict=True):
            if gradient is not None:
                kind.append(gradient)
        for i, x in inputs.items():
            if not (cross_scale or i == j):
                continue
            block = wide[rows[j], columns[i]]
            dx, dw = _term_backward(dz, x, block, j - i, bilinear_down, (wants_xs, wants_weight))
            if dx is not None:
                grad_inputs[i] += dx
            if dw is not None:
                grad_weight[rows[j], columns[i]] = dw
    grad_xs = []
    if wants_xs:
        by_scale = zip(inputs, xs, strict=True)
        grad_xs = [_unpool_entry(grad_inputs[i], x, entry_pool) for i, x in by_scale]
    grad_weights = [grad_weight.to(weight.dtype)] if wants_weight else []
    return grad_xs, grad_weights, grad_epilogue[0], grad_epilogue[1], grad_epilogue[2]


def _term_backward(
    dz: Tensor,
    x: Tensor,
    weight: Tensor,
    steps_down: int,
    bilinear_down: bool,
    wanted: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of one term with respect to its input and its weight."""
    read, indices = x, None
    if steps_down > 0 and bilinear_down:
        read = _resize(x, (dz.shape[2], dz.shape[3]))
    elif steps_down > 0:
        window = [2**steps_down] * 2
        read, indices = aten.max_pool2d_with_indices(x, window, window)
    elif steps_down < 0:
        low = (*dz.shape[:2], *x.shape[2:])
        dz = aten.upsample_bilinear2d_backward(dz, dz.shape[2:], low, False)
    padding = [weight.shape[-1] // 2] * 2
    dx, dw, _ = aten.convolution_backward(
        dz, read, weight, None, [1, 1], padding, [1, 1], False, [0, 0], 1, [*wanted, False]
    )
    if dx is not None and indices is not None:
        dx = aten.max_pool2d_with_indices_backward(
            dx, x, window, window, [0, 0], [1, 1], False, indices
        )
    elif dx is not None and steps_down > 0:
        dx = aten.upsample_bilinear2d_backward(dx, dx.shape[2:], x.shape, False)
    return dx, dw


def _unpool_entry(grad: Tensor, x: Tensor, entry_pool: bool) -> Tensor:
    if entry_pool:
        wide = x.to(grad.dtype)
        grad = aten.avg_pool2d_backward(grad, wide, [2, 2], [2, 2], [0, 0], False, True, None)
    return with_layout_of(x, grad.to(x.dtype))
