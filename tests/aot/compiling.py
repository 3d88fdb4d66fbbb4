"""The Triton kernels of an op compiled ahead of time, for GPUs that need not be there."""

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from .architectures import OLDEST_GPU

SHARED_OF_SM_75 = 64 * 1024
Kernels = list[tuple[str, Any]]
_CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


class _NoDriver:
    """What Triton asks of a driver to compile for an architecture that need not be there."""

    def __init__(self, arch: int) -> None:
        self._target = GPUTarget("cuda", arch, 32)

    def get_current_device(self) -> int:
        return int(self._target.arch)

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return self._target


@contextmanager
def _without_gpu(arch: int, run: Callable[..., Any]) -> Iterator[None]:
    before = driver._active, JITFunction.run
    driver._active, JITFunction.run = _NoDriver(arch), run
    try:
        yield
    finally:
        driver._active, JITFunction.run = before


def compiled(launch: Callable[[], object], arch: int) -> Kernels:
    """What `launch` launches, compiled and not launched."""
    found: Kernels = []
    compile_or_run = JITFunction.run

    def run(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        kernel = compile_or_run(self, *args, grid=grid, warmup=True, **kwargs)
        found.append((self.__name__, kernel))
        return kernel

    with _without_gpu(arch, run):
        launch()
    return found


def variants(launch: Callable[[], object]) -> list[tuple[str, str]]:
    """What `launch` launches, without compiling it: each kernel's name, and all that decides
    whether Triton has compiled it before."""
    found: list[tuple[str, str]] = []

    def run(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        bind = self.device_caches[driver.active.get_current_device()][4]
        _, specialization, options = bind(*args, debug=False, **kwargs)
        found.append((self.__name__, f"{specialization} {options}"))

    with _without_gpu(OLDEST_GPU, run):
        launch()
    return found


def assert_does_not_spill(
    kernels: Kernels, arch: int, folder: Path, record: Callable[[str, object], None]
) -> None:
    """And takes no more shared memory than any GPU has; registers are recorded."""
    assert kernels
    for name, kernel in kernels:
        cubin = folder / "kernel.cubin"
        cubin.write_bytes(kernel.asm["cubin"])
        command = [_CUOBJDUMP, "--dump-resource-usage", cubin]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        used = {n: int(size) for n, size in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
        record(f"registers sm_{arch} {name}", used["REG"])
        record(f"shared bytes sm_{arch} {name}", kernel.metadata.shared)
        assert used["STACK"] == used["LOCAL"] == 0, f"sm_{arch} {name} spills: {used}"
        assert kernel.metadata.shared <= SHARED_OF_SM_75
