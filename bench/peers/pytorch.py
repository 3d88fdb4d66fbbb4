"""PyTorch itself: eager, channels_last, torch.compile, and with the ops of lmwp_ops in it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch._inductor.config
from torch import Tensor, nn

import lmwp_ops
from lmwp_bench.peers.task import NetworkTask
from lmwp_bench.variant import Compute, Unavailable
from lmwp_models.inference import optimize_for_inference


def eager(task: NetworkTask) -> Compute:
    """The network as its authors would run it: plain torch operations, one by one."""
    return _plain(task.model, task.images)


def channels_last(task: NetworkTask) -> Compute:
    """Eager with weights and images in channels_last."""
    model = copy.deepcopy(task.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return _plain(model, [x.to(memory_format=torch.channels_last) for x in task.images])


def compiled(task: NetworkTask) -> Compute:
    """`torch.compile` for these shapes: tuned at most on a GPU; on the CPU with frozen weights and
    called from C++, which is faster than from Python and compiles in half the time.
    """
    on_cpu = task.device.type == "cpu"
    # CUDA graphs are a way of launching of their own, which every variant is timed under.
    mode = None if on_cpu else "max-autotune-no-cudagraphs"
    model = torch.compile(task.model, dynamic=False, mode=mode)
    compute = _plain(model, task.images)
    with torch._inductor.config.patch(freezing=on_cpu, cpp_wrapper=on_cpu):
        compute(0)  # compiles
    return compute


def with_ops(task: NetworkTask) -> Compute:
    """The same modules with the ops of lmwp_ops choosing their own backends."""

    def compute(i: int) -> list[Tensor]:
        with torch.no_grad():
            return [task.model(task.images[i])]

    return compute


def fused(task: NetworkTask) -> Compute:
    """The network as `optimize_for_inference` makes it."""
    try:
        model = optimize_for_inference(task.model)
    except TypeError as refusal:
        raise Unavailable(str(refusal)) from refusal

    def compute(i: int) -> list[Tensor]:
        with torch.no_grad():
            return [model(task.images[i])]

    return compute


def _plain(model: Callable[..., Any] | nn.Module, images: list[Tensor]) -> Compute:
    # no_grad, as compiled code of frozen weights is not made under inference_mode
    def compute(i: int) -> list[Tensor]:
        with lmwp_ops.decomposed(), torch.no_grad():
            return [model(images[i])]

    return compute
