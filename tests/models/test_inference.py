"""optimize_for_inference: the logits of the network, on the fused ops."""

import copy

import pytest
import torch
from torch import nn

import lmwp_ops
from lmwp_bench.networks import bench_network, make_network
from lmwp_models import optimize_for_inference
from lmwp_models.csnet import CSNet
from lmwp_models.registry import create_model, list_models

NETWORKS = [name for name in list_models() if isinstance(create_model(name), CSNet)]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(48, 64), (16, 16)], ids=str)
def test_logits_are_those_of_the_network(name: str, size: tuple[int, int]) -> None:
    model = make_network(bench_network(name), (64, 64))
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        expected = copy.deepcopy(model).double()(images.double())
        logits = optimize_for_inference(model)(images)
    assert (logits - expected).abs().max() < 1e-5 * expected.abs().max().clamp(min=1)


def test_later_training_of_the_network_changes_nothing() -> None:
    model = make_network(bench_network("csnet-l-x1"), (32, 32))
    fused = optimize_for_inference(model)
    images = torch.randn(1, 3, 32, 32)
    before = fused(images)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    assert torch.equal(fused(images), before)


def test_state_survives_a_copy_and_a_change_of_dtype() -> None:
    model = make_network(bench_network("csnet-l-x2"), (32, 32))
    fused = optimize_for_inference(model)
    images = torch.randn(1, 3, 32, 32)
    other = optimize_for_inference(make_network(bench_network("csnet-l-x2"), (32, 32)))
    other.load_state_dict(fused.state_dict())
    assert torch.equal(other(images), fused(images))
    half = copy.deepcopy(fused).bfloat16()(images.bfloat16())
    assert half.dtype == torch.bfloat16
    assert (half.float() - fused(images)).abs().mean() < 0.05 * fused(images).abs().max()


def test_runs_on_every_backend_and_needs_no_gradient() -> None:
    fused = optimize_for_inference(make_network(bench_network("csnet-l-x1"), (32, 32)))
    images = torch.randn(1, 3, 32, 32, requires_grad=True)
    logits = fused(images)
    assert not logits.requires_grad
    with lmwp_ops.use_backend("reference"):
        torch.testing.assert_close(fused(images), logits)


def test_refuses_other_networks_and_shapes_in_one_line() -> None:
    with pytest.raises(TypeError, match=r"expected a CSNet or an LMWPNet, got Linear"):
        optimize_for_inference(nn.Linear(2, 2))
    fused = optimize_for_inference(create_model("csnet-l-x1").eval())
    with pytest.raises(ValueError, match=r"multiples of 16, got 8 x 32"):
        fused(torch.zeros(1, 3, 8, 32))
