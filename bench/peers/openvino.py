"""OpenVINO on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from lmwp_bench.peers.require import require
from lmwp_bench.peers.task import NetworkTask
from lmwp_bench.variant import Compute, Unavailable


def openvino(task: NetworkTask) -> Compute:
    """The traced network, compiled for latency, in float32 also where the CPU has bfloat16."""
    runtime = require("openvino")
    if task.dtype != torch.float32:
        raise Unavailable(f"run in float32 only; asked for {task.dtype}")
    settings = {
        "INFERENCE_NUM_THREADS": task.threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    image = task.images[0]
    network = runtime.convert_model(task.traced, example_input=image, input=list(image.shape))
    request = runtime.Core().compile_model(network, "CPU", settings).create_infer_request()
    images = [image.numpy() for image in task.images]

    def compute(i: int) -> list[Tensor]:
        outputs = request.infer({0: images[i]}, share_inputs=True, share_outputs=True)
        return [torch.from_numpy(outputs[0])]

    return compute
