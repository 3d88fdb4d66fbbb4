"""The loop: it learns, stops, resumes bit for bit, and never saves a diverged network."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import safetensors.torch
import torch

from lmwp_models.data import SaliencyDataset, SyntheticSource
from lmwp_models.errors import UserError
from lmwp_models.registry import create_model
from lmwp_models.training import loss as loss_module
from lmwp_models.training import trainer as trainer_module
from lmwp_models.training.checkpoint import list_checkpoints
from lmwp_models.training.recipe import recipe_from_dict
from lmwp_models.training.trainer import Stopped, Trainer, Validation

# Small enough to train in a test: CSNet of one narrow block a stage.
SMALL = {
    "stages": [1, 1, 1, 1],
    "blocks": [[4, 4], [4, 4], [8], [8], [8]],
    "head": {"fuse": [4, 4, 4], "ms": [[1, 1, 1, 1, 1]] * 3, "fuse1x1": 8},
}
RECIPE = {
    "data": {"image_size": 32},
    "optimizer": {"lr": 2e-3, "weight_decay": 0.0},
    "schedule": {"kind": "one_cycle"},
    "decay": {"weight": 0.1},
    "train": {"epochs": 2, "batch_size": 4, "seed": 3, "device": "cpu", "checkpoint_every": 1000},
}


class Recorder:
    """Keeps what a sink receives."""

    def __init__(self):
        self.steps, self.validations = [], []

    def step(self, record):
        self.steps.append(record)

    def validation(self, step, epochs, metrics, panels):
        self.validations.append((step, epochs, metrics))

    def close(self):
        pass


def make_trainer(folder, *, pictures=12, sinks=(), validate=None, **sections):
    tree = {key: {**RECIPE.get(key, {}), **sections.get(key, {})} for key in {*RECIPE, *sections}}
    recipe = recipe_from_dict(tree)
    torch.manual_seed(recipe.train.seed)
    dataset = SaliencyDataset(SyntheticSource(pictures, 48, 0), recipe.data.image_size, seed=3)
    model = create_model("csnet-x1", **SMALL)
    return Trainer(recipe, model, dataset, folder, sinks=sinks, validate=validate)


def weights(trainer):
    return {key: value.clone() for key, value in trainer.model.state_dict().items()}


def assert_same(first, second):
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


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
    second = make_trainer(tmp_path / "parts", decay={"mode": mode})
    torch.manual_seed(99)  # the state of the first process is gone
    assert second.resume()
    second.fit()
    assert_same(weights(whole), weights(second))


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


START = [
    "csnet-quick.toml",
    "data.train=synthetic:64",
    "data.holdout=4",
    "data.image_size=32",
    *(f"model.options.{key}={SMALL[key]}" for key in ("stages", "blocks")),
    *(f"model.options.head.{key}={value}" for key, value in SMALL["head"].items()),
    "train.epochs=3",
    "train.batch_size=4",
    "train.checkpoint_every=7",
    "train.validate_every=3",
]


def command(*words):
    return [sys.executable, "-m", "lmwp_models.cli", "train", *words, "--threads", "1"]


def wait_for_step(log, step, process):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if log.exists() and f'"step": {step},' in log.read_text():
            return
        time.sleep(0.02)
    pytest.fail(f"step {step} was not reached: {process.communicate()}")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Final weights of a run that nobody stops."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    subprocess.run(command(*START, "--out", str(folder)), check=True, capture_output=True)
    return safetensors.torch.load_file(folder / "final.safetensors")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_process_resumes_to_the_same_weights(tmp_path, undisturbed, signum):
    with subprocess.Popen(
        command(*START, "--out", str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_for_step(tmp_path / "log.jsonl", 20, process)
        process.send_signal(signum)
        _, err = process.communicate(timeout=60)
    if signum == signal.SIGTERM:
        assert process.returncode == 128 + signal.SIGTERM
        assert f"continue with: lmwp train --resume {tmp_path}" in err
    assert list_checkpoints(tmp_path)
    assert not (tmp_path / "final.safetensors").exists()
    resumed = subprocess.run(command("--resume", str(tmp_path)), capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed at step" in resumed.stdout
    assert_same(undisturbed, safetensors.torch.load_file(tmp_path / "final.safetensors"))


def test_a_run_is_never_started_over_another(tmp_path):
    (tmp_path / "recipe.json").write_text("{}")
    again = subprocess.run(command(*START, "--out", str(tmp_path)), capture_output=True, text=True)
    assert again.returncode == 2
    assert "already holds a run" in again.stderr
    assert (tmp_path / "recipe.json").read_text() == "{}"
