"""Run times that papers print, to set beside what this machine measures."""

from __future__ import annotations

from dataclasses import dataclass

from lmwp_bench.rivals import RIVALS


@dataclass(frozen=True)
class Published:
    """A line of a paper's run-time table; `flops` are as printed, whatever they count."""

    table: str
    params: float
    flops: float
    speed: str


TITLES = {
    "csnet-table": "Run-time table of the CSNet paper (Table 5)",
    "lmwpnet-table": "Table of the LMWP-Net README",
}
"""The tables by the name that stands for all their networks."""

_CPU, _GPU = "one core of an i7-8700K", "RTX 3090"

_OURS = {
    "csnet-x1": Published("csnet-table", 211e3, 0.61e9, f"135.9 ms, {_CPU}"),
    "csnet-l-x1": Published("csnet-table", 94e3, 0.43e9, f"95.3 ms, {_CPU}"),
    "lmwpnet": Published("lmwpnet-table", 3.03e6, 0.5e9, f"83.3 FPS, {_GPU}"),
}

_RIVALS_OF = {
    "csnet-table": ("enet", "espnetv2"),
    "lmwpnet-table": ("hvpnet", "samnet", "mobilenetv2-sod"),
}


def published(network: str) -> Published | None:
    """What is printed of a network, if it stands in one of the tables."""
    if network in _OURS:
        return _OURS[network]
    for table, names in _RIVALS_OF.items():
        if network in names:
            rival = RIVALS[network]
            return Published(
                table, rival.published_params, rival.published_flops, rival.published_speed
            )
    return None


def networks_of(table: str) -> list[str]:
    """Networks of a table: rivals first."""
    ours = [name for name, line in _OURS.items() if line.table == table]
    return [*_RIVALS_OF[table], *ours]
