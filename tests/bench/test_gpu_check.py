"""The check of a GPU, without one: what it says, how it counts, and that it keeps to its budget."""

import time
from pathlib import Path

import pytest
import torch

from lmwp_bench import gpu_check, machine
from lmwp_bench.gpu_plan import Benchmark, plan
from lmwp_bench.report import hardware_table
from lmwp_bench.results import Row, load

FACTS = {"device": "cpu", "gpu": "Test GPU", "capability": "9.0", "passed": 5, "failed": 0}
SPEED = {"copy_bandwidth": 1e10, "peak_rate": 1e11, "cache_bytes": 1e6}


def row(status: str) -> Row:
    params = {"device": "cpu", "batch": 1, "threads": 1}
    return Row("ops", "op", "case", params, "eager", status, reason="as the test says")


@pytest.fixture
def _quick_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "speed", lambda device: SPEED)


def test_without_a_gpu_it_says_so_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_check.main([]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "sees no GPU here; there is nothing to check" in lines[0]


def test_counts_what_pytest_reports(tmp_path: Path):
    (tmp_path / "test_all.py").write_text(
        "import pytest\n"
        "def test_a(): pass\n"
        "def test_b(): pass\n"
        "def test_c(): assert False\n"
        "def test_d(missing): pass\n"
        "def test_e(): pytest.skip('why')\n"
    )
    tested = gpu_check.run_tests(tmp_path, 60)
    assert tested == gpu_check.Tested(passed=2, failed=2, skipped=1, stopped=False)


def test_runs_those_marked_alone_after_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # that of this very test
    (tmp_path / "test_all.py").write_text(
        "import os, pathlib, pytest, time\n"
        "others = pathlib.Path(__file__).parent / 'others'\n"
        "def alone(): return 'PYTEST_XDIST_WORKER' not in os.environ\n"
        "@pytest.mark.alone\n"
        "def test_first(): assert alone() and others.exists()\n"
        "def test_second():\n"
        "    time.sleep(1)\n"
        "    assert not alone()\n"
        "    others.touch()\n"
        "def test_third(): assert alone()\n"
    )
    tested = gpu_check.run_tests(tmp_path, 60, workers=2)
    assert tested == gpu_check.Tested(passed=2, failed=1, skipped=0, stopped=False)


def test_stops_tests_that_take_too_long(tmp_path: Path):
    (tmp_path / "test_all.py").write_text(
        "import time\ndef test_a(): pass\ndef test_b(): time.sleep(300)\n"
    )
    started = time.monotonic()
    tested = gpu_check.run_tests(tmp_path, 8)
    assert time.monotonic() - started < 30
    assert tested.stopped
    assert tested.passed == 1


@pytest.mark.usefixtures("_quick_machine")
def test_keeps_what_was_measured_and_names_what_was_left_out(tmp_path: Path, monkeypatch, capsys):
    out = tmp_path / "gpu.json"
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def slow() -> list[Row]:
        now[0] = 10.0
        assert not out.exists()
        return [row("ok")]

    benchmarks = [Benchmark("slow", slow), Benchmark("late", lambda: pytest.fail("too late"))]
    assert gpu_check.benchmark(benchmarks, out, FACTS, deadline=9.0)
    results = load(out)
    assert results.complete
    assert [r.status for r in results.rows] == ["ok"]
    assert results.environment["gpu_check"]["left_out"] == ["late"]
    assert "left out for want of time: late" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["gpu.json"]
    assert "| Test GPU | 9.0 |" in hardware_table(tmp_path)


@pytest.mark.usefixtures("_quick_machine")
@pytest.mark.parametrize("status", ["wrong", "failed"])
def test_a_wrong_result_fails_the_check(tmp_path: Path, status: str):
    benchmarks = [Benchmark("one", lambda: [row("ok"), row(status)])]
    assert not gpu_check.benchmark(benchmarks, tmp_path / "a.json", FACTS, time.monotonic() + 9)


@pytest.mark.usefixtures("_quick_machine")
def test_an_interrupted_check_leaves_an_earlier_one_alone(tmp_path: Path):
    out = tmp_path / "gpu.json"
    out.write_text("earlier")

    def interrupted() -> list[Row]:
        raise KeyboardInterrupt

    benchmarks = [Benchmark("one", lambda: [row("ok")]), Benchmark("two", interrupted)]
    with pytest.raises(KeyboardInterrupt):
        gpu_check.benchmark(benchmarks, out, FACTS, time.monotonic() + 9)
    assert out.read_text() == "earlier"
    assert [r.status for r in load(tmp_path / "gpu.partial").rows] == ["ok"]


def test_the_plan_starts_with_the_layers_of_csnet_and_covers_everything(monkeypatch):
    monkeypatch.setattr(machine, "cache_bytes", lambda device: 1 << 20)
    labels = [one.label for one in plan(torch.device("cuda"))]
    assert labels[0] == "depthwise_scales csnet-x1 stage 1, float32, forward"
    assert len(set(labels)) == len(labels)
    for part in (
        "goctconv2d",
        "dilated_bank",
        "models csnet-l-x1",
        "training csnet-x1 ",
        "bfloat16",
    ):
        assert any(part in label for label in labels)
