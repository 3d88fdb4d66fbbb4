"""The demo from pictures to report, on the synthetic set and on files."""

import json
import re
import signal

import numpy as np
import pytest

from lmwp_models.cli import main
from lmwp_models.cli.demo import centre_prior
from lmwp_models.data import write_synthetic
from lmwp_models.training.interruption import Stopped
from lmwp_models.training.trainer import Trainer

QUICK = ["data.image_size=32", "data.holdout=6", "train.epochs=1", "train.batch_size=4"]


@pytest.mark.parametrize("on_files", [False, True])
def test_the_demo_leaves_a_report_with_pictures(tmp_path, capsys, on_files, monkeypatch):
    monkeypatch.setenv("LMWP_CACHE_DIR", str(tmp_path / "cache"))
    data = "synthetic:18"
    if on_files:
        data = str(tmp_path / "pictures")
        write_synthetic(data, 18, 64, seed=1)
    out = tmp_path / "run"
    assert main(["demo", *QUICK, "--data", data, "--out", str(out), "--threads", "1"]) == 0
    assert f"report: {out / 'report.html'}" in capsys.readouterr().out
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3 * 8  # image, truth, map; 4 best and 4 worst
    assert "<svg" in page
    assert "centre prior" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)  # self-contained
    events = [json.loads(line)["event"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert events == ["step"] * 3 + ["validation"]
    assert (out / "panels" / "epoch-0001.png").is_file()


@pytest.mark.parametrize("command", [["demo"], ["train", "csnet-quick.toml"]])
def test_a_stopped_run_says_how_to_continue(tmp_path, capsys, monkeypatch, command):
    def stop_at_once(trainer):
        raise Stopped(signal.SIGTERM, trainer.save())

    monkeypatch.setattr(Trainer, "fit", stop_at_once)
    argv = [*command, "data.train=synthetic:18", *QUICK, "--out", str(tmp_path / "run")]
    assert main([*argv, "--threads", "1"]) == 128 + signal.SIGTERM
    err = capsys.readouterr().err
    assert f"continue with: lmwp train --resume {tmp_path / 'run'}" in err
    assert not (tmp_path / "run" / "report.html").exists()


def test_a_broken_picture_stops_the_run_or_is_skipped(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LMWP_CACHE_DIR", str(tmp_path / "cache"))
    data = write_synthetic(tmp_path / "pictures", 12, 64, seed=1)
    broken = sorted((data / "images").iterdir())[3]
    broken.write_bytes(broken.read_bytes()[:300])
    argv = ["train", "csnet-quick.toml", f"data.train={data}", *QUICK, "--threads", "1"]
    assert main([*argv, "--out", str(tmp_path / "stopped")]) == 2
    error = capsys.readouterr().err
    assert broken.name in error
    assert "--skip-bad" in error
    assert main([*argv, "--out", str(tmp_path / "skipped"), "--skip-bad"]) == 0
    assert f"skipped: cannot read {broken}" in capsys.readouterr().err


def test_the_centre_prior_peaks_in_the_middle():
    saliency = centre_prior(np.zeros((41, 61, 3), np.uint8))
    assert saliency.shape == (41, 61)
    assert saliency.dtype == np.uint8
    assert saliency[20, 30] == saliency.max() == 255
    assert saliency[0, 0] < 10
    assert (saliency == saliency[::-1, ::-1]).all()
