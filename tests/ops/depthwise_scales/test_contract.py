"""What every op promises: opcheck, exact strides, errors, autocast, determinism, its module."""

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck

import lmwp_ops

from ..exactness import assert_same_for_any_threads
from .cases import Case, assert_as_exact_as_eager, draw

op = torch.ops.lmwp_ops.depthwise_scales.default
op_backward = torch.ops.lmwp_ops.depthwise_scales_backward.default

CASES = [
    Case(((2, 3, 7, 6), (2, 5, 4, 3))),
    Case(((2, 3, 7, 6), (2, 5, 4, 3)), kernel=5, stride=2, dilation=2, layout="channels_last"),
    Case(((2, 3, 7, 6),), layout="sliced"),
    Case(((2, 3, 7, 6),), layout="sliced_channels_last"),
    Case(((2, 3, 7, 6),), layout="expanded"),
    Case(((1, 1, 5, 4),), layout="channels_last"),
    Case(((1, 4, 1, 1),), layout="channels_last"),
    Case(((0, 3, 5, 4),)),
    Case(((1, 3, 5, 4),), epilogue=False),
    Case(((1, 3, 5, 4),), dtype=torch.bfloat16),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("requires_grad", [False, True], ids=["frozen", "trained"])
def test_opcheck(case: Case, requires_grad: bool) -> None:
    args = draw(case)
    for kind in args[:5]:
        for t in kind:
            t.requires_grad_(requires_grad)
    opcheck(op, args)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_opcheck_of_backward(case: Case) -> None:
    args = draw(case)
    wanted = [True, True, case.epilogue, case.epilogue, case.epilogue]
    opcheck(op_backward, (op(*args), *args, wanted))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_fakes_have_the_strides_of_real_results(case: Case) -> None:
    args = draw(case)
    wanted = [True, True, case.epilogue, case.epilogue, case.epilogue]
    ys = op(*args)
    real = [*ys, *(t for kind in op_backward(ys, *args, wanted) for t in kind)]
    with FakeTensorMode() as mode:
        fakes: Any = [[mode.from_tensor(t) for t in kind] for kind in args[:5]]
        fake_ys = op(*fakes, *args[5:])
        backward = op_backward(fake_ys, *fakes, *args[5:], wanted)
        fake = [*fake_ys, *(t for kind in backward for t in kind)]
    for r, f in zip(real, fake, strict=True):
        assert (r.shape, r.dtype, r.stride()) == (f.shape, f.dtype, f.stride())


def test_autocast_casts_features_and_not_parameters() -> None:
    args = draw(Case(((1, 3, 9, 8),)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (y,) = op(*args)
        (public,) = lmwp_ops.depthwise_scales(
            args[0], args[1], affine=[(args[2][0], args[3][0])], slope=args[4]
        )
    rounded = ([args[0][0].bfloat16()], *args[1:])
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, op(*rounded)[0])
    assert torch.equal(public, y)


def test_autocast_inference_and_gradients_reach_float32_parameters() -> None:
    args = draw(Case(((1, 3, 9, 8),)))
    args[1][0].requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (y,) = op(*args)
        with torch.no_grad():
            (inference,) = lmwp_ops.depthwise_scales(
                args[0], args[1], affine=[(args[2][0], args[3][0])], slope=args[4]
            )
    assert torch.equal(inference, y)
    y.float().sum().backward()
    assert args[1][0].grad is not None
    assert args[1][0].grad.dtype == torch.float32


def test_results_do_not_depend_on_threads() -> None:
    args = draw(Case(((1, 7, 200, 224), (3, 5, 60, 61), (2, 9, 7, 7)), dilation=2))
    assert_same_for_any_threads(lambda: op(*args))


def test_denormals_are_flushed_inside_only() -> None:
    tiny = torch.full((1, 1, 4, 40), 1e-40)
    lmwp_ops.depthwise_scales([tiny], [torch.ones(1, 1, 3, 3)])
    assert (tiny * 1).ne(0).all()


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no branch": ({"xs": [], "weights": []}, "xs: expected at least one branch, got none"),
    "missing weight": ({"weights": []}, "weights: expected 1 tensors, one per branch, got 0"),
    "even kernel": (
        {"weights": [torch.ones(3, 1, 2, 2)]},
        r"weights\[0\]: expected shape \[C, 1, k, k\] with k = 1, 3, 5 or 7, got \[3, 1, 2, 2\]",
    ),
    "oblong kernel": (
        {"weights": [torch.ones(3, 1, 5, 3)]},
        r"weights\[0\]: expected shape \[3, 1, 3, 3\], got \[3, 1, 5, 3\]",
    ),
    "channels": (
        {"weights": [torch.ones(4, 1, 3, 3)]},
        r"weights\[0\]: expected shape \[3, 1, 3, 3\], got \[4, 1, 3, 3\]",
    ),
    "dense weight": ({"weights": [torch.ones(3, 3, 3, 3)]}, r"weights\[0\]: expected shape"),
    "dilation": ({"dilation": -1}, "dilation: expected at least 1, got -1"),
    "stride": ({"stride": 3}, "stride: expected 1 or 2, got 3"),
    "integers": (
        {"xs": [torch.ones(1, 3, 5, 5, dtype=torch.int32)]},
        r"xs\[0\]: expected float32, float16, bfloat16 or float64, got torch.int32",
    ),
    "3-D": ({"xs": [torch.ones(3, 5, 5)]}, r"xs\[0\]: expected 4 dimensions \[N, C, H, W\], got"),
    "no channels": (
        {"xs": [torch.ones(1, 0, 5, 5)], "weights": [torch.ones(0, 1, 3, 3)]},
        r"xs\[0\]: expected at least one channel and one pixel .*, got shape \[1, 0, 5, 5\]",
    ),
    "no pixels": ({"xs": [torch.ones(1, 3, 0, 5)]}, r"xs\[0\]: expected at least one channel"),
    "sparse": ({"xs": [torch.ones(1, 3, 5, 5).to_sparse()]}, r"xs\[0\]: expected a dense tensor"),
    "dtypes of branches": (
        {
            "xs": [torch.ones(1, 3, 5, 5), torch.ones(1, 3, 5, 5).half()],
            "weights": [torch.ones(3, 1, 3, 3)] * 2,
        },
        r"xs\[1\]: expected torch.float32 as xs\[0\], got torch.float16",
    ),
    "devices of branches": (
        {
            "xs": [torch.ones(1, 3, 5, 5), torch.ones(1, 3, 5, 5, device="meta")],
            "weights": [torch.ones(3, 1, 3, 3)] * 2,
        },
        r"xs\[1\]: expected a tensor on cpu as xs\[0\], got meta",
    ),
    "kernels of branches": (
        {
            "xs": [torch.ones(1, 3, 5, 5)] * 2,
            "weights": [torch.ones(3, 1, 3, 3), torch.ones(3, 1, 5, 5)],
        },
        r"weights\[1\]: expected shape \[3, 1, 3, 3\], got \[3, 1, 5, 5\]",
    ),
    "narrow parameter": (
        {"weights": [torch.ones(3, 1, 3, 3).half()]},
        r"weights\[0\]: expected torch.float32 as xs, got torch.float16",
    ),
    "wide parameter": (
        {"xs": [torch.ones(1, 3, 5, 5).half()], "weights": [torch.ones(3, 1, 3, 3).double()]},
        r"weights\[0\]: expected torch.float16 as xs or float32, got torch.float64",
    ),
    "device of parameter": (
        {"weights": [torch.ones(3, 1, 3, 3, device="meta")]},
        r"weights\[0\]: expected a tensor on cpu as xs\[0\], got meta",
    ),
    "affine length": (
        {"affine": [(torch.ones(3), torch.ones(3))] * 2},
        r"affine: expected 1 pairs \(scale, shift\), one per branch, got 2",
    ),
    "affine width": (
        {"affine": [(torch.ones(3), torch.ones(4))]},
        r"affine\[0\] shift: expected shape \[3\], got \[4\]",
    ),
    "affine pair": (
        {"affine": [(torch.ones(3),)]},
        r"affine\[0\]: expected a pair \(scale, shift\), got 1 values",
    ),
    "slope length": ({"slope": [torch.ones(3)] * 2}, "slope: expected 1 tensors"),
    "slope shape": (
        {"slope": [torch.ones(1)]},
        r"slope\[0\]: expected shape \[3\], got \[1\]",
    ),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("inference", [False, True], ids=["op", "inference"])
def test_errors_name_argument_expected_and_got(name: str, inference: bool) -> None:
    changes, message = BAD[name]
    arguments: dict[str, Any] = {
        "xs": [torch.ones(1, 3, 5, 5)],
        "weights": [torch.ones(3, 1, 3, 3)],
        **changes,
    }
    with (
        torch.set_grad_enabled(not inference),
        pytest.raises(ValueError, match="depthwise_scales: " + message),
    ):
        lmwp_ops.depthwise_scales(**arguments)


def test_module_matches_the_function() -> None:
    module = lmwp_ops.nn.DepthwiseScales([3, 5], 5, dilation=2, stride=2, affine=True, prelu=True)
    assert list(module.state_dict()) == [
        f"{kind}.{b}" for kind in ("weights", "scales", "shifts", "slopes") for b in (0, 1)
    ]
    case = Case(((2, 3, 9, 8), (2, 5, 5, 4)), kernel=5, stride=2, dilation=2)
    xs = draw(case)[0]
    kinds = [list(k) for k in (module.weights, module.scales, module.shifts, module.slopes)]
    args = (xs, *[[p.detach() for p in kind] for kind in kinds], 2, 2)
    assert_as_exact_as_eager([y.detach() for y in module(xs)], args)


def test_bare_module_has_weights_only() -> None:
    module = lmwp_ops.nn.DepthwiseScales([4])
    assert list(module.state_dict()) == ["weights.0"]
    assert module([torch.ones(1, 4, 3, 3)])[0].shape == (1, 4, 3, 3)
    assert "kernel_size=3" in repr(module)
