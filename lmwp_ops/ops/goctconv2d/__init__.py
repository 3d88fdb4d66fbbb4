"""Generalised octave convolution: any number of scales in, any number of scales out."""

from lmwp_ops.ops.goctconv2d.op import goctconv2d

__all__ = ["goctconv2d"]
