"""Modules over `lmwp_ops.bn_prelu_gap`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lmwp_ops.ops._epilogue import apply_epilogue
from lmwp_ops.ops.bn_prelu_gap import bn_prelu_gap


class BatchNormPReLU2d(nn.BatchNorm2d):
    """Batch norm and PReLU with a slope per channel: `nn.BatchNorm2d`, then `nn.PReLU`.

    Parameters and buffers are those of an affine `nn.BatchNorm2d` of the same arguments, and
    `slope` [num_features]. In training both steps and the channel means of the result are one call
    of the op; in evaluation the running statistics are used, as there.

    `channel_means` is [N, num_features], the means over the pixels of what the last forward pass
    in training gave, in float32 and without a gradient; None before one.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        *,
        init: float = 0.25,
        **factory: Any,
    ) -> None:
        super().__init__(num_features, eps, momentum, **factory)
        self.slope = nn.Parameter(torch.full((num_features,), init, **factory))
        self.channel_means: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map x [N, C, H, W] to y of its shape, dtype and memory format."""
        if not self.training:
            return apply_epilogue(super().forward(x), 0, [], [], [self.slope])
        (y,), (self.channel_means,) = norm_prelu_in_training([x], [self], [self.slope])
        return y


def norm_prelu_in_training(
    xs: Sequence[Tensor], norms: Sequence[nn.BatchNorm2d], slopes: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Batch norm and PReLU of every branch of a feature, in one call of `bn_prelu_gap`.

    The running statistics of `norms`, which must be affine, move on as in `nn.BatchNorm2d`; a
    slope is [C_b]. Returns the branches [N, C_b, H_b, W_b] and their channel means [N, C_b].

    Raises:
        ValueError: the norms differ in `eps`, or as `bn_prelu_gap`.
    """
    eps = {norm.eps for norm in norms}
    if len(eps) != 1:
        raise ValueError(f"norm_prelu_in_training: norms: expected one eps, got {sorted(eps)}")
    weights, biases = [norm.weight for norm in norms], [norm.bias for norm in norms]
    ys, means, batch_means, batch_vars = bn_prelu_gap(xs, weights, biases, slopes, eps=eps.pop())
    for x, norm, mean, var in zip(xs, norms, batch_means, batch_vars, strict=True):
        update_running_statistics(norm, mean, var, x.numel() // x.shape[1])
    return ys, means


@torch.no_grad()
def update_running_statistics(norm: nn.BatchNorm2d, mean: Tensor, var: Tensor, count: int) -> None:
    """As `nn.BatchNorm2d` does; `count` values per channel have the biased variance `var`."""
    if norm.running_mean is None or norm.running_var is None:
        return
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    if count == 0:
        return
    for running, found in (
        (norm.running_mean, mean),
        (norm.running_var, var * count / (count - 1)),
    ):
        found = found.to(running.dtype)
        if norm.momentum is None:
            running.lerp_(found, norm.num_batches_tracked.to(running.dtype).reciprocal())
        else:
            running.lerp_(found, norm.momentum)
