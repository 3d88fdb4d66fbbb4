"""The figures of a report: curves, bars and the roofline, as measured."""

from dataclasses import replace

import pytest

from lmwp_bench.report.bars import speedup_bars
from lmwp_bench.report.comparison import comparisons_of
from lmwp_bench.report.curves import break_even_curves, scaling_curves
from lmwp_bench.report.drawing import ACCENT, Palette, drawing_style, pages
from lmwp_bench.report.labels import label
from lmwp_bench.report.phases import phase_bars
from lmwp_bench.report.roofline import roofline
from lmwp_bench.report.sweep import crossings, find_sweeps

from .report_cases import MACHINE, Page, network_case, ok, op_case, rejected


@pytest.mark.parametrize(
    ("x", "y", "log_x", "expected"),
    [
        ([0.0, 1.0], [2.0, 0.5], False, [0.5]),
        ([0.0, 1.0], [4.0, 0.5], False, [2 / 3]),
        ([1.0, 16.0], [0.5, 2.0], True, [4.0]),
        ([1.0, 2.0, 3.0], [2.0, 0.5, 2.0], False, [1.5, 2.5]),
        ([1.0, 2.0, 3.0], [0.5, 1.0, 2.0], False, [2.0]),
        ([1.0, 2.0], [1.5, 2.0], False, []),
    ],
)
def test_crossings_lie_where_the_drawn_line_meets_one(x, y, log_x, expected):
    assert crossings(x, y, log_x) == pytest.approx(expected)


def drawn(make, rows, *context):
    """Labels of the figures, which the drawing keeps as comments."""
    with drawing_style():
        figures = make(comparisons_of(rows), *context)
    return [Page(str(figure)).comments for figure in figures]


PALETTE = Palette(["eager", "compile", "openvino", "ncnn", "lmwp-modules", "lmwp-cpp"])


def density_cases(speedups):
    return [
        row
        for density, ours in speedups.items()
        for row in network_case(
            1, ours, case=f"density {density}", params={"batch": 1, "density": density}
        )
    ]


def test_break_even_over_any_number_is_marked():
    rows = density_cases({1.0: 0.25, 0.25: 2.0, 0.5: 1.0, 0.75: 0.5})
    (labels,) = drawn(break_even_curves, rows, ["batch"], PALETTE)
    assert "lmwp-modules, even at 0.500" in labels
    assert "openvino" in labels
    assert {"0.25", "0.5", "0.75", "1.0", "density"} <= set(labels)


def test_break_even_over_batch_is_drawn_only_where_a_curve_crosses_one():
    (labels,) = drawn(
        break_even_curves, [*network_case(1, 2.0), *network_case(16, 0.5)], [], PALETTE
    )
    assert "lmwp-modules, even at 4.00" in labels
    assert (
        drawn(break_even_curves, [*network_case(1, 2.0), *network_case(16, 3.0)], [], PALETTE) == []
    )


def test_scaling_leaves_out_what_is_wrong():
    rows = [*network_case(1, 2.0), *network_case(8, 2.0)]
    rows = [replace(r, status="wrong") if r.variant == "openvino" else r for r in rows]
    (labels,) = drawn(scaling_curves, rows, [], PALETTE)
    assert {"ms", "images/s", "eager", "lmwp-modules"} <= set(labels)
    assert "openvino" not in labels


def test_sweeps_keep_shapes_apart_and_sizes_in_order():
    def at(case, **params):
        return ok("eager", 1.0, case=case, params={"batch": 1, **params})

    shapes = [at(c, batch=b) for c in ("stage 1", "stage 3") for b in (8, 1)]
    sweeps = find_sweeps(comparisons_of(shapes), "batch")
    assert [(s.title, [p.x for p in s.points]) for s in sweeps] == [
        ("stage 1", [1, 8]),
        ("stage 3", [1, 8]),
    ]
    sizes = [at(f"{size}, batch 1", size=size) for size in ("100x400", "64x64")]
    (sweep,) = find_sweeps(comparisons_of(sizes), "size")
    assert [(p.x, p.shown) for p in sweep.points] == [(64, "64x64"), (200, "100x400")]
    assert (
        find_sweeps(comparisons_of([at("stage 1", batch=1), at("stage 3", batch=8)]), "batch") == []
    )
    dtypes = [at("stage 1", batch=b, dtype=d) for b, d in ((1, "float32"), (8, "bfloat16"))]
    assert find_sweeps(comparisons_of(dtypes), "batch") == []


def test_one_measured_point_is_no_curve():
    refused = [rejected(r.variant, "failed", params=r.params) for r in network_case(8, 2.0)]
    refused = [replace(r, suite="models", subject="a-net", case="32x32, batch 8") for r in refused]
    assert drawn(scaling_curves, [*network_case(1, 2.0), *refused], [], PALETTE) == []


def test_figures_without_data_are_not_drawn():
    rows = [rejected("eager", "failed"), rejected("lmwp-cpp", "unavailable")]
    assert drawn(speedup_bars, rows, [], PALETTE) == []
    assert drawn(scaling_curves, rows, [], PALETTE) == []
    assert drawn(break_even_curves, rows, [], PALETTE) == []
    assert drawn(phase_bars, rows, []) == []
    assert drawn(roofline, rows, MACHINE, PALETTE) == []
    assert drawn(roofline, op_case(), {}, PALETTE) == []


def test_roofline_keeps_hot_and_cold_apart():
    ways = [{"batch": 1, "cache": cache} for cache in ("hot", "cold")]
    (labels,) = drawn(roofline, [r for way in ways for r in op_case(params=way)], MACHINE, PALETTE)
    assert {"cache hot", "cache cold", "eager", "compile", "lmwp-cpp"} <= set(labels)
    assert "ncnn" not in labels
    assert labels.count("10.0 GB/s copied, 100 GFLOP/s peak") == 2


def test_bars_hatch_losses_and_give_ours_the_accent():
    with drawing_style():
        (won,) = speedup_bars(comparisons_of(network_case(1, 2.0)), [], PALETTE)
        (lost,) = speedup_bars(comparisons_of(network_case(1, 0.5)), [], PALETTE)
    assert "<pattern" not in won
    assert "<pattern" in lost
    assert f"fill: {ACCENT}" in won


def test_bars_name_what_has_no_time():
    (labels,) = drawn(speedup_bars, op_case(), [], PALETTE)
    assert [labels.count(word) for word in ("WRONG", "unavailable", "failed")] == [1, 1, 1]
    assert "copy" not in labels


def test_cases_are_told_apart_without_repeating_what_their_name_says():
    params = {"dtype": "float32", "batch": 8, "cache": "hot"}
    assert label("stage 1", params, ["dtype"]) == "stage 1 · batch 8, cache hot"
    assert label("float32, batch 8", params, ["cache"]) == "float32, batch 8"


def test_long_figures_are_split_between_cases():
    assert pages([3, 3, 3, 9, 1], lambda n: n, limit=6) == [[3, 3], [3], [9], [1]]
    rows = [row for i in range(8) for row in op_case(case=f"case {i}")]
    figures = drawn(speedup_bars, rows, ["device", "batch"], PALETTE)
    assert len(figures) > 1
    shown = [label for labels in figures for label in labels if label.startswith("case ")]
    assert shown == [f"case {i}" for i in range(8)]
