"""Every test starts with nothing checked, an empty cache on disk and a GPU that is this CPU."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lmwp_ops import _disk_cache, _dispatch, _gpu, _tables, _tuning, _verification

from .fake_gpu import GPU


def forget_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a new process would not know."""
    monkeypatch.setattr(_verification, "_verdicts", {})
    for op in _dispatch._ops.values():
        op.met.clear()
    monkeypatch.setattr(_disk_cache, "_warned", False)
    monkeypatch.setattr(_tuning, "_answers", {})
    _tables.by_nearness.cache_clear()
    _tables.backend_order.cache_clear()


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The folder of the cache, not made yet."""
    monkeypatch.setenv("LMWP_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(_dispatch, "_forced", None)
    monkeypatch.setattr(_dispatch, "_ops", dict(_dispatch._ops))
    monkeypatch.setattr(_verification, "enabled", True)
    monkeypatch.setattr(_gpu, "describe", lambda device: GPU)
    forget_this_process(monkeypatch)
    yield tmp_path / "kernels"
    for op in _dispatch._ops.values():
        op.met.clear()
    _tables.by_nearness.cache_clear()
    _tables.backend_order.cache_clear()
