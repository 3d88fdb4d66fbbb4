"""Which format a mask gets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmwp_ops import _loader
from lmwp_ops.ops._arguments import argument_error
from lmwp_ops.ops.sparse_conv2d.layout import FORMATS
from lmwp_ops.ops.sparse_conv2d.packing import Mask, any_over
from lmwp_ops.ops.sparse_conv2d.speed import Size, break_even, predicted_gain

AUTO = "auto"
BLOCKS = ((16, 16), (16, 1), (4, 1))
"""The blocks that `auto` looks for, in that order."""


@dataclass(frozen=True)
class Choice:
    """A format, its blocks, and why it."""

    format: str
    block: tuple[int, int] = (1, 1)
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.format} {self.block[0]} x {self.block[1]}"


def choose(
    kept: Mask,
    groups: int,
    size: Size,
    device_type: str,
    format: str,
    block: tuple[int, int] | None,
) -> Choice:
    """The format that was asked for, or the fastest one of a mask [O, I, kh, kw]."""
    if format not in (AUTO, *FORMATS):
        names = ", ".join((AUTO, *FORMATS))
        raise argument_error("SparseConvWeight", "format", f"one of {names}", repr(format))
    if block is not None and format != "block":
        raise argument_error("SparseConvWeight", "block", "None unless format is 'block'", block)
    if format == "block":
        return Choice("block", block or largest_block(kept, groups) or BLOCKS[-1], "asked for")
    if format != AUTO:
        return Choice(format, reason="asked for")
    return fastest(kept, groups, size, device_type)


def fastest(kept: Mask, groups: int, size: Size, device_type: str) -> Choice:
    """The most regular format that a mask allows, unless torch's dense convolution is faster."""
    if device_type != "cpu":
        return Choice("dense", reason=f"nothing was measured on {device_type}")
    if (why_not := _loader.why_not("_C")) is not None:
        return Choice("dense", reason=f"the sparse kernels are not loaded: {why_not}")
    choice = regular(kept, groups)
    density = float(kept.mean())
    gain = predicted_gain(choice.format, density, kept.shape, groups, size)
    limit = break_even(choice.format, kept.shape, groups, size)
    facts = (
        f"{choice.reason}; with {density:.0%} kept on {size[0]} x {size[1]} maps {choice.format} "
        f"is {gain:.2f} times as fast as dense, break-even is at {limit:.0%}"
    )
    if gain <= 1:
        return Choice("dense", reason=f"dense is faster here: {facts}")
    return Choice(choice.format, choice.block, facts)


def regular(kept: Mask, groups: int) -> Choice:
    """The most regular format that a mask allows."""
    outputs, inputs = any_over(kept, 1, 2, 3), any_over(kept, 0, 2, 3)
    if groups == 1 and (kept == outputs[:, None, None, None] & inputs[:, None, None]).all():
        return Choice("channels", reason="the mask keeps whole channels")
    if (found := largest_block(kept, groups)) is not None:
        return Choice("block", found, "the mask keeps whole blocks of {} x {}".format(*found))
    return Choice(
        "unstructured" if kept.shape[2:] == (1, 1) else "taps", reason="the mask is irregular"
    )


def largest_block(kept: Mask, groups: int) -> tuple[int, int] | None:
    """The first of BLOCKS that a mask keeps whole or not at all."""
    matrix = kept.reshape(len(kept), -1)
    for rows, columns in BLOCKS:
        height = len(matrix) // groups
        if matrix.shape[1] % columns or len(matrix) < rows or (groups > 1 and height % rows):
            continue
        whole = np.pad(matrix, ((0, -len(matrix) % rows), (0, 0)), mode="edge")
        blocks = whole.reshape(len(whole) // rows, rows, -1, columns)
        if (blocks.any((1, 3)) == blocks.all((1, 3))).all():
            return rows, columns
    return None
