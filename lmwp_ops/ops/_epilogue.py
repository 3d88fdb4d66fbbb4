"""The epilogue the ops share: per-channel affine (a folded batch norm), then PReLU.

scale, shift and slope hold one [C] per branch, or nothing, which leaves that step out.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lmwp_ops import _autocast

Parameters = Sequence[Tensor]


def compute_dtype(x: Tensor) -> torch.dtype:
    """What a reference computes 16-bit features in: float32, on a GPU their own dtype."""
    return x.dtype if x.dtype == torch.float64 or x.is_cuda else torch.float32


def output_dtype(x: Tensor, y: Tensor) -> torch.dtype:
    """That of the features; under autocast, in decomposed code, whatever torch made of them."""
    return y.dtype if _autocast.is_on(x.device.type) else x.dtype


def apply_epilogue(
    z: Tensor, b: int, scale: Parameters, shift: Parameters, slope: Parameters
) -> Tensor:
    """`prelu(scale * z + shift)` of branch `b` with z [N, C, H, W].

    Computed in the wider of the dtypes of `z` and the parameters, returned in that of `z`.
    """
    y = z
    if scale:
        y = y * _per_channel(scale[b]) + _per_channel(shift[b])
    if slope:
        wide = torch.promote_types(y.dtype, slope[b].dtype)
        y = F.prelu(y.to(wide), slope[b].to(wide))
    return y.to(z.dtype)


def epilogue_backward(
    grad: Tensor,
    z: Tensor | None,
    b: int,
    scale: Parameters,
    shift: Parameters,
    slope: Parameters,
    wanted: Sequence[bool],
) -> tuple[Tensor, tuple[Tensor | None, Tensor | None, Tensor | None]]:
    """The gradient of z, and those of (scale, shift, slope) that are `wanted`.

    With u = scale * z + shift: du = dy where u > 0, else slope * dy; dslope sums dy * u where
    u <= 0; dscale sums du * z; dshift sums du; dz is scale * du. `z` is needed where there is a
    slope or the gradient of the scale is wanted.
    """
    dims = (0, 2, 3)
    wants_scale, wants_shift, wants_slope = wanted
    grad_scale = grad_shift = grad_slope = None
    du = grad
    if slope:
        assert z is not None
        u = z * _per_channel(scale[b]) + _per_channel(shift[b]) if scale else z
        wide = torch.promote_types(u.dtype, slope[b].dtype)
        # The gradient of F.prelu: one pass, where torch.where and products are six.
        du, shares = torch.ops.aten._prelu_kernel_backward(
            grad.to(wide), u.to(wide), _per_channel(slope[b]).to(wide)
        )
        if wants_slope:
            grad_slope = shares.sum(dims).to(slope[b].dtype)  # [C]
    if wants_shift:
        grad_shift = du.sum(dims).to(shift[b].dtype)
    if wants_scale:
        assert z is not None
        grad_scale = (du * z).sum(dims).to(scale[b].dtype)
    dz = du * _per_channel(scale[b]) if scale else du
    return dz.to(grad.dtype), (grad_scale, grad_shift, grad_slope)


def strip_epilogue(
    grads: list[Tensor],
    xs: list[Tensor],
    convolve: Callable[[list[Tensor]], list[Tensor]],
    scale: Parameters,
    shift: Parameters,
    slope: Parameters,
    wanted: Sequence[bool],
) -> tuple[list[Tensor], tuple[list[Tensor], list[Tensor], list[Tensor]]]:
    """Gradients of the sums that an epilogue was applied to, and those `wanted` of its parameters.

    `convolve` computes the sums of float32 branches again; it is called only where they are needed.
    """
    kinds: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
    if not (scale or slope):
        return grads, kinds
    sums: list[Tensor] | list[None] = [None] * len(grads)
    if slope or wanted[0]:
        sums = convolve([x.float() for x in xs])
    stripped = []
    for b, (grad, z) in enumerate(zip(grads, sums, strict=True)):
        dz, gradients = epilogue_backward(grad.float(), z, b, scale, shift, slope, wanted)
        stripped.append(dz.to(grad.dtype))
        for kind, gradient in zip(kinds, gradients, strict=True):
            if gradient is not None:
                kind.append(gradient)
    return stripped, kinds


def _per_channel(parameter: Tensor) -> Tensor:
    return parameter.view(-1, 1, 1)  # [C, 1, 1]
