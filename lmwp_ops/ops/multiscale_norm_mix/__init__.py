"""`multiscale_mix` in training: the batch norm of every branch takes its statistics there."""

from lmwp_ops.ops.multiscale_norm_mix.op import multiscale_norm_mix

__all__ = ["multiscale_norm_mix"]
