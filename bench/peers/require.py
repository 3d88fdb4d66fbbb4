"""Packages that may be missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from lmwp_bench.variant import Unavailable


def require(package: str) -> ModuleType:
    """Import `package`; `Unavailable` says how to install it where it is missing."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise Unavailable(f"{error}; pip install {package}") from None
