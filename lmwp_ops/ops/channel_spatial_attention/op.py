"""Registration of `channel_spatial_attention`: schema, fake, autograd, autocast and backends."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lmwp_ops import _dispatch, _triton
from lmwp_ops._autograd import invoke
from lmwp_ops._layout import empty_like_layout
from lmwp_ops._library import define
from lmwp_ops._registration import empty_gradients, register, register_gradient
from lmwp_ops.ops.channel_spatial_attention import cuda_limits, reference
from lmwp_ops.ops.channel_spatial_attention.checks import OP, check, check_backward
from lmwp_ops.ops.channel_spatial_attention.example import example

Layer = Tensor | tuple[Tensor, Tensor] | None
"""A linear layer: its weight [out, in], alone or with its bias [out]."""

_ARGUMENTS = "Tensor x, Tensor[] reduce, Tensor[] expand, Tensor[] spatial, bool mean, bool max"
_FORWARD = f"({_ARGUMENTS}) -> Tensor"
_BACKWARD = (
    f"(Tensor grad, {_ARGUMENTS}, bool[4] wanted) -> (Tensor[], Tensor[], Tensor[], Tensor[])"
)
define(OP, _FORWARD)
define(f"{OP}_backward", _BACKWARD)
# Implemented by the compiled libraries _C and _C_cuda.
for _backend in ("cpp", "cuda"):
    define(f"{OP}_{_backend}", _FORWARD)
define(f"{OP}_backward_cpp", _BACKWARD)


def channel_spatial_attention(
    x: Tensor,
    reduce: Layer = None,
    expand: Layer = None,
    spatial: Sequence[Tensor] = (),
    *,
    mean: bool = True,
    max: bool = True,
) -> Tensor:
    """Gate the channels of a feature, then its pixels.

    e = x * sigmoid(MLP(mean over pixels of x) + MLP(max over pixels of x)) per image and channel,
    with MLP(v) = expand(relu(reduce(v))); then out = e * sigmoid(sum over kernels of
    conv(kernel, [mean over channels of e; max over channels of e])), zero padded: CBAM (Woo et al.,
    ECCV 2018), with several kernels instead of one if asked for. With one pool and no kernels it
    is squeeze-and-excitation (Hu et al., CVPR 2018).

    Args:
        x: [N, C, H, W]; float32, float16, bfloat16, or float64 (reference only). Any strides.
        reduce: weight [h, C], or a pair of that and a bias [h]; None, as is expand, for no
            channel gate.
        expand: weight [C, h], or a pair of that and a bias [C].
        spatial: none (no spatial gate) to three kernels [2, k, k], k being 3, 5 or 7, whose first
            plane is for the mean; [1, k, k] where one pool is used.
        mean, max: which pools are used, by both gates; at least one.

    Parameters have the dtype of x; with 16-bit x they may stay float32. Under autocast x is cast
    and the parameters are not.

    Returns:
        [N, C, H, W] with dtype and memory format of x.

    Differentiable once with respect to every tensor; of equal maxima the first has the gradient.
    Results are deterministic.

    Raises:
        ValueError: an argument does not fit; the message names it.
        BackendError: a backend forced by `use_backend` cannot run the call.
    """
    args = _bind(x, reduce, expand, spatial, mean=mean, max=max)
    if _dispatch.is_decomposed():
        check(*args)
        return reference.forward(*args)
    out: Tensor = invoke(OP, check, args)
    return out


def _bind(
    x: Tensor,
    reduce: Layer = None,
    expand: Layer = None,
    spatial: Sequence[Tensor] = (),
    *,
    mean: bool = True,
    max: bool = True,
) -> tuple[Any, ...]:
    return x, _listed(reduce), _listed(expand), list(spatial), mean, max


def _listed(layer: Layer) -> list[Tensor]:
    if layer is None:
        return []
    return [layer] if isinstance(layer, Tensor) else list(layer)


def _fake_forward(x: Tensor, *_: Any) -> Tensor:
    return empty_like_layout(x, x.shape)


def _fake_backward(grad: Tensor, x: Tensor, *args: Any) -> tuple[list[Tensor], ...]:
    *parameters, _, _, wanted = args
    return empty_gradients([x], parameters, wanted)


register(
    OP,
    check=check,
    fake=_fake_forward,
    reference=reference.forward,
    compiled=("cuda", "cpp"),
    refuse={"cuda": cuda_limits.refuse},
    triton=_triton.launcher(__package__, "forward"),
    bind=_bind,
    example=example,
)
register_gradient(
    OP,
    check=check_backward,
    fake=_fake_backward,
    reference=reference.backward,
    compiled={"cpp": torch.ops.lmwp_ops.channel_spatial_attention_backward_cpp.default},
    triton=_triton.launcher(__package__, "backward"),
)
