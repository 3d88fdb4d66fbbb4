"""The CUDA kernel of il_block, executed on the host and held against float64."""

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lmwp_ops.ops.depthwise_scales import reference as depthwise_scales
from lmwp_ops.ops.goctconv2d import reference as goctconv2d

from . import build
from .cases import C_TYPES
from .il_block_cases import CARDS, CASES, Array, Case, Drawn, Library, expected_of

pytestmark = pytest.mark.skipif(build.why_not() is not None, reason=str(build.why_not()))

SOURCE, RACE_SOURCE = "il_block_host.cpp", "il_block_race.cpp"
KERNEL_FILE, PLAN_FILE = "il_block_fwd.cuh", "il_block_plan.cuh"
SUMS_FILE, TERM_FILE = "tile_sums.cuh", "octave_term.cuh"

# Name: (file, sound text, faulty text).
READ_BELOW_MAP = (SUMS_FILE, "i < size ? i : size - 1", "i < size + 2 ? i : size - 1")
READ_BEYOND_POOL = (TERM_FILE, "row * side + i / side", "(row + 2) * side")
MIX_BEYOND_MAP = (TERM_FILE, "low(i) + (low(i) + 1 < in)", "low(i) + 1")
WRITE_BEYOND_MAP = (KERNEL_FILE, "if (!tile.holds(row, column)) return;", "")
SHORT_SHARED = (PLAN_FILE, "std::max(layout.end, layout.staged +", "(layout.staged +")
NO_BARRIER_BEFORE_STAGING = (KERNEL_FILE, "__syncthreads();  // everyone", "// everyone")
NO_BARRIER_BEFORE_WIDENING = (KERNEL_FILE, "        __syncthreads();\n        with", "with")
NO_BARRIER_BEFORE_DEPTHWISE = (KERNEL_FILE, "    __syncthreads();\n    T* y", "    T* y")
EARLY_RETURN = (KERNEL_FILE, "    load_constants();\n", "    if (threadIdx.x) return;\n")
TILES_OVERLAP = (KERNEL_FILE, "% task.tiles_x * task.tile_columns", "% task.tiles_x")


def truth(drawn: Drawn) -> list[Array]:
    """The outputs in float64, layer by layer."""

    def tensors(name: str, layer: int) -> list[torch.Tensor]:
        return [torch.from_numpy(values) for values in drawn.parameters[name][layer]]

    def epilogue(layer: int) -> tuple[list[torch.Tensor], ...]:
        return tuple(tensors(name, layer) for name in ("scale", "shift", "slope"))

    case = drawn.case
    ys = goctconv2d.forward(
        [torch.from_numpy(np.ascontiguousarray(x)) for x in drawn.xs],
        torch.from_numpy(drawn.weight),
        *epilogue(0),
        case.ins,
        case.outs,
        case.entry_pool,
        case.cross_scale,
        case.bilinear_down,
    )
    for layer in (1, 2):
        ys = depthwise_scales.forward(ys, tensors("depthwise", layer - 1), *epilogue(layer), 1, 1)
    return [y.numpy() for y in ys]


def build_for(dtype: str, flags: tuple[str, ...], output: Path) -> Path:
    return build.compile_host(SOURCE, output, flags, defines=[f"ELEMENT={C_TYPES[dtype]}"])


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By dtype, a file of what must come out of every case."""
    files = {}
    for dtype in C_TYPES:
        files[dtype] = tmp_path_factory.mktemp("expected") / f"{dtype}.npz"
        arrays = {}
        for index, case in enumerate(CASES):
            ys = truth(Drawn(case, dtype))
            arrays |= {f"{index} {j}": y for j, y in zip(case.output_shapes(), ys, strict=True)}
        np.savez(files[dtype], **arrays)
    return files


def run_apart(
    library: Path, dtype: str, expected: dict[str, Path], *cards: int, sanitized: bool = False
) -> subprocess.CompletedProcess[str]:
    """All cases in a process of its own, which a sanitizer or a fault may end."""
    environment = {**os.environ, **(build.sanitizer_environment() if sanitized else {})}
    command = [sys.executable, "-m", "host_cuda.il_block_cases", str(library), dtype]
    return subprocess.run(
        [*command, str(expected[dtype]), *map(str, cards)],
        cwd=build.HERE.parent,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def faulty(tmp_path: Path) -> Callable[..., Path]:
    """A build of the kernel with one fault in it."""

    def make(fault: tuple[str, str, str], flags: tuple[str, ...], source: str = SOURCE) -> Path:
        file, sound, wrong = fault
        csrc = build.planted(tmp_path / "csrc", file, {sound: wrong})
        defines = ["ELEMENT=float"]
        return build.compile_host(source, tmp_path / "faulty", flags, defines=defines, csrc=csrc)

    return make


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Library]:
    """The build for a dtype."""
    folder = tmp_path_factory.mktemp("plain")
    return functools.cache(
        lambda dtype: Library(str(build_for(dtype, build.PLAIN, folder / f"{dtype}.so")))
    )


@pytest.mark.parametrize("dtype", C_TYPES)
def test_matches_float64(library, expected: dict[str, Path], dtype: str) -> None:
    with np.load(expected[dtype]) as arrays:
        for case in CASES:
            drawn = Drawn(case, dtype)
            for cards in CARDS:
                library(dtype).run(drawn, expected_of(arrays, case), cards)


def test_cases_reach_every_cut(library) -> None:
    """The cases are worth something only while they reach every size of tile and of chunk."""
    cuts = [
        (case, library("float32").cut(Drawn(case, "float32"), cards, output))
        for case in CASES
        for cards in CARDS
        for output in range(len(case.output_shapes()))
    ]
    assert {rows for _, (rows, _, _, _) in cuts} == {4, 8, 12}
    assert {channels for _, (_, _, channels, _) in cuts} == {4, 8, 12}
    for kernel in (1, 3):
        chunked = [chunk < max(case.ins) for case, (*_, chunk) in cuts if case.kernel == kernel]
        assert any(chunked)
        assert not all(chunked)


@pytest.mark.parametrize("width", [1, 10, 40, 100, 300])
@pytest.mark.parametrize("kernel", [1, 3])
def test_every_width_fits_into_shared_memory(library, width: int, kernel: int) -> None:
    case = Case((width,) * 3, (width,) * 3, (128, 132), kernel, batch=0)
    for cards in CARDS:
        for output in range(3):
            library("float32").cut(Drawn(case, "float32"), cards, output)


def test_a_coarse_branch_that_is_far_too_large_is_refused(library) -> None:
    drawn = Drawn(Case((4, 4), (4,), (64, 64), bilinear_down=True), "float32")
    drawn.call.input[1].height = drawn.call.input[1].width = 64 * 64
    assert library("float32").refuses(drawn)


# The 16-bit types differ in rounding alone: one of them shows every memory access.
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_clean_under_address_and_undefined_sanitizers(
    dtype: str, expected: dict[str, Path], tmp_path: Path
) -> None:
    library = build_for(dtype, build.ADDRESS, tmp_path / "address.so")
    result = run_apart(library, dtype, expected, *CARDS, sanitized=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_clean_under_thread_sanitizer(tmp_path: Path) -> None:
    program = build.compile_host(RACE_SOURCE, tmp_path / "race", build.RACE)
    result = subprocess.run([program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(READ_BELOW_MAP, id="reads below the map"),
        pytest.param(READ_BEYOND_POOL, id="pools below the map"),
        pytest.param(WRITE_BEYOND_MAP, id="writes beyond the map"),
        pytest.param(SHORT_SHARED, id="shared memory too short"),
    ],
)
def test_address_sanitizer_sees(faulty, expected: dict[str, Path], fault) -> None:
    library = faulty(fault, build.ADDRESS)
    result = run_apart(library, "float32", expected, 0, sanitized=True)
    assert result.returncode != 0
    assert "heap-buffer-overflow" in result.stderr


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        pytest.param(MIX_BEYOND_MAP, "wrong, first", id="mixes with what lies beyond the map"),
        pytest.param(NO_BARRIER_BEFORE_STAGING, "wrong, first", id="stages too early"),
        pytest.param(NO_BARRIER_BEFORE_WIDENING, "wrong, first", id="widens too early"),
        pytest.param(NO_BARRIER_BEFORE_DEPTHWISE, "wrong, first", id="second stage too early"),
        pytest.param(EARLY_RETURN, "is stuck", id="return before the barrier"),
    ],
)
def test_comparison_sees(faulty, expected: dict[str, Path], fault, complaint: str) -> None:
    result = run_apart(faulty(fault, build.PLAIN), "float32", expected, 0)
    assert result.returncode == 1
    assert complaint in result.stdout


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(NO_BARRIER_BEFORE_STAGING, id="stages too early"),
        pytest.param(NO_BARRIER_BEFORE_WIDENING, id="widens too early"),
        pytest.param(NO_BARRIER_BEFORE_DEPTHWISE, id="second stage too early"),
        pytest.param(TILES_OVERLAP, id="two blocks write one output"),
    ],
)
def test_thread_sanitizer_sees(faulty, fault) -> None:
    program = faulty(fault, build.RACE, RACE_SOURCE)
    result = subprocess.run([program], capture_output=True, text=True)
    assert result.returncode != 0
    assert "data race" in result.stderr
