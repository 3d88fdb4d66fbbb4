"""Networks on the fused ops, for inference."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

from lmwp_models.csnet import CSNet
from lmwp_models.fused_csnet import FusedCSNet
from lmwp_models.fused_lmwpnet import FusedLMWPNet
from lmwp_models.lmwpnet import LMWPNet
from lmwp_ops.nn import SparseConv2d

Model = TypeVar("Model", bound=nn.Module)


def optimize_for_inference(model: nn.Module, *, cuda_graphs: bool = True) -> nn.Module:
    """A module that computes what `model` does in `eval()`, on the fused ops.

    Batch norms, in float64, and the factor on stored weights are folded into parameters of their
    own, so the result neither follows later changes of `model` nor can be trained. It has the
    device and dtype of `model`; logits agree within rounding. Takes a
    `CSNet` or an `LMWPNet`, which gives its finest map; raises `TypeError` for others. Sparse
    convolutions become dense ones: the fused kernels compute for zeros, too, and are faster still.

    On a GPU, unless `cuda_graphs` is False, a call for images of a shape, dtype and layout that
    were seen before replays a CUDA graph, captured at the second such call; the last eight kinds of
    images are kept, each with memory for the network's features. Outputs are the caller's own, and
    several threads may call. Under autocast, `torch.compile`, a tracer or a capture of the
    caller's, the kernels are launched one by one, as they are on the CPU.
    """
    if isinstance(model, CSNet):
        return FusedCSNet(_dense(model), cuda_graphs=cuda_graphs).eval()
    if isinstance(model, LMWPNet):
        return FusedLMWPNet(_dense(model), cuda_graphs=cuda_graphs).eval()
    raise TypeError(
        f"optimize_for_inference: expected a CSNet or an LMWPNet, got {type(model).__name__}"
    )


def _dense(model: Model) -> Model:
    """The model, or, where it has sparse convolutions, a copy with dense ones in their places."""
    if not any(isinstance(module, SparseConv2d) for module in model.modules()):
        return model
    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, SparseConv2d):
            model.set_submodule(name, module.to_conv())
    return model
