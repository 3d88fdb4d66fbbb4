"""The page of a folder of results: one HTML file that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from lmwp_bench.report.bars import speedup_bars
from lmwp_bench.report.comparison import Comparison, comparisons_of
from lmwp_bench.report.curves import break_even_curves, scaling_curves
from lmwp_bench.report.drawing import Palette, drawing_style
from lmwp_bench.report.labels import describe, shared_params
from lmwp_bench.report.markdown import markdown_table
from lmwp_bench.report.numbers import DASH, factor, flattened, plain, significant
from lmwp_bench.report.phases import phase_bars
from lmwp_bench.report.roofline import roofline
from lmwp_bench.report.summary import SummaryLine, rejections, summary_lines
from lmwp_bench.report.tables import CaseTable, case_table
from lmwp_bench.results import Results, load_folder
from lmwp_bench.variant import COPY
from lmwp_models.errors import UserError

_DENORMALS: dict[Any, str] = {True: "flushed to zero", False: "kept"}
_RATES = {"copy_bandwidth": "GB/s, read and written", "peak_rate": "GFLOP/s in float32"}


@dataclass(frozen=True)
class Subject:
    """An op or network: its figures by heading, and a table for each case."""

    name: str
    figures: dict[str, list[Markup]]
    tables: Sequence[CaseTable]


@dataclass(frozen=True)
class Suite:
    """The part of a file that one suite made."""

    name: str
    shared: str
    summary: Sequence[SummaryLine]
    rejections: str
    subjects: Sequence[Subject]


@dataclass(frozen=True)
class Section:
    """A results file: one run on one machine."""

    name: str
    complete: bool
    facts: dict[str, str]
    environment: dict[str, str]
    suites: Sequence[Suite]
    markdown: str


def write_report(folder: Path, path: Path) -> Path:
    """Write the page of every results file in `folder` to `path`, and return it."""
    found = load_folder(folder)
    variants = dict.fromkeys(row.variant for results in found.values() for row in results.rows)
    palette = Palette([name for name in variants if name != COPY])
    with drawing_style():
        sections = [_section(name, results, palette) for name, results in found.items()]
    template = (resources.files("lmwp_bench") / "templates" / "report.html").read_text("utf-8")
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters["factor"] = factor
    page = environment.from_string(template).render(sections=sections)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
    return path


def _section(name: str, results: Results, palette: Palette) -> Section:
    suites = dict.fromkeys(row.suite for row in results.rows)
    return Section(
        name,
        results.complete,
        _facts(results),
        flattened(results.environment),
        [_suite(suite, results, palette) for suite in suites],
        markdown_table(results),
    )


def _suite(name: str, results: Results, palette: Palette) -> Suite:
    rows = [row for row in results.rows if row.suite == name]
    comparisons = comparisons_of(rows)
    shared = shared_params(comparisons)
    subjects: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        subjects.setdefault(comparison.subject, []).append(comparison)
    return Suite(
        name,
        describe(shared),
        summary_lines(comparisons),
        rejections(rows),
        [
            Subject(
                subject,
                _figures(group, results, list(shared), palette),
                [case_table(comparison, results.machine, shared) for comparison in group],
            )
            for subject, group in subjects.items()
        ],
    )


def _figures(
    comparisons: Sequence[Comparison], results: Results, known: Sequence[str], palette: Palette
) -> dict[str, list[Markup]]:
    """Figures by heading; a heading without any is left out."""
    figures = {
        "Speed-up": speedup_bars(comparisons, known, palette),
        "Parts of a training step": phase_bars(comparisons, known),
        "Scaling": scaling_curves(comparisons, known, palette),
        "Break-even": break_even_curves(comparisons, known, palette),
        "Roofline (data in cache may come above the slope)": roofline(
            comparisons, results.machine, palette
        ),
    }
    return {heading: drawn for heading, drawn in figures.items() if drawn}


def _facts(results: Results) -> dict[str, str]:
    """What a figure depends on most."""
    environment, machine = results.environment, results.machine
    gpu = environment.get("gpu") or {}
    facts = {
        "GPU": plain(gpu.get("name")),
        "CPU": plain(environment.get("cpu")),
        "cores": plain(environment.get("cores")),
        "threads": plain(environment.get("threads")),
        "instruction set": plain(environment.get("instruction_set")),
        "denormals": _DENORMALS.get(environment.get("flush_denormal"), DASH),
        "torch": plain(environment.get("torch")),
        "measured at": plain(environment.get("created")),
    }
    for name, value in machine.items():
        unit = _RATES.get(name)
        rate = f"{significant(value / 1e9)} {unit}" if unit else plain(value, name)
        facts[name.removesuffix("_bytes").replace("_", " ")] = rate
    return facts
