"""The loop: it learns, stops, resumes bit for bit, and never saves a diverged network."""

import json
import os
import signal

import pytest
import torch

from lmwp_models.errors import UserError
from lmwp_models.training import loss as loss_module
from lmwp_models.training import trainer as trainer_module
from lmwp_models.training.checkpoint import list_checkpoints
from lmwp_models.training.interruption import Stopped
from lmwp_models.training.trainer import Validation

from .small import Recorder, assert_same, make_trainer, weights


def test_it_learns(tmp_path):
    recorder = Recorder()
    make_trainer(
        tmp_path, pictures=8, sinks=[recorder], optimizer={"lr": 5e-3}, train={"epochs": 20}
    ).fit()
    losses = [record.loss for record in recorder.steps]
    assert len(losses) == 40
    assert sum(losses[-4:]) < 0.75 * sum(losses[:4])
    assert [record.step for record in recorder.steps] == list(range(1, 41))
    assert (tmp_path / "final.safetensors").is_file()


def test_bfloat16_and_channels_last_train_as_well(tmp_path):
    recorder = Recorder()
    train = {"amp": "bf16", "channels_last": True}
    trainer = make_trainer(tmp_path, sinks=[recorder], train=train)
    trainer.fit()
    reference = Recorder()
    make_trainer(tmp_path / "float32", sinks=[reference]).fit()
    losses = [[record.loss for record in r.steps] for r in (recorder, reference)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], abs=0.03)
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())


@pytest.mark.parametrize("mode", ["penalty", "decoupled", "off"])
def test_a_run_stopped_in_mid_epoch_resumes_bit_for_bit(tmp_path, monkeypatch, mode):
    monkeypatch.setattr(trainer_module, "SYNC_EVERY", 1)
    whole = make_trainer(tmp_path / "whole", decay={"mode": mode})
    whole.fit()

    class StopAt(Recorder):
        def step(self, record):
            super().step(record)
            if record.step == 1:
                os.kill(os.getpid(), signal.SIGTERM)

    first = make_trainer(tmp_path / "parts", decay={"mode": mode}, sinks=[StopAt()])
    with pytest.raises(Stopped, match="SIGTERM"):
        first.fit()
    assert 0 < first.step < first.steps_per_epoch
    stopped = weights(first)
    second = make_trainer(tmp_path / "parts", decay={"mode": mode})
    torch.manual_seed(99)  # the state of the first process is gone
    assert second.resume()
    assert_same(stopped, weights(second))
    second.fit()
    assert_same(weights(whole), weights(second))
    first.fit()  # a stopped trainer can go on, too
    assert_same(weights(whole), weights(first))


def test_decay_modes_differ(tmp_path):
    results = {}
    for mode in ("penalty", "decoupled", "off"):
        trainer = make_trainer(tmp_path / mode, decay={"mode": mode, "weight": 3.0})
        trainer.fit()
        results[mode] = weights(trainer)["stage1.0.conv1x1.bns.0.weight"]
    assert not torch.equal(results["penalty"], results["off"])
    assert not torch.equal(results["penalty"], results["decoupled"])
    assert results["decoupled"].abs().mean() < results["off"].abs().mean()


def test_other_pictures_cannot_be_resumed_on(tmp_path):
    first = make_trainer(tmp_path)
    first.fit()
    with pytest.raises(UserError, match="trained on other pictures"):
        make_trainer(tmp_path, pictures=13).resume()


def test_a_loss_that_is_not_finite_names_the_batch_and_is_not_saved(tmp_path, monkeypatch):
    real = loss_module.saliency_loss
    calls = []

    def poisoned(logits, masks):
        calls.append(None)
        return real(logits, masks) * (float("nan") if len(calls) == 3 else 1.0)

    monkeypatch.setitem(loss_module.LOSSES, "bce", poisoned)
    trainer = make_trainer(tmp_path, train={"checkpoint_every": 1})
    with pytest.raises(UserError, match=r"loss is nan .* at step 3, epoch 0, batch: ") as caught:
        trainer.fit()
    names = str(caught.value).partition("batch: ")[2].partition(";")[0].split(", ")
    assert len(names) == 4
    assert set(names) <= set(trainer.dataset.source.names)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000001", "step-00000002"]


def test_the_best_weights_are_those_of_the_best_score(tmp_path):
    scores = iter([0.2, 0.9, 0.5])
    seen = []

    def validate(model):
        assert not model.training
        seen.append({key: value.clone() for key, value in model.state_dict().items()})
        return Validation(next(scores), {"max_f_dataset": 0.0})

    recorder = Recorder()
    trainer = make_trainer(tmp_path, train={"epochs": 3}, validate=validate, sinks=[recorder])
    trainer.fit()
    assert [(step, epochs) for step, epochs, _ in recorder.validations] == [(3, 1), (6, 2), (9, 3)]
    from lmwp_models.weights import load_model

    best, metadata = load_model(tmp_path / "best.safetensors")
    assert_same(seen[1], best.state_dict())
    assert json.loads(metadata["input_size"]) == [32, 32]


def test_a_stop_at_the_end_of_an_epoch_keeps_its_score(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "SYNC_EVERY", 1)

    class StopAfterThree(Recorder):
        def step(self, record):
            if record.step == 3:
                os.kill(os.getpid(), signal.SIGINT)

    recorder = StopAfterThree()
    validate = lambda model: Validation(0.9, {})  # noqa: E731
    train = {"checkpoint_every": 1}
    with pytest.raises(Stopped, match="SIGINT"):
        make_trainer(tmp_path, train=train, validate=validate, sinks=[recorder]).fit()
    assert [(step, epochs) for step, epochs, _ in recorder.validations] == [(3, 1)]
    best = (tmp_path / "best.safetensors").read_bytes()
    second = make_trainer(tmp_path, train=train, validate=lambda model: Validation(0.5, {}))
    assert second.resume()
    assert (second.step, second.best_score) == (3, 0.9)
    second.fit()
    assert (tmp_path / "best.safetensors").read_bytes() == best


def test_a_batch_larger_than_the_set_is_refused(tmp_path):
    with pytest.raises(UserError, match="larger than the training set of 12 pictures"):
        make_trainer(tmp_path, train={"batch_size": 13})


def test_an_unusable_device_is_one_line(tmp_path):
    with pytest.raises(UserError, match="device 'cuda:77' cannot be used here"):
        make_trainer(tmp_path, train={"device": "cuda:77"})
