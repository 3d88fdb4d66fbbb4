"""Ops against plain PyTorch, torch.compile and one another's backends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

import lmwp_ops
import lmwp_ops.env
from lmwp_bench import accuracy
from lmwp_bench.measure import Case, CaseRun
from lmwp_bench.ops import OPS, OpSpec
from lmwp_bench.ops.spec import Inputs
from lmwp_bench.results import Row
from lmwp_bench.variant import COPY, Compute, Unavailable, Variant

Direction = Literal["forward", "forward+backward"]
DIRECTIONS: tuple[Direction, ...] = ("forward", "forward+backward")

BACKENDS = {"cpu": ("cpp",), "cuda": ("triton", "cuda")}
PEERS = ("copy", "eager", "eager-channels-last", "compile", "compile-max-autotune")

_MOST_SETS = 256
_MOST_BYTES = 1 << 30


def variant_names(device_type: str) -> list[str]:
    """Everything that can compute an op on such a device."""
    return [*PEERS, *(f"lmwp-{backend}" for backend in BACKENDS[device_type])]


@dataclass(frozen=True)
class OpRun:
    """Where and how a shape of an op is run."""

    spec: OpSpec[Any]
    shape_name: str
    batch: int
    dtype: torch.dtype
    direction: Direction
    device: torch.device
    threads: int
    cache_bytes: int

    @property
    def shape(self) -> Any:
        return self.spec.shapes[self.shape_name]

    def case(self, names: list[str]) -> Case:
        """The case with the variants of `names`."""
        torch._dynamo.reset()  # or the shapes before would count against its limit of recompiles
        cost = self.spec.cost(self.shape)
        sets = self._sets(cost.elements * self.batch * self.dtype.itemsize)
        inputs = [
            self.spec.inputs(self.shape, self.batch, self.dtype, self.device, seed)
            for seed in range(sets)
        ]
        return Case(
            suite="ops",
            subject=self.spec.name,
            name=self.shape_name,
            params={
                "device": self.device.type,
                "dtype": str(self.dtype).removeprefix("torch."),
                "batch": self.batch,
                "threads": self.threads,
                "direction": self.direction,
                **self.spec.params(self.shape),
            },
            variants=[
                Variant(
                    name,
                    partial(self._prepare, name, inputs),
                    compiled=name.startswith("compile"),
                )
                for name in names
            ],
            truth=partial(self._truth, inputs[0]),
            tolerance=accuracy.for_op(self.dtype),
            device=self.device,
            sets=sets,
            bytes=self._moved_bytes,
            operations=self._passes * cost.operations * self.batch,
        )

    @property
    def _passes(self) -> int:
        """A backward pass counts as two: every product has two gradients, and it reads features
        and gradients and writes gradients.
        """
        return 1 if self.direction == "forward" else 3

    @property
    def _moved_bytes(self) -> int:
        cost = self.spec.cost(self.shape)
        elements = cost.elements * self.batch + cost.parameters
        return self._passes * elements * self.dtype.itemsize

    def _sets(self, feature_bytes: int) -> int:
        """Input sets that together are twice the cache, so that each comes from memory."""
        wanted = math.ceil(2 * self.cache_bytes / feature_bytes)
        return max(2, min(wanted, _MOST_SETS, _MOST_BYTES // feature_bytes))

    def _prepare(self, name: str, inputs: list[Inputs]) -> Compute:
        spec, shape = self.spec, self.shape
        if name == COPY:
            return self._copy(len(inputs))
        if name.startswith("lmwp-"):
            backend = name.removeprefix("lmwp-")
            backends = lmwp_ops.env.collect()["ops"].get(spec.name, {})
            if reason := backends.get(backend, f"{spec.name} has no {backend} kernels"):
                raise Unavailable(reason)
            forced = partial(lmwp_ops.use_backend, backend)
            compute = self._compute(partial(spec.fused, shape), inputs, forced)
            try:
                compute(0)
            except lmwp_ops.BackendError as refusal:
                if self._is_known_to_fail(backend):
                    raise
                raise Unavailable(str(refusal)) from None
            return compute
        if name == "eager-channels-last":
            inputs = [_channels_last(one) for one in inputs]
        function: Callable[[Inputs], list[Tensor]] = partial(spec.framework, shape)
        if name.startswith("compile"):
            # CUDA graphs are a way of launching of their own, which every variant is timed under.
            tuned = name == "compile-max-autotune"
            mode = "max-autotune-no-cudagraphs" if tuned else "default"
            function = torch.compile(function, dynamic=False, mode=mode)
        return self._compute(function, inputs, lmwp_ops.decomposed)

    def _is_known_to_fail(self, backend: str) -> bool:
        """Whether a backend was wrong when it was checked, and does not just refuse the shape."""
        kernel = f"{backend} {str(self.dtype).removeprefix('torch.')} "
        ops = lmwp_ops.env.collect()["verified_kernels"]
        return any(
            found != "right" and name.startswith(kernel)
            for op in (self.spec.name, f"{self.spec.name}_backward")
            for name, found in ops.get(op, {}).items()
        )

    def _compute(
        self,
        function: Callable[[Inputs], list[Tensor]],
        inputs: list[Inputs],
        mode: Callable[[], AbstractContextManager[Any]],
    ) -> Compute:
        if self.direction == "forward":

            def forward(i: int) -> list[Tensor]:
                with torch.no_grad(), mode():
                    return function(inputs[i])

            return forward
        leaves = [one.map(lambda t: t.detach().requires_grad_()) for one in inputs]
        gradients = [self._output_gradients(one) for one in inputs]

        def forward_backward(i: int) -> list[Tensor]:
            with mode():
                ys = function(leaves[i])
                return [*ys, *torch.autograd.grad(ys, leaves[i].tensors, gradients[i])]

        return forward_backward

    def _copy(self, sets: int) -> Compute:
        elements = self._moved_bytes // (2 * self.dtype.itemsize)
        pairs = [torch.rand(2, elements).to(self.device, self.dtype) for _ in range(sets)]
        return lambda i: [pairs[i][1].copy_(pairs[i][0])]

    def _truth(self, inputs: Inputs) -> list[Tensor]:
        exact = inputs.map(lambda t: t.to("cpu", torch.float64))
        run = partial(self.spec.fused, self.shape)
        return [t.detach() for t in self._compute(run, [exact], lmwp_ops.decomposed)(0)]

    def _output_gradients(self, inputs: Inputs) -> list[Tensor]:
        """Normal gradients in the layout of the outputs, the same for every precision."""
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad(), lmwp_ops.decomposed():
            ys = self.spec.framework(self.shape, inputs)
        gradients = (torch.randn(y.shape, generator=generator).to(self.dtype) for y in ys)
        return [torch.empty_like(y).copy_(g) for y, g in zip(ys, gradients, strict=True)]


def _channels_last(inputs: Inputs) -> Inputs:
    return inputs.map(
        lambda t: t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t
    )


def run(runs: list[OpRun], names: list[str], seconds: float) -> Iterator[list[Row]]:
    """The rows of each case in turn; `seconds` are for each way of timing a case."""
    for one in runs:
        yield CaseRun(one.case(names)).measure(seconds)


def directions_of(spec: OpSpec[Any]) -> tuple[Direction, ...]:
    """The directions an op can be run in."""
    return DIRECTIONS if spec.differentiable else DIRECTIONS[:1]


def shapes_of(op: str) -> list[str]:
    """Names of the shapes an op is measured at."""
    return list(OPS[op].shapes)
