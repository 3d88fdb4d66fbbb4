"""Histograms over the 256 grey levels: all thresholds of a map at the cost of one pass."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

LEVELS = 256
BETA_SQUARED = 0.3
"""Weight of recall in the F-measure of salient object detection (Achanta et al., CVPR 2009)."""

Gray: TypeAlias = NDArray[np.uint8]
Positive: TypeAlias = NDArray[np.bool_]
Curve: TypeAlias = NDArray[np.float64]
Counts: TypeAlias = NDArray[np.int64]
Statistics: TypeAlias = dict[str, Curve]
"""Scalars [] and curves [256] of one image; a protocol needs only their means over images."""


def check_pair(prediction: Gray, mask: Gray) -> None:
    """Raise ValueError unless both are non-empty uint8 [H, W] of one size."""
    for role, array in (("prediction", prediction), ("mask", mask)):
        if array.dtype != np.uint8 or array.ndim != 2 or array.size == 0:
            raise ValueError(
                f"{role} must be uint8 [H, W] and not empty, got {array.dtype} {list(array.shape)}"
            )
    if prediction.shape != mask.shape:
        raise ValueError(
            f"prediction {list(prediction.shape)} and mask {list(mask.shape)} differ in size"
        )


def binarise(mask: Gray) -> Positive:
    """The salient pixels of a ground truth: grey level > 128, in both protocols."""
    return mask > 128


def level_counts(prediction: Gray, positive: Positive) -> tuple[Counts, Counts]:
    """Pixels per grey level ([256]) inside and outside the salient region."""
    everywhere = np.bincount(prediction.ravel(), minlength=LEVELS)
    inside = np.bincount(prediction[positive], minlength=LEVELS)
    return inside, everywhere - inside


def at_least(counts: Counts) -> Counts:
    """Pixels at or above each level ([256]) from pixels per level."""
    return np.cumsum(counts[::-1])[::-1]
