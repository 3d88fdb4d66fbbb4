"""Argument checks shared by the ops on lists of branches."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Affine = Sequence[tuple[Tensor, Tensor]]

_SIXTEEN_BIT = (torch.float16, torch.bfloat16)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def argument_error(op: str, argument: str, expected: str, got: object) -> ValueError:
    """The error every op raises for a bad argument: op, argument, expected and got in one line."""
    return ValueError(f"{op}: {argument}: expected {expected}, got {got}")


def check_channels(op: str, argument: str, channels: Sequence[int]) -> tuple[int, ...]:
    """Channel counts per branch: whole numbers, zero for an absent branch, at least one present."""
    counts = tuple(channels)
    if any(isinstance(c, bool) or not isinstance(c, int) or c < 0 for c in counts):
        raise argument_error(op, argument, "one non-negative int per branch", list(counts))
    if not any(counts):
        raise argument_error(op, argument, "at least one branch with channels", list(counts))
    return counts


def check_branches(op: str, xs: Sequence[Tensor], channels: Sequence[int] | None = None) -> None:
    """`xs` holds 4-D floating tensors of one batch size, dtype and device, one per branch.

    `channels` are the channel counts of the present branches where the caller declares them.
    """
    if channels is not None and len(xs) != len(channels):
        expected = f"{len(channels)} tensors, one per branch with channels {list(channels)}"
        raise argument_error(op, "xs", expected, f"{len(xs)} tensors")
    if not xs:
        raise argument_error(op, "xs", "at least one tensor", "an empty list")
    first = xs[0]
    for b, x in enumerate(xs):
        _check_kind(op, f"xs[{b}]", x)
        if x.dtype != first.dtype or x.device != first.device:
            expected = f"{first.dtype} on {first.device} like xs[0]"
            raise argument_error(op, f"xs[{b}]", expected, f"{x.dtype} on {x.device}")
        if x.shape[0] != first.shape[0]:
            expected = f"batch size {first.shape[0]} like xs[0]"
            raise argument_error(op, f"xs[{b}]", expected, x.shape[0])
        if channels is not None and x.shape[1] != channels[b]:
            raise argument_error(op, f"xs[{b}]", f"{channels[b]} channels", x.shape[1])


def check_feature(op: str, argument: str, x: Tensor) -> None:
    """A 4-D floating tensor with channels and pixels; the batch may be empty."""
    _check_kind(op, argument, x)
    if 0 in x.shape[1:]:
        expected = "at least one channel and one pixel"
        raise argument_error(op, argument, expected, f"shape {list(x.shape)}")


def _check_kind(op: str, argument: str, x: Tensor) -> None:
    if x.dim() != 4:
        raise argument_error(op, argument, "a 4-D tensor [N, C, H, W]", list(x.shape))
    if x.dtype not in _FLOATS:
        raise argument_error(op, argument, "a floating-point dtype", x.dtype)


def fits(parameter: Tensor, shape: tuple[int, ...], like: Tensor) -> bool:
    """Whether `check_parameter` certainly has nothing to say; costs little, names nothing."""
    same_dtype: bool = parameter.dtype == like.dtype
    return same_dtype and parameter.shape == shape and parameter.device == like.device


def check_parameter(
    op: str,
    argument: str,
    parameter: Tensor,
    shape: tuple[int, ...],
    like: Tensor,
    name: str = "xs",
) -> None:
    """A parameter has `shape`, and the device and dtype of the features, which are called `name`;
    with 16-bit ones it may be float32."""
    if tuple(parameter.shape) != shape:
        raise argument_error(op, argument, f"shape {list(shape)}", list(parameter.shape))
    if parameter.device != like.device:
        raise argument_error(op, argument, f"device {like.device} like {name}", parameter.device)
    sixteen_bit = like.dtype in _SIXTEEN_BIT or _autocasts(like.device.type)
    if parameter.dtype != like.dtype and not (sixteen_bit and parameter.dtype == torch.float32):
        expected = f"{like.dtype} like {name}" + (" or float32" if sixteen_bit else "")
        raise argument_error(op, argument, expected, parameter.dtype)


def check_parameters(
    op: str,
    argument: str,
    names: Sequence[str],
    given: Sequence[Tensor],
    shapes: Sequence[tuple[int, ...]],
    x: Tensor,
) -> None:
    """`given` is one tensor of each of the `names` and `shapes`, as `check_parameter` wants it."""
    if len(given) != len(names):
        raise argument_error(op, argument, f"{len(names)} tensors: {', '.join(names)}", len(given))
    for name, parameter, shape in zip(names, given, shapes, strict=True):
        if not fits(parameter, shape, x):
            check_parameter(op, f"{argument} {name}", parameter, shape, x, "x")


def check_no_gradient(op: str, named: Mapping[str, Sequence[Tensor]]) -> None:
    """For ops without a gradient: none is asked for."""
    if not torch.is_grad_enabled():
        return
    for name, tensors in named.items():
        if any(tensor.requires_grad for tensor in tensors):
            expected = "no tensor that requires a gradient, or torch.no_grad() around the call"
            raise argument_error(op, name, expected, "requires_grad=True")


def _autocasts(device_type: str) -> bool:
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


def split_affine(op: str, affine: Affine | None) -> tuple[list[Tensor], list[Tensor]]:
    """The scales and the shifts of `affine`; raises ValueError unless its entries are pairs."""
    for b, pair in enumerate(affine or ()):
        if len(pair) != 2:
            raise argument_error(op, f"affine[{b}]", "a pair (scale, shift)", f"{len(pair)} values")
    return [scale for scale, _ in affine or ()], [shift for _, shift in affine or ()]


def check_epilogue(
    op: str,
    scale: Sequence[Tensor],
    shift: Sequence[Tensor],
    slope: Sequence[Tensor],
    channels: Sequence[int],
    like: Tensor,
) -> None:
    """Each list is empty or holds one entry per present output branch, of its width."""
    for argument, given in (("affine", scale), ("affine", shift), ("slope", slope)):
        if given and len(given) != len(channels):
            expected = f"{len(channels)} entries, one per output branch"
            raise argument_error(op, argument, expected, len(given))
    named = (("affine[{}] scale", scale), ("affine[{}] shift", shift), ("slope[{}]", slope))
    for name, given in named:
        for b, values in enumerate(given):
            if not fits(values, (channels[b],), like):
                check_parameter(op, name.format(b), values, (channels[b],), like)
