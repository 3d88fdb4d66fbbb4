"""The CUDA kernel of depthwise_scales, executed on the host and held against float64."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from . import build
from .cases import C_TYPES, Library, cases

pytestmark = pytest.mark.skipif(build.why_not() is not None, reason=str(build.why_not()))

KERNELS = (1, 3, 5, 7)
SOURCE = "depthwise_scales_host.cpp"
KERNEL_FILE, PLAN_FILE = "depthwise_scales_fwd.cuh", "depthwise_scales_plan.cuh"

# Name: (file, sound text, faulty text).
READ_BELOW_TILE = (KERNEL_FILE, "y >= 0 && y < task.height && column >= 0", "y >= 0 && column >= 0")
READ_BELOW_MAP = (KERNEL_FILE, "row >= 0 && row < task.height && ", "row >= 0 && ")
READ_RIGHT_OF_MAP = (KERNEL_FILE, "column >= 0 && column < task.width;", "column >= 0;")
WRITE_BELOW_MAP = (KERNEL_FILE, "if (row < task.out_height)", "if (true)")
SHORT_TILE = (PLAN_FILE, "* kRows<S> - 1) + K;", "* kRows<S> - 1) + K - 1;")
SHORT_ARRAY = (KERNEL_FILE, "weight, [K * K]", "weight, [K * K - 1]")
MISALIGNED = (PLAN_FILE, "(data) % sizeof(uint4) == 0", "(data) % sizeof(T) == 0")
NO_BARRIER = (KERNEL_FILE, "  __syncthreads();\n", "")
NO_WAIT = (KERNEL_FILE, "  kl_copy_wait();\n", "")
EARLY_RETURN = (KERNEL_FILE, "  kl_copy_wait();\n", "  kl_copy_wait();\n  if (thread) return;\n")
TILES_OVERLAP = (KERNEL_FILE, "tile_y * task.tile_groups;", "tile_y * (task.tile_groups - 1);")


def run_apart(
    library: Path, dtype: str, *kernels: int, sanitized: bool = False
) -> subprocess.CompletedProcess[str]:
    """All cases in a process of its own, which a sanitizer or a fault may end."""
    environment = {**os.environ, **(build.sanitizer_environment() if sanitized else {})}
    command = [sys.executable, str(build.HERE / "cases.py"), str(library), dtype]
    return subprocess.run(
        command + [str(k) for k in kernels], env=environment, capture_output=True, text=True
    )


def build_for(dtype: str, flags: tuple[str, ...], output: Path) -> Path:
    return build.compile_host(SOURCE, output, flags, defines=[f"ELEMENT={C_TYPES[dtype]}"])


@pytest.fixture
def faulty(tmp_path: Path) -> Callable[..., Path]:
    """A build, small and fast, of the kernel with one fault in it."""

    def make(fault: tuple[str, str, str], flags: tuple[str, ...], source: str = SOURCE) -> Path:
        file, sound, wrong = fault
        csrc = build.planted(tmp_path / "csrc", file, {sound: wrong})
        defines = ["ELEMENT=float", "ONLY_KERNEL=3"]
        return build.compile_host(source, tmp_path / "faulty", flags, defines=defines, csrc=csrc)

    return make


@pytest.mark.parametrize("dtype", C_TYPES)
def test_matches_float64(dtype, tmp_path):
    library = Library(str(build_for(dtype, build.PLAIN, tmp_path / "plain.so")))
    for kernel in KERNELS:
        for case in cases(kernel):
            library.run(case, dtype)
    for stride in (1, 2):
        assert_both_paths(library, dtype, stride)


def assert_both_paths(library: Library, dtype: str, stride: int) -> None:
    """The cases are worth something only while they reach tiled and direct branches."""
    chosen = [case for case in cases(3) if case.stride == stride]
    tiled = [(case, path) for case in chosen for path in library.is_tiled(case, dtype)]
    assert sum(path for _, path in tiled) >= 8
    assert sum(not path for _, path in tiled) >= 8
    assert not any(path for case, path in tiled if case.offset == 1 or case.dilation > 1)
    assert any(path for case, path in tiled if case.offset == 8)
    assert any(path for case, path in tiled if case.layout == "sliced")


# The 16-bit types differ in rounding alone: one of them shows every memory access.
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_clean_under_address_and_undefined_sanitizers(dtype, tmp_path):
    library = build_for(dtype, build.ADDRESS, tmp_path / "address.so")
    result = run_apart(library, dtype, *KERNELS, sanitized=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_clean_under_thread_sanitizer(tmp_path):
    program = build.compile_host("depthwise_scales_race.cpp", tmp_path / "race", build.RACE)
    result = subprocess.run([program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        pytest.param(READ_BELOW_TILE, "heap-buffer-overflow", id="tile reads below the map"),
        pytest.param(READ_BELOW_MAP, "heap-buffer-overflow", id="direct reads below the map"),
        pytest.param(WRITE_BELOW_MAP, "heap-buffer-overflow", id="direct writes below the map"),
        pytest.param(SHORT_TILE, "heap-buffer-overflow", id="dynamic shared memory too short"),
        pytest.param(SHORT_ARRAY, "heap-buffer-overflow", id="static shared memory too short"),
        pytest.param(MISALIGNED, "misaligned address", id="misaligned vectors"),
    ],
)
def test_address_sanitizer_sees(faulty, fault, complaint):
    result = run_apart(faulty(fault, build.ADDRESS), "float32", 3, sanitized=True)
    assert result.returncode != 0
    assert complaint in result.stderr


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        pytest.param(NO_BARRIER, "wrong, first", id="missing barrier"),
        pytest.param(NO_WAIT, "without waiting", id="copies not waited for"),
        pytest.param(EARLY_RETURN, "is stuck", id="return before the barrier"),
        pytest.param(READ_RIGHT_OF_MAP, "wrong, first", id="direct reads the next row"),
    ],
)
def test_comparison_sees(faulty, fault, complaint):
    result = run_apart(faulty(fault, build.PLAIN), "float32", 3)
    assert result.returncode == 1
    assert complaint in result.stdout


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(NO_BARRIER, id="missing barrier"),
        pytest.param(TILES_OVERLAP, id="two blocks write one output"),
    ],
)
def test_thread_sanitizer_sees(faulty, fault):
    program = faulty(fault, build.RACE, "depthwise_scales_race.cpp")
    result = subprocess.run([program], capture_output=True, text=True)
    assert result.returncode != 0
    assert "data race" in result.stderr
