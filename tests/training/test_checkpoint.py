"""Checkpoints: whole or absent, the newest few kept, damage named."""

import os

import pytest
import torch

from lmwp_models.errors import UserError
from lmwp_models.registry import create_model
from lmwp_models.training import checkpoint
from lmwp_models.training.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint


@pytest.fixture
def model():
    return create_model("csnet-x1")


def save(run, step, model):
    return save_checkpoint(run, step, model, {"step": step}, name="csnet-x1", input_size=(64, 64))


def test_round_trip(tmp_path, model):
    path = save(tmp_path, 12, model)
    other = create_model("csnet-x1")
    assert load_checkpoint(path, other) == {"step": 12}
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


def test_only_the_newest_are_kept_in_the_order_of_their_steps(tmp_path, model):
    for step in (5, 10, 100, 1000):
        save(tmp_path, step, model)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000100", "step-00001000"]


def test_a_refused_write_leaves_the_older_ones(tmp_path, model, monkeypatch):
    save(tmp_path, 1, model)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(UserError, match=r"step-00000002: .*No space left"):
        save(tmp_path, 2, model)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


def test_a_folder_left_by_a_killed_process_is_not_taken_for_a_checkpoint(tmp_path, model):
    save(tmp_path, 1, model)
    (tmp_path / "checkpoints" / ".step-00000002.partial-77").mkdir()
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000001"]


@pytest.mark.parametrize("victim", ["model.safetensors", "state.pt"])
def test_a_damaged_checkpoint_is_named_with_the_way_out(tmp_path, model, victim):
    path = save(tmp_path, 3, model)
    os.truncate(path / victim, 100)
    with pytest.raises(UserError, match=r"step-00000003 cannot be read .*remove that folder"):
        load_checkpoint(path, model)
