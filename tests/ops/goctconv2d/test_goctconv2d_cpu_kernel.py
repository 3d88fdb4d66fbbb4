"""The compiled CPU kernel of goctconv2d: every instruction set, and what it must refuse."""

import pytest
import torch

from lmwp_ops import _loader

from ..exactness import errors_in_roundings
from ..instruction_sets import INSTRUCTION_SETS, run_under
from .cases import PIXELS, Case, draw, grid, truth

pytestmark = pytest.mark.skipif(
    _loader.status()["_C"] is not None, reason=str(_loader.status()["_C"])
)


def worst_errors() -> list[float]:
    """Largest error of each case in units of its dtype's rounding of the largest value."""
    errors = []
    for case in (*grid(), *PIXELS):
        torch.manual_seed(0)
        args = draw(case)
        ys = torch.ops.lmwp_ops.goctconv2d_cpp.default(*args)
        errors += errors_in_roundings(ys, truth(args))
    return errors


@pytest.mark.parametrize("capability", INSTRUCTION_SETS)
def test_every_instruction_set(capability: str) -> None:
    errors = run_under(capability, "goctconv2d.test_goctconv2d_cpu_kernel", "worst_errors")
    assert len(errors) >= len(grid())
    assert max(errors) < 8


def test_refuses_what_would_read_out_of_bounds() -> None:
    xs, weight, *rest = draw(Case((3, 2), (2, 3), (8, 6)))
    scale, shift, slope, ins, outs, *options = rest
    kernel = torch.ops.lmwp_ops.goctconv2d_cpp.default
    for wrong in (
        ([], weight, *rest),
        (xs[:1], weight, *rest),
        (xs, weight[:4], *rest),
        (xs, weight[:, :4], *rest),
        (xs, weight.expand(-1, -1, 2, 2), *rest),
        (xs, weight, [scale[0][:1], scale[1]], shift, slope, ins, outs, *options),
        (xs, weight, scale, shift, slope, [4, 1], outs, *options),
        (xs, weight, scale, shift, slope, [0, 0], outs, *options),
        (xs, weight, scale, shift, slope, ins, [5, 1], *options),
        ([xs[0][:, :, :6], xs[1]], weight, *rest),
        ([x[..., :1] for x in xs], weight, *rest),
        (xs, weight, scale, shift, slope, [6, -1], outs, *options),
        (xs, weight, scale[:1], shift[:1], slope, ins, outs, *options),
        ([x.double() for x in xs], weight, *rest),
        ([xs[0], xs[1].half()], weight, *rest),
        ([x[0] for x in xs], weight, *rest),
        ([x[:, :, :0] for x in xs], weight, *rest),
    ):
        with pytest.raises(RuntimeError):
            kernel(*wrong)
