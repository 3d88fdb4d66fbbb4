"""Runs checks in a process of its own with Triton's interpreter in place of its compiler.

Triton chooses between the two when it is imported. As a program:
`interpreted.py CHECKS FUNCTION [SOUND FAULTY]` runs `FUNCTION` of `tests/interpreter/<CHECKS>.py`,
with SOUND replaced by FAULTY in that file of kernels of the op of that name that holds it.
"""

import importlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

TESTS = Path(__file__).parents[1]


def run_interpreted(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, __file__, *arguments],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )


def plant(op: str, sound: str, faulty: str) -> None:
    """Import the kernels of an op with a fault in them."""
    package = f"lmwp_ops.ops.{op}"
    folder = Path(importlib.util.find_spec(package).origin).parent
    (sick,) = (path for path in folder.glob("*_kernels.py") if sound in path.read_text())
    spec = importlib.util.find_spec(f"{package}.{sick.stem}")
    with tempfile.TemporaryDirectory() as elsewhere:
        spec.loader.path = os.path.join(elsewhere, sick.name)
        Path(spec.loader.path).write_text(sick.read_text().replace(sound, faulty))
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)


def main(checks: str, function: str, *fault: str) -> None:
    if fault:
        plant(checks, *fault)
    # A name of its own for the tests, which are no package that is installed.
    spec = importlib.util.spec_from_loader("checked", None, is_package=True)
    sys.modules["checked"] = package = importlib.util.module_from_spec(spec)
    package.__path__ = [str(TESTS)]
    module = importlib.import_module(f"checked.interpreter.{checks}")
    torch.manual_seed(0)
    getattr(module, function)()


if __name__ == "__main__":
    main(*sys.argv[1:])
