"""What networks on the fused ops share: folded parameters, and graphs to replay on a GPU."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from lmwp_models.cuda_graphs import GraphCache, can_be_graphed

Affine = list[tuple[Tensor, Tensor]]


class Folded(nn.Module):
    """Holds lists of tensors as buffers, so that they follow the module to devices and files."""

    def __init__(self) -> None:
        super().__init__()
        self._names: dict[str, list[str]] = {}

    def _keep(self, name: str, tensors: Iterable[Tensor]) -> None:
        self._names[name] = []
        for i, tensor in enumerate(tensors):
            self.register_buffer(f"{name}_{i}", tensor.detach().clone().contiguous())
            self._names[name].append(f"{name}_{i}")

    def _kept(self, name: str) -> list[Tensor]:
        return cast(list[Tensor], [self._buffers[key] for key in self._names[name]])

    def _keep_epilogue(
        self, name: str, norms: Iterable[nn.Module], prelus: Iterable[nn.Module]
    ) -> None:
        folded = [fold_norm(cast(nn.BatchNorm2d, norm)) for norm in norms]
        self._keep(f"{name}_scale", [scale for scale, _ in folded])
        self._keep(f"{name}_shift", [shift for _, shift in folded])
        self._keep(f"{name}_slope", [cast(nn.PReLU, prelu).weight for prelu in prelus])

    def _affine(self, name: str) -> Affine:
        return list(zip(self._kept(f"{name}_scale"), self._kept(f"{name}_shift"), strict=True))

    def _slope(self, name: str) -> list[Tensor]:
        return self._kept(f"{name}_slope")


def fold_norm(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """(scale, shift), each [C], of a batch norm with running statistics."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias.double() - norm.running_mean.double() * scale
    return scale.to(norm.weight.dtype), shift.to(norm.bias.dtype)


class FusedNetwork(Folded, ABC):
    """A network for inference; on a GPU it replays a graph from the second image of a kind on."""

    def __init__(self, cuda_graphs: bool) -> None:
        super().__init__()
        self.cuda_graphs = cuda_graphs
        self._graphs = GraphCache()
        self.register_load_state_dict_post_hook(_forget_graphs)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Raises `ValueError` for a shape the network cannot take."""
        self._check_input(x)
        if self.cuda_graphs and can_be_graphed(x):
            return self._graphs(self._compute, x)
        return self._compute(x)

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        self._graphs.clear()
        return super()._apply(*args, **kwargs)

    @abstractmethod
    def _check_input(self, x: Tensor) -> None:
        """Raises `ValueError` for images that the network cannot take."""

    @abstractmethod
    def _compute(self, x: Tensor) -> Tensor:
        """The logits."""


def _forget_graphs(network: FusedNetwork, _: object) -> None:
    network._graphs.clear()
