"""The summary of a run as a table in Markdown, for a README."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lmwp_bench.report.comparison import comparisons_of
from lmwp_bench.report.labels import describe, shared_params
from lmwp_bench.report.numbers import DASH, factor
from lmwp_bench.report.summary import SummaryLine, rejections, summary_lines
from lmwp_bench.results import Results, Row
from lmwp_bench.variant import BASELINE

_COLUMNS = (
    "",
    "case",
    f"{BASELINE} ms",
    "fastest peer, ms",
    "best lmwp, ms",
    f"over {BASELINE}",
    "over fastest peer",
)


def markdown_table(results: Results, suite: str | None = None) -> str:
    """A table for each suite, or for the one named: a line for each case."""
    suites: dict[str, list[Row]] = {}
    for row in results.rows:
        if suite in (None, row.suite):
            suites.setdefault(row.suite, []).append(row)
    if not suites:
        return "No results.\n"
    return "\n".join(_suite(name, rows) for name, rows in suites.items())


def table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; all columns but the first two are numbers, aligned to the right."""
    rule = ["---:" if i > 1 else "---" for i in range(len(columns))]
    cells = [columns, rule, *([_escaped(cell) for cell in line] for line in lines)]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def _suite(name: str, rows: Sequence[Row]) -> str:
    comparisons = comparisons_of(rows)
    shared = describe(shared_params(comparisons))
    text = f"{name} ({shared}):\n\n" if shared else f"{name}:\n\n"
    text += table(_COLUMNS, [_cells(line) for line in summary_lines(comparisons)])
    without_time = rejections(rows)
    return text + (f"\nWithout a time: {without_time}.\n" if without_time else "")


def _cells(line: SummaryLine) -> tuple[str, ...]:
    ratios = (line.over_baseline, line.over_peer)
    return (
        line.subject,
        line.case,
        line.baseline,
        line.peer,
        line.ours,
        *(factor(ratio) if ratio else DASH for ratio in ratios),
    )


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
