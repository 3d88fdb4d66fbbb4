"""The regression gate: `python -m lmwp_bench.gate`.

Runs the pytest-benchmark suites, each variant paired with its baseline, and compares the ratios
with those stored for this machine. One that is worse by more than the tolerance is measured once
more; if it is still worse the gate fails. Ratios seen for the first time are stored.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lmwp_bench.machine import cpu_model
from lmwp_models.errors import UserError

SUITES = Path(__file__).parent / "regression"
STORE = Path(__file__).parent / "results" / "gate"
TOLERANCE = 0.15

Ratios = dict[str, float]
"""Time of a variant over that of its baseline, by the name of the benchmark."""


def run_suites(folder: Path, only: Sequence[str] = ()) -> Ratios:
    """Run the benchmarks of `folder`, or those named, in a process of their own."""
    with tempfile.TemporaryDirectory(prefix="lmwp-gate-") as scratch:
        output = Path(scratch) / "benchmarks.json"
        options = ["-q", "-p", "no:cacheprovider", "-o", "addopts=", "--import-mode=importlib"]
        options += ["--benchmark-disable-gc", "--benchmark-columns=min,median,max"]
        options += ["--benchmark-json", str(output), "--rootdir", str(folder)]
        wanted = [str(folder / name) for name in only] or [str(folder)]
        command = [sys.executable, "-m", "pytest", *options, *wanted]
        status = subprocess.run(command, check=False, env=_environment()).returncode
        if status or not output.exists():
            raise UserError(f"the benchmarks did not run to their end (pytest: {status})")
        found = json.loads(output.read_text())["benchmarks"]
    return {entry["fullname"]: entry["extra_info"]["relative"] for entry in found}


def _environment() -> dict[str, str]:
    """One thread, and no trace of a parallel pytest around, in which benchmarks are disabled."""
    kept = {name: value for name, value in os.environ.items() if "PYTEST_XDIST" not in name}
    return {**kept, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def regressions(stored: Ratios, measured: Ratios, tolerance: float) -> list[str]:
    """Names of the benchmarks whose ratio grew by more than `tolerance`."""
    return [
        name
        for name, ratio in measured.items()
        if name in stored and ratio > (1 + tolerance) * stored[name]
    ]


def gate(suites: Path, store: Path, *, tolerance: float = TOLERANCE, update: bool = False) -> int:
    """Measure, compare with `store`, and keep there what is new; 1 if something got slower."""
    stored: Ratios = json.loads(store.read_text()) if store.exists() else {}
    measured = run_suites(suites)
    slower = [] if update else regressions(stored, measured, tolerance)
    if slower:
        print(f"measuring {len(slower)} again", flush=True)
        measured |= run_suites(suites, slower)
        slower = regressions(stored, measured, tolerance)
    for name in slower:
        print(
            f"slower: {name} takes {measured[name]:.3f} of its baseline, "
            f"{measured[name] / stored[name] - 1:+.0%} on the stored {stored[name]:.3f}"
        )
    kept = measured if update else {**measured, **stored}
    store.parent.mkdir(parents=True, exist_ok=True)
    store.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    new = len(set(measured) - set(stored))
    print(f"{len(measured)} benchmarks, {len(slower)} slower, {new} new; stored in {store.name}")
    return 1 if slower else 0


def store_of_this_machine() -> Path:
    """Where the ratios of this kind of machine are kept."""
    return STORE / (re.sub(r"[^a-z0-9]+", "-", cpu_model().lower()).strip("-") + ".json")


def main() -> int:
    """Run the gate on this machine."""
    parser = argparse.ArgumentParser(prog="python -m lmwp_bench.gate", description=__doc__)
    parser.add_argument("--update", action="store_true", help="store what is measured now")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="default: %(default)s")
    args = parser.parse_args()
    try:
        return gate(SUITES, store_of_this_machine(), tolerance=args.tolerance, update=args.update)
    except UserError as error:
        print(f"gate: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
