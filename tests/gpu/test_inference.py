"""The fused network on a GPU: right, replayed as a graph, on any stream and from any thread."""

import copy
import threading

import pytest
import torch

import lmwp_ops
from lmwp_bench.networks import bench_network, make_images, make_network
from lmwp_models import optimize_for_inference

SIZE = (96, 128)
CYCLES = 200_000_000  # about a tenth of a second


@pytest.fixture(scope="module")
def network():
    return make_network(bench_network("csnet-l-x1"), SIZE)


@pytest.fixture(scope="module")
def images(device):
    return make_images(2, SIZE).to(device)


@pytest.fixture
def fused(device, network):
    return optimize_for_inference(copy.deepcopy(network).to(device))


def launched(fused, images):
    """What the kernels give, launched one by one."""
    fused.cuda_graphs = False
    try:
        return fused(images)
    finally:
        fused.cuda_graphs = True


@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.float32, 1e-4), (torch.float16, 1e-2), (torch.bfloat16, 8e-2)]
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_logits_are_those_of_the_network(network, fused, images, dtype, limit, layout) -> None:
    with torch.no_grad(), lmwp_ops.decomposed():
        truth = copy.deepcopy(network).double()(images.cpu().double())
    x = images.to(dtype, memory_format=layout)
    fused = fused.to(dtype)
    for _ in range(3):
        y = fused(x)
        error = (y.cpu().double() - truth).abs().max() / truth.abs().max()
        assert y.dtype == dtype
        assert error < limit


def test_replays_give_the_bits_of_the_launches(fused, images) -> None:
    expected = launched(fused, images)
    other = torch.randn_like(images)
    expected_other = launched(fused, other)
    for _ in range(3):
        assert torch.equal(fused(images), expected)
        assert torch.equal(fused(other), expected_other)


def test_outputs_are_the_callers_own(fused, images) -> None:
    fused(images)
    first = fused(images)
    kept = first.clone()
    fused(torch.randn_like(images))
    assert torch.equal(first, kept)


def test_one_graph_for_each_kind_of_images(fused, images) -> None:
    kinds = [images, images[:1], images[..., :64, :64], images.half()]
    for x in kinds[:3] * 3:
        assert torch.equal(fused(x), launched(fused, x.contiguous()))
    half = copy.deepcopy(fused).half()
    for _ in range(3):
        assert torch.equal(half(kinds[3]), launched(half, kinds[3]))


def test_new_weights_are_seen(device, fused, images) -> None:
    for _ in range(2):
        fused(images)
    other = optimize_for_inference(make_network(bench_network("csnet-l-x1"), SIZE).to(device))
    with torch.no_grad():
        for buffer in other.buffers():
            buffer.mul_(0.9)
    expected = launched(other, images)
    fused.load_state_dict(other.state_dict())
    for _ in range(3):
        assert torch.equal(fused(images), expected)


def test_waits_for_its_stream(fused, images) -> None:
    """The images are written late on a stream of their own; no other stream orders the call."""
    expected = launched(fused, images)
    late, stream = torch.zeros_like(images), torch.cuda.Stream()
    for _ in range(2):
        fused(late)
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(CYCLES)
        late.copy_(images)
        y = fused(late)
    zeros = fused(torch.zeros_like(images))  # at once, on another stream
    stream.synchronize()
    assert torch.equal(y, expected)
    assert torch.equal(zeros, launched(fused, torch.zeros_like(images)))


def test_threads_may_call_at_once(fused, images) -> None:
    inputs = [torch.randn_like(images) for _ in range(4)]
    expected = [launched(fused, x) for x in inputs]
    wrong = []

    def work(x, y) -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            wrong.extend(1 for _ in range(20) if not torch.equal(fused(x), y))

    torch.cuda.synchronize()
    pairs = zip(inputs, expected, strict=True)
    threads = [threading.Thread(target=work, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_is_captured_in_a_graph_of_the_callers(fused, images) -> None:
    expected = launched(fused, images)
    x = torch.zeros_like(images)
    for _ in range(2):
        fused(x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = fused(x)
    x.copy_(images)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(y, expected)


def test_every_backend_gives_the_same(fused, images) -> None:
    plain = launched(fused, images)
    with lmwp_ops.use_backend("reference"):
        for _ in range(3):
            torch.testing.assert_close(fused(images), plain, rtol=1e-3, atol=1e-3)


@pytest.mark.alone
def test_a_replay_is_faster_than_launches(fused, images) -> None:
    def milliseconds(run) -> float:
        for _ in range(5):
            run(images[:1])
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(50):
            run(images[:1])
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 50

    assert milliseconds(fused) < milliseconds(lambda x: launched(fused, x))


@torch.backends.cudnn.flags(allow_tf32=False)
def test_lmwpnet_is_right_launched_and_replayed(device, images) -> None:
    network = make_network(bench_network("lmwpnet"), SIZE)
    with torch.no_grad(), lmwp_ops.decomposed():
        truth = copy.deepcopy(network).double()(images.cpu().double())
    fused = optimize_for_inference(network.to(device))
    expected = launched(fused, images)
    assert (expected.cpu().double() - truth).abs().max() < 2e-4 * truth.abs().max()
    for _ in range(3):
        torch.testing.assert_close(fused(images), expected)
