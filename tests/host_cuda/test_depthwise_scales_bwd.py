"""The backward CUDA kernels of depthwise_scales, executed on the host and held against float64."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from . import build
from .bwd_cases import BackwardLibrary, cases
from .cases import C_TYPES

pytestmark = pytest.mark.skipif(build.why_not() is not None, reason=str(build.why_not()))

KERNELS = (1, 3, 5, 7)
SOURCE, RACE_SOURCE = "depthwise_scales_bwd_host.cpp", "depthwise_scales_bwd_race.cpp"
SCRIPT = "bwd_cases"
INPUT_FILE, WEIGHT_FILE = "depthwise_scales_bwd_input.cuh", "depthwise_scales_bwd_weight.cuh"
CONV_FILE = "depthwise_scales_conv.cuh"

# Name: (file, sound text, faulty text).
READ_BELOW_DZ = (INPUT_FILE, "row >= 0 && row < task.out_height && ", "row >= 0 && ")
WRITE_RIGHT_OF_DX = (INPUT_FILE, "row < task.height && column < task.width", "row < task.height")
WRITE_BELOW_DZ = (WEIGHT_FILE, "if (inside && task.dz.data != nullptr) to", "if (task.dz.data) to")
SHORT_SHARED = (WEIGHT_FILE, "kSums<K> + weight_floats<K>(lanes)", "kSums<K> + 0 * lanes")
SHORT_SCRATCH = (WEIGHT_FILE, "task.channels * kSums<K> : 0", "task.channels * K * K : 0")
NOT_FLIPPED = (CONV_FILE, "kFlipped ? K * K - 1 - tap : tap", "tap")
EVEN_DILATION = (INPUT_FILE, "if (!odd) {", "if (false) {")
LANES_LEFT_OUT = (WEIGHT_FILE, "step >= task.lanes", "step > task.lanes")
SWEEP_LEFT_OUT = (WEIGHT_FILE, "sweep < end; ++sweep", "sweep < end; sweep += 2")
NO_BARRIER_BETWEEN_SWEEPS = (WEIGHT_FILE, "    __syncthreads();\n    stage_tile", "    stage_tile")
NO_BARRIER_BEFORE_PART = (WEIGHT_FILE, "  __syncthreads();\n  write_part", "  write_part")
NO_BARRIER_IN_LAST_SUM = (WEIGHT_FILE, "= sum;\n  __syncthreads();", "= sum;")
ONE_PART = (WEIGHT_FILE, "(int64_t{part} * task.channels + channel)", "(part - part + channel)")


@pytest.fixture
def faulty(tmp_path: Path) -> Callable[..., Path]:
    """A float32 build of the kernels with one fault in them."""

    def make(fault: tuple[str, str, str], flags: tuple[str, ...], source: str = SOURCE) -> Path:
        file, sound, wrong = fault
        csrc = build.planted(tmp_path / "csrc", file, {sound: wrong})
        defines = ["ELEMENT=float", "KERNELS=3"]
        return build.compile_host(source, tmp_path / "faulty", flags, defines=defines, csrc=csrc)

    return make


def build_for(dtype: str, kernels: tuple[int, ...], flags: tuple[str, ...], output: Path) -> Path:
    sizes = ",".join(map(str, kernels))
    return build.compile_host(
        SOURCE, output, flags, defines=[f"ELEMENT={C_TYPES[dtype]}", f"KERNELS={sizes}"]
    )


@pytest.mark.parametrize(
    ("dtype", "kernels"),
    [
        ("float32", (1, 3, 5)),
        ("float16", (3,)),
        ("bfloat16", (3,)),
        *(pytest.param(dtype, KERNELS, marks=pytest.mark.slow) for dtype in C_TYPES),
    ],
)
def test_matches_float64(dtype, kernels, tmp_path):
    library = BackwardLibrary(str(build_for(dtype, kernels, build.PLAIN, tmp_path / "plain.so")))
    for kernel in kernels:
        for case in cases(kernel):
            library.run(case, dtype)
    for stride in (1, 2):
        assert_all_paths(library, dtype, stride)


def assert_all_paths(library: BackwardLibrary, dtype: str, stride: int) -> None:
    """The cases are worth something only while they reach every path through the kernels."""
    chosen = [case for case in cases(3) if case.stride == stride and case.wanted[0]]
    plans = [(case, *plan) for case in chosen for plan in library.plans(case, dtype)]
    for path in (1, 2):
        assert sum(plan[path] for plan in plans) >= 8
        assert sum(not plan[path] for plan in plans) >= 8
    assert any(sums != dx for _, sums, dx, _ in plans)
    assert {sums for _, sums, _, steps in plans if steps > 1} == {True, False}
    assert any(case.parameters == "x" and sums for case, sums, _, _ in plans)


# The 16-bit types differ in rounding alone: one of them shows every memory access.
@pytest.mark.parametrize(
    ("dtype", "kernels"),
    [
        ("float32", (3,)),
        pytest.param("float32", KERNELS, marks=pytest.mark.slow),
        pytest.param("float16", KERNELS, marks=pytest.mark.slow),
    ],
)
def test_clean_under_address_and_undefined_sanitizers(dtype, kernels, tmp_path):
    library = build_for(dtype, kernels, build.ADDRESS, tmp_path / "address.so")
    result = build.run_cases(SCRIPT, library, dtype, *kernels, sanitized=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_clean_under_thread_sanitizer(tmp_path):
    program = build.compile_host(RACE_SOURCE, tmp_path / "race", build.RACE)
    result = subprocess.run([program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(READ_BELOW_DZ, id="gather reads below dz"),
        pytest.param(WRITE_RIGHT_OF_DX, id="gather writes right of dx"),
        pytest.param(WRITE_BELOW_DZ, id="columns write below dz"),
        pytest.param(SHORT_SHARED, id="dynamic shared memory too short"),
        pytest.param(SHORT_SCRATCH, id="scratch memory too short"),
    ],
)
def test_address_sanitizer_sees(faulty, fault):
    result = build.run_cases(SCRIPT, faulty(fault, build.ADDRESS), "float32", 3, sanitized=True)
    assert result.returncode != 0
    assert "heap-buffer-overflow" in result.stderr


@pytest.mark.parametrize(
    ("fault", "output"),
    [
        pytest.param(NOT_FLIPPED, "dx", id="weights not flipped"),
        pytest.param(EVEN_DILATION, "dx", id="even dilations as odd ones"),
        pytest.param(LANES_LEFT_OUT, "grad_weight", id="lanes left out of the sum"),
        pytest.param(SWEEP_LEFT_OUT, "dx", id="every second sweep left out"),
        pytest.param(NO_BARRIER_BETWEEN_SWEEPS, "", id="no barrier between sweeps"),
        pytest.param(NO_BARRIER_BEFORE_PART, "grad_", id="no barrier before the part"),
        pytest.param(NO_BARRIER_IN_LAST_SUM, "grad_", id="no barrier in the last sum"),
    ],
)
def test_comparison_sees(faulty, fault, output):
    result = build.run_cases(SCRIPT, faulty(fault, build.PLAIN), "float32", 3)
    assert result.returncode == 1
    assert "wrong, first" in result.stdout
    assert output in result.stdout


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(NO_BARRIER_BEFORE_PART, id="no barrier before the part"),
        pytest.param(ONE_PART, id="two blocks write one part"),
    ],
)
def test_thread_sanitizer_sees(faulty, fault):
    program = faulty(fault, build.RACE, RACE_SOURCE)
    result = subprocess.run([program], capture_output=True, text=True)
    assert result.returncode != 0
    assert "data race" in result.stderr
