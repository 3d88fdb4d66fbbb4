"""Real data sets: every pair is found, and real files read as they should."""

import tarfile
from pathlib import Path

import numpy as np
import pytest

from lmwp_models.data import FolderSource, find_pairs, open_source


@pytest.fixture(scope="module")
def untar(reference_dir: Path, tmp_path_factory: pytest.TempPathFactory):
    def extract(name: str, count: int | None = None) -> Path:
        folder = tmp_path_factory.mktemp("real")
        with tarfile.open(reference_dir / "data" / name) as archive:
            members = archive.getmembers()
            archive.extractall(folder, members[:count], filter="data")
        return folder

    return extract


@pytest.mark.parametrize(
    ("name", "count"), [("DUTS-TE-502.tar", 502), ("DUTS-TE-tiny-408.tar", 408)]
)
def test_all_pairs_are_found(untar, name: str, count: int) -> None:
    pairs = find_pairs(untar(name))
    assert len(pairs) == count
    source = FolderSource(pairs[::60])
    for i in range(len(source)):
        sample = source[i]
        assert 100 < min(sample.mask.shape) <= max(sample.mask.shape) < 500
        assert 0 < (sample.mask > 128).mean() < 0.95
        if "tiny" in name:
            assert (sample.mask > 128).mean() < 0.02


def test_training_pictures(untar, tmp_path: Path) -> None:
    """WebP images with 1-bit masks."""
    root = untar("DUTS-TR-320-0.tar", 200)
    pairs = find_pairs(root)
    assert len(pairs) == 100
    for sample in map(FolderSource(pairs[:10]).__getitem__, range(10)):
        assert max(sample.mask.shape) == 320
        assert set(np.unique(sample.mask)) == {0, 255}
    cached = open_source(root, cache_dir=tmp_path)
    assert cached.names == [pair.name for pair in pairs]


def test_list_of_tiny_objects(reference_dir: Path, touch) -> None:
    stems = (reference_dir / "data" / "DUTS-TR-tiny5.txt").read_text().split()
    extra = ["not-in-the-list"]
    root = touch(
        *(f"DUTS-TR/DUTS-TR-Image/{stem}.webp" for stem in stems + extra),
        *(f"DUTS-TR/DUTS-TR-Mask/{stem}.png" for stem in stems + extra),
    )
    pairs = find_pairs(root, reference_dir / "data" / "DUTS-TR-tiny5.txt")
    assert [pair.name for pair in pairs] == sorted(stems)
    assert len(pairs) == 429
