"""Results on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console

from lmwp_bench.published import TITLES, published
from lmwp_bench.results import Results, Row, by_case
from lmwp_bench.variant import BASELINE, COPY
from lmwp_models.cli.output import print_table

_COLUMNS = (
    "variant",
    "ms",
    "p20-p80",
    f"x {BASELINE}",
    "GB/s",
    "% copy",
    "GFLOP/s",
    "% peak",
    "MiB",
    "launches",
    "error",
    "",
)


@contextmanager
def status() -> Iterator[Callable[[str], None]]:
    """A line on standard error that says what is going on."""
    with Console(stderr=True).status("starting") as line:
        yield lambda text: line.update(text)


def print_machine(results: Results) -> None:
    """Where this is measured, in two lines."""
    facts, speed = results.environment, results.machine
    device = facts["gpu"]["name"] if facts["gpu"] else f"{facts['cpu']}, {facts['threads']} threads"
    flushed = "flushed to zero" if facts["flush_denormal"] else "kept"
    print(f"{device}; torch {facts['torch']}; denormals {flushed}")
    print(
        f"copies {speed['copy_bandwidth'] / 1e9:.1f} GB/s (read and written), "
        f"multiplies {speed['peak_rate'] / 1e9:.0f} GFLOP/s in float32"
    )


def print_rows(rows: Sequence[Row], machine: Mapping[str, float]) -> None:
    """A table for each case among `rows`."""
    for group in by_case(rows).values():
        first = group[0]
        print_table(_COLUMNS, _lines(group, machine), title=_title(first))


def _title(row: Row) -> str:
    shown = [str(value) for name, value in row.params.items() if name not in ("batch", "threads")]
    facts = [f"batch {row.params['batch']}", f"threads {row.params['threads']}", *shown]
    return f"{row.subject} · {row.case} · {', '.join(facts)}"


def _lines(rows: Sequence[Row], machine: Mapping[str, float]) -> list[tuple[str, ...]]:
    copy = next((row.timing for row in rows if row.variant == COPY and row.timing), None)
    timed = [row for row in rows if row.timing and row.variant != COPY]
    best = min(timed, key=lambda row: row.timing.p50 if row.timing else 0.0, default=None)
    lines = []
    for row in rows:
        if row.timing is None:
            label = "WRONG" if row.status == "wrong" else row.status
            lines.append((row.variant, label, *[""] * (len(_COLUMNS) - 3), row.reason or ""))
            continue
        name = f"[bold]{row.variant}[/bold]" if row is best else row.variant
        lines.append(
            (
                name,
                _milliseconds(row.timing.p50),
                f"{_milliseconds(row.timing.p20)}-{_milliseconds(row.timing.p80)}",
                f"{row.speedup.p50:.2f}" if row.speedup else "",
                f"{row.gbps:.1f}" if row.gbps else "",
                f"{100 * copy.p50 / row.timing.p50:.0f}" if copy else "",
                f"{row.gflops:.1f}" if row.gflops else "",
                f"{100e9 * row.gflops / machine['peak_rate']:.0f}" if row.gflops else "",
                f"{row.peak_memory / 2**20:.1f}" if row.peak_memory is not None else "",
                f"{row.launches}" if row.launches is not None else "",
                f"{row.error:.1e}" if row.error is not None else "",
                _phases(row),
            )
        )
    return lines


def _phases(row: Row) -> str:
    parts = [f"{name} {_milliseconds(seconds)}" for name, seconds in (row.phases or {}).items()]
    if parts and row.timing:
        parts.insert(0, f"{row.params['batch'] / row.timing.p50:.1f} images/s")
    return ", ".join(parts)


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}" if seconds < 1 else f"{1e3 * seconds:.0f}"


def print_published(rows: Sequence[Row]) -> None:
    """The published run-time tables with the networks of `rows` and their times here."""
    for table, title in TITLES.items():
        lines = [
            line
            for group in by_case(rows).values()
            if group[0].suite == "models" and (line := _published_line(table, group))
        ]
        if lines:
            columns = ("network", "case", "published", "eager ms", "fastest peer", "lmwp")
            print_table(columns, lines, title=f"{title}, and on this machine")


def _published_line(table: str, rows: Sequence[Row]) -> tuple[str, ...] | None:
    line = published(rows[0].subject)
    if line is None or line.table != table:
        return None
    times = {row.variant: row.timing.p50 for row in rows if row.timing}
    ours = {name: time for name, time in times.items() if name.startswith("lmwp-")}
    peers = {name: time for name, time in times.items() if name not in ours}
    figures = f"{line.params / 1e6:.2f}M, {line.flops / 1e9:.2f}G, {line.speed}"
    eager = _milliseconds(times[BASELINE]) if BASELINE in times else ""
    return (rows[0].subject, rows[0].case, figures, eager, _fastest(peers), _fastest(ours))


def _fastest(times: Mapping[str, float]) -> str:
    if not times:
        return ""
    name = min(times, key=times.__getitem__)
    return f"{_milliseconds(times[name])} ({name})"
