"""The cache on disk: nothing that happens to it reaches the caller, and no write is torn."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from lmwp_ops import _disk_cache

from . import fake_gpu
from .conftest import forget_this_process
from .fake_gpu import call, install

HERE = Path(__file__).parent
FIRST_USE = """
import sys, warnings
from lmwp_ops import _gpu
import fake_gpu
_gpu.describe = lambda device: fake_gpu.GPU
kernel = fake_gpu.{kind}()
fake_gpu.install(triton=kernel)
print("ready", flush=True)
sys.stdin.readline()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    value = fake_gpu.call()[0, 0, 0, 0].item()
print(round(value, 3), kernel.calls, len(caught))
"""
WRITE_FOREVER = """
from lmwp_ops import _disk_cache
print("ready", flush=True)
while True:
    for letter in "ab":
        _disk_cache.store("fact", {"of": "all"}, letter * 100_000)
"""


def start(code: str, **variables: str) -> subprocess.Popen[str]:
    """A process that has imported everything and waits for a line."""
    folders = [str(HERE), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders), **variables}
    command = [sys.executable, "-c", code]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate("go\n", timeout=60)
    assert process.returncode == 0
    return output.strip()


def test_two_processes_at_once_and_a_third_that_knows(cache: Path) -> None:
    together = [start(FIRST_USE.format(kind="wrong")) for _ in range(2)]
    for process in together:
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60)[0].strip() for process in together]
    assert all(output in ("2.0 1 1", "2.0 0 0") for output in outputs), outputs
    assert "2.0 1 1" in outputs
    (path,) = cache.rglob("*.*")
    assert "off by 0.25" in json.loads(path.read_text())["value"]
    assert finish(start(FIRST_USE.format(kind="wrong"))) == "2.0 0 0"


def test_the_variable_switches_the_check_off(cache: Path) -> None:
    assert finish(start(FIRST_USE.format(kind="wrong"), LMWP_OPS_VERIFY="0")) == "2.25 1 0"
    assert not cache.exists()
    assert finish(start(FIRST_USE.format(kind="wrong"), LMWP_OPS_VERIFY="1")) == "2.0 1 1"


def test_a_writer_killed_at_any_moment_leaves_a_whole_value() -> None:
    for milliseconds in (10, 30, 110):
        writer = start(WRITE_FOREVER)
        time.sleep(milliseconds / 1e3)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        value = _disk_cache.load("fact", {"of": "all"})
        assert value in (None, "a" * 100_000, "b" * 100_000)
    _disk_cache.store("fact", {"of": "all"}, "mended")
    assert _disk_cache.load("fact", {"of": "all"}) == "mended"


def test_a_writer_killed_before_the_rename_changed_nothing(cache: Path) -> None:
    key = {"of": "all"}
    _disk_cache.store("fact", key, "old")
    code = (
        "import os, time\n"
        "from lmwp_ops import _disk_cache\n"
        "os.replace = lambda *_: (print('ready', flush=True), time.sleep(60))\n"
        f"_disk_cache.store('fact', {key}, 'new')\n"
    )
    writer = start(code)
    writer.kill()
    writer.communicate()
    assert len(list(cache.rglob("*.partial"))) == 1
    assert _disk_cache.load("fact", key) == "old"
    assert list(_disk_cache.entries("fact", key)) == [(key, "old")]


@pytest.mark.parametrize(
    ("content", "warnings_expected"),
    [
        (b"", 1),
        (b'{"format": 1, "key"', 1),
        (b"[]", 1),
        (b"\xff\xfe", 1),
        (b'{"format": 1, "key": {}}', 1),
        (b'{"format": 1, "key": {}, "value": "right"}', 0),
        (b'{"format": 2}', 0),
    ],
    ids=["empty", "torn", "a list", "not text", "no value", "of another key", "of another version"],
)
def test_a_damaged_file_is_written_anew(
    monkeypatch: pytest.MonkeyPatch, cache: Path, content: bytes, warnings_expected: int
) -> None:
    kernel = fake_gpu.right()
    install(triton=kernel)
    call()
    (path,) = cache.rglob("*.json")
    path.write_bytes(content)
    assert list(_disk_cache.entries("verified", {"op": fake_gpu.OP})) == []
    forget_this_process(monkeypatch)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
        call()
    assert len(caught) == warnings_expected
    assert kernel.calls == 5
    assert json.loads(path.read_text())["value"] == "right"


def unwritable(folder: Path) -> None:
    if os.geteuid() == 0:  # to whom no folder is read-only
        folder.write_text("in the way of a folder")
    else:
        folder.mkdir()
        folder.chmod(0o500)


def test_an_unwritable_folder_costs_one_warning(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    unwritable(cache)
    kernel = fake_gpu.right()
    install(cuda=fake_gpu.wrong(), triton=kernel)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = [call() for _ in range(3)]
    about_cache = [w for w in caught if "cache of checked kernels" in str(w.message)]
    assert len(about_cache) == 1
    assert "LMWP_CACHE_DIR" in str(about_cache[0].message)
    assert len(caught) == 2
    assert kernel.calls == 4
    assert all(y[0, 0, 0, 0] == 2 for y in results)


def test_the_folder_is_that_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LMWP_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert _disk_cache.folder() == Path("/somewhere/lmwp/kernels")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert _disk_cache.folder() == Path("/home/somebody/.cache/lmwp/kernels")


def test_keys_that_look_alike_are_apart() -> None:
    for value in ("a b", "a-b", "a/b"):
        _disk_cache.store("fact", {"of": value}, value)
    for value in ("a b", "a-b", "a/b"):
        assert _disk_cache.load("fact", {"of": value}) == value
    assert _disk_cache.load("fact", {"of": "a_b"}) is None
