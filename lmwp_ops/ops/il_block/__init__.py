"""The in-layer multi-scale block of CSNet in one launch, for inference."""

from lmwp_ops.ops.il_block.op import il_block

__all__ = ["il_block"]
