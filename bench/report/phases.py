"""Where the time of a training step goes: stacked bars, with images per second and memory."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from lmwp_bench.report.comparison import Comparison, is_ours
from lmwp_bench.report.drawing import WIDTH, pages, svg
from lmwp_bench.report.labels import label
from lmwp_bench.report.numbers import mebibytes, milliseconds, significant
from lmwp_bench.results import Row

_LINES = 36  # to a figure
_LINE_HEIGHT = 0.26  # inches
_MARGIN_LINES = 3.0  # title and axis of a case
_COLOURS = ("#c9c9c9", "#7fb2d9", "#2f6ca3", "#e0a458", "#8f6bb3", "#5a9e6f")


def phase_bars(comparisons: Sequence[Comparison], known: Collection[str]) -> list[Markup]:
    """Figures of all cases with phases; titles leave out the `known` params."""
    timed = [c for c in comparisons if any(row.phases for row in c.valid.values())]
    return [svg(_figure(page, known)) for page in pages(timed, _lines, _LINES)]


def _lines(comparison: Comparison) -> float:
    return len(_rows(comparison)) + _MARGIN_LINES


def _rows(comparison: Comparison) -> list[Row]:
    return [row for row in comparison.valid.values() if row.phases]


def _figure(comparisons: Sequence[Comparison], known: Collection[str]) -> Figure:
    heights = [_lines(comparison) for comparison in comparisons]
    size = (WIDTH, 0.4 + _LINE_HEIGHT * sum(heights))
    figure = Figure(figsize=size, layout="constrained")
    names = dict.fromkeys(n for c in comparisons for row in _rows(c) for n in row.phases or {})
    colours = dict(zip(names, itertools.cycle(_COLOURS)))
    grid = figure.subplots(len(comparisons), squeeze=False, height_ratios=heights)
    for axes, comparison in zip(grid.flat, comparisons, strict=True):
        _stacks(axes, _rows(comparison), colours)
        axes.set_title(label(comparison.case, comparison.params, known), loc="left")
    patches = [Patch(color=colour, label=name) for name, colour in colours.items()]
    figure.legend(handles=patches, loc="outside upper right", ncols=len(patches), frameon=False)
    return figure


def _stacks(axes: Axes, rows: Sequence[Row], colours: Mapping[str, str]) -> None:
    """Draws a bar for each row."""
    ends = [0.0] * len(rows)
    for name, colour in colours.items():
        lengths = [1e3 * (row.phases or {}).get(name, 0.0) for row in rows]
        axes.barh(range(len(rows)), lengths, left=ends, height=0.7, color=colour)
        ends = [end + length for end, length in zip(ends, lengths, strict=True)]
    for y, (row, end) in enumerate(zip(rows, ends, strict=True)):
        axes.annotate(_note(row), (end, y), (5, 0), textcoords="offset points", va="center")
    axes.set(xlim=(0, 1.45 * max(ends)), ylim=(len(rows) - 0.4, -0.6), xlabel="ms")
    axes.set_yticks(range(len(rows)), [row.variant for row in rows])
    axes.tick_params(axis="y", length=0)
    for tick, row in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_fontweight("bold" if is_ours(row.variant) else "normal")


def _note(row: Row) -> str:
    parts = []
    if row.timing:
        parts.append(f"{milliseconds(row.timing.p50)} ms")
        if batch := row.params.get("batch"):
            parts.append(f"{significant(batch / row.timing.p50)} images/s")
    if row.peak_memory is not None:
        parts.append(f"peak {mebibytes(row.peak_memory)} MiB")
    return ", ".join(parts)
