"""What tells cases apart: what all have in common is said once, the rest with each of them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from lmwp_bench.report.comparison import Comparison
from lmwp_bench.report.numbers import plain

_SELF_EXPLAINING = ("device", "dtype", "size", "direction")


def shared_params(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Params that have one value in every case that has them."""
    found: dict[str, dict[str, Any]] = {}
    for comparison in comparisons:
        for name, value in comparison.params.items():
            found.setdefault(name, {})[json.dumps(value)] = value
    return {name: next(iter(v.values())) for name, v in found.items() if len(v) == 1}


def describe(params: Mapping[str, Any]) -> str:
    """Params in words: `float32, batch 8, cache hot`."""
    return ", ".join(_word(name, value) for name, value in params.items())


def label(case: str, params: Mapping[str, Any], known: Collection[str]) -> str:
    """The case with those of its params that are not `known` and not said by its name."""
    words = [_word(name, value) for name, value in params.items() if name not in known]
    extra = ", ".join(word for word in words if word not in case)
    return f"{case} · {extra}" if extra else case


def _word(name: str, value: Any) -> str:
    return plain(value) if name in _SELF_EXPLAINING else f"{name} {plain(value, name)}"
