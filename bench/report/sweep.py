"""Cases that differ in one number: batch, size, or any other param with numbers."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmwp_bench.report.comparison import Comparison
from lmwp_bench.report.labels import label

Values = Callable[[Comparison], Mapping[str, float]]
"""What is measured of a case, by variant."""

_SIZE = re.compile(r"\d+(x\d+)*")


@dataclass(frozen=True)
class Point:
    """A case at one value of the param; sizes count as the side of a square of as many pixels."""

    x: float
    shown: str
    comparison: Comparison


@dataclass(frozen=True)
class Sweep:
    """Cases that differ in `param` alone, in the order of its values."""

    param: str
    title: str
    points: Sequence[Point]

    def curve(self, values: Values, variant: str) -> tuple[list[float], list[float]]:
        """Values of the param at which `variant` has a value, and these."""
        found = [(point.x, values(point.comparison)) for point in self.points]
        return (
            [x for x, by_variant in found if variant in by_variant],
            [by_variant[variant] for _, by_variant in found if variant in by_variant],
        )

    def variants(self, values: Values) -> list[str]:
        """Variants with a value at two points or more."""
        counts = Counter(name for point in self.points for name in values(point.comparison))
        return [name for name, count in counts.items() if count > 1]


def number_of(value: Any) -> float | None:
    """What stands on the axis for a value of a param; None if it is no number or size."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str) and _SIZE.fullmatch(value):
        sides = [int(side) for side in value.split("x")]
        return math.prod(sides) ** (1 / len(sides))
    return None


def numeric_params(comparisons: Sequence[Comparison]) -> list[str]:
    """Params with a number in some case, by order of appearance."""
    return list(
        dict.fromkeys(
            name
            for comparison in comparisons
            for name, value in comparison.params.items()
            if number_of(value) is not None
        )
    )


def find_sweeps(
    comparisons: Sequence[Comparison], param: str, known: Sequence[str] = ()
) -> list[Sweep]:
    """Sweeps over `param` of two values or more; titles leave out the `known` params.

    The shape of a case may stand in its name alone, so names must be equal, or become so when each
    loses the value that it ends with.
    """
    by_name = _grouped(comparisons, param, lambda c: c.case)
    alone = [group[0] for group in by_name.values() if len(group) == 1]
    by_stem = _grouped(alone, param, lambda c: _stem(c, param))
    groups = {**by_name, **by_stem}
    sweeps = []
    for (_, name, _), group in groups.items():
        points = [
            Point(x, str(c.params[param]), c)
            for c in group
            if (x := number_of(c.params[param])) is not None
        ]
        points.sort(key=lambda point: point.x)
        sweep = Sweep(param, label(name, group[0].params, [*known, param]), points)
        if len({point.x for point in points}) == len(points) > 1:
            sweeps.append(sweep)
    return sweeps


def crossings(x: Sequence[float], y: Sequence[float], log_x: bool) -> list[float]:
    """Where the line through the points crosses 1, drawn straight over a logarithmic y axis."""
    across = np.log(x) if log_x else np.asarray(x, float)
    height = np.log(y)
    found = []
    for i in range(len(across) - 1):
        if (height[i] < 0) != (height[i + 1] < 0):
            share = height[i] / (height[i] - height[i + 1])
            at = across[i] + share * (across[i + 1] - across[i])
            found.append(float(np.exp(at)) if log_x else float(at))
    return found


_Key = tuple[str, str, str]


def _grouped(
    comparisons: Sequence[Comparison], param: str, name: Callable[[Comparison], str]
) -> dict[_Key, list[Comparison]]:
    groups: dict[_Key, list[Comparison]] = {}
    for c in comparisons:
        if param in c.params:
            rest = {key: value for key, value in c.params.items() if key != param}
            key = (c.subject, name(c), json.dumps(rest, sort_keys=True))
            groups.setdefault(key, []).append(c)
    return groups


def _stem(comparison: Comparison, param: str) -> str:
    """The name of the case with `...` for the last occurrence of the value of `param`."""
    head, value, tail = comparison.case.rpartition(str(comparison.params[param]))
    return f"{head}...{tail}" if value else tail
