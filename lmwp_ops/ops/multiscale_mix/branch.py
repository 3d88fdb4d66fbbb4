"""What a branch of the multi-scale mixes does in plain torch, and the adjoint of each step.

Branch k pools u [N, m, H, W] by 2^octave, rounding up, convolves each channel and resizes back.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

aten = torch.ops.aten


def pool(u: Tensor, octave: int) -> Tensor:
    """Means over 2^octave x 2^octave windows; those at the far borders over what is there."""
    return F.avg_pool2d(u, 2**octave, ceil_mode=True) if octave else u


def pool_backward(grad: Tensor, u: Tensor, octave: int) -> Tensor:
    """The gradient of u."""
    if not octave:
        return grad
    window = [2**octave] * 2
    return aten.avg_pool2d_backward(grad, u, window, window, [0, 0], True, True, None)


def convolve(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Depthwise 3 x 3 with zero padding that keeps the size; weight is [m, 3, 3]."""
    groups = weight.shape[0]
    return F.conv2d(x, weight[:, None], padding=dilation, dilation=dilation, groups=groups)


def convolve_backward(
    grad: Tensor, x: Tensor, weight: Tensor, dilation: int, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """The gradients of x and of weight, each where wanted."""
    rate, kernel = [dilation] * 2, weight[:, None]
    dx, dw, _ = aten.convolution_backward(
        *(grad, x, kernel, None, [1, 1], rate, rate, False, [0, 0], weight.shape[0]),
        [*wanted, False],
    )
    return dx, dw.reshape(weight.shape) if wanted[1] else dw


def resize(y: Tensor, like: Tensor, octave: int) -> Tensor:
    """Bilinear, align_corners=False, to the size of `like`."""
    if not octave:
        return y
    size = like.shape[-2:]
    # Autocast on the CPU resizes in float32; the terms of a sum keep one dtype.
    return F.interpolate(y, size=size, mode="bilinear", align_corners=False).to(y.dtype)


def resize_backward(grad: Tensor, like: Tensor, octave: int) -> Tensor:
    """The gradient of what was resized, which had the size of `like`."""
    if not octave:
        return grad
    sizes = list(grad.shape[-2:]), list(like.shape)
    return aten.upsample_bilinear2d_backward(grad, *sizes, False, None, None)


def per_image(values: Tensor) -> Tensor:
    """[N, m] over [N, m, H, W]."""
    return values[:, :, None, None]


def per_channel(values: Tensor) -> Tensor:
    """[m] over [N, m, H, W]."""
    return values[:, None, None]


def weigh(share: Tensor, y: Tensor) -> Tensor:
    """share [N, m] times y [N, m, H, W], and 0 where the share is 0, whatever y is there."""
    wide = per_image(share)
    return torch.where(wide != 0, wide * y, 0)
