"""The table of a case: a line for each variant, a column for each figure that is known."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from lmwp_bench.report.comparison import Comparison, is_valid
from lmwp_bench.report.labels import label
from lmwp_bench.report.numbers import DASH, factor, mebibytes, milliseconds, significant
from lmwp_bench.report.summary import status_word
from lmwp_bench.results import Row
from lmwp_bench.variant import BASELINE, COPY

_ROLES = {BASELINE: "baseline", COPY: "floor"}


@dataclass(frozen=True)
class Cell:
    """A printed figure; `ratio` is set where it is a speed-up, to show wins and losses."""

    text: str
    ratio: float | None = None


@dataclass(frozen=True)
class Line:
    """A variant with its cells, or with the word and the reason why it has none."""

    variant: str
    role: str
    is_fastest: bool
    cells: Sequence[Cell]
    word: str
    reason: str


@dataclass(frozen=True)
class CaseTable:
    """A case with its lines, and what the best of ours is worth."""

    title: str
    columns: Sequence[str]
    lines: Sequence[Line]
    best_ours: str | None
    fastest_peer: str | None
    over_baseline: float | None
    over_peer: float | None


def case_table(
    comparison: Comparison, machine: Mapping[str, float], known: Collection[str]
) -> CaseTable:
    """The table of a case; columns that would be empty are left out."""
    timed = [row for row in comparison.rows if is_valid(row)]
    columns = {
        heading: cells
        for heading, make in _columns(comparison, machine).items()
        if any(cells := [make(row) for row in timed])
    }
    cells_of = {
        row.variant: [cells[i] or Cell("") for cells in columns.values()]
        for i, row in enumerate(timed)
    }
    ours = comparison.best_ours
    speedup = comparison.speedups.get(ours) if ours else None
    return CaseTable(
        label(comparison.case, comparison.params, known),
        list(columns),
        [_line(row, comparison, cells_of.get(row.variant, ())) for row in comparison.rows],
        ours,
        comparison.fastest_peer,
        speedup.p50 if speedup else None,
        comparison.over_peer,
    )


def _line(row: Row, comparison: Comparison, cells: Sequence[Cell]) -> Line:
    return Line(
        row.variant,
        _ROLES.get(row.variant, ""),
        row.variant == comparison.fastest,
        cells,
        "" if cells else status_word(row),
        row.reason or "",
    )


_Column = Callable[[Row], Cell | None]


def _columns(comparison: Comparison, machine: Mapping[str, float]) -> dict[str, _Column]:
    """What to print of a row that is valid, by heading."""
    bandwidth, peak = machine.get("copy_bandwidth"), machine.get("peak_rate")
    copy = comparison.copy_median
    phases = dict.fromkeys(name for row in comparison.rows for name in row.phases or {})
    return {
        "ms": lambda row: _printed(milliseconds, _median(row)),
        f"p20{DASH}p80": _spread,
        f"over {BASELINE}": _speedup,
        f"(p20{DASH}p80)": _speedup_spread,
        "images/s": lambda row: _printed(significant, _images_per_second(row)),
        **{f"{name} ms": partial(_phase, name) for name in phases},
        "GB/s": lambda row: _printed(significant, row.gbps),
        "% of copy": lambda row: _percent(copy, _median(row)),
        "% of bandwidth": lambda row: _percent(row.gbps, bandwidth, 1e9),
        "GFLOP/s": lambda row: _printed(significant, row.gflops),
        "% of peak": lambda row: _percent(row.gflops, peak, 1e9),
        "peak MiB": lambda row: _printed(mebibytes, row.peak_memory),
        "launches": lambda row: _printed(str, row.launches),
        "error": lambda row: _printed("{:.1e}".format, row.error),
        "allowed": lambda row: _printed("{:.1e}".format, row.allowed),
    }


def _printed(how: Callable[[float], str], value: float | None) -> Cell | None:
    return None if value is None else Cell(how(value))


def _median(row: Row) -> float | None:
    return row.timing.p50 if row.timing else None


def _spread(row: Row) -> Cell | None:
    times = row.timing
    return Cell(f"{milliseconds(times.p20)}{DASH}{milliseconds(times.p80)}") if times else None


def _speedup(row: Row) -> Cell | None:
    if row.variant in _ROLES or row.speedup is None:
        return None
    return Cell(factor(row.speedup.p50), ratio=row.speedup.p50)


def _speedup_spread(row: Row) -> Cell | None:
    if row.variant in _ROLES or row.speedup is None:
        return None
    return Cell(f"{significant(row.speedup.p20)}{DASH}{significant(row.speedup.p80)}")


def _images_per_second(row: Row) -> float | None:
    """Of whole networks; an op computes features, not images."""
    median, batch = _median(row), row.params.get("batch")
    return batch / median if median and batch and row.suite != "ops" else None


def _phase(name: str, row: Row) -> Cell | None:
    return _printed(milliseconds, (row.phases or {}).get(name))


def _percent(part: float | None, whole: float | None, unit: float = 1.0) -> Cell | None:
    return Cell(f"{100 * unit * part / whole:.0f}") if part and whole else None
