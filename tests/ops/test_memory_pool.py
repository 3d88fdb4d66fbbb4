"""Memory of outputs is kept for the next ones, up to a limit, and is never shared."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lmwp_ops
from lmwp_ops import _loader

pytestmark = pytest.mark.skipif(
    _loader.status()["_C"] is not None, reason=str(_loader.status()["_C"])
)

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")

CODE = """
import ctypes, resource, sys, torch, lmwp_ops
PR_SET_THP_DISABLE = 41
if sys.argv[1:] == ["small pages"]:
    assert ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0
xs, ws = [torch.randn(1, 8, 512, 512)], [torch.randn(8, 1, 3, 3)]
for _ in range(4):
    lmwp_ops.depthwise_scales(xs, ws)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    lmwp_ops.depthwise_scales(xs, ws)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20)
"""


PAGES = 8 * 512 * 512 * 4 / 4096  # of an output, 8 MiB


def faults_per_call(*arguments: str, **environment: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="counts page faults as Linux does")
def test_reused_memory_costs_no_page_faults() -> None:
    assert faults_per_call("small pages") < PAGES / 10
    assert faults_per_call("small pages", LMWP_OPS_POOL_MB="0") > PAGES / 2
    assert faults_per_call("small pages", LMWP_OPS_POOL_MB="4") > PAGES / 2


@pytest.mark.skipif(not HUGE_PAGES.exists(), reason="the system has no transparent huge pages")
def test_new_memory_is_of_huge_pages() -> None:
    if "[never]" in HUGE_PAGES.read_text():
        pytest.skip("huge pages are switched off here")
    assert faults_per_call(LMWP_OPS_POOL_MB="0") < PAGES / 10


def test_outputs_in_use_keep_their_memory() -> None:
    xs = [torch.randn(1, 4, 128, 128)]
    weights = [torch.randn(4, 1, 3, 3)]
    expected = lmwp_ops.depthwise_scales(xs, weights)[0].clone()
    kept = [lmwp_ops.depthwise_scales(xs, weights)[0] for _ in range(5)]
    assert len({y.data_ptr() for y in kept}) == 5
    view = kept.pop()[:, 1:3]
    kept.clear()
    for _ in range(6):
        lmwp_ops.depthwise_scales([torch.zeros_like(xs[0])], weights)
    assert torch.equal(view, expected[:, 1:3])
