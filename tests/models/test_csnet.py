"""CSNet against an independent straight-line version, its rules, and its decay units."""

import math

import pytest
import torch
from torch import nn

from lmwp_models.csnet import CSNet
from lmwp_models.csnet_config import CSNetConfig
from lmwp_models.head_config import HeadConfig
from lmwp_models.registry import create_model, list_models, model_info
from lmwp_ops.nn import GOctConv2d

NAMES = [name for name in list_models() if isinstance(model_info(name).config, CSNetConfig)]
# A network as pruning leaves it: uneven branches, empty ones, a dilation or a whole scale gone.
PRUNED = CSNetConfig(
    blocks=(
        (3, 0),
        *((4, 1), (0, 5), (2, 3)),
        *((1, 7), (6, 0), (3, 3), (5,)),
        *((0, 4), (7, 2), (4,)),
        *((2, 2), (6,)),
    ),
    head=HeadConfig(
        fuse=(4, 5, 3), ms=((0, 2, 0, 0, 1), (0, 0, 0, 0, 0), (1, 1, 1, 0, 2)), fuse1x1=7
    ),
    stages=(3, 4, 3, 2),
)


@pytest.mark.parametrize("name", NAMES)
def test_equals_straight_line(name, fill_by_formula, straight_line, smooth_image):
    model = fill_by_formula(create_model(name).double().eval())
    image = smooth_image(32, 48)
    with torch.no_grad():
        got = model(image)
    expected = straight_line(model.state_dict(), image, single=name == "csnet-single")
    assert got.shape == (1, 1, 32, 48)
    assert got.std() > 0.01
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_pruned_network_equals_straight_line(fill_by_formula, straight_line, smooth_image):
    model = fill_by_formula(CSNet(PRUNED).double().eval())
    image = smooth_image(48, 16, batch=2)
    with torch.no_grad():
        got = model(image)
    torch.testing.assert_close(got, straight_line(model.state_dict(), image), rtol=1e-9, atol=1e-9)


# Logits of the formula weights on the smooth 64 x 64 image: mean, standard deviation and the
# centre pixel, in float64. The outputs of these weights were checked against the authors' network.
FORMULA_LOGITS = {
    "csnet-x1": (0.588627454, 0.551343920, 1.276019510),
    "csnet-1-0": (-0.619602041, 0.230233737, -0.975407551),
    "csnet-3-1": (-0.046688232, 0.155445748, -0.156529551),
    "csnet-1-3": (0.347931867, 0.260319426, 0.488123730),
    "csnet-0-1": (-0.489820572, 0.165932511, -0.708244795),
    "csnet-single": (-0.653427600, 0.241528066, -1.039847627),
    "csnet-x1.2": (-0.986871672, 0.495659140, -1.837535849),
    "csnet-x1.5": (-0.939649426, 0.600545421, -1.376792872),
    "csnet-x1.8": (0.012173174, 0.304581097, -0.018905847),
    "csnet-x2": (0.144778420, 0.156040838, 0.355725795),
    "csnet-l-x1": (-0.263798476, 0.126177591, -0.092140794),
    "csnet-l-x2": (0.586925794, 0.547007552, 0.525231728),
    "extractor-1-0": (0.044196202, 0.095284170, 0.099747155),
    "extractor-3-1": (-0.172894955, 0.187566978, -0.107685164),
    "extractor-5-5": (-0.051473177, 0.473635589, 0.270101845),
    "extractor-1-3": (0.566713456, 0.646210675, 1.169270515),
    "extractor-0-1": (-0.020836357, 0.036138311, 0.007272241),
}


@pytest.mark.parametrize("name", FORMULA_LOGITS)
def test_formula_logits(name, fill_by_formula, smooth_image):
    model = fill_by_formula(create_model(name).double().eval())
    with torch.no_grad():
        logits = model(smooth_image(64, 64))
    got = [logits.mean(), logits.std(), logits[0, 0, 32, 32]]
    assert [float(v) for v in got] == pytest.approx(FORMULA_LOGITS[name], rel=1e-6, abs=1e-7)


def test_float32_is_close_to_float64(fill_by_formula, smooth_image):
    model = fill_by_formula(create_model("csnet-x1").double().eval())
    image = smooth_image(64, 64)
    with torch.no_grad():
        exact = model(image)
        got = model.float()(image.float())
    assert (got - exact).abs().max() < 1e-4 * exact.abs().max()


def test_autocast_runs_and_is_close(fill_by_formula, smooth_image):
    model = fill_by_formula(create_model("csnet-l-x1")).eval()
    image = smooth_image(32, 32).float()
    with torch.no_grad():
        exact = model(image)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = model(image)
    assert (got.float() - exact).abs().max() < 0.1 * exact.abs().max()


def test_channels_last_input(fill_by_formula, smooth_image):
    model = fill_by_formula(create_model("csnet-l-x1")).eval()
    image = smooth_image(32, 32, batch=2).float()
    with torch.no_grad():
        expected = model(image)
        got = model.to(memory_format=torch.channels_last)(
            image.contiguous(memory_format=torch.channels_last)
        )
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_single_branch_is_not_an_empty_second_branch(fill_by_formula):
    # Same parameters; strided x100 convs against pooling and convs as stored.
    single = create_model("csnet-single").eval()
    empty = fill_by_formula(create_model("csnet-1-0")).eval()
    assert list(single.state_dict()) == list(empty.state_dict())
    single.load_state_dict(empty.state_dict())
    image = torch.randn(1, 3, 32, 32)
    assert (single(image) - empty(image)).abs().max() > 0.01


@pytest.mark.parametrize("size", [(16, 16), (240, 304), (32, 16)])
def test_sizes_it_takes(size):
    with torch.device("meta"):
        model = create_model("csnet-x1").eval()
        assert model(torch.empty(2, 3, *size)).shape == (2, 1, *size)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 225, 321), r"multiples of 16, got 225 x 321; pad or resize"),
        ((1, 3, 224, 222), r"multiples of 16, got 224 x 222"),
        ((1, 3, 232, 312), r"multiples of 16, got 232 x 312"),
        ((1, 3, 8, 8), r"multiples of 16, got 8 x 8"),
        ((1, 3, 0, 16), r"multiples of 16, got 0 x 16"),
        ((1, 1, 16, 16), r"expected images \[N, 3, H, W\], got shape \[1, 1, 16, 16\]"),
        ((3, 16, 16), r"expected images \[N, 3, H, W\], got shape \[3, 16, 16\]"),
    ],
)
def test_shapes_it_refuses(shape, message):
    with pytest.raises(ValueError, match=message):
        create_model("csnet-l-x1")(torch.zeros(shape))


def test_keys_are_those_of_the_released_checkpoints():
    state = create_model("csnet-l-x1").state_dict()
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    octave = [
        "stage0.0.conv1x1.conv.weight",
        *(f"stage0.0.conv1x1.bns.{b}.{key}" for b in (0, 1) for key in norm),
        *(f"stage0.0.conv1x1.prelus.{b}.weight" for b in (0, 1)),
    ]
    depthwise = [
        *(f"stage0.0.conv3x3_1.convs.{b}.weight" for b in (0, 1)),
        *(f"stage0.0.conv3x3_1.bns.{b}.{key}" for b in (0, 1) for key in norm),
        *(f"stage0.0.conv3x3_1.prelus.{b}.weight" for b in (0, 1)),
    ]
    assert list(state)[: len(octave) + len(depthwise)] == octave + depthwise
    bank = [key for key in state if key.startswith("oct_fuse.ms.convs.1.")]
    assert bank == [
        *(f"oct_fuse.ms.convs.1.msconv.{d}.weight" for d in range(5)),
        *(f"oct_fuse.ms.convs.1.bn.{key}" for key in norm),
        "oct_fuse.ms.convs.1.prelu.weight",
    ]
    assert list(state)[-2:] == ["cls_layer.weight", "cls_layer.bias"]
    assert state["stage0.0.conv1x1.conv.weight"].shape == (18, 3, 3, 3)
    assert "oct_fuse.ms.convs.1.msconv.0.weight" not in create_model("csnet-l-x2").state_dict()


@pytest.mark.parametrize(("name", "present"), [("csnet-1-0", "0"), ("csnet-0-1", "1")])
def test_empty_branch_has_no_keys(name, present):
    keys = [key for key in create_model(name).state_dict() if key.startswith("stage1.0.")]
    branches = {key.split(".")[4] for key in keys if ".conv." not in key}
    assert branches == {present}


def test_initial_weights():
    model = create_model("csnet-x2")
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.eps, module.momentum) == (1e-5, 0.1)
            assert torch.all(module.weight == 1)
            assert torch.all(module.bias == 0)
        elif isinstance(module, nn.PReLU):
            assert torch.all(module.weight == 0.25)
        elif isinstance(module, (nn.Conv2d, GOctConv2d)):
            weight = module.weight
            bound = 1 / math.sqrt(weight[0].numel())
            assert 0.7 * bound < weight.abs().max() <= bound, name


def test_stages_start_with_3x3_except_the_second():
    kernels = {
        name: module.conv.kernel_size if hasattr(module.conv, "kernel_size") else None
        for name, module in create_model("csnet-x1").named_modules()
        if name.endswith("conv1x1")
    }
    wide = [name for name, k in kernels.items() if k == 3]
    assert wide == [f"stage{s}.0.conv1x1" for s in (0, 2, 3, 4)]
    assert len(kernels) == 18


class TestDecayUnits:
    @pytest.mark.parametrize(
        ("name", "norms"), [("csnet-x1", 99), ("csnet-1-0", 54), ("csnet-0-1", 54),
                            ("csnet-single", 54), ("extractor-5-5", 105)],
    )  # fmt: skip
    def test_three_sub_layers_of_every_block(self, name, norms):
        model = create_model(name)
        units = model.decay_units()
        modules = dict(model.named_modules())
        assert len(units) == 54
        assert [u.name for u in units[:3]] == [
            f"stage0.0.{layer}" for layer in ("conv1x1", "conv3x3_1", "conv3x3_2")
        ]
        assert all(modules[u.name] is u.module for u in units)
        assert sum(len(u.norms) for u in units) == norms
        assert all(len(u.norms) == len(u.resolution_weights) for u in units)

    def test_resolution_weights(self):
        weights = {u.name: u.resolution_weights for u in create_model("csnet-x1").decay_units()}
        assert weights["stage0.0.conv1x1"] == [16, 8]
        assert weights["stage1.2.conv3x3_2"] == [16, 8]
        assert weights["stage2.0.conv3x3_1"] == [8, 4]
        assert weights["stage2.3.conv1x1"] == [4]
        assert weights["stage3.0.conv1x1"] == [4, 2]
        assert weights["stage4.0.conv1x1"] == [2, 1]
        assert weights["stage4.3.conv1x1"] == [1]
        # Empty branches count as branches.
        empty = {u.name: u.resolution_weights for u in create_model("csnet-0-1").decay_units()}
        assert empty["stage0.0.conv1x1"] == [8]
        full = {u.name: u.resolution_weights for u in create_model("csnet-1-0").decay_units()}
        assert full["stage0.0.conv1x1"] == [16]

    def test_outputs_belong_to_the_norms(self):
        model = create_model("csnet-l-x1")
        seen = {}
        for unit in model.decay_units():
            unit.module.register_forward_hook(
                lambda module, args, ys, unit=unit: seen.__setitem__(unit.name, (unit, ys))
            )
        model(torch.randn(2, 3, 16, 16))
        assert len(seen) == 54
        for unit, ys in seen.values():
            assert [y.shape[1] for y in ys] == [norm.num_features for norm in unit.norms]


def test_trains(smooth_image):
    model = create_model("csnet-l-x1").train()
    model(smooth_image(32, 32, batch=2).float()).square().mean().backward()
    missing = [
        name
        for name, p in model.named_parameters()
        if p.grad is None or not p.grad.isfinite().all()
    ]
    assert missing == []
    norm = model.stage0[0].conv1x1.bns["0"]
    assert norm.num_batches_tracked == 1
    assert norm.running_mean.abs().sum() > 0


@pytest.mark.parametrize("name", [*NAMES, "pruned"])
def test_config_survives_json(name):
    config = PRUNED if name == "pruned" else model_info(name).config
    assert CSNetConfig.from_dict(config.to_dict()) == config


def _changed(**fields):
    return {**create_model("csnet-x1").config.to_dict(), **fields}


def _head(**fields):
    return _changed(head={**HeadConfig.unpruned((13, 26, 26)).to_dict(), **fields})


BAD_CONFIGS = [
    ([], r"CSNet config: expected a table of fields, got list"),
    ({"blocks": []}, r"CSNet config: field 'head' is missing"),
    (_changed(width=3), r"unknown field 'width'; known are blocks, head, network, stages"),
    (_changed(network="csf"), r"network: expected 'csnet', got 'csf'"),
    (_changed(blocks=[[3]]), r"blocks: expected 18 \(1 \+ the sum of stages\), got 1"),
    (_changed(blocks="abc"), r"blocks: expected a list, got 'abc'"),
    (_changed(blocks=[[1, 2, 3]] * 18), r"blocks\[0\]: expected 1 or 2 branches, got \[1, 2, 3\]"),
    (_changed(blocks=[[0, 0]] * 18), r"blocks\[0\]: expected at least one channel"),
    (_changed(blocks=[[1, -2]] * 18), r"blocks\[0\]\[1\]: expected a non-negative whole .* got -2"),
    (_changed(blocks=[[1, 2.0]] * 18), r"blocks\[0\]\[1\]: .* got 2.0"),
    (_changed(blocks=[[1, 1]] * 18), r"blocks\[7\]: expected a single branch at the end"),
    (_changed(stages=[3, 4, 6]), r"stages: expected four counts of at least 1"),
    (_changed(stages=[0, 7, 6, 4]), r"stages: expected four counts of at least 1"),
    (_head(fuse=[13, 26]), r"head.ms: expected 2 scales like head.fuse, got 3"),
    (_head(fuse=[13, 26, 0]), r"head.ms\[2\]: expected zeros, as head.fuse\[2\] is 0"),
    (_head(ms=[[1]] * 3), r"head.ms\[0\]: expected 5 counts, one per dilation \[1, 2, 4, 8, 16\]"),
    (_head(ms=[[0] * 5] * 3), r"head.ms \(sums per scale\): expected at least one channel"),
    (_head(fuse1x1=0), r"head.fuse1x1: expected at least one channel"),
    (_head(fuse1x1=True), r"head.fuse1x1: expected a non-negative whole number, got True"),
]


@pytest.mark.parametrize(("data", "message"), BAD_CONFIGS)
def test_bad_config_names_the_field(data, message):
    with pytest.raises(ValueError, match=message):
        CSNetConfig.from_dict(data)
