"""The table of verified hardware, from the results files of GPU checks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from lmwp_bench.report.markdown import table
from lmwp_bench.report.numbers import plain
from lmwp_bench.results import Results, load_folder

_COLUMNS = ("GPU", "capability", "driver", "torch", "date", "suite", "benchmarks")


def hardware_table(folder: Path) -> str:
    """Markdown: a line for each check on a GPU, then the machines without one."""
    found = list(load_folder(folder).values())
    checks = sorted(_check(results) for results in found if _checked_gpu(results))
    checked = {check[0] for check in checks}
    others = sorted({_other(results) for results in found if not _checked_gpu(results)})
    gpus = [name for kind, name in others if kind == "GPU" and name not in checked]
    if checks:
        text = table(_COLUMNS, checks)
    elif gpus:
        text = "No GPU has passed through the checks yet.\n"
    else:
        text = "No GPU has run these kernels yet.\n"
    lines = [f"GPU, benchmarks only: {name}\n" for name in gpus]
    lines += [f"CPU: {name}\n" for kind, name in others if kind == "CPU"]
    return "\n".join([text, *lines])


def _checked_gpu(results: Results) -> str | None:
    check = results.environment.get("gpu_check")
    return plain(check.get("gpu")) if check else None


def _check(results: Results) -> tuple[str, ...]:
    environment = results.environment
    check = environment["gpu_check"]
    rows = Counter(row.status for row in results.rows)
    return (
        plain(check.get("gpu")),
        plain(check.get("capability")),
        plain(check.get("driver")),
        plain(environment.get("torch")),
        plain(environment.get("created")).partition("T")[0],
        ", ".join(f"{plain(check.get(n))} {n}" for n in ("passed", "failed", "skipped")),
        ", ".join(f"{rows[status]} {status}" for status in ("ok", "wrong", "failed")),
    )


def _other(results: Results) -> tuple[str, str]:
    """GPU or CPU, and which."""
    environment = results.environment
    if gpu := environment.get("gpu"):
        return ("GPU", plain(gpu.get("name")))
    parts = (environment.get("cpu"), environment.get("instruction_set"))
    return ("CPU", ", ".join(map(plain, parts)))
