"""Forward in reduced precision, and the optimiser step that goes with it."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

Amp = Literal["off", "bf16", "fp16"]


class Precision:
    """Autocast in the dtype of `amp`; with fp16, gradients of a scaled loss.

    Parameters stay float32. A step whose scaled gradients overflow is left out and the scale
    lowered, as `torch.amp.GradScaler` does.
    """

    def __init__(self, device: torch.device, amp: Amp) -> None:
        self._device, self._enabled = device.type, amp != "off"
        self._dtype = torch.float16 if amp == "fp16" else torch.bfloat16
        self._scaler = torch.amp.GradScaler(self._device, enabled=amp == "fp16")

    def autocast(self) -> torch.autocast:
        """The context for a forward pass."""
        return torch.autocast(self._device, dtype=self._dtype, enabled=self._enabled)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`, scaled, to those of the parameters."""
        self._scaler.scale(loss).backward()

    def step(self, optimizer: torch.optim.Optimizer, clip_norm: float) -> None:
        """An optimiser step, its gradients clipped to a joint norm (0: as they are)."""
        if clip_norm:
            self._scaler.unscale_(optimizer)
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
        self._scaler.step(optimizer)
        self._scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """The loss scale and its history."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with a loss scale."""
        self._scaler.load_state_dict(state)
