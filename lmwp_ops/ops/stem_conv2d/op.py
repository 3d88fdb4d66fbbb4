"""Registration of `stem_conv2d`: schema, fake, autocast and backends."""

from typing import Any

import torch
from torch import Tensor

from lmwp_ops import _dispatch
from lmwp_ops._autograd import invoke
from lmwp_ops._library import define
from lmwp_ops._registration import register
from lmwp_ops.ops.stem_conv2d import reference
from lmwp_ops.ops.stem_conv2d.checks import OP, check
from lmwp_ops.ops.stem_conv2d.example import example

_SCHEMA = (
    "(Tensor x, Tensor weight, Tensor[] scale, Tensor[] shift, Tensor[] slope, int stride, "
    "bool channels_last) -> Tensor"
)
define(OP, _SCHEMA)
# Implemented by the compiled library _C.
define(f"{OP}_cpp", _SCHEMA)


def stem_conv2d(
    x: Tensor,
    weight: Tensor,
    *,
    stride: int = 2,
    affine: tuple[Tensor, Tensor] | None = None,
    slope: Tensor | None = None,
    channels_last: bool = False,
) -> Tensor:
    """Convolve a feature of a few channels, as the first layer of a network, for inference.

    out = PReLU(scale * conv(x) + shift) with zero padding of k // 2: a dense convolution whose
    batch norm is folded.

    Args:
        x: [N, C, H, W]; float32, float16, bfloat16, or float64 (reference only). Any strides.
        weight: [out, C, k, k] with k 1, 3, 5 or 7.
        stride: 1 or 2.
        affine: scale and shift, both [out]; a folded batch norm.
        slope: of the PReLU, [out].
        channels_last: give the output in channels_last, whatever the memory format of x is.

    Parameters have the dtype of x; with 16-bit x they may stay float32.

    Returns:
        [N, out, ceil(H / stride), ceil(W / stride)] with dtype and, unless `channels_last`, memory
        format of x; results are deterministic.

    Raises:
        ValueError: an argument does not fit, or a gradient is asked for; the message names it.
        BackendError: a backend forced by `use_backend` cannot run the call.
    """
    args = _bind(x, weight, stride=stride, affine=affine, slope=slope, channels_last=channels_last)
    if _dispatch.is_decomposed():
        check(*args)
        return reference.forward(*args)
    out: Tensor = invoke(OP, check, args)
    return out


def _bind(
    x: Tensor,
    weight: Tensor,
    *,
    stride: int = 2,
    affine: tuple[Tensor, Tensor] | None = None,
    slope: Tensor | None = None,
    channels_last: bool = False,
) -> tuple[Any, ...]:
    scale, shift = ([affine[0]], [affine[1]]) if affine is not None else ([], [])
    return x, weight, scale, shift, [] if slope is None else [slope], stride, channels_last


def _fake(x: Tensor, weight: Tensor, *args: Any) -> Tensor:
    *_, stride, channels_last = args
    n, _, height, width = x.shape
    shape = (n, weight.shape[0], (height - 1) // stride + 1, (width - 1) // stride + 1)
    strides = reference.output_strides(x, shape, channels_last)
    return torch.empty_strided(shape, strides, dtype=x.dtype, device=x.device)


register(
    OP,
    check=check,
    fake=_fake,
    reference=reference.forward,
    compiled=("cpp",),
    bind=_bind,
    example=example,
)
