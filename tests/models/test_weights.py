"""Model files: what goes in comes out, and what else is refused in one line."""

import json
import os

import pytest
import safetensors.torch
import torch

from lmwp_models.csf import CSF, CSFConfig
from lmwp_models.errors import UserError
from lmwp_models.head_config import HeadConfig
from lmwp_models.registry import create_model
from lmwp_models.weights import load_model, save_model


@pytest.fixture
def saved(tmp_path, fill_by_formula):
    """A small model file and the model in it, after a step that moved its running statistics."""
    model = fill_by_formula(create_model("csnet-l-x1")).train()
    model(torch.randn(2, 3, 16, 16))
    path = tmp_path / "model.safetensors"
    save_model(model, path, name="csnet-l-x1", input_size=(224, 160), extra={"epoch": "3"})
    return path, model


def rewrite(path, *, tensors=None, **metadata):
    """Write the file again with some of its contents changed."""
    with safetensors.safe_open(path, "pt") as file:
        old = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        meta = {**file.metadata(), **metadata}
    meta = {key: value for key, value in meta.items() if value is not None}
    content = {key: value for key, value in {**old, **(tensors or {})}.items() if value is not None}
    safetensors.torch.save_file(content, path, meta)


def test_round_trip(saved):
    path, model = saved
    loaded, metadata = load_model(path)
    assert not loaded.training
    assert loaded.config == model.config
    state = loaded.state_dict()
    assert list(state) == list(model.state_dict())
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert state["stage0.0.conv1x1.bns.0.num_batches_tracked"] == 1
    image = torch.randn(1, 3, 16, 16)
    expected = model.eval()(image)
    assert expected.isfinite().all()
    assert torch.equal(loaded(image), expected)
    assert metadata["format"] == "lmwp-model/1"
    assert metadata["model"] == "csnet-l-x1"
    assert json.loads(metadata["input_size"]) == [224, 160]
    assert metadata["epoch"] == "3"


def test_round_trip_of_csf(tmp_path):
    config = CSFConfig("res2net50", HeadConfig.unpruned((32, 32, 32, 32)))
    model = CSF(config).eval()
    save_model(model, tmp_path / "m", name="csf", input_size=(64, 64))
    loaded, _ = load_model(tmp_path / "m")
    assert loaded.config == config
    image = torch.randn(1, 3, 33, 40)
    with torch.no_grad():
        assert torch.equal(loaded(image), model(image))


def test_channels_last_weights_are_saved(tmp_path):
    model = create_model("csnet-l-x1").to(memory_format=torch.channels_last)
    save_model(model, tmp_path / "m", name="csnet-l-x1", input_size=(16, 16))
    loaded, _ = load_model(tmp_path / "m")
    assert torch.equal(loaded.stage2[0].conv1x1.conv.weight, model.stage2[0].conv1x1.conv.weight)


def test_pruned_network_is_rebuilt_from_its_file(tmp_path):
    blocks = [[3, 0]] + [[2, 4]] * 6 + [[5]] + [[3, 2]] * 5 + [[6]] + [[0, 2]] * 3 + [[7]]
    model = create_model("csnet-x1", blocks=blocks)
    save_model(model, tmp_path / "m", name="csnet", input_size=(16, 16))
    assert load_model(tmp_path / "m")[0].config == model.config


def test_failed_write_leaves_the_old_file(saved, monkeypatch):
    path, model = saved
    before = path.read_bytes()

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_model(model, path, name="csnet-l-x1", input_size=(16, 16))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def refused(path, message):
    with pytest.raises(UserError, match=message) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_file(tmp_path):
    refused(tmp_path / "none", "cannot be read")


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x80\x04]."])
def test_other_files(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    refused(path, "cannot be read as a safetensors file")


def test_cut_short(saved):
    path, _ = saved
    path.write_bytes(path.read_bytes()[:-100])
    refused(path, "cannot be read as a safetensors file")


def test_foreign_safetensors(saved):
    path, _ = saved
    rewrite(path, format="pt")
    refused(path, r"expected a model file of format lmwp-model/1, got pt; .*import-csnet")
    rewrite(path, format=None)
    refused(path, r"got safetensors without a format")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "configuration is damaged: 'config'"),
        ("{", "configuration is damaged"),
        ("[]", "network: expected one of csnet, csf"),
        ('{"network": "csnet"}', "field 'blocks' is missing"),
    ],
)
def test_damaged_configuration(saved, config, message):
    path, _ = saved
    rewrite(path, config=config)
    refused(path, message)


def test_tensors_that_do_not_fit(saved):
    path, model = saved
    key = "stage1.0.conv1x1.conv.weight"
    rewrite(path, tensors={key: torch.zeros(2, 2, 1, 1)})
    refused(path, rf"tensor {key}: expected shape \[19, 18, 1, 1\] .* got \[2, 2, 1, 1\]")
    rewrite(path, tensors={key: None})
    refused(path, rf"tensor {key} is missing")
    rewrite(path, tensors={key: model.state_dict()[key], "extra.weight": torch.zeros(1)})
    refused(path, r"tensor extra.weight has no place")
