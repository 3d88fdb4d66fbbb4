"""The report of a folder of results: nothing hidden, nothing from outside, numbers as measured."""

# ruff: noqa: RUF001 - reports print dashes and the sign for times

import html
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser

import pytest

from lmwp_bench import results as bench
from lmwp_bench.report import hardware_table, markdown_table, write_report
from lmwp_bench.report.bars import speedup_bars
from lmwp_bench.report.comparison import comparisons_of
from lmwp_bench.report.curves import break_even_curves, scaling_curves
from lmwp_bench.report.drawing import ACCENT, Palette, drawing_style, pages
from lmwp_bench.report.labels import label
from lmwp_bench.report.numbers import flattened, significant
from lmwp_bench.report.phases import phase_bars
from lmwp_bench.report.roofline import roofline
from lmwp_bench.report.sweep import crossings, find_sweeps
from lmwp_bench.results import Results, Row, Speedup, Timing
from lmwp_models.errors import UserError

ENVIRONMENT = {
    "created": "2030-01-02T03:04:05+00:00",
    "cpu": "Test CPU",
    "cores": 4,
    "threads": 1,
    "instruction_set": "avx2",
    "flush_denormal": True,
    "gpu": None,
    "torch": "2.99.0",
    "packages": {"ncnn": None},
}
MACHINE = {"copy_bandwidth": 10e9, "peak_rate": 100e9, "cache_bytes": 2**20}
PLANTED = "<script>alert('&')</script> $\\no$"


def ok(
    variant, milliseconds, speedup=None, *, suite="ops", subject="an_op", case="small", **fields
):
    """A valid row; its percentiles are 10 % off the median."""
    params = fields.pop("params", {"device": "cpu", "batch": 1})
    seconds = milliseconds / 1e3
    return Row(
        suite,
        subject,
        case,
        params,
        variant,
        "ok",
        timing=Timing(0.9 * seconds, seconds, 1.1 * seconds, 9),
        speedup=speedup and Speedup(0.9 * speedup, speedup, 1.1 * speedup),
        **fields,
    )


def rejected(variant, status, reason="because", **fields):
    """A row without a time."""
    row = ok(variant, 1.0, **fields)
    return replace(row, status=status, reason=reason, timing=None, speedup=None)


def op_case(**fields):
    """One op with all statuses: the copy in 1 ms, eager in 4, compile in 2, ours in 8."""
    cost = {"bytes": 8_000_000, "operations": 40_000_000}
    wrong = ok("ncnn", 0.1234, 32.4, **fields)
    return [
        ok("copy", 1.0, 4.0, bytes=cost["bytes"], **fields),
        ok("eager", 4.0, 1.0, error=1e-7, allowed=2e-6, peak_memory=2**20, **cost, **fields),
        ok("compile", 2.0, 2.0, launches=3, **cost, **fields),
        replace(wrong, status="wrong", reason="error 0.5, allowed 0.1"),
        rejected("tensorrt", "unavailable", "is not installed", **fields),
        rejected("openvino", "failed", PLANTED, **fields),
        ok("lmwp-cpp", 8.0, 0.5, **cost, **fields),
    ]


def network_case(batch, ours, **fields):
    """A network at a batch where eager takes 10 ms an image and ours is `ours` times as fast."""
    common = {
        "suite": "models",
        "subject": "a-net",
        "case": f"32x32, batch {batch}",
        "params": {"device": "cpu", "batch": batch, "size": "32x32"},
        **fields,
    }
    eager = 10.0 * batch
    return [
        ok("eager", eager, 1.0, **common),
        ok("openvino", eager / 2, 2.0, **common),
        ok("lmwp-modules", eager / ours, ours, **common),
    ]


def training_case():
    phases = {"data": 0.001, "forward": 0.003, "backward": 0.005, "optimiser": 0.001}
    rows = network_case(4, 1.25, suite="training")
    return [replace(row, phases=phases, peak_memory=3 * 2**20) for row in rows]


def run_of(rows, complete=True, **environment):
    return Results(ENVIRONMENT | environment, MACHINE, rows, complete)


@dataclass
class Page(HTMLParser):
    """What a browser would find: lines of tables, texts in bold, addresses, unclosed tags."""

    source: str
    open: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    lines: list[list[str]] = field(default_factory=list)
    bold: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    text: str = ""
    _loss: bool = False

    def __post_init__(self):
        super().__init__()
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self._note(attrs)
        if tag != "meta":
            self.open.append(tag)
        if tag == "tr":
            self.lines.append([])
        elif tag in ("td", "th"):
            self.lines[-1].append("")
        self._loss = tag == "span" and ("class", "loss") in attrs

    def handle_startendtag(self, tag, attrs):
        self._note(attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if "td" in self.open or "th" in self.open:
            self.lines[-1][-1] += data
        if "b" in self.open:
            self.bold.append(data)
        if self._loss:
            self.losses.append(data)

    def handle_comment(self, data):
        self.comments.append(html.unescape(data).strip())

    def _note(self, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def line(self, variant):
        """The only line of `variant`, whatever its role."""
        names = [variant, *(f"{variant} {role}" for role in ("baseline", "floor"))]
        (found,) = [line for line in self.lines if line and line[0].strip() in names]
        return [cell.strip() for cell in found]


def make_page(folder, **runs):
    for name, run in runs.items():
        bench.save(run, folder / f"{name}.json")
    return Page(write_report(folder, folder / "report.html").read_text("utf-8"))


@pytest.fixture(scope="module")
def op_page(tmp_path_factory):
    return make_page(tmp_path_factory.mktemp("one"), run=run_of(op_case(case=f"small {PLANTED}")))


def test_everything_at_once_is_one_well_formed_page_without_addresses(tmp_path):
    page = make_page(
        tmp_path,
        ops=run_of(op_case()),
        networks=run_of([*network_case(1, 3.0), *network_case(8, 0.5)], complete=False),
        training=run_of(training_case()),
        empty=run_of([]),
    )
    assert page.open == []
    assert {"svg", "table", "details"} <= page.seen
    assert [a for a in page.addresses if not a.startswith("#")] == []
    assert "url(http" not in page.source
    assert "@import" not in page.source
    headings = ("Speed-up", "Parts of a training step", "Scaling", "Break-even", "Roofline")
    assert [heading for heading in headings if heading not in page.text] == []
    assert page.text.count("This run was stopped before its end") == 1
    assert "No case was measured." in page.text


def test_names_and_reasons_stay_text(op_page):
    assert "script" not in op_page.seen
    assert PLANTED in op_page.line("openvino")[1]
    assert any(PLANTED in comment for comment in op_page.comments)  # a label of the figure


def test_a_wrong_variant_has_that_word_and_no_time(op_page):
    _, text = op_page.line("ncnn")
    assert text == "WRONG error 0.5, allowed 0.1"
    assert "0.123" not in op_page.source
    assert "32.4" not in op_page.source


def test_variants_without_a_time_say_why(op_page):
    assert op_page.line("tensorrt")[1] == "unavailable is not installed"
    assert op_page.line("openvino")[1].startswith("failed ")


def test_losses_are_shown_and_only_the_fastest_valid_variant_is_bold(op_page):
    assert op_page.bold == ["compile", "2.00"]
    assert "▼ 0.500×" in op_page.line("lmwp-cpp")
    assert "▲ 2.00×" in op_page.line("compile")
    # Over eager and over compile, in the summary, above the table; and over eager in the table.
    lost = [text for text in op_page.losses if text.startswith("▼ 0")]
    assert sorted(lost) == ["▼ 0.250×"] * 2 + ["▼ 0.500×"] * 3


def test_the_figures_of_a_row(op_page):
    columns = op_page.line("variant")
    eager = dict(zip(columns, op_page.line("eager"), strict=True))
    assert eager == {
        "variant": "eager baseline",
        "ms": "4.00",
        "p20–p80": "3.60–4.40",
        "over eager": "",
        "(p20–p80)": "",
        "GB/s": "2.00",
        "% of copy": "25",
        "% of bandwidth": "20",
        "GFLOP/s": "10.0",
        "% of peak": "10",
        "peak MiB": "1.00",
        "launches": "",
        "error": "1.0e-07",
        "allowed": "2.0e-06",
    }
    ours = dict(zip(columns, op_page.line("lmwp-cpp"), strict=True))
    assert ours["(p20–p80)"] == "0.450–0.550"
    copy = dict(zip(columns, op_page.line("copy"), strict=True))
    assert (copy["ms"], copy["% of copy"], copy["over eager"]) == ("1.00", "100", "")


def test_machine_and_environment_are_shown(op_page):
    facts = {line[0]: line[1] for line in op_page.lines if len(line) == 2}
    assert facts["denormals"] == "flushed to zero"
    assert facts["copy bandwidth"] == "10.0 GB/s, read and written"
    assert facts["peak rate"] == "100 GFLOP/s in float32"
    assert facts["packages ncnn"] == "–"
    assert facts["run"] == "complete"


def test_training_rows_show_images_per_second_and_phases(tmp_path):
    page = make_page(tmp_path, run=run_of(training_case()))
    columns = page.line("variant")
    ours = dict(zip(columns, page.line("lmwp-modules"), strict=True))
    assert ours["images/s"] == "125"
    assert ours["backward ms"] == "5.00"
    assert "32.0 ms, 125 images/s, peak 3.00 MiB" in page.comments


def test_the_same_results_give_the_same_page(tmp_path):
    first, second = (make_page(tmp_path, run=run_of(op_case())).source for _ in range(2))
    assert first == second


MARKDOWN = """\
ops (cpu, batch 1):

|  | case | eager ms | fastest peer, ms | best lmwp, ms | over eager | over fastest peer |
| --- | --- | ---: | ---: | ---: | ---: | ---: |
| an_op | small | 4.00 | compile 2.00 | lmwp-cpp 8.00 | 0.500× | 0.250× |
| an_op | a \\| b | 4.00 | eager 4.00 | WRONG | – | – |

Without a time: 2 WRONG (lmwp-cpp, ncnn), 1 unavailable (tensorrt), 1 failed (openvino).
"""


def test_markdown_by_suite():
    second = [ok("eager", 4.0, 1.0, case="a | b"), rejected("lmwp-cpp", "wrong", case="a | b")]
    results = run_of([*op_case(), *second, *network_case(1, 4.0)])
    assert markdown_table(results, "ops") == MARKDOWN
    both = markdown_table(results)
    assert both.startswith(MARKDOWN)
    assert "| a-net | 32x32, batch 1 | 10.0 | openvino 5.00 | lmwp-modules 2.50 | 4.00× |" in both
    assert markdown_table(results, "training") == "No results.\n"


def test_markdown_tells_cases_of_one_name_apart():
    hot, cold = ({"device": "cpu", "batch": 1, "cache": cache} for cache in ("hot", "cold"))
    text = markdown_table(run_of([ok("eager", 1.0, params=hot), ok("eager", 3.0, params=cold)]))
    assert "| an_op | small · cache hot | 1.00 |" in text
    assert "| an_op | small · cache cold | 3.00 |" in text


CHECK = {
    "gpu": "GPU A",
    "capability": "9.0",
    "driver": "1.2",
    "passed": 7,
    "failed": 1,
    "skipped": 2,
}


def test_hardware_without_a_gpu(tmp_path):
    for name in ("one", "two"):
        bench.save(run_of([]), tmp_path / f"{name}.json")
    assert hardware_table(tmp_path) == (
        "No GPU has run these kernels yet.\n\nCPU: Test CPU, avx2\n"
    )


def test_hardware_with_a_check_and_a_gpu_that_was_not_checked(tmp_path):
    check = run_of(op_case(), gpu={"name": "GPU A"}, gpu_check=CHECK)
    bench.save(check, tmp_path / "check.json")
    bench.save(run_of([], gpu={"name": "GPU A"}), tmp_path / "more.json")
    bench.save(run_of([], gpu={"name": "GPU B"}), tmp_path / "other.json")
    assert hardware_table(tmp_path) == (
        "| GPU | capability | driver | torch | date | suite | benchmarks |\n"
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |\n"
        "| GPU A | 9.0 | 1.2 | 2.99.0 | 2030-01-02 | 7 passed, 1 failed, 2 skipped "
        "| 4 ok, 1 wrong, 1 failed |\n"
        "\nGPU, benchmarks only: GPU B\n"
    )


def test_hardware_does_not_deny_a_gpu_that_was_only_benchmarked(tmp_path):
    bench.save(run_of([], gpu={"name": "GPU B"}), tmp_path / "other.json")
    text = hardware_table(tmp_path)
    assert "No GPU has run" not in text
    assert "GPU, benchmarks only: GPU B" in text


@pytest.mark.parametrize(
    "make", [hardware_table, lambda folder: write_report(folder, folder / "r")]
)
def test_a_folder_without_results_is_named(tmp_path, make):
    with pytest.raises(UserError, match=str(tmp_path)):
        make(tmp_path)
    (tmp_path / "foreign.json").write_text('{"answer": 42}')
    with pytest.raises(UserError, match=r"foreign\.json"):
        make(tmp_path)
    assert not (tmp_path / "r").exists()


def test_a_page_that_cannot_be_written_is_named(tmp_path):
    bench.save(run_of([]), tmp_path / "run.json")
    with pytest.raises(UserError, match=f"{tmp_path}: cannot be written"):
        write_report(tmp_path, tmp_path)


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


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.9984, "0.998"), (1.5, "1.50"), (12.34, "12.3"), (123.4, "123"), (12345.0, "12345")],
)
def test_three_significant_digits(value, text):
    assert significant(value) == text


def test_nested_facts_become_names_and_values():
    facts = {"gpu": {"memory_bytes": 2**30, "driver": None}, "flags": ["a", True]}
    assert flattened(facts) == {
        "gpu memory bytes": "1024 MiB",
        "gpu driver": "–",
        "flags": "a, yes",
    }


def test_a_page_of_many_cases_holds_every_figure(tmp_path):
    rows = [row for i in range(13) for row in op_case(case=f"case {i}")]
    page = make_page(tmp_path, run=run_of(rows))
    assert page.open == []
    assert "1 more" in page.text
    titles = {comment for comment in page.comments if comment.startswith("case ")}
    assert titles == {f"case {i}" for i in range(13)}
