"""Launches of the Triton kernels of `bn_prelu_gap`."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lmwp_ops import _triton
from lmwp_ops._layout import empty_like_layout, is_channels_last, with_layout_of
from lmwp_ops._tuning import tuned
from lmwp_ops.ops.bn_prelu_gap import triton_kernels as kernels
from lmwp_ops.ops.bn_prelu_gap.triton_kernels import SUM_CONFIG, Sizes, Steps, SumSizes
from lmwp_ops.ops.sizes.triton_kernels import MOST, passed

Tensors = list[Tensor]

MAX_BRANCHES = 4  # of one launch; a program looks its own up among them
_VECTOR_BYTES = 16
_FEWEST_PIXELS = 64  # of a tile, in which a map may have fewer
_MAX_CHANNELS = 32  # of a tile


class Forward(NamedTuple):
    """Tensors of one branch; without a PReLU the slope is not read."""

    x: Tensor
    weight: Tensor  # [C], like bias, slope, mean and var
    bias: Tensor
    slope: Tensor
    mean: Tensor
    var: Tensor
    affine: Tensor  # [2, C]
    y: Tensor
    means: Tensor  # [parts, N, C]
    partial: Tensor  # [tiles, 3, C]


class Backward(NamedTuple):
    """Tensors of one branch; without a PReLU the slope is not read."""

    x: Tensor
    grad: Tensor
    weight: Tensor  # [C], like bias, slope, mean and var
    bias: Tensor
    slope: Tensor
    mean: Tensor
    var: Tensor
    grad_x: Tensor
    partial: Tensor  # [tiles, 3, C]
    sums: tuple[Tensor, ...]  # gradients of bias, weight and slope, [C]


class Shape(NamedTuple):
    """That of a tile; branches share a launch where all of it is the same."""

    interleaved: bool
    vector: int
    images: int
    pixels: int
    channels: int
    warps: int

    def constants(self) -> dict[str, int]:
        return {
            "VECTOR": self.vector,
            "INTERLEAVED": self.interleaved,
            "IMAGES": self.images,
            "PIXELS": self.pixels,
            "CHANNELS": self.channels,
            "num_warps": self.warps,
        }

    def parts(self, x: Tensor) -> int:
        return _ceil_div(x.shape[2] * x.shape[3], self.pixels)

    def tiles(self, x: Tensor) -> int:
        return _ceil_div(x.shape[0], self.images) * self.parts(x)


class Plan(NamedTuple):
    """One launch: its branches, the tensors and sizes of each, and its programs."""

    tensors: tuple[Any, ...]
    sizes: tuple[Any, ...]
    programs: int


def forward(
    xs: Tensors, weight: Tensors, bias: Tensors, slope: Tensors, eps: float
) -> tuple[Tensors, Tensors, Tensors, Tensors]:
    """`reference.forward` on the GPU, in three launches for branches with tiles of one shape."""
    ys = [empty_like_layout(x, x.shape) for x in xs]
    means = [x.new_empty(x.shape[:2], dtype=torch.float32) for x in xs]
    mean, var = ([_per_channel(x) for x in xs] for _ in range(2))
    parameters = _alike(weight), _alike(bias), _alike(slope or weight)
    sources = [_walkable(x) for x in xs]
    for shape, group in _groups(list(zip(sources, ys, strict=True))):
        tensors = []
        for b in group:
            x = sources[b]
            count, channels = shape.tiles(x), x.shape[1]
            sums = x.new_empty(shape.parts(x), *x.shape[:2], dtype=torch.float32)
            partial = x.new_empty(count, 3, channels, dtype=torch.float32)
            affine = x.new_empty(2, channels, dtype=torch.float32)
            given = [kind[b] for kind in parameters]
            made = [mean[b], var[b], affine, ys[b], sums, partial]
            tensors.append(Forward._make([x, *given, *made]))
        plan = _plan(shape, tensors, [(t.x, t.x, t.y) for t in tensors])
        together = _sum_plan(shape, tensors)
        _launch(kernels.bn_prelu_gap_fwd_moments_kernel, plan, **shape.constants())
        tile = {"IMAGES": shape.images, "PIXELS": shape.pixels}
        _launch(kernels.bn_prelu_gap_fwd_statistics_kernel, together, eps, **tile, **SUM_CONFIG)
        flags = {"PRELU": bool(slope), **shape.constants()}
        _launch(kernels.bn_prelu_gap_fwd_kernel, plan, **flags)
        for b, t in zip(group, tensors, strict=True):
            means[b] = t.means[0] if len(t.means) == 1 else t.means.sum(0)
    return ys, means, mean, var


def backward(
    grads: Tensors,
    xs: Tensors,
    weight: Tensors,
    bias: Tensors,
    slope: Tensors,
    batch_mean: Tensors,
    batch_var: Tensors,
    eps: float,
    wanted: list[bool],
) -> tuple[Tensors, Tensors, Tensors, Tensors]:
    """`reference.backward` on the GPU, in three launches for branches with tiles of one shape."""
    grad_xs = [empty_like_layout(x, x.shape) for x in xs] if wanted[0] else []
    sums = [tuple(_per_channel(x) for _ in range(3)) for x in xs]
    parameters = _alike(weight), _alike(bias), _alike(slope or weight)
    statistics = ([t.float().contiguous() for t in kind] for kind in (batch_mean, batch_var))
    given = [*parameters, *statistics]
    sources = [_walkable(x) for x in xs]
    grads = [_walkable(with_layout_of(x, grad)) for x, grad in zip(xs, grads, strict=True)]
    outs = grad_xs or sources
    for shape, group in _groups(list(zip(sources, grads, outs, strict=True))):
        tensors = []
        for b in group:
            x = sources[b]
            partial = x.new_empty(shape.tiles(x), 3, x.shape[1], dtype=torch.float32)
            per_channel = [kind[b] for kind in given]
            tensors.append(Backward._make([x, grads[b], *per_channel, outs[b], partial, sums[b]]))
        plan = _plan(shape, tensors, [(t.x, t.grad, t.grad_x) for t in tensors])
        flags = {"PRELU": bool(slope), **shape.constants()}
        _launch(kernels.bn_prelu_gap_bwd_sums_kernel, plan, eps, **flags)
        together = _sum_plan(shape, tensors)
        _launch(kernels.bn_prelu_gap_bwd_statistics_kernel, together, eps, **SUM_CONFIG)
        if wanted[0]:
            _launch(kernels.bn_prelu_gap_bwd_input_kernel, plan, eps, **flags)
    kinds = ((weight, 1), (bias, 0), (slope, 2))
    returned = (
        [s[row].to(p.dtype) for s, p in zip(sums, kind, strict=False)] if want else []
        for (kind, row), want in zip(kinds, wanted[1:], strict=True)
    )
    grad_weight, grad_bias, grad_slope = returned
    return grad_xs, grad_weight, grad_bias, grad_slope


def _per_channel(x: Tensor) -> Tensor:
    """Room for what is found of each channel; of an empty batch that is zeros."""
    make = x.new_empty if len(x) else x.new_zeros
    return make(x.shape[1], dtype=torch.float32)


def _launch(kernel: object, plan: Plan, *scalars: float, **constants: int) -> None:
    device = plan.tensors[0].x.device
    args = (plan.tensors, passed(plan.sizes), *scalars)
    _triton.launch(kernel, plan.programs, device, *args, **constants)


def _plan(shape: Shape, tensors: list[Any], features: list[tuple[Tensor, ...]]) -> Plan:
    sizes, first = [], 0
    lanes = (1, shape.vector) if shape.interleaved else (shape.vector, 1)
    for x, grad, out in features:
        images, channels, height, width = x.shape
        tiles = shape.tiles(x)
        extents = (images, height * width // lanes[0], channels // lanes[1])
        steps = (_steps(feature, shape) for feature in (x, grad, out))
        sizes.append(Sizes(first, tiles, shape.parts(x), *extents, *steps))
        first += tiles * _ceil_div(channels, shape.channels)
    return Plan(tuple(tensors), tuple(sizes), first)


def _sum_plan(shape: Shape, tensors: list[Any]) -> Plan:
    sizes, first = [], 0
    for t in tensors:
        images, channels, height, width = t.x.shape
        tiles, parts = shape.tiles(t.x), shape.parts(t.x)
        sizes.append(SumSizes(first, tiles, parts, images, height * width, channels))
        first += _ceil_div(channels, SUM_CONFIG["CHANNELS"])
    return Plan(tuple(tensors), tuple(sizes), first)


def _groups(features: list[tuple[Tensor, ...]]) -> Iterator[tuple[Shape, list[int]]]:
    """The branches of each launch, alone where sizes need 64 bits."""
    launches: dict[tuple[Shape, int | None], list[int]] = {}
    for b, group in enumerate(features):
        x = group[0]
        if len(x):
            sizes = (size for f in group for size in (*f.stride(), *f.shape, f[0].numel()))
            alone = b if max(sizes) > MOST else None
            launches.setdefault((_shape(group), alone), []).append(b)
    for (shape, _), members in launches.items():
        for i in range(0, len(members), MAX_BRANCHES):
            yield shape, members[i : i + MAX_BRANCHES]


def _shape(features: tuple[Tensor, ...]) -> Shape:
    x = features[0]
    interleaved = is_channels_last(x)
    layout = "channels_last" if interleaved else "nchw"
    dtype = str(x.dtype).removeprefix("torch.")
    key = f"{dtype} {layout} 2^{x.numel().bit_length()}"
    config = tuned("bn_prelu_gap", key, kernels.CONFIGS, x.device)
    block, warps = config["BLOCK"], config["num_warps"]
    vector = _vector(features, interleaved)
    if interleaved:
        channels = min(_MAX_CHANNELS, max(vector, _power_of_two(x.shape[1])))
        return Shape(True, vector, 1, block // channels, channels, warps)
    pixels = _power_of_two(x.shape[2] * x.shape[3])
    pixels = min(block, max(_FEWEST_PIXELS, pixels))
    return Shape(False, vector, block // pixels, pixels, 1, warps)


def _walkable(x: Tensor) -> Tensor:
    """x, or a dense copy where pixels, or channels where they are innermost, are not in a row."""
    pixels_in_a_row = x.stride(2) == x.shape[3] * x.stride(3) or x.shape[2] == 1
    innermost = x.stride(1) if is_channels_last(x) else x.stride(3)
    if pixels_in_a_row and innermost == 1:
        return x
    return with_layout_of(x, x)


def _steps(x: Tensor, shape: Shape) -> Steps:
    """In vectors, but for those in the innermost dimension."""
    image, channel, _, pixel = x.stride()
    if shape.interleaved:
        return Steps(image // shape.vector, pixel // shape.vector, 1)
    return Steps(image // shape.vector, 1, channel // shape.vector)


def _vector(features: tuple[Tensor, ...], interleaved: bool) -> int:
    """Elements of the widest vector, at most 16 bytes, that all features are made of."""
    vector = _VECTOR_BYTES // features[0].element_size()
    while vector > 1 and not all(_in_vectors(x, vector, interleaved) for x in features):
        vector //= 2
    return vector


def _in_vectors(x: Tensor, vector: int, interleaved: bool) -> bool:
    """Whether `x` is made of whole vectors, aligned, of what is innermost in it."""
    image, channel, _, pixel = x.stride()
    count, step = (x.shape[1], pixel) if interleaved else (x[0, 0].numel(), channel)
    aligned = x.data_ptr() % (vector * x.element_size()) == 0
    return aligned and all(size % vector == 0 for size in (image, step, count))


def _alike(kind: Tensors) -> Tensors:
    """Dense parameters of one dtype: those of a launch are read through the same pointers."""
    same = len({parameter.dtype for parameter in kind}) < 2
    return [(p if same else p.float()).contiguous() for p in kind]


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)
