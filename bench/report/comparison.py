"""Who is fastest in a case, among those who are right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lmwp_bench.results import Row, Speedup, by_case
from lmwp_bench.variant import BASELINE, COPY

_OURS = "lmwp-"


def is_ours(variant: str) -> bool:
    """Whether a variant computes with lmwp_ops."""
    return variant.startswith(_OURS)


def is_valid(row: Row) -> bool:
    """Whether a row is right and timed."""
    return row.status == "ok" and row.timing is not None


@dataclass(frozen=True)
class Comparison:
    """The rows of one case.

    The copy is no contender: it only moves the bytes that the others also compute on.
    """

    rows: Sequence[Row]

    @property
    def suite(self) -> str:
        return self.rows[0].suite

    @property
    def subject(self) -> str:
        return self.rows[0].subject

    @property
    def case(self) -> str:
        return self.rows[0].case

    @property
    def params(self) -> dict[str, Any]:
        return self.rows[0].params

    @cached_property
    def valid(self) -> dict[str, Row]:
        """Contenders that are right and timed, by variant."""
        return {row.variant: row for row in self.rows if is_valid(row) and row.variant != COPY}

    @cached_property
    def medians(self) -> dict[str, float]:
        """Median seconds of the valid contenders."""
        return {name: row.timing.p50 for name, row in self.valid.items() if row.timing}

    @cached_property
    def speedups(self) -> dict[str, Speedup]:
        """Speed-ups over the baseline of the valid contenders but the baseline."""
        return {
            name: row.speedup
            for name, row in self.valid.items()
            if row.speedup and name != BASELINE
        }

    @property
    def copy_median(self) -> float | None:
        """Median seconds of the copy, if it was timed."""
        timings = [r.timing for r in self.rows if r.variant == COPY and is_valid(r)]
        return timings[0].p50 if timings and timings[0] else None

    @property
    def fastest(self) -> str | None:
        """The fastest contender."""
        return self._fastest(self.medians)

    @property
    def fastest_peer(self) -> str | None:
        """The fastest contender without lmwp_ops; it may be the baseline."""
        return self._fastest(name for name in self.medians if not is_ours(name))

    @property
    def best_ours(self) -> str | None:
        """The fastest contender with lmwp_ops."""
        return self._fastest(name for name in self.medians if is_ours(name))

    @property
    def over_peer(self) -> float | None:
        """Speed-up of the best of ours over the fastest peer."""
        ours, peer = self.best_ours, self.fastest_peer
        return self.medians[peer] / self.medians[ours] if ours and peer else None

    def _fastest(self, names: Iterable[str]) -> str | None:
        return min(names, key=self.medians.__getitem__, default=None)


def comparisons_of(rows: Iterable[Row]) -> list[Comparison]:
    """The cases among `rows` in order of appearance."""
    return [Comparison(group) for group in by_case(rows).values()]
