"""What the build command leaves in the package, and how many compilers it starts."""

import json
from pathlib import Path

import pytest

from build_tools import commands
from build_tools.errors import BuildError
from build_tools.libraries import HOST_LIBRARY, library_names
from build_tools.mode import HostTools, Plan

HOST = HostTools("/usr/bin/g++", "g++ 12", "2.13.0", None, Path("/torch"))


def test_libraries_of_another_mode_are_removed(tmp_path: Path) -> None:
    build, package = tmp_path / "build", tmp_path / "package"
    for folder in (build, package):
        folder.mkdir()
        for name in library_names("cuda"):
            (folder / name).write_text(folder.name)
    commands._install(Plan("cpu", ("no nvcc",), HOST), build, package)
    assert {p.name for p in package.iterdir()} == {"_C.so", HOST_LIBRARY, "_build_info.json"}
    assert (package / "_C.so").read_text() == "build"
    info = json.loads((package / "_build_info.json").read_text())
    assert (info["mode"], info["torch"], info["cuda"]) == ("cpu", "2.13.0", None)
    assert info["notices"] == ["no nvcc"]
    commands._install(Plan("none"), build, package)
    assert list(package.iterdir()) == []


def test_the_number_of_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_JOBS", "3")
    assert commands.job_count() == 3
    monkeypatch.setenv("MAX_JOBS", "many")
    with pytest.raises(BuildError, match="MAX_JOBS: expected a number"):
        commands.job_count()
    monkeypatch.delenv("MAX_JOBS")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))
    sizes = {"SC_PHYS_PAGES": 9 << 18, "SC_PAGE_SIZE": 4096}  # 9 GB
    monkeypatch.setattr("os.sysconf", sizes.__getitem__)
    assert commands.job_count() == 2
