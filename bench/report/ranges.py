"""How far the cases of each op range, as a table in Markdown, for a README."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from lmwp_bench.report.comparison import Comparison, comparisons_of
from lmwp_bench.report.markdown import table
from lmwp_bench.report.numbers import DASH, factor
from lmwp_bench.results import Results
from lmwp_bench.variant import BASELINE

_COLUMNS = ("op", "direction", "cases", f"over {BASELINE}", "over fastest peer", "slower")


def ranges_table(stored: Iterable[Results]) -> str:
    """A line for each op and direction: least, median and greatest speed-up of its cases.

    Speed-ups are those of the fastest of ours on data in cache; `slower` counts the cases in which
    a peer is faster.
    """
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for results in stored:
        for comparison in comparisons_of(row for row in results.rows if row.suite == "ops"):
            if comparison.params.get("cache", "hot") == "hot" and comparison.best_ours:
                direction = comparison.params.get("direction", "forward")
                groups.setdefault((comparison.subject, direction), []).append(comparison)
    return table(_COLUMNS, [_cells(*names, group) for names, group in sorted(groups.items())])


def _cells(op: str, direction: str, comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    over_eager = [
        speedup.p50 for c in comparisons if (speedup := c.speedups.get(c.best_ours or ""))
    ]
    over_peer = [ratio for c in comparisons if (ratio := c.over_peer)]
    slower = sum(ratio < 1 for ratio in over_peer)
    return op, direction, str(len(comparisons)), _range(over_eager), _range(over_peer), str(slower)


def _range(ratios: Sequence[float]) -> str:
    if not ratios:
        return DASH
    return " / ".join(factor(f(ratios)) for f in (min, median, max))
