"""Weight files: safetensors with the network's configuration inside."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from lmwp_models.errors import UserError
from lmwp_models.registry import Config, Network, build_model, config_from_dict

FORMAT = "lmwp-model/1"


def save_model(
    model: nn.Module,
    path: str | Path,
    *,
    name: str,
    input_size: tuple[int, int],
    extra: Mapping[str, str] | None = None,
) -> None:
    """Write a network as safetensors, whole or not at all.

    The metadata holds `format`, `model` (its `name`), `config` (JSON of `model.config.to_dict()`),
    `input_size` (JSON of [H, W], the size it is meant to be used at), and the entries of `extra`.

    Raises:
        OSError: the disk refuses; a file that was there before is untouched.
    """
    config: Any = model.config
    metadata = {
        **(extra or {}),
        "format": FORMAT,
        "model": name,
        "config": json.dumps(config.to_dict()),
        "input_size": json.dumps(list(input_size)),
    }
    tensors = {key: value.detach().contiguous() for key, value in model.state_dict().items()}
    write_atomically(Path(path), safetensors.torch.save(tensors, metadata))


def load_model(path: str | Path) -> tuple[Network, dict[str, str]]:
    """The network in a file of `save_model`, on the CPU in eval mode, and the file's metadata.

    Raises:
        UserError: the file is missing, damaged or something else.
    """
    path = Path(path)
    tensors, metadata = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise UserError(
            f"{path}: expected a model file of format {FORMAT}, got "
            f"{metadata.get('format', 'safetensors without a format')}; "
            "convert authors' weights with `lmwp import-csnet`"
        )
    try:
        config = config_from_dict(json.loads(metadata["config"]))
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: its network configuration is damaged: {error}") from error
    return build_with_weights(config, tensors, path), metadata


def build_with_weights(config: Config, tensors: Mapping[str, Tensor], path: Path) -> Network:
    """The network of `config` holding `tensors`, which came from `path`, in eval mode.

    Raises:
        UserError: naming the first tensor that is missing, unknown or of a wrong shape.
    """
    with torch.device("meta"):
        model = build_model(config)
    _check_tensors(path, tensors, model.state_dict())
    model.to_empty(device="cpu").load_state_dict(tensors)
    return model.eval()


def _check_tensors(
    path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> None:
    for key, value in expected.items():
        if key not in tensors:
            raise UserError(f"{path}: tensor {key} is missing; the configuration asks for it")
        if tensors[key].shape != value.shape:
            raise UserError(
                f"{path}: tensor {key}: expected shape {list(value.shape)} by the configuration, "
                f"got {list(tensors[key].shape)}"
            )
    for key in tensors:
        if key not in expected:
            raise UserError(f"{path}: tensor {key} has no place in the configured network")


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of any safetensors file; `UserError` if it is missing or damaged."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            return {key: file.get_tensor(key) for key in file.keys()}, metadata  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: cannot be read as a safetensors file: {error}") from error


def write_atomically(path: Path, data: bytes) -> None:
    """Put `data` at `path` under a temporary name first, so that it is never half there."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
