"""GraphCache: what is captured, replayed and forgotten; the graphs themselves need a GPU."""

import copy
import pickle
import threading

import pytest
import torch
from torch import Tensor

import lmwp_ops
from lmwp_bench.networks import bench_network, make_network
from lmwp_models import cuda_graphs
from lmwp_models.cuda_graphs import CAPACITY, GraphCache, can_be_graphed
from lmwp_models.inference import optimize_for_inference


class Recorded:
    """Stands for a graph: counts its replays, and says when it is closed."""

    made: list["Recorded"]

    def __init__(self, function, x: Tensor) -> None:
        self.shape, self.replays, self.closed, self.busy = x.shape, 0, False, False
        self._function = function
        Recorded.made.append(self)

    def __call__(self, x: Tensor) -> Tensor:
        assert x.shape == self.shape
        assert not self.busy
        assert not self.closed
        self.busy = True
        y = self._function(x)
        self.replays += 1
        self.busy = False
        return y

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def cache() -> GraphCache:
    Recorded.made = []
    return GraphCache(Recorded)


def double(x: Tensor) -> Tensor:
    return 2 * x


def test_the_second_input_of_a_kind_is_captured(cache: GraphCache) -> None:
    x = torch.arange(6.0).reshape(1, 2, 3, 1)
    for _ in range(4):
        assert torch.equal(cache(double, x), 2 * x)
    (call,) = Recorded.made
    assert call.replays == 3


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(torch.zeros(2, 3, 4, 4), id="shape"),
        pytest.param(torch.zeros(1, 3, 4, 4, dtype=torch.float64), id="dtype"),
        pytest.param(
            torch.zeros(1, 3, 4, 4).contiguous(memory_format=torch.channels_last), id="layout"
        ),
    ],
)
def test_another_kind_has_a_graph_of_its_own(cache: GraphCache, other: Tensor) -> None:
    for x in (torch.zeros(1, 3, 4, 4), other) * 2:
        cache(double, x)
    assert len(Recorded.made) == 2


def test_a_forced_backend_has_a_graph_of_its_own(cache: GraphCache) -> None:
    x = torch.zeros(1, 3, 4, 4)
    for _ in range(2):
        cache(double, x)
    with lmwp_ops.use_backend("reference"):
        cache(double, x)
        assert len(Recorded.made) == 1
        cache(double, x)
    assert len(Recorded.made) == 2


def test_the_least_recently_used_kind_is_forgotten(cache: GraphCache) -> None:
    first = torch.zeros(1)
    cache(double, first)
    for n in range(2, CAPACITY + 2):
        cache(double, first)
        for _ in range(2):
            cache(double, torch.zeros(n))
    first_call, second_call, *others = Recorded.made
    assert second_call.closed
    assert not first_call.closed
    assert not any(call.closed for call in others)


def test_clearing_forgets_everything(cache: GraphCache) -> None:
    x = torch.zeros(1)
    for _ in range(2):
        cache(double, x)
    cache.clear()
    assert Recorded.made[0].closed
    cache(double, x)
    assert len(Recorded.made) == 1


def test_a_failed_capture_leaves_the_cache_usable(cache: GraphCache) -> None:
    def fails(function, x: Tensor) -> None:
        raise RuntimeError("no memory")

    broken = GraphCache(fails)
    x = torch.ones(1)
    broken(double, x)
    with pytest.raises(RuntimeError, match="no memory"):
        broken(double, x)
    assert torch.equal(broken(double, torch.ones(2)), torch.full((2,), 2.0))


def test_threads_take_turns(cache: GraphCache) -> None:
    wrong = []

    def work(value: int) -> None:
        x = torch.full((64,), float(value))
        wrong.extend(1 for _ in range(200) if not torch.equal(cache(double, x), 2 * x))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(Recorded.made) == 1


def test_copies_and_pickles_are_empty(cache: GraphCache) -> None:
    x = torch.zeros(1)
    for _ in range(2):
        cache(double, x)
    for other in (copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
        other(double, x)
        assert len(Recorded.made) == 1


def test_nothing_is_graphed_on_the_cpu() -> None:
    assert not can_be_graphed(torch.zeros(1))


class TestNetwork:
    """The fused network with graphs that are none, on the CPU."""

    @pytest.fixture(params=["csnet-l-x1", "lmwpnet"])
    def network(self, request, monkeypatch: pytest.MonkeyPatch, cache: GraphCache):
        monkeypatch.setattr("lmwp_models.fused_network.can_be_graphed", lambda x: True)
        fused = optimize_for_inference(make_network(bench_network(request.param), (32, 32)))
        fused._graphs = cache
        return fused

    def test_replays(self, network) -> None:
        images = torch.randn(1, 3, 32, 32)
        first, second, third = (network(images) for _ in range(3))
        assert Recorded.made[0].replays == 2
        assert torch.equal(first, second)
        assert torch.equal(first, third)

    def test_replays_nothing_where_it_is_switched_off(self, network) -> None:
        network.cuda_graphs = False
        for _ in range(3):
            network(torch.randn(1, 3, 32, 32))
        assert not Recorded.made

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda network: network.double().float(), id="dtype"),
            pytest.param(
                lambda network: network.load_state_dict(network.state_dict(), assign=True),
                id="assigned state",
            ),
        ],
    )
    def test_forgets_graphs_when_its_tensors_move(self, network, change) -> None:
        images = torch.randn(1, 3, 32, 32)
        for _ in range(2):
            network(images)
        change(network)
        assert Recorded.made[0].closed

    def test_survives_a_copy_and_a_pickle(self, network) -> None:
        images = torch.randn(1, 3, 32, 32)
        expected = network(images)
        for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
            assert torch.equal(other(images), expected)


def test_the_flags_that_forbid_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnGpu:
        is_cuda = True

    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert can_be_graphed(OnGpu())
    with monkeypatch.context() as patched:
        patched.setattr(torch, "is_autocast_enabled", lambda device_type: True)
        assert not can_be_graphed(OnGpu())
    with lmwp_ops.decomposed():
        assert not can_be_graphed(OnGpu())
    monkeypatch.setattr(cuda_graphs.torch.cuda, "is_current_stream_capturing", lambda: True)
    assert not can_be_graphed(OnGpu())
