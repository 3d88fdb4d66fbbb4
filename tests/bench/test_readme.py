"""The READMEs say what the stored results say."""

import re
from pathlib import Path

import pytest

from lmwp_bench.report import hardware_table, markdown_table, ranges_table
from lmwp_bench.report.comparison import comparisons_of
from lmwp_bench.results import Results, load, load_folder

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "bench" / "results"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PRUNED = ROOT / "lmwp_ops" / "ops" / "sparse_conv2d" / "README.md"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_stored_results_are_whole_and_from_a_commit(path: Path) -> None:
    results = load(path)
    assert results.complete
    assert results.environment["git"]
    assert all(row.status != "wrong" or row.reason for row in results.rows)


def of_ops() -> dict[str, list[Results]]:
    """The stored results of single ops, by processor."""
    found: dict[str, list[Results]] = {}
    for name, results in sorted(load_folder(RESULTS).items()):
        if name.startswith("ops-"):
            found.setdefault(results.environment["cpu"], []).append(results)
    return found


def test_tables_are_those_of_the_stored_results() -> None:
    for name, results in load_folder(RESULTS).items():
        if not name.startswith("ops-"):
            assert markdown_table(results) in README


def test_ranges_of_ops_are_those_of_the_stored_results() -> None:
    for results in of_ops().values():
        assert ranges_table(results) in README


def test_gains_of_pruning_are_those_of_the_stored_results() -> None:
    """A line for each case, and in it a gain for each processor."""
    gains: dict[str, list[str]] = {}
    for _, stored in sorted(of_ops().items(), reverse=True):
        for case in comparisons_of(row for results in stored for row in results.rows):
            if case.subject == "sparse_conv2d" and case.params["cache"] == "hot":
                gains.setdefault(case.case, []).append(f"{case.over_peer:.2f}")
    lines = re.findall(
        r"^\| ([^|]+%) \| (.+) \|$", PRUNED.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(lines) > 10
    for name, said in lines:
        assert said.split(" | ") == gains[name]


def test_verified_hardware_is_that_of_the_stored_results() -> None:
    assert hardware_table(RESULTS) in README
