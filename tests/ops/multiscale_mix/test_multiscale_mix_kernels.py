"""The compiled CPU kernels of the two multi-scale mixes, on a grid and under every instruction
set, and what they must refuse."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from lmwp_ops import _loader
from lmwp_ops.ops.multiscale_mix import reference
from lmwp_ops.ops.multiscale_norm_mix import reference as norm_reference

from ..exactness import (
    LAYOUTS,
    assert_as_exact,
    assert_same_for_any_threads,
    errors_in_roundings,
    feature,
)
from ..instruction_sets import INSTRUCTION_SETS, run_under

pytestmark = pytest.mark.skipif(
    _loader.status()["_C"] is not None, reason=str(_loader.status()["_C"])
)

op = torch.ops.lmwp_ops.multiscale_mix_cpp.default
op_backward = torch.ops.lmwp_ops.multiscale_mix_backward_cpp.default
norm_op = torch.ops.lmwp_ops.multiscale_norm_mix_cpp.default
norm_op_backward = torch.ops.lmwp_ops.multiscale_norm_mix_backward_cpp.default

LMWPNET = ((0, 1), (0, 2), (1, 1), (2, 1))
BRANCHES = (
    LMWPNET,
    ((0, 1),),
    ((3, 1), (1, 3), (1, 1)),
    ((0, 5), (2, 2), (0, 90), (4, 1), (1, 2)),
)
CHANNELS = (1, 3, 16, 33)
SIZES = ((1, 1), (7, 7), (11, 11), (15, 17), (21, 21), (42, 42), (84, 84), (2, 40), (33, 1))
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
EPS = 1e-5
ALL = [True] * 5


@dataclass(frozen=True)
class Case:
    batch: int
    channels: int
    size: tuple[int, int]
    branches: tuple[tuple[int, int], ...] = LMWPNET
    dtype: torch.dtype = torch.float32
    layout: str = "nchw"

    def __str__(self) -> str:
        shape = "x".join(map(str, (self.batch, self.channels, *self.size)))
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{shape}-{len(self.branches)}-{dtype}-{self.layout}"


def grid() -> list[Case]:
    """Every value meets most others: the lists' lengths are coprime or stepped apart."""
    return [
        Case(
            *(2 + i % 2, CHANNELS[(i + i // 9) % 4], SIZES[i % 9], BRANCHES[(i + i // 12) % 4]),
            *(DTYPES[(i + i // 9) % 3], LAYOUTS[(i + i // 6) % 6]),
        )
        for i in range(54)
    ]


def draw(case: Case) -> tuple[Any, ...]:
    """Arguments of `multiscale_mix`; every third weight of a branch is 0."""
    count, m = len(case.branches), case.channels
    mix = torch.rand(case.batch, count, m) + 0.1
    mix.view(-1)[::3] = 0
    u = feature((case.batch, m, *case.size), case.dtype, case.layout)
    scale, shift = torch.randn(2, count, m).unbind()
    octaves, dilations = map(list, zip(*case.branches, strict=True))
    return u, torch.randn(count, m, 3, 3) / 3, mix, scale, shift, octaves, dilations


def double(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(a.double() if isinstance(a, Tensor) else a for a in args)


def draw_gradient(args: tuple[Any, ...]) -> Tensor:
    """Of the result, and of another layout than it where that is channels_last."""
    return torch.randn(args[0].shape).to(args[0].dtype)


def flat(kinds: tuple[list[Tensor], ...]) -> list[Tensor]:
    return [t for kind in kinds for t in kind]


def with_statistics(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments of the backward of `multiscale_norm_mix` but for the gradient and the mask."""
    _, _, mean, var = norm_reference.forward(*args, EPS)
    return *args[:5], mean, var, *args[5:], EPS


def has_statistics(case: Case) -> bool:
    """Whether the variance of no branch comes from a handful of values."""
    window = 2 ** max(octave for octave, _ in case.branches)
    return -(-case.size[0] // window) * -(-case.size[1] // window) > 3


@pytest.mark.parametrize("case", grid(), ids=str)
def test_mix_is_as_exact_as_the_reference(case: Case) -> None:
    args = draw(case)
    y, plain, truth = op(*args), reference.forward(*args), reference.forward(*double(args))
    assert y.stride() == plain.stride()
    assert_as_exact([y], [plain], [truth], roundings=2)


@pytest.mark.parametrize("case", list(filter(has_statistics, grid())), ids=str)
def test_norm_mix_is_as_exact_as_the_reference(case: Case) -> None:
    args = (*draw(case), EPS)
    found, plain = norm_op(*args), norm_reference.forward(*args)
    assert found[0].stride() == plain[0].stride()
    assert_as_exact(found, plain, norm_reference.forward(*double(args)), roundings=4)


@pytest.mark.parametrize("case", grid(), ids=str)
def test_gradients_of_mix_are_as_exact_as_the_reference(case: Case) -> None:
    args = draw(case)
    grad = draw_gradient(args)
    found, plain = op_backward(grad, *args, ALL), reference.backward(grad, *args, ALL)
    assert found[0][0].stride() == plain[0][0].stride()
    truth = reference.backward(grad.double(), *double(args), ALL)
    assert_as_exact(flat(found), flat(plain), flat(truth), roundings=16)


@pytest.mark.parametrize("case", list(filter(has_statistics, grid())), ids=str)
def test_gradients_of_norm_mix_are_as_exact_as_the_reference(case: Case) -> None:
    args = draw(case)
    grad = draw_gradient(args)
    found = norm_op_backward(grad, *with_statistics(args), ALL)
    plain = norm_reference.backward(grad, *with_statistics(args), ALL)
    truth = norm_reference.backward(grad.double(), *with_statistics(double(args)), ALL)
    assert_as_exact(flat(found), flat(plain), flat(truth), roundings=16)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_skipped_adds_nothing_to_gradients(value: float) -> None:
    args = draw(Case(2, 3, (15, 17)))
    grad, wanted = draw_gradient(args), [True, True, False, True, True]
    args[2][:, :, 1] = 0
    args[2][:, 2] = 0
    expected = op_backward(grad, *args, wanted)
    args[0][:, 1] = value
    grad[:, 1] = value
    for parameter in (args[1], args[3], args[4]):
        parameter[2] = value
    found = op_backward(grad, *args, wanted)
    assert all(torch.equal(a, b) for a, b in zip(flat(found), flat(expected), strict=True))
    assert not found[0][0][:, 1].any()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_skipped_branches_hold_anything(value: float) -> None:
    case = Case(2, 3, (15, 17))
    args = draw(case)
    skipped = args[2].transpose(0, 1) == 0  # [branches, batch, channels]
    expected = op(*args)
    everywhere = skipped.all(1)
    for k in (1, 3, 4):
        args[k][everywhere] = value
    assert everywhere.any()
    assert torch.equal(op(*args), expected)
    args[2][:, :, 1] = 0
    args[0][:, 1] = value
    y = op(*args)
    assert not y[:, 1].any()
    assert torch.equal(y[:, ::2], expected[:, ::2])


def test_nan_in_mix_is_not_zero() -> None:
    args = draw(Case(2, 3, (7, 7)))
    args[2][1, 2, 1] = torch.nan
    y = op(*args)
    assert y[1, 1].isnan().all()
    y[1, 1] = 0
    assert y.isfinite().all()


def test_empty_batch() -> None:
    args = draw(Case(0, 3, (7, 7)))
    assert op(*args).shape == (0, 3, 7, 7)
    y, means, mean, var = norm_op(*args, EPS)
    assert y.shape == (0, 3, 7, 7)
    assert means.shape == (0, 4, 3)
    assert not mean.any()
    assert not var.any()
    grad, statistics = torch.empty(0, 3, 7, 7), (mean, var)
    for kinds in (
        op_backward(grad, *args, ALL),
        norm_op_backward(grad, *args[:5], *statistics, *args[5:], EPS, ALL),
    ):
        assert [t.shape for t in flat(kinds)] == [t.shape for t in args[:5]]
        assert not any(t.any() for t in flat(kinds))


def test_threads_do_not_matter() -> None:
    args = draw(Case(3, 33, (42, 42)))
    assert_same_for_any_threads(lambda: [op(*args)])
    assert_same_for_any_threads(lambda: norm_op(*args, EPS))
    grad, norm_args = draw_gradient(args), with_statistics(args)
    assert_same_for_any_threads(lambda: flat(op_backward(grad, *args, ALL)))
    assert_same_for_any_threads(lambda: flat(norm_op_backward(grad, *norm_args, ALL)))


def worst_errors() -> list[float]:
    """Largest error of each result in units of its dtype's rounding of the largest value."""
    errors = []
    for case in filter(has_statistics, grid()):
        torch.manual_seed(0)
        args = draw(case)
        errors += errors_in_roundings([op(*args)], [reference.forward(*double(args))])
        norm_args = (*args, EPS)
        truth = norm_reference.forward(*double(norm_args))
        errors += errors_in_roundings(norm_op(*norm_args), truth)
        grad = draw_gradient(args)
        gradients = flat(reference.backward(grad.double(), *double(args), ALL))
        errors += errors_in_roundings(flat(op_backward(grad, *args, ALL)), gradients)
        gradients = flat(
            norm_reference.backward(grad.double(), *with_statistics(double(args)), ALL)
        )
        found = flat(norm_op_backward(grad, *with_statistics(args), ALL))
        # Of dw little is left where a norm has few values.
        for i in (0, 2, 3, 4):
            errors += errors_in_roundings([found[i]], [gradients[i]])
    return errors


@pytest.mark.parametrize("capability", INSTRUCTION_SETS)
def test_every_instruction_set(capability: str) -> None:
    module = "multiscale_mix.test_multiscale_mix_kernels"
    errors = run_under(capability, module, "worst_errors")
    assert len(errors) >= 14 * sum(map(has_statistics, grid()))
    assert max(errors) < 16


def test_refuses_what_would_read_out_of_bounds() -> None:
    u, weights, mix, scale, shift, octaves, dilations = draw(Case(2, 3, (4, 5)))
    for wrong in (
        (u[0], weights, mix, scale, shift, octaves, dilations),
        (u[:, :, :0], weights, mix, scale, shift, octaves, dilations),
        (u.double(), weights, mix, scale, shift, octaves, dilations),
        (u, weights[1:], mix, scale, shift, octaves, dilations),
        (u, weights, mix[:1], scale, shift, octaves, dilations),
        (u, weights, mix, scale[:, :2], shift, octaves, dilations),
        (u, weights, mix, scale, shift[0], octaves, dilations),
        (u, weights, mix, scale, shift, octaves, dilations[1:]),
        (u, weights, mix, scale, shift, [0, 0, 1, 16], dilations),
        (u, weights, mix, scale, shift, [0, 0, 1, -1], dilations),
        (u, weights, mix, scale, shift, octaves, [1, 1, 1, 0]),
    ):
        with pytest.raises(RuntimeError):
            op(*wrong)
        with pytest.raises(RuntimeError):
            norm_op(*wrong, EPS)
    with pytest.raises(RuntimeError):
        norm_op(u, weights, mix, scale, shift, octaves, dilations, 0.0)
    args = (u, weights, mix, scale, shift, octaves, dilations)
    for grad, wanted in ((u[:1], ALL), (u.half(), ALL), (u[0], ALL), (u, ALL[:4])):
        with pytest.raises(RuntimeError):
            op_backward(grad, *args, wanted)
    with pytest.raises(RuntimeError):
        norm_op_backward(u, *args[:5], scale[1:], scale, *args[5:], EPS, ALL)
