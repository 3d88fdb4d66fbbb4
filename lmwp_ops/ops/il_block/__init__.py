"""The in-layer multi-scale block of CSNet in one launch, for inference."""

from lmwp_ops.ops.il_block.op import STAGES, il_block

__all__ = ["STAGES", "il_block"]
