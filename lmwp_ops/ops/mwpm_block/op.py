"""Registration of `mwpm_block`: schema, fake, autocast and backends."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lmwp_ops import _dispatch, _loader
from lmwp_ops._autograd import invoke
from lmwp_ops._layout import empty_like_layout
from lmwp_ops._library import define
from lmwp_ops._registration import register
from lmwp_ops.ops.multiscale_mix.checks import Branches, split_branches
from lmwp_ops.ops.mwpm_block import reference
from lmwp_ops.ops.mwpm_block.checks import OP, check
from lmwp_ops.ops.mwpm_block.example import example

_SCHEMA = (
    "(Tensor x, Tensor[] expand, Tensor[] gate, Tensor[] depthwise, Tensor[] project, "
    "int[] octaves, int[] dilations, Tensor? packed=None) -> Tensor"
)
define(OP, _SCHEMA)
# Implemented by the compiled library _C.
define(f"{OP}_cpp", _SCHEMA)
define(f"{OP}_pack_cpp", "(Tensor[] expand, Tensor[] depthwise, Tensor[] project) -> Tensor")


def mwpm_block(
    x: Tensor,
    expand: Sequence[Tensor],
    gate: Sequence[Tensor],
    depthwise: Sequence[Tensor],
    project: Sequence[Tensor],
    branches: Branches,
    packed: Tensor | None = None,
) -> Tensor:
    """A residual bottleneck over depthwise branches that each image weighs for itself.

    The multi-scale weight pruning module (MWPM) of LMWP-Net with batch norms folded, for
    inference: u = PReLU(scale * conv(x) + shift), 1 x 1; a = softmax over the branches of
    expand(PReLU(reduce(mean over pixels of u))); w = relu(a - threshold), divided by its sum over
    the branches; out = PReLU(x + scale * conv(multiscale_mix(u, w)) + shift), 1 x 1. What lies
    between x and out never reaches memory that others see.

    Args:
        x: [N, C, H, W]; float32, float16, bfloat16, or float64 (reference only). Any strides.
        expand: weight [m, C, 1, 1], scale [m], shift [m], slope [m].
        gate: of the layer reduce its weight [h, m], bias [h] and slope [h], of expand its weight
            [K * m, h] and bias [K * m], branch after branch; the threshold [m], below 1 / K.
        depthwise: weights [K, m, 3, 3], scale [K, m], shift [K, m]; see `multiscale_mix`.
        project: weight [C, m, 1, 1], scale [C], shift [C], slope [C].
        branches: K pairs (octave, dilation), octave 0 to 15, dilation at least 1.
        packed: what `pack` made of expand, depthwise and project as they are now, so that the CPU
            kernel does not do it again.

    Parameters have the dtype of x; with 16-bit x they may stay float32.

    Returns:
        [N, C, H, W] with dtype and memory format of x; results are deterministic.

    Raises:
        ValueError: an argument does not fit, or a gradient is asked for; the message names it.
        BackendError: a backend forced by `use_backend` cannot run the call.
    """
    args = _bind(x, expand, gate, depthwise, project, branches, packed)
    if _dispatch.is_decomposed():
        check(*args)
        return reference.forward(*args)
    out: Tensor = invoke(OP, check, args)
    return out


def _bind(
    x: Tensor,
    expand: Sequence[Tensor],
    gate: Sequence[Tensor],
    depthwise: Sequence[Tensor],
    project: Sequence[Tensor],
    branches: Branches,
    packed: Tensor | None = None,
) -> tuple[Any, ...]:
    layers = (list(layer) for layer in (expand, gate, depthwise, project))
    return x, *layers, *split_branches(OP, branches), packed


def pack(
    expand: Sequence[Tensor], depthwise: Sequence[Tensor], project: Sequence[Tensor]
) -> Tensor | None:
    """The parameters as the CPU kernel reads them on this processor; None where it does not run."""
    like = expand[0]
    if _loader.status()["_C"] or like.device.type != "cpu" or like.dtype == torch.float64:
        return None
    op = getattr(torch.ops.lmwp_ops, f"{OP}_pack_cpp").default
    packed: Tensor = op(list(expand), list(depthwise), list(project))
    return packed


def _fake(x: Tensor, *_: Any) -> Tensor:
    return empty_like_layout(x, x.shape)


register(
    OP,
    check=check,
    fake=_fake,
    reference=reference.forward,
    compiled=("cpp",),
    bind=_bind,
    example=example,
)
