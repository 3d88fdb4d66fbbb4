"""The strided dense convolution that a network begins with, in one call, for inference."""

from lmwp_ops.ops.stem_conv2d.op import stem_conv2d

__all__ = ["stem_conv2d"]
