"""Processes that train one network together, as `torchrun` starts them; one process is the rule.

Everything here does nothing, at no cost, where there is one process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from lmwp_models.device import resolve_device
from lmwp_models.errors import PeerError, UserError

PATIENCE = timedelta(minutes=30)
"""How long a process waits for one that is silent: longer than a validation takes."""

T = TypeVar("T")


@contextmanager
def process_group(device: str, patience: timedelta = PATIENCE) -> Iterator[None]:
    """Join the processes that `torchrun` started, over gloo and, for GPUs, NCCL."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    chosen = local_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=patience)
    yield
    dist.destroy_process_group()  # not after an error: it would wait for processes that are gone


def local_device(name: str) -> torch.device:
    """`resolve_device`, where each process of a machine takes a GPU of its own."""
    device = resolve_device(name)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this is the process that writes and speaks."""
    return rank() == 0


def on_main(function: Callable[[], T]) -> T:
    """The result of `function`, called by the main process alone.

    A `UserError` there is raised there, and `PeerError` by the others.
    """
    if size() == 1:
        return function()
    outcome: list[Any] = [None, None]  # result, mistake
    if is_main():
        try:
            outcome[0] = function()
        except UserError as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome)
    result, mistake = outcome
    if mistake is not None:
        raise mistake if is_main() else PeerError(str(mistake))
    return result


def mean(values: torch.Tensor) -> torch.Tensor:
    """The mean over the processes of a tensor that all of them have."""
    if size() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / size()


def highest(value: int) -> int:
    """The largest of the processes' values."""
    if size() == 1:
        return value
    found = torch.tensor(value)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def collect(items: list[str]) -> list[str]:
    """The lists of all processes, joined in their order."""
    if size() == 1:
        return items
    found: list[Any] = [None] * size()
    dist.all_gather_object(found, items)
    return [item for part in found for item in part]


@contextmanager
def naming_lost_processes() -> Iterator[None]:
    """Turn the error of a broken or silent connection into a `UserError`."""
    try:
        yield
    except RuntimeError as error:
        if not _is_about_connections(error):
            raise
        raise UserError(
            f"process {rank()} of {size()}: another process of this run is gone or silent "
            f"({str(error).splitlines()[0]})"
        ) from error


def _is_about_connections(error: RuntimeError) -> bool:
    if isinstance(error, dist.DistError):
        return True
    return size() > 1 and any(
        mark in str(error) for mark in ("gloo/transport", "pair closure", "Connection closed")
    )
