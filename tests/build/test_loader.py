"""Each library is loaded on its own and says why it is not; nothing raises at import."""

import json
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
import torch

from lmwp_ops import _loader

INFO = {"torch": "2.99.0", "cuda": "99.1", "mode": "cuda", "notices": []}


def folder_with(tmp_path: Path, info: dict[str, object] | None, *libraries: str) -> Path:
    if info is not None:
        (tmp_path / "_build_info.json").write_text(json.dumps(info))
    for name in libraries:
        (tmp_path / name).write_bytes(b"\x7fELF of nothing")
    return tmp_path


def test_this_installation_has_what_its_build_promised() -> None:
    info = _loader.read_build_info()
    if info is None:
        pytest.skip("no library was compiled here")
    assert not [notice for notice in info["notices"] if "failed" in notice]
    status = _loader.status()
    assert status["_C"] is None
    assert status["_host"] is None
    assert (status["_C_cuda"] is None) == (
        info["mode"] == "cuda" and torch.version.cuda is not None
    )


def test_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMWP_OPS_DISABLE_EXT", "1")
    assert _loader.load("_C", folder_with(tmp_path, INFO, "_C.so")) == (
        "switched off by LMWP_OPS_DISABLE_EXT=1"
    )


def test_plain_python(tmp_path: Path) -> None:
    assert _loader.load("_C", tmp_path) == "not compiled: this installation is plain Python"


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        (INFO | {"mode": "cpu"}, "not compiled: built for cpu alone"),
        (
            INFO | {"notices": ["no CUDA library: no nvcc"]},
            "not compiled: no CUDA library: no nvcc",
        ),
    ],
)
def test_left_out_by_the_build(tmp_path: Path, info: dict[str, object], reason: str) -> None:
    assert _loader.load("_C_cuda", folder_with(tmp_path, info)) == reason


def test_a_corrupt_library_says_what_it_was_built_for(tmp_path: Path) -> None:
    reason = _loader.load("_C", folder_with(tmp_path, INFO, "_C.so"))
    assert reason is not None
    assert reason.startswith("built with torch 2.99.0 for CUDA 99.1, found torch ")
    assert torch.__version__ in reason
    assert "_C.so" in reason
    assert "\n" not in reason


def test_a_corrupt_host_module(tmp_path: Path) -> None:
    reason = _loader.load("_host", folder_with(tmp_path, INFO, f"_host{EXTENSION_SUFFIXES[0]}"))
    assert reason is not None
    assert reason.startswith("built with torch 2.99.0")


@pytest.mark.parametrize(
    ("found", "ending"), [(None, "without CUDA"), ("12.8", "for CUDA 12.8"), ("98.0", "CUDA 98.0")]
)
def test_cuda_is_not_tried_where_torch_has_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: str | None, ending: str
) -> None:
    def forbidden(path: str) -> None:
        pytest.fail("the library was loaded")

    monkeypatch.setattr(torch.version, "cuda", found)
    monkeypatch.setattr(torch.ops, "load_library", forbidden)
    reason = _loader.load("_C_cuda", folder_with(tmp_path, INFO, "_C_cuda.so"))
    assert reason == f"built with torch 2.99.0 for CUDA 99.1, found torch {torch.__version__} " + (
        "without CUDA" if found is None else f"for CUDA {found}"
    )
    assert reason.endswith(ending)


def test_cuda_is_loaded_where_torch_has_the_same_major(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Path] = []
    monkeypatch.setattr(torch.version, "cuda", "99.7")
    monkeypatch.setattr(torch.ops, "load_library", loaded.append)
    folder = folder_with(tmp_path, INFO, "_C_cuda.so")
    assert _loader.load("_C_cuda", folder) is None
    assert loaded == [folder / "_C_cuda.so"]


def test_a_library_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_loader._status, "_C", "not compiled: why")
    with pytest.raises(
        _loader.LibraryError, match=r"lmwp_ops\._C is not loaded: not compiled: why"
    ):
        _loader.require("_C")
    monkeypatch.setitem(_loader._status, "_C", None)
    _loader.require("_C")
