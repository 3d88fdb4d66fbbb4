"""The trainer's switches on a GPU: graphs, compilation, precision and pictures kept there."""

import importlib.util
import shutil

import pytest
import torch

if importlib.util.find_spec("pydantic") is None:
    pytest.skip("pydantic is not installed: there are no recipes", allow_module_level=True)

from ..training.small import Recorder, make_trainer, weights

STEPS = {"epochs": 2, "batch_size": 8, "device": "cuda"}


@pytest.fixture
def losses(device, tmp_path):
    """Trains the small network, after which it gives the losses of the steps."""

    def train(name="run", data=None, **options):
        recorder = Recorder()
        trainer = make_trainer(
            tmp_path / name,
            pictures=48,
            sinks=[recorder],
            train=STEPS | options,
            data={"image_size": 64, "workers": 0} | (data or {}),
        )
        trainer.fit()
        return [record.loss for record in recorder.steps]

    return train


@pytest.mark.parametrize(
    "options",
    [{}, {"accumulate": 2}, {"amp": "fp16"}, {"amp": "bf16", "channels_last": True, "ema": 0.9}],
    ids=str,
)
def test_replayed_passes_train_as_called_ones(losses, options):
    called = losses("called", **options)
    replayed = losses("replayed", cuda_graphs=True, **options)
    assert replayed == pytest.approx(called, rel=1e-2 if "amp" in options else 1e-3)
    assert sum(replayed[-3:]) < sum(replayed[:3])


def test_a_replayed_run_resumes(device, tmp_path):
    options = STEPS | {"cuda_graphs": True, "checkpoint_every": 7}
    whole = make_trainer(tmp_path, pictures=48, train=options)
    whole.fit()
    checkpoints = sorted((tmp_path / "checkpoints").iterdir())
    assert len(checkpoints) == 2
    shutil.rmtree(checkpoints[-1])
    again = make_trainer(tmp_path, pictures=48, train=options)
    assert again.resume()
    assert again.step == 7
    again.fit()
    for key, value in weights(whole).items():
        torch.testing.assert_close(again.model.state_dict()[key], value, rtol=1e-3, atol=1e-3)


def test_a_compiled_network_trains_alike(losses):
    assert losses("compiled", compile=True) == pytest.approx(losses("eager"), rel=1e-3)


def test_pictures_on_the_device_train_alike(losses):
    kept = losses("device", data={"cache": "device"})
    assert kept == pytest.approx(losses("disk"), rel=1e-3)


def test_workers_and_pinned_memory_change_nothing(losses):
    loaded = losses("workers", data={"workers": 2})
    assert loaded == pytest.approx(losses("disk"), rel=1e-3)
