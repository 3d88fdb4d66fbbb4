"""Dynamic weight decay (CSNet, Gao et al., ECCV 2020, section 3.3).

Each batch-norm gamma is decayed in proportion to how large its channel's features are, so
that a gap opens between the channels that matter and those that can be pruned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from lmwp_models.csnet import DecayUnit

Scaling = Literal["uniform", "resolution"]


class DynamicWeightDecay:
    """Watches the outputs of the given units and decays their gammas.

    S_c is the mean over the batch of |spatial mean of channel c| after batch norm and PReLU,
    detached, in float32; f is 1 (`uniform`) or the unit's resolution weight (`resolution`).

    `penalty()` is R = sum of 0.5 * f * S_c * gamma_c^2, to be added to the loss times lambda_d
    (as in the authors' code); its gradient passes through the optimiser.
    `decay_(rate)` is Eq. 3 of the paper, decoupled: gamma_c -= rate * f * S_c * gamma_c.
    """

    def __init__(self, units: Iterable[DecayUnit], scaling: Scaling = "uniform") -> None:
        self.gammas: list[nn.Parameter] = []
        self._factors: list[float] = []
        self._metrics: list[torch.Tensor | None] = []
        self._handles: list[RemovableHandle] = []
        for unit in units:
            first = len(self.gammas)
            self.gammas += [norm.weight for norm in unit.norms]
            uniform = [1.0] * len(unit.norms)
            self._factors += uniform if scaling == "uniform" else unit.resolution_weights
            self._metrics += [None] * len(unit.norms)
            self._handles.append(unit.module.register_forward_hook(self._observer(first)))

    def _observer(self, first: int) -> Callable[[nn.Module, object, list[torch.Tensor]], None]:
        def observe(module: nn.Module, args: object, outputs: list[torch.Tensor]) -> None:
            if module.training:
                for i, means in enumerate(_channel_means(module, outputs), start=first):
                    self._metrics[i] = means.abs().mean(0)  # [C]

        return observe

    def strength(self) -> torch.Tensor:
        """f * S_c of the last forward pass, float32, for every element of `gammas` in turn."""
        if any(metric is None for metric in self._metrics):
            raise RuntimeError(
                "dynamic weight decay: no features seen yet; run a forward pass in training mode"
            )
        metrics = zip(self._factors, self._metrics, strict=True)
        return torch.cat([factor * metric for factor, metric in metrics if metric is not None])

    def penalty(self) -> torch.Tensor:
        """R of the last forward pass, a float32 scalar that is differentiable in the gammas."""
        gammas = torch.cat([gamma.float() for gamma in self.gammas])
        return 0.5 * (self.strength() * gammas.square()).sum()

    @torch.no_grad()
    def decay_(self, rate: float, strength: torch.Tensor | None = None) -> None:
        """Shrink every gamma by `rate` (learning rate times lambda_d) times f * S_c, in place.

        `strength` stands for `strength()`, as where it is the mean of several forward passes.
        """
        if strength is None:
            strength = self.strength()
        # Past a factor of zero a gamma would change sign and grow again.
        factors = (1 - rate * strength).clamp_(min=0)
        widths = [gamma.numel() for gamma in self.gammas]
        for gamma, factor in zip(self.gammas, factors.split(widths), strict=True):
            gamma.mul_(factor.to(gamma.dtype))

    def remove(self) -> None:
        """Stop watching."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def _channel_means(module: nn.Module, outputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """[N, C] of each branch, float32: those the layer has kept, which cost no pass, or new ones."""
    kept: list[torch.Tensor] | None = getattr(module, "channel_means", None)
    if kept is not None:
        return kept
    return [features.detach().mean((2, 3), dtype=torch.float32) for features in outputs]
