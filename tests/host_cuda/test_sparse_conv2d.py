"""The CUDA kernel of sparse_conv2d, executed on the host and held against float64."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from . import build
from .cases import C_TYPES
from .sparse_conv2d_cases import Library, cases_of

pytestmark = pytest.mark.skipif(build.why_not() is not None, reason=str(build.why_not()))

SCRIPT, SOURCE, RACE_SOURCE = (
    f"sparse_conv2d_{part}" for part in ("cases", "host.cpp", "race.cpp")
)
KERNEL_FILE, PLAN_FILE = "sparse_conv2d_fwd.cuh", "sparse_conv2d_plan.cuh"

# Name: (file, sound text, faulty text).
READ_BEYOND_PLANE = (KERNEL_FILE, "if (first < end) pixels.bits", "pixels.bits")
WRITE_BEYOND_CHANNELS = (KERNEL_FILE, "if (output >= call.outputs) break;", "")
MISALIGNED = (PLAN_FILE, "at % sizeof(uint4) == 0", "at % sizeof(T) == 0")
NO_BARRIER_BEFORE = (KERNEL_FILE, "__syncwarp();  // every", "// every")
NO_BARRIER_AFTER = (KERNEL_FILE, "      __syncwarp();\n", "")
STEPS_OVERLAP = (KERNEL_FILE, "(blockIdx.x % launch.groups) * launch.steps", "(0 * launch.steps)")


def build_for(dtype: str, flags: tuple[str, ...], output: Path) -> Path:
    return build.compile_host(SOURCE, output, flags, defines=[f"ELEMENT={C_TYPES[dtype]}"])


@pytest.fixture
def faulty(tmp_path: Path) -> Callable[..., Path]:
    """A build of the kernel with one fault in it."""

    def make(fault: tuple[str, str, str], flags: tuple[str, ...], source: str = SOURCE) -> Path:
        file, sound, wrong = fault
        csrc = build.planted(tmp_path / "csrc", file, {sound: wrong})
        defines = ["ELEMENT=float"]
        return build.compile_host(source, tmp_path / "faulty", flags, defines=defines, csrc=csrc)

    return make


@pytest.mark.parametrize("dtype", C_TYPES)
def test_matches_float64(dtype: str, tmp_path: Path) -> None:
    library = Library(str(build_for(dtype, build.PLAIN, tmp_path / "plain.so")))
    for case in cases_of(dtype):
        library.run(case, dtype)
    library.run_corrupt(dtype)
    vectors = [library.moves_in_vectors(case, dtype) for case in cases_of(dtype)]
    assert min(vectors.count(True), vectors.count(False)) >= 4


# The 16-bit types differ in rounding alone: one of them shows every memory access.
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_clean_under_address_and_undefined_sanitizers(dtype: str, tmp_path: Path) -> None:
    library = build_for(dtype, build.ADDRESS, tmp_path / "address.so")
    result = build.run_cases(SCRIPT, library, dtype, sanitized=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_clean_under_thread_sanitizer(tmp_path: Path) -> None:
    program = build.compile_host(RACE_SOURCE, tmp_path / "race", build.RACE)
    result = subprocess.run([program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        pytest.param(READ_BEYOND_PLANE, "heap-buffer-overflow", id="reads beyond a plane"),
        pytest.param(WRITE_BEYOND_CHANNELS, "heap-buffer-overflow", id="writes channels too many"),
        pytest.param(MISALIGNED, "misaligned address", id="misaligned vectors"),
    ],
)
def test_address_sanitizer_sees(faulty, fault, complaint: str) -> None:
    result = build.run_cases(SCRIPT, faulty(fault, build.ADDRESS), "float32", sanitized=True)
    assert result.returncode != 0
    assert complaint in result.stderr


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(NO_BARRIER_AFTER, id="reads too early"),
        pytest.param(STEPS_OVERLAP, id="rows left out"),
    ],
)
def test_comparison_sees(faulty, fault) -> None:
    result = build.run_cases(SCRIPT, faulty(fault, build.PLAIN), "float32")
    assert result.returncode == 1
    assert "wrong, first" in result.stdout


def test_thread_sanitizer_sees_stages_too_early(faulty) -> None:
    program = faulty(NO_BARRIER_BEFORE, build.RACE, RACE_SOURCE)
    result = subprocess.run([program], capture_output=True, text=True)
    assert result.returncode != 0
    assert "data race" in result.stderr
