"""warmup: what it prepares, reports, and leaves for later calls."""

import json
import warnings

import pytest
import torch

import lmwp_ops
from lmwp_ops import _dispatch, _tuning, _verification
from lmwp_ops._dispatch import Candidate
from lmwp_ops._warmup import Report

from . import fake_gpu
from .fake_gpu import OP, call, install


@pytest.fixture(autouse=True)
def _timer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tuning, "timer", lambda run: (run(), 0.5)[1])


def warm(**options: object) -> Report:
    return lmwp_ops.warmup([OP], [torch.float32], device="cpu", **options)


def verdicts(report: Report) -> dict[str, str]:
    return {row.backend: row.verdict for row in report.rows}


def test_without_a_gpu_it_is_empty_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in (None, "cuda", "cuda:1"):
        report = lmwp_ops.warmup(device=device)
        assert not report.rows
        assert str(report) == f"nothing to warm up: torch {torch.__version__} sees no GPU"


def test_the_cpu_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    report = lmwp_ops.warmup(device="cpu")
    assert report.to_dict() == {"gpu": None, "reason": "cpu is not a GPU", "rows": []}
    with pytest.raises(ValueError, match="warmup: table: expected a GPU, got none: cpu is not"):
        report.table()


def test_every_kernel_has_a_row() -> None:
    install(cuda=fake_gpu.wrong(), triton=fake_gpu.right(), cpp=fake_gpu.right())
    with pytest.warns(RuntimeWarning, match="third on cuda in float32"):
        report = warm()
    assert verdicts(report) == {"cuda": "failed", "triton": "right", "reference": "right"}
    rows = {row.backend: row for row in report.rows}
    assert "off by 0.25" in rows["cuda"].reason
    assert rows["cuda"].ms is None
    assert rows["triton"].ms == 0.5
    assert json.loads(json.dumps(report.to_dict()))["rows"][1]["backend"] == "triton"
    lines = str(report).splitlines()
    assert lines[0] == "Fake 1000 (sm_90)"
    assert "  third  triton  float32  right  0.5000 ms" in lines


def test_later_calls_check_nothing() -> None:
    kernel = fake_gpu.right()
    install(triton=kernel)
    warm()
    before = kernel.calls
    call()
    assert kernel.calls == before + 1


def test_what_failed_is_checked_again_and_what_is_right_is_not() -> None:
    install(triton=fake_gpu.wrong())
    with pytest.warns(RuntimeWarning):
        call()
    mended = fake_gpu.right()
    install(triton=mended)
    assert "failed" in lmwp_ops.explain(OP, [torch.ones(1, 1, 2, 2)]).refusals["triton"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert verdicts(warm())["triton"] == "right"
        calls = mended.calls
        warm()
    assert lmwp_ops.explain(OP, [torch.ones(1, 1, 2, 2)]).backend == "triton"
    assert mended.calls - calls == calls - 1


def test_candidates_that_cannot_run_say_why() -> None:
    candidates = [
        Candidate("cuda", fake_gpu.right(), unavailable="not compiled"),
        Candidate("triton", fake_gpu.right(), refuse=lambda xs: "it takes odd sizes only"),
        Candidate("reference", fake_gpu.reference),
    ]
    _dispatch.register(OP, candidates, bind=lambda xs: (xs,), example=fake_gpu.example)
    report = warm()
    assert verdicts(report) == {
        "cuda": "not available",
        "triton": "refuses",
        "reference": "right",
    }
    assert [row.reason for row in report.rows[:2]] == ["not compiled", "it takes odd sizes only"]


def test_the_shapes_of_a_user_are_timed() -> None:
    kernel = fake_gpu.right()
    install(triton=kernel)
    shapes = [[(2, 3, 8, 8)], [(1, 1, 4, 4), (1, 2, 2, 2)]]
    report = warm(shapes={OP: shapes})
    assert [row.shapes for row in report.rows if row.backend == "triton"] == shapes
    assert [tuple(x.shape) for x in kernel.xs] == shapes[-1]
    assert "1x1x4x4 1x2x2x2" in str(report)


def test_a_kernel_that_fails_on_the_shapes_of_a_user_is_a_row() -> None:
    def limited(xs: list[torch.Tensor]) -> list[torch.Tensor]:
        if xs[0].numel() > 24:
            raise torch.OutOfMemoryError("too large\nfor this GPU")
        return fake_gpu.reference(xs)

    install(triton=limited)
    report = warm(shapes={OP: [[(2, 3, 8, 8)]]})
    assert report.rows[0].verdict == "failed"
    assert report.rows[0].reason == "OutOfMemoryError: too large"
    assert report.rows[1].verdict == "right"


def test_switched_off_it_says_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    install(triton=fake_gpu.wrong())
    monkeypatch.setattr(_verification, "enabled", False)
    row = warm().rows[0]
    assert (row.verdict, row.reason, row.ms) == ("not checked", "LMWP_OPS_VERIFY=0", 0.5)


def test_kernels_run_without_gradients_and_the_caller_keeps_them() -> None:
    modes: list[bool] = []

    def watching(xs: list[torch.Tensor]) -> list[torch.Tensor]:
        modes.append(torch.is_grad_enabled())
        return fake_gpu.reference(xs)

    install(triton=watching)
    warm()
    assert modes
    assert not any(modes)
    assert torch.is_grad_enabled()


def test_progress_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    install(triton=fake_gpu.right())
    warm(progress=True)
    output = capsys.readouterr()
    assert not output.out
    assert output.err.splitlines()[0] == "third  triton  float32  right  0.5000 ms"


@pytest.mark.parametrize("options", [{"ops": ["nothing"]}, {"shapes": {"nothing": []}}], ids=str)
def test_an_unknown_op_is_an_error(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=rf"warmup: {next(iter(options))}: .* got 'nothing'"):
        lmwp_ops.warmup(device="cpu", **options)


def test_shapes_that_an_op_cannot_compute_are_an_error() -> None:
    shapes = {"goctconv2d": [[(1, 4, 8, 8), (1, 4, 5, 4)]]}
    with pytest.raises(ValueError, match="goctconv2d: xs, branch 1: expected 4 x 4"):
        lmwp_ops.warmup([lmwp_ops.goctconv2d], device="cpu", shapes=shapes)


def test_a_backward_pass_comes_with_its_op() -> None:
    sizes = [(1, 2, 8, 8), (1, 3, 4, 4)]
    report = lmwp_ops.warmup(
        [lmwp_ops.goctconv2d], [torch.float32], device="cpu", shapes={"goctconv2d": [sizes]}
    )
    assert {row.op for row in report.rows} == {"goctconv2d", "goctconv2d_backward"}
    assert all(row.shapes == sizes for row in report.rows)


def test_the_ops_of_the_package_warm_up() -> None:
    report = lmwp_ops.warmup(device="cpu")
    assert {row.op for row in report.rows} == set(_dispatch.registered())
    assert {row.verdict for row in report.rows if row.backend == "reference"} == {"right"}
