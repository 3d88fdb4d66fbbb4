"""What a benchmark run leaves behind: rows of measurements in one JSON file."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lmwp_models.errors import UserError

SCHEMA = "lmwp-bench/1"

Status = Literal["ok", "wrong", "unavailable", "failed"]


@dataclass(frozen=True)
class Timing:
    """Seconds per call over interleaved samples: 20th, 50th and 80th percentile."""

    p20: float
    p50: float
    p80: float
    samples: int


@dataclass(frozen=True)
class Speedup:
    """Baseline's time over the variant's, paired sample by sample: percentiles of the ratio."""

    p20: float
    p50: float
    p80: float


@dataclass(frozen=True)
class Row:
    """One variant of one case.

    Attributes:
        suite: `ops`, `models` or `training`.
        subject: the op or network.
        case: the shape, unique within the subject.
        params: what the case was run with: batch, dtype, threads, device, size, direction,
            `cache` (hot or cold) and `launch` (call, or graph for CUDA-graph replay).
        variant: who computed: `eager`, `lmwp-cpp`, `onnxruntime`, ...
        status: `wrong` ran and missed the float64 reference, `unavailable` is not installed or
            refused, `failed` raised.
        reason: one line, for every status but `ok`.
        error, allowed: largest deviation from the float64 reference, and its limit.
        timing, speedup: only with status `ok`; speedup is against the case's baseline.
        phases: seconds of the parts of a training step (medians).
        bytes, operations: what one call must move and compute at least.
        peak_memory: bytes resident at the height of a call above those before it.
        launches: kernels (GPU) or torch operations (CPU) of one call, where they can be counted.
        prepare_seconds: time to build, export or compile the variant and run it once.
    """

    suite: str
    subject: str
    case: str
    params: dict[str, Any]
    variant: str
    status: Status
    reason: str | None = None
    error: float | None = None
    allowed: float | None = None
    timing: Timing | None = None
    speedup: Speedup | None = None
    phases: dict[str, float] | None = None
    bytes: int | None = None
    operations: int | None = None
    peak_memory: int | None = None
    launches: int | None = None
    prepare_seconds: float | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """Identifies the row among runs of the same benchmark."""
        params = json.dumps(self.params, sort_keys=True)
        return (self.suite, self.subject, self.case, params, self.variant)

    @property
    def gbps(self) -> float | None:
        """Bytes the call must move over its median time, in GB/s."""
        return self.bytes / self.timing.p50 / 1e9 if self.bytes and self.timing else None

    @property
    def gflops(self) -> float | None:
        """Operations over the median time, in GFLOP/s."""
        return self.operations / self.timing.p50 / 1e9 if self.operations and self.timing else None


@dataclass
class Results:
    """Rows of one run with the machine they were measured on."""

    environment: dict[str, Any]
    machine: dict[str, float]
    rows: list[Row] = field(default_factory=list)
    complete: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, ready for JSON."""
        return {"schema": SCHEMA, **dataclasses.asdict(self)}


def save(results: Results, path: Path) -> None:
    """Write `results` to `path`, replacing it in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(results.to_dict(), indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def load(path: Path) -> Results:
    """Read what `save` wrote; `UserError` for anything else."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from None
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise UserError(f"{path}: expected results of schema {SCHEMA}, got {schema!r}")
    try:
        rows = [row_from_dict(row) for row in data["rows"]]
        return Results(data["environment"], data["machine"], rows, data["complete"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: not a complete results file: {error}") from None


def row_from_dict(data: dict[str, Any]) -> Row:
    """A row of the JSON back as a `Row`."""
    timing, speedup = data.get("timing"), data.get("speedup")
    return Row(
        **data
        | {"timing": Timing(**timing) if timing else None}
        | {"speedup": Speedup(**speedup) if speedup else None}
    )


def load_folder(folder: Path) -> dict[str, Results]:
    """Every results file directly in `folder` by stem; `UserError` where there is none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected one with results of lmwp bench --json")
    found = {path.stem: load(path) for path in sorted(folder.glob("*.json"))}
    if not found:
        raise UserError(f"{folder}: no .json in it; make some with lmwp bench ... --json FILE")
    return found


def by_case(rows: Iterable[Row]) -> dict[tuple[str, ...], list[Row]]:
    """Rows that compare with one another, grouped in order of appearance."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(row.key[:-1], []).append(row)
    return groups
