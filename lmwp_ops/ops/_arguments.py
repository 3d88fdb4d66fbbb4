"""Argument checks shared by the ops on lists of branches."""

from collections.abc import Sequence

import torch
from torch import Tensor

Affine = Sequence[tuple[Tensor, Tensor]]

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
        if x.dim() != 4:
            raise argument_error(op, f"xs[{b}]", "a 4-D tensor [N, C, H, W]", list(x.shape))
        if x.dtype not in _FLOATS:
            raise argument_error(op, f"xs[{b}]", "a floating-point dtype", x.dtype)
        if x.dtype != first.dtype or x.device != first.device:
            expected = f"{first.dtype} on {first.device} like xs[0]"
            raise argument_error(op, f"xs[{b}]", expected, f"{x.dtype} on {x.device}")
        if x.shape[0] != first.shape[0]:
            expected = f"batch size {first.shape[0]} like xs[0]"
            raise argument_error(op, f"xs[{b}]", expected, x.shape[0])
        if channels is not None and x.shape[1] != channels[b]:
            raise argument_error(op, f"xs[{b}]", f"{channels[b]} channels", x.shape[1])


def check_weight(op: str, argument: str, weight: Tensor, like: Tensor) -> None:
    """A weight lies on the device of the features and, outside autocast, has their dtype."""
    if weight.device != like.device:
        raise argument_error(op, argument, f"device {like.device} like xs", weight.device)
    if weight.dtype != like.dtype and not _autocasts(like.device.type):
        raise argument_error(op, argument, f"{like.dtype} like xs", weight.dtype)


def _autocasts(device_type: str) -> bool:
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


def check_epilogue(
    op: str, affine: Affine | None, slope: Sequence[Tensor] | None, channels: Sequence[int]
) -> None:
    """`affine` and `slope` hold one entry per present output branch, each of its width."""
    for argument, given in (("affine", affine), ("slope", slope)):
        if given is not None and len(given) != len(channels):
            expected = f"{len(channels)} entries, one per output branch"
            raise argument_error(op, argument, expected, len(given))
    for b, width in enumerate(channels):
        if affine is not None:
            if len(affine[b]) != 2:
                raise argument_error(op, f"affine[{b}]", "a (scale, shift) pair", len(affine[b]))
            for name, values in zip(("scale", "shift"), affine[b], strict=True):
                _check_vector(op, f"affine[{b}] {name}", values, width)
        if slope is not None:
            _check_vector(op, f"slope[{b}]", slope[b], width)


def _check_vector(op: str, argument: str, values: Tensor, width: int) -> None:
    if values.shape != (width,):
        raise argument_error(op, argument, f"shape [{width}]", list(values.shape))
