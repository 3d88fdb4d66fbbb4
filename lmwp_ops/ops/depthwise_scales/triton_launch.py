"""Launches of the Triton kernels of `depthwise_scales`."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lmwp_ops import _triton
from lmwp_ops._layout import empty_like_layout, is_channels_last, with_layout_of
from lmwp_ops._tuning import tuned
from lmwp_ops.ops._arguments import argument_error
from lmwp_ops.ops.depthwise_scales import triton_kernels as kernels
from lmwp_ops.ops.depthwise_scales.checks import output_shape
from lmwp_ops.ops.depthwise_scales.triton_kernels import Sizes, SumSizes
from lmwp_ops.ops.sizes.triton_kernels import MOST, Strides, passed

Tensors = list[Tensor]

MAX_BRANCHES = 4  # of one launch; a program looks its own up among them
_INT32_MAX = 2**31 - 1
_VECTOR_BYTES = 16
_MAX_CHANNELS = 32  # of a program
_SUM_PROGRAMS = 1024  # of a branch, at most about
# Elements of a vector for each K. For every channel of a vector a thread holds K * K weights, and
# as many sums; those over a vector of columns take long to compile where there are many.
_MAX_CHANNEL_VECTOR = {1: 8, 3: 8, 5: 2, 7: 1}
_MAX_CHANNEL_VECTOR_OF_SUMS = {1: 8, 3: 4, 5: 1, 7: 1}
_MAX_COLUMN_VECTOR_OF_SUMS = {1: 8, 3: 8, 5: 1, 7: 1}


class Forward(NamedTuple):
    """Tensors of one branch; any in the place of one that is not read or written."""

    x: Tensor
    weight: Tensor  # [C, 1, K, K]
    scale: Tensor  # [C], like shift and slope
    shift: Tensor
    slope: Tensor
    y: Tensor


class BackwardInput(NamedTuple):
    """Tensors of one branch."""

    grad: Tensor
    weight: Tensor
    scale: Tensor
    grad_x: Tensor


class BackwardWeight(NamedTuple):
    """Tensors of one branch; grad_z and the partial sums are outputs."""

    x: Tensor
    grad: Tensor
    weight: Tensor
    scale: Tensor
    shift: Tensor
    slope: Tensor
    grad_z: Tensor
    partial: Tensor  # [parts, C, K * K + 3]


class BackwardSum(NamedTuple):
    """Partial sums of one branch, and the gradients that they add up to."""

    partial: Tensor
    weight: Tensor
    scale: Tensor
    shift: Tensor
    slope: Tensor


class Plan(NamedTuple):
    """How one launch divides its branches among programs."""

    sizes: tuple[Sizes, ...]
    programs: int
    constants: dict[str, int]


def forward(
    xs: Tensors,
    weights: Tensors,
    scale: Tensors,
    shift: Tensors,
    slope: Tensors,
    stride: int,
    dilation: int,
) -> Tensors:
    """`reference.forward` on the GPU, in one launch for every four branches of one layout."""
    ys = [empty_like_layout(x, output_shape(x, stride)) for x in xs]
    dilation = _effective(dilation, xs)
    weights, scale, shift, slope = (_alike(kind) for kind in (weights, scale, shift, slope))
    for group in _groups(xs):
        tensors = tuple(
            Forward(xs[b], weights[b], *_epilogue(b, weights, scale, shift, slope), ys[b])
            for b in group
        )
        pairs = [(xs[b], ys[b]) for b in group]
        kernel_size = weights[0].shape[-1]
        config = _config("fwd", xs[group[0]], kernel_size, (stride, dilation))
        plan = _plan(config, pairs, kernel_size, stride, dilation)
        flags = {"AFFINE": bool(scale), "PRELU": bool(slope)}
        _launch(kernels.depthwise_scales_fwd_kernel, tensors, plan, stride, dilation, **flags)
    return ys


def backward(
    grads: Tensors,
    xs: Tensors,
    weights: Tensors,
    scale: Tensors,
    shift: Tensors,
    slope: Tensors,
    stride: int,
    dilation: int,
    wanted: list[bool],
) -> tuple[Tensors, ...]:
    """`reference.backward` on the GPU, in three launches for every four branches of one layout.

    Where there is a slope, the gradient of z is kept in the dtype of xs between the first, which
    adds up over pixels, and the second, which gathers.
    """
    grads = [with_layout_of(x, grad) for x, grad in zip(xs, grads, strict=True)]
    dilation = _effective(dilation, xs)
    alike = [_alike(kind) for kind in (weights, scale, shift, slope)]
    grad_xs = [empty_like_layout(x, x.shape) for x in xs] if wanted[0] else []
    sums = [
        [_sum_like(p, x) for p, x in zip(kind, xs, strict=True)] if kind and want else []
        for kind, want in zip(alike, wanted[1:], strict=True)
    ]
    for group in _groups(xs):
        grad_zs = _backward_sums(group, grads, xs, alike, sums, (stride, dilation), wanted[0])
        if wanted[0]:
            _backward_input(group, grad_zs, alike, grad_xs, (stride, dilation))
    returned = [
        [g.to(p.dtype) for g, p in zip(sum_, kind, strict=False)]
        for sum_, kind in zip(sums, (weights, scale, shift, slope), strict=True)
    ]
    return grad_xs, *returned


def _backward_sums(
    group: list[int],
    grads: Tensors,
    xs: Tensors,
    parameters: list[Tensors],
    sums: list[Tensors],
    spacing: tuple[int, int],
    wants_x: bool,
) -> Tensors:
    """Fill in the `sums` of a group; returns for each branch what the input's gradient gathers."""
    weights, scale, shift, slope = parameters
    keeps = wants_x and bool(slope)
    if not (keeps or any(sums)):
        return [grads[b] for b in group]
    pairs = [(xs[b], grads[b]) for b in group]
    kernel_size = weights[0].shape[-1]
    config = _config("bwd_weight", xs[group[0]], kernel_size, spacing)
    plan = _plan(config, pairs, kernel_size, *spacing, sums=True)
    totals = kernel_size**2 + 3
    grad_zs = [torch.empty_like(grads[b]) if keeps else grads[b] for b in group]
    partials = [
        weights[b].new_empty(size.blocks, xs[b].shape[1], totals, dtype=torch.float32)
        if any(sums)
        else weights[b]
        for b, size in zip(group, plan.sizes, strict=True)
    ]
    tensors = tuple(
        BackwardWeight(
            *(xs[b], grads[b], weights[b]),
            *(*_epilogue(b, weights, scale, shift, slope), grad_z, partial),
        )
        for b, grad_z, partial in zip(group, grad_zs, partials, strict=True)
    )
    flags = {"AFFINE": bool(scale), "PRELU": bool(slope), "KEEPS": keeps, "SUMS": any(sums)}
    _launch(kernels.depthwise_scales_bwd_weight_kernel, tensors, plan, *spacing, **flags)
    if any(sums):
        _add_up(group, partials, sums, kernel_size)
    return grad_zs


def _add_up(group: list[int], partials: Tensors, sums: list[Tensors], kernel_size: int) -> None:
    tensors = tuple(
        BackwardSum(partial, *(kind[b] if kind else partial for kind in sums))
        for b, partial in zip(group, partials, strict=True)
    )
    config = kernels.CONFIGS["bwd_sum"][0]
    sizes, first = [], 0
    for partial in partials:
        parts, channels, totals = partial.shape
        sizes.append(SumSizes(first, parts, channels))
        first += _ceil_div(channels * totals, config["TOTALS"])
    _triton.launch(
        kernels.depthwise_scales_bwd_sum_kernel,
        first,
        partials[0].device,
        *(tensors, passed(tuple(sizes))),
        WANTED=tuple(bool(kind) for kind in sums),
        K=kernel_size,
        **config,
    )


def _backward_input(
    group: list[int],
    grad_zs: Tensors,
    parameters: list[Tensors],
    grad_xs: Tensors,
    spacing: tuple[int, int],
) -> None:
    weights, scale, _, slope = parameters
    tensors = tuple(
        BackwardInput(grad_z, weights[b], scale[b] if scale else weights[b], grad_xs[b])
        for b, grad_z in zip(group, grad_zs, strict=True)
    )
    pairs = [(t.grad, t.grad_x) for t in tensors]
    stride, dilation = spacing
    kernel_size = weights[0].shape[-1]
    config = _config("bwd_input", grad_xs[group[0]], kernel_size, spacing)
    plan = _plan(config, pairs, kernel_size, stride, dilation, step=stride * dilation)
    scales = bool(scale) and not slope  # with a slope grad_z is scaled by now
    _launch(
        kernels.depthwise_scales_bwd_input_kernel, tensors, plan, stride, dilation, AFFINE=scales
    )


def _config(kernel: str, x: Tensor, kernel_size: int, spacing: tuple[int, int]) -> dict[str, int]:
    """The configuration for the launch whose first branch reads or writes x."""
    layout = "channels_last" if is_channels_last(x) else "nchw"
    dtype = str(x.dtype).removeprefix("torch.")
    stride, dilation = spacing
    size = x.numel().bit_length()
    key = f"{dtype} {layout} k{kernel_size} s{stride} d{dilation} 2^{size}"
    name = f"depthwise_scales_{kernel}"
    configs = kernels.CONFIGS[kernel]
    if kernel == "bwd_weight" and (kernel_size > 5 or stride > 1):
        # Fewest rows first: more of them need more registers than there are.
        configs = sorted(configs, key=lambda config: config["ROWS"])
    return tuned(name, key, configs, x.device)


def _launch(
    kernel: object,
    tensors: tuple[Forward, ...] | tuple[BackwardInput, ...] | tuple[BackwardWeight, ...],
    plan: Plan,
    stride: int,
    dilation: int,
    **flags: bool,
) -> None:
    _triton.launch(
        kernel,
        plan.programs,
        tensors[0].weight.device,
        *(tensors, passed(plan.sizes)),
        STRIDE=stride,
        DILATION=dilation,
        maxnreg=_triton.MAX_REGISTERS,
        **flags,
        **plan.constants,
    )


def _sum_like(parameter: Tensor, x: Tensor) -> Tensor:
    """Room for a gradient, which stays zero where there is nothing to add up."""
    return parameter.new_empty(parameter.shape) if len(x) else parameter.new_zeros(parameter.shape)


def _epilogue(b: int, weights: Tensors, *kinds: Tensors) -> tuple[Tensor, Tensor, Tensor]:
    """Scale, shift and slope of a branch, or in the place of one that is not there its weight."""
    scale, shift, slope = (kind[b] if kind else weights[b] for kind in kinds)
    return scale, shift, slope


def _alike(kind: Tensors) -> Tensors:
    """Dense parameters of one dtype: those of a launch are read through the same pointers."""
    same = len({parameter.dtype for parameter in kind}) < 2
    return [(p if same else p.float()).contiguous() for p in kind]


def _effective(dilation: int, xs: Tensors) -> int:
    """Beyond the maps every tap but the centre reads padding, whatever the dilation."""
    return min(dilation, max(max(x.shape[2:]) for x in xs))


def _groups(xs: Tensors) -> Iterator[list[int]]:
    """The branches of each launch: of one layout, and alone where strides need 64 bits."""
    launches: dict[object, list[int]] = {}
    for b, x in enumerate(xs):
        if x.shape[0]:
            wide = max(*x.stride(), *x.shape, x[0].numel()) > MOST
            alone = b if wide else None
            launches.setdefault((is_channels_last(x), alone), []).append(b)
    for group in launches.values():
        for i in range(0, len(group), MAX_BRANCHES):
            yield group[i : i + MAX_BRANCHES]


def _plan(
    config: dict[str, int],
    pairs: Sequence[tuple[Tensor, Tensor]],
    kernel_size: int,
    stride: int,
    dilation: int,
    *,
    step: int | None = None,
    sums: bool = False,
) -> Plan:
    """Divide the results of `pairs` (source, result) among programs.

    Rows of a result are taken `step` apart, as a rule by the dilation. For `sums` a program goes
    through as many blocks of pixels as leave about `_SUM_PROGRAMS` of them.
    """
    interleaved = is_channels_last(pairs[0][0])
    widest = _vector([t for pair in pairs for t in pair], interleaved)
    if interleaved:
        limits = _MAX_CHANNEL_VECTOR_OF_SUMS if sums else _MAX_CHANNEL_VECTOR
        vector = min(widest, limits[kernel_size])
        channels = _channels([result.shape[1] for _, result in pairs], vector)
    else:
        vector = min(widest, _MAX_COLUMN_VECTOR_OF_SUMS[kernel_size]) if sums else widest
        shifted = stride == dilation == 1 and vector >= kernel_size // 2
        vector, channels = (vector if shifted else 1), 1
    pixels = 32 * config["num_warps"] * (vector if interleaved else 1) // channels
    apart = config["ROWS"] * (step or dilation)

    sizes, first = [], 0
    for source, result in pairs:
        images, width, height = len(result), result.shape[3], result.shape[2]
        lanes = (vector, 1) if interleaved else (1, vector)
        groups = _ceil_div(height, apart) * (step or dilation)
        blocks = _ceil_div(images * groups * (width // lanes[1]), pixels)
        if blocks * pixels > _INT32_MAX:
            raise argument_error(
                "depthwise_scales", "xs", "fewer pixels of one channel", list(source.shape)
            )
        channel_blocks = _ceil_div(result.shape[1], channels)
        steps = _ceil_div(blocks * channel_blocks, _SUM_PROGRAMS) if sums else 1
        blocks = _ceil_div(blocks, steps)
        sizes.append(
            Sizes(
                *(first, blocks, steps, images),
                *(result.shape[1] // lanes[0], source.shape[2], source.shape[3] // lanes[1]),
                *(height, width // lanes[1]),
                _strides(source, vector, interleaved),
                _strides(result, vector, interleaved),
            )
        )
        first += blocks * channel_blocks
    constants = {
        "K": kernel_size,
        "VECTOR": vector,
        "INTERLEAVED": interleaved,
        "PIXELS": pixels,
        "CHANNELS": channels,
        **config,
    }
    return Plan(tuple(sizes), first, constants)


def _channels(counts: list[int], vector: int) -> int:
    """Channels of a program: a power of two that the narrowest branch about fills."""
    channels = vector
    while channels < min(*counts, _MAX_CHANNELS):
        channels *= 2
    return channels


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def _vector(features: list[Tensor], interleaved: bool) -> int:
    """Elements of the widest vector, at most 16 bytes, that all features are made of."""
    vector = _VECTOR_BYTES // features[0].element_size()
    while vector > 1 and not all(_in_vectors(x, vector, interleaved) for x in features):
        vector //= 2
    return vector


def _in_vectors(x: Tensor, vector: int, interleaved: bool) -> bool:
    """Whether `x` is made of whole vectors, aligned, of its innermost dimension."""
    innermost = 1 if interleaved else 3
    coarser = (stride for d, stride in enumerate(x.stride()) if d != innermost)
    return (
        x.stride(innermost) == 1
        and x.shape[innermost] % vector == 0
        and x.data_ptr() % (vector * x.element_size()) == 0
        and all(stride % vector == 0 for stride in coarser)
    )


def _strides(x: Tensor, vector: int, interleaved: bool) -> Strides:
    if vector == 1:
        return Strides(*x.stride())
    image, channel, row, column = (stride // vector for stride in x.stride())
    if interleaved:
        return Strides(image, 1, row, column)
    return Strides(image, channel, row, 1)
