"""What a check of a GPU measures, the most telling first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from lmwp_bench import machine
from lmwp_bench.networks import bench_network
from lmwp_bench.ops import OPS
from lmwp_bench.peers.network import peers_for
from lmwp_bench.results import Row
from lmwp_bench.suites import training
from lmwp_bench.suites.network_run import NetworkRun
from lmwp_bench.suites.ops import DIRECTIONS, OpRun, directions_of, run, variant_names
from lmwp_bench.suites.pool import Job, run_jobs

_SECONDS = 1.0  # for each way of timing a case
_BATCH_OF_OPS = 16
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_MODELS = (("csnet-l-x1", 1), ("csnet-x1", 1), ("csnet-l-x2", 1), ("csnet-l-x1", 64))
_TRAINING = (
    ("csnet-x1", 24, "bfloat16"),
    ("csnet-x2", 24, "bfloat16"),
    ("csnet-x1", 24, "float32"),
)


@dataclass(frozen=True)
class Benchmark:
    """Something to measure, and what to call it meanwhile."""

    label: str
    measure: Callable[[], list[Row]]


def plan(device: torch.device) -> Iterator[Benchmark]:
    """The ops on the layers of CSNet, networks, training; then all other shapes and types."""
    runs = _op_runs(device)
    first = [r for r in runs if r.shape_name.startswith("csnet") and r.dtype == torch.float32]
    yield from (_op(r) for r in first if r.direction == "forward")
    yield from (_network("models", device, *model, "float32") for model in _MODELS)
    yield from (_network("training", device, *step) for step in _TRAINING)
    yield from (_op(r) for r in first if r.direction != "forward")
    yield from (_op(r) for r in runs if r not in first)


def _op_runs(device: torch.device) -> list[OpRun]:
    cache = machine.cache_bytes(device)
    return [
        OpRun(spec, shape, _BATCH_OF_OPS, dtype, direction, device, 1, cache)
        for dtype in _DTYPES
        for direction in DIRECTIONS
        for spec in OPS.values()
        if direction in directions_of(spec)
        for shape in spec.shapes
    ]


def _op(one: OpRun) -> Benchmark:
    dtype = str(one.dtype).removeprefix("torch.")

    def measure() -> list[Row]:
        return next(run([one], variant_names(one.device.type), _SECONDS))

    return Benchmark(f"{one.spec.name} {one.shape_name}, {dtype}, {one.direction}", measure)


def _network(suite: str, device: torch.device, name: str, batch: int, dtype: str) -> Benchmark:
    network = bench_network(name)
    peers = (training.peers_for if suite == "training" else peers_for)(device.type, network.ours)
    job = Job(
        suite,
        NetworkRun(
            network=network.name,
            batch=batch,
            size=network.input_size,
            dtype=dtype,
            device=str(device),
            threads=1,
            peers=tuple(peers),
            seconds=_SECONDS,
        ),
    )

    def measure() -> list[Row]:
        return next(run_jobs([job], parallel=1))

    return Benchmark(f"{suite} {job.label}, {dtype}", measure)
