"""The decoded cache: exact, keyed by content, and safe from dying, racing and full disks."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lmwp_models.data import CachedSource, FolderSource, default_cache_dir, find_pairs
from lmwp_models.data import cache as cache_module
from lmwp_models.data.cache import open_cached
from lmwp_models.errors import UserError

FolderOf = Callable[[int], Path]

BUILDER = """
import resource, sys, time
from pathlib import Path
from lmwp_models.data import find_pairs
from lmwp_models.data.cache import open_cached
from lmwp_models.data.sources import digest
from lmwp_models.errors import UserError

root, cache, wait, limit = sys.argv[1:]
if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
passes = 0

def progress(done, total):
    global passes
    passes += done == 1
    if wait != "-" and passes == 2 and done == 3:
        print("building", flush=True)
        while not Path(wait).exists():
            time.sleep(0.01)

try:
    source = open_cached(find_pairs(root), cache_dir=cache, on_progress=progress)
    samples = [source[i] for i in range(len(source))]
    print(passes, digest(b"".join(s.image.tobytes() + s.mask.tobytes() for s in samples)))
except UserError as error:
    print("error:", error)
"""


def builder(root: Path, cache: Path, wait: Path | str = "-", limit: int = 0) -> subprocess.Popen:
    """A process that opens the cache; with `wait` it pauses half-way until that file exists."""
    arguments = [sys.executable, "-c", BUILDER, str(root), str(cache), str(wait), str(limit)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def assert_same(cached: CachedSource, plain: FolderSource) -> None:
    assert len(cached) == len(plain)
    for i in range(len(plain)):
        got, want = cached[i], plain[i]
        assert got.name == want.name
        assert np.array_equal(got.image, want.image)
        assert np.array_equal(got.mask, want.mask)


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def fail(*arguments: object) -> None:
        raise AssertionError("decoded")

    def forbid() -> None:
        monkeypatch.setattr(cache_module, "decode_image", fail)

    return forbid


def test_equals_decoding_and_never_decodes_again(
    folder_of: FolderOf, tmp_path, no_decoding
) -> None:
    pairs = find_pairs(folder_of(7))
    built = open_cached(pairs, cache_dir=tmp_path / "c")
    assert_same(built, FolderSource(pairs))
    assert built.contents == FolderSource(pairs).contents
    no_decoding()
    again = open_cached(pairs, cache_dir=tmp_path / "c")
    assert again.path == built.path
    assert again.names == [f"{i:02}" for i in range(7)]
    assert_same(again, FolderSource(pairs))
    assert len(files(tmp_path / "c")) == 1


def test_arrays_are_read_only(small_set: Path, tmp_path) -> None:
    sample = open_cached(find_pairs(small_set), cache_dir=tmp_path)[0]
    with pytest.raises(ValueError, match="read-only"):
        sample.image[0, 0, 0] = 1


def test_progress_counts_both_passes(folder_of: FolderOf, tmp_path) -> None:
    pairs = find_pairs(folder_of(5))
    seen: list[tuple[int, int]] = []
    open_cached(pairs, cache_dir=tmp_path / "c", on_progress=lambda *a: seen.append(a))
    assert seen == 2 * [(i, 5) for i in range(1, 6)]
    seen.clear()
    open_cached(pairs, cache_dir=tmp_path / "c", on_progress=lambda *a: seen.append(a))
    assert seen == [(i, 5) for i in range(1, 6)]


def test_the_key_is_the_content(folder_of: FolderOf, tmp_path) -> None:
    root = folder_of(4)

    def path_of(folder: Path, **options: int) -> Path:
        return open_cached(find_pairs(folder), cache_dir=tmp_path / "c", **options).path

    first = path_of(root)
    moved = tmp_path / "moved"
    shutil.copytree(root, moved)
    for path in files(moved):
        path.touch()
    assert path_of(moved) == first
    assert path_of(root, max_side=16) != first

    mask = moved / "masks" / "02.png"
    stamp = mask.stat()
    levels = np.asarray(Image.open(mask)).copy()
    levels[0, 0] ^= 1
    Image.fromarray(levels).save(mask)
    os.utime(mask, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    changed = open_cached(find_pairs(moved), cache_dir=tmp_path / "c")
    assert changed.path != first
    assert np.array_equal(changed[2].mask, levels)


def test_a_renamed_file_is_another_set(folder_of: FolderOf, tmp_path) -> None:
    root = folder_of(3)
    first = open_cached(find_pairs(root), cache_dir=tmp_path / "c")
    for kind in ("images", "masks"):
        (root / kind / "02.png").rename(root / kind / "zz.png")
    second = open_cached(find_pairs(root), cache_dir=tmp_path / "c")
    assert second.names == ["00", "01", "zz"]
    assert first.names == ["00", "01", "02"]


def test_max_side(folder_of: FolderOf, tmp_path) -> None:
    source = open_cached(find_pairs(folder_of(2)), cache_dir=tmp_path / "c", max_side=16)
    assert source[0].image.shape == (10, 16, 3)
    assert source[0].mask.shape == (10, 16)


@pytest.mark.parametrize("cut", [0, 10, 64, 5000, -1])
def test_a_truncated_file_is_rebuilt(folder_of: FolderOf, tmp_path, cut: int) -> None:
    pairs = find_pairs(folder_of(5))
    path = open_cached(pairs, cache_dir=tmp_path / "c").path
    path.write_bytes(path.read_bytes()[:cut])
    assert_same(open_cached(pairs, cache_dir=tmp_path / "c"), FolderSource(pairs))


@pytest.mark.parametrize("position", [0, 20, 30, 40, -5, -300])
def test_an_altered_header_or_index_is_rebuilt(folder_of: FolderOf, tmp_path, position) -> None:
    pairs = find_pairs(folder_of(5))
    path = open_cached(pairs, cache_dir=tmp_path / "c").path
    data = bytearray(path.read_bytes())
    data[position] ^= 255
    path.write_bytes(data)
    assert_same(open_cached(pairs, cache_dir=tmp_path / "c"), FolderSource(pairs))
    assert path.read_bytes() != data


def test_altered_pixels_are_found_when_read_and_rebuilt_next_time(
    folder_of: FolderOf, tmp_path
) -> None:
    pairs = find_pairs(folder_of(5))
    path = open_cached(pairs, cache_dir=tmp_path / "c").path
    data = bytearray(path.read_bytes())
    data[64 + 17] ^= 1
    path.write_bytes(data)
    source = open_cached(pairs, cache_dir=tmp_path / "c")
    with pytest.warns(UserWarning, match="pixels of 00 altered"):
        assert np.array_equal(source[0].image, FolderSource(pairs)[0].image)
    assert not path.exists()
    assert np.array_equal(source[1].image, FolderSource(pairs)[1].image)
    assert_same(open_cached(pairs, cache_dir=tmp_path / "c"), FolderSource(pairs))
    assert path.exists()


def test_broken_files_stop_or_are_skipped(folder_of: FolderOf, tmp_path) -> None:
    root = folder_of(6)
    (root / "images" / "01.png").write_bytes(b"broken")
    Image.new("L", (5, 5)).save(root / "masks" / "03.png")
    (root / "masks" / "04.png").write_bytes(b"")
    pairs = find_pairs(root)
    with pytest.raises(UserError, match=r"01\.png: not a picture"):
        open_cached(pairs, cache_dir=tmp_path / "c")
    assert files(tmp_path / "c") == []
    for _ in range(2):
        source = open_cached(pairs, cache_dir=tmp_path / "c", skip_bad=True)
        assert source.names == ["00", "02", "05"]
        assert [line.count("\n") for line in source.skipped] == [0, 0, 0]
        assert "not a picture" in source.skipped[0]
        assert "5x5 but its image" in source.skipped[1]
        assert "empty" in source.skipped[2]
        assert_same(source, FolderSource([pairs[i] for i in (0, 2, 5)]))
    with pytest.raises(UserError, match="not a picture"):
        open_cached(pairs, cache_dir=tmp_path / "c")


def test_a_file_that_vanished_is_named(folder_of: FolderOf, tmp_path) -> None:
    root = folder_of(3)
    pairs = find_pairs(root)
    (root / "masks" / "02.png").unlink()
    with pytest.raises(UserError, match=r"02\.png: No such file"):
        open_cached(pairs, cache_dir=tmp_path / "c")


def test_a_file_that_changes_meanwhile_is_named(folder_of: FolderOf, tmp_path) -> None:
    root = folder_of(3)

    def meddle(done: int, total: int) -> None:
        Image.new("RGB", (31, 21)).save(root / "images" / "01.png")

    with pytest.raises(UserError, match=r"01\.png or its mask changed"):
        open_cached(find_pairs(root), cache_dir=tmp_path / "c", on_progress=meddle)
    assert files(tmp_path / "c") == []


def test_interrupting_leaves_nothing(folder_of: FolderOf, tmp_path) -> None:
    calls = 0

    def interrupt(done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_cached(find_pairs(folder_of(5)), cache_dir=tmp_path / "c", on_progress=interrupt)
    assert files(tmp_path / "c") == []


def test_killed_builder(folder_of: FolderOf, tmp_path) -> None:
    root = folder_of(40)
    process = builder(root, tmp_path / "c", wait=tmp_path / "never")
    assert process.stdout is not None
    assert process.stdout.readline() == "building\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [path.suffix for path in files(tmp_path / "c")] == [".partial"]
    pairs = find_pairs(root)
    assert_same(open_cached(pairs, cache_dir=tmp_path / "c"), FolderSource(pairs))
    assert [path.name for path in files(tmp_path / "c")] == ["samples"]


def test_two_builders_at_once(folder_of: FolderOf, tmp_path) -> None:
    """The second waits for the first and decodes nothing."""
    root = folder_of(20)
    first = builder(root, tmp_path / "c", wait=tmp_path / "go")
    assert first.stdout is not None
    assert first.stdout.readline() == "building\n"
    second = builder(root, tmp_path / "c")
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(timeout=1)
    (tmp_path / "go").touch()
    passes_first, pixels_first = first.communicate()[0].split()
    passes_second, pixels_second = second.communicate()[0].split()
    assert (passes_first, passes_second) == ("2", "1")
    assert pixels_first == pixels_second
    assert [path.name for path in files(tmp_path / "c")] == ["samples"]


def test_builders_without_locks(folder_of: FolderOf, tmp_path, monkeypatch) -> None:
    """Where the file system has none, both build, each in its own file."""
    fcntl = pytest.importorskip("fcntl")

    def unsupported(*arguments: object) -> None:
        raise OSError("no locks")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    pairs = find_pairs(folder_of(5))
    inner: list[CachedSource] = []

    def build_again(done: int, total: int) -> None:
        if not inner and list((tmp_path / "c").rglob("*.partial")):
            inner.append(open_cached(pairs, cache_dir=tmp_path / "c"))

    outer = open_cached(pairs, cache_dir=tmp_path / "c", on_progress=build_again)
    assert len(inner) == 1
    assert_same(inner[0], FolderSource(pairs))
    assert_same(outer, FolderSource(pairs))
    assert [path.name for path in files(tmp_path / "c")] == ["samples"]


def test_full_disk(folder_of: FolderOf, tmp_path) -> None:
    output, errors = builder(folder_of(20), tmp_path / "c", limit=20_000).communicate()
    assert output.startswith("error: cannot keep the decoded pictures")
    assert "LMWP_CACHE_DIR" in output
    assert output.count("\n") == 1
    assert errors == ""
    assert files(tmp_path / "c") == []


def test_a_folder_that_cannot_be_made(small_set: Path, tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot keep"):
        open_cached(find_pairs(small_set), cache_dir=tmp_path / "file" / "c")


def test_pickled_for_workers(small_set: Path, tmp_path) -> None:
    pairs = find_pairs(small_set)
    source = open_cached(pairs, cache_dir=tmp_path)
    data = pickle.dumps(source)
    assert len(data) < 10_000
    assert_same(pickle.loads(data), FolderSource(pairs))


def test_default_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMWP_CACHE_DIR", "/a")
    assert default_cache_dir() == Path("/a")
    monkeypatch.delenv("LMWP_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert default_cache_dir() == Path("/b/lmwp")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/c")
    assert default_cache_dir() == Path("/c/.cache/lmwp")
