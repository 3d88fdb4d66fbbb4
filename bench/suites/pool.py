"""Prepares several jobs at a time in processes of their own, and times one while the rest pause."""

from __future__ import annotations

import dataclasses
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

from lmwp_bench.results import Row, row_from_dict
from lmwp_bench.suites.network_run import NetworkRun

_ERROR_LENGTH = 200


@dataclass(frozen=True)
class Job:
    """A run of the suite `models` or `training`."""

    suite: str
    run: NetworkRun

    @property
    def label(self) -> str:
        """What progress calls it."""
        return f"{self.run.network} {self.run.case}"


def run_jobs(
    jobs: Sequence[Job], *, parallel: int, on_event: Callable[[str], None] = lambda text: None
) -> Iterator[list[Row]]:
    """The rows of each job as it is done.

    Up to `parallel` jobs are prepared at a time. A process that dies gives one failed row for
    each of its peers.
    """
    waiting = list(jobs)
    running: dict[int, _Worker] = {}
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or running:
                while waiting and len(running) < parallel:
                    worker = _Worker(waiting.pop(0))
                    running[worker.descriptor] = worker
                    selector.register(worker.descriptor, selectors.EVENT_READ)
                    on_event(f"{worker.job.label}: preparing")
                key, _ = selector.select()[0]
                worker = running[key.fd]
                on_event(f"{worker.job.label}: timing")
                others = [w for w in running.values() if w is not worker]
                yield _finish(worker, others)
                selector.unregister(worker.descriptor)
                running.pop(worker.descriptor).close()
        finally:
            for worker in running.values():
                worker.close()


def _finish(worker: _Worker, others: Sequence[_Worker]) -> list[Row]:
    if worker.answer() is None:
        return worker.failed_rows()
    for other in others:
        other.signal(signal.SIGSTOP)
    try:
        answer = worker.measure()
    finally:
        for other in others:
            other.signal(signal.SIGCONT)
    return worker.failed_rows() if answer is None else answer


class _Worker:
    """A process with a job; it leads a group, which holds its compilers."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._errors: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in close()
        # With several networks in preparation the cores are busy without compiler processes too.
        variables = {"TORCHINDUCTOR_COMPILE_THREADS": "1"}
        variables |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(job.run.threads))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lmwp_bench.suites.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
            env=os.environ | variables,
        )
        self._say({"suite": job.suite, "run": dataclasses.asdict(job.run)})

    @property
    def descriptor(self) -> int:
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def answer(self) -> Any:
        """The next answer of the process; None when it ended without."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line else None

    def measure(self) -> list[Row] | None:
        """Let it time; None when the process dies at it."""
        self._say({"go": True})
        answer = self.answer()
        return None if answer is None else [row_from_dict(row) for row in answer["rows"]]

    def signal(self, number: int) -> None:
        """Send a signal to the process and its compilers."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def failed_rows(self) -> list[Row]:
        """A row for each peer that says how the process ended."""
        status = self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()]
        ended = f"signal {-status}" if status < 0 else f"exit status {status}"
        reason = f"its process ended with {ended}: {lines[-1] if lines else ''}"[:_ERROR_LENGTH]
        run = self.job.run
        params = run.params | {"cache": "hot", "launch": "call"}
        return [
            Row(self.job.suite, run.network, run.case, params, peer, "failed", reason=reason)
            for peer in run.peers
        ]

    def close(self) -> None:
        """End the process with its group."""
        self.signal(signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            assert stream is not None
            stream.close()

    def _say(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it ended; reading its answer says so
