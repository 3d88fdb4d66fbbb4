"""The `lmwp` command."""

from lmwp_models.cli.main import main

__all__ = ["main"]
