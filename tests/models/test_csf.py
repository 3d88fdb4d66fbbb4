"""CSF on its two trunks against a straight-line version that shares no code with the package."""

import pytest
import torch
import torch.nn.functional as F

from lmwp_models.csf import CSF, CSFConfig
from lmwp_models.head_config import HeadConfig
from lmwp_models.registry import create_model

SMALL_HEAD = HeadConfig(
    fuse=(32, 64, 64, 64),
    ms=((4, 8, 0, 8, 12), (64, 0, 0, 0, 0), (12, 12, 12, 12, 16), (12, 12, 12, 12, 16)),
    fuse1x1=32,
)


def batch_norm(state, name, x):
    values = (state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *values)


def resnet_block(state, name, x, stride):
    y = F.conv2d(x, state[f"{name}.conv1.weight"], stride=stride)
    y = F.relu(batch_norm(state, f"{name}.bn1", y))
    y = F.relu(
        batch_norm(state, f"{name}.bn2", F.conv2d(y, state[f"{name}.conv2.weight"], padding=1))
    )
    y = batch_norm(state, f"{name}.bn3", F.conv2d(y, state[f"{name}.conv3.weight"]))
    if f"{name}.downsample.0.weight" in state:
        x = F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride)
        x = batch_norm(state, f"{name}.downsample.1", x)
    return F.relu(x + y)


def res2net_block(state, name, x, stride):
    y = F.relu(batch_norm(state, f"{name}.bn1", F.conv2d(x, state[f"{name}.conv1.weight"])))
    width = y.shape[1] // 4
    first = f"{name}.downsample.1.weight" in state
    parts, previous = [], 0
    for i in range(3):
        part = y[:, i * width : (i + 1) * width]
        part = part if first else part + previous
        part = F.conv2d(part, state[f"{name}.convs.{i}.weight"], stride=stride, padding=1)
        previous = F.relu(batch_norm(state, f"{name}.bns.{i}", part))
        parts.append(previous)
    last = y[:, 3 * width :]
    parts.append(F.avg_pool2d(last, 3, stride, 1) if first else last)
    y = F.conv2d(torch.cat(parts, 1), state[f"{name}.conv3.weight"])
    y = batch_norm(state, f"{name}.bn3", y)
    if first:
        x = F.avg_pool2d(x, stride, stride, ceil_mode=True, count_include_pad=False)
        x = F.conv2d(x, state[f"{name}.downsample.1.weight"])
        x = batch_norm(state, f"{name}.downsample.2", x)
    return F.relu(x + y)


def trunk(state, backbone, image):
    if backbone == "resnet50":
        x = F.conv2d(image, state["base.conv1.weight"], stride=2, padding=3)
    else:
        x = F.conv2d(image, state["base.conv1.0.weight"], stride=2, padding=1)
        x = F.relu(batch_norm(state, "base.conv1.1", x))
        x = F.conv2d(x, state["base.conv1.3.weight"], padding=1)
        x = F.relu(batch_norm(state, "base.conv1.4", x))
        x = F.conv2d(x, state["base.conv1.6.weight"], padding=1)
    x = F.relu(batch_norm(state, "base.bn1", x))
    x = F.max_pool2d(x, 3, 2, 1, ceil_mode=backbone == "resnet50")
    block = resnet_block if backbone == "resnet50" else res2net_block
    features = []
    for layer, count in enumerate((3, 4, 6, 3), start=1):
        for i in range(count):
            x = block(state, f"base.layer{layer}.{i}", x, 2 if i == 0 and layer > 1 else 1)
        features.append(x)
    return features


def resize(x, size):
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def octave(weight, xs, widths):
    ys = []
    for j, rows in enumerate(weight.split(widths)):
        blocks = rows.split([x.shape[1] for x in xs], dim=1)
        size = xs[j].shape[-2:]
        ys.append(
            sum(
                F.conv2d(resize(x, size), w) if i < j else resize(F.conv2d(x, w), size)
                for i, (x, w) in enumerate(zip(xs, blocks, strict=True))
            )
        )
    return ys


def group_norm_prelu(state, norm, prelu, x):
    x = F.group_norm(x, 32, state[f"{norm}.weight"], state[f"{norm}.bias"])
    return F.prelu(x, state[f"{prelu}.weight"])


def straight_line(state, backbone, image):
    fuse, ms, last = "oct_fuse.fuse", "oct_fuse.ms.convs", "oct_fuse.fuse1x1"
    widths = [len(state[f"{fuse}.bns.{s}.weight"]) for s in range(4)]
    xs = octave(state[f"{fuse}.conv.weights"], trunk(state, backbone, image), widths)
    xs = [
        group_norm_prelu(state, f"{fuse}.bns.{s}", f"{fuse}.prelus.{s}", x)
        for s, x in enumerate(xs)
    ]
    for s, x in enumerate(xs):
        bank = [
            F.conv2d(x, state[f"{ms}.{s}.msconv.{d}.weight"], padding=2**d, dilation=2**d)
            for d in range(5)
            if f"{ms}.{s}.msconv.{d}.weight" in state
        ]
        xs[s] = group_norm_prelu(state, f"{ms}.{s}.bn", f"{ms}.{s}.prelu", torch.cat(bank, 1))
    (y,) = octave(state[f"{last}.conv.weights"], xs, [len(state[f"{last}.bns.0.weight"])])
    y = group_norm_prelu(state, f"{last}.bns.0", f"{last}.prelus.0", y)
    logits = F.conv2d(y, state["cls_layer.weight"], state["cls_layer.bias"])
    return resize(logits, image.shape[-2:])


@pytest.fixture(scope="module", params=["resnet50", "res2net50"])
def filled(request, fill_by_formula):
    with torch.device("meta"):
        model = CSF(CSFConfig(request.param, SMALL_HEAD))
    return fill_by_formula(model.to_empty(device="cpu")).double().eval()


@pytest.mark.parametrize("size", [(37, 53), (64, 96), (1, 9)], ids=str)
def test_equals_straight_line_at_any_size(filled, size, smooth_image):
    image = smooth_image(*size)
    with torch.no_grad():
        got = filled(image)
        expected = straight_line(filled.state_dict(), filled.config.backbone, image)
    assert got.shape == (1, 1, *size)
    assert got.isfinite().all()
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "trunk_params"), [("csf-resnet50", 23_508_032), ("csf-res2net50", 23_669_352)]
)
def test_published_widths_and_params(name, trunk_params):
    with torch.device("meta"):
        model = create_model(name)
    assert model.size_multiple == 1
    assert sum(p.numel() for p in model.base.parameters()) == trunk_params
    assert sum(p.numel() for p in model.parameters()) - trunk_params == 12_859_137
    state = model.state_dict()
    assert state["oct_fuse.fuse.conv.weights"].shape == (1408, 3840, 1, 1)
    assert state["oct_fuse.fuse1x1.conv.weights"].shape == (1408, 1408, 1, 1)
    shares = [len(state[f"oct_fuse.ms.convs.1.msconv.{d}.weight"]) for d in range(5)]
    assert shares == [51, 51, 51, 51, 52]
    norm = model.oct_fuse.fuse.bns["0"]
    assert (norm.num_groups, norm.eps) == (32, 1e-5)


def test_trunk_names_are_those_of_common_checkpoints():
    with torch.device("meta"):
        keys = list(create_model("csf-resnet50").state_dict())
    assert keys[0] == "base.conv1.weight"
    block = [key for key in keys if key.startswith("base.layer1.0.") and key.endswith("t")]
    assert block == [
        f"base.layer1.0.{name}.weight"
        for name in ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "downsample.0", "downsample.1")
    ]


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (3, 8, 8), (1, 3, 0, 8)])
def test_shapes_it_refuses(shape):
    with torch.device("meta"):
        model = CSF(CSFConfig("resnet50", SMALL_HEAD))
    with pytest.raises(ValueError, match=r"CSF: expected images \[N, 3, H, W\], got shape"):
        model(torch.zeros(shape))
