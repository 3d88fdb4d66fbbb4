"""Packages, package data and the compiled libraries; the rest is in pyproject.toml.

LMWP_OPS_BUILD=auto|cuda|cpu|none chooses what is compiled (auto: as much as this machine can).
"""

import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from build_tools.commands import BuildLibraries, Wheel  # noqa: E402

FOLDERS = {"lmwp_ops": "lmwp_ops", "lmwp_models": "models", "lmwp_bench": "bench"}
PACKAGE_DATA = {
    "lmwp_ops": ["py.typed", "*.pyi", "ops/*/README.md", "tuned/*"],
    "lmwp_models": ["py.typed", "recipes/*.toml", "templates/*"],
    "lmwp_bench": ["py.typed", "templates/*"],
}


def package_folders() -> dict[str, str]:
    """Import name of each top package -> its folder, for those this tree holds."""
    return {name: folder for name, folder in FOLDERS.items() if (ROOT / folder).is_dir()}


def package_names() -> list[str]:
    """Every package and sub-package, by import name."""
    names = []
    for name, folder in package_folders().items():
        names += [name, *(f"{name}.{inner}" for inner in find_packages(str(ROOT / folder)))]
    return names


if __name__ == "__main__":
    setup(
        packages=package_names(),
        package_dir=package_folders(),
        package_data=PACKAGE_DATA,
        ext_modules=[Extension("lmwp_ops._host", sources=[])],
        cmdclass={"build_ext": BuildLibraries, "bdist_wheel": Wheel},
    )
