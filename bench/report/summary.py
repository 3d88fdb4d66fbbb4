"""A line for each case: the baseline, the fastest peer, the best of ours, and the ratios."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lmwp_bench.report.comparison import Comparison, is_ours
from lmwp_bench.report.labels import label, shared_params
from lmwp_bench.report.numbers import DASH, milliseconds
from lmwp_bench.results import Row
from lmwp_bench.variant import BASELINE

_WORDS = {"wrong": "WRONG", "unavailable": "unavailable", "failed": "failed"}


@dataclass(frozen=True)
class SummaryLine:
    """Printed times, and the two ratios of the best of ours; above 1 ours is faster."""

    subject: str
    case: str
    baseline: str
    peer: str
    ours: str
    over_baseline: float | None
    over_peer: float | None


def summary_lines(comparisons: Sequence[Comparison]) -> list[SummaryLine]:
    """One line for each case."""
    known = shared_params(comparisons)
    return [_line(comparison, known) for comparison in comparisons]


def status_word(row: Row) -> str:
    """The status of a row without a time, as printed."""
    return _WORDS.get(row.status, row.status)


def rejections(rows: Iterable[Row]) -> str:
    """How many rows have no time, and whose: `2 WRONG (ncnn), 1 failed (compile)`."""
    variants: dict[str, list[str]] = {word: [] for word in _WORDS.values()}
    for row in rows:
        if row.status != "ok":
            variants[status_word(row)].append(row.variant)
    return ", ".join(
        f"{len(names)} {word} ({', '.join(sorted(set(names)))})"
        for word, names in variants.items()
        if names
    )


def _line(comparison: Comparison, known: dict[str, Any]) -> SummaryLine:
    ours = comparison.best_ours
    speedup = comparison.speedups.get(ours) if ours else None
    baseline = comparison.medians.get(BASELINE)
    return SummaryLine(
        comparison.subject,
        label(comparison.case, comparison.params, known),
        milliseconds(baseline) if baseline else _status(comparison, BASELINE.__eq__),
        _named(comparison, comparison.fastest_peer) or DASH,
        _named(comparison, ours) or _status(comparison, is_ours),
        speedup.p50 if speedup else None,
        comparison.over_peer,
    )


def _named(comparison: Comparison, variant: str | None) -> str | None:
    return f"{variant} {milliseconds(comparison.medians[variant])}" if variant else None


def _status(comparison: Comparison, wanted: Callable[[str], bool]) -> str:
    """Why none of the wanted variants has a time; wrong ones come first."""
    words = {status_word(row) for row in comparison.rows if wanted(row.variant)}
    return next((word for word in _WORDS.values() if word in words), DASH)
