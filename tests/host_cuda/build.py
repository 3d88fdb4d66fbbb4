"""g++ builds of the CUDA sources over the host emulation in include/."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CSRC = ROOT / "csrc"

PLAIN = ("-O1", "-fPIC", "-shared")
ADDRESS = (
    *("-O1", "-g1", "-fPIC", "-shared", "-fno-sanitize-recover=all"),
    "-fsanitize=address,undefined,float-cast-overflow",
)
RACE = ("-O1", "-g1", "-fsanitize=thread")  # an executable of its own

_COMMON = (
    *("-std=c++20", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"),
    # Without unique symbols every library has an emulator of its own.
    *("-fno-strict-aliasing", "-ffp-contract=off", "-fno-gnu-unique"),
)


def why_not() -> str | None:
    """Why nothing can be built here, or None."""
    if shutil.which("g++") is None:
        return "g++ is not installed"
    version = subprocess.run(["g++", "-dumpversion"], capture_output=True, text=True).stdout
    if int(version.split(".")[0]) < 12:
        return f"g++ 12 or later is needed for _Float16; found {version.strip()}"
    return None if platform.system() == "Linux" else "the emulation is for Linux"


def compile_host(
    source: str,
    output: Path,
    flags: Sequence[str],
    *,
    defines: Sequence[str] = (),
    csrc: Path = CSRC,
) -> Path:
    """Compile `source`, a file of this folder, against the kernels in `csrc`."""
    includes = [f"-I{HERE / 'include'}", f"-I{csrc}"]
    macros = [f"-D{define}" for define in ("LMWP_HOST_CUDA", *defines)]
    command = ["g++", *_COMMON, *flags, *macros, *includes, str(HERE / source), "-o", str(output)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return output


def planted(folder: Path, file: str, faults: Mapping[str, str]) -> Path:
    """A copy of csrc in which each text of `faults`, found once in cuda/`file`, is replaced."""
    for part in ("cuda", "common"):
        shutil.copytree(CSRC / part, folder / part)
    path = folder / "cuda" / file
    text = path.read_text()
    for sound, faulty in faults.items():
        assert text.count(sound) == 1, f"{file} holds {text.count(sound)} times: {sound}"
        text = text.replace(sound, faulty)
    path.write_text(text)
    return folder


def run_cases(
    script: str, library: Path, dtype: str, *kernels: int, sanitized: bool = False
) -> subprocess.CompletedProcess[str]:
    """All cases of `script`, a module of this folder, in a process of their own, which a sanitizer
    or a fault may end."""
    environment = {**os.environ, **(sanitizer_environment() if sanitized else {})}
    command = [sys.executable, "-m", f"tests.host_cuda.{script}", str(library), dtype]
    return subprocess.run(
        [*command, *map(str, kernels)], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def sanitizer_environment() -> dict[str, str]:
    """What lets a plain Python load a library built with ADDRESS."""
    runtimes = [
        subprocess.run(
            ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so", "libstdc++.so")
    ]
    return {"LD_PRELOAD": " ".join(runtimes), "ASAN_OPTIONS": "detect_leaks=0"}
