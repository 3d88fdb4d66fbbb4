"""`lmwp train`: what a disk refuses is one line and exit status 2."""

import json

import pytest

from lmwp_models.cli import main
from lmwp_models.cli.session import Session
from lmwp_models.data import write_synthetic
from lmwp_models.training.checkpoint import list_checkpoints
from lmwp_models.training.trainer import Validation

SCORES = {"max_f_dataset": 0.5, "mae": 0.1}

QUICK = [
    "csnet-quick.toml",
    "data.train=synthetic:18",
    "data.image_size=32",
    "data.holdout=6",
    "train.epochs=1",
    "train.batch_size=4",
]


def train(capsys, out, *overrides):
    status = main(["train", *QUICK, *overrides, "--out", str(out), "--threads", "1"])
    return status, capsys.readouterr()


def test_a_run_is_never_started_over_another(tmp_path, capsys):
    assert train(capsys, tmp_path, "train.batch_size=40")[0] == 2  # more than there are
    assert train(capsys, tmp_path)[0] == 0
    recipe = (tmp_path / "recipe.json").read_text()
    status, captured = train(capsys, tmp_path, "train.seed=3")
    assert status == 2
    assert "already holds a run" in captured.err
    assert (tmp_path / "recipe.json").read_text() == recipe


def test_a_run_folder_that_cannot_be_made_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    status, captured = train(capsys, tmp_path / "file" / "run")
    assert status == 2
    assert captured.err == f"lmwp train: cannot write {tmp_path}/file/run: Not a directory\n"


@pytest.mark.parametrize("name", ["log.jsonl", "best.safetensors", "final.safetensors"])
def test_a_file_that_cannot_be_written_stops_the_run_in_one_line(tmp_path, capsys, name):
    if name == "log.jsonl":  # a device without space, whatever is written
        (tmp_path / name).symlink_to("/dev/full")
        reason = "No space left on device"
    else:
        (tmp_path / name).mkdir()
        reason = "Is a directory"
    status, captured = train(capsys, tmp_path)
    assert status == 2
    assert f"lmwp train: cannot write {tmp_path / name}: {reason}\n" in captured.err
    assert len(list_checkpoints(tmp_path)) == (name == "final.safetensors")


def test_pictures_in_memory_train_alike(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LMWP_CACHE_DIR", str(tmp_path / "cache"))
    pictures = write_synthetic(tmp_path / "pictures", 18, (48, 64), seed=1)
    logs = []
    for place in ("disk", "ram"):
        out = tmp_path / place
        assert train(capsys, out, f"data.train={pictures}", f"data.cache={place}")[0] == 0
        lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        logs.append([line["loss"] for line in lines if line["event"] == "step"])
    assert logs[0] == logs[1]


def test_a_run_without_progress_says_that_it_ended_early(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Session, "validate", lambda session, model: Validation(0.5, SCORES))
    status, captured = train(capsys, tmp_path, "train.epochs=5", "train.patience=1")
    assert status == 0
    assert "stopped at step 6: no better score for 1 validations" in captured.out
