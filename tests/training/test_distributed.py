"""Two processes over gloo: the result of one, and no waiting for a process that is lost."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from lmwp_models.errors import UserError
from lmwp_models.training.checkpoint import list_checkpoints
from lmwp_models.training.sync_batch_norm import synchronise_batch_norms
from lmwp_models.weights import load_model
from lmwp_ops.nn import BatchNormPReLU2d

from .joint_run import RUNS, features, normalised
from .runs import START, command, wait_for_step
from .small import Recorder, make_trainer, weights

ROOT = Path(__file__).parent.parent.parent
assert_close = partial(torch.testing.assert_close, rtol=1e-6, atol=1e-6)


def start_two(mode, folder):
    """Both processes of joint_run.py, as a launcher starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.joint_run", mode, str(folder)],
            cwd=ROOT,
            env={**os.environ, **common, "RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    """What two processes found, and the folder they wrote."""
    folder = tmp_path_factory.mktemp("joint")
    for process in start_two("compare", folder):
        _, err = process.communicate(timeout=180)
        assert process.returncode == 0, err
    return [torch.load(folder / f"results-{r}.pt", weights_only=False) for r in range(2)], folder


@pytest.mark.parametrize("momentum", [0.1, None])
def test_synchronised_norms_are_those_of_the_joint_batch(joint, momentum):
    network = nn.Sequential(nn.BatchNorm2d(3, momentum=momentum)).double()
    expected = normalised(network, *features())
    first, second = (results[f"norm {momentum}"] for results in joint[0])
    assert first.keys() == expected.keys()
    for key, value in expected.items():
        if key in ("y", "dx"):
            found = torch.cat([first[key], second[key]])
        elif key.startswith("d"):
            found = first[key] + second[key]
        else:
            assert torch.equal(first[key], second[key])
            found = first[key]
        torch.testing.assert_close(found, value, rtol=1e-12, atol=1e-12, msg=key)


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_train_what_one_does(joint, tmp_path, name):
    recorder = Recorder()
    alone = make_trainer(tmp_path, pictures=18, sinks=[recorder], **RUNS[name])
    alone.fit()
    (first, second), folder = joint
    for key, value in weights(alone).items():
        assert torch.equal(first[name]["weights"][key], second[name]["weights"][key]), key
        assert_close(first[name]["weights"][key], value, msg=key)
    for key, value in first[name]["average"].items():
        assert_close(value, alone.average.state_dict()[key], msg=key)
    for ours, theirs in zip(recorder.steps, first[name]["log"], strict=True):
        assert theirs.loss == pytest.approx(ours.loss, abs=1e-6)
        assert theirs.penalty == pytest.approx(ours.penalty, rel=1e-5)
    assert (folder / f"{name}-0" / "final.safetensors").is_file()
    assert not (folder / f"{name}-1").exists()  # the main process alone writes


def test_a_loss_that_is_not_finite_elsewhere_names_the_batch_of_that_process(joint):
    (kind, message, _), (other_kind, other_message, names) = (r["mistake"] for r in joint[0])
    assert (kind, other_kind) == ("UserError", "PeerError")
    assert message == other_message
    assert f"at step 1, epoch 0, batch: {', '.join(names)};" in message


def test_a_loss_that_leaves_parameters_out_is_refused(joint):
    for results in joint[0]:
        assert "train.loss = 'bce': gives extra no gradient" in results["unused"]


@pytest.mark.parametrize("mode", ["killed", "still"])
def test_a_lost_process_ends_the_others_with_one_line(tmp_path, mode):
    first, second = start_two(mode, tmp_path)
    try:
        _, err = first.communicate(timeout=180)
    finally:
        second.kill()
        second.communicate()
    assert first.returncode == 1
    mistake = r"mistake: process 0 of 2: another process of this run is gone or silent \(.*\)"
    assert re.search(mistake, err)
    assert "Traceback" not in err
    assert list_checkpoints(tmp_path)
    alone = make_trainer(tmp_path)
    assert alone.resume()


def test_norms_that_cannot_be_synchronised_are_refused():
    network = nn.Sequential(nn.Sequential(BatchNormPReLU2d(4)))
    with pytest.raises(UserError, match=r"0\.0: a BatchNormPReLU2d has no statistics over several"):
        synchronise_batch_norms(network)


def test_torchrun_stops_two_processes_and_one_goes_on(tmp_path):
    """One run folder, one voice, SIGTERM for both; what is left of the run is any number's."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    with subprocess.Popen(
        [*launch, "-m", "lmwp_models.cli", "train", *START, "--out", str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_for_step(tmp_path / "log.jsonl", 10, process)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=180)
    assert err.count("stopped by SIGTERM; state saved in") == 1
    assert list_checkpoints(tmp_path)
    resumed = subprocess.run(command("--resume", str(tmp_path)), capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed at step" in resumed.stdout
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").open()]
    assert sorted({*steps}) == list(range(1, 46))
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2  # one file a launch
    load_model(tmp_path / "final.safetensors")
