"""GPU kernels are checked at first use, once; who fails is left out and says why."""

import json
import re
import threading
import time
import warnings
from pathlib import Path

import pytest
import torch

import lmwp_ops
from lmwp_ops import _dispatch, _gpu, _verification
from lmwp_ops.env import collect, render

from . import fake_gpu
from .conftest import forget_this_process
from .fake_gpu import OP, call, install

THIRD_OF_SIX = torch.full((1, 1, 2, 2), 2.0)
BAD = {
    "wrong": (fake_gpu.wrong, r"result 0 is off by 0\.25 where .* is allowed"),
    "nan": (fake_gpu.nan, "result 0 is off by nan"),
    "crashing": (fake_gpu.crashing, "RuntimeError: no kernel image is available$"),
    "short": (lambda: fake_gpu.Counted(lambda xs: []), "0 results where 1 are expected"),
    "other dtype": (
        lambda: fake_gpu.Counted(lambda xs: [xs[0].half() / 3]),
        r"result 0 is float16 \[1, 2, 3, 4\] where float32 \[1, 2, 3, 4\] is expected",
    ),
}
bad = pytest.mark.parametrize(("make", "error"), BAD.values(), ids=BAD)


def test_a_right_kernel_is_checked_once() -> None:
    kernel = fake_gpu.right()
    install(triton=kernel)
    for _ in range(3):
        torch.testing.assert_close(call(), THIRD_OF_SIX)
    assert kernel.calls == 4
    assert lmwp_ops.explain(OP, [THIRD_OF_SIX]).backend == "triton"


def test_every_dtype_and_backend_is_checked_on_its_own() -> None:
    kernel = fake_gpu.Counted(lambda xs: [x / (3 if x.dtype == torch.float32 else 2) for x in xs])
    install(triton=kernel)
    assert call().dtype == torch.float32
    with pytest.warns(RuntimeWarning, match="third on triton in bfloat16 failed"):
        torch.testing.assert_close(call(torch.bfloat16), THIRD_OF_SIX.bfloat16())
    assert kernel.calls == 3
    call()
    assert kernel.calls == 4


@bad
def test_a_bad_kernel_is_left_out_with_one_warning(make, error: str) -> None:
    kernel, other = make(), fake_gpu.right()
    install(cuda=kernel, triton=other)
    with pytest.warns(RuntimeWarning) as caught:
        results = [call() for _ in range(3)]
    for y in results:
        torch.testing.assert_close(y, THIRD_OF_SIX)
    assert len(caught) == 1
    text = str(caught[0].message)
    for part in ("third on cuda in float32", "Fake 1000 (sm_90)", "warmup()", "lmwp_ops.env"):
        assert part in text
    assert (kernel.calls, other.calls) == (1, 4)
    assert "failed its check" in lmwp_ops.explain(OP, [THIRD_OF_SIX]).refusals["cuda"]


@bad
def test_explain_and_env_name_the_error(make, error: str) -> None:
    install(triton=make())
    with pytest.warns(RuntimeWarning):
        call()
    (explained,) = [
        line
        for line in str(lmwp_ops.explain(OP, [THIRD_OF_SIX])).splitlines()
        if "not triton" in line
    ]
    report = collect()["verified_kernels"]
    for text in (explained, report[OP]["triton float32 sm_90"]):
        assert re.search(error, text)


def test_env_lists_what_is_right() -> None:
    install(triton=fake_gpu.right())
    call()
    report = collect()
    assert report["verified_kernels"] == {OP: {"triton float32 sm_90": "right"}}
    assert "  third: triton float32 sm_90 right" in render(report).splitlines()
    json.dumps(report)


@bad
def test_a_forced_bad_kernel_raises(make, error: str) -> None:
    install(triton=make())
    with (
        lmwp_ops.use_backend("triton"),
        pytest.warns(RuntimeWarning),
        pytest.raises(
            lmwp_ops.BackendError, match=r"third: backend 'triton' was forced .*: " + "it failed"
        ),
    ):
        call()
    with (
        lmwp_ops.use_backend("triton"),
        pytest.raises(lmwp_ops.BackendError, match=error),
    ):
        call()


def test_a_later_process_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    good, poor = fake_gpu.right(), fake_gpu.wrong()
    install(cuda=poor, triton=good)
    with pytest.warns(RuntimeWarning):
        call()
    forget_this_process(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call()
    assert (poor.calls, good.calls) == (1, 3)


@pytest.mark.parametrize("version", sorted(_gpu.versions()))
def test_another_version_is_checked_again(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    kernel = fake_gpu.right()
    install(triton=kernel)
    call()
    forget_this_process(monkeypatch)
    changed = _gpu.versions() | {version: "another"}
    monkeypatch.setattr(_gpu, "versions", lambda: changed)
    assert collect()["verified_kernels"] == {}
    call()
    assert kernel.calls == 4


def test_another_architecture_is_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = fake_gpu.right()
    install(triton=kernel)
    call()
    forget_this_process(monkeypatch)
    monkeypatch.setattr(_gpu, "describe", lambda device: _gpu.Gpu("Fake 2000", (12, 0), 100))
    call()
    assert kernel.calls == 4
    assert set(collect()["verified_kernels"][OP]) == {
        "triton float32 sm_90",
        "triton float32 sm_120",
    }


def test_switched_off_it_checks_nothing(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    kernel = fake_gpu.wrong()
    install(triton=kernel)
    monkeypatch.setattr(_verification, "enabled", False)
    assert call()[0, 0, 0, 0] == 2.25
    assert kernel.calls == 1
    assert not cache.exists()


def test_capture_trusts_and_a_later_call_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = fake_gpu.wrong()
    install(triton=kernel)
    monkeypatch.setattr(_gpu, "is_capturing", lambda: True)
    assert call()[0, 0, 0, 0] == 2.25
    assert kernel.calls == 1
    monkeypatch.setattr(_gpu, "is_capturing", lambda: False)
    with pytest.warns(RuntimeWarning):
        assert call()[0, 0, 0, 0] == 2
    monkeypatch.setattr(_gpu, "is_capturing", lambda: True)
    forget_this_process(monkeypatch)
    assert call()[0, 0, 0, 0] == 2
    assert kernel.calls == 2


def test_tracing_checks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = fake_gpu.right()
    install(triton=kernel)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    call()
    assert kernel.calls == 1


def test_a_compiled_graph_checks_when_it_runs_and_not_when_it_is_traced() -> None:
    op = _dispatch.op_named("depthwise_scales")
    reference = op.candidates["reference"].run
    sizes: list[torch.Size] = []

    def kernel(xs: list[torch.Tensor], *others: object) -> list[torch.Tensor]:
        sizes.append(xs[0].shape)
        return reference(xs, *others)

    _dispatch.register(
        op.name,
        [*op.candidates.values(), _dispatch.Candidate("triton", kernel)],
        op.bind,
        op.example,
    )
    x, w = torch.randn(1, 3, 5, 4), torch.randn(3, 1, 3, 3)
    torch._dynamo.reset()

    @torch.compile(fullgraph=True, backend="aot_eager")
    def compiled(x: torch.Tensor) -> torch.Tensor:
        return lmwp_ops.depthwise_scales([x * 2], [w])[0] + 1

    with torch.no_grad():
        y = compiled(x)
        compiled(x)
    torch.testing.assert_close(y, reference([2 * x], [w], [], [], [], 1, 1)[0] + 1)
    example = op.example(x.device, x.dtype, None)[0][0]
    assert sizes == [example.shape, x.shape, x.shape]


def test_want_of_memory_is_no_verdict(cache: Path) -> None:
    def hungry(xs: list[torch.Tensor]) -> list[torch.Tensor]:
        if kernel.calls == 1:
            raise torch.OutOfMemoryError
        return fake_gpu.reference(xs)

    kernel = fake_gpu.Counted(hungry)
    install(triton=kernel)
    torch.testing.assert_close(call(), THIRD_OF_SIX)
    assert not cache.exists()
    call()
    assert kernel.calls == 4
    assert len(list(cache.rglob("*.json"))) == 1


def test_a_kernel_that_calls_its_own_op_is_no_endless_loop() -> None:
    def recursive(xs: list[torch.Tensor]) -> list[torch.Tensor]:
        return _dispatch.run(OP, xs[:1]) if kernel.calls < 3 else fake_gpu.reference(xs)

    kernel = fake_gpu.Counted(recursive)
    install(triton=kernel)
    torch.testing.assert_close(call(), THIRD_OF_SIX)


def test_two_threads_check_once() -> None:
    def slow(xs: list[torch.Tensor]) -> list[torch.Tensor]:
        time.sleep(0.2)
        return fake_gpu.reference(xs)

    kernel = fake_gpu.Counted(slow)
    install(triton=kernel)
    results: list[torch.Tensor] = []
    threads = [threading.Thread(target=lambda: results.append(call())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kernel.calls == 3
    assert all(torch.equal(y, THIRD_OF_SIX) for y in results)
    assert len(results) == 2


def test_calls_on_the_cpu_are_not_checked(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    kernel = fake_gpu.wrong()
    install(triton=kernel)
    monkeypatch.setattr(_gpu, "describe", lambda device: None)
    call()
    assert kernel.calls == 1
    assert not cache.exists()


def test_the_check_feels_nothing_of_its_surroundings() -> None:
    kernel = fake_gpu.right()
    install(triton=kernel)
    state = torch.get_rng_state()
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        call()
    assert torch.equal(state, torch.get_rng_state())
    assert lmwp_ops.explain(OP, [THIRD_OF_SIX]).backend == "triton"
