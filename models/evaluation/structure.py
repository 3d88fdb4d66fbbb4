"""S-measure: structural similarity of a map and its ground truth (Fan et al., ICCV 2017)."""

import numpy as np
from numpy.typing import NDArray

from lmwp_models.evaluation.levels import Positive

EPS = float(np.spacing(1.0))


def s_measure(saliency: NDArray[np.float64], positive: Positive) -> float:
    """Half object-aware, half region-aware similarity.

    Args:
        saliency: float64 [H, W] in [0, 1].
        positive: salient pixels, bool [H, W].
    """
    share = positive.mean()
    if share == 0:
        return float(1 - saliency.mean())
    if share == 1:
        return float(saliency.mean())
    similarity = 0.5 * _object_aware(saliency, positive) + 0.5 * _region_aware(saliency, positive)
    return max(0.0, similarity)


def _object_aware(saliency: NDArray[np.float64], positive: Positive) -> float:
    share = positive.mean()
    foreground = _uniformity(saliency[positive])
    background = _uniformity(1 - saliency[~positive])
    return float(share * foreground + (1 - share) * background)


def _uniformity(values: NDArray[np.float64]) -> float:
    """1 where all values are 1; lower for a lower mean or a wider spread."""
    mean = values.mean()
    spread = values.std(ddof=1) if values.size > 1 else 0.0
    return float(2 * mean / (mean * mean + 1 + spread + EPS))


def _region_aware(saliency: NDArray[np.float64], positive: Positive) -> float:
    """Similarity of the four quadrants around the object's centroid, weighted by area."""
    row, column = _centroid(positive)
    similarity = 0.0
    for rows in (slice(row), slice(row, None)):
        for columns in (slice(column), slice(column, None)):
            region = saliency[rows, columns]
            # A quadrant is empty where the object lies on the last row or column.
            if region.size:
                similarity += _ssim(region, positive[rows, columns]) * region.size
    return similarity / saliency.size


def _centroid(positive: Positive) -> tuple[int, int]:
    """Row and column at which the quadrants part, one past the rounded centroid."""
    per_row, per_column = positive.sum(axis=1), positive.sum(axis=0)
    total = per_row.sum()
    row = per_row @ np.arange(per_row.size) / total
    column = per_column @ np.arange(per_column.size) / total
    return round(row) + 1, round(column) + 1


def _ssim(region: NDArray[np.float64], positive: Positive) -> float:
    """Luminance, contrast and structure in one factor; 1 for two flat regions."""
    freedom = region.size - 1 + EPS
    mean, share = region.mean(), positive.mean()
    deviation, step = region - mean, positive - share
    variance = (deviation * deviation).sum() / freedom
    step_variance = (step * step).sum() / freedom
    covariance = (deviation * step).sum() / freedom

    agreement = 4 * mean * share * covariance
    total = (mean * mean + share * share) * (variance + step_variance)
    if agreement != 0:
        return float(agreement / (total + EPS))
    return 1.0 if total == 0 else 0.0
