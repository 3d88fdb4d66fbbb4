"""Batch norm with the statistics of the joint batch of all processes, on any device."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lmwp_models.errors import UserError


class SyncBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` of the joint batch: every process brings as many values as the others.

    In training, means and variances run over all processes and gradients pass through them, as
    in `nn.SyncBatchNorm`, which needs a GPU; this one runs over gloo, too.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map x [N, C, H, W] to y of its shape and dtype."""
        if not self.training:
            return super().forward(x)
        count = dist.get_world_size() * x.numel() // x.shape[1]
        if count < 2:
            raise ValueError(
                f"SyncBatchNorm2d: expected more than one value per channel, got x {list(x.shape)}"
            )
        y, mean, var = _Normalise.apply(x, self.weight, self.bias, self.eps)
        with torch.no_grad():
            self._move_on(mean, var * (count / (count - 1)))
        return y

    def _move_on(self, mean: Tensor, var: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        for running, found in ((self.running_mean, mean), (self.running_var, var)):
            if self.momentum is None:
                running.lerp_(found, self.num_batches_tracked.to(found.dtype).reciprocal())
            else:
                running.lerp_(found, self.momentum)


def synchronise_batch_norms(model: nn.Module) -> None:
    """Replace every `nn.BatchNorm2d` inside `model`; parameters, buffers and names stay.

    Raises:
        UserError: a batch norm of another kind, whose statistics would stay its own.
    """
    for parent_name, parent in model.named_modules():
        for name, norm in parent.named_children():
            if not isinstance(norm, _BatchNorm) or isinstance(norm, SyncBatchNorm2d):
                continue
            if type(norm) is not nn.BatchNorm2d or not norm.affine:
                raise UserError(
                    f"{parent_name}.{name}: a {type(norm).__name__} has no statistics over several "
                    "processes; train in one"
                )
            setattr(parent, name, _synchronised(norm))


def _synchronised(norm: nn.BatchNorm2d) -> SyncBatchNorm2d:
    with torch.device("meta"):
        new = SyncBatchNorm2d(
            norm.num_features,
            norm.eps,
            norm.momentum,
            track_running_stats=norm.track_running_stats,
        )
    new._parameters.update(norm._parameters)
    new._buffers.update(norm._buffers)
    new.training = norm.training
    return new


class _Normalise(torch.autograd.Function):
    """(y, mean [C], biased variance [C]) of x [N, C, H, W]; the statistics without gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide = x.double() if x.dtype == torch.float64 else x.float()
        own = torch.stack(torch.var_mean(wide, (0, 2, 3), correction=0))  # [2, C]
        variances, means = _gather(own).unbind(1)  # [processes, C]
        mean = means.mean(0)
        var = variances.mean(0) + (means - mean).square().mean(0)
        rstd = torch.rsqrt(var + eps)
        normal = (wide - _spread(mean)) * _spread(rstd)
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.mark_non_differentiable(mean, var)
        return (normal * _spread(weight) + _spread(bias)).to(x.dtype), mean, var

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, rstd = ctx.saved_tensors
        wide = dy.to(mean.dtype)
        normal = (x.to(mean.dtype) - _spread(mean)) * _spread(rstd)
        sums = torch.stack([wide.sum((0, 2, 3)), (wide * normal).sum((0, 2, 3))])  # [2, C]
        shares = _gather(sums).mean(0) / (x.numel() // x.shape[1])
        inner = wide - _spread(shares[0]) - normal * _spread(shares[1])
        dx = inner * _spread(rstd * weight)
        dbias, dweight = sums.to(weight.dtype).unbind()
        return dx.to(x.dtype), dweight, dbias, None


def _gather(values: Tensor) -> Tensor:
    """The values of every process, stacked."""
    found = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(found, values)
    return torch.stack(found)


def _spread(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1)  # [C, 1, 1]
