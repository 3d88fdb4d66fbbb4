"""The `pysod` protocol: the image-level scores of the PySODMetrics library.

A map is stretched to [0, 1] by its own minimum and maximum (a constant map is left as it is). The
curves over 256 thresholds use that map quantised to floor(255 p) and binarised by `p >= t`; all
else uses the stretched map itself. Every score is averaged over images.

Sources: F-measure, Achanta et al., CVPR 2009; S-measure, Fan et al., ICCV 2017; E-measure, Fan et
al., IJCAI 2018; weighted F-measure, Margolin et al., CVPR 2014.
"""

import numpy as np
from numpy.typing import NDArray

from lmwp_models.evaluation.levels import (
    BETA_SQUARED,
    LEVELS,
    Gray,
    Statistics,
    at_least,
    binarise,
    check_pair,
    level_counts,
)
from lmwp_models.evaluation.structure import s_measure
from lmwp_models.evaluation.weighted_f import weighted_f_measure

EPS = float(np.spacing(1.0))


def measure(prediction: Gray, mask: Gray) -> Statistics:
    """Statistics of one image: four curves over the 256 thresholds and five scalars.

    Args:
        prediction: saliency map, uint8 [H, W].
        mask: ground truth, uint8 [H, W]; salient where > 128.

    Raises:
        ValueError: wrong dtype, or the sizes differ.
    """
    check_pair(prediction, mask)
    positive = binarise(mask)
    stretched = _stretched_levels(prediction)
    saliency = stretched[prediction]

    inside, outside = level_counts(prediction, positive)
    quantised = (stretched * 255).astype(np.uint8)
    true_positives = at_least(_requantise(inside, quantised))
    false_positives = at_least(_requantise(outside, quantised))
    positives, pixels = int(inside.sum()), mask.size
    precision, recall, f = _f_measure(true_positives, false_positives, positives)

    salient = stretched >= min(2 * saliency.mean(), 1.0)
    adaptive = np.asarray(inside[salient].sum()), np.asarray(outside[salient].sum())
    return {
        "precision": precision,
        "recall": recall,
        "f": f,
        "e": _e_measure(true_positives, false_positives, positives, pixels),
        "adaptive_f": _f_measure(*adaptive, positives)[2],
        "adaptive_e": _e_measure(*adaptive, positives, pixels),
        "s_measure": np.asarray(s_measure(saliency, positive)),
        "weighted_f": np.asarray(weighted_f_measure(saliency, positive)),
        "mae": np.asarray((inside @ (1 - stretched) + outside @ stretched) / pixels),
    }


def summarise(means: Statistics) -> dict[str, float]:
    """Scores from the means over images of what `measure` returns."""
    return {
        "max_f_image": float(means["f"].max()),
        "mean_f_image": float(means["f"].mean()),
        "adaptive_f_image": float(means["adaptive_f"]),
        "s_measure": float(means["s_measure"]),
        "e_max": float(means["e"].max()),
        "e_mean": float(means["e"].mean()),
        "e_adaptive": float(means["adaptive_e"]),
        "weighted_f": float(means["weighted_f"]),
        "mae": float(means["mae"]),
    }


def _stretched_levels(prediction: Gray) -> NDArray[np.float64]:
    """Saliency in [0, 1] that each grey level stands for, [256]; levels out of use are clipped."""
    levels = np.arange(LEVELS) / 255
    low, high = levels[prediction.min()], levels[prediction.max()]
    if low == high:
        return levels
    return np.clip((levels - low) / (high - low), 0.0, 1.0)


def _requantise(counts: NDArray[np.int64], quantised: Gray) -> NDArray[np.int64]:
    """Histogram over the levels that each level is mapped to, [256]."""
    return np.bincount(quantised, weights=counts, minlength=LEVELS).astype(np.int64)


def _f_measure(
    true_positives: NDArray[np.int64], false_positives: NDArray[np.int64], positives: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Precision, recall and F, each 0 where it would be 0/0."""
    precision = true_positives / np.maximum(true_positives + false_positives, 1)
    recall = np.asarray(true_positives / max(positives, 1))
    weighted = BETA_SQUARED * precision + recall
    product = (1 + BETA_SQUARED) * precision * recall
    return precision, recall, product / np.where(true_positives > 0, weighted, 1.0)


def _e_measure(
    true_positives: NDArray[np.int64],
    false_positives: NDArray[np.int64],
    positives: int,
    pixels: int,
) -> NDArray[np.float64]:
    """Enhanced alignment of binary maps with the ground truth, from pixel counts alone.

    Map and ground truth minus their means take two values each, hence four kinds of pixels.
    """
    predicted = true_positives + false_positives
    if positives == 0:
        aligned = (pixels - predicted).astype(np.float64)
    elif positives == pixels:
        aligned = predicted.astype(np.float64)
    else:
        map_mean, mask_mean = predicted / pixels, positives / pixels
        false_negatives = positives - true_positives
        aligned = (
            true_positives * _enhanced(1 - map_mean, 1 - mask_mean)
            + false_positives * _enhanced(1 - map_mean, -mask_mean)
            + false_negatives * _enhanced(-map_mean, 1 - mask_mean)
            + (pixels - predicted - false_negatives) * _enhanced(-map_mean, -mask_mean)
        )
    return np.asarray(aligned / (pixels - 1 + EPS))


def _enhanced(a: NDArray[np.float64], b: float) -> NDArray[np.float64]:
    alignment = 2 * a * b / (a * a + b * b + EPS)
    return (1 + alignment) ** 2 / 4
