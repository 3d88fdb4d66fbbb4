"""Benchmarks set up the processor for a whole process; a test leaves it as it was."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from lmwp_bench.accuracy import Tolerance
from lmwp_bench.measure import Case
from lmwp_bench.variant import Variant


@pytest.fixture(autouse=True)
def _processor_as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.fixture
def make_case() -> Callable[..., Case]:
    """A case that doubles a vector, computed by the given variants."""
    x = torch.linspace(1, 2, 1000)

    def make(variants: dict[str, Callable[[], Any]], **changes: Any) -> Case:
        facts: dict[str, Any] = {
            "suite": "ops",
            "subject": "double",
            "name": "1000",
            "params": {"device": "cpu", "threads": 1, "batch": 1},
            "truth": lambda: [2 * x.double()],
            "tolerance": Tolerance(floor=1e-6, eager=1e-3),
            "device": torch.device("cpu"),
        }
        made = [Variant(name, prepare) for name, prepare in variants.items()]
        return Case(**facts | {"variants": made} | changes)

    return make


@pytest.fixture
def doubled() -> Callable[[float], Callable[[], Callable[[int], list[Tensor]]]]:
    """Prepares a computation of 2 x (1 + error)."""
    x = torch.linspace(1, 2, 1000)
    return lambda error: lambda: lambda i: [2 * x * (1 + error)]
