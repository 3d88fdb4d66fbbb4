"""A moving average of a network's weights, which scores better than the weights themselves."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class WeightAverage:
    """A copy of `model` that holds the exponential moving average of its parameters and buffers.

    After step n the average moves by 1 - min(decay, (1 + n) / (10 + n)) towards the weights, so
    that a short run is not held at its random start. Counters are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Follow `model` after its optimiser step number `step`, counted from 1."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        averages, news = self.model.state_dict(), model.state_dict()
        floating = [key for key, value in averages.items() if value.is_floating_point()]
        torch._foreach_lerp_([averages[k] for k in floating], [news[k] for k in floating], weight)
        for key in averages.keys() - floating:
            averages[key].copy_(news[key])

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights."""
        return self.model.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from averaged weights."""
        self.model.load_state_dict(state)
