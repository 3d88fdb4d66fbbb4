"""CSNet with the ops of lmwp_ops, inference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lmwp_bench.networks import bench_network, make_images, make_network
from lmwp_bench.peers.pytorch import eager, fused, with_ops
from lmwp_bench.peers.task import NetworkTask
from lmwp_bench.regression.conftest import Paired
from lmwp_bench.variant import Compute

SIZE = (112, 112)


@pytest.mark.parametrize("name", ["csnet-l-x1", "csnet-x1"])
@pytest.mark.parametrize("run", [with_ops, fused])
def test_network(paired: Paired, name: str, run: Callable[[NetworkTask], Compute]) -> None:
    model = make_network(bench_network(name), SIZE)
    task = NetworkTask(model, [make_images(1, SIZE)], torch.get_num_threads())
    paired(eager(task), run(task))
