"""Launches of the Triton kernels of `depthwise_scales`."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor

from lmwp_ops import _triton
from lmwp_ops._layout import empty_like_layout, is_channels_last
from lmwp_ops.ops.depthwise_scales import triton_kernels as kernels
from lmwp_ops.ops.depthwise_scales.checks import output_shape

Tensors = list[Tensor]

MAX_BRANCHES = 4  # of one launch; a program looks its own up among them
_INT32_MAX = 2**31 - 1
_VECTOR_BYTES = 16
_MAX_CHANNELS = 32  # of a program
# Channels of a vector for each K: a thread holds the K * K weights of every one.
_MAX_CHANNEL_VECTOR = {1: 8, 3: 8, 5: 4, 7: 2}


class Strides(NamedTuple):
    """Of a feature, in vectors; that of the vectors themselves is 1."""

    image: int
    channel: int
    row: int
    column: int


class Forward(NamedTuple):
    """Tensors of one branch; those of the epilogue may be absent."""

    x: Tensor
    weight: Tensor  # [C, 1, K, K]
    scale: Tensor | None  # [C], like shift and slope
    shift: Tensor | None
    slope: Tensor | None
    y: Tensor


class Sizes(NamedTuple):
    """One branch: its programs and extents, and the strides of what is read and written."""

    first: int  # program of the launch
    blocks: int  # programs for each block of channels
    images: int
    channels: int
    height: int
    width: int
    out_height: int
    out_width: int
    source: Strides
    result: Strides


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
        config = kernels.CONFIGS[0]
        pairs = [(xs[b], ys[b]) for b in group]
        unit = stride == dilation == 1
        plan = _plan(pairs, weights[0].shape[-1], unit, dilation, config)
        tensors = tuple(
            Forward(xs[b], weights[b], _at(scale, b), _at(shift, b), _at(slope, b), ys[b])
            for b in group
        )
        _triton.launch(
            kernels.depthwise_scales_fwd_kernel,
            plan.programs,
            xs[0].device,
            *(tensors, plan.sizes),
            STRIDE=stride,
            DILATION=dilation,
            **plan.constants,
            **config,
        )
    return ys


def _at(kind: Tensors, b: int) -> Tensor | None:
    return kind[b] if kind else None


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
            wide = max(*x.stride(), x[0].numel()) > _INT32_MAX
            alone = b if wide else None
            launches.setdefault((is_channels_last(x), alone), []).append(b)
    for group in launches.values():
        for i in range(0, len(group), MAX_BRANCHES):
            yield group[i : i + MAX_BRANCHES]


def _plan(
    pairs: Sequence[tuple[Tensor, Tensor]],
    kernel_size: int,
    unit: bool,
    step: int,
    config: dict[str, int],
) -> Plan:
    """Divide the results of `pairs` (source, result), whose rows are taken `step` apart.

    Columns are vectors only with stride and dilation one (`unit`).
    """
    interleaved = is_channels_last(pairs[0][0])
    vector = _VECTOR_BYTES // pairs[0][0].element_size()
    if interleaved:
        vector = min(vector, _MAX_CHANNEL_VECTOR[kernel_size])
    while vector > 1 and not all(_in_vectors(t, vector, interleaved) for p in pairs for t in p):
        vector //= 2
    if not interleaved and (not unit or vector < kernel_size // 2):
        vector = 1
    items = 32 * config["num_warps"]
    channels = _channels([source.shape[1] for source, _ in pairs], vector) if interleaved else 1
    pixels = items * vector // channels if interleaved else items

    sizes, first = [], 0
    for source, result in pairs:
        images, width, height = source.shape[0], result.shape[3], result.shape[2]
        columns = width if interleaved else width // vector
        groups = -(-height // (config["ROWS"] * step)) * step
        blocks = -(-images * groups * columns // pixels)
        lanes = (vector, 1) if interleaved else (1, vector)
        sizes.append(
            Sizes(
                first,
                blocks,
                images,
                source.shape[1] // lanes[0],
                source.shape[2],
                source.shape[3] // lanes[1],
                height,
                columns,
                _strides(source, vector, interleaved),
                _strides(result, vector, interleaved),
            )
        )
        first += blocks * -(-source.shape[1] // channels)
    constants = {
        "K": kernel_size,
        "VECTOR": vector,
        "INTERLEAVED": interleaved,
        "PIXELS": pixels,
        "CHANNELS": channels,
    }
    return Plan(tuple(sizes), first, constants)


def _channels(counts: list[int], vector: int) -> int:
    """Channels of a program: a power of two that the narrowest branch about fills."""
    channels = vector
    while channels < min(*counts, _MAX_CHANNELS):
        channels *= 2
    return channels


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
