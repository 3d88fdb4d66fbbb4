"""Worker processes: rows come back, one is timed at a time, and a dead one costs only its rows."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lmwp_bench.suites.network_run import NetworkRun
from lmwp_bench.suites.pool import Job, run_jobs


def job(network: str = "csnet-l-x1", peers: tuple[str, ...] = ("eager", "lmwp-modules")) -> Job:
    return Job("models", NetworkRun(network, 1, (32, 32), "float32", "cpu", 1, peers, 0.05))


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


@pytest.fixture(scope="module", autouse=True)
def _children_can_be_listed() -> None:
    if not Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists():
        pytest.skip("this system does not list the children of a process")


def test_rows_of_every_job_come_back_and_others_wait() -> None:
    seen: list[set[str]] = []
    texts: list[str] = []

    def look() -> None:
        seen.append({state(child) for child in children(os.getpid())})

    def watch(text: str) -> None:
        texts.append(text)
        if text.endswith("timing"):
            threading.Timer(0.05, look).start()

    groups = list(run_jobs([job(), job("csnet-l-x2")], parallel=2, on_event=watch))
    assert {rows[0].subject for rows in groups} == {"csnet-l-x1", "csnet-l-x2"}
    for rows in groups:
        assert [row.variant for row in rows] == ["eager", "lmwp-modules"]
        assert [row.status for row in rows] == ["ok", "ok"]
    assert "T" in seen[0]  # the other one is stopped while the first is timed
    assert texts[0] == "csnet-l-x1 32x32, batch 1: preparing"
    assert children(os.getpid()) == []


def test_a_killed_process_costs_its_own_rows_only() -> None:
    def kill_the_first(text: str) -> None:
        if text == "csnet-l-x2 32x32, batch 1: preparing":
            os.kill(children(os.getpid())[0], signal.SIGKILL)

    groups = list(run_jobs([job(), job("csnet-l-x2")], parallel=2, on_event=kill_the_first))
    by_subject = {rows[0].subject: rows for rows in groups}
    assert [row.status for row in by_subject["csnet-l-x1"]] == ["failed", "failed"]
    assert "signal 9" in (by_subject["csnet-l-x1"][0].reason or "")
    assert [row.status for row in by_subject["csnet-l-x2"]] == ["ok", "ok"]


def test_a_process_that_fails_says_why() -> None:
    (rows,) = run_jobs([job("no-such-network")], parallel=1)
    assert [row.status for row in rows] == ["failed", "failed"]
    assert "no network is called 'no-such-network'" in (rows[0].reason or "")


def test_workers_end_with_their_parent() -> None:
    script = (
        "from lmwp_bench.suites.network_run import NetworkRun\n"
        "from lmwp_bench.suites.pool import Job, run_jobs\n"
        "run = NetworkRun('csnet-x2', 1, (224, 224), 'float32', 'cpu', 1, ('compile',), 1)\n"
        "list(run_jobs([Job('models', run)], parallel=1))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 60
    while not children(parent.pid):
        assert time.monotonic() < deadline
        assert parent.poll() is None
        time.sleep(0.05)
    (worker,) = children(parent.pid)
    while "libtorch" not in Path(f"/proc/{worker}/maps").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(worker, signal.SIGSTOP)
    parent.kill()
    parent.wait()
    while Path(f"/proc/{worker}").exists() and state(worker) != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)
