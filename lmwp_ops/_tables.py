"""What was measured on GPUs and is shipped with the package: `tuned/*.json`, one file per GPU.

`tuned/README.md` describes the format. The table of the GPU nearest to the one at hand counts.
"""

import functools
import json
import math
import warnings
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch

from lmwp_ops._backends import BACKENDS
from lmwp_ops._gpu import Gpu, versions

FOLDER = Path(__file__).parent / "tuned"
FORMAT = 1

Config = dict[str, int]
"""One configuration of a kernel: its compile-time parameters, num_warps and num_stages too."""


@dataclass(frozen=True, slots=True)
class Table:
    """What is known of one GPU: `order[op][dtype]` are backends, the fastest first;
    `configs[kernel][key]` is the fastest configuration."""

    gpu: Gpu
    order: dict[str, dict[str, list[str]]]
    configs: dict[str, dict[str, Config]]


@functools.cache
def backend_order(op: str, dtype: torch.dtype, gpu: Gpu) -> tuple[str, ...]:
    """All backends in the order in which this GPU should be asked."""
    name = str(dtype).removeprefix("torch.")
    for table in by_nearness(gpu):
        if measured := table.order.get(op, {}).get(name):
            return (*measured, *(backend for backend in BACKENDS if backend not in measured))
    return BACKENDS


@functools.cache
def by_nearness(gpu: Gpu) -> tuple[Table, ...]:
    """Every table, that of the GPU most like `gpu` first."""
    return tuple(sorted(load_all(), key=lambda table: _distance(table.gpu, gpu)))


def load_all() -> list[Table]:
    """The tables of the package; one that is malformed is left out with a warning."""
    tables = []
    for path in sorted(FOLDER.glob("*.json")):
        try:
            tables.append(parse(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            warnings.warn(f"lmwp_ops: {path} is left out: {error}", stacklevel=2)
    return tables


def compose(
    gpu: Gpu, order: dict[str, dict[str, list[str]]], configs: dict[str, dict[str, Config]]
) -> dict[str, Any]:
    """The content of a table that is measured today with these versions."""
    capability = "{}.{}".format(*gpu.capability)
    return {
        "format": FORMAT,
        "gpu": {**asdict(gpu), "capability": capability},
        "measured": {"date": date.today().isoformat(), **versions()},
        "order": order,
        "configs": configs,
    }


def parse(text: str) -> Table:
    """A table from its JSON text; raises ValueError that names what is wrong where."""
    content = _typed(json.loads(text), dict, "the file")
    if content.get("format") != FORMAT:
        raise ValueError(f"format: expected {FORMAT}, got {content.get('format')!r}")
    _typed(content.get("measured"), dict, "measured")
    order = _typed(content.get("order", {}), dict, "order")
    for op, by_dtype in order.items():
        for dtype, backends in _typed(by_dtype, dict, f"order.{op}").items():
            _check_order(backends, f"order.{op}.{dtype}")
    configs = _typed(content.get("configs", {}), dict, "configs")
    for kernel, by_key in configs.items():
        for key, config in _typed(by_key, dict, f"configs.{kernel}").items():
            for name, value in _typed(config, dict, f"configs.{kernel}.{key}").items():
                _typed(value, int, f"configs.{kernel}.{key}.{name}")
    return Table(_parse_gpu(_typed(content.get("gpu"), dict, "gpu")), order, configs)


def _parse_gpu(facts: dict[str, Any]) -> Gpu:
    capability = _typed(facts.get("capability"), str, "gpu.capability")
    major, _, minor = capability.partition(".")
    if not (major.isdecimal() and minor.isdecimal()):
        raise ValueError(f"gpu.capability: expected such as '9.0', got {capability!r}")
    bandwidth = facts.get("bandwidth")
    if bandwidth is not None and not (isinstance(bandwidth, (int, float)) and bandwidth > 0):
        raise ValueError(f"gpu.bandwidth: expected GB/s or null, got {bandwidth!r}")
    multiprocessors = _typed(facts.get("multiprocessors"), int, "gpu.multiprocessors")
    if multiprocessors < 1:
        raise ValueError(f"gpu.multiprocessors: expected at least 1, got {multiprocessors}")
    name = _typed(facts.get("name"), str, "gpu.name")
    return Gpu(name, (int(major), int(minor)), multiprocessors, bandwidth)


def _check_order(backends: Any, where: str) -> None:
    known = _typed(backends, list, where)
    if (
        not known
        or len(set(map(str, known))) < len(known)
        or not set(map(str, known)) <= {*BACKENDS}
    ):
        raise ValueError(f"{where}: expected some of {', '.join(BACKENDS)}, got {backends!r}")


def _typed(value: Any, kind: type, where: str) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{where}: expected {kind.__name__}, got {value!r}")
    return value


def _distance(known: Gpu, gpu: Gpu) -> tuple[float, ...]:
    """Compute capability first, then memory bandwidth and the number of multiprocessors."""
    major, minor = (abs(a - b) for a, b in zip(known.capability, gpu.capability, strict=True))
    bandwidth = 0.0
    if known.bandwidth and gpu.bandwidth:
        bandwidth = abs(math.log(known.bandwidth / gpu.bandwidth))
    return major, minor, bandwidth, abs(math.log(known.multiprocessors / gpu.multiprocessors))
