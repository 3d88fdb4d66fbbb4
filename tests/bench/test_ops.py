"""Ops in the benchmark: their shapes are real, their variants agree, planted faults show."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import lmwp_ops
import lmwp_ops.nn.goctconv2d
from lmwp_bench.measure import CaseRun
from lmwp_bench.ops import OPS
from lmwp_bench.ops.depthwise_scales import Shape
from lmwp_bench.suites import ops
from lmwp_bench.suites.ops import DIRECTIONS, Direction, OpRun, directions_of, variant_names
from lmwp_models.inference import optimize_for_inference
from lmwp_models.registry import create_model

CPU = torch.device("cpu")
SMALL = {
    "depthwise_scales": "odd 7x7x7",
    "goctconv2d": "odd 7",
    "il_block": "odd 7",
    "dilated_bank": "odd 33",
    "bn_prelu_gap": "odd 7x7x7",
    "channel_spatial_attention": "odd 7x7x7",
    "multiscale_mix": "odd 7x13x13",
    "multiscale_norm_mix": "odd 7x13x13",
    "mwpm_block": "odd 7x13x13",
    "guided_fusion": "odd 7x13x13",
    "stem_conv2d": "odd 5x13x13",
    "sparse_conv2d": "odd 13x7x7 unstructured 20%",
}
EVERY_SHAPE = [(name, shape) for name, spec in OPS.items() for shape in spec.shapes]


def op_run(name: str, shape: str, direction: Direction = "forward", **changes: Any) -> OpRun:
    facts = {"batch": 1, "dtype": torch.float32, "threads": 1, "cache_bytes": 1 << 16}
    return OpRun(OPS[name], shape, direction=direction, device=CPU, **facts | changes)


@pytest.fixture
def layers_of() -> Iterator[Any]:
    """Records the sizes of the inputs and the weights of every op a network calls."""
    found: dict[str, set[Any]] = {}
    with pytest.MonkeyPatch.context() as patch:
        for place, name in (
            (lmwp_ops, "depthwise_scales"),
            (lmwp_ops, "dilated_bank"),
            (lmwp_ops, "il_block"),
            (lmwp_ops.nn.goctconv2d, "goctconv2d"),
        ):
            op = getattr(place, name)

            def record(xs: Any, weights: Any, *args: Any, _op: Any = op, **kwargs: Any) -> Any:
                every = weights
                if _op.__name__ == "il_block":
                    _, _, depthwise, *_ = args
                    every = [weights, *depthwise]
                layer = tuple(tuple(x.shape[1:]) for x in xs), _weight_sizes(every)
                found.setdefault(_op.__name__, set()).add(layer)
                return _op(xs, weights, *args, **kwargs)

            patch.setattr(place, name, record)

        def run(network: str) -> dict[str, set[Any]]:
            found.clear()
            model = create_model(network).eval()
            with torch.no_grad():
                for one in (model, optimize_for_inference(model)):
                    one(torch.zeros(1, 3, 224, 224))
            return found

        yield run


def _weight_sizes(weights: Any) -> tuple[Any, ...]:
    if isinstance(weights, torch.Tensor):
        return (tuple(weights.shape),)
    flat = [w for row in weights for w in (row if isinstance(row, list) else [row])]
    return tuple(tuple(w.shape) for w in flat if w is not None)


@pytest.mark.parametrize("network", ["csnet-x1", "csnet-l-x2"])
def test_shapes_named_after_a_network_are_its_layers(layers_of: Any, network: str) -> None:
    layers = layers_of(network)
    checked = 0
    for name, spec in OPS.items():
        for shape_name, shape in spec.shapes.items():
            if shape_name.startswith(network + " "):
                layer = tuple(spec.sizes(shape)), tuple(spec.weights(shape))
                assert layer in layers[name], shape_name
                checked += 1
    assert checked >= 4


def test_shapes_include_odd_widths() -> None:
    widths = {c for n, s in EVERY_SHAPE for c, _, _ in OPS[n].sizes(OPS[n].shapes[s])}
    assert {7, 13, 33} <= widths


@pytest.mark.parametrize(("name", "shape"), EVERY_SHAPE, ids=[f"{n}-{s}" for n, s in EVERY_SHAPE])
def test_framework_and_op_compute_the_same(name: str, shape: str) -> None:
    spec = OPS[name]
    inputs = spec.inputs(spec.shapes[shape], 1, torch.float64, CPU, seed=0)
    with torch.no_grad(), lmwp_ops.decomposed():
        ours = spec.fused(spec.shapes[shape], inputs)
        theirs = spec.framework(spec.shapes[shape], inputs)
    assert [y.shape[1] for y in ours] == spec.outputs(spec.shapes[shape])
    for y, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(y, other, rtol=1e-10, atol=1e-12)
    moved = sum(x.numel() for x in inputs.xs) + sum(y.numel() for y in ours)
    cost = spec.cost(spec.shapes[shape])
    skips_channels = name == "sparse_conv2d" and " channels " in shape
    assert cost.elements < moved if skips_channels else cost.elements == moved
    weights = sum(math.prod(sizes) for sizes in spec.weights(spec.shapes[shape]))
    epilogue = sum(t.numel() for t in (*inputs.scale, *inputs.shift, *inputs.slope))
    assert cost.parameters == weights + epilogue
    assert cost.operations > 0


def test_numbers_of_a_shape_are_params_of_its_rows() -> None:
    """The report draws curves over them: they end the names of shapes that differ in them."""
    assert op_run("sparse_conv2d", SMALL["sparse_conv2d"]).case(["eager"]).params["kept"] == 20
    spec = OPS["sparse_conv2d"]
    for name, shape in spec.shapes.items():
        assert name.endswith(f" {spec.params(shape)['kept']}%")


def test_operations_are_counted_by_hand() -> None:
    single = OPS["depthwise_scales"].cost(Shape(((10, 224, 224),)))
    assert single.operations == 21 * 10 * 224 * 224
    fusion = OPS["goctconv2d"].shapes["odd 7"]  # 14 and 7 pixels a side, 7 + 13 -> 13 + 7 channels
    dense = 2 * (7 * 13 * 196 + 7 * 7 * 49 + 13 * 13 * 49 + 13 * 7 * 49)
    resampled = 7 * 196 + 6 * 13 * 196
    epilogue = 3 * (13 * 196 + 7 * 49)
    assert OPS["goctconv2d"].cost(fusion).operations == dense + resampled + epilogue


@pytest.mark.parametrize(
    ("name", "direction"),
    [(name, direction) for name, spec in OPS.items() for direction in directions_of(spec)],
)
def test_every_variant_is_right_or_says_why_not(name: str, direction: Direction) -> None:
    names = [n for n in variant_names("cpu") if not n.startswith("compile")]
    run = op_run(name, SMALL[name], direction)
    rows = CaseRun(run.case(names)).measure(0.01)
    assert {row.params["cache"] for row in rows} == {"hot", "cold"}
    for row in rows:
        if row.variant == "lmwp-cpp" and row.status == "unavailable":
            assert row.reason
        else:
            assert row.status == "ok", row.reason
            assert row.timing
            assert row.bytes


def test_torch_compile_is_a_variant_of_both_directions() -> None:
    for direction in DIRECTIONS:
        case = op_run("depthwise_scales", "odd 7x7x7", direction).case(["eager", "compile"])
        rows = CaseRun(case).measure(0.01)
        assert [row.status for row in rows] == ["ok"] * 4, [row.reason for row in rows]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits(dtype: torch.dtype) -> None:
    run = op_run("depthwise_scales", "odd 7x7x7", "forward+backward", dtype=dtype)
    rows = CaseRun(run.case(["eager", "lmwp-cpp"])).measure(0.01)
    assert rows[0].params["dtype"] == str(dtype).removeprefix("torch.")
    assert all(row.status in ("ok", "unavailable") for row in rows), [row.reason for row in rows]


def test_a_wrong_kernel_is_shown_as_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    op = lmwp_ops.depthwise_scales

    def off_by_one_tap(xs: Any, weights: Any, **kwargs: Any) -> Any:
        truth = xs[0].dtype == torch.float64
        return op(xs, weights if truth else [w.roll(1, -1) for w in weights], **kwargs)

    monkeypatch.setattr(lmwp_ops, "depthwise_scales", off_by_one_tap)
    monkeypatch.setattr(
        ops.lmwp_ops.env, "collect", lambda: {"ops": {"depthwise_scales": {"cpp": None}}}
    )
    monkeypatch.setattr(lmwp_ops, "use_backend", lambda name: lmwp_ops.decomposed())
    run = op_run("depthwise_scales", "odd 7x7x7")
    rows = {row.variant: row for row in CaseRun(run.case(["eager", "lmwp-cpp"])).measure(0.01)}
    assert rows["eager"].status == "ok"
    assert rows["lmwp-cpp"].status == "wrong"
    assert rows["lmwp-cpp"].timing is None


@pytest.mark.parametrize(
    ("found", "status"),
    [("right", "unavailable"), ("result 0 is off by 1", "failed")],
)
def test_a_shape_may_be_refused_but_a_failed_check_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, found: str, status: str
) -> None:
    known = {
        "ops": {"depthwise_scales": {"cpp": None}},
        "verified_kernels": {"depthwise_scales_backward": {"cpp float32 sm_90": found}},
    }
    monkeypatch.setattr(ops.lmwp_ops.env, "collect", lambda: known)

    def refuse(xs: Any, *_: Any, **__: Any) -> Any:
        if xs[0].dtype != torch.float64:
            raise lmwp_ops.BackendError("too large")
        return [xs[0]]

    monkeypatch.setattr(lmwp_ops, "depthwise_scales", refuse)
    run = op_run("depthwise_scales", "odd 7x7x7")
    rows = CaseRun(run.case(["lmwp-cpp"])).measure(0.01)
    assert {row.status for row in rows} == {status}
    assert all("too large" in row.reason for row in rows)


def test_cold_sets_outgrow_the_cache() -> None:
    run = op_run("depthwise_scales", "odd 13x13x13 k7", cache_bytes=1 << 20)
    case = run.case(["eager"])
    features = 4 * OPS["depthwise_scales"].cost(run.shape).elements
    assert case.sets == math.ceil(2 * (1 << 20) / features)
