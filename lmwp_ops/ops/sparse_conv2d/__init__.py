"""Convolution by a pruned weight."""

from lmwp_ops.ops.sparse_conv2d.op import sparse_conv2d
from lmwp_ops.ops.sparse_conv2d.weight import SparseConvWeight

__all__ = ["SparseConvWeight", "sparse_conv2d"]
