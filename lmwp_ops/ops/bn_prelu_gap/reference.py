"""Plain-torch truth of `bn_prelu_gap` and of its gradients."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lmwp_ops._layout import with_layout_of
from lmwp_ops.ops._epilogue import apply_epilogue, compute_dtype, epilogue_backward

Tensors = list[Tensor]


def statistics_dtype(x: Tensor) -> torch.dtype:
    """That of means and variances: float32, for float64 features float64."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def forward(
    xs: Tensors, weight: Tensors, bias: Tensors, slope: Tensors, eps: float
) -> tuple[Tensors, Tensors, Tensors, Tensors]:
    """(ys, means [N, C], batch means [C], biased batch variances [C]), a list of each."""
    outputs: tuple[Tensors, Tensors, Tensors, Tensors] = ([], [], [], [])
    for b, x in enumerate(xs):
        wide = statistics_dtype(x)
        count = x.numel() // x.shape[1]
        mean, var = torch.zeros(2, x.shape[1], dtype=wide, device=x.device).unbind()
        scale, shift = weight[b].to(wide), bias[b].to(wide)
        # With momentum 1 the running statistics become those of the batch, the variance unbiased.
        # Those of channels_last features torch sums in float32 alone, hence contiguous().
        dense = x.to(compute_dtype(x)).contiguous()
        z = F.batch_norm(dense, mean, var, scale, shift, True, 1.0, eps)
        y = apply_epilogue(z, b, [], [], slope)
        means = y.detach().mean((2, 3), dtype=wide)
        var = var * (1 - 1 / max(count, 1))
        found = (with_layout_of(x, y.to(x.dtype)), means, mean, var)
        for kind, output in zip(outputs, found, strict=True):
            kind.append(output)
    return outputs


def backward(
    grads: Tensors,
    xs: Tensors,
    weight: Tensors,
    bias: Tensors,
    slope: Tensors,
    batch_mean: Tensors,
    batch_var: Tensors,
    eps: float,
    wanted: list[bool],
) -> tuple[Tensors, Tensors, Tensors, Tensors]:
    """Gradients of (xs, weight, bias, slope); a kind not `wanted` is an empty list."""
    kinds: tuple[Tensors, Tensors, Tensors, Tensors] = ([], [], [], [])
    for b, x in enumerate(xs):
        wide = statistics_dtype(x)
        count = max(x.numel() // x.shape[1], 1)
        centred = x.to(wide) - _per_channel(batch_mean[b].to(wide))
        rstd = torch.rsqrt(batch_var[b].to(wide) + eps)  # [C]
        scale = weight[b].to(wide) * rstd
        slopes = [slope[b].to(wide)] if slope else []
        # u = scale * centred + bias is the epilogue of the ops without statistics.
        dz, (dscale, dshift, dslope) = epilogue_backward(
            *(grads[b].to(wide), centred, 0, [scale], [bias[b].to(wide)], slopes),
            wanted=(True, True, wanted[3] and bool(slope)),
        )
        assert dscale is not None
        assert dshift is not None
        # The mean and the variance depend on x as well.
        through_var = rstd.square() * scale * dscale / count
        dx = dz - _per_channel(scale * dshift / count) - centred * _per_channel(through_var)
        if wanted[0]:
            kinds[0].append(with_layout_of(x, dx.to(x.dtype)))
        if wanted[1]:
            kinds[1].append((dscale * rstd).to(weight[b].dtype))
        if wanted[2]:
            kinds[2].append(dshift.to(bias[b].dtype))
        if dslope is not None:
            kinds[3].append(dslope.to(slope[b].dtype))
    return kinds


def _per_channel(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1)  # [C, 1, 1]
