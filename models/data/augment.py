"""CSNet's augmentation (Gao et al., ECCV 2020): a small random crop, then at times a flip."""

from dataclasses import dataclass

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


def augment(
    image: ImageArray, mask: ImageArray, config: AugmentConfig, rng: np.random.Generator
) -> tuple[ImageArray, ImageArray]:
    """Crop and flip [H, W, 3] and [H, W] alike; the results are views of the arguments.

    No side loses more than a quarter of the picture, which only bounds pictures under 61 pixels.
    """
    near = rng.integers(0, max(config.crop, 1), size=2)
    far = rng.integers(1, max(config.crop, 1) + 1, size=2)
    flip, vertical = rng.random(2)
    if config.crop:
        rows, columns = (
            slice(min(a, (length - 1) // 4), length - min(b, (length - 1) // 4))
            for a, b, length in zip(near, far, mask.shape, strict=True)
        )
        image, mask = image[rows, columns], mask[rows, columns]
    if flip < config.flip:
        axis = 0 if vertical < config.vertical else 1
        image, mask = np.flip(image, axis), np.flip(mask, axis)
    return image, mask
