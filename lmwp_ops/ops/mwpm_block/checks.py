"""What `mwpm_block` accepts; every error names op, argument, expected and got."""

from collections.abc import Sequence

from torch import Tensor

from lmwp_ops.ops._arguments import (
    argument_error,
    check_feature,
    check_no_gradient,
    check_parameters,
)
from lmwp_ops.ops.multiscale_mix.checks import LARGEST_OCTAVE

OP = "mwpm_block"

LAYER = ("weight", "scale", "shift", "slope")
GATE = ("reduce weight", "reduce bias", "slope", "expand weight", "expand bias", "threshold")
DEPTHWISE = ("weights", "scale", "shift")


def check(
    x: Tensor,
    expand: Sequence[Tensor],
    gate: Sequence[Tensor],
    depthwise: Sequence[Tensor],
    project: Sequence[Tensor],
    octaves: Sequence[int],
    dilations: Sequence[int],
    packed: Tensor | None = None,
) -> None:
    """Raise ValueError unless the op can compute these arguments."""
    named = {"expand": expand, "gate": gate, "depthwise": depthwise, "project": project}
    check_no_gradient(OP, {"x": [x], **named})
    check_feature(OP, "x", x)
    if not octaves or len(octaves) != len(dilations):
        raise argument_error(OP, "branches", "at least one pair", f"{octaves} and {dilations}")
    for k, (octave, dilation) in enumerate(zip(octaves, dilations, strict=True)):
        if not 0 <= octave <= LARGEST_OCTAVE or dilation < 1:
            expected = f"an octave of 0 to {LARGEST_OCTAVE} and a positive dilation"
            raise argument_error(OP, f"branches[{k}]", expected, (octave, dilation))
    c, branches = x.shape[1], len(octaves)
    m = _rows("expand", expand, LAYER, f"[m, {c}, 1, 1]")
    hidden = _rows("gate", gate, GATE, f"[h, {m}]")
    check_parameters(OP, "expand", LAYER, expand, [(m, c, 1, 1), (m,), (m,), (m,)], x)
    shapes: list[tuple[int, ...]] = [(hidden, m), (hidden,), (hidden,)]
    shapes += [(branches * m, hidden), (branches * m,), (m,)]
    check_parameters(OP, "gate", GATE, gate, shapes, x)
    tables: list[tuple[int, ...]] = [(branches, m, 3, 3), (branches, m), (branches, m)]
    check_parameters(OP, "depthwise", DEPTHWISE, depthwise, tables, x)
    check_parameters(OP, "project", LAYER, project, [(c, m, 1, 1), (c,), (c,), (c,)], x)


def _rows(argument: str, given: Sequence[Tensor], names: Sequence[str], expected: str) -> int:
    """How many outputs the first layer of `given` has."""
    if len(given) != len(names):
        raise argument_error(OP, argument, f"{len(names)} tensors", len(given))
    if given[0].dim() == 0 or given[0].shape[0] == 0:
        raise argument_error(OP, f"{argument} weight", expected, list(given[0].shape))
    return given[0].shape[0]
