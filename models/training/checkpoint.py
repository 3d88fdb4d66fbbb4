"""Checkpoints that are either whole or absent.

`RUN/checkpoints/step-00001200/` holds `model.safetensors` (weights, with the network's
configuration inside) and `state.pt` (optimiser, step, random state). A checkpoint is written
under a temporary name, flushed to disk and renamed, so a killed process leaves the older ones.
"""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from lmwp_models.errors import UserError
from lmwp_models.weights import save_model, sync_folder, write_atomically

KEPT = 2
_NAME = re.compile(r"step-(\d+)")


def save_checkpoint(
    run: Path,
    step: int,
    model: nn.Module,
    state: dict[str, Any],
    *,
    name: str,
    input_size: tuple[int, int],
) -> Path:
    """Write checkpoint `step` of `run`, then drop all but the newest `KEPT`.

    Raises `UserError` when the disk refuses; older checkpoints are then untouched.
    """
    folder = run / "checkpoints"
    final = folder / f"step-{step:08d}"
    if final.is_dir():
        return final
    partial = folder / f".{final.name}.partial"
    for left_over in folder.glob(".*.partial"):
        shutil.rmtree(left_over, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        save_model(model, partial / "model.safetensors", name=name, input_size=input_size)
        data = io.BytesIO()  # torch.save to a full disk hides what the system said
        torch.save(state, data)
        write_atomically(partial / "state.pt", data.getvalue())
        partial.rename(final)
        sync_folder(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(f"cannot write checkpoint {final}: {error.strerror}") from error
    for old in list_checkpoints(run)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def list_checkpoints(run: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    folder = run / "checkpoints"
    if not folder.is_dir():
        return []
    return sorted(entry for entry in folder.iterdir() if _NAME.fullmatch(entry.name))


def load_checkpoint(checkpoint: Path, model: nn.Module) -> dict[str, Any]:
    """Put the weights into `model` and return the rest of the saved state (on the CPU)."""
    try:
        model.load_state_dict(safetensors.torch.load_file(checkpoint / "model.safetensors"))
        return torch.load(checkpoint / "state.pt", map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise many kinds for a damaged file
        raise UserError(
            f"checkpoint {checkpoint} cannot be read ({error}); "
            "remove that folder to resume from the one before"
        ) from error
