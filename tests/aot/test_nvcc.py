"""The CUDA kernels compiled ahead of time for every architecture: no spills, wide accesses."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from build_tools.cuda import Toolkit, candidate_roots, find_toolkit, known_archs
from build_tools.errors import UnavailableError

from .architectures import NAMES

HERE = Path(__file__).parent
MAX_REGISTERS = 128  # 512 threads on a multiprocessor
FIRST_WITH_ASYNC_COPIES = 8.0
SOURCES = {
    "depthwise_scales": 7,
    "depthwise_scales_bwd": 24,
    "il_block": 4,
    "channel_spatial_attention": 5,
    "sparse_conv2d": 5,
}
"""Kernels that each source instantiates."""
_TILES = (r"cp\.async\.cg\.shared", r"ld\.shared\.v4", r"st\.global\.wb\.v4")
# Patterns of the 16-byte accesses that every kernel of a source must have.
WIDE_ACCESSES = {
    "depthwise_scales": _TILES,
    "depthwise_scales_bwd": _TILES,
    "il_block": (r"ld\.shared\.v4",),
    "channel_spatial_attention": _TILES,
    "sparse_conv2d": (r"ld\.global\.(v4\.u32|v2\.u64)", r"st\.global\.wb\.v4"),
}
# Partial sums of single channels; planes that are not whole vectors.
_OF_SINGLE_ELEMENTS = re.compile(r"bwd_sum_kernel|attention_fwd_kernelI\w+Li1E")

_KERNEL = re.compile(
    r"Compiling entry function '\w*?kernelI(?P<types>\w+?)EEvNS\w*' for '(?P<arch>sm_\d+)'\n"
    r".*\n\s*(?P<stack>\d+) bytes stack frame, "
    r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads\n"
    r".*Used (?P<registers>\d+) registers"
)


@dataclass(frozen=True)
class Usage:
    """What ptxas says of one kernel; sizes in bytes."""

    arch: str
    types: str
    registers: int
    stack: int
    spilled: int


def parse_usage(text: str) -> list[Usage]:
    return [
        Usage(
            match["arch"],
            match["types"],
            int(match["registers"]),
            int(match["stack"]),
            int(match["stores"]) + int(match["loads"]),
        )
        for match in _KERNEL.finditer(text)
    ]


def compile_source(toolkit: Toolkit, source: str, *flags: str) -> str:
    includes = f"-I{HERE.parents[1] / 'csrc'}"
    command = [toolkit.nvcc, "-O3", "-std=c++20", includes, *flags, HERE / f"{source}.cu"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stderr


@pytest.fixture(scope="module")
def toolkit() -> Toolkit:
    try:
        return find_toolkit(candidate_roots(os.environ), None)
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("arch", NAMES)
def test_kernels_neither_spill_nor_move_single_elements(
    toolkit, arch, source, record_property, tmp_path
):
    if arch not in known_archs(toolkit):
        pytest.skip(f"this nvcc does not know {arch}")
    target = f"-arch=sm_{arch.replace('.', '')}"
    flags = ("-cubin", target, "-Xptxas=-v", "-keep", f"-keep-dir={tmp_path}")
    report = compile_source(toolkit, source, *flags, f"-o={tmp_path / 'cubin'}")
    usages = parse_usage(report)
    for usage in usages:
        print(f"{usage.arch} {usage.types}: {usage.registers} registers")
        record_property(f"registers {usage.arch} {usage.types}", usage.registers)
    assert len(usages) == SOURCES[source]
    assert all(usage.stack == usage.spilled == 0 for usage in usages), usages
    assert max(usage.registers for usage in usages) <= MAX_REGISTERS, usages
    if float(arch) >= FIRST_WITH_ASYNC_COPIES:
        (ptx,) = tmp_path.glob("*.ptx")
        assert_tiles_move_in_16_byte_accesses(source, ptx.read_text())


def assert_tiles_move_in_16_byte_accesses(source: str, ptx: str) -> None:
    kernels = ptx.split(".visible .entry")[1:]
    assert len(kernels) == SOURCES[source]
    for kernel in kernels:
        if _OF_SINGLE_ELEMENTS.search(kernel.split("(")[0]):
            continue
        for access in WIDE_ACCESSES[source]:
            assert re.search(access, kernel), f"no {access} in {kernel.split('(')[0]}"


def test_a_spill_is_recognised():
    text = (
        "ptxas info    : Compiling entry function '_ZN4lmwp6kernelIfLi7ELi1EEEvNS_5TasksE' "
        "for 'sm_80'\n"
        "ptxas info    : Function properties for _ZN4lmwp6kernelIfLi7ELi1EEEvNS_5TasksE\n"
        "    16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads\n"
        "ptxas info    : Used 255 registers, used 1 barriers\n"
    )
    assert parse_usage(text) == [Usage("sm_80", "fLi7ELi1E", 255, 16, 12)]
