"""Which configuration a kernel runs with: what was measured here, else elsewhere, else a default.

A kernel offers at most six. Nothing is ever timed in a call; `lmwp_ops.warmup()` does it.
"""

import math
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch

from lmwp_ops import _disk_cache, _gpu, _tables
from lmwp_ops._examples import tensors
from lmwp_ops._gpu import Gpu, Place
from lmwp_ops._tables import Config
from lmwp_ops._verification import mismatch

KIND = "tuned"
MOST_CANDIDATES = 6

Question = tuple[str, str]
"""Kernel, and the key of its problem."""

_answers: dict[tuple[Question, torch.device], Config] = {}


class _Trial(threading.local):
    """While a thread tunes: what its kernels asked for, and what they are answered."""

    asked: dict[Question, Sequence[Config]] | None = None
    answers: dict[Question, Config] = {}  # noqa: RUF012 - replaced, never changed


_trial = _Trial()


def tuned(kernel: str, key: str, candidates: Sequence[Config], device: torch.device) -> Config:
    """The configuration to launch `kernel` with; for its launcher to call each time.

    Args:
        kernel: its name.
        key: what the best choice depends on, such as bucketed sizes and the dtype.
        candidates: at most six; the first is the default, good anywhere if best nowhere.
        device: where it is launched.

    Returns:
        The fastest candidate that `lmwp_ops.warmup()` found here; else the one in the package's
        table of the nearest GPU; else the default.

    Raises:
        ValueError: there are no candidates, or more than six.
    """
    question = (kernel, key)
    if not 1 <= len(candidates) <= MOST_CANDIDATES:
        expected = f"1 to {MOST_CANDIDATES}"
        raise ValueError(f"{kernel}: candidates: expected {expected}, got {len(candidates)}")
    if _trial.asked is not None:
        _trial.asked[question] = candidates
        return _trial.answers.get(question, candidates[0])
    answer = _answers.get((question, device))
    if answer is None:
        answer = _answers[question, device] = _look_up(question, candidates, device)
    return answer


def _look_up(question: Question, candidates: Sequence[Config], device: torch.device) -> Config:
    gpu = _gpu.describe(device)
    if gpu is None:
        return candidates[0]
    kernel, key = question
    here = _disk_cache.load(KIND, _cache_key(question, gpu))
    elsewhere = (table.configs.get(kernel, {}).get(key) for table in _tables.by_nearness(gpu))
    known = (config for config in (here, *elsewhere) if config in candidates)
    return next(known, candidates[0])


def _cache_key(question: Question, gpu: Gpu) -> dict[str, str | None]:
    return {"kernel": question[0], "key": question[1], "gpu": str(gpu), **_gpu.versions()}


def cuda_ms(run: Callable[[], object]) -> float:
    """Milliseconds that the GPU needs for `run`, without the time to launch it from Python.

    Median over replays of a CUDA graph of several calls.
    """
    calls, replays = 10, 7
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            run()
    graph.replay()
    times = []
    for _ in range(replays):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / calls)
    return median(times)


timer: Callable[[Callable[[], object]], float] = cuda_ms
"""Milliseconds of a call."""


def tune(run: Callable[[], Any], place: Place) -> dict[str, dict[str, Config]]:
    """Time every configuration of each kernel that `run` launches; keep and return the fastest,
    by kernel and key.

    Kernels are tuned one after the other, the others as found so far. A configuration that cannot
    run here (it needs more shared memory than there is) or changes the results is left out.
    """
    with _answering({}) as asked:
        expected = [y.clone() for y in tensors(run())]
    best: dict[Question, Config] = {}
    for question, candidates in asked.items():
        times: list[float] = []
        for config in candidates:
            with _answering({**best, question: config}):
                times.append(_time(run, expected, question, config))
        if min(times) < math.inf:
            best[question] = candidates[times.index(min(times))]
            _disk_cache.store(KIND, _cache_key(question, place.gpu), best[question])
    _answers.clear()  # other GPUs of this kind look it up again
    _answers.update({(question, place.device): config for question, config in best.items()})
    chosen: dict[str, dict[str, Config]] = {}
    for (kernel, key), config in best.items():
        chosen.setdefault(kernel, {})[key] = config
    return chosen


def _time(
    run: Callable[[], Any], expected: list[torch.Tensor], question: Question, config: Config
) -> float:
    """Milliseconds; infinite if the configuration cannot be used."""
    try:
        got = list(tensors(run()))
        if error := mismatch(got, expected, [y.double() for y in expected]):
            warnings.warn(f"lmwp_ops: {question[0]} with {config}: {error}", stacklevel=2)
            return math.inf
        return timer(run)
    except Exception:  # Triton's errors have no base of their own that can be named without it
        return math.inf


@contextmanager
def _answering(answers: dict[Question, Config]) -> Iterator[dict[Question, Sequence[Config]]]:
    """Inside, this thread's kernels get `answers`; yields what they ask for."""
    asked: dict[Question, Sequence[Config]] = {}
    previous = _trial.asked, _trial.answers
    _trial.asked, _trial.answers = asked, answers
    try:
        yield asked
    finally:
        _trial.asked, _trial.answers = previous
