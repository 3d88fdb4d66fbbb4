"""Launches of the Triton kernels of `sparse_conv2d`."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lmwp_ops import _triton
from lmwp_ops._layout import with_layout_of
from lmwp_ops._tuning import tuned
from lmwp_ops.ops._epilogue import epilogue_backward
from lmwp_ops.ops.sizes.planes import ceil_div, planar, power_of_two, vector
from lmwp_ops.ops.sizes.triton_kernels import passed
from lmwp_ops.ops.sparse_conv2d import gradient_kernels, triton_kernels
from lmwp_ops.ops.sparse_conv2d.checks import output_size
from lmwp_ops.ops.sparse_conv2d.gradient_kernels import SumSizes
from lmwp_ops.ops.sparse_conv2d.matrix import Matrix, matrix_of, transposed_matrix_of
from lmwp_ops.ops.sparse_conv2d.reference import Kinds
from lmwp_ops.ops.sparse_conv2d.triton_kernels import Sizes, Source, Steps

Tensors = list[Tensor]

_ENOUGH_PROGRAMS = 1024  # to fill any GPU
_MOST_SPLITS = 64
_FEW_PIXELS = 2**17  # in a batch
_FEWEST_PIXELS = 64  # of a program
_MOST_ELEMENTS = 8192  # of a program's result
_STAGES = 3  # of loads ahead of the tensor cores
_LEAST_OF_PRODUCT = 16  # rows of matrices that tensor cores multiply


class Spacing(NamedTuple):
    """Of a convolution."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    @property
    def is_flat(self) -> bool:
        """Whether a pixel of the result reads the same one."""
        return self.kernel == self.stride == (1, 1) and self.padding == (0, 0)


@dataclass(frozen=True, slots=True)
class Plan:
    """How the result of a convolution is divided among programs."""

    sizes: Sizes
    constants: dict[str, Any]
    images: int

    @property
    def tiles(self) -> int:
        return self.images * self.sizes.tiles


def forward(
    x: Tensor,
    values: Tensor,
    indices: Sequence[Tensor],
    bias: Sequence[Tensor],
    scale: Sequence[Tensor],
    shift: Sequence[Tensor],
    slope: Sequence[Tensor],
    format: str,
    shape: Sequence[int],
    block: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """`reference.forward` on the GPU, in one launch."""
    matrix = matrix_of(values, indices, format, shape, block, groups)
    spacing = _spacing(shape, stride, padding, dilation)
    size = output_size(x, shape, stride, padding, dilation)
    y = x.new_empty(x.shape[0], shape[0], *size)
    return with_layout_of(x, _convolve(x, matrix, spacing, (bias, scale, shift, slope), y))


def backward(
    grad: Tensor,
    x: Tensor,
    values: Tensor,
    indices: Sequence[Tensor],
    bias: Sequence[Tensor],
    scale: Sequence[Tensor],
    shift: Sequence[Tensor],
    slope: Sequence[Tensor],
    format: str,
    shape: Sequence[int],
    block: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    wanted: Sequence[bool],
) -> Kinds:
    """`reference.backward` on the GPU.

    A launch computes the gradient of x and one that of the values; where the epilogue needs what
    it was applied to, that is computed again in float32.
    """
    wants_x, wants_values, _, wants_bias, *wants_rest = wanted
    given = (scale, shift, slope)
    wants_epilogue = [want and bool(kind) for want, kind in zip(wants_rest, given, strict=True)]
    matrix = matrix_of(values, indices, format, shape, block, groups)
    spacing = _spacing(shape, stride, padding, dilation)
    z = None
    if slope or wants_epilogue[0]:
        z = torch.empty_like(grad, dtype=torch.float32, memory_format=torch.contiguous_format)
        _convolve(x, matrix, spacing, (bias, [], [], []), z)
    wide = grad.float() if scale or slope else grad
    dz, parameters = epilogue_backward(wide, z, 0, scale, shift, slope, wants_epilogue)
    narrow = planar(dz.to(x.dtype))
    grad_x, grad_values = [], []
    if wants_x:
        whole = transposed_matrix_of(values, indices, format, shape, block, groups)
        dx = x.new_empty(x.shape)
        grad_x = [with_layout_of(x, _convolve_transposed(narrow, whole, spacing, dx))]
    if wants_values:
        grad_values = [_add_up(x, narrow, matrix, spacing)]
    grad_bias = []
    if wants_bias and bias:
        grad_bias = [dz.sum((0, 2, 3), dtype=torch.float32).to(bias[0].dtype)]
    grad_scale, grad_shift, grad_slope = ([] if g is None else [g] for g in parameters)
    return grad_x, grad_values, [], grad_bias, grad_scale, grad_shift, grad_slope


def _spacing(
    shape: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Spacing:
    kernel, *rest = ((pair[0], pair[1]) for pair in (shape[2:], stride, padding, dilation))
    return Spacing(kernel, *rest)


def _convolve(
    x: Tensor, matrix: Matrix, spacing: Spacing, kinds: Sequence[Sequence[Tensor]], y: Tensor
) -> Tensor:
    """Fill y, which is contiguous, with the convolution and what follows it."""
    source = planar(x)
    bias, scale, _, slope = kinds
    parameters = tuple(kind[0].contiguous() if kind else source for kind in kinds)
    flags = {"BIAS": bool(bias), "AFFINE": bool(scale), "PRELU": bool(slope)}
    kernel = triton_kernels.sparse_conv2d_fwd_kernel
    _launch(kernel, source, matrix, spacing, (parameters, y), flags)
    return y


def _convolve_transposed(grad: Tensor, matrix: Matrix, spacing: Spacing, dx: Tensor) -> Tensor:
    kernel = triton_kernels.sparse_conv2d_bwd_input_kernel
    _launch(kernel, grad, matrix, spacing, (dx,), {})
    return dx


def _launch(
    kernel: Any,
    source: Tensor,
    matrix: Matrix,
    spacing: Spacing,
    results: tuple[Any, ...],
    flags: dict[str, bool],
) -> None:
    plan = _plan(kernel.__name__, triton_kernels, source, results[-1], matrix, spacing)
    blocks = plan.constants["BLOCKS"]
    _triton.launch(
        kernel,
        plan.tiles * ceil_div(plan.sizes.blocks, blocks),
        source.device,
        *(source, _values(matrix, source, plan), matrix.index, matrix.offsets, matrix.listed),
        *(*results, passed(plan.sizes)),
        maxnreg=_triton.MAX_REGISTERS,
        **flags,
        **plan.constants,
    )


def _add_up(x: Tensor, grad: Tensor, matrix: Matrix, spacing: Spacing) -> Tensor:
    """The gradient of the values: sums over splits of the pixels, then over these."""
    kernel = gradient_kernels.sparse_conv2d_bwd_weight_kernel
    values, source = matrix.values, planar(x)
    plan = _plan(kernel.__name__, gradient_kernels, source, grad, matrix, spacing)
    if not plan.tiles or not values.numel():
        return torch.zeros_like(values)
    s, constants = plan.sizes, plan.constants
    lists = 1 if constants["LISTED"] else s.slabs * s.blocks
    segments = s.slabs * s.blocks
    parts = ceil_div(ceil_div(s.entries * matrix.columns[0], lists), constants["ENTRIES"])
    splits = min(ceil_div(_ENOUGH_PROGRAMS, segments * parts), _MOST_SPLITS, plan.tiles)
    split_tiles = ceil_div(plan.tiles, splits)
    splits = ceil_div(plan.tiles, split_tiles)
    partial = values.new_empty(splits, *values.shape, dtype=torch.float32)
    sizes = SumSizes(s, plan.images, parts, split_tiles, values.numel())
    _triton.launch(
        kernel,
        splits * segments * parts,
        x.device,
        *(source, grad, matrix.index, matrix.offsets, matrix.listed, partial, passed(sizes)),
        maxnreg=_triton.MAX_REGISTERS,
        **constants,
    )
    return partial.sum(0).to(values.dtype)


def _plan(
    name: str, module: ModuleType, source: Tensor, result: Tensor, matrix: Matrix, spacing: Spacing
) -> Plan:
    """That of a kernel, which `module` has candidates for; source and result are planar."""
    images, channels, height, width = result.shape
    pixels, kept = height * width, len(matrix.listed)
    rows = matrix.rows or power_of_two(max(kept, 1))
    narrow = _is_narrow(source, rows)
    config = _config(name, module, source, result, rows, narrow, spacing)
    most = config.pop("OUT")
    out = min(rows, most) if matrix.rows is None else power_of_two(rows)
    filled = matrix.rows or out
    out = max(out, _LEAST_OF_PRODUCT) if narrow else out
    within = max(_FEWEST_PIXELS, power_of_two(pixels))
    config["PIXELS"] = min(config["PIXELS"], within, max(_LEAST_OF_PRODUCT, _MOST_ELEMENTS // out))
    lanes = vector((source, result)) if spacing.is_flat else 1
    packed = matrix.packed
    if matrix.rows is None:
        packed = packed._replace(block=packed.block * filled)
    sizes = Sizes(
        blocks=max(ceil_div(kept if matrix.rows is None else channels, filled), 1),
        channels=channels,
        kept=kept,
        slabs=matrix.slabs,
        entries=len(matrix.index),
        group_channels=matrix.group_channels,
        group_inputs=matrix.group_inputs,
        pixels=pixels // lanes,
        width=width,
        tiles=ceil_div(pixels, config["PIXELS"]),
        padding=spacing.padding,
        dilation=spacing.dilation,
        source=Source(
            _steps(source, lanes),
            source.shape[1],
            source.shape[2] * source.shape[3] // lanes,
            source.shape[2],
            source.shape[3],
        ),
        result=_steps(result, lanes),
        packed=packed,
    )
    constants = {
        "LISTED": matrix.rows is None,
        "NARROW": narrow,
        "FLAT": spacing.is_flat,
        "STRIDE": spacing.stride,
        "KERNEL": spacing.kernel,
        "COLUMNS": matrix.columns,
        "FILLED": filled,
        "VECTOR": lanes,
        "OUT": out,
        "num_stages": _STAGES if narrow and spacing.is_flat else 1,
        **config,
    }
    return Plan(sizes, constants, images)


def _config(
    name: str,
    module: ModuleType,
    source: Tensor,
    result: Tensor,
    rows: int,
    narrow: bool,
    spacing: Spacing,
) -> dict[str, int]:
    single = "SINGLE" if spacing.is_flat else "SCATTERED"
    kind = single if rows == 1 else "NARROW" if narrow else "WIDE"
    first, second, *others = getattr(module, f"{kind}_CONFIGS")
    few = result.shape[0] * result.shape[2] * result.shape[3] < _FEW_PIXELS
    candidates = [second, first, *others] if few else [first, second, *others]
    dtype = str(source.dtype).removeprefix("torch.")
    sizes = f"{rows} k{spacing.kernel} s{spacing.stride} 2^{source.numel().bit_length()}"
    return {"OUT": 1, **tuned(name, f"{dtype} {sizes}", candidates, source.device)}


def _steps(x: Tensor, lanes: int) -> Steps:
    return Steps(x.stride(0) // lanes, x.stride(1) // lanes)


def _is_narrow(source: Tensor, rows: int) -> bool:
    """Whether tensor cores multiply; Triton's interpreter has no products of bfloat16 matrices."""
    interpreted = source.dtype == torch.bfloat16 and _triton.interprets()
    return rows > 1 and source.dtype != torch.float32 and not interpreted


def _values(matrix: Matrix, source: Tensor, plan: Plan) -> Tensor:
    """Those of a matrix that tensor cores multiply in the dtype of what it is multiplied by."""
    return matrix.values.to(source.dtype) if plan.constants["NARROW"] else matrix.values
