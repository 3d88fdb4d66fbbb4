"""`lmwp bench`: one line for every mistake, and results that outlive an interruption."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lmwp_bench.results import load
from lmwp_models.cli import main

QUICK = ["--op", "depthwise_scales", "--shape", "odd 7x7x7", "--seconds", "0.02"]
CHEAP = ["--peers", "copy,lmwp-cpp", "--direction", "forward"]


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["ops", "--op", "conv"], "--op conv: no such thing here; there are depthwise_scales"),
        (["ops", "--shape", "huge"], "--shape huge: no such thing here; there are csnet-x1"),
        (["ops", "--peers", "tvm"], "--peers tvm: no such thing here; there are copy, eager"),
        (["ops", "--device", "tpu"], "device 'tpu' cannot be used here"),
        (["ops", "--dtype", "int8"], "--dtype int8: no such thing here; there are float32"),
        (["ops", "--batch", "0"], "--batch 0: expected whole numbers from 1"),
        (["models", "--models", "unet"], "no network is called 'unet'; known are csnet-x1"),
        (["models", "--size", "big"], "--size big: expected N, HxW"),
        (["models", "--size", "native"], "--size native: expected N or HxW"),
        (["models", "--peers", "tensorrt", "--device", "cpu"], "--peers tensorrt: no such thing"),
        (["training", "--models", "csnet-x1", "--peers", "openvino"], "--peers openvino"),
        (["report", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_a_mistake_is_one_line(
    argv: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *argv]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lmwp bench: ")
    assert error.count("\n") == 1
    assert complaint in error


def test_options_that_do_not_parse(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["ops", "--seconds", "-1"], ["training"], ["nothing"]):
        with pytest.raises(SystemExit) as stop:
            main(["bench", *argv])
        assert stop.value.code == 2


def test_a_run_prints_its_table_and_keeps_its_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ops.json"
    argv = ["bench", "ops", *QUICK, *CHEAP, "--device", "cpu", "--json", str(path)]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "depthwise_scales · odd 7x7x7" in out
    results = load(path)
    assert results.complete
    assert {row.variant for row in results.rows} == {"copy", "eager", "lmwp-cpp"}
    assert results.machine["copy_bandwidth"] > 1e8
    assert results.environment["flush_denormal"] is True
    assert str(tmp_path) not in path.read_text()

    assert main(argv) == 2
    assert "exists already" in capsys.readouterr().err
    assert load(path) == results


def test_results_that_cannot_be_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "ops.json"
    assert main(["bench", "ops", *QUICK, *CHEAP, "--json", str(path)]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_what_was_measured(tmp_path: Path, number: int) -> None:
    path = tmp_path / "ops.json"
    argv = ["bench", "ops", "--peers", "copy", "--seconds", "0.2", "--json", str(path)]
    command = [sys.executable, "-m", "lmwp_models.cli", *argv]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not path.exists() or path.stat().st_size == 0 or len(load(path).rows) < 4:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, number)
    _, error = process.communicate()
    results = load(path)
    assert len(results.rows) >= 4
    assert not results.complete
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert error.decode().strip().endswith("interrupted")
    else:
        assert process.returncode == -signal.SIGKILL


def test_the_command_is_found_through_its_entry_point(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "bench" in capsys.readouterr().out


def test_json_is_plain(tmp_path: Path) -> None:
    path = tmp_path / "ops.json"
    assert main(["bench", "ops", *QUICK, *CHEAP, "--json", str(path)]) == 0
    data = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert data["schema"] == "lmwp-bench/1"
