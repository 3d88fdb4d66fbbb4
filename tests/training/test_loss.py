"""The losses by hand, on one map and on several."""

import math

import pytest
import torch
import torch.nn.functional as F

from lmwp_models.training.loss import (
    LOSSES,
    deep_supervision_loss,
    saliency_loss,
    soft_iou_loss,
)


def bce(logit: float, mask: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -(mask * math.log(p) + (1 - mask) * math.log(1 - p))


def test_soft_iou_by_hand() -> None:
    logits = torch.tensor([[0.0, 2.0], [-1.0, 3.0]]).view(2, 1, 1, 2)
    masks = torch.tensor([[1.0, 0.0], [0.5, 1.0]]).view(2, 1, 1, 2)
    expected = 0.0
    for image in range(2):
        p = [1 / (1 + math.exp(-v)) for v in logits[image].flatten().tolist()]
        y = masks[image].flatten().tolist()
        common = sum(a * b for a, b in zip(p, y, strict=True))
        expected += 0.5 * (1 - common / (sum(p) + sum(y) - common + 1e-6))
    assert soft_iou_loss(logits, masks).item() == pytest.approx(expected, rel=1e-6)


def test_soft_iou_of_a_right_a_wrong_and_an_empty_map() -> None:
    masks = torch.zeros(1, 1, 4, 4)
    masks[..., :2] = 1
    sure = 100 * (2 * masks - 1)
    assert soft_iou_loss(sure, masks).item() == pytest.approx(0, abs=1e-6)
    assert soft_iou_loss(-sure, masks).item() == pytest.approx(1, abs=1e-6)
    empty = soft_iou_loss(
        torch.full((1, 1, 4, 4), -200.0).requires_grad_(), torch.zeros(1, 1, 4, 4)
    )
    assert empty.isfinite()


def test_deep_supervision_by_hand() -> None:
    finest, side, other = (torch.full((2, 1, 3, 3), v) for v in (0.3, -0.7, 1.1))
    masks = torch.ones(2, 1, 3, 3)
    expected = bce(0.3, 1) + soft_iou_loss(finest, masks).item()
    expected += 0.4 * (bce(-0.7, 1) + bce(1.1, 1))
    got = deep_supervision_loss([finest, side, other], masks)
    assert got.item() == pytest.approx(expected, rel=1e-6)
    alone = deep_supervision_loss(finest, masks)
    assert alone.item() == pytest.approx(bce(0.3, 1) + soft_iou_loss(finest, masks).item())


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize(
    ("dtype", "wide"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32),
     (torch.float64, torch.float64)],
)  # fmt: skip
def test_every_loss_is_wide_and_differentiable(
    name: str, dtype: torch.dtype, wide: torch.dtype
) -> None:
    logits = [torch.randn(2, 1, 5, 4).to(dtype).requires_grad_() for _ in range(3)]
    masks = torch.rand(2, 1, 5, 4)
    loss = LOSSES[name](logits, masks)
    assert loss.dtype == wide
    loss.backward()
    assert logits[0].grad.isfinite().all()


def test_cross_entropy_looks_at_the_finest_map() -> None:
    logits, masks = [torch.randn(2, 1, 5, 4) for _ in range(3)], torch.rand(2, 1, 5, 4)
    expected = F.binary_cross_entropy_with_logits(logits[0], masks)
    torch.testing.assert_close(saliency_loss(logits, masks), expected)
    torch.testing.assert_close(saliency_loss(logits[0], masks), expected)
