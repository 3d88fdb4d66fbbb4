"""The published sizes of every network, and the counting rules on small cases."""

import pytest
import torch
from torch import nn

from lmwp_models.complexity import Counts, summarize
from lmwp_models.registry import create_model, list_models, model_info
from lmwp_ops.nn import DepthwiseScales, DilatedBank, GOctConv2d

# params, conv MACs and paper FLOPs in G at the network's input size
PUBLISHED = {
    "csnet-l-x1": (93_647, "0.2843", "0.4355"),
    "csnet-l-x2": (140_894, "0.4964", "0.7184"),
    "csnet-single": (210_985, "0.7158", "0.9071"),
    "csnet-1-0": (210_985, "0.7158", "0.9185"),
    "csnet-3-1": (210_985, "0.5611", "0.7805"),
    "csnet-x1": (210_985, "0.4328", "0.6106"),
    "csnet-1-3": (210_985, "0.3309", "0.4672"),
    "csnet-0-1": (210_985, "0.2552", "0.3500"),
    "csnet-x1.2": (298_633, "0.6022", "0.8163"),
    "csnet-x1.5": (455_631, "0.8993", "1.1670"),
    "csnet-x1.8": (645_565, "1.2552", "1.5763"),
    "csnet-x2": (788_631, "1.5163", "1.8723"),
    "extractor-1-0": (179_501, "0.6288", "0.8037"),
    "extractor-3-1": (179_501, "0.4469", "0.6350"),
    "extractor-5-5": (179_501, "0.3078", "0.4482"),
    "extractor-1-3": (179_501, "0.2115", "0.3042"),
    "extractor-0-1": (179_501, "0.1581", "0.2030"),
    "csf-resnet50": (36_367_169, "17.8967", None),
    "csf-res2net50": (36_528_489, "7.7759", None),
    "lmwpnet": (3_031_585, "0.4977", None),
}
PARTS = {
    "csnet-x1": {
        "stage0": (1_080, 28_224_000),
        "stage1": (2_820, 60_211_200),
        "stage2": (16_320, 95_585_280),
        "stage3": (73_760, 122_743_040),
        "stage4": (85_440, 38_996_160),
        "fuse": (13_195, 26_091_520),
        "ms": (13_884, 42_928_704),
        "fuse1x1": (4_420, 17_224_480),
        "cls_layer": (66, 815_360),
    },
    "csnet-l-x1": {
        "stage0": (972, 23_708_160),
        "stage1": (2_715, 56_899_584),
        "stage2": (12_770, 81_300_800),
        "stage3": (29_688, 52_070_928),
        "stage4": (28_115, 11_462_276),
        "fuse": (7_500, 15_673_728),
        "ms": (8_886, 29_973_888),
        "fuse1x1": (2_940, 12_465_600),
        "cls_layer": (61, 752_640),
    },
    "csnet-l-x2": {
        "stage0": (1_242, 34_997_760),
        "stage1": (4_438, 106_736_896),
        "stage2": (28_226, 183_227_072),
        "stage3": (39_736, 66_912_832),
        "stage4": (34_647, 13_237_056),
        "fuse": (13_572, 30_105_600),
        "ms": (14_766, 45_158_400),
        "fuse1x1": (4_187, 14_988_512),
        "cls_layer": (80, 990_976),
    },
}


def meta(name):
    with torch.device("meta"):
        return create_model(name)


def test_every_network_is_listed():
    assert set(PUBLISHED) == set(list_models())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures(name):
    params, macs, paper_flops = PUBLISHED[name]
    got = summarize(meta(name), model_info(name).input_size)
    assert got.params == params
    assert f"{got.macs / 1e9:.4f}" == macs
    if paper_flops:
        assert f"{got.paper_flops / 1e9:.4f}" == paper_flops
    assert sum(part.params for part in got.by_part.values()) == params


@pytest.mark.parametrize("name", PARTS)
def test_parts(name):
    got = summarize(meta(name), (224, 224))
    assert {part: (c.params, c.macs) for part, c in got.by_part.items()} == PARTS[name]


def test_model_is_left_as_it_was():
    model = create_model("csnet-l-x1").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    summarize(model, (32, 32))
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_size_the_network_refuses():
    with pytest.raises(ValueError, match="multiples of 16"):
        summarize(meta("csnet-x1"), (100, 100))


class _OnBranches(nn.Module):
    """Feeds a layer two branches of an image."""

    def __init__(self, layer, channels):
        super().__init__()
        self.layer = layer
        self.channels = channels

    def forward(self, image):
        n, _, h, w = image.shape
        return self.layer(
            [image.new_zeros(n, c, h >> b, w >> b) for b, c in enumerate(self.channels) if c]
        )


# By hand for an 8 x 4 image: 32 pixels, 8 in branch 1; entry pooling leaves 8 and 2.
RULES = {
    "octave 3x3": (
        GOctConv2d([2, 3], [4, 5], 3), [2, 3],
        9 * (2 * 4 * 32 + 2 * 5 * 8 + 3 * 4 * 8 + 3 * 5 * 8),
        9 * 2 * 8 + 9 * 4 * 32,  # max-pooled x k^2, upsampled
    ),
    "octave with entry pool": (
        GOctConv2d([2, 3], [4], 1, entry_pool=True), [2, 3],
        2 * 4 * 8 + 3 * 4 * 2,
        5 * (2 * 32 + 3 * 8) + 9 * 4 * 8,
    ),
    "pool towards an empty branch counts": (
        GOctConv2d([2], [4, 0], 3), [2], 9 * 2 * 4 * 32, 9 * 2 * 8,
    ),
    "nothing from an empty branch": (
        GOctConv2d([0, 3], [0, 4], 1), [0, 3], 3 * 4 * 8, 0,
    ),
    "no cross-scale terms": (
        GOctConv2d([2, 3], [4, 5], 1, cross_scale=False), [2, 3], 2 * 4 * 32 + 3 * 5 * 8, 0,
    ),
    "depthwise": (DepthwiseScales([2, 3]), [2, 3], 9 * (2 * 32 + 3 * 8), 0),
    "dilated": (
        DilatedBank([2, 3], [[1, 2], [0, 0]], (1, 2)), [2, 3], 9 * 2 * 3 * 32, 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_rules_of_the_ops(rule):
    layer, channels, macs, others = rule
    params = sum(p.numel() for p in layer.parameters())
    got = summarize(_OnBranches(layer, channels), (8, 4))
    assert got.by_part["layer"] == Counts(params, macs, macs + others)


def test_rules_of_ordinary_layers():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.PReLU(4),
        nn.Flatten(),
        nn.Linear(32, 5),
    )
    got = summarize(model, (8, 4))
    assert got.macs == 3 * 4 * 9 * 8 + 32 * 5
    assert got.paper_flops - got.macs == 32 + 4 * 32 + 3 * 32 + 5
