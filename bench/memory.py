"""Peak memory and number of launches of one call."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # see proc(5)


def peak_memory(call: Callable[[], object], device: torch.device) -> int | None:
    """Bytes at the height of `call` above those before it.

    On a GPU what torch allocated there. On the CPU the resident set of the process, after freed
    memory went back to the system, so that runtimes with allocators of their own are seen too,
    down to a few pages; None where the system cannot tell.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    held = resident_memory()
    if held is None:
        return None
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK)
    except OSError:
        return None
    call()
    return max(0, _status("VmHWM") - held)


def resident_memory() -> int | None:
    """Bytes resident now, after giving freed memory back; None where the system cannot tell."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        return _status("VmRSS")
    except (OSError, AttributeError):  # no /proc, or another C library than glibc
        return None


def _status(field: str) -> int:
    line = next(x for x in _STATUS.read_text().splitlines() if x.startswith(field + ":"))
    return int(line.split()[1]) * 1024


def count_launches(call: Callable[[], object], device: torch.device) -> int:
    """Kernels that `call` launches on a GPU; on the CPU, torch operations that compute."""
    if device.type == "cuda":
        activity = torch.profiler.ProfilerActivity.CUDA
        with torch.profiler.profile(activities=[activity]) as profile:
            call()
            torch.cuda.synchronize(device)
        return sum(event.device_type.name == "CUDA" for event in profile.events())
    with _Counter() as counter:
        call()
    return counter.count


class _Counter(TorchDispatchMode):
    """Counts operations below autograd, views left out."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))
