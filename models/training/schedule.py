"""Learning rate as a pure function of the step, so that resuming needs no state."""

from __future__ import annotations

import math

from lmwp_models.training.recipe import ScheduleSection


def learning_rate(
    schedule: ScheduleSection, peak: float, step: int, steps_per_epoch: int, total_steps: int
) -> float:
    """Rate for optimiser step `step` (0-based) of `total_steps`.

    `step`: `peak` times `gamma` once per milestone epoch passed.
    `cosine`: half a cosine from `peak` down to the share `final` of it.
    `one_cycle`: half a cosine from peak/25 up to `peak`, then one down to peak/1e4
    (Smith and Topin, 2018).
    The others rise in a line over the share `warmup` of the run.
    """
    share = schedule.warmup
    if share is None:
        share = 0.25 if schedule.kind == "one_cycle" else 0.0
    rise = share * (total_steps - 1)
    if step < rise:
        if schedule.kind == "one_cycle":
            return _cosine(peak / 25, peak, step / rise)
        return peak * (step + 1) / (rise + 1)
    fraction = (step - rise) / max(total_steps - 1 - rise, 1)
    if schedule.kind == "one_cycle":
        return _cosine(peak, peak / 1e4, fraction)
    if schedule.kind == "cosine":
        return _cosine(peak, peak * schedule.final, fraction)
    if schedule.kind == "constant":
        return peak
    epoch = step // steps_per_epoch
    return peak * schedule.gamma ** sum(epoch >= m for m in schedule.milestones)


def _cosine(start: float, end: float, fraction: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * fraction))
