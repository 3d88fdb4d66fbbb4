"""What `guided_fusion` accepts; every error names op, argument, expected and got."""

from collections.abc import Sequence

from torch import Tensor

from lmwp_ops.ops._arguments import (
    argument_error,
    check_feature,
    check_no_gradient,
    check_parameter,
    check_parameters,
    fits,
)

OP = "guided_fusion"

NORMED = ("weight", "scale", "shift")
LAYER = (*NORMED, "slope")
GUIDE = ("weight", "bias")


def check(
    xs: Sequence[Tensor],
    gate: Tensor,
    encode: Sequence[Tensor],
    decode: Sequence[Tensor],
    guide: Sequence[Tensor],
    depthwise: Sequence[Tensor],
    fuse: Sequence[Tensor],
    dilations: Sequence[int],
) -> None:
    """Raise ValueError unless the op can compute these arguments."""
    layers = {"encode": encode, "decode": decode, "guide": guide}
    layers |= {"depthwise": depthwise, "fuse": fuse}
    check_no_gradient(OP, {"encoder, decoder": xs, "gate": [gate]} | layers)
    if len(xs) != 2:
        raise argument_error(OP, "xs", "two features", len(xs))
    encoder, decoder = xs
    check_feature(OP, "encoder", encoder)
    check_feature(OP, "decoder", decoder)
    if decoder.dtype != encoder.dtype or decoder.device != encoder.device:
        expected = f"{encoder.dtype} on {encoder.device} like encoder"
        raise argument_error(OP, "decoder", expected, f"{decoder.dtype} on {decoder.device}")
    if decoder.shape[0] != encoder.shape[0]:
        expected = f"batch size {encoder.shape[0]} like encoder"
        raise argument_error(OP, "decoder", expected, decoder.shape[0])
    if not dilations or min(dilations) < 1:
        raise argument_error(OP, "dilations", "positive ones, at least one", list(dilations))
    ce, cd = encoder.shape[1], decoder.shape[1]
    c = _rows("encode", encode, NORMED)
    co = _rows("fuse", fuse, LAYER)
    check_parameters(OP, "encode", NORMED, encode, [(c, ce, 1, 1), (c,), (c,)], encoder)
    check_parameters(OP, "decode", NORMED, decode, [(c, cd, 1, 1), (c,), (c,)], encoder)
    check_parameters(OP, "guide", GUIDE, guide, [(1, cd, 1, 1), (1,)], encoder)
    k = len(dilations)
    check_parameters(OP, "depthwise", NORMED, depthwise, [(k, c, 3, 3), (k, c), (k, c)], encoder)
    check_parameters(OP, "fuse", LAYER, fuse, [(co, c, 1, 1), (co,), (co,), (co,)], encoder)
    if not fits(gate, (encoder.shape[0], c), encoder):
        check_parameter(OP, "gate", gate, (encoder.shape[0], c), encoder, "encoder")


def _rows(argument: str, given: Sequence[Tensor], names: Sequence[str]) -> int:
    """How many output channels a layer has."""
    if len(given) != len(names):
        expected = f"{len(names)} tensors: {', '.join(names)}"
        raise argument_error(OP, argument, expected, len(given))
    if given[0].dim() == 0 or given[0].shape[0] == 0:
        raise argument_error(OP, f"{argument} weight", "rows", list(given[0].shape))
    return given[0].shape[0]
