"""Numbers as the reports print them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DASH = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"


def significant(value: float) -> str:
    """Three significant digits, large values whole: 0.998, 1.50, 12.3, 1234."""
    return f"{value:.0f}" if abs(value) >= 999.5 else f"{value:#.3g}".rstrip(".")


def milliseconds(seconds: float) -> str:
    """Seconds in milliseconds, without the unit."""
    return significant(1e3 * seconds)


def mebibytes(size: float) -> str:
    """Bytes in MiB, without the unit."""
    return significant(size / 2**20) if size else "0"


def factor(value: float) -> str:
    """A speed-up with the sign for times."""
    return f"{significant(value)}{TIMES}"


def plain(value: Any, name: str = "") -> str:
    """A recorded value for people; sizes are known by the end of their `name`."""
    if value is None or value == "":
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float) and name.endswith("bytes"):
        return f"{mebibytes(value)} MiB"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(plain(item, name) for item in value) or DASH
    return str(value)


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Names and printed values of nested mappings: those of `gpu` become `gpu driver`, ..."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key.replace('_', ' ')}"
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{name} ")
        else:
            flat[name] = plain(value, key)
    return flat
