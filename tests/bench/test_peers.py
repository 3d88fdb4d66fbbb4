"""Other runtimes: right on a network with everything that is hard to convert, or a clear line."""

import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lmwp_ops
from lmwp_bench import accuracy
from lmwp_bench.measure import Case, CaseRun
from lmwp_bench.networks import bench_network, make_network
from lmwp_bench.peers import pytorch
from lmwp_bench.peers.network import NETWORK_PEERS, network_variants, peers_for
from lmwp_bench.peers.task import NetworkTask
from lmwp_bench.results import Row


class Small(nn.Module):
    """Two scales with the ops of CSNet: a fraction of its time to export."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 7, 3, padding=1)
        self.depthwise = lmwp_ops.nn.DepthwiseScales([7, 7])
        self.norms = nn.ModuleList(nn.Sequential(nn.BatchNorm2d(7), nn.PReLU(7)) for _ in "ab")
        self.mix = lmwp_ops.nn.GOctConv2d((7, 7), (5, 3), 1)
        self.head = nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.stem(x)
        ys = self.depthwise([fine, F.max_pool2d(fine, 2)])
        fine, coarse = (norm(y) for norm, y in zip(self.norms, ys, strict=True))
        fine, coarse = self.mix([fine, coarse])
        size = (x.shape[-2], x.shape[-1])
        coarse = F.interpolate(coarse, size, mode="bilinear", align_corners=False)
        return self.head(torch.cat([fine, coarse], 1))


def rows_of(names: list[str], images: Tensor) -> dict[str, Row]:
    model = Small().eval()
    task = NetworkTask(model, [images], threads=1)
    exact = Small().double().eval()
    exact.load_state_dict(model.state_dict())

    def truth() -> list[Tensor]:
        with torch.no_grad(), lmwp_ops.decomposed():
            return [exact(images.double())]

    case = Case(
        *("models", "small", "32x32", {"threads": 1, "batch": len(images)}),
        variants=network_variants(task, names),
        truth=truth,
        tolerance=accuracy.for_network(torch.float32),
        device=torch.device("cpu"),
    )
    return {row.variant: row for row in CaseRun(case).measure(0.01)}


def test_every_runtime_agrees_with_the_float64_network() -> None:
    names = [name for name in peers_for("cpu", ours=True) if name != "lmwp-fused"]
    rows = rows_of(names, torch.randn(1, 3, 32, 32))
    assert len(rows) == 7
    for name, row in rows.items():
        assert row.status == "ok", f"{name}: {row.reason}"
        assert row.error is not None
        assert row.error < 1e-5
    assert rows["eager"].launches
    assert rows["lmwp-modules"].launches
    assert rows["lmwp-modules"].launches < rows["eager"].launches
    assert rows["compile"].launches is None


def test_the_fused_network_agrees_or_says_whom_it_takes() -> None:
    names = ["eager", "lmwp-fused"]
    assert "expected a CSNet" in (
        rows_of(names, torch.randn(1, 3, 32, 32))["lmwp-fused"].reason or ""
    )
    model = make_network(bench_network("csnet-l-x1"), (32, 32))
    images = torch.randn(1, 3, 32, 32)
    compute = NETWORK_PEERS["lmwp-fused"].run(NetworkTask(model, [images], threads=1))
    torch.testing.assert_close(compute(0)[0], model(images))


def test_a_batch_that_ncnn_does_not_take() -> None:
    rows = rows_of(["eager", "onnxruntime", "ncnn"], torch.randn(2, 3, 32, 32))
    assert rows["onnxruntime"].status == "ok"
    assert rows["ncnn"].status == "unavailable"
    assert rows["ncnn"].reason == "takes one image at a time; asked for 2"


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "ncnn", "tensorrt"])
def test_a_missing_package_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    row = rows_of(["eager", name], torch.randn(1, 3, 32, 32))[name]
    assert row.status == "unavailable"
    assert f"pip install {name}" in (row.reason or "")


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "ncnn"])
def test_runtimes_in_float32_only_say_so(name: str) -> None:
    task = NetworkTask(Small().eval(), [torch.zeros(1, 3, 32, 32, dtype=torch.bfloat16)], 1)
    with pytest.raises(Exception, match=r"float32 only; asked for torch\.bfloat16"):
        NETWORK_PEERS[name].run(task)


def test_the_scratch_folder_goes_with_the_task() -> None:
    task = NetworkTask(Small().eval(), [torch.randn(1, 3, 32, 32)], 1)
    folder = task.folder
    assert task.onnx.exists()
    del task
    assert not folder.exists()


def test_eager_runs_no_op_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("an op of lmwp_ops was called")

    monkeypatch.setattr("lmwp_ops._dispatch._choose", refuse)
    task = NetworkTask(Small().eval(), [torch.randn(1, 3, 32, 32)], 1)
    assert pytorch.eager(task)(0)[0].shape == (1, 1, 32, 32)
    with pytest.raises(AssertionError, match="was called"):
        pytorch.with_ops(task)(0)


def test_peers_fit_the_device() -> None:
    assert "tensorrt" not in peers_for("cpu", ours=True)
    assert "openvino" not in peers_for("cuda", ours=True)
    assert "lmwp-modules" not in peers_for("cpu", ours=False)
