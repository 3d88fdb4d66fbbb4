"""The CUDA kernel of channel_spatial_attention, executed on the host and held against float64."""

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lmwp_ops.ops.channel_spatial_attention import cuda_limits

from . import build
from .cases import C_TYPES
from .channel_spatial_attention_cases import CASES, Case, Drawn, Library

pytestmark = pytest.mark.skipif(build.why_not() is not None, reason=str(build.why_not()))

SOURCE, RACE_SOURCE = (f"channel_spatial_attention_{kind}.cpp" for kind in ("host", "race"))
KERNEL_FILE = "channel_spatial_attention_fwd.cuh"

BARRIERS = {
    "no barrier after the copy": "__syncthreads();  // the image is there",
    "no barrier before the gates": "__syncthreads();  // so are the gates",
    "no barrier before the maps": "__syncthreads();  // and the maps",
    "no barrier before the hidden units": "__syncthreads();\n    apply_reduce",
}
LEFT_OUT = BARRIERS | {
    "frames not cleared": "clear_frames();\n",
    "no end of an image": "if (pixel >= launch.pixels) return;\n#pragma",
    "no end of a head": "if (head > count) head = count;",
    "no last element": "share(head + vectors * kLanes<T>, count, ",
}
"""By fault, the statement that is then left out."""
CHANGED = {
    "no permission": ("= kl_allow_shared", "= ACTIVE ? cudaSuccess : kl_allow_shared"),
    "shared memory too short": ("shared_bytes, stream", "shared_bytes - 16 * (ACTIVE), stream"),
}
"""By fault, sound text and what takes its place."""
NUMBERS = {name: i + 1 for i, name in enumerate([*LEFT_OUT, *CHANGED])}


def plant(folder: Path) -> Path:
    """A copy of csrc whose kernel has every fault, each if it is chosen when it runs."""
    faults = {text: f"if (fault != {NUMBERS[name]}) {text}" for name, text in LEFT_OUT.items()}
    for name, (sound, faulty) in CHANGED.items():
        faults[sound] = faulty.replace("ACTIVE", f"fault == {NUMBERS[name]}")
    return build.planted(folder, KERNEL_FILE, faults)


@pytest.fixture(scope="module")
def csrc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plant(tmp_path_factory.mktemp("faulty") / "csrc")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, csrc: Path) -> Callable[..., Path]:
    """The build for a dtype; that for float32 has the faults."""
    folder = tmp_path_factory.mktemp("libraries")

    @functools.cache
    def make(dtype: str, flags: tuple[str, ...] = build.PLAIN) -> Path:
        return build.compile_host(
            SOURCE,
            folder / f"{dtype}_{flags is build.PLAIN}.so",
            flags,
            defines=[f"ELEMENT={C_TYPES[dtype]}"],
            csrc=csrc if dtype == "float32" else build.CSRC,
        )

    return make


@pytest.fixture(scope="module")
def race(tmp_path_factory: pytest.TempPathFactory, csrc: Path) -> Path:
    output = tmp_path_factory.mktemp("race") / "race"
    return build.compile_host(RACE_SOURCE, output, build.RACE, csrc=csrc)


def run_all(library: Library, dtype: str) -> None:
    for case in CASES:
        library.run(Drawn(case, dtype))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_matches_float64(library, dtype: str) -> None:
    run_all(Library(str(library(dtype))), dtype)


def test_cases_reach_every_plan(library) -> None:
    plans = [Library(str(library("float32"))).plan(Drawn(case, "float32")) for case in CASES]
    assert {plan.team for plan in plans} == {1, 2, 4, 8, 16, 32}
    for vectorised in (False, True):
        chosen = [plan for plan in plans if plan.vectorised == vectorised]
        assert {plan.warp_pixels for plan in chosen} >= {16, 32}
        assert max(plan.threads for plan in chosen) > 384


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_python_knows_how_much_shared_memory_a_block_needs(library, dtype: str) -> None:
    built = Library(str(library(dtype)))
    for case in CASES:
        drawn = Drawn(case, dtype)
        settings = len(case.pools.split()), case.hidden, max(case.sizes, default=0)
        element_bytes = 4 if dtype == "float32" else 2
        expected = cuda_limits.shared_bytes(case.shape[1:], element_bytes, *settings)
        assert built.plan(drawn).shared_bytes == expected


def test_many_images_take_fewer_threads_each_and_keep_their_bits(library) -> None:
    """What shared memory has room for twice, registers have, too."""
    built = Library(str(library("float32")))
    drawn = Drawn(Case((2, 100, 16, 17)), "float32")
    plans, bits = [], []
    for cards in (2, 1):
        built.run(drawn, cards)
        plans.append(built.plan(drawn, cards))
        bits.append(drawn.output())
    assert 2 * plans[0].shared_bytes < 227 << 10
    assert plans[0].threads > 512 >= plans[1].threads
    assert (bits[0] == bits[1]).all()


@pytest.mark.parametrize("shape", [(1, 60, 32, 32), (1, 70, 1000, 1000)])
def test_what_fits_into_no_shared_memory_is_an_error(library, shape: tuple[int, ...]) -> None:
    drawn = Drawn(Case((0, *shape[1:])), "float32")
    drawn.call.batch = 1
    assert Library(str(library("float32"))).refuses(drawn)


def run_apart(library: Path, dtype: str, fault: int = 0) -> subprocess.CompletedProcess[str]:
    """All cases in a process of its own, which the sanitizer may end."""
    script = "tests.host_cuda.channel_spatial_attention_cases"
    return subprocess.run(
        [sys.executable, "-m", script, str(library), dtype, str(fault)],
        cwd=build.ROOT,
        env={**os.environ, **build.sanitizer_environment()},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float16", marks=pytest.mark.slow)])
def test_clean_under_address_and_undefined_sanitizers(library, dtype: str) -> None:
    result = run_apart(library(dtype, build.ADDRESS), dtype)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    "fault", ["no end of an image", "no end of a head", "shared memory too short"]
)
def test_address_sanitizer_sees(library, fault: str) -> None:
    result = run_apart(library("float32", build.ADDRESS), "float32", NUMBERS[fault])
    assert result.returncode != 0
    assert "heap-buffer-overflow" in result.stderr


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        *((fault, "wrong, first") for fault in BARRIERS),
        ("frames not cleared", "wrong, first"),
        ("no last element", "wrong, first"),
        ("no permission", "launch failed"),
    ],
)
def test_comparison_sees(library, fault: str, complaint: str) -> None:
    built = Library(str(library("float32")))
    built.choose_fault(NUMBERS[fault])
    with pytest.raises(AssertionError, match=complaint):
        run_all(built, "float32")
    built.choose_fault(0)


def test_clean_under_thread_sanitizer(race: Path) -> None:
    result = subprocess.run([race, "0"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("fault", ["no barrier after the copy", "no barrier before the maps"])
def test_thread_sanitizer_sees(race: Path, fault: str) -> None:
    result = subprocess.run([race, str(NUMBERS[fault])], capture_output=True, text=True)
    assert result.returncode != 0
    assert "data race" in result.stderr
