"""The README says what the stored results say."""

from pathlib import Path

import pytest

from lmwp_bench.report import hardware_table, markdown_table, ranges_table
from lmwp_bench.results import load, load_folder

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "bench" / "results"
README = (ROOT / "README.md").read_text(encoding="utf-8")
TABLES = (
    *("models-cpu", "models-cpu-batch8", "models-cpu-batch8-threads2", "models-lmwpnet-cpu"),
    *("training-cpu", "training-lmwpnet-cpu"),
)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_stored_results_are_whole_and_from_a_commit(path: Path) -> None:
    results = load(path)
    assert results.complete
    assert results.environment["git"]
    assert all(row.status != "wrong" or row.reason for row in results.rows)


def test_tables_are_those_of_the_stored_results() -> None:
    stored = load_folder(RESULTS)
    for name in TABLES:
        assert markdown_table(stored[name]) in README


def test_ranges_of_ops_are_those_of_the_stored_results() -> None:
    stored = load_folder(RESULTS)
    of_ops = [stored[name] for name in sorted(stored) if name.startswith("ops-")]
    assert ranges_table(of_ops) in README


def test_verified_hardware_is_that_of_the_stored_results() -> None:
    assert hardware_table(RESULTS) in README
