"""The GPU a tensor is on, and the versions that decide what a kernel computes there."""

import functools
import hashlib
import importlib.metadata
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

_PACKAGE = Path(__file__).parent
_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One kind of GPU: compute capability, multiprocessors, memory bandwidth in GB/s."""

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    bandwidth: float | None = None

    def __str__(self) -> str:
        return f"{self.name} ({architecture(self.capability)})"


class Place(NamedTuple):
    """Where and in which dtype a kernel computes."""

    gpu: Gpu
    device: torch.device
    dtype: torch.dtype


def architecture(capability: tuple[int, int]) -> str:
    """What kernels for this compute capability are compiled for, such as sm_90."""
    return "sm_{}{}".format(*capability)


@functools.cache
def describe(device: torch.device) -> Gpu | None:
    """The GPU that `device` is, or None for anything else."""
    if device.type != "cuda":
        return None
    properties = torch.cuda.get_device_properties(device)
    # Two transfers per cycle; drivers that hide the clock report 0.
    bits = 2 * properties.memory_clock_rate * 1e3 * properties.memory_bus_width
    return Gpu(
        properties.name,
        (properties.major, properties.minor),
        properties.multi_processor_count,
        bits / 8e9 or None,
    )


def is_capturing() -> bool:
    """Whether the current stream is being recorded into a CUDA graph."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


@functools.cache
def versions() -> dict[str, str | None]:
    """What a kernel is built from: with another of these it has to prove itself again."""
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": _version("triton"),
        "driver": _driver(),
        "lmwp_ops": _version("lmwp-ops"),
        "build": _digest_of_package(),
    }


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _driver() -> str | None:
    try:
        found = re.search(r"\s(\d+(\.\d+)+)\s", _DRIVER.read_text())
    except OSError:
        return None
    return found.group(1) if found else None


def _digest_of_package() -> str:
    """Of the sources and libraries of this package: version numbers do not see a changed kernel."""
    digest = hashlib.sha256()
    files = [path for path in _PACKAGE.rglob("*") if path.suffix in (".py", ".so")]
    for path in sorted(files):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]
