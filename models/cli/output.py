"""Tables, JSON and progress bars on the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

Report = Callable[[int, int], None]  # (done, total)


def print_json(value: Any) -> None:
    """Plain JSON on standard output, for programs."""
    json.dump(value, sys.stdout, indent=2)
    print()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """A table on standard output; every column but the first is right-aligned."""
    table = Table(title=title or None)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a pipe has no width; do not fold rows
    console.print(table)


def print_mapping(values: Mapping[str, float], title: str = "") -> None:
    """Names and numbers, four decimals."""
    print_table(("", ""), [(name, f"{value:.4f}") for name, value in values.items()], title)


def print_skipped(skipped: Sequence[str]) -> None:
    """Say on standard error which pictures were left out, and why."""
    for line in skipped:
        print(f"skipped: {line}", file=sys.stderr)


def make_progress(*extra: str, hidden: bool = False) -> Progress:
    """A progress bar on standard error; `extra` are templates for further text columns."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *(TextColumn(template) for template in extra),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=hidden,
    )


@contextmanager
def progress(description: str, *, hidden: bool = False) -> Iterator[Report]:
    """A progress bar fed with (done, total); it appears with the first report."""
    with make_progress(hidden=hidden) as bar:

        def report(done: int, total: int) -> None:
            if not bar.tasks:
                bar.add_task(description)
            bar.update(bar.tasks[0].id, completed=done, total=total)

        yield report
