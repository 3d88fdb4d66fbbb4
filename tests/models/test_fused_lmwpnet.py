"""optimize_for_inference of LMWP-Net: its logits, on the fused ops."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

import lmwp_ops
from lmwp_bench.networks import bench_network, make_network
from lmwp_models import fused_lmwpnet, optimize_for_inference
from lmwp_models.lmwpnet import LMWPNet
from lmwp_models.lmwpnet_config import LMWPNetConfig
from lmwp_models.mwpm import MWPM
from lmwp_ops.nn import SparseConv2d

SMALL = LMWPNetConfig(widths=(5, 8, 12, 17, 20), blocks=(1, 0, 2, 1, 1), decoder=(5, 6, 7, 9))


def network(config: LMWPNetConfig = SMALL) -> LMWPNet:
    """Of odd widths, with norms, gates, slopes and thresholds far from where they start."""
    model = LMWPNet(config).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2)
        elif isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, -0.2, 0.6)
        elif isinstance(module, MWPM):
            nn.init.normal_(module.gate.fc2.bias)
            nn.init.normal_(module.gate.threshold, mean=1, std=2)
    return model


def assert_same_logits(got: Tensor, expected: Tensor) -> None:
    assert got.shape == expected.shape
    assert (got - expected).abs().max() < 2e-4 * expected.abs().max().clamp(min=1)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (48, 64), (70, 33)], ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_logits_are_those_of_the_network(batch: int, size: tuple[int, int]) -> None:
    model = network()
    images = torch.randn(batch, 3, *size)
    with torch.no_grad():
        expected = copy.deepcopy(model).double()(images.double())
        logits = optimize_for_inference(model)(images)
    assert_same_logits(logits, expected)
    shares = model.pruning_shares()
    assert not shares
    with torch.no_grad():
        model(images)
    assert max(share.zeros for share in model.pruning_shares().values()) > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_layer_by_layer_as_on_a_gpu(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    images = torch.randn(2, 3, 70, 33)
    with torch.no_grad():
        expected = copy.deepcopy(model).double()(images.double())
        plain = copy.deepcopy(model).to(dtype)(images.to(dtype))
    fused = optimize_for_inference(model).to(dtype)
    monkeypatch.setattr(fused_lmwpnet, "on_cpu", lambda x: False)
    monkeypatch.setattr(lmwp_ops, "mwpm_block", None)
    monkeypatch.setattr(lmwp_ops, "guided_fusion", None)
    logits = fused(images.to(dtype))
    assert logits.dtype == dtype
    error, of_plain = ((y - expected).abs().mean() for y in (logits, plain))
    assert error <= 2 * of_plain + 1e-5


@pytest.mark.parametrize("size", [(336, 336), (211, 160)], ids=str)
def test_the_whole_network_at_its_own_size(size: tuple[int, int]) -> None:
    model = make_network(bench_network("lmwpnet"), (96, 96))
    images = torch.randn(1, 3, *size)
    with torch.no_grad():
        assert_same_logits(optimize_for_inference(model)(images), model(images))


def test_later_training_of_the_network_changes_nothing_and_nothing_is_changed() -> None:
    model = network()
    state = copy.deepcopy(model.state_dict())
    fused = optimize_for_inference(model)
    images = torch.randn(1, 3, 32, 32)
    before = fused(images)
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    assert torch.equal(fused(images), before)


def test_a_pruned_network_is_folded_with_what_is_kept() -> None:
    model, images = network(), torch.randn(1, 3, 48, 64)
    convs = {name: conv for name, conv in model.named_modules() if type(conv) is nn.Conv2d}
    masks = {name: torch.rand(conv.weight.shape) < 0.6 for name, conv in convs.items()}
    lmwp_ops.sparsify(model, masks, images, format="taps")
    kinds = [type(module) for module in model.modules()]
    assert kinds.count(SparseConv2d) > 20
    with torch.no_grad():
        expected = copy.deepcopy(model).double()(images.double())
        assert_same_logits(optimize_for_inference(model)(images), expected)
    assert [type(module) for module in model.modules()] == kinds


def test_a_network_in_training_mode_is_folded_for_evaluation() -> None:
    model = network()
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = model(images)
    fused = optimize_for_inference(model.train())
    assert_same_logits(fused(images), expected)
    assert model.training


def test_bfloat16_and_channels_last_images() -> None:
    model = network()
    images = torch.randn(2, 3, 40, 56)
    with torch.no_grad():
        expected = copy.deepcopy(model).double()(images.double())
        plain = copy.deepcopy(model).bfloat16()(images.bfloat16())
        fused = optimize_for_inference(model)
        logits = copy.deepcopy(fused).bfloat16()(images.bfloat16())
        assert_same_logits(fused(images.contiguous(memory_format=torch.channels_last)), expected)
    assert logits.dtype == torch.bfloat16
    error, of_plain = ((y - expected).abs().mean() for y in (logits, plain))
    assert error <= 2 * of_plain


def test_state_survives_a_copy() -> None:
    fused, other = optimize_for_inference(network()), optimize_for_inference(network())
    images = torch.randn(1, 3, 32, 32)
    assert not torch.equal(other(images), fused(images))
    other.load_state_dict(fused.state_dict())
    assert torch.equal(other(images), fused(images))


def test_packed_weights_follow_the_module() -> None:
    fused = optimize_for_inference(network())
    images = torch.randn(1, 3, 32, 32)
    before = fused(images)
    assert torch.equal(copy.deepcopy(fused)(images), before)
    assert torch.equal(pickle.loads(pickle.dumps(fused))(images), before)
    assert_same_logits(fused.double()(images.double()), before)
    assert_same_logits(fused.float()(images), before)
    assert not any("packed" in name for name in fused.state_dict())


def test_runs_on_every_backend_and_needs_no_gradient() -> None:
    fused = optimize_for_inference(network())
    images = torch.randn(1, 3, 48, 32, requires_grad=True)
    logits = fused(images)
    assert not logits.requires_grad
    with lmwp_ops.use_backend("reference"):
        torch.testing.assert_close(fused(images), logits, atol=1e-4, rtol=1e-4)
    with lmwp_ops.decomposed():
        torch.testing.assert_close(fused(images), logits, atol=1e-4, rtol=1e-4)


def test_images_that_are_too_small_are_refused_in_one_line() -> None:
    fused = optimize_for_inference(network())
    with pytest.raises(ValueError, match=r"LMWPNet: expected height and width of at least 32"):
        fused(torch.zeros(1, 3, 31, 32))
