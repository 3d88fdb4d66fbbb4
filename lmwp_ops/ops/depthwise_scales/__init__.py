"""Depthwise convolution, affine and PReLU over all branches of a multi-scale feature."""

from lmwp_ops.ops.depthwise_scales.op import depthwise_scales

__all__ = ["depthwise_scales"]
