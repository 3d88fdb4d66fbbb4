"""The compiled CPU kernel: every instruction set, and refusals of arguments it cannot take."""

import pytest
import torch

from lmwp_ops import _loader

from ..exactness import errors_in_roundings
from ..instruction_sets import INSTRUCTION_SETS, run_under
from .cases import Case, double, draw, eager

pytestmark = pytest.mark.skipif(
    _loader.status()["_C"] is not None, reason=str(_loader.status()["_C"])
)

CASES = [
    Case(((2, 3, 9, 7), (2, 2, 5, 33)), k, stride, dilation, dtype)
    for k in (1, 3, 5, 7)
    for stride, dilation in ((1, 1), (1, 3), (2, 1), (2, 2))
    for dtype in (torch.float32, torch.float16, torch.bfloat16)
]


def worst_errors() -> list[float]:
    """Largest error of each case in units of its dtype's rounding of the largest value."""
    errors = []
    for case in CASES:
        torch.manual_seed(0)
        args = draw(case)
        ys = torch.ops.lmwp_ops.depthwise_scales_cpp.default(*args)
        errors += errors_in_roundings(ys, eager(double(args)))
    return errors


@pytest.mark.parametrize("capability", INSTRUCTION_SETS)
def test_every_instruction_set(capability: str) -> None:
    errors = run_under(capability, "depthwise_scales.test_cpu_kernel", "worst_errors")
    assert len(errors) >= len(CASES)
    assert max(errors) < 6


def test_refuses_what_would_read_out_of_bounds() -> None:
    xs, weights, *rest = draw(Case(((1, 3, 5, 5),)))
    kernel = torch.ops.lmwp_ops.depthwise_scales_cpp.default
    for wrong in (
        ([], [], [], [], [], 1, 1),
        (xs, [weights[0][:2]], *rest),
        (xs, [weights[0][..., :2]], *rest),
        (xs, weights, [rest[0][0][:1]], *rest[1:]),
        (xs, weights, *rest[:3], 3, 1),
        (xs, weights, *rest[:3], 1, 0),
        ([xs[0].double()], weights, *rest),
        ([xs[0][0]], weights, *rest),
        ([xs[0][:, :, :0]], weights, *rest),
    ):
        with pytest.raises(RuntimeError):
            kernel(*wrong)
