"""The check of a GPU: `python -m lmwp_bench.gpu_check`, in a checkout of the project.

Builds the libraries for the GPU at hand, runs the tests in tests/gpu, and benchmarks until the
budget is spent, the most telling cases first. Needs no network. Writes one file of results per
kind of GPU; the table of verified hardware is made from these files.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lmwp_models.errors import UserError

if TYPE_CHECKING:
    from lmwp_bench.gpu_plan import Benchmark

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests" / "gpu"
RESULTS = ROOT / "bench" / "results"

_SHARE_OF_TESTS = 0.5  # of the budget, at most
_MOST_WORKERS = 12  # each has a context of half a gigabyte on the GPU
_SECONDS_TO_REPORT = 30  # that pytest gets to sum up after it was stopped


@dataclass(frozen=True)
class Tested:
    """How the tests went; `stopped` if the budget ended them."""

    passed: int
    failed: int
    skipped: int
    stopped: bool

    def __add__(self, other: Tested) -> Tested:
        return Tested(
            self.passed + other.passed,
            self.failed + other.failed,
            self.skipped + other.skipped,
            self.stopped or other.stopped,
        )


def build(device: torch.device) -> None:
    """Compile the libraries in place for this GPU's architecture."""
    major, minor = torch.cuda.get_device_capability(device)
    environment = {**os.environ, "TORCH_CUDA_ARCH_LIST": f"{major}.{minor}"}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:
        raise UserError("the libraries could not be built; what stands above says why")


def worker_count() -> int:
    """Processes for the tests, which spend their time on the CPU: compiling kernels."""
    if importlib.util.find_spec("xdist") is None:
        return 1
    return max(1, min(_MOST_WORKERS, len(os.sched_getaffinity(0)) - 2))


def run_tests(folder: Path, seconds: float, workers: int = 1) -> Tested:
    """Run pytest on `folder` for at most `seconds`; tests marked `alone` after all others."""
    if workers == 1:
        return _run_pytest(folder, [], seconds)
    deadline = time.monotonic() + seconds
    options = ["-m", "not alone", "-n", str(workers), "--dist=worksteal"]
    tested = _run_pytest(folder, options, seconds)
    if tested.stopped:
        return tested
    return tested + _run_pytest(folder, ["-m", "alone"], deadline - time.monotonic())


def _run_pytest(folder: Path, options: Sequence[str], seconds: float) -> Tested:
    with tempfile.TemporaryDirectory(prefix="lmwp-gpu-check-") as scratch:
        report = Path(scratch) / "report.xml"
        common = ["-q", "-ra", "-p", "no:cacheprovider", "-o", "addopts=", f"--junitxml={report}"]
        command = [sys.executable, "-m", "pytest", *common, "--import-mode=importlib", *options]
        process = subprocess.Popen([*command, str(folder)], cwd=folder.parent)
        stopped = False
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            stopped = True
            process.send_signal(signal.SIGINT)
        try:
            process.wait(_SECONDS_TO_REPORT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if not report.exists():
            raise UserError(f"the tests in {folder} gave no report; what stands above says why")
        return _read_report(report, stopped)


def _read_report(report: Path, stopped: bool) -> Tested:
    suite = next(ElementTree.parse(report).getroot().iter("testsuite"))
    count = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    failed = count["failures"] + count["errors"]
    return Tested(count["tests"] - failed - count["skipped"], failed, count["skipped"], stopped)


def benchmark(
    benchmarks: Iterable[Benchmark], out: Path, facts: dict[str, Any], deadline: float
) -> bool:
    """Run `benchmarks` one by one until the deadline; whether all that ran were right.

    What is measured is kept beside `out` at once and takes its place at the end.
    """
    from lmwp_bench import machine
    from lmwp_bench.results import Results, save
    from lmwp_bench.terminal import print_machine, print_rows

    device = torch.device(facts["device"])
    results = Results(machine.environment(device, torch.get_num_threads()), machine.speed(device))
    driver = (results.environment["gpu"] or {}).get("driver")
    check: dict[str, Any] = facts | {"driver": driver, "left_out": []}
    results.environment["gpu_check"] = check
    partial = out.with_suffix(".partial")
    print_machine(results)
    for one in benchmarks:
        if time.monotonic() > deadline:
            check["left_out"].append(one.label)
            continue
        print(one.label, flush=True)
        rows = one.measure()
        print_rows(rows, results.machine)
        results.rows += rows
        save(results, partial)
    results.complete = True
    save(results, partial)
    os.replace(partial, out)
    if check["left_out"]:
        print(f"left out for want of time: {', '.join(check['left_out'])}")
    print(f"results: {out}")
    return all(row.status not in ("wrong", "failed") for row in results.rows)


def main(arguments: list[str] | None = None) -> int:
    """0 if all that ran was right, 1 if not, 2 where there is nothing to check."""
    parser = argparse.ArgumentParser(prog="python -m lmwp_bench.gpu_check", description=__doc__)
    parser.add_argument("--budget", type=float, default=600.0, help="seconds (default: 600)")
    parser.add_argument("--out", type=Path, help="default: bench/results/<GPU>.json")
    args = parser.parse_args(arguments)
    deadline = time.monotonic() + args.budget
    try:
        return _check(args.out, deadline, args.budget)
    except UserError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 2


def _check(out: Path | None, deadline: float, budget: float) -> int:
    if not torch.cuda.is_available():
        raise UserError(
            f"torch {torch.__version__} sees no GPU here; there is nothing to check "
            "(a CUDA build of torch and a driver are needed)"
        )
    if not TESTS.is_dir():
        raise UserError(f"{TESTS} is missing; run this in a checkout of the project")
    device = torch.device("cuda", torch.cuda.current_device())
    build(device)
    from lmwp_bench.gpu_plan import plan

    name = torch.cuda.get_device_name(device)
    out = out or RESULTS / (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") + ".json")
    tested = run_tests(TESTS, _SHARE_OF_TESTS * budget, worker_count())
    right = benchmark(plan(device), out, _facts(device, name, tested, budget), deadline)
    return 0 if right and not tested.failed and not tested.stopped else 1


def _facts(device: torch.device, name: str, tested: Tested, budget: float) -> dict[str, Any]:
    major, minor = torch.cuda.get_device_capability(device)
    return {
        "device": str(device),
        "gpu": name,
        "capability": f"{major}.{minor}",
        "budget_seconds": budget,
        **vars(tested),
    }


if __name__ == "__main__":
    sys.exit(main())
