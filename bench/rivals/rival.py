"""What is said of a rival."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn


@dataclass(frozen=True)
class Rival:
    """A network of somebody else.

    `published_flops` are those that a table gives for one image of `input_size` (H, W); what they
    count is `flops_are`, a field of `lmwp_models.complexity.Counts`. `published_speed` is the
    figure with its unit and its machine.
    """

    name: str
    description: str
    paper: str
    build: Callable[[], nn.Module]
    input_size: tuple[int, int]
    published_params: float
    published_flops: float
    flops_are: Literal["macs", "paper_flops"]
    published_speed: str
