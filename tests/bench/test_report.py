"""The report of a folder of results: nothing hidden, nothing from outside, numbers as measured."""

# ruff: noqa: RUF001 - reports print dashes and the sign for times

import pytest

from lmwp_bench import results as bench
from lmwp_bench.report import hardware_table, markdown_table, ranges_table, write_report
from lmwp_bench.report.numbers import flattened, significant
from lmwp_models.errors import UserError

from .report_cases import (
    PLANTED,
    make_page,
    network_case,
    ok,
    op_case,
    rejected,
    run_of,
    training_case,
)


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


def test_ranges_are_those_of_the_best_of_ours_in_cache():
    def case(name, ours, peer, **params):
        of = {"case": name, "params": {"direction": "forward", "cache": "hot"} | params}
        return [
            ok("eager", 8.0, **of),
            ok("openvino", peer, 8.0 / peer, **of),
            ok("lmwp-cpp", ours, 8.0 / ours, **of),
            ok("lmwp-modules", 2 * ours, 4.0 / ours, **of),
        ]

    run = run_of(
        [
            *case("a", 1.0, 2.0),
            *case("b", 2.0, 1.0),
            *case("c", 4.0, 4.0),
            *case("d", 8.0, 4.0, cache="cold"),
            *case("e", 4.0, 2.0, direction="forward+backward"),
            *network_case(1, 4.0),
            ok("eager", 8.0, case="f", params={"direction": "forward", "cache": "hot"}),
        ]
    )
    assert ranges_table([run]).splitlines()[2:] == [
        "| an_op | forward | 3 | 2.00× / 4.00× / 8.00× | 0.500× / 1.00× / 2.00× | 1 |",
        "| an_op | forward+backward | 1 | 2.00× / 2.00× / 2.00× | 0.500× / 0.500× / 0.500× | 1 |",
    ]


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
