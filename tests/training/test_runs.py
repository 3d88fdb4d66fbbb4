"""Whole runs as processes: killed, resumed, out of disk space."""

import resource
import signal
import subprocess

import pytest
import safetensors.torch

from lmwp_models.training.checkpoint import list_checkpoints

from .runs import START, command, wait_for_step
from .small import assert_same


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
        _, err = process.communicate(timeout=180)
    if signum == signal.SIGTERM:
        assert process.returncode == 128 + signal.SIGTERM
        assert f"continue with: lmwp train --resume {tmp_path}" in err
    assert list_checkpoints(tmp_path)
    assert not (tmp_path / "final.safetensors").exists()
    resumed = subprocess.run(command("--resume", str(tmp_path)), capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed at step" in resumed.stdout
    assert_same(undisturbed, safetensors.torch.load_file(tmp_path / "final.safetensors"))


def test_a_disk_that_fills_up_costs_no_older_checkpoint(tmp_path, undisturbed):
    """The limit on a file's size makes the kernel refuse the rest of it, as a full disk does."""
    with subprocess.Popen(
        command(*START, "--out", str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_for_step(tmp_path / "log.jsonl", 10, process)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (30_000, 30_000))
        _, err = process.communicate(timeout=180)
    assert process.returncode == 2
    assert "cannot write checkpoint" in err
    assert "Traceback" not in err
    folder = tmp_path / "checkpoints"
    assert list(folder.iterdir()) == list_checkpoints(tmp_path) != []
    resumed = subprocess.run(command("--resume", str(tmp_path)), capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert_same(undisturbed, safetensors.torch.load_file(tmp_path / "final.safetensors"))
