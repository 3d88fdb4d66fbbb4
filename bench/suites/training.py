"""Training steps: images per second, and where the time goes."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import lmwp_ops
from lmwp_bench import accuracy
from lmwp_bench.measure import Case, CaseRun
from lmwp_bench.networks import bench_network, make_comparable
from lmwp_bench.results import Row
from lmwp_bench.suites.network_run import NetworkRun
from lmwp_bench.variant import Compute, Variant
from lmwp_models.data import AugmentConfig, SaliencyDataset, SyntheticSource
from lmwp_models.training.loss import deep_supervision_loss, saliency_loss

PEERS = ("eager", "eager-channels-last", "compile", "lmwp-modules")
PHASES = ("data", "forward", "backward", "optimiser")


def peers_for(device_type: str, ours: bool) -> list[str]:
    """Names of the ways to train a network on such a device; `ours` for one on lmwp_ops."""
    return [name for name in PEERS if ours or not name.startswith("lmwp-")]


_PICTURES = 64
_GPU_WORKERS = 8


class PreparedTraining:
    """The network of a run with an optimiser for each variant, checked and ready to be timed."""

    def __init__(self, run: NetworkRun) -> None:
        self._run = run
        self._device = torch.device(run.device)
        self._dtype: torch.dtype = getattr(torch, run.dtype)
        torch.backends.cudnn.benchmark = True
        network = bench_network(run.network)
        torch.manual_seed(0)
        model = network.build().train()
        make_comparable(model)
        exact = _exact_step(copy.deepcopy(model).double())
        self._model = model.to(self._device)
        self._batches = _batches(run.batch, run.size, self._device)
        batch = next(self._batches)
        truth = _gradients(exact, batch)
        rounded = _gradients(exact, _rounded(batch, self._dtype))
        self._steps: dict[str, _Step] = {}
        self._case = CaseRun(
            Case(
                suite="training",
                subject=network.name,
                name=run.case,
                params=run.params,
                variants=[
                    Variant(name, partial(self._prepare, name, batch), compiled=name == "compile")
                    for name in run.peers
                ],
                truth=lambda: truth,
                tolerance=accuracy.for_gradients(self._dtype, accuracy.error(rounded, truth)),
                device=self._device,
                steps=lambda name: StepSampler(self._steps[name], self._batches),
            )
        )

    def measure(self) -> list[Row]:
        """Time the steps of every variant that is right."""
        return self._case.measure(self._run.seconds)

    def _prepare(self, name: str, batch: _Batch) -> Compute:
        model = copy.deepcopy(self._model)
        memory_format = torch.contiguous_format
        if name == "eager-channels-last":
            memory_format = torch.channels_last
            model.to(memory_format=memory_format)  # type: ignore[call-overload]
        step = _Step(
            model=torch.compile(model, dynamic=False) if name == "compile" else model,
            optimizer=_optimizer(model),
            mode=nullcontext if name == "lmwp-modules" else lmwp_ops.decomposed,
            device=self._device,
            amp=None if self._dtype == torch.float32 else self._dtype,
            memory_format=memory_format,
        )
        self._steps[name] = step
        return lambda i: _gradients(step, batch)


_Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class _Step:
    """What a training step of one variant consists of."""

    model: Callable[[Tensor], Tensor]
    optimizer: torch.optim.Optimizer
    mode: Callable[[], AbstractContextManager[Any]]
    device: torch.device
    amp: torch.dtype | None
    memory_format: torch.memory_format

    def forward(self, batch: _Batch) -> Tensor:
        images = batch[0].to(self.device, memory_format=self.memory_format, non_blocking=True)
        masks = batch[1].to(self.device, non_blocking=True)
        with torch.autocast(self.device.type, self.amp, enabled=self.amp is not None):
            outputs = self.model(images)
        loss = saliency_loss if isinstance(outputs, Tensor) else deep_supervision_loss
        return loss(outputs, masks)

    @property
    def parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]


def _optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """Adam as the CSNet paper trains with."""
    return torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.9, 0.99), weight_decay=5e-3)


def _exact_step(model: nn.Module) -> _Step:
    """Eager in float64 on the CPU."""
    return _Step(
        model=lambda images: model(images.double()),
        optimizer=_optimizer(model),
        mode=lmwp_ops.decomposed,
        device=torch.device("cpu"),
        amp=None,
        memory_format=torch.contiguous_format,
    )


def _rounded(batch: _Batch, dtype: torch.dtype) -> _Batch:
    """The batch, its pictures off by about as much as `dtype` rounds them."""
    noise = torch.randn(batch[0].shape, generator=torch.Generator().manual_seed(0))
    return batch[0].double() * (1 + torch.finfo(dtype).eps * noise.double()), batch[1]


def _gradients(step: _Step, batch: _Batch) -> list[Tensor]:
    """The loss and all its gradients in one vector.

    One, because the gradient of a weight before a batch norm may be zero but for rounding, and an
    error means something only beside the gradients that move the network.
    """
    with step.mode():
        loss = step.forward(batch)
        gradients = torch.autograd.grad(loss, step.parameters)
        return [loss.detach(), torch.cat([gradient.flatten() for gradient in gradients])]


class StepSampler:
    """Times whole training steps; a step of its own in each sample is timed part by part."""

    def __init__(self, step: _Step, batches: Iterator[_Batch]) -> None:
        self._step = step
        self._batches = batches
        self._parts: list[list[float]] = []

    def __call__(self, calls: int) -> float:
        self._parts.append(self._timed_parts())
        started = self._now()
        for _ in range(calls):
            for _ in self._run():
                pass
        return (self._now() - started) / calls

    @property
    def phases(self) -> dict[str, float]:
        """Median seconds of each part of a step."""
        return dict(zip(PHASES, np.median(self._parts, axis=0).tolist(), strict=True))

    def _timed_parts(self) -> list[float]:
        marks = [self._now()]
        marks += [self._now() for _ in self._run()]
        return np.diff(marks).tolist()

    def _run(self) -> Iterator[None]:
        """One step, pausing behind each of the `PHASES`."""
        step = self._step
        batch = next(self._batches)
        yield
        with step.mode():
            loss = step.forward(batch)
            yield
            step.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            yield
        step.optimizer.step()
        yield

    def _now(self) -> float:
        if self._step.device.type == "cuda":
            torch.cuda.synchronize(self._step.device)
        return time.perf_counter()


def _batches(batch: int, size: tuple[int, int], device: torch.device) -> Iterator[_Batch]:
    """Augmented batches without end, from pictures that are decoded already."""
    pictures = SyntheticSource(max(_PICTURES, 2 * batch), max(size), seed=0)
    on_gpu = device.type == "cuda"
    loader = DataLoader(
        SaliencyDataset(pictures, size, AugmentConfig()),
        batch_size=batch,
        shuffle=True,
        drop_last=True,
        generator=torch.Generator().manual_seed(0),
        num_workers=_GPU_WORKERS if on_gpu else 0,
        persistent_workers=on_gpu,
        pin_memory=on_gpu,
    )
    while True:
        yield from loader
