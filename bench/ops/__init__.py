"""The ops by name, with the shapes they are measured at."""

from typing import Any

from lmwp_bench.ops.bn_prelu_gap import BN_PRELU_GAP
from lmwp_bench.ops.channel_spatial_attention import CHANNEL_SPATIAL_ATTENTION
from lmwp_bench.ops.depthwise_scales import DEPTHWISE_SCALES
from lmwp_bench.ops.dilated_bank import DILATED_BANK
from lmwp_bench.ops.goctconv2d import GOCTCONV2D
from lmwp_bench.ops.guided_fusion import GUIDED_FUSION
from lmwp_bench.ops.il_block import IL_BLOCK
from lmwp_bench.ops.multiscale_mix import MULTISCALE_MIX, MULTISCALE_NORM_MIX
from lmwp_bench.ops.mwpm_block import MWPM_BLOCK
from lmwp_bench.ops.sparse_conv2d import SPARSE_CONV2D
from lmwp_bench.ops.spec import OpSpec
from lmwp_bench.ops.stem_conv2d import STEM_CONV2D

OPS: dict[str, OpSpec[Any]] = {
    spec.name: spec
    for spec in (
        *(DEPTHWISE_SCALES, GOCTCONV2D, IL_BLOCK, DILATED_BANK, BN_PRELU_GAP),
        CHANNEL_SPATIAL_ATTENTION,
        *(MULTISCALE_MIX, MULTISCALE_NORM_MIX, MWPM_BLOCK, GUIDED_FUSION),
        STEM_CONV2D,
        SPARSE_CONV2D,
    )
}

__all__ = ["OPS", "OpSpec"]
