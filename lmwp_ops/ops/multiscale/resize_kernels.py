"""Bilinear resize without aligned corners, as torch has it, in Triton kernels."""

import triton
import triton.language as tl


@triton.jit
def interpolated(position, grid, source):
    """Bilinear resize from `source` to `grid` pixels: first source position and weight of the next,
    as torch has them without aligned corners."""
    scale = tl.div_rn(source.to(tl.float32), grid.to(tl.float32))
    at = tl.maximum((position.to(tl.float32) + 0.5) * scale - 0.5, 0.0)
    low = tl.minimum(at.to(tl.int32), source - 1)
    return low, at - low.to(tl.float32)


@triton.jit
def scattered(position, grid, source):
    """Adjoint of a bilinear resize from `grid` to `source` pixels: the first one to gather from."""
    ratio = tl.div_rn(source.to(tl.float32), grid.to(tl.float32))
    return tl.floor((position.to(tl.float32) - 0.5) * ratio - 0.5).to(tl.int32) + 1


@triton.jit
def share_of(to, position, grid, source):
    """What `position` weighs in pixel `to` of `source`; nothing where there is no such pixel."""
    low, weight = interpolated(to, source, grid)
    share = tl.where(low == position, 1.0 - weight, 0.0)
    share += tl.where(tl.minimum(low + 1, grid - 1) == position, weight, 0.0)
    return tl.where((to >= 0) & (to < source), share, 0.0)
