"""Small data sets on disk."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lmwp_models.data import write_synthetic

Layout = Callable[..., Path]


@pytest.fixture(scope="session")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve synthetic pictures of 48 x 64 as files; read only."""
    return write_synthetic(tmp_path_factory.mktemp("small"), 12, (48, 64), seed=3)


@pytest.fixture
def touch(tmp_path: Path) -> Layout:
    """Make files named like pictures below tmp_path: touch("a/x.jpg", "b/x.png") -> tmp_path."""

    def make(*names: str) -> Path:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
        return tmp_path

    return make


@pytest.fixture
def folder_of(tmp_path: Path) -> Callable[[int], Path]:
    """Make a data set of real files of random levels: folder_of(5) -> tmp_path / 'set'."""

    def make(count: int) -> Path:
        root = tmp_path / "set"
        (root / "images").mkdir(parents=True)
        (root / "masks").mkdir()
        rng = np.random.default_rng(0)
        for i in range(count):
            image = rng.integers(0, 256, (20 + i, 31, 3), np.uint8)
            mask = rng.integers(0, 256, (20 + i, 31), np.uint8)
            Image.fromarray(image).save(root / "images" / f"{i:02}.png")
            Image.fromarray(mask).save(root / "masks" / f"{i:02}.png")
        return root

    return make
