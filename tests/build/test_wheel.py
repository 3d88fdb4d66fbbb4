"""Distributions really built: sdist, plain wheel from it, and builds that cannot be."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("csrc", "build_tools", "lmwp_ops", "models", "bench", "requirements")
SKIPPED = shutil.ignore_patterns("__pycache__", "*.so", "_build_info.json", "*.egg-info")

PARITY = """
import torch, torch.nn.functional as F, lmwp_ops, lmwp_models
from lmwp_ops import _loader
x, w = torch.randn(2, 3, 5, 7), torch.randn(3, 1, 3, 3)
y = lmwp_ops.depthwise_scales([x], [w])[0]
torch.testing.assert_close(y, F.conv2d(x, w, padding=1, groups=3))
print(lmwp_ops.__file__, *_loader.status().values(), sep="|")
"""


def run(*command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    arguments = [sys.executable, *command]
    return subprocess.run(arguments, cwd=folder, env=environ, capture_output=True, text=True)


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unpacked sdist of a copy of this tree."""
    tree = tmp_path_factory.mktemp("tree")
    for name in SOURCES:
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, tree / name, ignore=SKIPPED)
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, tree)
    built = run("setup.py", "-q", "sdist", folder=tree)
    assert built.returncode == 0, built.stderr
    with tarfile.open(next((tree / "dist").glob("*.tar.gz"))) as archive:
        archive.extractall(tree / "unpacked", filter="data")
    return next((tree / "unpacked").iterdir())


def test_the_sdist_carries_every_source(sdist: Path) -> None:
    for folder in ("csrc", "build_tools", "lmwp_ops", "models"):
        wanted = {
            str(path.relative_to(ROOT))
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and not {"__pycache__", ".so", ".json"} & {*path.parts, path.suffix}
        }
        missing = {name for name in wanted if not (sdist / name).exists()}
        assert not missing


def test_a_plain_wheel_computes_the_same(sdist: Path, tmp_path: Path) -> None:
    built = run(
        "setup.py", "-q", "bdist_wheel", "-d", str(tmp_path), folder=sdist, LMWP_OPS_BUILD="none"
    )
    assert built.returncode == 0, built.stderr
    wheel = next(tmp_path.glob("*.whl"))
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    assert not list((tmp_path / "site").rglob("*.so"))
    assert (tmp_path / "site" / "lmwp_models" / "recipes" / "csnet.toml").exists()
    ran = run("-c", PARITY, folder=tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert ran.returncode == 0, ran.stderr
    origin, *reasons = ran.stdout.strip().split("|")
    assert Path(origin).is_relative_to(tmp_path / "site")
    assert reasons == ["not compiled: this installation is plain Python"] * 3


def test_without_torch_the_wheel_is_plain_and_says_so(sdist: Path, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    built = run(
        "setup.py",
        "-q",
        "bdist_wheel",
        "-d",
        str(tmp_path),
        folder=sdist,
        PYTHONPATH=str(tmp_path),
        LMWP_OPS_BUILD="auto",
    )
    assert built.returncode == 0, built.stderr
    assert next(tmp_path.glob("*.whl")).name.endswith("-py3-none-any.whl")
    notices = [line for line in built.stderr.splitlines() if line.startswith("lmwp-ops build:")]
    assert len(notices) == 1
    assert "torch cannot be imported" in notices[0]


def test_a_named_mode_that_cannot_be_met_is_one_line(sdist: Path) -> None:
    built = run(
        "setup.py", "-q", "build_ext", folder=sdist, LMWP_OPS_BUILD="cpu", CXX="no-such-c++"
    )
    assert built.returncode == 1
    assert "Traceback" not in built.stderr
    assert built.stderr.splitlines()[-1] == (
        "error: LMWP_OPS_BUILD=cpu cannot be met: no C++ compiler: no-such-c++ not found"
    )
