"""Training losses, by the name a recipe gives them.

A network gives logits [N, 1, H, W], or a list of them, finest first; masks [N, 1, H, W] are in
[0, 1], grey values allowed. All is computed in float32 whatever the autocast dtype, and in float64
for float64 logits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Outputs = Tensor | Sequence[Tensor]

SIDE_WEIGHT = 0.4


def saliency_loss(logits: Outputs, masks: Tensor) -> Tensor:
    """Mean binary cross-entropy of the finest logits."""
    finest = _wide(logits if isinstance(logits, Tensor) else logits[0])
    return F.binary_cross_entropy_with_logits(finest, masks.to(finest.dtype))


def deep_supervision_loss(logits: Outputs, masks: Tensor) -> Tensor:
    """Cross-entropy and soft IoU of the finest logits, and 0.4 times the cross-entropy of each
    other: how LMWP-Net, reconstructed, is trained."""
    finest, *sides = [logits] if isinstance(logits, Tensor) else logits
    total = saliency_loss(finest, masks) + soft_iou_loss(finest, masks)
    for side in sides:
        total = total + SIDE_WEIGHT * saliency_loss(side, masks)
    return total


def soft_iou_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """1 - intersection / union of probabilities p and masks y, the mean over images.

    The intersection is the sum of p y, the union that of p + y - p y.
    """
    p = torch.sigmoid(_wide(logits))
    y = masks.to(p.dtype)
    pixels = (1, 2, 3)
    common = (p * y).sum(pixels)
    union = p.sum(pixels) + y.sum(pixels) - common
    return (1 - common / (union + 1e-6)).mean()


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


LOSSES: dict[str, Callable[[Outputs, Tensor], Tensor]] = {
    "bce": saliency_loss,
    "deep_supervision": deep_supervision_loss,
}
