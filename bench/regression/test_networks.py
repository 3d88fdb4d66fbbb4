"""CSNet with the ops of lmwp_ops, inference."""

from __future__ import annotations

import pytest
import torch

from lmwp_bench.networks import bench_network, make_images, make_network
from lmwp_bench.peers.pytorch import eager, with_ops
from lmwp_bench.peers.task import NetworkTask
from lmwp_bench.regression.conftest import Paired

SIZE = (112, 112)


@pytest.mark.parametrize("name", ["csnet-l-x1", "csnet-x1"])
def test_network(paired: Paired, name: str) -> None:
    model = make_network(bench_network(name), SIZE)
    task = NetworkTask(model, [make_images(1, SIZE)], torch.get_num_threads())
    paired(eager(task), with_ops(task))
