"""Registration of `il_block`: schema, fake, autocast and backends."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lmwp_ops import _dispatch
from lmwp_ops._autograd import invoke
from lmwp_ops._layout import empty_like_layout
from lmwp_ops._library import define
from lmwp_ops._registration import register
from lmwp_ops.ops._arguments import (
    Affine,
    argument_error,
    check_channels,
    check_epilogue,
    check_no_gradient,
    check_parameter,
    fits,
    split_affine,
)
from lmwp_ops.ops.goctconv2d import checks as goctconv2d
from lmwp_ops.ops.il_block import reference
from lmwp_ops.ops.il_block.example import example

OP = "il_block"
STAGES = 3
_CUDA_SCALES = 8
_CUDA_SIDE = 2**20

_ARGUMENTS = (
    "Tensor[] xs, Tensor weight, Tensor[] depthwise, Tensor[] scale, Tensor[] shift, "
    "Tensor[] slope, int[] in_channels, int[] out_channels, bool entry_pool"
)
define(OP, f"({_ARGUMENTS}) -> Tensor[]")
# Implemented by the compiled libraries _C and _C_cuda.
for _backend in ("cpp", "cuda"):
    define(f"{OP}_{_backend}", f"({_ARGUMENTS}) -> Tensor[]")


def il_block(
    xs: Sequence[Tensor],
    weight: Tensor,
    in_channels: Sequence[int],
    out_channels: Sequence[int],
    depthwise: Sequence[Sequence[Tensor]],
    *,
    entry_pool: bool = False,
    affine: Sequence[Affine] | None = None,
    slope: Sequence[Sequence[Tensor]] | None = None,
) -> list[Tensor]:
    """An octave convolution and two depthwise 3 x 3 convolutions per branch, each with epilogue.

    The in-layer multi-scale block (ILBlock) of CSNet, Gao et al., ECCV 2020, section 3.1, with
    batch norms folded, for inference: what lies between its three layers never reaches memory.

    Args:
        xs, weight, in_channels, out_channels, entry_pool: see `lmwp_ops.goctconv2d`.
        depthwise: two lists, each with one [C_b, 1, 3, 3] per present output branch.
        affine: three lists, of the octave convolution and the two depthwise ones, each with one
            (scale, shift) per present output branch, both [C_b].
        slope: three lists of PReLU slopes [C_b], likewise.

    Returns:
        The present output branches, as `goctconv2d` does.

    Raises:
        ValueError: an argument does not fit, or a gradient is asked for; the message names it.
        BackendError: a backend forced by `use_backend` cannot run the call.
    """
    args = _bind(
        xs,
        weight,
        in_channels,
        out_channels,
        depthwise,
        entry_pool=entry_pool,
        affine=affine,
        slope=slope,
    )
    if _dispatch.is_decomposed():
        _check(*args)
        return reference.forward(*args)
    return invoke(OP, _check, args)


def _bind(
    xs: Sequence[Tensor],
    weight: Tensor,
    in_channels: Sequence[int],
    out_channels: Sequence[int],
    depthwise: Sequence[Sequence[Tensor]],
    *,
    entry_pool: bool = False,
    affine: Sequence[Affine] | None = None,
    slope: Sequence[Sequence[Tensor]] | None = None,
) -> tuple[Any, ...]:
    inputs = check_channels(OP, "in_channels", in_channels)
    outputs = check_channels(OP, "out_channels", out_channels)
    count = sum(1 for c in outputs if c)
    _check_lists("depthwise", depthwise, STAGES - 1, count)
    _check_lists("affine", affine or (), STAGES, count)
    _check_lists("slope", slope or (), STAGES, count)
    scale, shift = split_affine(OP, [pair for stage in affine or () for pair in stage])
    slopes = [values for stage in slope or () for values in stage]
    weights = [stage_weight for stage in depthwise for stage_weight in stage]
    return list(xs), weight, weights, scale, shift, slopes, list(inputs), list(outputs), entry_pool


def _check_lists(argument: str, given: Sequence[Sequence[Any]], stages: int, count: int) -> None:
    if (given or argument == "depthwise") and len(given) != stages:
        raise argument_error(OP, argument, f"{stages} lists, one per layer", len(given))
    for s, stage in enumerate(given):
        if len(stage) != count:
            expected = f"{count} entries, one per output branch"
            raise argument_error(OP, f"{argument}[{s}]", expected, len(stage))


def _check(
    xs: Sequence[Tensor],
    weight: Tensor,
    depthwise: Sequence[Tensor],
    scale: Sequence[Tensor],
    shift: Sequence[Tensor],
    slope: Sequence[Tensor],
    in_channels: Sequence[int],
    out_channels: Sequence[int],
    entry_pool: bool,
) -> None:
    """Raise ValueError unless the op can compute these arguments."""
    named = {"xs": xs, "weight": [weight], "depthwise": depthwise}
    check_no_gradient(OP, named | {"affine": [*scale, *shift], "slope": slope})
    settings = (in_channels, out_channels, entry_pool, True, False)
    goctconv2d.check(xs, weight, [], [], [], *settings, op=OP)
    widths = [c for c in out_channels if c]
    if len(depthwise) != (STAGES - 1) * len(widths):
        expected = f"{STAGES - 1} tensors per output branch"
        raise argument_error(OP, "depthwise", expected, len(depthwise))
    for i, (values, width) in enumerate(zip(depthwise, widths * (STAGES - 1), strict=True)):
        if not fits(values, (width, 1, 3, 3), xs[0]):
            name = f"depthwise[{i // len(widths)}][{i % len(widths)}]"
            check_parameter(OP, name, values, (width, 1, 3, 3), xs[0])
    check_epilogue(OP, scale, shift, slope, widths * STAGES, xs[0])


def _fake(*args: Any) -> list[Tensor]:
    xs, _, _, _, _, _, in_channels, out_channels, entry_pool = args
    shapes = goctconv2d.output_shapes(xs, in_channels, out_channels, entry_pool)
    return [empty_like_layout(xs[0], shape) for shape in shapes]


def _refuse_cuda(xs: Sequence[Tensor], *args: Any) -> str | None:
    *_, in_channels, out_channels, _ = args
    if max(len(in_channels), len(out_channels)) > _CUDA_SCALES:
        return f"it takes at most {_CUDA_SCALES} branches"
    finest_in, finest_out = (
        next(i for i, width in enumerate(widths) if width) for widths in (in_channels, out_channels)
    )
    largest = max((side for x in xs for side in x.shape[1:]), default=0)
    if max(largest << max(finest_in - finest_out, 0), *out_channels) > _CUDA_SIDE:
        return f"it takes at most {_CUDA_SIDE} channels, rows and columns"
    return None


register(
    OP,
    check=_check,
    fake=_fake,
    reference=reference.forward,
    compiled=("cuda", "cpp"),
    refuse={"cuda": _refuse_cuda},
    bind=_bind,
    example=example,
)
