"""Find a usable CUDA toolkit and the architectures to compile for."""

import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from build_tools.errors import UnavailableError

DEFAULT_ARCHS = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")
_ARCH = re.compile(r"(\d+)\.(\d)([af]?)(\+PTX)?")


@dataclass(frozen=True)
class Toolkit:
    """A CUDA root that can compile and link: its nvcc, headers and cudart are all there."""

    root: Path
    version: tuple[int, int]
    cudart: Path

    @property
    def nvcc(self) -> Path:
        return self.root / "bin" / "nvcc"

    @property
    def release(self) -> str:
        return "{}.{}".format(*self.version)


def candidate_roots(environ: Mapping[str, str]) -> list[tuple[str, Path]]:
    """Every place a toolkit may live, as (where it was named, root), most wanted first."""
    candidates = [
        (f"${key}", Path(environ[key])) for key in ("CUDA_HOME", "CUDA_PATH") if environ.get(key)
    ]
    if nvcc := shutil.which("nvcc", path=environ.get("PATH")):
        candidates.append(("nvcc on PATH", Path(nvcc).resolve().parent.parent))
    usual = Path("/usr/local")
    candidates += [
        ("default root", root)
        for root in [usual / "cuda", *sorted(usual.glob("cuda-*"), reverse=True)]
    ]
    candidates.append(("pip toolkit", Path(sysconfig.get_path("purelib")) / "nvidia" / "cu13"))
    return candidates


def find_toolkit(candidates: Iterable[tuple[str, Path]], torch_cuda: str | None) -> Toolkit:
    """The first candidate that is complete and, where torch has CUDA, of the same major version.

    Raises UnavailableError with the refusal of every candidate that exists or was named.
    """
    refusals = []
    for origin, root in candidates:
        if not origin.startswith("$") and not root.exists():
            continue
        try:
            return _inspect(root, torch_cuda)
        except UnavailableError as refusal:
            refusals.append(f"{origin} ({root}): {refusal}")
    raise UnavailableError("; ".join(["no usable CUDA toolkit", *refusals]))


def _inspect(root: Path, torch_cuda: str | None) -> Toolkit:
    for needed in ("bin/nvcc", "include/cuda_runtime.h"):
        if not (root / needed).is_file():
            raise UnavailableError(f"holds no {needed}")
    libraries = [
        p for folder in ("lib64", "lib") for p in sorted((root / folder).glob("libcudart.so*"))
    ]
    if not libraries:
        raise UnavailableError("holds no libcudart.so in lib64 or lib")
    version = _nvcc_version(root / "bin" / "nvcc")
    if torch_cuda is not None and version[0] != int(torch_cuda.split(".")[0]):
        found = "{}.{}".format(*version)
        raise UnavailableError(f"nvcc is of CUDA {found}, torch of CUDA {torch_cuda}")
    return Toolkit(root, version, libraries[0])


def _nvcc_version(nvcc: Path) -> tuple[int, int]:
    output = _run(nvcc, "--version")
    match = re.search(r"release (\d+)\.(\d+)", output)
    if match is None:
        raise UnavailableError("nvcc --version names no release")
    return int(match[1]), int(match[2])


def known_archs(toolkit: Toolkit) -> set[str]:
    """Architectures this nvcc can compile for, such as {"7.5", "9.0"}."""
    return {
        f"{a[:-1]}.{a[-1]}"
        for a in re.findall(r"compute_(\d+)\b", _run(toolkit.nvcc, "--list-gpu-arch"))
    }


def choose_archs(
    requested: str | None, visible: Iterable[tuple[int, int]], known: set[str]
) -> tuple[str, ...]:
    """Architectures to compile for: TORCH_CUDA_ARCH_LIST, else the visible GPUs, else the defaults.

    The last of the defaults that nvcc knows also gets PTX, for GPUs that are newer than nvcc.
    """
    if requested:
        archs = tuple(requested.replace(";", " ").split())
        for arch in archs:
            match = _ARCH.fullmatch(arch)
            if match is None:
                raise UnavailableError(
                    f"TORCH_CUDA_ARCH_LIST: expected entries such as 8.6 or 9.0+PTX, got {arch!r}"
                )
            if f"{match[1]}.{match[2]}" not in known:
                raise UnavailableError(f"TORCH_CUDA_ARCH_LIST: nvcc does not know {arch}")
        return archs
    if gpus := {f"{major}.{minor}" for major, minor in visible} & known:
        return tuple(sorted(gpus, key=_by_number))
    archs = tuple(arch for arch in DEFAULT_ARCHS if arch in known)
    if not archs:
        raise UnavailableError(f"nvcc knows none of the architectures {', '.join(DEFAULT_ARCHS)}")
    return (*archs[:-1], f"{archs[-1]}+PTX")


def gencode_flags(archs: Sequence[str]) -> list[str]:
    """nvcc's flags for architectures such as "9.0" or "12.0+PTX"."""
    flags = []
    for arch in archs:
        number = arch.removesuffix("+PTX").replace(".", "")
        flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if arch.endswith("+PTX"):
            flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    return flags


def _by_number(arch: str) -> tuple[int, ...]:
    return tuple(int(part) for part in arch.split("."))


def _run(*command: str | Path) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise UnavailableError(f"{command[0]} cannot be run ({type(error).__name__})") from error
