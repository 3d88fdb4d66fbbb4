"""Whole networks, inference."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

import lmwp_ops
from lmwp_bench import accuracy
from lmwp_bench.measure import Case, CaseRun
from lmwp_bench.networks import bench_network, make_images, make_network
from lmwp_bench.peers.network import network_variants
from lmwp_bench.peers.task import NetworkTask
from lmwp_bench.results import Row
from lmwp_bench.suites.network_run import NetworkRun
from lmwp_models.complexity import summarize


class PreparedModel:
    """The network of a run, built, checked and ready to be timed on this process's core."""

    def __init__(self, run: NetworkRun) -> None:
        self._seconds = run.seconds
        network = bench_network(run.network)
        dtype, device = getattr(torch, run.dtype), torch.device(run.device)
        torch.backends.cudnn.benchmark = True
        model = make_network(network, run.size)
        images = make_images(run.batch, run.size)
        exact = copy.deepcopy(model).double()
        task = NetworkTask(model.to(device, dtype), [images.to(device, dtype)], run.threads)
        cost = summarize(model, run.size)
        self._case = CaseRun(
            Case(
                suite="models",
                subject=network.name,
                name=run.case,
                params=run.params,
                variants=network_variants(task, list(run.peers)),
                truth=lambda: _truth(exact, task.images[0]),
                tolerance=accuracy.for_network(dtype),
                device=device,
                operations=2 * cost.macs * run.batch,
            )
        )

    def measure(self) -> list[Row]:
        """Time every variant that is right."""
        return self._case.measure(self._seconds)


def _truth(exact: nn.Module, images: Tensor) -> list[Tensor]:
    with torch.no_grad(), lmwp_ops.decomposed():
        return [exact(images.to("cpu", torch.float64))]
