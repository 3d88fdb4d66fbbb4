"""The module of `lmwp_ops.multiscale_mix` and `lmwp_ops.multiscale_norm_mix`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from lmwp_ops.nn.batch_norm_prelu import update_running_statistics
from lmwp_ops.ops.multiscale_mix import multiscale_mix
from lmwp_ops.ops.multiscale_mix.branch import convolve, pool, resize, weigh
from lmwp_ops.ops.multiscale_norm_mix import multiscale_norm_mix


class MultiscaleMix(nn.Module):
    """Depthwise 3 x 3 branches at several scales, each with a batch norm, mixed per image.

    Args:
        channels: of the feature and of every branch.
        branches: a pair (octave, dilation) for each; see `lmwp_ops.multiscale_mix`.

    Branch k is `convs.<k>` and `norms.<k>`, an `nn.Conv2d` and an `nn.BatchNorm2d`, which compute
    as one op with their branches. Norms of another kind (`nn.SyncBatchNorm`), or of which some
    train and some do not, are called one by one.

    `channel_means` holds, for each branch, the means [N, channels] over the pixels of what its
    norm gave in the last forward pass in training, in float32 and without a gradient; None before
    one.
    """

    def __init__(self, channels: int, branches: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.branches = tuple((octave, dilation) for octave, dilation in branches)
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=d, dilation=d, groups=channels, bias=False)
            for _, d in self.branches
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in self.branches)
        self.channel_means: list[Tensor] | None = None

    def forward(self, u: Tensor, mix: Tensor) -> Tensor:
        """u [N, channels, H, W] and mix [N, branches, channels] to a tensor like u."""
        norms = list(self.norms)
        weights = [cast(nn.Conv2d, conv).weight for conv in self.convs]
        if not _are_alike(norms):
            return self._one_by_one(u, weights, mix)
        plain = cast(list[nn.BatchNorm2d], norms)
        table = torch.stack(weights).squeeze(2)  # [K, channels, 3, 3]
        if not plain[0].training:
            return multiscale_mix(u, table, mix, self.branches, _folded(plain))
        gamma, beta = _stacked(plain, "weight"), _stacked(plain, "bias")
        out, means, mean, var = multiscale_norm_mix(
            u, table, mix, gamma, beta, self.branches, eps=plain[0].eps
        )
        for k, (norm, (octave, _)) in enumerate(zip(plain, self.branches, strict=True)):
            height, width = (-(-side // 2**octave) for side in u.shape[2:])
            update_running_statistics(norm, mean[k], var[k], u.shape[0] * height * width)
        self.channel_means = list(means.unbind(1))
        return out

    def _one_by_one(self, u: Tensor, weights: list[Tensor], mix: Tensor) -> Tensor:
        terms, means = [], []
        for k, (octave, dilation) in enumerate(self.branches):
            y = self.norms[k](convolve(pool(u, octave), weights[k].squeeze(1), dilation))
            means.append(y.detach().mean((2, 3), dtype=mix.dtype))
            terms.append(weigh(mix[:, k], resize(y, u, octave)).to(y.dtype))
        if self.training:
            self.channel_means = means
        return sum(terms[1:], start=terms[0])

    def extra_repr(self) -> str:
        return f"branches={list(self.branches)}"


def _are_alike(norms: Sequence[nn.Module]) -> bool:
    """Whether one op may stand for all of these: batch norms of one state, and no one watches."""
    return all(
        type(norm) is nn.BatchNorm2d
        and norm.affine
        and norm.track_running_stats
        and norm.training == norms[0].training
        and norm.eps == norms[0].eps
        and not (norm._forward_hooks or norm._forward_pre_hooks or norm._backward_hooks)
        for norm in norms
    )


def _folded(norms: Sequence[nn.BatchNorm2d]) -> tuple[Tensor, Tensor]:
    """The scales and shifts [K, channels] of norms with running statistics, at least float32."""
    names = ("weight", "bias", "running_mean", "running_var")
    gamma, beta, mean, var = (_stacked(norms, name) for name in names)
    wide = torch.promote_types(gamma.dtype, torch.float32)
    scale = gamma.to(wide) * torch.rsqrt(var.to(wide) + norms[0].eps)
    return scale, beta - mean * scale


def _stacked(norms: Sequence[nn.BatchNorm2d], name: str) -> Tensor:
    return torch.stack([getattr(norm, name) for norm in norms])
