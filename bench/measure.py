"""One case from its variants to its rows: prepare, check, then time in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lmwp_bench import accuracy, timing
from lmwp_bench.accuracy import Tolerance
from lmwp_bench.memory import count_launches, peak_memory, resident_memory
from lmwp_bench.results import Row
from lmwp_bench.variant import BASELINE, COPY, Compute, Unavailable, Variant

_REASON_LENGTH = 200


@dataclass(frozen=True)
class Case:
    """What is computed: by whom, on what, and what is right.

    Attributes:
        truth: outputs of the float64 reference for input set 0.
        sets: number of input sets; with more than one the case is timed cold as well as hot.
        bytes, operations: what a call must move and compute at least.
        steps: makes the sampler of a variant whose parts are timed too.
    """

    suite: str
    subject: str
    name: str
    params: dict[str, Any]
    variants: Sequence[Variant]
    truth: Callable[[], Sequence[Tensor]]
    tolerance: Tolerance
    device: torch.device
    sets: int = 1
    bytes: int | None = None
    operations: int | None = None
    steps: Callable[[str], timing.PhaseSampler] | None = None


@dataclass
class _Ready:
    """A variant that can be timed, and what is known of it so far."""

    compute: Compute
    facts: dict[str, Any] = field(default_factory=dict)


class CaseRun:
    """A case with its variants prepared and checked; `measure` times those that are right.

    The baseline must be among the variants, or no other can be judged.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self._rejected: list[Row] = []
        self._ready: dict[str, _Ready] = {}
        truth = case.truth()
        allowed = case.tolerance.eager
        for variant in sorted(case.variants, key=lambda v: v.name != BASELINE):
            row = self._prepare(variant, truth, allowed)
            if row:
                self._rejected.append(row)
            if variant.name == BASELINE:
                error = self._ready[BASELINE].facts["error"] if row is None else 0.0
                allowed = case.tolerance.allowed(error)

    def measure(self, seconds: float) -> list[Row]:
        """Rows of every variant, each way of timing in about `seconds`."""
        caches = [("hot", 1)] + ([("cold", self.case.sets)] if self.case.sets > 1 else [])
        graphs = self.case.device.type == "cuda" and self.case.steps is None
        launches = ["call", "graph"] if graphs else ["call"]
        order = [variant.name for variant in self.case.variants]
        rows: list[Row] = []
        for cache, sets in caches:
            for launch in launches:
                times, refused = self._times(sets, launch, seconds)
                found = [*self._rejected, *refused, *(self._row(name, times) for name in times)]
                found.sort(key=lambda row: order.index(row.variant))
                params = {**self.case.params, "cache": cache, "launch": launch}
                rows += [replace(row, params=params) for row in found]
        return rows

    def _prepare(self, variant: Variant, truth: Sequence[Tensor], allowed: float) -> Row | None:
        """Make `variant` ready and check it; a row where it is not to be timed."""
        started = time.perf_counter()
        held = resident_memory() if variant.foreign else None
        try:
            compute = variant.prepare()
            outputs = compute(0)
            prepared = time.perf_counter() - started
            if variant.name == COPY:
                self._ready[COPY] = _Ready(compute)
                return None
            error = accuracy.error(outputs, truth)
            del outputs
            if not error <= allowed:
                reason = f"error {error:.2g} against the float64 reference, allowed {allowed:.2g}"
                return self._rejection(variant, "wrong", reason, error, allowed)
            facts = {"error": error, "allowed": allowed, "prepare_seconds": prepared}
            facts |= self._costs(compute, variant, held)
        except Unavailable as refusal:
            return self._rejection(variant, "unavailable", str(refusal))
        except Exception as failure:  # whatever a peer raises is its result
            return self._rejection(variant, "failed", _first_line(failure))
        self._ready[variant.name] = _Ready(compute, facts)
        return None

    def _costs(self, compute: Compute, variant: Variant, held: int | None) -> dict[str, Any]:
        """Memory and launches of a call; a foreign runtime also answers for what it keeps."""
        device = self.case.device
        facts: dict[str, Any] = {}
        if device.type == "cuda" or not (variant.foreign or variant.compiled):
            facts["launches"] = count_launches(lambda: compute(0), device)
        if variant.foreign and device.type == "cuda":
            return facts
        kept = max(0, (resident_memory() or 0) - held) if held is not None else 0
        peak = peak_memory(lambda: compute(0), device)
        return facts | {"peak_memory": None if peak is None else peak + kept}

    def _times(
        self, sets: int, launch: str, seconds: float
    ) -> tuple[dict[str, np.ndarray], list[Row]]:
        samplers: dict[str, timing.Sampler] = {}
        failures = []
        for name, ready in self._ready.items():
            try:
                samplers[name] = self._sampler(name, ready.compute, sets, launch)
            except RuntimeError as error:  # not every variant can be captured
                torch.cuda.synchronize(self.case.device)
                variant = next(v for v in self.case.variants if v.name == name)
                failures.append(self._rejection(variant, "unavailable", _first_line(error)))
        times = timing.sample(samplers, seconds=seconds)
        for name, sampler in samplers.items():
            if isinstance(sampler, timing.PhaseSampler):
                self._ready[name].facts["phases"] = sampler.phases
        return times, failures

    def _sampler(self, name: str, compute: Compute, sets: int, launch: str) -> timing.Sampler:
        if self.case.steps is not None:
            return self.case.steps(name)
        if launch == "graph":
            return timing.GraphSampler(compute, sets)
        if self.case.device.type == "cuda":
            return timing.CallSampler(compute, sets, wait=torch.cuda.synchronize)
        return timing.CallSampler(compute, sets, settle=self.case.params["threads"] > 1)

    def _row(self, name: str, times: dict[str, np.ndarray]) -> Row:
        case = self.case
        ratio = timing.speedup(times[BASELINE], times[name]) if BASELINE in times else None
        return Row(
            case.suite,
            case.subject,
            case.name,
            case.params,
            name,
            "ok",
            timing=timing.timing(times[name]),
            speedup=ratio,
            bytes=case.bytes,
            operations=None if name == COPY else case.operations,
            **self._ready[name].facts,
        )

    def _rejection(self, variant: Variant, status: Any, reason: str, *errors: float) -> Row:
        case = self.case
        error, allowed = errors or (None, None)
        return Row(
            case.suite,
            case.subject,
            case.name,
            case.params,
            variant.name,
            status,
            reason=reason,
            error=error if error != float("inf") else None,
            allowed=allowed,
        )


def _first_line(error: BaseException) -> str:
    text = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}"[:_REASON_LENGTH]
