"""The Triton kernels compiled ahead of time for every architecture: no spills, wide accesses."""

import importlib.util
import re
import subprocess
from collections.abc import Callable
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

from lmwp_ops.ops.depthwise_scales import triton_kernels, triton_launch

from ..ops.depthwise_scales.cases import Case, draw, eager

ARCHS = (75, 80, 86, 89, 90, 100, 120)
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
MAPS = ((2, 16, 32, 32), (2, 32, 16, 16))  # take the widest vectors in either layout

# What networks launch; bfloat16 differs from float16 in conversions alone.
EVERYWHERE = (
    Case(MAPS, dtype=torch.float16),
    Case(MAPS, stride=2),
    Case(MAPS, dtype=torch.float16, layout="channels_last"),
)
OLDEST = (
    Case(MAPS, dtype=torch.bfloat16),
    Case(MAPS, dtype=torch.bfloat16, layout="channels_last"),
    Case(((2, 10, 15, 17),), layout="channels_last"),
)
LARGE = tuple(
    Case(MAPS, kernel, stride, dtype=dtype, layout=layout)
    for kernel in (3, 5, 7)
    for stride in (1, 2)
    for dtype in (torch.float16, torch.float32)
    for layout in ("nchw", "channels_last")
)
Kernels = dict[str, Any]
Compile = Callable[[Case, int], Kernels]


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
def compiled(monkeypatch: pytest.MonkeyPatch) -> Compile:
    """The kernels that a call of the op and its backward launches, compiled and not launched."""
    kernels: Kernels = {}
    run = JITFunction.run

    def record(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
        kernels[self.__name__] = kernel
        return kernel

    def compile_case(case: Case, arch: int) -> Kernels:
        monkeypatch.setattr(driver, "_active", NoDriver(arch))
        args = draw(case)
        triton_launch.forward(*args)
        triton_launch.backward([torch.ones_like(y) for y in eager(args)], *args, [True] * 5)
        return kernels

    monkeypatch.setattr(JITFunction, "run", record)
    return compile_case


def usage(kernel: Any, folder: Path) -> dict[str, int]:
    """Registers, and bytes of stack, shared and local memory, of a thread."""
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(kernel.asm["cubin"])
    command = [CUOBJDUMP, "--dump-resource-usage", cubin]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name: int(size) for name, size in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", text)}


def check_case(
    compiled: Compile, case: Case, arch: int, folder: Path, record: Callable[[str, object], None]
) -> None:
    kernels = compiled(case, arch)
    assert set(kernels) == {n for n in vars(triton_kernels) if n.endswith("_kernel")}
    for name, kernel in kernels.items():
        used = usage(kernel, folder)
        text = f"sm_{arch} {case} {name}"
        record(f"registers {text}", used["REG"])
        record(f"shared bytes {text}", kernel.metadata.shared)
        print(f"{text}: {used['REG']} registers, {kernel.metadata.shared} bytes shared")
        assert used["STACK"] == used["LOCAL"] == 0, f"{text} spills: {used}"


@pytest.mark.parametrize("arch", ARCHS)
def test_kernels_do_not_spill(compiled, arch, record_property, tmp_path):
    for case in EVERYWHERE + (OLDEST if arch == ARCHS[0] else ()):
        check_case(compiled, case, arch, tmp_path, record_property)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("case", LARGE, ids=str)
def test_no_kernel_spills(compiled, case, arch, record_property, tmp_path):
    check_case(compiled, case, arch, tmp_path, record_property)


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_maps_move_in_16_byte_accesses(compiled, layout):
    kernels = compiled(Case(MAPS, dtype=torch.float16, layout=layout), 80)
    for name in ("depthwise_scales_fwd_kernel", "depthwise_scales_bwd_input_kernel"):
        ptx = kernels[name].asm["ptx"]
        rows = triton_kernels.CONFIGS["fwd"][0]["ROWS"]
        assert len(re.findall(r"ld\.global\S*\.v4\.b32", ptx)) >= rows + 2
        assert len(re.findall(r"st\.global\S*\.v4\.b32", ptx)) == rows


def test_branches_of_one_pixel_beside_others(compiled):
    """Triton makes constants of sizes that are 1, which others of a launch are not."""
    assert compiled(Case(((1, 1, 1, 1), (1, 3, 7, 7), (2, 2, 1, 16))), 80)
