"""Runs a function of a test module under another instruction set of the CPU kernels."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

INSTRUCTION_SETS = ("sse42", "avx2", "avx512")

_CODE = """\
import importlib, importlib.util, json, sys
package = importlib.util.module_from_spec(
    importlib.util.spec_from_loader("tests_of_ops", None, is_package=True)
)
package.__path__ = [sys.argv[1]]
sys.modules["tests_of_ops"] = package
module = importlib.import_module("tests_of_ops." + sys.argv[2])
print(json.dumps(getattr(module, sys.argv[3])()))
"""


def run_under(capability: str, module: str, function: str) -> Any:
    """What `function` of `tests/ops/<module>` returns in a process of its own, through JSON.

    A processor without the instruction set runs the next lesser one.
    """
    done = subprocess.run(
        [sys.executable, "-c", _CODE, str(Path(__file__).parent), module, function],
        env={**os.environ, "LMWP_OPS_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
