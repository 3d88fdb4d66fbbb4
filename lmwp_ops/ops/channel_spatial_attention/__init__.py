"""Channel gate, then spatial gate (CBAM)."""

from lmwp_ops.ops.channel_spatial_attention.op import channel_spatial_attention

__all__ = ["channel_spatial_attention"]
