"""Parallel dense 3 x 3 convolutions at several dilations, at every scale."""

from lmwp_ops.ops.dilated_bank.op import dilated_bank

__all__ = ["dilated_bank"]
