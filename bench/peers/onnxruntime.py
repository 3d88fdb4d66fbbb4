"""ONNX Runtime on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from lmwp_bench.peers.require import require
from lmwp_bench.peers.task import NetworkTask
from lmwp_bench.variant import Compute, Unavailable


def onnxruntime(task: NetworkTask) -> Compute:
    """The exported network with all of the runtime's graph optimisations."""
    runtime = require("onnxruntime")
    if task.dtype != torch.float32:
        raise Unavailable(f"run in float32 only; asked for {task.dtype}")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = task.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = runtime.InferenceSession(task.onnx, options, providers=["CPUExecutionProvider"])
    images = [image.numpy() for image in task.images]

    def compute(i: int) -> list[Tensor]:
        return [torch.from_numpy(session.run(None, {"image": images[i]})[0])]

    return compute
