"""Interleaved timing: turns, ratios that survive a slowing machine, what a sample holds."""

import time

import numpy as np
import pytest

from lmwp_bench import timing
from lmwp_bench.timing import CallSampler, sample, speedup


class Recorded:
    """Says who was asked, and takes one per cent longer each time."""

    def __init__(self, name: str, log: list[str], factor: float, drift: list[int]) -> None:
        self.name, self.log, self.factor, self.drift = name, log, factor, drift

    def __call__(self, calls: int) -> float:
        self.log.append(self.name)
        self.drift[0] += 1
        time.sleep(0.0001)
        return 1e-9 * self.factor * 1.01 ** self.drift[0]


def test_every_variant_has_one_turn_a_round_in_changing_order() -> None:
    log: list[str] = []
    samplers = {name: Recorded(name, log, 1.0, [0]) for name in "abc"}
    times = sample(samplers, seconds=0.001, least=12)
    rounds = [log[-36:][i : i + 3] for i in range(0, 36, 3)]
    assert all(sorted(turn) == list("abc") for turn in rounds)
    assert len({tuple(turn) for turn in rounds}) > 2
    assert {len(t) for t in times.values()} == {12}


def test_ratios_do_not_see_a_machine_that_slows_down() -> None:
    drift = [0]
    samplers = {name: Recorded(name, [], f, drift) for name, f in (("base", 2.0), ("ours", 1.0))}
    times = sample(samplers, seconds=0.001, least=40)
    ratio = speedup(times["base"], times["ours"])
    spread = times["base"].max() / times["base"].min()
    assert spread > 1.5
    assert ratio.p50 == pytest.approx(2.0, rel=0.02)


def test_a_sample_is_a_mean_over_calls_and_leaves_the_first_out() -> None:
    seen: list[int] = []

    def compute(i: int) -> None:
        seen.append(i)
        time.sleep(0.05 if len(seen) == 1 else 0.002)

    seconds = CallSampler(compute, sets=3)(5)
    assert seen == [0, 1, 2, 0, 1, 2]
    assert 0.002 <= seconds < 0.01


def test_the_warm_up_lasts_and_fills_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "WARMUP_SECONDS", 0.05)
    started = time.perf_counter()
    calls = timing.warm_up(CallSampler(lambda i: time.sleep(0.0005)))
    assert time.perf_counter() - started >= 0.05
    assert 2 <= calls <= 8


def test_percentiles() -> None:
    found = timing.timing(np.arange(1.0, 12.0))
    assert (found.p20, found.p50, found.p80, found.samples) == (3.0, 6.0, 9.0, 11)
