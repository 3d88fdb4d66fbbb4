"""The host emulation itself: results a GPU would give, and faults it must not let pass."""

import ctypes

import numpy as np
import pytest

from . import build
from .cases import ORDERS, decode, encode

pytestmark = pytest.mark.skipif(build.why_not() is not None, reason=str(build.why_not()))

FAULTS = {
    "return_before_barrier": ("waits for its block at", "thread 5 has returned"),
    "divergent_barrier": ("thread 0 waits for its block at", "thread 32 waits for its block at"),
    "wrong_mask": ("thread 0 waits for its warp at", "thread 16 has returned"),
    "forgotten_copy": ("without waiting for its asynchronous copies",),
}


@pytest.fixture(scope="module", params=["", "HOST_CUDA_UCONTEXT"], ids=["native", "ucontext"])
def emulator(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    output = tmp_path_factory.mktemp("emulator") / "selftest.so"
    defines = [request.param] if request.param else []
    path = build.compile_host("emulator_selftest.cpp", output, build.PLAIN, defines=defines)
    library = ctypes.CDLL(str(path))
    library.report.restype = ctypes.c_char_p
    library.round_half.argtypes = library.round_bfloat16.argtypes = [ctypes.c_float]
    return library


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


@pytest.mark.parametrize("order", ORDERS)
def test_block_sum(emulator, order):
    values = np.arange(3 * 96, dtype=np.float32).reshape(3, 96)
    sums = np.full(3, np.nan, np.float32)
    emulator.set_order(*ORDERS[order])
    assert emulator.run_block_sum(pointer(values), pointer(sums), 3, 96) == 0
    np.testing.assert_array_equal(sums, values.sum(1))


def test_collectives(emulator):
    lane = np.arange(32)
    out = np.zeros((32, 6), np.int32)
    assert emulator.run_collectives(pointer(out)) == 0
    np.testing.assert_array_equal(out[:, 0], lane // 8 * 8 + 3)
    np.testing.assert_array_equal(out[:, 1], np.where(lane % 8 > 0, lane - 1, lane))
    np.testing.assert_array_equal(out[:, 2], np.where(lane % 8 < 7, lane + 1, lane))
    np.testing.assert_array_equal(out[:, 3], lane ^ 5)
    assert set(out[1::2, 4].view(np.uint32)) == {0xAAAA0000}
    assert set(out[1::2, 5]) == {1}


def test_shared_memory_starts_as_nan(emulator):
    out = np.zeros(2, np.float32)
    assert emulator.run_unwritten_shared(pointer(out)) == 0
    assert np.isnan(out).all()


def test_missing_syncwarp_shows_in_some_order(emulator):
    wrong = []
    for order in ORDERS.values():
        out = np.full(64, -2, np.int32)
        emulator.set_order(*order)
        assert emulator.run_missing_syncwarp(pointer(out)) == 0
        wrong.append(bool((out != np.arange(64) ^ 1).any()))
    assert any(wrong)


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_fails_the_launch_with_a_report(emulator, fault):
    assert getattr(emulator, f"run_{fault}")(None) != 0
    report = emulator.report().decode()
    for text in FAULTS[fault]:
        assert text in report
    # The next launch is not harmed.
    test_block_sum(emulator, "reverse")


def test_shared_memory_beyond_48_kb_must_be_asked_for(emulator):
    out = np.zeros((32, 6), np.int32)
    assert emulator.run_too_much_shared(pointer(out)) != 0
    assert emulator.allow_shared(228 << 10) != 0
    assert emulator.run_too_much_shared(pointer(out)) != 0
    assert emulator.allow_shared(60_000) == 0
    assert emulator.run_too_much_shared(pointer(out)) == 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rounding(emulator, dtype):
    convert = emulator.round_half if dtype == "float16" else emulator.round_bfloat16
    rng = np.random.default_rng(0)
    special = [0.0, -0.0, 65504.0, 1e6, 1e-7, np.inf, -np.inf, 1 + 2**-11, 1 + 2**-8]
    values = np.concatenate((special, rng.normal(size=99))).astype(np.float32)
    with np.errstate(over="ignore"):
        expected = encode(values, dtype)
    assert [convert(float(v)) for v in values] == expected.tolist()
    assert np.isnan(decode(np.array([convert(float("nan"))], np.uint16), dtype)).all()
