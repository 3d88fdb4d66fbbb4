"""Autocast of the ops: their features are cast, their parameters are not."""

from typing import Any

import torch
from torch import Tensor

from lmwp_ops._examples import convert


def is_on(device_type: str) -> bool:
    """Whether autocast is; some devices, as meta, have none."""
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


def cast(device_type: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of an op with its feature, the first, in autocast's dtype; float64 stays."""
    dtype = torch.get_autocast_dtype(device_type)

    def lower(x: Tensor) -> Tensor:
        return x.to(dtype) if x.is_floating_point() and x.dtype != torch.float64 else x

    return convert(args[0], lower), *args[1:]


def off(device_type: str) -> Any:
    """A context in which autocast casts nothing."""
    key = getattr(torch._C.DispatchKey, f"Autocast{device_type.upper()}")
    return torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(key))
