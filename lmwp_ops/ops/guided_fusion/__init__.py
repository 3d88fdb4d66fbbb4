"""An encoder feature fused with a coarser decoder feature under guidance, for inference."""

from lmwp_ops.ops.guided_fusion.op import guided_fusion

__all__ = ["guided_fusion"]
