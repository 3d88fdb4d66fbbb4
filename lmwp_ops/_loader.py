"""The compiled libraries: each is loaded on its own, and one that is not says why.

Importing this module loads what can be loaded and never raises. `LMWP_OPS_DISABLE_EXT=1` leaves
every library out.
"""

import importlib.machinery
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

LIBRARIES = ("_C", "_C_cuda", "_host")
"""CPU kernels, CUDA kernels (both implementations of torch ops) and facts about the processor."""

DISABLE = "LMWP_OPS_DISABLE_EXT"
_FOLDER = Path(__file__).parent


class LibraryError(RuntimeError):
    """A library was asked for by name and is not loaded."""


def read_build_info(folder: Path = _FOLDER) -> dict[str, Any] | None:
    """What the build recorded of itself, or None for a plain-Python installation."""
    try:
        info: dict[str, Any] = json.loads((folder / "_build_info.json").read_text())
    except (OSError, ValueError):
        return None
    return info


def load(name: str, folder: Path = _FOLDER) -> str | None:
    """Load one library; returns None, or the reason why it is not loaded."""
    if os.environ.get(DISABLE) == "1":
        return f"switched off by {DISABLE}=1"
    info = read_build_info(folder)
    if info is None:
        return "not compiled: this installation is plain Python"
    path = _find(name, folder)
    if path is None:
        return "not compiled: " + ("; ".join(info["notices"]) or f"built for {info['mode']} alone")
    versions = _built_and_found(info)
    if name == "_C_cuda" and _major(torch.version.cuda) != _major(info["cuda"]):
        return versions
    try:
        if name == "_host":
            _import_extension(f"{__package__}.{name}", path)
        else:
            torch.ops.load_library(path)
    except (OSError, ImportError) as error:
        return f"{versions}; {str(error).splitlines()[0]}"
    return None


def status() -> dict[str, str | None]:
    """For each library None if it is loaded, else the reason why it is not."""
    return dict(_status)


def why_not(name: str) -> str | None:
    """Why the library `name` is not loaded, or None if it is."""
    return _status[name]


def require(name: str) -> None:
    """Raise LibraryError unless the library `name` is loaded."""
    if reason := why_not(name):
        raise LibraryError(f"{__package__}.{name} is not loaded: {reason}")


def _find(name: str, folder: Path) -> Path | None:
    suffixes = importlib.machinery.EXTENSION_SUFFIXES if name == "_host" else [".so"]
    return next((p for suffix in suffixes if (p := folder / (name + suffix)).exists()), None)


def _built_and_found(info: dict[str, Any]) -> str:
    return (
        f"built with torch {info['torch']}{_for_cuda(info['cuda'])}, "
        f"found torch {torch.__version__}{_for_cuda(torch.version.cuda)}"
    )


def _for_cuda(version: str | None) -> str:
    return f" for CUDA {version}" if version else " without CUDA"


def _major(version: str | None) -> str | None:
    return version.split(".")[0] if version else None


def _import_extension(name: str, path: Path) -> None:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module


_status = {name: load(name) for name in LIBRARIES}
