"""Fused kernels for small saliency networks: functions on tensors; modules are in `lmwp_ops.nn`.

A multi-scale feature is a list of tensors, branch b at 1 / 2^b of the resolution; a branch without
channels is absent from the list.
"""

from lmwp_ops import nn
from lmwp_ops._dispatch import (
    BackendError,
    decomposed,
    explain,
    forced_backend,
    is_decomposed,
    use_backend,
)
from lmwp_ops._warmup import warmup
from lmwp_ops.nn.sparsify import sparsify
from lmwp_ops.ops.bn_prelu_gap import bn_prelu_gap
from lmwp_ops.ops.channel_spatial_attention import channel_spatial_attention
from lmwp_ops.ops.depthwise_scales import depthwise_scales
from lmwp_ops.ops.dilated_bank import dilated_bank
from lmwp_ops.ops.goctconv2d import goctconv2d
from lmwp_ops.ops.guided_fusion import guided_fusion
from lmwp_ops.ops.il_block import il_block
from lmwp_ops.ops.multiscale_mix import multiscale_mix
from lmwp_ops.ops.multiscale_norm_mix import multiscale_norm_mix
from lmwp_ops.ops.mwpm_block import mwpm_block
from lmwp_ops.ops.sparse_conv2d import SparseConvWeight, sparse_conv2d
from lmwp_ops.ops.stem_conv2d import stem_conv2d

__all__ = [
    "BackendError",
    "SparseConvWeight",
    "bn_prelu_gap",
    "channel_spatial_attention",
    "decomposed",
    "depthwise_scales",
    "dilated_bank",
    "explain",
    "forced_backend",
    "goctconv2d",
    "guided_fusion",
    "il_block",
    "is_decomposed",
    "multiscale_mix",
    "multiscale_norm_mix",
    "mwpm_block",
    "nn",
    "sparse_conv2d",
    "sparsify",
    "stem_conv2d",
    "use_backend",
    "warmup",
]
