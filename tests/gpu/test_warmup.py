"""First-use checks, timing and warmup on the GPU itself."""

import pytest
import torch

import lmwp_ops
from lmwp_ops import _disk_cache, _dispatch, _gpu, _tuning, _verification
from lmwp_ops._warmup import BACKWARD, DTYPES
from lmwp_ops.env import collect

OPS = [name for name in _dispatch.registered() if not name.endswith(BACKWARD)]


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv(_disk_cache.FOLDER, str(tmp_path))
    monkeypatch.setattr(_verification, "_verdicts", {})
    monkeypatch.setattr(_verification, "enabled", True)
    monkeypatch.setattr(_tuning, "_answers", {})
    for op in _dispatch.registered():
        _dispatch.op_named(op).met.clear()


def test_the_gpu_is_described(device: torch.device) -> None:
    gpu = _gpu.describe(device)
    assert gpu.capability == torch.cuda.get_device_capability(device)
    assert gpu.multiprocessors > 0
    assert gpu.bandwidth is None or 10 < gpu.bandwidth < 50_000
    assert _gpu.versions()["driver"]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", OPS)
def test_every_kernel_is_right_and_stays_so(device: torch.device, op: str, dtype) -> None:
    """One op and dtype each: what takes the time is compiling every configuration."""
    report = lmwp_ops.warmup([op], [dtype], device=device)
    registered = _dispatch.registered()
    usable = {
        (name, backend)
        for name in (op, f"{op}{BACKWARD}")
        for backend, reason in registered.get(name, {}).items()
        if reason is None and backend != "cpp"
    }
    run = [row for row in report.rows if row.verdict == "right"]
    assert {(row.op, row.backend) for row in run} == usable, report
    assert not [row for row in report.rows if row.verdict == "failed"], report
    assert all(row.ms > 0 for row in run)
    checked = {row.op for row in run if row.backend != "reference"}
    assert set(collect()["verified_kernels"]) >= checked
    assert lmwp_ops.warmup([op], [dtype], device=device).rows


def test_first_use_is_no_part_of_a_capture(
    monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    """A kernel first met while a graph is captured is trusted, and checked at the next call."""
    x, w = torch.randn(1, 3, 8, 8, device=device), torch.randn(3, 1, 3, 3, device=device)
    backend = lmwp_ops.explain("depthwise_scales", [x], [w]).backend
    if backend == "reference":
        pytest.skip("no kernel for this GPU is loaded")
    with torch.no_grad():
        with monkeypatch.context() as unchecked:
            unchecked.setattr(_verification, "enabled", False)
            lmwp_ops.depthwise_scales([x], [w])  # compiles
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            (y,) = lmwp_ops.depthwise_scales([x], [w])
        assert not _verification._verdicts
        graph.replay()
        (expected,) = lmwp_ops.depthwise_scales([x], [w])
    assert _verification._verdicts
    assert torch.equal(y, expected)


@pytest.mark.alone
def test_the_timer_counts_time_on_the_gpu(device: torch.device) -> None:
    short, long = (
        _tuning.cuda_ms(lambda cycles=cycles: torch.cuda._sleep(cycles))
        for cycles in (200_000, 800_000)
    )
    assert 3 < long / short < 5
