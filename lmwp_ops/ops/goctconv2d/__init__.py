"""Generalised octave convolution: any number of scales in, any number of scales out."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from lmwp_ops.ops._arguments import (
    Affine,
    argument_error,
    check_branches,
    check_channels,
    check_epilogue,
    check_weight,
)
from lmwp_ops.ops.goctconv2d.reference import branch_sizes, goctconv2d_reference

__all__ = ["goctconv2d"]

_OP = "goctconv2d"


def goctconv2d(
    xs: Sequence[Tensor],
    weight: Tensor,
    in_channels: Sequence[int],
    out_channels: Sequence[int],
    *,
    entry_pool: bool = False,
    cross_scale: bool = True,
    down: Literal["max", "bilinear"] = "max",
    affine: Affine | None = None,
    slope: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """Convolve features at several scales into features at several scales (gOctConv).

    Output branch `j` is the sum over input branches `i` of a convolution with the block
    `weight[rows of j, columns of i]`: for `i < j` the input is first pooled down by
    `2**(j - i)`, for `i > j` the result is resized up bilinearly (`align_corners=False`).
    Source: CSNet, Gao et al., ECCV 2020, section 3.1; the order of pooling, convolution and
    resizing is that of the released network.

    Args:
        xs: the present input branches, finest first, each `[N, in_channels[i], H_i, W_i]` in
            float16, bfloat16, float32 or float64.
        weight: `[sum(out_channels), sum(in_channels), k, k]` with k 1 or 3 (padding `k // 2`);
            rows and columns in branch order.
        in_channels: width of every input branch, 0 for an absent one (it has no entry in `xs`).
        out_channels: width of every output branch, 0 for an absent one.
        entry_pool: average-pool every input branch 2 x 2, stride 2, before anything else.
        cross_scale: `False` keeps only the terms with `i == j`.
        down: how a finer input is brought down: `"max"` (window and stride `2**(j - i)`) or
            `"bilinear"` (resized to the size of branch `j`; then branches may have any size).
        affine: `(scale, shift)` per present output branch, each `[out_channels[j]]`, applied
            to the sum; a folded batch norm.
        slope: PReLU slopes per present output branch, each `[out_channels[j]]`, applied last.

    Returns:
        The present output branches, `[N, out_channels[j], H_j, W_j]`. `H_j` is the height of
        input branch `j` (after `entry_pool`) where there is one, else that of the finest
        input branch halved (rounding down) or doubled once per scale.

    Raises:
        ValueError: an argument does not fit; the text names it, what was expected and what came.
    """
    inputs = check_channels(_OP, "in_channels", in_channels)
    outputs = check_channels(_OP, "out_channels", out_channels)
    check_branches(_OP, xs, [c for c in inputs if c])
    if down not in ("max", "bilinear"):
        raise argument_error(_OP, "down", "'max' or 'bilinear'", repr(down))
    _check_kernel(weight, sum(outputs), sum(inputs))
    check_weight(_OP, "weight", weight, xs[0])
    check_epilogue(_OP, affine, slope, [c for c in outputs if c])
    if not cross_scale:
        _check_same_scale(inputs, outputs)
    _check_sizes(xs, inputs, outputs, entry_pool=entry_pool, aligned=cross_scale and down == "max")
    return goctconv2d_reference(
        xs,
        weight,
        inputs,
        outputs,
        entry_pool=entry_pool,
        cross_scale=cross_scale,
        down=down,
        affine=affine,
        slope=slope,
    )


def _check_kernel(weight: Tensor, rows: int, columns: int) -> None:
    shape = tuple(weight.shape)
    if shape not in ((rows, columns, 1, 1), (rows, columns, 3, 3)):
        expected = f"shape [{rows}, {columns}, k, k] with k 1 or 3"
        raise argument_error(_OP, "weight", expected, list(shape))


def _check_same_scale(inputs: Sequence[int], outputs: Sequence[int]) -> None:
    for j, width in enumerate(outputs):
        if width and (j >= len(inputs) or not inputs[j]):
            expected = f"0 for branch {j}, which has no input and no cross-scale terms"
            raise argument_error(_OP, "out_channels", expected, width)


def _check_sizes(
    xs: Sequence[Tensor],
    inputs: Sequence[int],
    outputs: Sequence[int],
    *,
    entry_pool: bool,
    aligned: bool,
) -> None:
    """No branch may vanish; max-pooled terms need branches that halve (rounding down) per scale."""
    present = [i for i, width in enumerate(inputs) if width]
    step = 2 if entry_pool else 1
    sizes = {
        i: (x.shape[-2] // step, x.shape[-1] // step) for i, x in zip(present, xs, strict=True)
    }
    for x, (i, (height, width)) in zip(xs, sizes.items(), strict=True):
        if height == 0 or width == 0:
            got = f"{x.shape[-2]} x {x.shape[-1]}"
            raise argument_error(_OP, f"xs, branch {i}", f"at least {step} x {step} pixels", got)
    finest = present[0]
    for j, (height, width) in branch_sizes(sizes, outputs).items():
        if height == 0 or width == 0:
            got = "{} x {}".format(*sizes[finest])
            expected = f"at least {2 ** (j - finest)} pixels a side to reach output branch {j}"
            raise argument_error(_OP, f"xs, branch {finest}", expected, got)
    if aligned:
        for i in present:
            expected_size = tuple(side >> (i - finest) for side in sizes[finest])
            if sizes[i] != expected_size:
                expected = "{} x {}, branch {} halved".format(*expected_size, finest)
                got = "{} x {}".format(*sizes[i])
                raise argument_error(_OP, f"xs, branch {i}", expected, got)
