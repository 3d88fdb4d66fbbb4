"""The Triton kernels of goctconv2d and dilated_bank in Triton's interpreter, against float64."""

import importlib.util

import pytest

from .interpreted import run_interpreted

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)

KERNELS = "multiscale"


@pytest.mark.parametrize("checks", ["sums", "defaults", "options", "dilations"])
def test_matches_float64(checks: str) -> None:
    done = run_interpreted(KERNELS, checks)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr[-3000:]


@pytest.mark.parametrize(
    ("checks", "sound", "faulty"),
    [
        pytest.param("defaults", "(value > best)", "(value >= best)", id="the last maximum"),
        pytest.param("defaults", "propagate_nan=tl.PropagateNan.ALL", "", id="NaN lost"),
        pytest.param("dilations", "K * K - 1 - tap", "tap", id="weights not turned"),
        pytest.param("defaults", "split * s.steps", "split", id="sums overlap"),
        pytest.param("options", "* 0.25", "* 0.5", id="entry pool"),
    ],
)
def test_a_fault_is_seen(checks: str, sound: str, faulty: str) -> None:
    done = run_interpreted(KERNELS, checks, sound, faulty)
    assert done.returncode == 1
    assert "AssertionError" in done.stderr, done.stderr[-3000:]
