"""A pruned weight of a convolution, packed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lmwp_ops import _loader
from lmwp_ops.ops._arguments import argument_error
from lmwp_ops.ops.sparse_conv2d import packing, semi_structured
from lmwp_ops.ops.sparse_conv2d.choice import Choice, choose
from lmwp_ops.ops.sparse_conv2d.layout import FORMATS, INDEX_NAMES, SLAB, gather, scatter

_NAME = "SparseConvWeight"
_KIND = "lmwp_ops.SparseConvWeight"  # in the metadata of a file, with what is not a tensor
_SETTINGS = ("format", "shape", "block", "groups")


@dataclass(frozen=True)
class SparseConvWeight:
    """What is kept of a weight [O, I, kh, kw], with I the input channels of a group.

    Made by `from_dense` or `load`, which check what it holds; one put together by hand can be
    checked by `check`. `lmwp_ops.ops.sparse_conv2d.layout` says what `values` and `indices` are in
    each format. `values` is differentiable, `reason` says how the format came about.
    """

    format: str
    shape: tuple[int, int, int, int]
    values: Tensor
    indices: tuple[Tensor, ...]
    block: tuple[int, int] = (1, 1)
    groups: int = 1
    reason: str = ""

    @staticmethod
    def from_dense(
        weight: Tensor,
        mask: Tensor,
        format: str = "auto",
        *,
        block: tuple[int, int] | None = None,
        groups: int = 1,
        size: tuple[int, int] = (28, 28),
    ) -> SparseConvWeight:
        """Keep what is not zero in `mask`.

        Args:
            weight: [O, I, kh, kw], of any floating-point dtype.
            mask: of the same shape; bool, or zeros and others.
            format: `channels` where the mask keeps whole input and output channels, `block` where
                it keeps whole blocks of the matrix [O, I kh kw], `unstructured` for any 1 x 1 and
                `taps` for any kernel, `2:4` where it keeps two of every four inputs of a 1 x 1,
                which torch has kernels for on CUDA (elsewhere it convolves densely), `dense` for
                torch's convolution. `auto` takes the most regular of the others that the mask
                allows, and `dense` where measurements say that this is faster.
            block: rows and columns of the blocks; None for the largest of 16 x 16, 16 x 1 and
                4 x 1 that the mask allows.
            groups: of the convolution.
            size: height and width of the maps it is for, which `auto` goes by.

        Raises:
            ValueError: an argument does not fit, or the mask does not allow the format.
        """
        _check_dense(weight, mask, groups)
        kept = mask.detach().ne(0).cpu().numpy()
        choice = choose(kept, groups, size, weight.device.type, format, block)
        if choice.format == "2:4" and weight.is_cuda:
            why_not = semi_structured.why_not(weight.shape, weight.dtype, weight.device)
            if why_not is not None:
                raise ValueError(f"{_NAME}: format: {why_not}")
        try:
            arrays = _pack(kept, choice, groups)
        except ValueError as error:
            raise argument_error(_NAME, "mask", f"one for the format {choice}", error) from None
        indices = tuple(torch.from_numpy(array).to(weight.device) for array in arrays)
        shape = (weight.shape[0], weight.shape[1], weight.shape[2], weight.shape[3])
        values = gather(weight.detach(), indices, choice.format, shape, choice.block)
        settings = (choice.format, shape, values.contiguous(), indices, choice.block, groups)
        return SparseConvWeight(*settings, choice.reason)

    @property
    def density(self) -> float:
        """The share of the weight that is kept."""
        kept = len(self.indices[0]) if self.format == "dense" else self.values.numel()
        area = self.shape[2] * self.shape[3]
        return kept / (self.shape[0] * self.shape[1] * area)

    def to_dense(self) -> Tensor:
        """The weight [O, I, kh, kw], zero where pruned: exactly what `from_dense` was given."""
        return scatter(self.values, self.indices, self.format, self.shape, self.block)

    def check(self) -> SparseConvWeight:
        """Itself, or a ValueError for indices or values that are of no weight of this shape."""
        try:
            self._check()
        except ValueError as error:
            raise ValueError(f"{_NAME}: {error}") from None
        return self

    def _check(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"there is no format {self.format!r}")
        if len(self.shape) != 4 or min(self.shape) < 1 or len(self.block) != 2:
            raise ValueError(f"shape {list(self.shape)} and block {list(self.block)} are of none")
        if self.groups < 1 or self.shape[0] % self.groups:
            raise ValueError(f"{self.shape[0]} outputs do not make {self.groups} groups")
        if len(self.indices) != len(INDEX_NAMES[self.format]):
            raise ValueError(f"the format {self.format} has indices {INDEX_NAMES[self.format]}")
        if any(index.dtype != torch.int32 or index.dim() != 1 for index in self.indices):
            raise ValueError("indices have to be of int32 and one dimension")
        arrays = [index.cpu().numpy() for index in self.indices]
        expected: tuple[int, ...]
        outputs, inputs, height, width = self.shape
        if self.format == "dense":
            _packer().check_rising(arrays[0], outputs * inputs * height * width)
            expected = self.shape
        elif self.format == "2:4":
            _packer().check_rising(arrays[0], outputs * inputs * height * width)
            packing.check_two_of_four(arrays[0], self.shape, self.groups)
            expected = (outputs, inputs // 2, 1, 1)
        elif self.format == "channels":
            _packer().check_rising(arrays[0], outputs)
            _packer().check_rising(arrays[1], inputs)
            expected = (len(arrays[0]), len(arrays[1]), height, width)
        else:
            rows, columns = _block_counts(self.shape, self.block, self.groups)
            slab = SLAB if self.format == "unstructured" else columns
            _packer().check_blocks(arrays[0], arrays[1], rows, columns, slab)
            expected = (len(arrays[1]), self.block[1], self.block[0])
        if tuple(self.values.shape) != tuple(expected):
            raise ValueError(
                f"values have the shape {list(self.values.shape)}, not {list(expected)}"
            )

    def save(self, path: str | Path) -> None:
        """Write a safetensors file. Needs the package safetensors."""
        tensors = {"values": self.values.detach().contiguous()}
        tensors |= dict(zip(INDEX_NAMES[self.format], self.indices, strict=True))
        settings = {name: getattr(self, name) for name in _SETTINGS}
        _safetensors().torch.save_file(tensors, path, {_KIND: json.dumps(settings)})

    @staticmethod
    def load(path: str | Path) -> SparseConvWeight:
        """What `save` wrote to the file. Needs the package safetensors.

        Raises:
            ValueError: the file does not hold a weight, or one whose parts do not fit together.
            OSError: the file cannot be read.
        """
        safetensors = _safetensors()
        try:
            with safetensors.safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return _from_file(metadata, tensors)
        except (ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
            raise ValueError(f"{path}: does not hold a {_NAME}: {error}") from None


def _check_dense(weight: Tensor, mask: Tensor, groups: int) -> None:
    if weight.dim() != 4 or 0 in weight.shape or not weight.is_floating_point():
        expected, got = "a floating-point [O, I, kh, kw]", f"{list(weight.shape)} {weight.dtype}"
        raise argument_error(_NAME, "weight", expected, got)
    if mask.shape != weight.shape:
        expected = f"the shape {list(weight.shape)} of the weight"
        raise argument_error(_NAME, "mask", expected, list(mask.shape))
    if groups < 1 or weight.shape[0] % groups:
        expected = f"a divisor of the {weight.shape[0]} output channels"
        raise argument_error(_NAME, "groups", expected, groups)


def _pack(kept: packing.Mask, choice: Choice, groups: int) -> tuple[packing.Indices, ...]:
    """The indices of a mask [O, I, kh, kw] in a format; ValueError if it does not allow that."""
    if choice.format == "dense":
        return (np.flatnonzero(kept).astype(np.int32),)
    if choice.format == "2:4":
        found = np.flatnonzero(kept).astype(np.int32)
        packing.check_two_of_four(found, kept.shape, groups)
        return (found,)
    if choice.format == "channels":
        outputs, inputs = packing.any_over(kept, 1, 2, 3), packing.any_over(kept, 0, 2, 3)
        if groups != 1:
            raise ValueError(f"{groups} groups")
        if not (kept == outputs[:, None, None, None] & inputs[:, None, None]).all():
            raise ValueError("channels that are kept in part")
        return tuple(np.flatnonzero(index).astype(np.int32) for index in (outputs, inputs))
    if choice.format == "unstructured" and kept.shape[2:] != (1, 1):
        raise ValueError(f"a kernel of {kept.shape[2]} x {kept.shape[3]}")
    _block_counts(kept.shape, choice.block, groups)
    matrix = np.ascontiguousarray(kept.reshape(len(kept), -1))
    slab = SLAB if choice.format == "unstructured" else matrix.shape[1]
    blocks: tuple[packing.Indices, packing.Indices]
    blocks = _packer().pack_blocks(matrix, *choice.block, slab)
    return blocks


def _block_counts(shape: tuple[int, ...], block: tuple[int, int], groups: int) -> tuple[int, int]:
    """Rows and columns of blocks of a weight; ValueError where blocks do not divide it."""
    width = shape[1] * shape[2] * shape[3]
    if min(block) < 1 or width % block[1] or (groups > 1 and shape[0] // groups % block[0]):
        of = f"{shape[0]} x {width} in {groups} groups"
        raise ValueError(f"blocks of {block[0]} x {block[1]} do not divide {of}")
    return -(-shape[0] // block[0]), width // block[1]


def _from_file(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> SparseConvWeight:
    settings: dict[str, Any] = json.loads(metadata[_KIND])
    format, shape, block, groups = (settings[name] for name in _SETTINGS)
    numbers = [*shape, *block, groups]
    if any(isinstance(n, bool) or not isinstance(n, int) for n in numbers):
        raise ValueError("sizes have to be ints")
    names = INDEX_NAMES.get(format, ())
    if set(tensors) != {"values", *names}:
        raise ValueError(f"it has {sorted(tensors)}, not values and {list(names)}")
    indices = tuple(tensors[name] for name in names)
    weight = SparseConvWeight(
        *(format, tuple(shape), tensors["values"], indices, tuple(block), groups),
        reason="read from a file",
    )
    return weight.check()


def _packer() -> ModuleType:
    """The compiled packer, or the plain one."""
    if _loader.why_not("_host") is None:
        from lmwp_ops import _host

        return _host
    return packing


def _safetensors() -> ModuleType:
    try:
        import safetensors
        import safetensors.torch
    except ImportError:
        raise ImportError(
            f"{_NAME}: files need the package safetensors, of the extra lmwp-ops[train]"
        ) from None
    return safetensors
