"""Code compiled for one instruction set stays in its own namespace.

A function outside it would be merged by the linker with the copy of another set, and a processor
without AVX-512 could end up running that one.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from build_tools.libraries import is_torch_source
from build_tools.mode import instruction_sets

CSRC = Path(__file__).parents[2] / "csrc"
KERNELS = [path for path in sorted((CSRC / "cpu").glob("*.cpp")) if not is_torch_source(path)]
ISA, FLAGS = list(instruction_sets().items())[-1]


def defined_symbols(source: Path, folder: Path) -> list[str]:
    """Demangled symbols with linkage that `source` defines, inline functions included."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    target = folder / "kernel.o"
    flags = ["-std=c++20", "-O1", "-fno-inline", f"-I{CSRC}", f"-DLMWP_ISA={ISA}", *FLAGS]
    subprocess.run([compiler, *flags, "-c", str(source), "-o", str(target)], check=True)
    command = ["nm", "-C", "--defined-only", "--extern-only", str(target)]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    symbols = [line.split(" ", 2)[2] for line in listing.splitlines()]
    return [symbol for symbol in symbols if not symbol.startswith("DW.ref.")]  # data of exceptions


def outsiders(symbols: list[str]) -> list[str]:
    return [symbol for symbol in symbols if f"lmwp::{ISA}::" not in symbol.split("(")[0]]


@pytest.mark.parametrize("source", KERNELS, ids=lambda path: path.stem)
def test_kernels_define_nothing_outside(source: Path, tmp_path: Path) -> None:
    symbols = defined_symbols(source, tmp_path)
    assert symbols
    assert outsiders(symbols) == []


def test_an_outsider_is_found(tmp_path: Path) -> None:
    source = tmp_path / "kernel.cpp"
    source.write_text(
        "#include <algorithm>\n"
        "namespace lmwp::LMWP_ISA { float f(float a, float b) { return std::max(a, b); } }\n"
    )
    found = outsiders(defined_symbols(source, tmp_path))
    assert len(found) == 1
    assert "std::max" in found[0]
