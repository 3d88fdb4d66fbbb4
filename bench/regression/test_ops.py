"""Each op's backends at the layers of CSNet."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import lmwp_ops.env
from lmwp_bench.machine import cache_bytes
from lmwp_bench.ops import OPS
from lmwp_bench.regression.conftest import Paired
from lmwp_bench.suites.ops import BACKENDS, Direction, OpRun, directions_of
from lmwp_bench.variant import BASELINE

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def _cases() -> list[Any]:
    usable = lmwp_ops.env.collect()["ops"]
    return [
        pytest.param(name, shape, backend, direction, id=f"{name}-{shape}-{backend}-{direction}")
        for name, spec in OPS.items()
        for shape in spec.shapes
        if shape.startswith("csnet")
        for backend in BACKENDS[DEVICE]
        if backend in usable.get(name, {}) and usable[name][backend] is None
        for direction in directions_of(spec)
    ]


@pytest.mark.parametrize(("name", "shape", "backend", "direction"), _cases())
def test_op(paired: Paired, name: str, shape: str, backend: str, direction: Direction) -> None:
    device = torch.device(DEVICE)
    run = OpRun(
        OPS[name],
        shape,
        batch=1,
        dtype=torch.float32,
        direction=direction,
        device=device,
        threads=torch.get_num_threads(),
        cache_bytes=cache_bytes(device),
    )
    baseline, ours = run.case([BASELINE, f"lmwp-{backend}"]).variants
    paired(baseline.prepare(), ours.prepare())
