"""Benchmarks that hold a variant against its baseline round by round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lmwp_bench.timing import CallSampler, warm_up

_ROUNDS = 40

Paired = Callable[[Callable[[int], object], Callable[[int], object]], None]


@pytest.fixture
def paired(benchmark: Any) -> Paired:
    """Time `compute` with pytest-benchmark, and before each of its rounds the baseline.

    `extra_info["relative"]` becomes the median over rounds of compute over baseline, from which
    the speed of the machine cancels.
    """

    def run(baseline: Callable[[int], object], compute: Callable[[int], object]) -> None:
        sampler = CallSampler(baseline)
        baseline_calls, calls = warm_up(sampler), warm_up(CallSampler(compute))
        baseline_times: list[float] = []

        def before_round() -> None:
            baseline_times.append(sampler(baseline_calls))
            compute(0)

        def round_of_calls() -> None:
            for _ in range(calls):
                compute(0)

        benchmark.pedantic(round_of_calls, setup=before_round, rounds=_ROUNDS)
        times = np.array(benchmark.stats.stats.data) / calls
        benchmark.extra_info["relative"] = float(np.median(times / np.array(baseline_times)))
        benchmark.extra_info["calls"] = calls

    return run
