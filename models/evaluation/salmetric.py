"""The `salmetric` protocol: the dataset-level scores of CSNet, DSS and PoolNet.

A map is used as it is and binarised by `p > t` for t = 0..255. Precision and recall are averaged
over images first and only then combined, F = 1.3 P R / (0.3 P + R). The mean absolute error is
taken against the grey ground truth.

Gao et al., "Highly Efficient Salient Object Detection with 100K Parameters", ECCV 2020, section 4.
"""

import numpy as np

from lmwp_models.evaluation.levels import (
    BETA_SQUARED,
    Curve,
    Gray,
    Statistics,
    at_least,
    binarise,
    check_pair,
    level_counts,
)

SMOOTHING = 1e-4
"""Added to both sides of precision and recall, so that an empty prediction has precision 1."""


def measure(prediction: Gray, mask: Gray) -> Statistics:
    """Statistics of one image: `precision` and `recall` over the 256 thresholds, and `mae`.

    Args:
        prediction: saliency map, uint8 [H, W].
        mask: ground truth, uint8 [H, W], grey levels allowed.

    Raises:
        ValueError: wrong dtype, or the sizes differ.
    """
    check_pair(prediction, mask)
    inside, outside = level_counts(prediction, binarise(mask))
    true_positives = _above(inside)
    predicted_positives = true_positives + _above(outside)
    error = np.abs(prediction.astype(np.int16) - mask)
    return {
        "precision": (true_positives + SMOOTHING) / (predicted_positives + SMOOTHING),
        "recall": (true_positives + SMOOTHING) / (inside.sum() + SMOOTHING),
        "mae": np.asarray(error.mean() / 255),
    }


def summarise(means: Statistics) -> dict[str, float]:
    """Scores from the means over images of what `measure` returns."""
    precision, recall = means["precision"], means["recall"]
    f = (1 + BETA_SQUARED) * precision * recall / (BETA_SQUARED * precision + recall)
    return {
        "max_f_dataset": float(f.max()),
        "mean_f_dataset": float(f.mean()),
        "mae": float(means["mae"]),
    }


def _above(counts: np.ndarray) -> Curve:
    return (at_least(counts) - counts).astype(np.float64)
