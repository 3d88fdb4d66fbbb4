"""Weighted F-measure (Margolin et al., "How to Evaluate Foreground Maps?", CVPR 2014)."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lmwp_models.evaluation.levels import Positive

EPS = float(np.spacing(1.0))
RADIUS = 3
"""The Gaussian is 7x7."""
SIGMA = 5.0
HALVING_DISTANCE = 5.0
"""Pixels over which the extra weight of a background error falls short of its limit by half."""

_offsets = np.arange(-RADIUS, RADIUS + 1)
_gaussian = np.exp(-(_offsets**2) / (2 * SIGMA**2))
_gaussian /= _gaussian.sum()


def weighted_f_measure(saliency: NDArray[np.float64], positive: Positive) -> float:
    """F with beta = 1 over errors weighted by where they lie; 0 for an empty ground truth.

    Args:
        saliency: float64 [H, W] in [0, 1].
        positive: salient pixels, bool [H, W].
    """
    if not positive.any():
        return 0.0
    background = ~positive
    distance, nearest = ndimage.distance_transform_edt(background, return_indices=True)
    error = np.abs(saliency - positive)

    foreground_error = error[positive]
    smoothed = _smoothed(error, nearest, positive)
    foreground_error = np.minimum(foreground_error, smoothed)
    importance = 2 - np.exp2(-distance[background] / HALVING_DISTANCE)
    false_positives = error[background] @ importance

    true_positives = foreground_error.size - foreground_error.sum()
    recall = 1 - foreground_error.mean()
    precision = true_positives / (true_positives + false_positives + EPS)
    return float(2 * precision * recall / (precision + recall + EPS))


def _smoothed(
    error: NDArray[np.float64], nearest: NDArray[np.int32], positive: Positive
) -> NDArray[np.float64]:
    """Gaussian mean of the error at each salient pixel, background taking its nearest one's error.

    Only the surroundings of the object are computed; outside the image the error counts as 0.
    """
    rows, columns = _surroundings(positive, axis=0), _surroundings(positive, axis=1)
    carried = error[nearest[0, rows, columns], nearest[1, rows, columns]]
    for axis in (0, 1):
        carried = ndimage.correlate1d(carried, _gaussian, axis=axis, mode="constant")
    return carried[positive[rows, columns]]


def _surroundings(positive: Positive, axis: int) -> slice:
    """The object's extent along an axis, and a kernel's radius more on either side."""
    places = np.flatnonzero(positive.any(axis=1 - axis))
    return slice(max(int(places[0]) - RADIUS, 0), int(places[-1]) + RADIUS + 1)
