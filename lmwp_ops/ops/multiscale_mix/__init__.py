"""Depthwise branches of one feature at several octaves and dilations, mixed by weights."""

from lmwp_ops.ops.multiscale_mix.op import multiscale_mix

__all__ = ["multiscale_mix"]
