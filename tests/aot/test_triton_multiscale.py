"""The Triton kernels of goctconv2d and dilated_bank compiled ahead of time: no spills."""

import importlib.util
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from lmwp_ops.ops.dilated_bank import triton_launch as bank
from lmwp_ops.ops.goctconv2d import triton_launch as goct

from ..ops.dilated_bank import test_dilated_bank_kernels as banks
from ..ops.goctconv2d import cases
from ..ops.goctconv2d.cases import Case

ARCHS = (75, 80, 86, 89, 90, 100, 120)
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
SHARED_OF_SM_75 = 64 * 1024

MIDDLE = Case((10, 10), (10, 10), (112, 112), batch=8)  # a block of CSNet
ENTRY = Case((10, 10), (20, 20), (112, 112), 3, 4, entry_pool=True)
HEAD = Case((12, 24, 24), (12, 24, 24), (112, 112), 3, 2)  # as many scales as CSNet has
MODES = (MIDDLE, HEAD, Case((10, 20), (20, 20), (56, 56), 3, bilinear_down=True), ENTRY)
Kernels = list[tuple[str, Any]]


class NoDriver:
    """What Triton asks of a driver to compile for an architecture that need not be there."""

    def __init__(self, arch: int) -> None:
        self._target = GPUTarget("cuda", arch, 32)

    def get_current_device(self) -> int:
        return int(self._target.arch)

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return self._target


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernels]:
    """What is launched, compiled and not launched."""
    found: Kernels = []
    run = JITFunction.run

    def record(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
        found.append((self.__name__, kernel))
        return kernel

    monkeypatch.setattr(JITFunction, "run", record)
    return found


def launch(op: Any, args: tuple[Any, ...], arch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and gradients of a call; the epilogue's own gradients launch nothing else."""
    monkeypatch.setattr(driver, "_active", NoDriver(arch))
    ys = op.forward(*args)
    bare = (*args[:2], [], [], [], *args[5:])
    op.backward(ys, *bare, [True, True, False, False, False])


def assert_fits(kernels: Kernels, arch: int, folder: Path, record: Any) -> None:
    assert kernels
    for name, kernel in kernels:
        cubin = folder / "kernel.cubin"
        cubin.write_bytes(kernel.asm["cubin"])
        command = [CUOBJDUMP, "--dump-resource-usage", cubin]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        used = {n: int(size) for n, size in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
        record(f"registers sm_{arch} {name}", used["REG"])
        record(f"shared bytes sm_{arch} {name}", kernel.metadata.shared)
        assert used["STACK"] == used["LOCAL"] == 0, f"sm_{arch} {name} spills: {used}"
        assert kernel.metadata.shared <= SHARED_OF_SM_75


@pytest.mark.parametrize("arch", ARCHS)
def test_kernels_do_not_spill(kernels, monkeypatch, arch, record_property, tmp_path):
    launch(goct, cases.draw(MIDDLE), arch, monkeypatch)
    assert_fits(kernels, arch, tmp_path, record_property)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("case", MODES, ids=str)
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
def test_no_kernel_spills(kernels, monkeypatch, case, dtype, arch, record_property, tmp_path):
    narrow = cases.in_dtype(cases.draw(case), dtype)
    launch(goct, narrow, arch, monkeypatch)
    assert_fits(kernels, arch, tmp_path, record_property)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHS)
def test_the_bank_does_not_spill(kernels, monkeypatch, arch, record_property, tmp_path):
    launch(bank, banks.draw(banks.FUSION), arch, monkeypatch)
    assert_fits(kernels, arch, tmp_path, record_property)


@pytest.mark.parametrize(
    ("dtype", "width"), [(torch.float32, 4), (torch.float16, 2)], ids=["float32", "float16"]
)
def test_maps_move_in_vectors(kernels, monkeypatch, dtype, width):
    launch(goct, cases.in_dtype(cases.draw(MIDDLE), dtype), 80, monkeypatch)
    ptx = kernels[0][1].asm["ptx"]
    assert re.search(rf"ld\.global\S*\.v{width}\.b32", ptx)
    assert re.search(rf"st\.global\S*\.v{width}\.b32", ptx)
