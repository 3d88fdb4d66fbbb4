"""Batch norm and PReLU in training mode, and the channel means of their result."""

from lmwp_ops.ops.bn_prelu_gap.op import bn_prelu_gap

__all__ = ["bn_prelu_gap"]
