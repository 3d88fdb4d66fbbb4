"""What `sparse_conv2d` accepts, and the shape it returns; errors name op, argument and values."""

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor

from lmwp_ops.ops._arguments import (
    argument_error,
    check_epilogue,
    check_feature,
    check_parameter,
    fits,
)
from lmwp_ops.ops.sparse_conv2d.layout import BLOCK_FORMATS, FORMATS, INDEX_NAMES, slab_count

OP = "sparse_conv2d"


def _fail(argument: str, expected: str, got: object) -> NoReturn:
    raise argument_error(OP, argument, expected, got)


def check(
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
) -> None:
    """Raise ValueError unless the op can compute these arguments.

    What the indices hold is checked where a weight is made, and by the compiled kernels.
    """
    check_feature(OP, "x", x)
    _check_packed(values, indices, format, shape, block, groups, x)
    if x.shape[1] != shape[1] * groups:
        _fail("x", f"{shape[1] * groups} channels, as the weight has", x.shape[1])
    for name, pair, least in (
        ("stride", stride, 1),
        ("padding", padding, 0),
        ("dilation", dilation, 1),
    ):
        if len(pair) != 2 or min(pair) < least:
            _fail(name, f"two ints, {least} or more", list(pair))
    if min(output_size(x, shape, stride, padding, dilation)) < 1:
        _fail("x", "a map that the kernel fits into", f"{x.shape[2]} x {x.shape[3]}")
    if bias and not fits(bias[0], (shape[0],), x):
        check_parameter(OP, "bias", bias[0], (shape[0],), x, "x")
    check_epilogue(OP, scale, shift, slope, [shape[0]], x)


def _check_packed(
    values: Tensor,
    indices: Sequence[Tensor],
    format: str,
    shape: Sequence[int],
    block: Sequence[int],
    groups: int,
    x: Tensor,
) -> None:
    if format not in FORMATS:
        _fail("format", f"one of {', '.join(FORMATS)}", repr(format))
    if len(shape) != 4 or min(shape) < 1:
        _fail("shape", "four positive ints", list(shape))
    if len(block) != 2 or min(block) < 1:
        _fail("block", "two positive ints", list(block))
    if groups < 1 or shape[0] % groups:
        _fail("groups", f"a divisor of the {shape[0]} output channels", groups)
    names = INDEX_NAMES[format]
    if len(indices) != len(names):
        _fail("indices", f"{len(names)} tensors ({', '.join(names)})", len(indices))
    for name, index in zip(names, indices, strict=True):
        if index.dim() != 1 or index.dtype != torch.int32 or index.device != x.device:
            expected = f"1-D int32 on {x.device}"
            _fail(name, expected, f"{index.dim()}-D {index.dtype} on {index.device}")
    expected_values = tuple(shape)
    if format == "channels":
        if groups != 1:
            _fail("groups", "1 with the format channels", groups)
        expected_values = (len(indices[0]), len(indices[1]), shape[2], shape[3])
    elif format == "2:4":
        if groups != 1 or shape[1] % 4 or shape[2] * shape[3] != 1:
            _fail("shape", "[O, multiple of 4, 1, 1] in one group with the format 2:4", list(shape))
        if len(indices[0]) != shape[0] * shape[1] // 2:
            _fail("kept", f"{shape[0] * shape[1] // 2} entries", len(indices[0]))
        expected_values = (shape[0], shape[1] // 2, 1, 1)
    elif format in BLOCK_FORMATS:
        _check_blocks(indices, format, shape, block, groups)
        expected_values = (len(indices[1]), block[1], block[0])
    if not fits(values, expected_values, x):
        check_parameter(OP, "values", values, expected_values, x, "x")


def _check_blocks(
    indices: Sequence[Tensor],
    format: str,
    shape: Sequence[int],
    block: Sequence[int],
    groups: int,
) -> None:
    width = shape[1] * shape[2] * shape[3]
    if width % block[1]:
        _fail("block", f"columns that divide {width}", block[1])
    if groups > 1 and shape[0] // groups % block[0]:
        _fail("block", f"rows that divide the {shape[0] // groups} of a group", block[0])
    expected = -(-shape[0] // block[0]) * slab_count(format, shape) + 1
    if len(indices[0]) != expected:
        _fail("offsets", f"{expected} entries", len(indices[0]))


def check_backward(
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
) -> None:
    """Raise ValueError unless these are arguments of the op and the gradient of its result."""
    epilogue = (bias, scale, shift, slope)
    settings = (stride, padding, dilation)
    check(x, values, indices, *epilogue, format, shape, block, *settings, groups)
    if len(wanted) != 7:
        _fail("wanted", "7 flags", len(wanted))
    expected = output_shape(x, shape, stride, padding, dilation)
    if tuple(grad.shape) != expected:
        _fail("grad", f"shape {list(expected)}", list(grad.shape))
    if grad.dtype != x.dtype or grad.device != x.device:
        _fail("grad", f"{x.dtype} on {x.device} like x", f"{grad.dtype} on {grad.device}")


def output_size(
    x: Tensor,
    shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[int, int]:
    """(height, width) of the result."""
    height, width = (
        (x.shape[2 + d] + 2 * padding[d] - dilation[d] * (shape[2 + d] - 1) - 1) // stride[d] + 1
        for d in range(2)
    )
    return height, width


def output_shape(
    x: Tensor,
    shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[int, int, int, int]:
    """[N, O, H', W'] of the result."""
    return x.shape[0], shape[0], *output_size(x, shape, stride, padding, dilation)
