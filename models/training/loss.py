"""The training loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def saliency_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Mean binary cross-entropy with logits, in float32 whatever the autocast dtype.

    logits, masks: [N, 1, H, W]; masks in [0, 1], grey values allowed.
    """
    return F.binary_cross_entropy_with_logits(logits.float(), masks)
