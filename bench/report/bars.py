"""Bars of speed-ups over the baseline, to the right of 1 or, hatched, to the left."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lmwp_bench.report.comparison import Comparison, is_ours
from lmwp_bench.report.drawing import LOSS, WIDTH, Palette, pages, svg
from lmwp_bench.report.labels import label
from lmwp_bench.report.numbers import factor
from lmwp_bench.report.summary import status_word
from lmwp_bench.results import Row, Speedup
from lmwp_bench.variant import BASELINE, COPY

_LINES = 44  # to a figure
_LINE_HEIGHT = 0.2  # inches
_TICKS = [base * 10.0**power for power in range(-3, 5) for base in (1, 2, 5)]


@dataclass(frozen=True)
class _Block:
    """A case: a line for its title, and one for each variant."""

    title: str
    rows: Sequence[Row]
    speedups: dict[str, Speedup]

    @property
    def lines(self) -> float:
        return len(self.rows) + 1.4


def speedup_bars(
    comparisons: Sequence[Comparison], known: Collection[str], palette: Palette
) -> list[Markup]:
    """Figures of all cases with a speed-up; titles leave out the `known` params."""
    blocks = [
        _Block(
            label(comparison.case, comparison.params, known),
            [row for row in comparison.rows if row.variant not in (BASELINE, COPY)],
            comparison.speedups,
        )
        for comparison in comparisons
        if comparison.speedups
    ]
    ends = [end for block in blocks for s in block.speedups.values() for end in (s.p20, s.p80)]
    limits = (min(0.7, *ends) / 1.6, max(1.4, *ends) * 1.6) if ends else (0.0, 0.0)
    return [
        svg(_figure(page, limits, palette)) for page in pages(blocks, lambda b: b.lines, _LINES)
    ]


def _figure(blocks: Sequence[_Block], limits: tuple[float, float], palette: Palette) -> Figure:
    lines = sum(block.lines for block in blocks)
    figure = Figure(figsize=(WIDTH, 0.6 + _LINE_HEIGHT * lines), layout="constrained")
    axes = figure.subplots()
    names: dict[float, str] = {}
    y = 0.0
    for block in blocks:
        _title(axes, y, block.title)
        for row in block.rows:
            y += 1
            names[y] = row.variant
            _bar(axes, y, row, block.speedups.get(row.variant), palette)
        y += 1.4
    axes.axvline(1, color="black", linewidth=1)
    axes.set(xscale="log", xlim=limits, ylim=(y - 0.4, -0.7))
    axes.set_xlabel(f"speed-up over {BASELINE}; hatched to the left of 1 is slower")
    axes.xaxis.set_major_locator(FixedLocator([t for t in _TICKS if limits[0] <= t <= limits[1]]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.set_yticks(list(names), list(names.values()))
    axes.tick_params(axis="y", length=0)
    for tick, name in zip(axes.get_yticklabels(), names.values(), strict=True):
        tick.set_fontweight("bold" if is_ours(name) else "normal")
    return figure


def _bar(axes: Axes, y: float, row: Row, speedup: Speedup | None, palette: Palette) -> None:
    if speedup is None:
        wrong = row.status == "wrong"
        colour, weight = (LOSS, "bold") if wrong else ("0.45", "normal")
        axes.annotate(
            status_word(row), (1, y), (5, 0), textcoords="offset points",
            va="center", color=colour, weight=weight,
        )  # fmt: skip
        return
    loss = speedup.p50 < 1
    axes.barh(
        y,
        speedup.p50 - 1,
        left=1,
        height=0.78,
        color=palette.colour(row.variant),
        hatch="////" if loss else None,
        edgecolor="white",
        linewidth=0,
    )
    reach = [[max(0.0, speedup.p50 - speedup.p20)], [max(0.0, speedup.p80 - speedup.p50)]]
    axes.errorbar(speedup.p50, y, xerr=reach, color="black", linewidth=0.9, capsize=2)
    end = min(speedup.p20, speedup.p50) if loss else max(speedup.p80, speedup.p50)
    axes.annotate(
        factor(speedup.p50), (end, y), (-5 if loss else 5, 0), textcoords="offset points",
        va="center", ha="right" if loss else "left",
        color=LOSS if loss else "black", weight="bold" if is_ours(row.variant) else "normal",
    )  # fmt: skip


def _title(axes: Axes, y: float, text: str) -> None:
    """A line of text from the left edge, over the line at 1."""
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    left = axes.get_yaxis_transform()
    axes.text(0.005, y, text, transform=left, va="center", weight="bold", bbox=box)
