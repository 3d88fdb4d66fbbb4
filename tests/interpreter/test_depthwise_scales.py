"""The Triton kernels of depthwise_scales in Triton's interpreter, held against float64."""

import importlib.util

import pytest

from .interpreted import run_interpreted

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)

OP = "depthwise_scales"


@pytest.mark.parametrize("checks", ["forward", "gradients", "options"])
def test_matches_float64(checks: str) -> None:
    done = run_interpreted(OP, checks)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr[-3000:]


@pytest.mark.parametrize(
    ("checks", "sound", "faulty"),
    [
        pytest.param("forward", "(row // DIVISOR < height)", "True", id="reads below the map"),
        pytest.param("forward", "column > 0", "column >= 0", id="reads left of the map"),
        pytest.param("gradients", "K * K - 1 - i if FLIP", "i if FLIP", id="weights not turned"),
        pytest.param("options", "blocks * s.steps + step", "blocks + step", id="sums overlap"),
        pytest.param("options", "part < s.parts", "part < 1", id="a part left out"),
    ],
)
def test_a_fault_is_seen(checks: str, sound: str, faulty: str) -> None:
    done = run_interpreted(OP, checks, sound, faulty)
    assert done.returncode == 1
    assert "AssertionError" in done.stderr, done.stderr[-3000:]
