"""What the machine allows at an op's operations per byte, and what each variant reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lmwp_bench.report.comparison import Comparison, is_ours
from lmwp_bench.report.drawing import WIDTH, Palette, plain_numbers, svg
from lmwp_bench.report.labels import describe
from lmwp_bench.report.numbers import significant
from lmwp_bench.results import Row

_ACROSS = 2
_PANEL_HEIGHT = 3.4  # inches


def roofline(
    comparisons: Sequence[Comparison], machine: Mapping[str, float], palette: Palette
) -> list[Markup]:
    """One figure, a panel for each way of timing; none without roofs or points."""
    bandwidth, peak = machine.get("copy_bandwidth"), machine.get("peak_rate")
    panels = _panels(comparisons)
    if not (bandwidth and peak and panels):
        return []
    across = min(len(panels), _ACROSS)
    down = -(-len(panels) // across)
    size = (WIDTH, 0.5 + _PANEL_HEIGHT * down)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    rows = [row for panel in panels.values() for row in panel]
    shown: dict[str, Line2D] = {}
    for axes, (title, own) in zip(grid.flat, panels.items(), strict=False):
        _roofs(axes, bandwidth, peak, [_intensity(row) for row in rows])
        shown |= _points(axes, own, palette)
        axes.set_title(title, loc="left")
    rates = [row.gflops or 0.0 for row in rows]
    grid[0, 0].set_ylim(min(rates) / 2, 4 * max(*rates, peak / 1e9))  # the top is for the note
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    legend = (list(shown.values()), list(shown))
    figure.legend(*legend, loc="outside lower center", ncols=5, frameon=False)
    return [svg(figure)]


def _panels(comparisons: Sequence[Comparison]) -> dict[str, list[Row]]:
    """Rows with a place in the figure, by cache and launch."""
    panels: dict[str, list[Row]] = {}
    for comparison in comparisons:
        way = {n: v for n, v in comparison.params.items() if n in ("cache", "launch")}
        rows = [row for row in comparison.valid.values() if row.bytes and row.operations]
        if rows:
            panels.setdefault(describe(way), []).extend(rows)
    return panels


def _intensity(row: Row) -> float:
    return (row.operations or 0) / (row.bytes or 1)


def _roofs(axes: Axes, bandwidth: float, peak: float, intensities: Sequence[float]) -> None:
    ridge = peak / bandwidth
    x = np.geomspace(min(*intensities, ridge) / 2, max(*intensities, ridge) * 2, 100)
    axes.loglog(x, np.minimum(bandwidth * x, peak) / 1e9, color="black", linewidth=1.2)
    axes.set(xlabel="operations per byte", ylabel="GFLOP/s")
    plain_numbers(axes.xaxis)
    plain_numbers(axes.yaxis)
    axes.grid(color="0.92")
    note = f"{significant(bandwidth / 1e9)} GB/s copied, {significant(peak / 1e9)} GFLOP/s peak"
    axes.text(0.02, 0.97, note, transform=axes.transAxes, va="top", fontsize=8)


def _points(axes: Axes, rows: Sequence[Row], palette: Palette) -> dict[str, Line2D]:
    """Draws a cloud for each variant; returns them by name."""
    clouds: dict[str, Line2D] = {}
    for name in sorted({row.variant for row in rows}, key=palette.variants.index):
        own = [row for row in rows if row.variant == name]
        (clouds[name],) = axes.plot(
            [_intensity(row) for row in own],
            [row.gflops or 0.0 for row in own],
            palette.marker(name),
            color=palette.colour(name),
            markersize=6 if is_ours(name) else 4.5,
            markeredgecolor="white",
            markeredgewidth=0.4,
            zorder=4 if is_ours(name) else 3,
        )
    return clouds
