"""Plain-torch truth of `il_block`: the ops it fuses, one after the other."""

from collections.abc import Sequence

from torch import Tensor

from lmwp_ops.ops.depthwise_scales import reference as depthwise_scales
from lmwp_ops.ops.goctconv2d import reference as goctconv2d


def forward(
    xs: Sequence[Tensor],
    weight: Tensor,
    depthwise: Sequence[Tensor],
    scale: Sequence[Tensor],
    shift: Sequence[Tensor],
    slope: Sequence[Tensor],
    in_channels: Sequence[int],
    out_channels: Sequence[int],
    entry_pool: bool,
) -> list[Tensor]:
    """See `lmwp_ops.il_block`; arguments are taken as already checked."""
    count = sum(1 for c in out_channels if c)
    stages = [slice(s * count, (s + 1) * count) for s in range(3)]
    ys = goctconv2d.forward(
        xs,
        weight,
        scale[stages[0]],
        shift[stages[0]],
        slope[stages[0]],
        in_channels,
        out_channels,
        entry_pool,
        True,
        False,
    )
    for weights, stage in zip((depthwise[:count], depthwise[count:]), stages[1:], strict=True):
        epilogue = (list(scale[stage]), list(shift[stage]), list(slope[stage]))
        ys = depthwise_scales.forward(ys, list(weights), *epilogue, 1, 1)
    return ys
