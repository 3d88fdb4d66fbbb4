"""Choosing a device by name, and setting up the CPU."""

from __future__ import annotations

import numpy as np
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


def set_up_cpu(threads: int | None = None) -> None:
    """Use `threads` threads (None: as torch chose) and flush denormals in them.

    Gammas under weight decay become denormal, and arithmetic on those is many times slower.
    """
    for dtype in (np.float32, np.float64):
        np.finfo(dtype).smallest_subnormal  # noqa: B018 - numpy warns if it first looks afterwards
    if threads:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
