"""What recipes switch on: each does what it says, and resumes with the rest of the run."""

import copy
import functools
import os
import signal

import pytest
import torch
from torch import nn

from lmwp_models.errors import UserError
from lmwp_models.training import trainer as trainer_module
from lmwp_models.training.decay import DynamicWeightDecay
from lmwp_models.training.ema import WeightAverage
from lmwp_models.training.interruption import Stopped
from lmwp_models.training.loss import LOSSES, saliency_loss
from lmwp_models.training.precision import Precision
from lmwp_models.training.trainer import Validation
from lmwp_models.weights import load_model

from .small import Recorder, assert_same, make_trainer, weights


def losses(folder, **sections):
    recorder = Recorder()
    make_trainer(folder, sinks=[recorder], **sections).fit()
    return [record.loss for record in recorder.steps]


@pytest.mark.parametrize("mode", ["penalty", "decoupled"])
def test_accumulated_passes_make_one_step_of_their_mean(tmp_path, mode):
    trainer = make_trainer(
        tmp_path,
        decay={"mode": mode, "weight": 3.0},
        optimizer={"lr": 1e-2, "weight_decay": 0.1},
        schedule={"kind": "constant"},
        train={"accumulate": 2, "epochs": 1},
        pictures=4,
    )
    model = copy.deepcopy(trainer.model).train()
    decay = DynamicWeightDecay(model.decay_units())
    optimizer = torch.optim.Adam(
        [
            {"params": [p for p in model.parameters() if not any(p is g for g in decay.gammas)]},
            {"params": decay.gammas, "weight_decay": 0.0},
        ],
        lr=1e-2,
        betas=(0.9, 0.99),
        weight_decay=0.1,
    )
    strengths = []
    for part in trainer._feed(0, trainer._plan.passes(0, 0)):
        assert len(part.names) == 2
        loss = saliency_loss(model(part.images), part.masks)
        strengths.append(decay.strength())
        (0.5 * (loss + (3.0 * decay.penalty() if mode == "penalty" else 0.0))).backward()
    optimizer.step()
    if mode == "decoupled":
        decay.decay_(1e-2 * 3.0, (strengths[0] + strengths[1]) / 2)
    trainer.fit()
    for key, value in model.state_dict().items():
        torch.testing.assert_close(trainer.model.state_dict()[key], value, msg=key)


def test_averaged_weights_follow_by_the_formula():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = WeightAverage(model, 0.5)
    expected = {key: value.clone() for key, value in model.state_dict().items()}
    for step in (1, 2, 40):
        for parameter in model.parameters():
            nn.init.normal_(parameter)
        model(torch.randn(4, 3))
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        for key, value in model.state_dict().items():
            moved = decay * expected[key] + (1 - decay) * value
            expected[key] = moved if value.is_floating_point() else value.clone()
    for key, value in expected.items():
        torch.testing.assert_close(average.state_dict()[key], value, msg=key)
    assert average.state_dict()["1.num_batches_tracked"] == 3
    assert not any(p.requires_grad for p in average.model.parameters())


def test_averaged_weights_are_validated_and_kept(tmp_path):
    seen = []

    def validate(model):
        assert not model.training
        seen.append({key: value.clone() for key, value in model.state_dict().items()})
        return Validation(float(len(seen)), {})

    trainer = make_trainer(tmp_path, train={"ema": 0.9}, validate=validate)
    trainer.fit()
    assert_same(seen[-1], trainer.average.state_dict())
    for stem in ("best", "final"):
        kept, _ = load_model(tmp_path / f"{stem}.safetensors")
        assert_same(seen[-1], kept.state_dict())
    trained = weights(trainer)
    assert any(not torch.equal(trained[key], value) for key, value in seen[-1].items())


EVERYTHING = {
    "optimizer": {"kind": "adamw", "lr": 2e-3, "clip_norm": 0.5},
    "schedule": {"kind": "cosine", "warmup": 0.3},
    "decay": {"mode": "decoupled"},
    "train": {"accumulate": 2, "ema": 0.9, "amp": "fp16", "batch_size": 8, "patience": 9},
}


@pytest.mark.parametrize("cache", ["disk", "device"])
def test_a_run_with_every_switch_resumes_bit_for_bit(tmp_path, monkeypatch, cache):
    monkeypatch.setattr(trainer_module, "SYNC_EVERY", 1)
    sections = EVERYTHING | {"data": {"cache": cache}}
    validate = lambda model: Validation(0.5, {})  # noqa: E731
    whole = make_trainer(tmp_path / "whole", pictures=24, validate=validate, **sections)
    whole.fit()

    class StopAt(Recorder):
        def step(self, record):
            if record.step == 4:
                os.kill(os.getpid(), signal.SIGTERM)

    options = {"pictures": 24, "validate": validate} | sections
    first = make_trainer(tmp_path / "parts", sinks=[StopAt()], **options)
    with pytest.raises(Stopped):
        first.fit()
    second = make_trainer(tmp_path / "parts", **options)
    torch.manual_seed(99)  # the state of the first process is gone
    assert second.resume()
    assert (second.step, second._validations_since_best) == (4, 0)
    second.fit()
    assert_same(weights(whole), weights(second))
    assert_same(whole.average.state_dict(), second.average.state_dict())
    assert whole._precision.state_dict() == second._precision.state_dict() != {}


def test_float16_trains_with_a_scaled_loss(tmp_path):
    reduced = losses(tmp_path / "fp16", train={"amp": "fp16"})
    full = losses(tmp_path / "off")
    assert reduced != full
    assert reduced == pytest.approx(full, abs=0.03)


@pytest.mark.parametrize("amp", ["off", "fp16"])
@pytest.mark.parametrize(("clip", "moved"), [(0.0, 50.0), (2.0, 2.0), (80.0, 50.0)])
def test_clipping_bounds_the_norm_of_the_true_gradient(amp, clip, moved):
    parameters = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    precision = Precision(torch.device("cpu"), amp)
    precision.backward(30 * parameters[0].sum() + 40 * parameters[1].sum())
    precision.step(optimizer, clip)
    assert torch.cat(list(parameters)).norm().item() == pytest.approx(moved, rel=1e-5)


def test_a_step_whose_scaled_gradients_overflow_is_left_out():
    parameter = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    precision = Precision(torch.device("cpu"), "fp16")
    before = precision.state_dict()["scale"]
    precision.backward(parameter.sum() * 1e36)
    precision.step(optimizer, 1.0)
    assert parameter.item() == 1.0
    assert precision.state_dict()["scale"] == before / 2


def test_patience_ends_a_run_that_stands_still(tmp_path):
    scores = [0.3, 0.5, 0.5, 0.4, 0.9]
    seen = []

    def validate(model):
        seen.append(scores[len(seen)])
        return Validation(seen[-1], {})

    train = {"epochs": 5, "patience": 2}
    trainer = make_trainer(tmp_path, train=train, validate=validate)
    trainer.fit()
    assert seen == scores[:4]
    assert trainer.out_of_patience
    assert (tmp_path / "final.safetensors").is_file()
    again = make_trainer(tmp_path, train=train, validate=validate)
    assert again.resume()
    again.fit()
    assert again.step == trainer.step
    assert seen == scores[:4]


def test_the_loss_gets_all_that_the_network_gives(tmp_path, monkeypatch):
    given = []

    def first_of_many(outputs, masks):
        given.append(outputs)
        return saliency_loss(outputs[0], masks)

    monkeypatch.setitem(LOSSES, "first", first_of_many)
    trainer = make_trainer(tmp_path, train={"loss": "first", "epochs": 1})
    forward = trainer.model.forward
    trainer.model.forward = lambda images: [forward(images), "side map"]
    trainer.fit()
    assert all(outputs[1] == "side map" for outputs in given)
    assert len(given) == trainer.total_steps


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_network_trains_alike(tmp_path, monkeypatch, backend):
    eager = losses(tmp_path / "eager")
    compiler = functools.partial(torch.compile, backend=backend)
    monkeypatch.setattr(trainer_module.torch, "compile", compiler)
    assert losses(tmp_path / "compiled", train={"compile": True}) == pytest.approx(eager, rel=1e-4)


def test_pictures_on_the_device_train_alike(tmp_path):
    assert losses(tmp_path / "device", data={"cache": "device"}) == pytest.approx(
        losses(tmp_path / "disk"), rel=1e-4
    )


def test_graphs_need_a_gpu(tmp_path):
    with pytest.raises(UserError, match=r"cuda_graphs = true: needs one process on a GPU, got 1"):
        make_trainer(tmp_path, train={"cuda_graphs": True})


@pytest.mark.parametrize(("size", "parts"), [(6, 4), (4, 4)])
def test_a_batch_that_cannot_be_dealt_out_is_refused(tmp_path, size, parts):
    with pytest.raises(UserError, match=f"train.batch_size = {size}: expected a multiple of 4"):
        make_trainer(tmp_path, train={"batch_size": size, "accumulate": parts})
