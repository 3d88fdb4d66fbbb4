"""What a run reports of its steps, read from the device a few steps at a time."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from lmwp_models.errors import UserError
from lmwp_models.training import distributed
from lmwp_models.training.sinks import Sink, StepRecord


@dataclasses.dataclass
class FinishedStep:
    """A step whose loss has not been read yet; loss and penalty are those of this process."""

    step: int
    epoch: int
    rate: float
    loss: Tensor
    penalty: Tensor
    names: list[str]


class Journal:
    """Hands every step to the sinks, and stops a run whose loss is no longer finite.

    Reading a loss makes a GPU wait, so steps are collected until `flush`, which all processes
    call after the same steps.
    """

    def __init__(self, sinks: Sequence[Sink], pictures_per_step: int) -> None:
        self._sinks = sinks
        self._pictures_per_step = pictures_per_step
        self._steps: list[FinishedStep] = []
        self.restart_clock()

    def add(self, step: FinishedStep) -> None:
        """Remember a step."""
        self._steps.append(step)

    def flush(self) -> None:
        """Report the steps since the last time.

        Raises:
            UserError: the loss of a step, or its penalty, is not finite; names the pictures.
        """
        if not self._steps:
            return
        steps, self._steps = self._steps, []
        own = torch.stack([torch.stack([s.loss, s.penalty]).float() for s in steps])
        found = distributed.mean(own).tolist()
        speed = len(steps) * self._pictures_per_step / (time.perf_counter() - self._clock)
        self.restart_clock()
        for step, mine, (loss, penalty) in zip(steps, own.tolist(), found, strict=True):
            # fp16 steps whose gradients overflow are skipped by the scaler, the loss is not.
            if not (math.isfinite(loss) and math.isfinite(penalty)):
                _stop(step, is_mine=not all(map(math.isfinite, mine)), loss=loss, penalty=penalty)
            record = StepRecord(step.step, step.epoch, loss, penalty, step.rate, speed)
            for sink in self._sinks:
                sink.step(record)

    def restart_clock(self) -> None:
        """Leave out of the speed what happened since the last report."""
        self._clock = time.perf_counter()


def _stop(step: FinishedStep, *, is_mine: bool, loss: float, penalty: float) -> None:
    names = distributed.collect(step.names if is_mine else [])

    def fail() -> None:
        raise UserError(
            f"loss is {loss} (decay penalty {penalty}) at step {step.step}, epoch {step.epoch}, "
            f"batch: {', '.join(names)}; lower optimizer.lr or decay.weight, "
            "or look at these pictures"
        )

    distributed.on_main(fail)
