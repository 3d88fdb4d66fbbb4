"""A network to run: what every peer is given."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from lmwp_bench.peers.export import export_onnx, trace


@dataclass
class NetworkTask:
    """A network in evaluation mode with its input sets, all [N, 3, H, W] of one shape.

    `folder` holds what peers write; it goes when the task goes.
    """

    model: nn.Module
    images: list[Tensor]
    threads: int
    folder: Path = field(init=False)

    def __post_init__(self) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="lmwp-bench-")
        self.folder = Path(self._scratch.name)

    @property
    def device(self) -> torch.device:
        return self.images[0].device

    @property
    def dtype(self) -> torch.dtype:
        return self.images[0].dtype

    @cached_property
    def traced(self) -> torch.jit.ScriptModule:
        """The network as a trace, made once for every runtime."""
        return trace(self.model, self.images[0])

    @cached_property
    def onnx(self) -> Path:
        """The network as an ONNX file, exported once for every runtime that reads one."""
        return export_onnx(self.traced, self.images[0], self.folder / "network.onnx")
