"""The network in the forms that other runtimes read."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

import lmwp_ops
from lmwp_bench.peers.require import require


def trace(model: nn.Module, image: Tensor) -> torch.jit.ScriptModule:
    """`model` as the torch operations that it runs on inputs like `image`."""
    with lmwp_ops.decomposed(), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that sizes become constants, and that tracing is old
        return torch.jit.trace(model, image, check_trace=False)


def export_onnx(traced: torch.jit.ScriptModule, image: Tensor, path: Path) -> Path:
    """Write a traced network for inputs like `image`.

    By the exporter from traces: the runtimes are as fast on its files as on those of the one from
    `torch.export`, which takes several times as long.
    """
    require("onnx")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a newer exporter exists
        torch.onnx.export(
            traced,
            (image,),
            path,
            dynamo=False,
            opset_version=18,
            input_names=["image"],
            output_names=["logits"],
        )
    return path
