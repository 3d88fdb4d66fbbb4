"""Picture panels: image, truth and prediction side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

GAP = 4  # pixels of white between pictures


class Panel(NamedTuple):
    """One row to look at: image uint8 [H, W, 3], truth (or None) and prediction uint8 [H, W]."""

    name: str
    image: np.ndarray
    truth: np.ndarray | None
    prediction: np.ndarray


def panel_strip(panel: Panel, height: int = 160) -> np.ndarray:
    """image | truth | prediction, each scaled to `height`: uint8 [height, W, 3]."""
    pictures = [panel.image, panel.truth, panel.prediction]
    return _join([_scaled(p, height) for p in pictures if p is not None], axis=1)


def panel_grid(panels: Sequence[Panel], height: int = 160) -> np.ndarray:
    """The strips of several panels below each other, padded with white to one width."""
    strips = [panel_strip(panel, height) for panel in panels]
    width = max(strip.shape[1] for strip in strips)
    padded = [
        np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in strips
    ]
    return _join(padded, axis=0)


def write_png(path: Path, picture: np.ndarray) -> None:
    """Write uint8 [H, W] or [H, W, 3] as PNG, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        Image.fromarray(picture).save(partial, format="PNG")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _scaled(picture: np.ndarray, height: int) -> np.ndarray:
    width = max(1, round(picture.shape[1] * height / picture.shape[0]))
    resized = Image.fromarray(picture).convert("RGB").resize((width, height))
    return np.asarray(resized)


def _join(pictures: list[np.ndarray], axis: int) -> np.ndarray:
    shape = list(pictures[0].shape)
    shape[axis] = GAP
    white = np.full(shape, 255, np.uint8)
    parts = [part for picture in pictures for part in (picture, white)]
    return np.concatenate(parts[:-1], axis)
