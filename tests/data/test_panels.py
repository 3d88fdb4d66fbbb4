"""Pictures side by side."""

from pathlib import Path

import numpy as np
from PIL import Image

from lmwp_models.data.panels import GAP, Panel, panel_grid, panel_strip, write_png


def panel(height: int, width: int, truth: bool = True) -> Panel:
    red = np.zeros((height, width, 3), np.uint8)
    red[:, :, 0] = 200
    mask = np.full((height, width), 90, np.uint8)
    return Panel("a", red, mask if truth else None, mask)


def test_strip() -> None:
    strip = panel_strip(panel(20, 30), height=40)
    assert strip.shape == (40, 3 * 60 + 2 * GAP, 3)
    assert strip[5, 5].tolist() == [200, 0, 0]
    assert strip[5, 60].tolist() == [255, 255, 255]
    assert strip[5, 60 + GAP + 1].tolist() == [90, 90, 90]
    assert panel_strip(panel(20, 30, truth=False), height=40).shape[1] == 2 * 60 + GAP


def test_grid_pads_to_the_widest() -> None:
    grid = panel_grid([panel(20, 30), panel(30, 20)], height=30)
    assert grid.shape == (60 + GAP, 3 * 45 + 2 * GAP, 3)
    assert grid[40, -1].tolist() == [255, 255, 255]


def test_written_whole(tmp_path: Path) -> None:
    picture = panel(5, 6).image
    write_png(tmp_path / "new" / "a.png", picture)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "new" / "a.png")), picture)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]
