"""The regression gate against planted slow-downs, with real pytest-benchmark runs."""

from pathlib import Path

import pytest

from lmwp_bench.gate import gate, regressions, run_suites
from lmwp_models.errors import UserError

SUITE = """
import os
import numpy as np
from lmwp_bench.regression.conftest import paired  # noqa: F401

A = np.random.default_rng(0).random((160, 160))

def work(steps):
    def compute(i):
        for _ in range(steps):
            A @ A
    return compute

def test_steady(paired):
    paired(work(10), work(5))

def test_changed(paired):
    paired(work(10), work(int(os.environ["PLANTED_STEPS"])))
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    folder = tmp_path / "suite"
    folder.mkdir()
    (folder / "test_planted.py").write_text(SUITE)
    return folder


def test_a_planted_slow_down_of_30_per_cent_is_caught(
    suite: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    store = tmp_path / "stored" / "machine.json"
    monkeypatch.setenv("PLANTED_STEPS", "10")
    assert gate(suite, store) == 0
    stored = store.read_text()
    assert "2 benchmarks, 0 slower, 2 new" in capfd.readouterr().out

    assert gate(suite, store) == 0
    assert store.read_text() == stored

    monkeypatch.setenv("PLANTED_STEPS", "13")
    assert gate(suite, store) == 1
    out = capfd.readouterr().out
    assert "slower: test_planted.py::test_changed" in out
    assert "test_steady takes" not in out
    assert store.read_text() == stored

    assert gate(suite, store, update=True) == 0
    assert gate(suite, store) == 0


def test_ratios_are_of_the_variant_to_its_baseline(
    suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANTED_STEPS", "20")
    ratios = run_suites(suite)
    assert ratios["test_planted.py::test_steady"] == pytest.approx(0.5, rel=0.1)
    assert ratios["test_planted.py::test_changed"] == pytest.approx(2.0, rel=0.1)


def test_a_suite_that_fails_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "test_bad.py").write_text("def test_bad(benchmark):\n    assert False\n")
    with pytest.raises(UserError, match="did not run to their end"):
        run_suites(tmp_path)


def test_what_counts_as_slower() -> None:
    stored = {"a": 0.5, "b": 0.5, "c": 0.5}
    measured = {"a": 0.57, "b": 0.58, "c": 0.1, "new": 9.0}
    assert regressions(stored, measured, 0.15) == ["b"]
