"""Curves over batch, size or another number: time, throughput, and where a variant breaks even."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from lmwp_bench.report.comparison import Comparison, is_ours
from lmwp_bench.report.drawing import WIDTH, Palette, pages, plain_numbers, svg
from lmwp_bench.report.numbers import significant
from lmwp_bench.report.sweep import Sweep, Values, crossings, find_sweeps, numeric_params
from lmwp_bench.variant import BASELINE

SCALES = ("batch", "size")
_PER_FIGURE = 4  # sweeps
_PANEL_HEIGHT = 2.7  # inches


def scaling_curves(
    comparisons: Sequence[Comparison], known: Sequence[str], palette: Palette
) -> list[Markup]:
    """Median time and images per second over batch and over size."""
    sweeps = [
        sweep
        for param in SCALES
        for sweep in find_sweeps(comparisons, param, known)
        if sweep.variants(_milliseconds)
    ]
    return [svg(_scaling(page, palette)) for page in _paged(sweeps)]


def break_even_curves(
    comparisons: Sequence[Comparison], known: Sequence[str], palette: Palette
) -> list[Markup]:
    """Speed-up over every number; over batch and size only where it crosses 1."""
    sweeps = [
        sweep
        for param in numeric_params(comparisons)
        for sweep in find_sweeps(comparisons, param, known)
        if any(param not in SCALES or _evens(sweep, name) for name in sweep.variants(_speedups))
    ]
    return [svg(_break_even(page, palette)) for page in _paged(sweeps)]


def _paged(sweeps: list[Sweep]) -> list[list[Sweep]]:
    return pages(sweeps, lambda _: 1, _PER_FIGURE)


def _scaling(sweeps: Sequence[Sweep], palette: Palette) -> Figure:
    figure = Figure(figsize=(WIDTH, _PANEL_HEIGHT * len(sweeps)), layout="constrained")
    grid = figure.subplots(len(sweeps), 2, squeeze=False)
    for (left, right), sweep in zip(grid, sweeps, strict=True):
        _curves(left, sweep, _milliseconds, palette)
        left.set(ylabel="ms")
        left.set_title(sweep.title, loc="left")
        _curves(right, sweep, _images_per_second, palette)
        right.set(ylabel="images/s")
        _legend(right)
    return figure


def _break_even(sweeps: Sequence[Sweep], palette: Palette) -> Figure:
    figure = Figure(figsize=(WIDTH, _PANEL_HEIGHT * len(sweeps)), layout="constrained")
    for axes, sweep in zip(
        figure.subplots(len(sweeps), 1, squeeze=False).flat, sweeps, strict=True
    ):
        notes = {}
        for name in sweep.variants(_speedups):
            colour = palette.colour(name)
            x, low = sweep.curve(_low_speedups, name)
            _, high = sweep.curve(_high_speedups, name)
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            if evens := _evens(sweep, name):
                axes.plot(evens, [1] * len(evens), "o", ms=10, mfc="none", color=colour, zorder=5)
                notes[name] = f"{name}, even at {', '.join(map(significant, evens))}"
        _curves(axes, sweep, _speedups, palette, notes)
        axes.axhline(1, color="black", linewidth=1)
        axes.set(ylabel=f"speed-up over {BASELINE}")
        axes.set_title(sweep.title, loc="left")
        _legend(axes)
    return figure


def _curves(
    axes: Axes, sweep: Sweep, values: Values, palette: Palette, notes: dict[str, str] | None = None
) -> None:
    """A line for each variant over the values of the param; `notes` replace names in the legend."""
    for name in sweep.variants(values):
        axes.plot(
            *sweep.curve(values, name),
            palette.marker(name),
            label=(notes or {}).get(name, name),
            linestyle="-",
            linewidth=2 if is_ours(name) else 1.1,
            markersize=5,
            color=palette.colour(name),
            zorder=4 if is_ours(name) else 3,
        )
    axes.set(yscale="log", xscale="log" if _is_scale(sweep) else "linear", xlabel=sweep.param)
    axes.xaxis.set_major_locator(FixedLocator([point.x for point in sweep.points]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([point.shown for point in sweep.points])
    plain_numbers(axes.yaxis)
    axes.grid(color="0.92")


def _legend(axes: Axes) -> None:
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)


def _is_scale(sweep: Sweep) -> bool:
    return sweep.param in SCALES


def _evens(sweep: Sweep, variant: str) -> list[float]:
    return crossings(*sweep.curve(_speedups, variant), log_x=_is_scale(sweep))


def _milliseconds(comparison: Comparison) -> dict[str, float]:
    return {name: 1e3 * seconds for name, seconds in comparison.medians.items()}


def _images_per_second(comparison: Comparison) -> dict[str, float]:
    batch = comparison.params.get("batch", 1)
    return {name: batch / seconds for name, seconds in comparison.medians.items()}


def _speedups(comparison: Comparison) -> dict[str, float]:
    return {name: speedup.p50 for name, speedup in comparison.speedups.items()}


def _low_speedups(comparison: Comparison) -> dict[str, float]:
    return {name: speedup.p20 for name, speedup in comparison.speedups.items()}


def _high_speedups(comparison: Comparison) -> dict[str, float]:
    return {name: speedup.p80 for name, speedup in comparison.speedups.items()}
