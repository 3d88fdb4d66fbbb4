"""The three libraries as a ninja file: which source is compiled how, and what is linked to what."""

import os
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from build_tools.cuda import gencode_flags
from build_tools.mode import CudaTools, HostTools, Plan, instruction_sets

TORCH_TARGET = "-DTORCH_TARGET_VERSION=0x020b000000000000"  # the stable ABI as of torch 2.11
CXX_FLAGS = [
    "-O3",
    "-std=c++20",
    "-fPIC",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-ffp-contract=fast",
]
NVCC_FLAGS = ["-O3", "-std=c++20", "-Xcompiler=-fPIC,-fvisibility=hidden"]
HOST_LIBRARY = "_host" + sysconfig.get_config_var("EXT_SUFFIX")

RULES = """\
rule cxx
  command = $compiler -MD -MF $out.d $flags -c $in -o $out
  depfile = $out.d
  deps = gcc
  description = $description
rule nvcc
  command = $compiler -MD -MF $out.d $flags -c $in -o $out
  depfile = $out.d
  deps = gcc
  description = $description
rule link
  command = $compiler -shared $flags $in -o $out $libraries
  description = $description
"""


@dataclass
class NinjaFile:
    """Collects build edges; str() gives the text ninja reads."""

    lines: list[str] = field(default_factory=lambda: [RULES])

    def edge(
        self,
        rule: str,
        output: Path,
        inputs: Iterable[Path],
        compiler: str,
        flags: Sequence[str],
        libraries: Sequence[str] = (),
    ) -> Path:
        sources = " ".join(_path(p) for p in inputs)
        self.lines.append(
            f"build {_path(output)}: {rule} {sources}\n"
            f"  compiler = {_value(compiler)}\n"
            f"  flags = {_value(' '.join(flags))}\n"
            f"  libraries = {_value(' '.join(libraries))}\n"
            f"  description = {rule} {output.name}\n"
        )
        return output

    def __str__(self) -> str:
        return "\n".join(self.lines)


def library_names(mode: str) -> list[str]:
    """File names of the libraries a mode compiles."""
    return {
        "none": [],
        "cpu": ["_C.so", HOST_LIBRARY],
        "cuda": ["_C.so", HOST_LIBRARY, "_C_cuda.so"],
    }[mode]


def write_ninja(plan: Plan, source: Path, build: Path) -> Path:
    """Write build/build.ninja for the plan's libraries; returns its path."""
    assert plan.host is not None
    ninja = NinjaFile()
    _cpu_library(ninja, plan.host, source / "csrc", build)
    _host_library(ninja, plan.host, source / "csrc", build)
    if plan.cuda is not None:
        _cuda_library(ninja, plan.host, plan.cuda, source / "csrc", build)
    build.mkdir(parents=True, exist_ok=True)
    path = build / "build.ninja"
    path.write_text(str(ninja))
    return path


def is_torch_source(source: Path) -> bool:
    """Whether a file of csrc/cpu talks to torch (compiled once) or computes (once per set)."""
    return source.stem == "bindings" or source.stem.endswith("_torch")


def _cpu_library(ninja: NinjaFile, host: HostTools, csrc: Path, build: Path) -> None:
    common = [f"-I{csrc}", *CXX_FLAGS]
    torch = [f"-isystem{host.torch_root / 'include'}", TORCH_TARGET]
    objects = []
    for source in [*sorted((csrc / "common").glob("*.cpp")), *sorted((csrc / "cpu").glob("*.cpp"))]:
        if source.parent.name == "common":
            variants = {"": common}
        elif is_torch_source(source):
            variants = {"": common + torch}
        else:
            variants = {
                f".{isa}": [*common, *flags, f"-DLMWP_ISA={isa}"]
                for isa, flags in instruction_sets().items()
            }
        for suffix, flags in variants.items():
            target = build / f"{source.parent.name}_{source.stem}{suffix}.o"
            objects.append(ninja.edge("cxx", target, [source], host.compiler, flags))
    libraries = [f"-L{host.torch_root / 'lib'}", "-ltorch_cpu"]
    flags = ["-Wl,-z,defs", "-Wl,--as-needed"]
    ninja.edge("link", build / "_C.so", objects, host.compiler, flags, libraries)


def _host_library(ninja: NinjaFile, host: HostTools, csrc: Path, build: Path) -> None:
    import pybind11

    includes = [f"-isystem{pybind11.get_include()}", f"-isystem{sysconfig.get_path('include')}"]
    flags = [f"-I{csrc}", *includes, *CXX_FLAGS]
    objects = [
        ninja.edge("cxx", build / f"host_{source.stem}.o", [source], host.compiler, flags)
        for source in sorted((csrc / "host").glob("*.cpp"))
    ]
    objects += [
        build / f"common_{source.stem}.o" for source in sorted((csrc / "common").glob("*.cpp"))
    ]
    ninja.edge("link", build / HOST_LIBRARY, objects, host.compiler, [])


def _cuda_library(
    ninja: NinjaFile, host: HostTools, cuda: CudaTools, csrc: Path, build: Path
) -> None:
    flags = [
        f"-I{csrc}",
        f"-isystem={host.torch_root / 'include'}",
        TORCH_TARGET,
        "-DUSE_CUDA",
        f"-ccbin={host.compiler}",
        f"--threads={os.environ.get('NVCC_THREADS', '2')}",
        *NVCC_FLAGS,
        *gencode_flags(cuda.archs),
    ]
    nvcc = str(cuda.toolkit.nvcc)
    objects = [
        ninja.edge("nvcc", build / f"cuda_{source.stem}.o", [source], nvcc, flags)
        for source in sorted((csrc / "cuda").glob("*.cu"))
    ]
    # An empty stand-in with the right SONAME: the library can be linked where torch has no CUDA.
    soname = "libtorch_cuda.so"
    stub = ninja.edge("link", build / soname, [], host.compiler, [f"-Wl,-soname,{soname}"])
    # cudart is linked by path, since pip's toolkit has no unversioned libcudart.so.
    inputs = [*objects, stub, cuda.toolkit.cudart]
    libraries = [f"-L{host.torch_root / 'lib'}", "-ltorch_cpu"]
    flags = ["-Wl,--no-as-needed"]
    ninja.edge("link", build / "_C_cuda.so", inputs, host.compiler, flags, libraries)


def _path(path: Path) -> str:
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def _value(text: str) -> str:
    return text.replace("$", "$$")
