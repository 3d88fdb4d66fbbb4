"""A process that prepares one network, waits for its turn, and times it.

Preparing takes a minute of exporting and compiling, timing a few seconds. So two networks are
prepared at a time, and whoever is timed has the machine to itself: see `lmwp_bench.suites.pool`.
A peer that brings its process down brings down no other network.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmwp_bench.suites.models import PreparedModel
    from lmwp_bench.suites.training import PreparedTraining

_PR_SET_PDEATHSIG = 1  # prctl(2)
_ALLOCATIONS_PER_COLLECTION = 100_000  # compilers allocate by the million and free little


def main() -> None:
    """Speak JSON lines: a job comes in, `ready` goes out; `go` comes in, rows go out."""
    _end_with_parent()
    gc.set_threshold(_ALLOCATIONS_PER_COLLECTION)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what peers print is not an answer
    prepared = _prepare(**json.loads(sys.stdin.readline()))
    print(json.dumps({"ready": True}), file=answers, flush=True)
    if not sys.stdin.readline():
        return
    rows = [dataclasses.asdict(row) for row in prepared.measure()]
    print(json.dumps({"rows": rows}), file=answers, flush=True)


def _prepare(suite: str, run: dict[str, Any]) -> PreparedModel | PreparedTraining:
    # Imported late: a process that loads torch must end with its parent already.
    from lmwp_bench.suites.models import PreparedModel
    from lmwp_bench.suites.network_run import NetworkRun
    from lmwp_bench.suites.training import PreparedTraining
    from lmwp_models.device import set_up_cpu

    set_up_cpu(run["threads"])
    network_run = NetworkRun(**run | {"size": tuple(run["size"])})
    return PreparedModel(network_run) if suite == "models" else PreparedTraining(network_run)


def _end_with_parent() -> None:
    """Have the system kill this process when its parent dies, also while it is stopped."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
