"""One wheel under several versions of torch: python tests/build/abi_check.py [VERSION ...].

Builds a wheel with the torch of this environment, installs it beside each other version in an
environment of its own (downloaded once, kept under build/abi-check), and there loads it, runs
opcheck of depthwise_scales on the CPU and compares its result with the reference.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
VERSIONS = ("2.11.0", "2.15.0")

PROBE = """
import torch, lmwp_ops
from lmwp_ops import _loader

_loader.require("_C")
_loader.require("_host")
if torch.version.cuda is not None and (_loader.read_build_info()["cuda"] or "").startswith(
    torch.version.cuda.split(".")[0]
):
    _loader.require("_C_cuda")

def branches(grad):
    torch.manual_seed(0)
    sizes = [(2, 3, 13, 17), (2, 5, 7, 9)]
    xs = [torch.randn(size, requires_grad=grad) for size in sizes]
    weights = [torch.randn(size[1], 1, 3, 3, requires_grad=grad) for size in sizes]
    channels = [[torch.randn(size[1], requires_grad=grad) for size in sizes] for _ in range(3)]
    return xs, weights, *channels

for stride, dilation in ((1, 1), (1, 2), (2, 1)):
    for grad in (False, True):
        arguments = (*branches(grad), stride, dilation)
        torch.library.opcheck(torch.ops.lmwp_ops.depthwise_scales.default, arguments)
    with lmwp_ops.use_backend("cpp"):
        found = torch.ops.lmwp_ops.depthwise_scales.default(*arguments)
    with lmwp_ops.use_backend("reference"):
        expected = torch.ops.lmwp_ops.depthwise_scales.default(*arguments)
    torch.testing.assert_close(found, expected)
print(f"torch {torch.__version__}: {_loader.status()}")
"""


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    subprocess.run(command, check=True, cwd=cwd)


def build_wheel(folder: Path) -> Path:
    """A wheel of this tree, compiled with the torch of this environment."""
    pip = (sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps")
    run(*pip, "-w", folder, ROOT)
    return next(folder.glob("lmwp_ops-*.whl"))


def environment(version: str) -> Path:
    """The interpreter of an environment that holds torch `version`."""
    folder = ROOT / "build" / "abi-check" / f"torch-{version}"
    python = folder / "bin" / "python"
    ready = folder / "ready"
    if not ready.exists():
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        run(python, "-m", "pip", "install", "-q", f"torch=={version}", "numpy")
        ready.touch()
    return python


def check(python: Path, wheel: Path) -> None:
    """Install the wheel into that environment and run the probe there."""
    run(python, "-m", "pip", "install", "-q", "--no-deps", "--force-reinstall", wheel)
    with tempfile.TemporaryDirectory() as elsewhere:
        run(python, "-c", PROBE, cwd=Path(elsewhere))


def main() -> None:
    """Check every version asked for; stops at the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("versions", nargs="*", default=VERSIONS, metavar="VERSION")
    versions = parser.parse_args().versions
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder))
        for version in versions:
            check(environment(version), wheel)
    print(f"{wheel.name} works under torch {' and '.join(versions)}")


if __name__ == "__main__":
    main()
