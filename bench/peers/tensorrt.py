"""TensorRT on an NVIDIA GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from lmwp_bench.peers.require import require
from lmwp_bench.peers.task import NetworkTask
from lmwp_bench.variant import Compute, Unavailable


def tensorrt(task: NetworkTask) -> Compute:
    """The exported network as an engine for this GPU and these shapes."""
    trt = require("tensorrt")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(task.onnx)):
        raise Unavailable(f"TensorRT does not read the network: {parser.get_error(0).desc()}")
    plan = builder.build_serialized_network(network, builder.create_builder_config())
    if plan is None:
        raise Unavailable("TensorRT could not build an engine")
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    context = engine.create_execution_context()
    n, _, height, width = task.images[0].shape
    logits = torch.empty(n, 1, height, width, dtype=task.dtype, device=task.device)
    context.set_tensor_address("logits", logits.data_ptr())

    def compute(i: int) -> list[Tensor]:
        context.set_tensor_address("image", task.images[i].data_ptr())
        context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
        return [logits]

    return compute
