"""Turns the files published by CSNet's authors into a model file of this package.

Weights come as safetensors or as the authors' torch checkpoint, channels as JSON or as their
pickled list; the format is told by the content. No code in any of these files is ever run.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lmwp_models.csnet import IMAGE_CHANNELS
from lmwp_models.csnet_config import CSNetConfig
from lmwp_models.errors import UserError
from lmwp_models.fields import as_counts, as_sequence
from lmwp_models.head_config import HeadConfig
from lmwp_models.plain_pickle import load_plain
from lmwp_models.registry import Network, name_of
from lmwp_models.weights import build_with_weights, read_safetensors, save_model

INPUT_SIZE = (224, 224)
_LARGEST_CONFIG = 16 * 2**20  # bytes; the authors' are 2 KB
_HEAD_ENTRIES = 3


def import_csnet(
    weights: str | Path, config: str | Path, out: str | Path, *, force: bool = False
) -> Network:
    """Write the network of the authors' `weights` and `config` files to `out` (safetensors).

    Args:
        weights: safetensors, or a torch checkpoint with a `state_dict`.
        config: JSON or a pickle; either the list of input and output channels of every block,
            `fuse`, `ms` and `fuse1x1`, ended by the stage lengths, or (JSON only) the same as a
            table with `blocks`, `head` and `stages`.
        out: the file to write; one that exists is kept unless `force`.

    Returns:
        The network, in eval mode. In the file it bears its registered name, or else `csnet`.

    Raises:
        UserError: a file is missing, damaged, refused or does not fit the other.
    """
    weights, config, out = Path(weights), Path(config), Path(out)
    if out.exists() and not force:
        raise UserError(f"{out} exists already; choose another name or pass --force to replace it")
    channels = read_config(config)
    model = build_with_weights(channels, read_weights(weights), weights)
    name = name_of(channels) or "csnet"
    try:
        save_model(model, out, name=name, input_size=INPUT_SIZE)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}") from error
    return model


def read_config(path: Path) -> CSNetConfig:
    """The channels in the authors' JSON or pickle; `UserError` says what is wrong with it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    try:
        if len(data) > _LARGEST_CONFIG:
            raise ValueError(f"expected a list of channels, got a file of {len(data)} bytes")
        is_json = data.lstrip()[:1] in (b"{", b"[")
        content = json.loads(data) if is_json else load_plain(data)
        entries = _entries_of_table(content) if isinstance(content, Mapping) else content
        return _config_of_entries(entries)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} holds no CSNet channels: {error}") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a safetensors file or a torch checkpoint, on the CPU."""
    try:
        with open(path, "rb") as file:
            start = file.read(9)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if start[8:] == b"{":  # safetensors: 8 bytes of header length, then JSON
        return read_safetensors(path)[0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the old format of the authors' files
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for what it cannot read or refuses
        raise UserError(
            f"{path} is refused: damaged, or a checkpoint that holds more than tensors "
            f"and plain containers ({type(error).__name__})"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping) or not all(isinstance(t, Tensor) for t in state.values()):
        raise UserError(f"{path}: expected a state dict of tensors, got {type(state).__name__}")
    return {str(key): tensor for key, tensor in state.items()}


def _entries_of_table(table: Mapping[str, Any]) -> list[Any]:
    """The authors' list out of a table with `blocks`, `head` and `stages`."""
    try:
        blocks = [[block["in_channels"], block["out_channels"]] for block in table["blocks"]]
        head = table["head"]
        fuse, ms, fuse1x1 = head["fuse"], head["ms"], head["fuse1x1"]
        return [
            *blocks,
            [fuse["in_channels"], fuse["out_channels"]],
            [ms["in_channels"], ms["out_channels"], ms["out_channels_per_dilation"]],
            [fuse1x1["in_channels"], fuse1x1["out_channels"]],
            table["stages"],
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"field {error} is missing or not a table") from error


def _config_of_entries(entries: object) -> CSNetConfig:
    """The configuration in the authors' list, whose inputs must fit the outputs before them."""
    items = as_sequence("the file", entries)
    if len(items) < _HEAD_ENTRIES + 2:
        raise ValueError(f"expected blocks, fuse, ms, fuse1x1 and stages, got {len(items)} entries")
    *blocks, fuse, ms, fuse1x1, stages = items
    widths: tuple[int, ...] = (IMAGE_CHANNELS,)
    outputs = []
    for k, block in enumerate(blocks):
        widths = _follow(f"block {k}", block, widths)
        outputs.append(widths)
    fuse_ins, fuse_outs = _lists("fuse", fuse, 2)
    ms_outs = _follow("ms", ms, _counts("fuse", fuse_outs), length=3)
    rows = as_sequence("ms per dilation", ms[2])
    last = _follow("fuse1x1", fuse1x1, ms_outs)
    if len(last) != 1:
        raise ValueError(f"fuse1x1: expected one output branch, got {list(last)}")
    head = HeadConfig(
        _counts("fuse", fuse_outs), tuple(_counts("ms per dilation", row) for row in rows), last[0]
    )
    config = CSNetConfig(tuple(outputs), head, _counts("stages", stages))
    if head.ms_widths != ms_outs:
        sums = list(head.ms_widths)
        raise ValueError(f"ms: outputs {list(ms_outs)} are not the sums {sums} of its dilations")
    ends = tuple(config.blocks[k][0] for k in config.head_inputs)
    if _counts("fuse", fuse_ins) != ends:
        raise ValueError(f"fuse: expected inputs {list(ends)} from the stages, got {fuse_ins}")
    return config


def _follow(what: str, entry: object, inputs: tuple[int, ...], length: int = 2) -> tuple[int, ...]:
    """Output channels of an entry whose input channels must be `inputs`."""
    ins, outs, *_ = _lists(what, entry, length)
    if _counts(what, ins) != inputs:
        raise ValueError(f"{what}: expected inputs {list(inputs)} from the layer before, got {ins}")
    return _counts(what, outs)


def _lists(what: str, entry: object, length: int) -> Sequence[Any]:
    parts = as_sequence(what, entry)
    if len(parts) != length:
        raise ValueError(f"{what}: expected {length} lists of channels, got {len(parts)}")
    return parts


def _counts(what: str, values: object) -> tuple[int, ...]:
    """Whole numbers, which the authors' files store as floats, and one of them as it is."""
    numbers = [values] if isinstance(values, int | float) else as_sequence(what, values)
    return as_counts(
        what, [int(v) if isinstance(v, float) and v.is_integer() else v for v in numbers]
    )
