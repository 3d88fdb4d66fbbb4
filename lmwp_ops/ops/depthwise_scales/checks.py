"""What `depthwise_scales` accepts; every error names op, argument, expected and got."""

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor

from lmwp_ops.ops._arguments import argument_error

KERNEL_SIZES = (1, 3, 5, 7)
STRIDES = (1, 2)
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_SIXTEEN_BIT = (torch.float16, torch.bfloat16)


def _fail(argument: str, expected: str, got: object) -> NoReturn:
    raise argument_error("depthwise_scales", argument, expected, got)


def _check_parameter(name: str, parameter: Tensor, shape: tuple[int, ...], x: Tensor) -> None:
    if parameter.shape != shape:
        _fail(name, f"shape {list(shape)}", list(parameter.shape))
    if parameter.dtype != x.dtype and not (
        x.dtype in _SIXTEEN_BIT and parameter.dtype == torch.float32
    ):
        expected = f"{x.dtype} as xs" + (" or float32" if x.dtype in _SIXTEEN_BIT else "")
        _fail(name, expected, parameter.dtype)
    if parameter.device != x.device:
        _fail(name, f"a tensor on {x.device} as xs[0]", parameter.device)


def _check_feature(name: str, x: Tensor, first: Tensor) -> None:
    if x.dim() != 4:
        _fail(name, "4 dimensions [N, C, H, W]", f"shape {list(x.shape)}")
    if x.layout != torch.strided:
        _fail(name, "a dense tensor", x.layout)
    if x.dtype not in DTYPES:
        _fail(name, "float32, float16, bfloat16 or float64", x.dtype)
    if x.dtype != first.dtype:
        _fail(name, f"{first.dtype} as xs[0]", x.dtype)
    if x.device != first.device:
        _fail(name, f"a tensor on {first.device} as xs[0]", x.device)
    if x.shape[1] == 0 or x.shape[2] == 0 or x.shape[3] == 0:
        expected = "at least one channel and one pixel (leave an absent branch out)"
        _fail(name, expected, f"shape {list(x.shape)}")


def check(
    xs: Sequence[Tensor],
    weights: Sequence[Tensor],
    scale: Sequence[Tensor],
    shift: Sequence[Tensor],
    slope: Sequence[Tensor],
    stride: int,
    dilation: int,
) -> None:
    """Raise ValueError unless the op can compute these arguments."""
    if not xs:
        _fail("xs", "at least one branch", "none")
    if len(weights) != len(xs):
        _fail("weights", f"{len(xs)} tensors, one per branch", len(weights))
    if len(scale) != len(shift) or (scale and len(scale) != len(xs)):
        expected = f"{len(xs)} pairs (scale, shift), one per branch"
        _fail("affine", expected, len(scale))
    if slope and len(slope) != len(xs):
        _fail("slope", f"{len(xs)} tensors, one per branch", len(slope))
    if stride not in STRIDES:
        _fail("stride", "1 or 2", stride)
    if dilation < 1:
        _fail("dilation", "at least 1", dilation)
    if weights[0].dim() != 4 or weights[0].shape[3] not in KERNEL_SIZES:
        expected = "shape [C, 1, k, k] with k = 1, 3, 5 or 7"
        _fail("weights[0]", expected, list(weights[0].shape))
    k = weights[0].shape[3]
    for b, x in enumerate(xs):
        _check_feature(f"xs[{b}]", x, xs[0])
        channels = x.shape[1]
        _check_parameter(f"weights[{b}]", weights[b], (channels, 1, k, k), x)
        if scale:
            _check_parameter(f"affine[{b}] scale", scale[b], (channels,), x)
            _check_parameter(f"affine[{b}] shift", shift[b], (channels,), x)
        if slope:
            _check_parameter(f"slope[{b}]", slope[b], (channels,), x)


def check_gradients(
    grads: Sequence[Tensor], xs: Sequence[Tensor], stride: int, wanted: Sequence[bool]
) -> None:
    """Raise ValueError unless `grads` are gradients of the outputs for `xs`."""
    if len(grads) != len(xs):
        _fail("grads", f"{len(xs)} tensors, one per branch", len(grads))
    if len(wanted) != 5:
        _fail("wanted", "5 flags", len(wanted))
    for b, (grad, x) in enumerate(zip(grads, xs, strict=True)):
        shape = output_shape(x, stride)
        if grad.shape != shape:
            _fail(f"grads[{b}]", f"shape {list(shape)}", list(grad.shape))
        if grad.dtype != x.dtype:
            _fail(f"grads[{b}]", f"{x.dtype} as xs", grad.dtype)
        if grad.device != x.device:
            _fail(f"grads[{b}]", f"a tensor on {x.device} as xs[0]", grad.device)


def output_shape(x: Tensor, stride: int) -> tuple[int, int, int, int]:
    """[N, C, ceil(H / stride), ceil(W / stride)]: the padding keeps the size at stride 1."""
    n, channels, height, width = x.shape
    return n, channels, (height - 1) // stride + 1, (width - 1) // stride + 1
