"""A variant: one way to compute a case."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

BASELINE = "eager"
"""Every case is also computed by plain eager PyTorch, and compared with that."""

COPY = "copy"
"""A copy of as many bytes as a case must move: the floor of memory-bound ops."""

Outputs = Sequence[Tensor]
Compute = Callable[[int], Outputs]
"""Computes input set number i; the work must be queued on the device or done on return."""


class Unavailable(Exception):  # noqa: N818 - a finding, printed as a row
    """A peer is missing or refuses; the text is one line with the reason."""


@dataclass(frozen=True)
class Variant:
    """A name for the tables, and what makes the computation ready to run.

    `prepare` exports, compiles or builds, and raises `Unavailable` where that cannot be done.
    `foreign` marks a runtime of its own, whose memory torch does not allocate, and `compiled`
    code of torch.compile: of neither does torch see the operations on the CPU.
    """

    name: str
    prepare: Callable[[], Compute]
    foreign: bool = False
    compiled: bool = False
