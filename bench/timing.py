"""Timing of variants against one another.

Variants take turns, one sample each a round in an order drawn anew, so that a machine that slows
down slows all of them; ratios are taken within a round. A sample is the mean over as many calls as
take a few milliseconds, after one call that is not counted unless calls are long.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from lmwp_bench.results import Speedup, Timing

Call = Callable[[int], object]
"""Computes once on the given input set."""

WARMUP_SECONDS = 0.1
SAMPLE_SECONDS = 0.004
# A call as long as this has filled the caches anew before a per cent of it is over.
LONG_SECONDS = 0.02
# Thread pools of other runtimes spin for some milliseconds after a call, on the cores of the next.
SETTLE_SECONDS = 0.004


class Sampler(Protocol):
    """Times calls of one variant."""

    def __call__(self, calls: int) -> float:
        """Seconds per call, the mean over `calls`."""
        ...


@runtime_checkable
class PhaseSampler(Sampler, Protocol):
    """Also knows how long the parts of a call take."""

    @property
    def phases(self) -> dict[str, float]:
        """Median seconds of each part, in order."""
        ...


@dataclass
class CallSampler:
    """Wall time of calls on input sets 0 .. sets-1 in turn; `wait` drains a device's queue."""

    call: Call
    sets: int = 1
    wait: Callable[[], object] = lambda: None
    settle: bool = False
    _next: int = 0
    _seconds: float = 0.0

    def __call__(self, calls: int) -> float:
        if self.settle:
            time.sleep(SETTLE_SECONDS)
        if self._seconds < LONG_SECONDS:
            self._step()
        self.wait()
        started = time.perf_counter()
        for _ in range(calls):
            self._step()
        self.wait()
        self._seconds = (time.perf_counter() - started) / calls
        return self._seconds

    def _step(self) -> None:
        self.call(self._next)
        self._next = (self._next + 1) % self.sets


class GraphSampler:
    """Time on the GPU of calls captured into one CUDA graph, one for each input set.

    Launch costs are left out and kernels follow one another without a gap, which plain events
    around launches of a few microseconds cannot show.
    """

    def __init__(self, call: Call, sets: int) -> None:
        self._per_replay = max(sets, 8)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for i in range(3):
                call(i % sets)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            for i in range(self._per_replay):
                call(i % sets)

    def __call__(self, calls: int) -> float:
        replays = max(1, calls // self._per_replay)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._graph.replay()
        start.record()
        for _ in range(replays):
            self._graph.replay()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / (replays * self._per_replay)


def sample(
    samplers: Mapping[str, Sampler], *, seconds: float, least: int = 7, most: int = 200
) -> dict[str, np.ndarray]:
    """Seconds per call of each variant by round, in about `seconds` for all of them.

    At least `least` rounds are made, whatever they take; warm-up comes on top.
    """
    calls = {name: warm_up(sampler) for name, sampler in samplers.items()}
    taken: dict[str, list[float]] = {name: [] for name in samplers}
    order = list(samplers)
    shuffle = random.Random(0).shuffle
    started = time.perf_counter()
    for done in range(most):
        if done >= least and time.perf_counter() - started >= seconds:
            break
        shuffle(order)
        for name in order:
            taken[name].append(samplers[name](calls[name]))
    return {name: np.array(times) for name, times in taken.items()}


def warm_up(sampler: Sampler) -> int:
    """Call for a while; returns how many calls make a sample of some milliseconds."""
    started = time.perf_counter()
    duration = sampler(1)
    while time.perf_counter() - started < WARMUP_SECONDS:
        duration = sampler(max(1, int(SAMPLE_SECONDS / duration)))
    return max(1, int(SAMPLE_SECONDS / duration))


def timing(times: np.ndarray) -> Timing:
    """Percentiles of the samples of one variant."""
    p20, p50, p80 = np.percentile(times, (20, 50, 80))
    return Timing(float(p20), float(p50), float(p80), len(times))


def speedup(baseline: np.ndarray, times: np.ndarray) -> Speedup:
    """Percentiles of baseline over variant, round by round."""
    p20, p50, p80 = np.percentile(baseline / times, (20, 50, 80))
    return Speedup(float(p20), float(p50), float(p80))
