"""Panels that show a saliency map on its image."""

import numpy as np
from numpy.typing import NDArray

TINT = np.array([230, 30, 30], dtype=np.float32)
STRENGTH = 0.6
GAP = 4
"""Pixels of white between the pictures of a panel."""


def overlay_panel(image: NDArray[np.uint8], saliency: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Image, map and overlay side by side.

    Args:
        image: uint8 [H, W, 3].
        saliency: uint8 [H, W].

    Returns:
        uint8 [H, 3 W + 2 GAP, 3].
    """
    gap = np.full((image.shape[0], GAP, 3), 255, dtype=np.uint8)
    gray = np.repeat(saliency[:, :, None], 3, axis=2)
    return np.hstack([image, gap, gray, gap, overlay(image, saliency)])


def overlay(image: NDArray[np.uint8], saliency: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image tinted red where it is salient, uint8 [H, W, 3]."""
    opacity = (STRENGTH / 255) * saliency[:, :, None].astype(np.float32)
    tinted = image + opacity * (TINT - image)
    return np.rint(tinted).astype(np.uint8)
