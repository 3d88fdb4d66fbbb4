"""Everything that a first call on a GPU would have to wait for, done ahead."""

import itertools
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch

from lmwp_ops import _dispatch, _gpu, _tables, _tuning, _verification
from lmwp_ops._backends import GPU_BACKENDS
from lmwp_ops._dispatch import Candidate, Op
from lmwp_ops._examples import Shapes, tensors
from lmwp_ops._gpu import Gpu, Place
from lmwp_ops._tables import Config

BACKWARD = "_backward"
DTYPES = (torch.float32, torch.float16, torch.bfloat16)

Verdict = Literal["right", "failed", "refuses", "not available", "not checked"]


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one kernel.

    `reason` is why the verdict is not "right"; `shapes` are those of the branches, None for the
    tiny ones; `configurations` are what its launchers chose, by kernel and key; `ms` is the time
    of a call on the GPU. The reference has a row, too, to compare with.
    """

    op: str
    backend: str
    dtype: str
    verdict: Verdict
    reason: str | None = None
    shapes: Shapes | None = None
    configurations: dict[str, dict[str, Config]] = field(default_factory=dict)
    ms: float | None = None

    def __str__(self) -> str:
        sizes = " ".join("x".join(map(str, shape)) for shape in self.shapes or ())
        verdict = f"{self.verdict}: {self.reason}" if self.reason else self.verdict
        time = "" if self.ms is None else f"{self.ms:.4f} ms"
        chosen = "; ".join(
            f"{kernel}[{key}] " + " ".join(f"{name}={value}" for name, value in config.items())
            for kernel, by_key in self.configurations.items()
            for key, config in by_key.items()
        )
        parts = (self.op, self.backend, self.dtype, sizes, verdict, time, chosen)
        return "  ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Report:
    """What `warmup` did on `gpu`; `reason` is why it did nothing."""

    gpu: Gpu | None
    reason: str | None = None
    rows: list[Row] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain containers, ready for JSON."""
        return asdict(self)

    def table(self) -> dict[str, Any]:
        """The content of a file of this GPU for `lmwp_ops/tuned`, described there.

        For each op and dtype the backends that are right on all inputs, the fastest on their sum
        first. Raises ValueError where nothing was measured.
        """
        if self.gpu is None:
            raise ValueError(f"warmup: table: expected a GPU, got none: {self.reason}")
        order: dict[str, dict[str, list[str]]] = {}
        configs: dict[str, dict[str, Config]] = {}
        times: dict[tuple[str, str], dict[str, float]] = {}
        for row in self.rows:
            spent = times.setdefault((row.op, row.dtype), {})
            ms = math.inf if row.ms is None else row.ms
            spent[row.backend] = spent.get(row.backend, 0.0) + ms
            for kernel, by_key in row.configurations.items():
                configs.setdefault(kernel, {}).update(by_key)
        for (op, dtype), spent in times.items():
            if usable := [backend for backend in spent if spent[backend] < math.inf]:
                order.setdefault(op, {})[dtype] = sorted(usable, key=spent.__getitem__)
        return _tables.compose(self.gpu, order, configs)

    def __str__(self) -> str:
        if self.reason:
            return f"nothing to warm up: {self.reason}"
        return "\n".join([str(self.gpu), *(f"  {row}" for row in self.rows)])

    __repr__ = __str__


def warmup(
    ops: Sequence[str | Callable[..., Any]] | None = None,
    dtypes: Sequence[torch.dtype] = DTYPES,
    *,
    shapes: Mapping[str, Sequence[Shapes]] | None = None,
    device: torch.device | str | int | None = None,
    progress: bool = False,
) -> Report:
    """Check, compile and tune the GPU kernels ahead, and keep the outcome on disk.

    Later calls, in this process and others, then neither check nor search anything. Kernels that
    failed before are checked again.

    Args:
        ops: names or public functions, each with its backward pass; all by default.
        dtypes: what to prepare for.
        shapes: for the name of an op, the inputs to tune it for: each a list with [N, C, H, W] of
            every branch, finest first, as in `{"goctconv2d": [[(1, 10, 224, 224)]]}`. An op that
            is not named is tuned for a tiny input.
        device: a GPU; the current one by default.
        progress: print each kernel to stderr when it is done.

    Returns:
        A row per op, dtype, input and backend; print it, or take `to_dict()`, or `table()` for
        the package's `tuned/`. Where there is no GPU it is empty and says so.

    Raises:
        ValueError: an op is unknown, or cannot compute the shapes given for it.
    """
    names = _names(ops)
    for name in shapes or ():
        _known(name, "shapes")
    device = torch.device("cuda" if device is None else device)
    if device.type == "cuda" and not torch.cuda.is_available():
        return Report(None, f"torch {torch.__version__} sees no GPU")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    gpu = _gpu.describe(device)
    if gpu is None:
        return Report(None, f"{device} is not a GPU")
    report = Report(gpu)
    for name, dtype in itertools.product(names, dtypes):
        place = Place(gpu, device, dtype)
        inputs: Sequence[Shapes | None] = _given(name, shapes or {}) or [None]
        for sizes in inputs:
            for row in _warm_up(_dispatch.op_named(name), place, sizes):
                report.rows.append(row)
                if progress:
                    print(row, file=sys.stderr, flush=True)
    return report


def _names(ops: Sequence[str | Callable[..., Any]] | None) -> list[str]:
    """The ops, each with its backward op where there is one."""
    registered = _dispatch.registered()
    if ops is None:
        return list(registered)
    given = [_known(op if isinstance(op, str) else op.__name__, "ops") for op in ops]
    names = dict.fromkeys(name for op in given for name in (op, f"{op}{BACKWARD}"))
    return [name for name in names if name in registered]


def _given(name: str, shapes: Mapping[str, Sequence[Shapes]]) -> Sequence[Shapes]:
    """The inputs for an op; a backward op shares those of its op unless it has its own."""
    return shapes.get(name) or shapes.get(name.removesuffix(BACKWARD), ())


def _known(name: str, argument: str) -> str:
    registered = _dispatch.registered()
    if name not in registered:
        expected = ", ".join(sorted(registered))
        raise ValueError(f"warmup: {argument}: expected some of {expected}, got {name!r}")
    return name


def _warm_up(op: Op, place: Place, shapes: Shapes | None) -> Iterator[Row]:
    args = op.example(place.device, place.dtype, shapes)
    like = next(tensors(args))
    for backend, candidate in op.candidates.items():
        if backend == "cpp":
            continue
        row = Row(op.name, backend, str(place.dtype).removeprefix("torch."), "right", shapes=shapes)
        with torch.no_grad(), torch.cuda.device_of(like):
            row = _judged(row, op, candidate, place, args)
            row = _tuned(row, candidate, place, args)
        yield row


def _judged(row: Row, op: Op, candidate: Candidate, place: Place, args: tuple[Any, ...]) -> Row:
    """The row with its verdict."""
    if candidate.unavailable:
        return replace(row, verdict="not available", reason=candidate.unavailable)
    if reason := candidate.refuse(*args):
        return replace(row, verdict="refuses", reason=reason)
    if candidate.backend not in GPU_BACKENDS:
        return row
    if not _verification.enabled:
        return replace(row, verdict="not checked", reason=f"{_verification.ENVIRONMENT}=0")
    verdict = _verification.ahead(op, candidate, place)
    if verdict is None:
        return replace(row, verdict="not checked", reason="out of memory")
    return replace(row, verdict="failed", reason=verdict.error) if verdict.error else row


def _tuned(row: Row, candidate: Candidate, place: Place, args: tuple[Any, ...]) -> Row:
    """The row with the fastest configurations and their time, if the kernel can be used."""
    if row.verdict not in ("right", "not checked"):
        return row
    run = partial(candidate.run, *args)
    try:
        configurations = _tuning.tune(run, place)
        return replace(row, configurations=configurations, ms=_tuning.timer(run))
    except Exception as error:  # whatever a kernel may raise; the others still get their turn
        return replace(row, verdict="failed", reason=_verification.in_one_line(error))
