"""What `channel_spatial_attention` accepts; errors name op, argument, expected and got."""

from collections.abc import Sequence
from typing import NoReturn

from torch import Tensor

from lmwp_ops.ops._arguments import argument_error, check_feature, check_parameter, fits

OP = "channel_spatial_attention"
KERNEL_SIZES = (3, 5, 7)
MOST_KERNELS = 3


def _fail(argument: str, expected: str, got: object) -> NoReturn:
    raise argument_error(OP, argument, expected, got)


def _check_parameter(name: str, parameter: Tensor, shape: tuple[int, ...], x: Tensor) -> None:
    if not fits(parameter, shape, x):
        check_parameter(OP, name, parameter, shape, x, "x")


def check(
    x: Tensor,
    reduce: Sequence[Tensor],
    expand: Sequence[Tensor],
    spatial: Sequence[Tensor],
    mean: bool,
    max: bool,
) -> None:
    """Raise ValueError unless the op can compute these arguments."""
    check_feature(OP, "x", x)
    if not (mean or max):
        _fail("mean, max", "at least one of them", "neither")
    if bool(reduce) != bool(expand):
        _fail("reduce, expand", "both or neither", "one of them")
    if not (reduce or spatial):
        _fail("reduce, expand, spatial", "a channel gate or a spatial gate", "neither")
    if reduce:
        if reduce[0].dim() != 2 or reduce[0].shape[0] == 0:
            _fail("reduce", f"a weight [h, {x.shape[1]}] with h at least 1", list(reduce[0].shape))
        hidden, channels = reduce[0].shape[0], x.shape[1]
        _check_layer("reduce", reduce, (hidden, channels), x)
        _check_layer("expand", expand, (channels, hidden), x)
    if len(spatial) > MOST_KERNELS:
        _fail("spatial", f"at most {MOST_KERNELS} kernels", len(spatial))
    for i, kernel in enumerate(spatial):
        size = kernel.shape[-1] if kernel.dim() else 0
        if size not in KERNEL_SIZES:
            sizes = ", ".join(map(str, KERNEL_SIZES))
            _fail(f"spatial[{i}]", f"a kernel of size {sizes}", f"shape {list(kernel.shape)}")
        _check_parameter(f"spatial[{i}]", kernel, (mean + max, size, size), x)


def _check_layer(name: str, layer: Sequence[Tensor], shape: tuple[int, int], x: Tensor) -> None:
    if len(layer) > 2:
        _fail(name, "a weight, or a weight and a bias", f"{len(layer)} tensors")
    for part, parameter, size in zip(("weight", "bias"), layer, (shape, shape[:1]), strict=False):
        _check_parameter(f"{name} {part}", parameter, size, x)


def check_backward(
    grad: Tensor,
    x: Tensor,
    reduce: Sequence[Tensor],
    expand: Sequence[Tensor],
    spatial: Sequence[Tensor],
    mean: bool,
    max: bool,
    wanted: Sequence[bool],
) -> None:
    """Raise ValueError unless these are arguments of the op and the gradient of its result."""
    check(x, reduce, expand, spatial, mean, max)
    if len(wanted) != 4:
        _fail("wanted", "4 flags", len(wanted))
    if grad.shape != x.shape:
        _fail("grad", f"shape {list(x.shape)}", list(grad.shape))
    if grad.dtype != x.dtype or grad.device != x.device:
        _fail("grad", f"{x.dtype} on {x.device} like x", f"{grad.dtype} on {grad.device}")
