"""Arguments to try an op with: drawn alike everywhere, and taken to other devices and dtypes."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

Shapes = Sequence[Sequence[int]]
"""[N, C, H, W] of each branch."""

Example = Callable[[torch.device, torch.dtype, Shapes | None], tuple[Any, ...]]
"""(device, dtype, shapes of the branches or None for tiny ones) -> arguments of an op."""


class Draw:
    """Draws tensors of one device and dtype; leaves torch's own random numbers alone."""

    def __init__(self, device: torch.device, dtype: torch.dtype, seed: int = 0) -> None:
        self._device = device
        self._dtype = dtype
        self._generator = torch.Generator("cpu").manual_seed(seed)

    def __call__(self, *shape: int) -> Tensor:
        """Of mean 0 and deviation 1."""
        drawn = torch.randn(shape, generator=self._generator, device="cpu", dtype=torch.float32)
        return drawn.to(self._device, self._dtype)

    def weight(self, *shape: int) -> Tensor:
        """[rows, columns, k, k], scaled to keep the deviation of what it is applied to."""
        return self(*shape) / (shape[1] * shape[2] * shape[3]) ** 0.5

    def slope(self, channels: int) -> Tensor:
        """Of a PReLU: around 0.25, so that it differs from 0 and from 1."""
        return 0.25 + 0.1 * self(channels)


def tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in arguments or results, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from tensors(inner)


def double(tensor: Tensor) -> Tensor:
    """In float64, unless it holds indices."""
    return tensor.double() if tensor.is_floating_point() else tensor


def convert(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The same arguments with `function` applied to every tensor."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, (list, tuple)):
        return type(value)(convert(inner, function) for inner in value)
    return value
