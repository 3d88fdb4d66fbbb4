"""The CPU kernels under the address and undefined-behaviour sanitizers."""

import itertools
import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
FLAGS = (
    *("-std=c++20", "-O1", "-g1", "-Wall", "-Wextra", "-Werror", "-ffp-contract=fast"),
    *("-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"),
)
INSTRUCTION_SETS = {
    "x86_64": {
        "sse42": ("-march=x86-64-v2", ()),
        "avx2": ("-march=x86-64-v3", ("avx2", "fma", "f16c")),
        "avx512": ("-march=x86-64-v4", ("avx512f", "avx512bw", "avx512dq", "avx512vl")),
    }
}.get(platform.machine(), {"generic": ("-O1", ())})


def processor_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    lines = [line for line in text.splitlines() if line.startswith("flags")]
    return set(lines[0].split()) if lines else set()


KERNELS = {
    "bn_prelu_gap": ("bn_prelu_gap",),
    "channel_spatial_attention": (
        "channel_spatial_attention",
        "channel_spatial_attention_backward",
    ),
    "depthwise_scales": (
        "depthwise_pixels",
        "depthwise_scales",
        "depthwise_scales_weight",
    ),
    "epilogue_backward": ("epilogue_backward",),
    "guided_fusion": ("guided_fusion",),
    "multiscale_conv": ("multiscale_conv", "multiscale_weight"),
    "multiscale_mix": ("multiscale_mix", "multiscale_mix_backward"),
    "mwpm_block": ("mwpm_block",),
    "pointwise_pixels": ("pointwise_pixels",),
    "sparse_conv2d": ("sparse_conv2d", "sparse_values"),
    "stem_conv2d": ("stem_conv2d",),
}


def supported(isa: str) -> bool:
    return set(INSTRUCTION_SETS[isa][1]) <= processor_flags()


# In every run the widest vectors of this processor; narrower ones are slow.
WIDEST = [isa for isa in INSTRUCTION_SETS if supported(isa)][-1]
BUILDS = [
    pytest.param(
        (kernel, isa), id=f"{kernel}-{isa}", marks=() if isa == WIDEST else pytest.mark.slow
    )
    for kernel, isa in itertools.product(KERNELS, INSTRUCTION_SETS)
]


@pytest.fixture(scope="module", params=BUILDS)
def driver(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver of a kernel, built for one instruction set."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    kernel, isa = request.param
    architecture, needed = INSTRUCTION_SETS[isa]
    if missing := set(needed) - processor_flags():
        pytest.skip(f"this processor has no {', '.join(sorted(missing))}")
    program = tmp_path_factory.mktemp("sanitize") / f"{kernel}_{isa}"
    sources = [HERE / f"{kernel}_driver.cpp", *(CSRC / "cpu" / f"{s}.cpp" for s in KERNELS[kernel])]
    command = ["g++", *FLAGS, architecture, f"-DLMWP_ISA={isa}", f"-I{CSRC}", *sources]
    done = subprocess.run([*command, "-o", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    return subprocess.run([program, *arguments], env=environment, capture_output=True, text=True)


def test_every_problem_is_right_and_in_bounds(driver: Path) -> None:
    done = run(driver)
    assert done.returncode == 0, done.stderr
    missing_element = run(driver, "fault")
    assert missing_element.returncode != 0
    assert "AddressSanitizer" in missing_element.stderr
