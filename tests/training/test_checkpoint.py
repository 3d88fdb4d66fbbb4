"""Checkpoints: whole or absent, the newest few kept, damage named."""

import os
import resource

import pytest
import torch

from lmwp_models.errors import UserError
from lmwp_models.registry import create_model
from lmwp_models.training.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint


@pytest.fixture
def model():
    return create_model("csnet-x1")


def save(run, step, model, *more):
    state = {"step": step, "more": list(more)}
    return save_checkpoint(run, step, model, state, name="csnet-x1", input_size=(64, 64))


def test_round_trip(tmp_path, model):
    path = save(tmp_path, 12, model)
    other = create_model("csnet-x1")
    assert load_checkpoint(path, other) == {"step": 12, "more": []}
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


def test_only_the_newest_are_kept_in_the_order_of_their_steps(tmp_path, model):
    for step in (5, 10, 100, 1000):
        save(tmp_path, step, model)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000100", "step-00001000"]


@pytest.mark.parametrize(("limit", "values"), [(100_000, 1), (2_000_000, 1_000_000)])
def test_a_refused_write_leaves_the_older_ones(tmp_path, model, limit, values):
    """Either file of a checkpoint outgrows the largest size the kernel lets a file have."""
    save(tmp_path, 1, model)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write checkpoint .*step-00000002: File too"):
            save(tmp_path, 2, model, torch.zeros(values))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
    load_checkpoint(tmp_path / "checkpoints" / "step-00000001", model)


def test_a_folder_that_cannot_be_made_is_named(tmp_path, model):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(UserError, match=r"cannot write checkpoint .*step-00000001: Not a dir"):
        save(tmp_path, 1, model)


def test_a_folder_left_by_a_killed_process_is_not_taken_for_a_checkpoint(tmp_path, model):
    save(tmp_path, 1, model)
    half = tmp_path / "checkpoints" / ".step-00000002.partial"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half of it")
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000001"]
    save(tmp_path, 3, model)
    assert not half.exists()


@pytest.mark.parametrize("victim", ["model.safetensors", "state.pt"])
def test_a_damaged_checkpoint_is_named_with_the_way_out(tmp_path, model, victim):
    path = save(tmp_path, 3, model)
    os.truncate(path / victim, 100)
    with pytest.raises(UserError, match=r"step-00000003 cannot be read .*remove that folder"):
        load_checkpoint(path, model)
