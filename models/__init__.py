"""Networks, data, training, evaluation and commands on top of `lmwp_ops`."""

from typing import Any

__all__ = ["create_model", "list_models", "load_model", "model_info", "save_model"]


def __getattr__(name: str) -> Any:
    """Import the networks on first use, so that `lmwp --help` need not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lmwp_models import registry, weights

    return getattr(weights if name in ("load_model", "save_model") else registry, name)
