"""Checked reading of configuration fields; every error is a `ValueError` that names the field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any


def check_fields(
    what: str, data: object, *, required: Set[str], optional: Set[str] = frozenset()
) -> Mapping[str, Any]:
    """`data` as a mapping that has all of `required` and nothing beyond `optional`."""
    if not isinstance(data, Mapping):
        raise ValueError(f"{what}: expected a table of fields, got {type(data).__name__}")
    missing = sorted(required - set(data))
    if missing:
        raise ValueError(f"{what}: field {missing[0]!r} is missing")
    unknown = sorted(str(key) for key in set(data) - required - optional)
    if unknown:
        known = ", ".join(sorted(required | optional))
        raise ValueError(f"{what}: unknown field {unknown[0]!r}; known are {known}")
    return data


def as_sequence(what: str, value: object) -> Sequence[Any]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValueError(f"{what}: expected a list, got {value!r}")
    return value


def as_count(what: str, value: object) -> int:
    """`value` as a non-negative int."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{what}: expected a non-negative whole number, got {value!r}")
    return value


def as_counts(what: str, value: object) -> tuple[int, ...]:
    return tuple(as_count(f"{what}[{i}]", c) for i, c in enumerate(as_sequence(what, value)))


def check_widths(what: str, widths: Sequence[int]) -> None:
    """Counts of which at least one is not zero."""
    if not any(as_counts(what, widths)):
        raise ValueError(f"{what}: expected at least one channel, got {list(widths)}")
