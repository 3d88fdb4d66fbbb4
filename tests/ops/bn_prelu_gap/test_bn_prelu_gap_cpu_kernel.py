"""The compiled CPU kernels of bn_prelu_gap: every instruction set, and what they must refuse."""

import pytest
import torch

from lmwp_ops import _loader

from ..exactness import errors_in_roundings
from ..instruction_sets import INSTRUCTION_SETS, run_under
from .cases import EPS, double, draw, eager, flat, grid, true_gradients

pytestmark = pytest.mark.skipif(
    _loader.status()["_C"] is not None, reason=str(_loader.status()["_C"])
)

op = torch.ops.lmwp_ops.bn_prelu_gap_cpp.default
op_backward = torch.ops.lmwp_ops.bn_prelu_gap_backward_cpp.default


def worst_errors() -> list[float]:
    """Largest error of each result in units of its dtype's rounding of the largest value."""
    errors = []
    # Of one pixel and a batch of two hardly a gradient is left to compare with.
    for case in (c for c in grid() if all(h * w > 1 for _, _, h, w in c.shapes)):
        torch.manual_seed(0)
        args = draw(case)
        ys, means, mean, var = op(*args)
        errors += errors_in_roundings([*ys, *means], eager(double(args)))
        grads = [torch.randn(x.shape).to(x) for x in args[0]]
        wanted = [True, True, True, bool(args[3])]
        found = flat(op_backward(grads, *args[:4], mean, var, EPS, wanted))
        errors += errors_in_roundings(found, flat(true_gradients(grads, args)))
    return errors


@pytest.mark.parametrize("capability", INSTRUCTION_SETS)
def test_every_instruction_set(capability: str) -> None:
    errors = run_under(capability, "bn_prelu_gap.test_bn_prelu_gap_cpu_kernel", "worst_errors")
    assert len(errors) >= 4 * len(grid())
    assert max(errors) < 16


def test_refuses_what_would_read_out_of_bounds() -> None:
    x, w = torch.randn(2, 3, 4, 5), torch.ones(3)
    narrow = torch.ones(2)
    for wrong in (
        ([], [], [], [], EPS),
        ([x], [narrow], [w], [w], EPS),
        ([x], [w], [narrow], [w], EPS),
        ([x], [w], [w], [narrow], EPS),
        ([x], [w], [w], [w, w], EPS),
        ([x, x], [w], [w], [w], EPS),
        ([x.double()], [w], [w], [w], EPS),
        ([x[0]], [w], [w], [w], EPS),
        ([x[:, :, :0]], [w], [w], [w], EPS),
        ([x[:1, :, :1, :1]], [w], [w], [w], EPS),
    ):
        with pytest.raises(RuntimeError):
            op(*wrong)
    every = [True] * 4
    for wrong in (
        ([], [x], [w], [w], [w], [w], [w], EPS, every),
        ([x[:1]], [x], [w], [w], [w], [w], [w], EPS, every),
        ([x.half()], [x], [w], [w], [w], [w], [w], EPS, every),
        ([x], [x], [w], [w], [w], [narrow], [w], EPS, every),
        ([x], [x], [w], [w], [w], [w], [], EPS, every),
        ([x], [x], [w], [w], [w], [w], [w], EPS, every[:3]),
    ):
        with pytest.raises(RuntimeError):
            op_backward(*wrong)
