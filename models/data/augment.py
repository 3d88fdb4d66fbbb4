"""CSNet's augmentation (Gao et al., ECCV 2020): a small random crop, then at times a flip."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lmwp_models.data.decode import ImageArray


@dataclass(frozen=True)
class AugmentConfig:
    """How training pictures are varied before they are resized.

    Attributes:
        crop: the crop takes 0 .. crop - 1 pixels off the top and the left and 1 .. crop off the
            bottom and the right, of the picture at its own size; 0 switches it off.
        flip: probability of a flip.
        vertical: share of the flips that are upside down instead of left to right.
    """

    crop: int = 15
    flip: float = 0.5
    vertical: float = 0.5

    def __post_init__(self) -> None:
        if self.crop < 0:
            raise ValueError(f"augment: crop must be 0 or more pixels, got {self.crop}")
        for key in ("flip", "vertical"):
            if not 0 <= getattr(self, key) <= 1:
                raise ValueError(f"augment: {key} must be in 0 .. 1, got {getattr(self, key)}")


class Crop(NamedTuple):
    """A part of a picture, in its pixels, and the axis along which it is flipped."""

    top: int
    left: int
    height: int
    width: int
    flip_axis: int | None = None


def draw_crop(shape: tuple[int, int], config: AugmentConfig, rng: np.random.Generator) -> Crop:
    """Draw how a picture of (H, W) is varied.

    No side loses more than a quarter of the picture, which only bounds pictures under 61 pixels.
    """
    near = rng.integers(0, max(config.crop, 1), size=2)
    far = rng.integers(1, max(config.crop, 1) + 1, size=2)
    flip, vertical = rng.random(2)
    top, left, height, width = 0, 0, *shape
    if config.crop:
        (top, height), (left, width) = (
            _span(length, int(a), int(b)) for length, a, b in zip(shape, near, far, strict=True)
        )
    flip_axis = (0 if vertical < config.vertical else 1) if flip < config.flip else None
    return Crop(top, left, height, width, flip_axis)


def apply_crop(picture: ImageArray, crop: Crop) -> ImageArray:
    """A view of [H, W] or [H, W, C]."""
    rows, columns = (
        slice(crop.top, crop.top + crop.height),
        slice(crop.left, crop.left + crop.width),
    )
    part = picture[rows, columns]
    return part if crop.flip_axis is None else np.flip(part, crop.flip_axis)


def _span(length: int, near: int, far: int) -> tuple[int, int]:
    """First and count of what is left of `length` pixels."""
    most = (length - 1) // 4
    first = min(near, most)
    return first, length - min(far, most) - first
