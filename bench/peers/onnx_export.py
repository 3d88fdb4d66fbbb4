"""Export to ONNX."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

import lmwp_ops
from lmwp_bench.peers.require import require


def export_onnx(model: nn.Module, image: Tensor, path: Path) -> Path:
    """Write `model` for inputs like `image` by torch's own exporter."""
    require("onnx")
    require("onnxscript")
    # Says for every op of torchvision that torchvision is not installed.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with lmwp_ops.decomposed(), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (image,),
            path,
            dynamo=True,
            optimize=False,  # the runtimes fold as much, in a fraction of the time
            verbose=False,
            external_data=False,
            input_names=["image"],
            output_names=["logits"],
        )
    return path
