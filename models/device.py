"""Choosing a device by name."""

from __future__ import annotations

import torch

from lmwp_models.errors import UserError


def resolve_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one; `UserError` for a device this torch cannot use."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # a torch without CUDA raises the latter
        reason = str(error).splitlines()[0]
        raise UserError(f"device {name!r} cannot be used here: {reason}") from None
    return device
