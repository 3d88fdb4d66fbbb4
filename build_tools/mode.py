"""Decide what LMWP_OPS_BUILD=auto|cuda|cpu|none means on this machine."""

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from build_tools.cuda import Toolkit, candidate_roots, choose_archs, find_toolkit, known_archs
from build_tools.errors import BuildError, UnavailableError

MODES = ("auto", "cuda", "cpu", "none")


@dataclass(frozen=True)
class HostTools:
    """What compiling for the CPU needs."""

    compiler: str
    compiler_version: str
    torch_version: str
    torch_cuda: str | None
    torch_root: Path


@dataclass(frozen=True)
class CudaTools:
    """What compiling for NVIDIA GPUs needs besides."""

    toolkit: Toolkit
    archs: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What will be compiled, and one line for each thing that will not."""

    mode: str
    notices: tuple[str, ...] = ()
    host: HostTools | None = None
    cuda: CudaTools | None = None
    may_degrade: bool = False

    def after_failure(self) -> "Plan":
        """The next lesser plan, for when compiling this one has failed."""
        if not self.may_degrade:
            raise _unmet(self.mode, "compiling failed, see above")
        if self.mode == "cuda":
            notice = "no CUDA library, CPU only: compiling it failed"
            return replace(self, mode="cpu", cuda=None, notices=(*self.notices, notice))
        notice = "no compiled library, plain torch only: compiling failed"
        return Plan("none", (*self.notices, notice))


def resolve(
    requested: str,
    probe_host: Callable[[], HostTools],
    probe_cuda: Callable[[HostTools], CudaTools],
) -> Plan:
    """The build `requested` stands for, given probes that raise UnavailableError.

    auto degrades cuda -> cpu -> none; any other mode that cannot be met raises BuildError.
    """
    if requested not in MODES:
        raise BuildError(f"LMWP_OPS_BUILD: expected one of {', '.join(MODES)}, got {requested!r}")
    if requested == "none":
        return Plan("none")
    auto = requested == "auto"
    try:
        host = probe_host()
    except UnavailableError as reason:
        if not auto:
            raise _unmet(requested, reason) from None
        return Plan("none", (f"no compiled library, plain torch only: {reason}",))
    if requested == "cpu":
        return Plan("cpu", host=host)
    try:
        cuda = probe_cuda(host)
    except UnavailableError as reason:
        if not auto:
            raise _unmet(requested, reason) from None
        return Plan("cpu", (f"no CUDA library, CPU only: {reason}",), host, may_degrade=True)
    return Plan("cuda", host=host, cuda=cuda, may_degrade=auto)


def _unmet(mode: str, reason: object) -> BuildError:
    return BuildError(f"LMWP_OPS_BUILD={mode} cannot be met: {reason}")


def probe_host() -> HostTools:
    """Compiler, torch, ninja and pybind11 of this environment, or UnavailableError."""
    if not sys.platform.startswith("linux"):
        raise UnavailableError(f"libraries are compiled on Linux only, this is {sys.platform}")
    for module in ("pybind11", "ninja"):
        if importlib.util.find_spec(module) is None:
            raise UnavailableError(f"{module} is not installed (pip install {module})")
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise UnavailableError(f"no C++ compiler: {os.environ.get('CXX', 'g++')} not found")
    try:
        import torch
    except Exception as error:  # a broken torch fails in many ways, each means the same here
        reason = str(error).splitlines()[:1] or [type(error).__name__]
        raise UnavailableError(f"torch cannot be imported ({reason[0]})") from error
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 11):
        raise UnavailableError(f"torch {torch.__version__} is older than 2.11")
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True, text=True)
    return HostTools(
        compiler,
        version.stdout.splitlines()[0],
        torch.__version__,
        torch.version.cuda,
        Path(torch.__file__).parent,
    )


def probe_cuda(host: HostTools) -> CudaTools:
    """Toolkit and architectures, or UnavailableError."""
    toolkit = find_toolkit(candidate_roots(os.environ), host.torch_cuda)
    requested = os.environ.get("TORCH_CUDA_ARCH_LIST")
    return CudaTools(toolkit, choose_archs(requested, _visible_gpus(), known_archs(toolkit)))


def _visible_gpus() -> list[tuple[int, int]]:
    import torch

    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())]


def instruction_sets(machine: str = platform.machine()) -> dict[str, list[str]]:
    """Flags of each instruction set the CPU kernels are compiled for, by its name in LMWP_ISA."""
    if machine not in ("x86_64", "AMD64"):
        return {"generic": []}
    return {
        "sse42": ["-march=x86-64-v2"],
        "avx2": ["-march=x86-64-v3"],
        "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
    }
