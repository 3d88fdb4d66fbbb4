"""CSNet and its ops on a GPU against float64 on the CPU."""

import copy

import pytest
import torch
from torch.nn import functional as F

import lmwp_ops
from lmwp_bench.networks import bench_network, make_images, make_network

SIZE = (96, 128)


@pytest.fixture(scope="module")
def network():
    return make_network(bench_network("csnet-l-x1"), SIZE)


@pytest.fixture(scope="module")
def images():
    return make_images(2, SIZE)


@pytest.fixture(scope="module")
def truth(network, images):
    with torch.no_grad(), lmwp_ops.decomposed():
        return copy.deepcopy(network).double()(images.double())


def relative_error(y, truth):
    return ((y.cpu().double() - truth).abs().max() / truth.abs().max()).item()


@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.float32, 1e-4), (torch.float16, 1e-2), (torch.bfloat16, 8e-2)]
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_inference(device, network, images, truth, dtype, limit, layout):
    model = copy.deepcopy(network).to(device, dtype, memory_format=layout)
    with torch.no_grad():
        y = model(images.to(device, dtype, memory_format=layout))
    assert relative_error(y, truth) < limit


def test_graph_replay_gives_the_values_of_the_calls(device, network, images):
    model, x = copy.deepcopy(network).to(device), images.to(device)
    with torch.no_grad():
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            expected = model(x)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = model(x)
    graph.replay()
    torch.cuda.synchronize()
    torch.testing.assert_close(y, expected)


def test_a_training_step(device, network, images):
    """Loss and the last layer's gradients; those before are at the mercy of kinks."""

    def step(model, images):
        model.train()
        masks = (images[:, :1] > 0).to(images)
        loss = F.binary_cross_entropy_with_logits(model(images), masks)
        weight = model.cls_layer.weight
        return loss.detach(), torch.autograd.grad(loss, weight)[0]

    with lmwp_ops.decomposed():
        exact = step(copy.deepcopy(network).double(), images.double())
    got = step(copy.deepcopy(network).to(device), images.to(device))
    for g, t in zip(got, exact, strict=True):
        assert relative_error(g, t) < 1e-3


def test_mixed_precision_trains(device, network, images):
    model = copy.deepcopy(network).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x, masks = images.to(device), (images[:, :1] > 0).float().to(device)
    losses = []
    for _ in range(10):
        with torch.autocast("cuda", torch.bfloat16):
            logits = model(x)
        loss = F.binary_cross_entropy_with_logits(logits.float(), masks)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
