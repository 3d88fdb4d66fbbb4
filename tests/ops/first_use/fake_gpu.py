"""A GPU that is this CPU, and an op with kernels for it: right, wrong, crashing, writing NaN.

Imported by the tests, and by the processes that they start.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lmwp_ops import _dispatch
from lmwp_ops._dispatch import Candidate
from lmwp_ops._gpu import Gpu

GPU = Gpu("Fake 1000", (9, 0), 100, 1000.0)
OP = "third"
Run = Callable[[list[Tensor]], list[Tensor]]


def reference(xs: list[Tensor]) -> list[Tensor]:
    return [x / 3 for x in xs]


def example(device: torch.device, dtype: torch.dtype, shapes: Any) -> tuple[Any, ...]:
    xs = [torch.arange(1.0, 1 + torch.Size(s).numel()).reshape(s) for s in shapes or [(1, 2, 3, 4)]]
    return ([x.to(device, dtype) for x in xs],)


def crash(xs: list[Tensor]) -> list[Tensor]:
    raise RuntimeError("no kernel image is available\nfor execution on the device")


class Counted:
    """A kernel that counts how often it runs, and keeps what the last run was given."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.calls = 0

    def __call__(self, xs: list[Tensor]) -> list[Tensor]:
        self.calls += 1
        self.xs = xs
        return self.run(xs)


def right() -> Counted:
    return Counted(lambda xs: [x * x.new_tensor(1 / 3) for x in xs])


def wrong() -> Counted:
    return Counted(lambda xs: [x / 3 + 0.25 * (x == x.max()) for x in xs])


def nan() -> Counted:
    return Counted(lambda xs: [x / 3 + torch.nan * (x == x.max()) for x in xs])


def crashing() -> Counted:
    return Counted(crash)


def install(**kernels: Run) -> None:
    """Register the op with these kernels, by backend, besides its reference."""
    candidates = [Candidate(backend, run) for backend, run in kernels.items()]
    candidates.append(Candidate("reference", reference))
    _dispatch.register(OP, candidates, bind=lambda xs: (xs,), example=example)


def call(dtype: torch.dtype = torch.float32) -> Tensor:
    """Run the op on a user's tensor; it is unlike the example."""
    x = torch.full((1, 1, 2, 2), 6.0, dtype=dtype)
    result: Tensor = _dispatch.run(OP, [x])[0]
    return result
