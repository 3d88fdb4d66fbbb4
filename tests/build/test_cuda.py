"""Search for a CUDA toolkit among fake roots, and the list of architectures."""

from pathlib import Path

import pytest

from build_tools.cuda import (
    candidate_roots,
    choose_archs,
    find_toolkit,
    gencode_flags,
    known_archs,
)
from build_tools.errors import UnavailableError

NVCC = """#!/bin/sh
case "$1" in
  --version) echo 'Cuda compilation tools, release {release}, V{release}.48' ;;
  --list-gpu-arch) printf 'compute_75\\ncompute_90\\ncompute_120\\n' ;;
esac
"""
PARTS = ("bin/nvcc", "include/cuda_runtime.h", "lib64/libcudart.so")


def fake_root(root: Path, *, release: str = "13.0", without: str = "") -> Path:
    for part in PARTS:
        if part != without:
            (root / part).parent.mkdir(parents=True, exist_ok=True)
            (root / part).write_text(NVCC.format(release=release))
            (root / part).chmod(0o755)
    return root


def test_a_complete_root_is_accepted(tmp_path: Path) -> None:
    toolkit = find_toolkit([("here", fake_root(tmp_path))], torch_cuda=None)
    assert (toolkit.root, toolkit.version) == (tmp_path, (13, 0))
    assert known_archs(toolkit) == {"7.5", "9.0", "12.0"}


def test_the_runtime_of_a_pip_toolkit_is_found(tmp_path: Path) -> None:
    root = fake_root(tmp_path, without="lib64/libcudart.so")
    (root / "lib").mkdir()
    (root / "lib" / "libcudart.so.13").touch()
    assert find_toolkit([("pip", root)], None).cudart == root / "lib" / "libcudart.so.13"


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ("bin/nvcc", "holds no bin/nvcc"),
        ("include/cuda_runtime.h", "holds no include/cuda_runtime.h"),
        ("lib64/libcudart.so", "holds no libcudart.so"),
    ],
)
def test_an_incomplete_root_is_refused(tmp_path: Path, missing: str, reason: str) -> None:
    with pytest.raises(UnavailableError, match=f"here .*{reason}"):
        find_toolkit([("here", fake_root(tmp_path, without=missing))], None)


def test_a_wrapper_on_path_is_refused_and_the_next_root_taken(tmp_path: Path) -> None:
    wrapper = tmp_path / "tools" / "bin" / "nvcc"
    wrapper.parent.mkdir(parents=True)
    wrapper.write_text(NVCC.format(release="13.0"))
    wrapper.chmod(0o755)
    candidates = candidate_roots({"PATH": str(wrapper.parent)})
    assert candidates[0] == ("nvcc on PATH", tmp_path / "tools")
    with pytest.raises(UnavailableError, match=r"nvcc on PATH .*holds no include/cuda_runtime\.h"):
        find_toolkit(candidates[:1], None)
    complete = fake_root(tmp_path / "complete")
    assert find_toolkit([*candidates[:1], ("default root", complete)], None).root == complete


def test_a_symlink_on_path_leads_to_its_toolkit(tmp_path: Path) -> None:
    root = fake_root(tmp_path / "toolkit")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvcc").symlink_to(root / "bin" / "nvcc")
    assert candidate_roots({"PATH": str(tmp_path / "bin")})[0] == ("nvcc on PATH", root)


def test_variables_come_before_path(tmp_path: Path) -> None:
    environ = {"PATH": "", "CUDA_PATH": "/b", "CUDA_HOME": "/a"}
    assert candidate_roots(environ)[:2] == [("$CUDA_HOME", Path("/a")), ("$CUDA_PATH", Path("/b"))]


def test_the_major_version_must_be_that_of_torch(tmp_path: Path) -> None:
    old, new = fake_root(tmp_path / "old", release="12.8"), fake_root(tmp_path / "new")
    assert find_toolkit([("old", old), ("new", new)], "13.2").root == new
    with pytest.raises(UnavailableError, match=r"nvcc is of CUDA 12\.8, torch of CUDA 13\.2"):
        find_toolkit([("old", old)], "13.2")
    assert find_toolkit([("old", old)], None).root == old


def test_an_nvcc_that_cannot_run_is_refused(tmp_path: Path) -> None:
    root = fake_root(tmp_path)
    (root / "bin" / "nvcc").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(UnavailableError, match="cannot be run"):
        find_toolkit([("here", root)], None)


ALL = {"7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0"}


@pytest.mark.parametrize(
    ("requested", "visible", "known", "expected"),
    [
        ("8.6;9.0+PTX", [(7, 5)], ALL, ("8.6", "9.0+PTX")),
        ("8.6 9.0a", [], ALL, ("8.6", "9.0a")),
        (None, [(9, 0), (8, 6), (9, 0)], ALL, ("8.6", "9.0")),
        ("", [(10, 0), (9, 0)], ALL, ("9.0", "10.0")),
        (None, [], ALL, ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0+PTX")),
        (None, [], {"5.0", "7.5", "9.0"}, ("7.5", "9.0+PTX")),
        (None, [(15, 0)], {"9.0"}, ("9.0+PTX",)),
    ],
)
def test_architectures(
    requested: str | None,
    visible: list[tuple[int, int]],
    known: set[str],
    expected: tuple[str, ...],
) -> None:
    assert choose_archs(requested, visible, known) == expected


@pytest.mark.parametrize(
    ("requested", "reason"), [("Hopper", "expected entries such as"), ("6.0", "does not know 6.0")]
)
def test_architectures_that_cannot_be(requested: str, reason: str) -> None:
    with pytest.raises(UnavailableError, match=reason):
        choose_archs(requested, [], ALL)


def test_gencode_flags() -> None:
    assert gencode_flags(["9.0a", "12.0+PTX"]) == [
        "-gencode=arch=compute_90a,code=sm_90a",
        "-gencode=arch=compute_120,code=sm_120",
        "-gencode=arch=compute_120,code=compute_120",
    ]
