"""Which planted faults are in every run."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Faults show that the checks bite: the first of each test runs always, the others are slow."""
    seen: set[tuple[Path, str]] = set()
    for item in items:
        if not isinstance(item, pytest.Function) or item.path.parent != HERE:
            continue
        if "fault" not in getattr(getattr(item, "callspec", None), "params", {}):
            continue
        test = item.path, item.originalname
        if test in seen:
            item.add_marker(pytest.mark.slow)
        seen.add(test)
