"""A moving average of a network's weights, which scores better than the weights themselves."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class WeightAverage:
    """A copy of `source` that holds the exponential moving average of its parameters and buffers.

    After step n the average moves by 1 - min(decay, (1 + n) / (10 + n)) towards the weights, so
    that a short run is not held at its random start. Counters are copied.
    """

    def __init__(self, source: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(source).eval().requires_grad_(False)
        self.decay = decay
        averages, weights = self.model.state_dict(), source.state_dict()  # of the same storage
        floating = [key for key, value in averages.items() if value.is_floating_point()]
        self._averages = [averages[key] for key in floating]
        self._weights = [weights[key] for key in floating]
        self._counters = [(averages[k], weights[k]) for k in averages.keys() - set(floating)]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the source after its optimiser step number `step`, counted from 1."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._averages, self._weights, share)
        for average, counter in self._counters:
            average.copy_(counter)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights."""
        return self.model.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from averaged weights."""
        self.model.load_state_dict(state)
