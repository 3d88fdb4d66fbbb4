"""Networks, data, training, evaluation and commands on top of `lmwp_ops`."""

import importlib
from typing import Any

_HOMES = {
    "create_model": "registry",
    "list_models": "registry",
    "load_model": "weights",
    "model_info": "registry",
    "optimize_for_inference": "inference",
    "save_model": "weights",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    """Import the networks on first use, so that `lmwp --help` need not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"lmwp_models.{_HOMES[name]}"), name)
