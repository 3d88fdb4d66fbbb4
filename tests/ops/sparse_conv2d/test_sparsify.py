"""sparsify: a model with pruned convolutions, end to end."""

import copy
import json

import pytest
import torch
from torch import Tensor, nn

import lmwp_ops
from lmwp_models.registry import create_model
from lmwp_ops import _loader
from lmwp_ops.nn import SparseConv2d, sparsify

has_kernels = pytest.mark.skipif(_loader.why_not("_C") is not None, reason="kernels not loaded")


def small() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 96, 3, padding=1),
        nn.Sequential(nn.BatchNorm2d(96), nn.Conv2d(96, 96, 1), nn.PReLU(96)),
        nn.Conv2d(96, 4, 1),
    )


def random_masks(model: nn.Module, density: float, kernel: tuple[int, int]) -> dict[str, Tensor]:
    """For every dense convolution of this kernel."""
    return {
        name: torch.rand(conv.weight.shape) < density
        for name, conv in model.named_modules()
        if type(conv) is nn.Conv2d and conv.kernel_size == kernel and conv.groups == 1
    }


def masked(model: nn.Module, masks: dict[str, Tensor]) -> nn.Module:
    """A copy whose weights are multiplied by the masks."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_submodule(name).weight *= mask
    return model


@pytest.mark.parametrize("format", ["auto", "taps", "dense"])
@pytest.mark.parametrize("measured", [True, False])
def test_is_the_masked_model(format: str, measured: bool) -> None:
    model, x = small(), torch.randn(1, 3, 30, 26)
    masks = {**random_masks(model, 0.1, (1, 1)), **random_masks(model, 0.5, (3, 3))}
    statistics = model[1][0].running_mean.clone()
    expected = masked(model, masks).eval()
    report = sparsify(model, masks, *[x] * measured, format=format)
    assert model.training
    assert torch.equal(model[1][0].running_mean, statistics)
    torch.testing.assert_close(model.eval()(x), expected(x), rtol=1e-4, atol=1e-4)
    assert [row.name for row in report.rows] == list(masks)
    assert all(type(model.get_submodule(name)) is SparseConv2d for name in masks)
    for row in report.rows:
        assert row.format == model.get_submodule(row.name).format
        assert row.density == pytest.approx(float(masks[row.name].float().mean()))
        if format == "taps":
            assert (row.measured_gain is not None) == measured
        if row.format == "dense" and row.measured_gain:
            assert row.measured_gain <= 1
            assert "dense is faster here" in row.reason
    assert len(str(report).splitlines()) == 1 + len(masks)
    assert json.loads(json.dumps(report.to_dict()))[0]["name"] == "1.1"


@has_kernels
def test_auto_keeps_dense_what_is_slower() -> None:
    model = nn.Sequential(nn.Conv2d(64, 64, 1))
    report = sparsify(model, {"0": torch.ones(64, 64, 1, 1).tril()}, torch.randn(1, 64, 2, 2))
    assert report.rows[0].format == "dense"
    assert "dense is faster here" in report.rows[0].reason


def test_wrong_names_leave_the_model_alone() -> None:
    model = small()
    before = [type(module) for module in model.modules()]
    mask = torch.ones(96, 96, 1, 1)
    for masks, message in (
        ({"1.1": mask, "1.0": mask}, "expected the names of .*, got '1.0': BatchNorm2d"),
        ({"1.1": mask, "5": mask}, "expected the names of .*, got '5': no module"),
        ({"1.1": mask, "2": mask}, "mask of '2': expected the shape"),
    ):
        with pytest.raises(ValueError, match=message):
            sparsify(model, masks)
        assert [type(module) for module in model.modules()] == before


def test_lmwpnet_runs_end_to_end() -> None:
    """Random masks on its dense 1 x 1 convolutions, besides the last ones."""
    torch.manual_seed(0)
    model = create_model("lmwpnet").eval()
    every = random_masks(model, 0.1, (1, 1))
    masks = {name: mask for name, mask in every.items() if not name.startswith("heads")}
    x = torch.randn(1, 3, 96, 96)
    expected = masked(model, masks)
    report = lmwp_ops.nn.sparsify(model, masks, x)
    assert {row.format for row in report.rows} <= {"dense", "unstructured"}
    with torch.no_grad():
        for a, b in zip(flat(model(x)), flat(expected(x)), strict=True):
            assert b.std() > 0
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * float(b.std()))


def test_csnet_runs_end_to_end() -> None:
    """Octave convolutions, and depthwise ones whose weights are taken, stay with zeros in them."""
    torch.manual_seed(0)
    model = create_model("csnet-x1").eval()
    masks = {
        name: torch.rand(module.weight.shape) < 0.3
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | lmwp_ops.nn.GOctConv2d)
    }
    x = torch.randn(1, 3, 64, 64)
    expected = masked(model, masks)
    report = sparsify(model, masks, x)
    reasons = {row.name: row.reason for row in report.rows}
    assert (
        reasons["stage1.0.conv1x1.conv"] == "dense: octave convolution, of several scales at once"
    )
    assert "takes its weight" in reasons["stage1.0.conv3x3_1.convs.0"]
    assert {row.format for row in report.rows if row.measured_gain is None} == {"dense"}
    with torch.no_grad():
        found, truth = model(x), expected(x)
    assert truth.std() > 0
    torch.testing.assert_close(found, truth, rtol=1e-3, atol=1e-3 * float(truth.std()))


def flat(outputs: object) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs]
    values = outputs.values() if isinstance(outputs, dict) else outputs
    return [t for value in values for t in flat(value)]  # type: ignore[union-attr]
