"""python -m lmwp_ops.env, in processes of their own."""

import json
import os
import platform
import subprocess
import sys

import pytest

from lmwp_ops import _loader


def report(*arguments: str, **variables: str) -> str:
    command = [sys.executable, "-m", "lmwp_ops.env", *arguments]
    environ = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    return subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout


def test_json() -> None:
    facts = json.loads(report("--json", LMWP_OPS_CPU_CAPABILITY="sse42"))
    assert facts["versions"]["torch"]
    assert facts["libraries"] == _loader.status()
    assert facts["build"] == _loader.read_build_info()
    assert "reference" in facts["ops"]["depthwise_scales"]
    assert facts["environment"]["LMWP_OPS_CPU_CAPABILITY"] == "sse42"
    instruction_set = facts["instruction_set"]
    if "sse42" in instruction_set["compiled"]:
        assert instruction_set["chosen"] == "sse42"


def test_an_unknown_instruction_set_is_named() -> None:
    if _loader.why_not("_host") or platform.machine() != "x86_64":
        pytest.skip("no choice of instruction sets here")
    lines = report(LMWP_OPS_CPU_CAPABILITY="mmx").splitlines()
    expected = "LMWP_OPS_CPU_CAPABILITY: expected sse42, avx2 or avx512, got mmx"
    assert f"  chosen: {expected}" in lines


def test_text_names_what_was_switched_off() -> None:
    lines = report(LMWP_OPS_DISABLE_EXT="1").splitlines()
    assert "  _C: switched off by LMWP_OPS_DISABLE_EXT=1" in lines
    assert "  depthwise_scales reference: usable" in lines
    assert "  LMWP_OPS_DISABLE_EXT: 1" in lines
