"""setuptools commands that compile the libraries and make the wheel pure where there are none."""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

from build_tools import mode
from build_tools.errors import BuildError
from build_tools.libraries import (
    CXX_FLAGS,
    HOST_LIBRARY,
    NVCC_FLAGS,
    TORCH_TARGET,
    library_names,
    write_ninja,
)
from build_tools.mode import Plan, instruction_sets

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "lmwp_ops"
BUILD_INFO = "_build_info.json"
BYTES_PER_JOB = 4 << 30


@functools.cache
def current_plan() -> Plan:
    """The plan for LMWP_OPS_BUILD, made once; prints its notices."""
    plan = mode.resolve(os.environ.get("LMWP_OPS_BUILD", "auto"), mode.probe_host, mode.probe_cuda)
    for notice in plan.notices:
        _announce(notice)
    return plan


class Wheel(bdist_wheel):
    """A wheel for any platform where nothing is compiled."""

    def finalize_options(self) -> None:
        if current_plan().mode == "none":
            self.distribution.ext_modules = []
        super().finalize_options()


class BuildLibraries(build_ext):
    """Compile _C, _C_cuda and _host with ninja and put them into the package."""

    def run(self) -> None:
        build = self._build_folder()
        plan = self._compile(current_plan(), build)
        package = ROOT if self.inplace else Path(self.build_lib)
        _install(plan, build, package / PACKAGE)

    def get_outputs(self) -> list[str]:
        package = Path(self.build_lib) / PACKAGE
        return [str(package / name) for name in (*library_names(current_plan().mode), BUILD_INFO)]

    def get_output_mapping(self) -> dict[str, str]:
        return {}

    def get_source_files(self) -> list[str]:
        return sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc").rglob("*") if p.is_file())

    def _build_folder(self) -> Path:
        """Where objects are kept between builds, also between editable ones."""
        if self.inplace:
            return ROOT / "build" / f"temp.{self.plat_name}-{sys.implementation.cache_tag}"
        return Path(self.build_temp).resolve()

    def _compile(self, plan: Plan, build: Path) -> Plan:
        """Run ninja; a plan that may degrade does so where compiling fails."""
        while plan.mode != "none":
            if _run_ninja(write_ninja(plan, ROOT, build)):
                return plan
            plan = plan.after_failure()
            _announce(plan.notices[-1])
        return plan


def build_info(plan: Plan) -> dict[str, object]:
    """What a compiled installation records of its own making."""
    assert plan.host is not None
    return {
        "mode": plan.mode,
        "notices": list(plan.notices),
        "torch": plan.host.torch_version,
        "torch_target": "2.11",
        "cuda": plan.cuda.toolkit.release if plan.cuda else None,
        "archs": list(plan.cuda.archs) if plan.cuda else [],
        "instruction_sets": list(instruction_sets()),
        "compiler": plan.host.compiler_version,
        "flags": {"cxx": [*CXX_FLAGS, TORCH_TARGET], "nvcc": NVCC_FLAGS if plan.cuda else []},
        "python": "{}.{}".format(*sys.version_info[:2]),
        "git": _git_commit(),
    }


def job_count() -> int:
    """MAX_JOBS, else as many compilers as the processors and 4 GB of memory each allow."""
    if jobs := os.environ.get("MAX_JOBS"):
        if not jobs.isdecimal() or int(jobs) == 0:
            raise BuildError(f"MAX_JOBS: expected a number of at least 1, got {jobs!r}")
        return int(jobs)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(len(os.sched_getaffinity(0)), memory // BYTES_PER_JOB))


def _run_ninja(path: Path) -> bool:
    command = [
        sys.executable,
        "-m",
        "ninja",
        "-C",
        str(path.parent),
        "-f",
        path.name,
        "-j",
        str(job_count()),
    ]
    return subprocess.run(command).returncode == 0


def _install(plan: Plan, build: Path, package: Path) -> None:
    """Put exactly the plan's libraries into the package; what another mode left there goes."""
    wanted = library_names(plan.mode)
    package.mkdir(parents=True, exist_ok=True)
    for name in {"_C.so", "_C_cuda.so", HOST_LIBRARY} - set(wanted):
        (package / name).unlink(missing_ok=True)
    for name in wanted:
        _replace(build / name, package / name)
    if wanted:
        (package / BUILD_INFO).write_text(json.dumps(build_info(plan), indent=2) + "\n")
    else:
        (package / BUILD_INFO).unlink(missing_ok=True)


def _replace(source: Path, target: Path) -> None:
    """Copy in one step, so that a process that has the old library mapped keeps it whole."""
    temporary = target.with_name(target.name + ".new")
    shutil.copy2(source, temporary)
    temporary.replace(target)


def _git_commit() -> str | None:
    if not (ROOT / ".git").exists():
        return None
    result = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return result.stdout.strip() if result.returncode == 0 else None


def _announce(line: str) -> None:
    print(f"lmwp-ops build: {line}", file=sys.stderr)
