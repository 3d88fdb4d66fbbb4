"""How an op enters the benchmark: its shapes, its inputs, who computes it and what it must cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import torch
from torch import Tensor

Shape = TypeVar("Shape")


@dataclass(frozen=True)
class Inputs:
    """Arguments of an op on features at several scales, as the op's own lists."""

    xs: list[Tensor]
    weights: list[Tensor]
    scale: list[Tensor]
    shift: list[Tensor]
    slope: list[Tensor]

    def map(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        """The same with every tensor changed."""
        return Inputs(*([change(t) for t in tensors] for tensors in vars(self).values()))

    @property
    def tensors(self) -> list[Tensor]:
        """All of them, branches first."""
        return [t for tensors in vars(self).values() for t in tensors]

    @property
    def affine(self) -> list[tuple[Tensor, Tensor]]:
        """(scale, shift) per output, as the ops take them."""
        return list(zip(self.scale, self.shift, strict=True))


@dataclass(frozen=True)
class Cost:
    """What a forward pass must move and compute at least, for one image.

    `elements` are those read and written of the features, `parameters` those of the weights,
    `operations` counts a multiply-add as two.
    """

    elements: int
    parameters: int
    operations: int


@dataclass(frozen=True)
class OpSpec(Generic[Shape]):
    """An op in the benchmark.

    Attributes:
        shapes: by name; those of networks carry the network's name.
        sizes: (channels, height, width) of every input branch of a shape.
        weights: dimensions of every weight of a shape.
        outputs: channels of every output branch.
        fused: the public function of lmwp_ops.
        framework: the same in the operations a framework offers: convolution, batch norm, PReLU.
        cost: of one image.
        differentiable: whether there is a backward pass to measure.
        epilogue: whether every output has a scale, a shift and a slope.
        inner: channels of every layer inside that has them, too.
    """

    name: str
    shapes: Mapping[str, Shape]
    sizes: Callable[[Shape], list[tuple[int, int, int]]]
    weights: Callable[[Shape], list[tuple[int, ...]]]
    outputs: Callable[[Shape], list[int]]
    fused: Callable[[Shape, Inputs], list[Tensor]]
    framework: Callable[[Shape, Inputs], list[Tensor]]
    cost: Callable[[Shape], Cost]
    differentiable: bool = True
    epilogue: bool = True
    inner: Callable[[Shape], list[int]] = lambda _: []

    def params(self, shape: Shape) -> dict[str, int]:
        """Numbers of a shape that its speed is plotted over, by name."""
        return {}

    def inputs(
        self, shape: Shape, batch: int, dtype: torch.dtype, device: torch.device, seed: int
    ) -> Inputs:
        """Normal inputs and weights that keep the outputs near one."""
        generator = torch.Generator().manual_seed(seed)
        draw = partial(torch.randn, generator=generator)
        widths = [*self.outputs(shape), *self.inner(shape)] if self.epilogue else []
        inputs = Inputs(
            xs=[draw(batch, *size) for size in self.sizes(shape)],
            weights=[draw(w) / math.sqrt(math.prod(w[1:])) for w in self.weights(shape)],
            scale=[1 + 0.1 * draw(c) for c in widths],
            shift=[0.1 * draw(c) for c in widths],
            slope=[0.25 + 0.05 * draw(c) for c in widths],
        )
        return inputs.map(lambda t: t.to(device, dtype))
