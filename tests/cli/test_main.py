"""The command line: mistakes are one line and exit status 2, help needs no heavy import."""

import json
import subprocess
import sys

import pytest

from lmwp_models.cli import main
from lmwp_models.cli.main import COMMANDS


def run(capsys, *argv):
    try:
        status = main(argv)
    except SystemExit as exit_:
        status = exit_.code
    out, err = capsys.readouterr()
    return status, out, err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(capsys, command):
    status, out, _ = run(capsys, command, "--help")
    assert status == 0
    assert f"lmwp {command}" in out


def test_help_does_not_import_torch():
    code = (
        "import sys; from lmwp_models.cli.main import build_parser; build_parser().format_help();"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["models", "csnet-x9"], "csnet-x9"),
        (["train"], "give either a RECIPE or --resume RUN"),
        (["train", "absent.toml"], "absent.toml: no such file"),
        (["train", "csnet.toml", "train.epoch=3"], "unknown key train.epoch"),
        (["train", "csnet.toml", "data.train=/no/such/folder", "--out", "{tmp}/run"], "/no/such"),
        (["train", "--resume", "{tmp}"], "no run folder"),
        (["train", "csnet.toml", "--threads", "0"], "expected a whole number from 1, got '0'"),
        (["eval", "--data", "synthetic:3"], "give either --weights FILE or --maps FOLDER"),
        (["eval", "--data", "/no/such", "--weights", "x.safetensors"], "/no/such"),
        (["eval", "--data", "synthetic:3", "--weights", "{tmp}/x.safetensors"], "x.safetensors"),
        (["predict", "{tmp}", "--weights", "{tmp}/x.safetensors", "--out", "o"], "x.safetensors"),
        (["import-csnet", "{tmp}/a", "{tmp}/b", "--out", "{tmp}/c.safetensors"], "{tmp}/"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(capsys, tmp_path, argv, message):
    argv = [word.replace("{tmp}", str(tmp_path)) for word in argv]
    status, out, err = run(capsys, *argv)
    assert status == 2
    assert out == ""
    assert message.replace("{tmp}", str(tmp_path)) in err
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("lmwp")]
    assert len(lines) == 1


def test_models_as_json(capsys):
    status, out, _ = run(capsys, "models", "csnet-x1", "csnet-l-x2", "--json")
    assert status == 0
    first, second = json.loads(out)
    assert (first["name"], first["params"]) == ("csnet-x1", 210_985)
    assert (second["params"], round(second["paper_flops"] / 1e9, 4)) == (140_894, 0.7184)
    assert first["parts"]["stage0"] == {"params": 1080, "macs": 28_224_000} | {
        "paper_flops": first["parts"]["stage0"]["paper_flops"]
    }


def test_models_as_a_table(capsys):
    status, out, _ = run(capsys, "models", "csnet-single")
    assert status == 0
    assert "210,985" in out
    assert "0.9071" in out


def test_info_as_json(capsys):
    status, out, _ = run(capsys, "info", "--json")
    assert status == 0
    assert "depthwise_scales" in json.loads(out)["ops"]


def test_warmup_without_a_gpu_says_so(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    status, out, _ = run(capsys, "warmup")
    assert status == 0
    assert out.startswith("nothing to warm up: torch")
    status, out, _ = run(capsys, "warmup", "goctconv2d", "--json")
    assert json.loads(out)["rows"] == []
    status, _, err = run(capsys, "warmup", "nothing")
    assert status == 2
    assert "ops: expected some of bn_prelu_gap" in err
