"""What every test relies on: fixed seeds, few threads, poisoned memory, the reference data."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

TESTS = Path(__file__).parent
REFERENCE = "LMWP_REFERENCE_DIR"


def pytest_configure() -> None:
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // workers))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _poisoned_memory(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fill torch.empty with NaN in tests of ops, so that an element nobody writes is seen."""
    if request.path.relative_to(TESTS).parts[0] not in ("ops", "nn", "gpu"):
        yield
        return
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """Folder of golden values and data sets that are not part of the project."""
    folder = os.environ.get(REFERENCE)
    if not folder:
        pytest.skip(f"{REFERENCE} is not set")
    return Path(folder)
