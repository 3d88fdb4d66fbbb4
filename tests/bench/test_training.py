"""Training steps: the same gradients whoever computes them, and where the time of a step goes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lmwp_bench.networks import BenchNetwork, make_comparable
from lmwp_bench.results import Row
from lmwp_bench.suites import training
from lmwp_bench.suites.network_run import NetworkRun
from lmwp_ops._dispatch import is_decomposed
from lmwp_ops.nn import DepthwiseScales


class Small(nn.Module):
    """One layer of ours in the middle; `after` stands behind it."""

    def __init__(self, after: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 7, 3, padding=1)
        self.depthwise = DepthwiseScales([7])
        self.after = after
        self.rest = nn.Sequential(nn.BatchNorm2d(7), nn.PReLU(7), nn.Conv2d(7, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.after(self.depthwise([self.first(x)])[0]))


@pytest.fixture
def rows_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Row]]:
    """Trains a network made by `build` in some ways."""

    def rows(build: Callable[[], nn.Module], *peers: str) -> dict[str, Row]:
        network = BenchNetwork("small", build, (32, 32), ours=True)
        monkeypatch.setattr(training, "bench_network", lambda name: network)
        torch.set_num_threads(1)
        run = NetworkRun("small", 4, (32, 32), "float32", "cpu", 1, peers, seconds=0.1)
        return {row.variant: row for row in training.PreparedTraining(run).measure()}

    return rows


def test_every_way_to_train_is_right_and_timed_part_by_part(rows_of):
    rows = rows_of(Small, *training.PEERS)
    assert {name: row.status for name, row in rows.items()} == dict.fromkeys(training.PEERS, "ok")
    for row in rows.values():
        assert row.error < 1e-4
        assert tuple(row.phases) == training.PHASES
        assert all(seconds > 0 for seconds in row.phases.values())
        assert sum(row.phases.values()) == pytest.approx(row.timing.p50, rel=0.5)
    assert rows["eager"].peak_memory > 4 * 7 * 32 * 32 * 4  # at least what the norm keeps


def test_gradients_off_by_a_tenth_in_one_layer_are_wrong(rows_of):
    class Off(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * (1.0 if is_decomposed() else 1.1)

    rows = rows_of(lambda: Small(Off.apply), "eager", "lmwp-modules")
    assert {name: row.status for name, row in rows.items()} == {
        "eager": "ok",
        "lmwp-modules": "wrong",
    }
    assert rows["lmwp-modules"].timing is None


def test_dropout_and_kinks_do_not_decide_what_is_right():
    model = nn.Sequential(nn.PReLU(3), nn.Dropout2d(0.5))
    make_comparable(model)
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(model(x), torch.where(x > 0, x, 0.9 * x))
