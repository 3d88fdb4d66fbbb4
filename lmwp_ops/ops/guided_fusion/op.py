"""Registration of `guided_fusion`: schema, fake, autocast and backends."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lmwp_ops import _dispatch
from lmwp_ops._autograd import invoke
from lmwp_ops._layout import empty_like_layout
from lmwp_ops._library import define
from lmwp_ops._registration import register
from lmwp_ops.ops.guided_fusion import reference
from lmwp_ops.ops.guided_fusion.checks import OP, check
from lmwp_ops.ops.guided_fusion.example import example

_SCHEMA = (
    "(Tensor[] xs, Tensor gate, Tensor[] encode, Tensor[] decode, "
    "Tensor[] guide, Tensor[] depthwise, Tensor[] fuse, int[] dilations) -> Tensor"
)
define(OP, _SCHEMA)
# Implemented by the compiled library _C.
define(f"{OP}_cpp", _SCHEMA)


def guided_fusion(
    encoder: Tensor,
    decoder: Tensor,
    gate: Tensor,
    encode: Sequence[Tensor],
    decode: Sequence[Tensor],
    guide: Sequence[Tensor],
    depthwise: Sequence[Tensor],
    fuse: Sequence[Tensor],
    dilations: Sequence[int],
) -> Tensor:
    """Fuse an encoder feature with a coarser decoder feature, which says where to look.

    Steps 4 and 5 of the multi-scale attention fusion module (MAFM) of LMWP-Net with batch norms
    folded, for inference. With conv a 1 x 1 convolution, norm a scale and a shift, up bilinear
    (align_corners=False) and dw_k depthwise 3 x 3 with zero padding:
    f = norm(conv(encoder)) * (1 + up(sigmoid(conv_guide(decoder)))) + up(norm(conv(decoder))) *
    gate; out = PReLU(norm(conv_fuse(f + sum over k of norm(dw_k(f))))). No resized feature is
    ever held.

    Args:
        encoder: [N, ce, H, W]; float32, float16, bfloat16, or float64 (reference only). Any
            strides.
        decoder: [N, cd, h, w] of any size.
        gate: [N, c], which channels of the decoder feature count.
        encode: weight [c, ce, 1, 1], scale [c], shift [c].
        decode: weight [c, cd, 1, 1], scale [c], shift [c].
        guide: weight [1, cd, 1, 1], bias [1].
        depthwise: weights [K, c, 3, 3], scale [K, c], shift [K, c].
        fuse: weight [co, c, 1, 1], scale [co], shift [co], slope [co].
        dilations: of the K depthwise convolutions, each at least 1.

    Gate and parameters have the dtype of encoder; with 16-bit features they may stay float32.

    Returns:
        [N, co, H, W] with dtype and memory format of encoder; results are deterministic.

    Raises:
        ValueError: an argument does not fit, or a gradient is asked for; the message names it.
        BackendError: a backend forced by `use_backend` cannot run the call.
    """
    args = _bind(encoder, decoder, gate, encode, decode, guide, depthwise, fuse, dilations)
    if _dispatch.is_decomposed():
        check(*args)
        return reference.forward(*args)
    out: Tensor = invoke(OP, check, args)
    return out


def _bind(
    encoder: Tensor,
    decoder: Tensor,
    gate: Tensor,
    encode: Sequence[Tensor],
    decode: Sequence[Tensor],
    guide: Sequence[Tensor],
    depthwise: Sequence[Tensor],
    fuse: Sequence[Tensor],
    dilations: Sequence[int],
) -> tuple[Any, ...]:
    layers = (list(layer) for layer in (encode, decode, guide, depthwise, fuse))
    return [encoder, decoder], gate, *layers, list(dilations)


def _fake(xs: Sequence[Tensor], *args: Any) -> Tensor:
    *_, fuse, _ = args
    n, _, height, width = xs[0].shape
    return empty_like_layout(xs[0], (n, fuse[0].shape[0], height, width))


register(
    OP,
    check=check,
    fake=_fake,
    reference=reference.forward,
    compiled=("cpp",),
    bind=_bind,
    example=example,
)
