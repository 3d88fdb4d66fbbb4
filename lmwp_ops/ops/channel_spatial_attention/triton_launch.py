"""Launches of the Triton kernels of `channel_spatial_attention`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lmwp_ops import _triton
from lmwp_ops._layout import with_layout_of
from lmwp_ops._tuning import tuned
from lmwp_ops.ops.channel_spatial_attention import gradient_kernels, triton_kernels
from lmwp_ops.ops.channel_spatial_attention.triton_kernels import MOST_PARTS, Sizes, Steps
from lmwp_ops.ops.sizes.planes import ceil_div, planar, power_of_two, vector
from lmwp_ops.ops.sizes.triton_kernels import passed

Tensors = list[Tensor]

_ENOUGH_PROGRAMS = 1024  # to fill any GPU
_MOST_GROUPS = 8  # of channels; each finds the gate of its pixels again
_FEWEST_PIXELS = 64  # of a block
_FEW_PIXELS = 2**18  # in a batch
_LAYER_BLOCK = 2048  # weights of a layer at a time
_LAYER_CHANNELS = 64


class Gate(NamedTuple):
    """The channel gate and what its gradient needs."""

    logits: Tensor  # [N, C]
    pools: Tensor  # [N, pools, C]
    pixels: Tensor  # where maxima are, [N, C]
    units: Tensor  # hidden ones before the ReLU, [N, pools, h]


@dataclass(frozen=True, slots=True)
class Plan:
    """How the features of a call are divided among programs."""

    x: Tensor
    sizes: Sizes
    pools: dict[str, bool]
    tile: dict[str, int]
    warps: int
    splits: int

    def launch(self, kernel: Any, programs: int, *args: Any, **constants: Any) -> None:
        sizes = passed(self.sizes)
        options = {"num_warps": self.warps, "maxnreg": _triton.MAX_REGISTERS}
        config = {**constants, "VECTOR": self.vector, **options}
        _triton.launch(kernel, programs, self.x.device, *args, sizes, **config)

    @property
    def vector(self) -> int:
        return self.sizes.height * self.sizes.width // self.sizes.pixels

    @property
    def channel_blocks(self) -> int:
        return ceil_div(self.sizes.channels, self.tile["CHANNELS"])

    @property
    def of_pixels(self) -> int:
        """Programs with a block of pixels each."""
        return self.sizes.images * self.sizes.blocks

    @property
    def of_parts(self) -> int:
        """Programs with a part of some planes each."""
        return self.sizes.images * self.channel_blocks * self.sizes.parts

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.x.new_empty(shape, dtype=dtype)

    def maps(self, count: int) -> Tensor:
        return self.empty(self.sizes.images, count, self.sizes.height, self.sizes.width)


def forward(
    x: Tensor,
    reduce: Tensors,
    expand: Tensors,
    spatial: Tensors,
    mean: bool,
    max: bool,
) -> Tensor:
    """`reference.forward` on the GPU, in four launches for both gates."""
    source = planar(x)
    out = x.new_empty(x.shape)
    plan = _plan(source, source, out, reduce, mean, max)
    gate = _gate(plan, reduce, expand, keep=False) if reduce else None
    logits = gate.logits if gate else source
    flags = {"GATE": bool(reduce)}
    q = plan.maps(mean + max) if spatial else source
    if spatial:
        plan.launch(
            triton_kernels.channel_spatial_attention_fwd_channels_kernel,
            plan.of_pixels,
            *(source, logits, q),
            **(flags | plan.pools | plan.tile),
        )
    plan.launch(
        triton_kernels.channel_spatial_attention_fwd_kernel,
        plan.of_pixels * plan.sizes.groups,
        *(source, logits, q, _kernels(spatial, source), out),
        **(flags | _spatial_constants(spatial, mean + max) | plan.tile),
    )
    return with_layout_of(x, out)


def backward(
    grad: Tensor,
    x: Tensor,
    reduce: Tensors,
    expand: Tensors,
    spatial: Tensors,
    mean: bool,
    max: bool,
    wanted: Sequence[bool],
) -> tuple[Tensors, Tensors, Tensors, Tensors]:
    """`reference.backward` on the GPU, in eight launches for both gates."""
    source, slopes = planar(x), planar(grad)
    grad_x = x.new_empty(x.shape)
    plan = _plan(source, slopes, grad_x, reduce, mean, max)
    gate = _gate(plan, reduce, expand, keep=True) if reduce else None
    maps, dspatial = _spatial_backward(plan, slopes, gate, spatial)
    dpools = source
    dreduce: Tensors = []
    dexpand: Tensors = []
    if gate and any(wanted[:3]):
        dpools, dreduce, dexpand = _gate_backward(plan, slopes, gate, maps, reduce, expand, spatial)
    if wanted[0]:
        logits, pixels = (gate.logits, gate.pixels) if gate else (source, source)
        plan.launch(
            gradient_kernels.channel_spatial_attention_bwd_input_kernel,
            plan.of_pixels * plan.sizes.groups,
            *(slopes, logits, *maps[:2], (maps[2], pixels), dpools, grad_x),
            **({"GATE": bool(reduce), "SPATIAL": bool(spatial)} | plan.pools | plan.tile),
        )
    return (
        [with_layout_of(x, grad_x)] if wanted[0] else [],
        dreduce if wanted[1] else [],
        dexpand if wanted[2] else [],
        dspatial if wanted[3] else [],
    )


def _gate(plan: Plan, reduce: Tensors, expand: Tensors, *, keep: bool) -> Gate:
    s, pools = plan.sizes, sum(plan.pools.values())
    sums, maxima = (plan.empty(s.images, s.parts, s.channels) for _ in range(2))
    found = plan.empty(*sums.shape, dtype=torch.int64) if keep else sums
    plan.launch(
        triton_kernels.channel_spatial_attention_fwd_pool_kernel,
        plan.of_parts,
        *(plan.x, sums, maxima, found),
        INDEX=keep,
        **plan.tile,
    )
    logits = plan.empty(s.images, s.channels)
    kept = (logits, logits, logits)
    if keep:
        kept = (
            plan.empty(s.images, pools, s.channels),
            plan.empty(s.images, s.channels, dtype=torch.int64),
            plan.empty(s.images, pools, s.hidden),
        )
    plan.launch(
        triton_kernels.channel_spatial_attention_fwd_gate_kernel,
        s.images,
        *((sums, maxima, found), (*_layer(reduce), *_layer(expand)), logits, kept),
        BIASES=(len(reduce) > 1, len(expand) > 1),
        KEEP=keep,
        **(plan.pools | _layer_tile(s)),
    )
    return Gate(logits, *kept)


def _spatial_backward(
    plan: Plan, slopes: Tensor, gate: Gate | None, spatial: Tensors
) -> tuple[tuple[Tensor, ...], Tensors]:
    """The spatial gate, the gradient of the pools over channels and the channel of the maximum,
    and the gradients of the kernels; without kernels nothing to read."""
    if not spatial:
        return (slopes, slopes, slopes), []
    pools = sum(plan.pools.values())
    q, dot, opened, dsum, dq = (plan.maps(count) for count in (pools, 1, 1, 1, pools))
    found = torch.empty_like(dot, dtype=torch.int32)
    plan.launch(
        gradient_kernels.channel_spatial_attention_bwd_channels_kernel,
        plan.of_pixels,
        *(plan.x, slopes, gate.logits if gate else slopes, q, found, dot),
        **({"GATE": gate is not None} | plan.pools | plan.tile),
    )
    kernels, constants = _kernels(spatial, q), _spatial_constants(spatial, pools)
    pixels = {"PIXELS": plan.tile["PIXELS"]}
    plan.launch(
        gradient_kernels.channel_spatial_attention_bwd_gate_kernel,
        plan.of_pixels,
        *(q, kernels, dot, opened, dsum),
        **(constants | pixels),
    )
    largest = constants["K"]
    partial = plan.empty(plan.splits, pools, largest, largest)
    plan.launch(
        gradient_kernels.channel_spatial_attention_bwd_spatial_kernel,
        plan.splits,
        *(q, kernels, dsum, dq, partial),
        TAPS=power_of_two(largest**2),
        **(constants | pixels),
    )
    total = partial.sum(0)
    dkernels = []
    for kernel in spatial:
        size = kernel.shape[-1]
        inner = slice((largest - size) // 2, (largest + size) // 2)
        dkernels.append(total[:, inner, inner].contiguous().to(kernel.dtype))
    return (opened, dq, found), dkernels


def _gate_backward(
    plan: Plan,
    slopes: Tensor,
    gate: Gate,
    maps: tuple[Tensor, ...],
    reduce: Tensors,
    expand: Tensors,
    spatial: Tensors,
) -> tuple[Tensor, Tensors, Tensors]:
    """Gradients of the pools over pixels, of reduce and of expand."""
    s = plan.sizes
    sums = plan.empty(s.images, s.parts, s.channels)
    plan.launch(
        gradient_kernels.channel_spatial_attention_bwd_sums_kernel,
        plan.of_parts,
        *(plan.x, slopes, *maps, sums),
        **({"SPATIAL": bool(spatial)} | plan.pools | plan.tile),
    )
    dpools = torch.empty_like(gate.pools)
    shapes = ((s.hidden, s.channels), (s.hidden,), (s.channels, s.hidden), (s.channels,))
    counts = [torch.Size(shape).numel() for shape in shapes]
    dlayers = plan.empty(s.images, sum(counts))
    weights = _layer(reduce)[0], _layer(expand)[0]
    plan.launch(
        gradient_kernels.channel_spatial_attention_bwd_layers_kernel,
        s.images,
        *((gate.pools, gate.units), gate.logits, sums, weights, dpools, dlayers),
        **(plan.pools | _layer_tile(s)),
    )
    parts = dlayers.sum(0).split(counts)
    gradients = [part.view(shape).clone() for part, shape in zip(parts, shapes, strict=True)]
    dreduce, dexpand = (
        [g.to(p.dtype) for g, p in zip(found, layer, strict=False)]
        for found, layer in ((gradients[:2], reduce), (gradients[2:], expand))
    )
    return dpools, dreduce, dexpand


def _plan(x: Tensor, grad: Tensor, out: Tensor, reduce: Tensors, mean: bool, max: bool) -> Plan:
    images, channels, height, width = x.shape
    tile = _tile(x)
    pixels, warps = height * width, tile.pop("num_warps")
    blocks = ceil_div(pixels, tile["PIXELS"])
    channel_blocks = ceil_div(channels, tile["CHANNELS"])

    def divide(count: int, others: int, most: int) -> tuple[int, int]:
        """Into how many parts, and how many blocks each has."""
        parts = min(ceil_div(_ENOUGH_PROGRAMS, others), most, count)
        size = ceil_div(count, parts)
        return ceil_div(count, size), size

    others = images or 1
    parts, part_blocks = divide(blocks, others * channel_blocks, MOST_PARTS.value)
    groups, group_blocks = divide(channel_blocks, others * blocks, _MOST_GROUPS)
    splits, split_blocks = divide(others * blocks, 1, gradient_kernels.MOST_SPLITS)
    lanes = vector((x, grad, out))
    sizes = Sizes(
        channels,
        pixels // lanes,
        height,
        width,
        reduce[0].shape[0] if reduce else 0,
        *(parts, part_blocks, blocks, groups, group_blocks, images, split_blocks),
        *(Steps(f.stride(0) // lanes, f.stride(1) // lanes) for f in (x, grad, out)),
    )
    return Plan(x, sizes, {"MEAN": mean, "MAX": max}, tile, warps, splits if images else 0)


def _tile(x: Tensor) -> dict[str, int]:
    """Channels and pixels of a block, and its warps."""
    few = x.shape[0] * x.shape[2] * x.shape[3] < _FEW_PIXELS
    first, second, *others = triton_kernels.CONFIGS
    dtype = str(x.dtype).removeprefix("torch.")
    key = f"{dtype} c{x.shape[1].bit_length()} 2^{x.numel().bit_length()}"
    candidates = [second, first, *others] if few else [first, second, *others]
    config = tuned("channel_spatial_attention", key, candidates, x.device)
    within = power_of_two(x.shape[2] * x.shape[3])
    pixels = min(config["PIXELS"], max(_FEWEST_PIXELS, within))
    channels = min(config["BLOCK"] // pixels, power_of_two(x.shape[1]))
    return {"CHANNELS": channels, "PIXELS": pixels, "num_warps": config["num_warps"]}


def _layer(parameters: Tensors) -> tuple[Tensor, Tensor]:
    """Weight and bias; the weight in the place of one that is not there."""
    weight, *_, last = (parameters[0], *parameters)
    return weight.contiguous(), last.contiguous()


def _layer_tile(s: Sizes) -> dict[str, int]:
    hidden = power_of_two(s.hidden)
    channels = max(1, min(power_of_two(s.channels), _LAYER_CHANNELS, _LAYER_BLOCK // hidden))
    return {"HIDDEN": hidden, "CHANNELS": channels}


def _kernels(spatial: Tensors, otherwise: Tensor) -> tuple[Tensor, ...]:
    return tuple(kernel.contiguous() for kernel in spatial) or (otherwise,)


def _spatial_constants(spatial: Tensors, pools: int) -> dict[str, Any]:
    sizes = tuple(kernel.shape[-1] for kernel in spatial)
    return {"SIZES": sizes, "K": max(sizes, default=0), "POOLS": pools}
