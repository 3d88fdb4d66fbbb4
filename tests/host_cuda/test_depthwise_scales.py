"""The CUDA kernel of depthwise_scales, executed on the host and held against float64."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from . import build
from .cases import C_TYPES, Library, cases

pytestmark = pytest.mark.skipif(build.why_not() is not None, reason=str(build.why_not()))

KERNELS = (1, 3, 5, 7)
SOURCE = "depthwise_scales_host.cpp"
CONV_FILE, PLAN_FILE = "depthwise_scales_conv.cuh", "depthwise_scales_plan.cuh"
KERNEL_FILE = "depthwise_scales_fwd.cuh"

# Name: (file, sound text, faulty text).
IN_COLUMNS = "column >= 0 && column < "
READ_BELOW_TILE = (CONV_FILE, f"y < height && {IN_COLUMNS}row", f"height && {IN_COLUMNS}row")
READ_BELOW_MAP = (CONV_FILE, f"y < height && {IN_COLUMNS}width", f"height && {IN_COLUMNS}width")
READ_RIGHT_OF_MAP = (CONV_FILE, "column < width;", "width;")
WRITE_BELOW_MAP = (CONV_FILE, "if (row < task.out_height)", "if (true)")
SHORT_TILE = (PLAN_FILE, "* R - 1) + K;", "* R - 1) + K - 1;")
SHORT_ARRAY = (KERNEL_FILE, "weight, [K * K]", "weight, [K * K - 1]")
MISALIGNED = (PLAN_FILE, "(map.data) % sizeof(uint4) == 0", "(map.data) % sizeof(T) == 0")
NO_BARRIER = (CONV_FILE, "  __syncthreads();\n", "")
NO_WAIT = (CONV_FILE, "  kl_copy_wait();\n", "")
EARLY_RETURN = (CONV_FILE, "  kl_copy_wait();\n", "  kl_copy_wait();\n  if (thread) return;\n")
TILES_OVERLAP = (CONV_FILE, "tiles_x * tiling.groups,", "tiles_x * (tiling.groups - 1),")


def build_for(dtype: str, flags: tuple[str, ...], output: Path) -> Path:
    return build.compile_host(
        SOURCE, output, flags, defines=[f"ELEMENT={C_TYPES[dtype]}", "KERNELS=1,3,5,7"]
    )


@pytest.fixture
def faulty(tmp_path: Path) -> Callable[..., Path]:
    """A build, small and fast, of the kernel with one fault in it."""

    def make(fault: tuple[str, str, str], flags: tuple[str, ...], source: str = SOURCE) -> Path:
        file, sound, wrong = fault
        csrc = build.planted(tmp_path / "csrc", file, {sound: wrong})
        defines = ["ELEMENT=float", "KERNELS=3"]
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
    result = build.run_cases("cases", library, dtype, *KERNELS, sanitized=True)
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
    result = build.run_cases("cases", faulty(fault, build.ADDRESS), "float32", 3, sanitized=True)
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
    result = build.run_cases("cases", faulty(fault, build.PLAIN), "float32", 3)
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
