"""Naming a data set: a folder or the synthetic one."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from lmwp_models.data import CachedSource, FolderSource, SyntheticSource, open_source
from lmwp_models.errors import UserError


def test_synthetic() -> None:
    assert isinstance(open_source("synthetic"), SyntheticSource)
    assert len(open_source("synthetic:7")) == 7


@pytest.mark.parametrize("spec", ["synthetic:", "synthetic:0", "synthetic:-3", "synthetic:many"])
def test_wrong_synthetic(spec: str) -> None:
    with pytest.raises(UserError, match="synthetic:COUNT"):
        open_source(spec)


def test_folder(small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMWP_CACHE_DIR", str(tmp_path / "env"))
    cached = open_source(str(small_set))
    assert isinstance(cached, CachedSource)
    assert cached.path.is_relative_to(tmp_path / "env")
    plain = open_source(small_set, cache=False)
    assert isinstance(plain, FolderSource)
    assert plain.names == cached.names
    assert list(plain.skipped) == list(cached.skipped) == []


@pytest.mark.parametrize("cache", [True, False])
def test_skipping(small_set: Path, tmp_path: Path, cache: bool) -> None:
    root = tmp_path / "set"
    shutil.copytree(small_set, root)
    names = [path.stem for path in sorted((root / "images").iterdir())]
    (root / "masks" / f"{names[0]}.png").unlink()
    (root / "images" / f"{names[5]}.jpg").write_bytes(b"x")

    def opened(**options: bool):
        return open_source(root, cache=cache, cache_dir=tmp_path / "c", **options)

    with pytest.raises(UserError, match=rf"1 without a partner, no mask .*{names[0]}\.jpg"):
        opened()
    source = opened(skip_bad=True)
    assert source.names == [*names[1:5], *names[6:]]
    assert len(source.skipped) == 2
    assert names[0] in source.skipped[0]
    assert names[5] in source.skipped[1]
    assert [source[i].name for i in range(len(source))] == source.names


@pytest.mark.parametrize("cache", [True, False])
def test_nothing_usable(tmp_path: Path, cache: bool) -> None:
    for path in ("images/a.jpg", "masks/a.png"):
        (tmp_path / "set" / path).parent.mkdir(parents=True)
        (tmp_path / "set" / path).write_bytes(b"x")
    with pytest.raises(UserError, match="none of its 1 pictures is usable"):
        open_source(tmp_path / "set", cache=cache, cache_dir=tmp_path / "c", skip_bad=True)


def test_a_mask_of_another_size(small_set: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(small_set, root)
    masks = sorted((root / "masks").iterdir())
    Image.new("L", (9, 8)).save(masks[2])
    source = open_source(root, cache=False)
    with pytest.raises(UserError, match=r"is 9x8 but its image .* is 64x48"):
        source[2]


def test_wrong_max_side(small_set: Path) -> None:
    with pytest.raises(UserError, match="max_side"):
        open_source(small_set, max_side=0)
