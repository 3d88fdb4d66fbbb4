"""Choice of a backend: order, refusals, forcing, and what explain says of it."""

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import lmwp_ops
from lmwp_ops import _dispatch, _triton
from lmwp_ops._dispatch import Candidate


@pytest.fixture(autouse=True)
def _no_lasting_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_dispatch, "_forced", None)
    monkeypatch.setattr(_dispatch, "_ops", dict(_dispatch._ops))


@pytest.fixture
def echo() -> str:
    """An op of three candidates: cuda is not loaded, cpp takes even numbers."""
    _dispatch.register(
        "echo",
        [
            Candidate("reference", lambda n: ("reference", n)),
            Candidate("cpp", lambda n: ("cpp", n), refuse=lambda n: "odd" if n % 2 else None),
            Candidate("cuda", lambda n: ("cuda", n), unavailable="not compiled"),
        ],
        bind=lambda n: (n,),
        example=lambda device, dtype, shapes: (2,),
    )
    return "echo"


def test_first_that_accepts_runs(echo: str) -> None:
    assert _dispatch.run(echo, 2) == ("cpp", 2)
    assert _dispatch.run(echo, 3) == ("reference", 3)


def test_explain_gives_every_reason(echo: str) -> None:
    explanation = lmwp_ops.explain(echo, 3)
    assert explanation.backend == "reference"
    assert explanation.refusals == {"cuda": "not compiled", "cpp": "odd"}
    assert str(explanation).splitlines() == [
        "echo runs on reference",
        "  not cuda: not compiled",
        "  not cpp: odd",
    ]
    assert json.loads(json.dumps(explanation.to_dict()))["backend"] == "reference"
    assert lmwp_ops.explain(echo, 2).refusals["reference"] == "cpp comes first"


def test_forced_backend_runs_or_raises(echo: str) -> None:
    with lmwp_ops.use_backend("reference"):
        assert _dispatch.run(echo, 2) == ("reference", 2)
        assert lmwp_ops.explain(echo, 2).refusals["cpp"] == "reference is forced"
    with (
        lmwp_ops.use_backend("cpp"),
        pytest.raises(lmwp_ops.BackendError, match=r"echo: backend 'cpp' was forced .*: odd"),
    ):
        _dispatch.run(echo, 3)
    with (
        lmwp_ops.use_backend("cuda"),
        pytest.raises(lmwp_ops.BackendError, match="not compiled"),
    ):
        _dispatch.run(echo, 2)
    with lmwp_ops.use_backend("cpp"):
        assert "cannot run (forced: cpp)" in str(lmwp_ops.explain(echo, 3))


def test_op_without_the_forced_backend_keeps_its_choice(echo: str) -> None:
    with lmwp_ops.use_backend("triton"):
        assert _dispatch.run(echo, 2) == ("cpp", 2)


def test_use_backend_nests_and_acts_at_once(echo: str) -> None:
    lmwp_ops.use_backend("reference")
    assert _dispatch.run(echo, 2)[0] == "reference"
    with lmwp_ops.use_backend("cpp"):
        assert _dispatch.run(echo, 2)[0] == "cpp"
        with lmwp_ops.use_backend("auto"):
            assert _dispatch.run(echo, 3)[0] == "reference"
        assert _dispatch.run(echo, 2)[0] == "cpp"
    assert _dispatch.run(echo, 2)[0] == "reference"
    lmwp_ops.use_backend("auto")
    assert _dispatch.run(echo, 2)[0] == "cpp"


def test_block_restores_after_an_error(echo: str) -> None:
    with pytest.raises(ZeroDivisionError), lmwp_ops.use_backend("reference"):
        raise ZeroDivisionError
    assert _dispatch.run(echo, 2)[0] == "cpp"


def test_unknown_names_are_errors(echo: str) -> None:
    with pytest.raises(ValueError, match=r"use_backend: expected one of auto, cuda.*got 'gpu'"):
        lmwp_ops.use_backend("gpu")
    assert _dispatch.run(echo, 2)[0] == "cpp"
    with pytest.raises(ValueError, match=r"explain: op must be one of .*got 'nothing'"):
        lmwp_ops.explain("nothing")


def test_registered_lists_ops_and_reasons(echo: str) -> None:
    assert _dispatch.registered()["echo"] == {
        "cuda": "not compiled",
        "cpp": None,
        "reference": None,
    }
    assert _dispatch.registered()["depthwise_scales"]["reference"] is None


def test_explain_takes_the_public_function_and_its_arguments() -> None:
    x, w = torch.ones(1, 3, 5, 5, dtype=torch.float64), torch.ones(3, 1, 3, 3, dtype=torch.float64)
    explanation = lmwp_ops.explain(lmwp_ops.depthwise_scales, [x], [w], dilation=2)
    assert explanation.op == "depthwise_scales"
    assert explanation.backend == "reference"
    assert set(explanation.refusals) == {"cuda", "triton", "cpp"}


def test_forced_compiled_backend_refuses_float64() -> None:
    if reason := _dispatch.registered()["depthwise_scales"]["cpp"]:
        pytest.skip(reason)
    x, w = torch.ones(1, 3, 5, 5, dtype=torch.float64), torch.ones(3, 1, 3, 3, dtype=torch.float64)
    with (
        lmwp_ops.use_backend("cpp"),
        pytest.raises(lmwp_ops.BackendError, match="computes in float32; xs is float64"),
    ):
        lmwp_ops.depthwise_scales([x], [w])


def test_triton_is_not_imported_with_the_package() -> None:
    code = "import sys, lmwp_ops; assert not any(m.split('.')[0] == 'triton' for m in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("version", "cuda", "interpret", "reason"),
    [
        ("", "13.0", "0", "triton is not installed"),
        ("3.5.1", "13.0", "0", "it needs triton 3.6; found 3.5.1"),
        ("3.6.0", None, "0", "built without CUDA"),
        ("3.6.0", None, "1", None),
        ("3.10.1", "13.0", "0", None),
    ],
)
def test_triton_says_why_it_cannot_run(
    monkeypatch: pytest.MonkeyPatch, version: str, cuda: str | None, interpret: str, reason: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if version else None)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setenv("TRITON_INTERPRET", interpret)
    found = _triton.why_not()
    assert (reason is None and found is None) or reason in found


def test_triton_refuses_the_cpu_and_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert _triton.refuse([torch.ones(1)]) == "it runs on cuda; xs is on cpu"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert _triton.refuse([torch.ones(1)]) is None
    assert "float64" in _triton.refuse([torch.ones(1).double()])


def test_backward_ops_are_explained_by_their_arguments() -> None:
    x, w = torch.ones(1, 3, 5, 5), torch.ones(3, 1, 3, 3)
    args = ([x], [x], [w], [], [], [], 1, 1, [True, True, False, False, False])
    explanation = lmwp_ops.explain("depthwise_scales_backward", *args)
    assert explanation.backend != "triton"
    assert "triton" in explanation.refusals


def test_environment_forces_a_backend() -> None:
    code = (
        "import torch, lmwp_ops\n"
        "x, w = torch.ones(1, 3, 5, 5), torch.ones(3, 1, 3, 3)\n"
        "print(lmwp_ops.explain('depthwise_scales', [x], [w]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "LMWP_OPS_BACKEND": "reference"},
        capture_output=True,
        text=True,
    )
    assert "runs on reference (forced: reference)" in done.stdout, done.stderr


def test_decomposed_ops_are_torchs_own() -> None:
    x, w = torch.randn(1, 3, 5, 4), torch.randn(3, 1, 3, 3)

    def function(x: torch.Tensor) -> torch.Tensor:
        return lmwp_ops.depthwise_scales([x], [w])[0]

    whole = make_fx(function)(x)
    assert "lmwp_ops" in whole.code
    with lmwp_ops.decomposed():
        parts = make_fx(function)(x)
    assert "lmwp_ops" not in parts.code
    torch.testing.assert_close(parts(x), function(x))


def test_decomposed_checks_its_arguments() -> None:
    with lmwp_ops.decomposed(), pytest.raises(ValueError, match="depthwise_scales"):
        lmwp_ops.depthwise_scales([torch.randn(1, 3, 5, 4)], [])


def test_decomposed_ends_with_its_block_also_after_an_error() -> None:
    with contextlib.suppress(RuntimeError), lmwp_ops.decomposed():
        with lmwp_ops.decomposed():
            assert _dispatch.is_decomposed()
        assert _dispatch.is_decomposed()
        raise RuntimeError
    assert not _dispatch.is_decomposed()
