"""The machine a benchmark ran on: what it is, and how fast it copies and multiplies."""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import lmwp_ops.env
from lmwp_bench.peers import PACKAGES

_COPY_BYTES = 1 << 28  # beyond any cache
_MATRIX = {"cpu": 1024, "cuda": 8192}
_REPEATS = 5
_DEFAULT_CACHE_BYTES = 32 << 20


def environment(device: torch.device, threads: int) -> dict[str, Any]:
    """Everything about hardware and software that a figure depends on."""
    report = lmwp_ops.env.collect()
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": str(device),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": threads,
        "instruction_set": report["instruction_set"]["chosen"],
        "flush_denormal": _flushes_denormals(),
        "gpu": _gpu(device) if device.type == "cuda" else None,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": report["versions"]["numpy"],
        "triton": report["versions"]["triton"],
        "lmwp_ops": report["versions"]["lmwp-ops"],
        "git": _commit(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def speed(device: torch.device) -> dict[str, float]:
    """Copy bandwidth (bytes/s, read and written), float32 peak rate (FLOP/s), cache (bytes)."""
    source = torch.rand(_COPY_BYTES // 4, device=device)
    target = torch.empty_like(source)
    copy = _best(lambda: target.copy_(source), device)
    side = _MATRIX[device.type]
    a, b = torch.rand(2, side, side, device=device)
    product = torch.empty_like(a)
    multiply = _best(lambda: torch.mm(a, b, out=product), device)
    return {
        "copy_bandwidth": 2 * _COPY_BYTES / copy,
        "peak_rate": 2 * side**3 / multiply,
        "cache_bytes": float(cache_bytes(device)),
    }


def cache_bytes(device: torch.device) -> int:
    """Size of the last-level cache: L2 of a GPU, the largest of a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).L2_cache_size
    sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    found = [int(text[:-1]) << 10 for path in sizes if (text := path.read_text().strip())]
    return max(found, default=_DEFAULT_CACHE_BYTES)


@functools.cache
def cpu_model() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _best(call: Callable[[], object], device: torch.device) -> float:
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    times = []
    call()
    for _ in range(_REPEATS):
        wait()
        started = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - started)
    return min(times)


def _flushes_denormals() -> bool:
    tiny = torch.tensor([torch.finfo(torch.float32).tiny])
    return bool((tiny / 2 == 0).item())


def _gpu(device: torch.device) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(device)
    fields = "driver_version,clocks.sm,clocks.max.sm"
    query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    answer = _output([*query, f"--id={device.index or 0}"])
    driver, clock, limit = answer.split(", ") if answer else (None, None, None)
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_bytes": properties.total_memory,
        "driver": driver,
        "clock": clock,
        "clock_limit": limit,
        "cudnn": torch.backends.cudnn.version(),
        "cuda": torch.version.cuda,
    }


def _commit() -> str | None:
    """The commit of the source tree with `+` for local changes; None if this is no checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    commit = _output(["git", "-C", str(root), "rev-parse", "--short", "HEAD"])
    changed = _output(["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"])
    return commit + ("+" if changed else "")


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
