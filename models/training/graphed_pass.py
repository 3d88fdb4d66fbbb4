"""Forward and backward of a network replayed as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lmwp_models.errors import UserError
from lmwp_models.training import distributed

Pass = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
WARM_UP = 3  # passes run one by one, in which libraries choose and check their kernels


class GraphedPass:
    """`run(images, masks)`, which adds to the gradients, captured after some ordinary passes.

    Shapes must not change, and gradients must stay where they are: zero them, do not drop them.
    Outputs are the caller's own.

    Raises:
        UserError: `device` is no GPU, or several processes train.
    """

    def __init__(self, run: Pass, device: torch.device) -> None:
        if device.type != "cuda" or distributed.size() > 1:
            raise UserError(
                "train.cuda_graphs = true: needs one process on a GPU, got "
                f"{distributed.size()} on {device.type}; set train.cuda_graphs=false"
            )
        self._run = run
        self._seen = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._outputs: tuple[Tensor, ...] = ()

    def __call__(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and penalty, scalars on the device."""
        if self._seen < WARM_UP:
            self._seen += 1
            return self._on_side_stream(images, masks)
        if self._graph is None:
            self._inputs = images.clone(), masks.clone()
            self._graph = torch.cuda.CUDAGraph()
            # The loader's thread may go on pinning memory meanwhile.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._outputs = self._run(*self._inputs)
        for kept, given in zip(self._inputs, (images, masks), strict=True):
            kept.copy_(given)
        self._graph.replay()
        loss, penalty = (output.clone() for output in self._outputs)
        return loss, penalty

    def _on_side_stream(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        caller, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(caller)
        with torch.cuda.stream(side):
            outputs = self._run(images, masks)
        caller.wait_stream(side)
        return outputs
