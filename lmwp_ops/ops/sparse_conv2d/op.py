"""Registration of `sparse_conv2d`: schema, fake, autograd, autocast and backends."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lmwp_ops import _dispatch, _triton
from lmwp_ops._autograd import invoke
from lmwp_ops._layout import empty_like_layout, is_channels_last
from lmwp_ops._library import define
from lmwp_ops._registration import empty_gradients, register, register_gradient
from lmwp_ops.ops._arguments import argument_error
from lmwp_ops.ops.sizes.planes import is_planar
from lmwp_ops.ops.sparse_conv2d import reference
from lmwp_ops.ops.sparse_conv2d.checks import OP, check, check_backward, output_shape
from lmwp_ops.ops.sparse_conv2d.example import example
from lmwp_ops.ops.sparse_conv2d.layout import TORCH_FORMATS
from lmwp_ops.ops.sparse_conv2d.weight import SparseConvWeight

_MOST_ROWS = 256  # of blocks in Triton, and columns

Pair = int | Sequence[int]
"""One int for both directions, or (vertical, horizontal)."""

_ARGUMENTS = (
    "Tensor x, Tensor values, Tensor[] indices, Tensor[] bias, Tensor[] scale, Tensor[] shift, "
    "Tensor[] slope, str format, int[] shape, int[] block, int[] stride, int[] padding, "
    "int[] dilation, int groups"
)
_FORWARD = f"({_ARGUMENTS}) -> Tensor"
_KINDS = ", ".join(["Tensor[]"] * 7)
_BACKWARD = f"(Tensor grad, {_ARGUMENTS}, bool[7] wanted) -> ({_KINDS})"
define(OP, _FORWARD)
define(f"{OP}_backward", _BACKWARD)
# Implemented by the compiled libraries _C and _C_cuda.
for _backend in ("cpp", "cuda"):
    define(f"{OP}_{_backend}", _FORWARD)
define(f"{OP}_backward_cpp", _BACKWARD)


def sparse_conv2d(
    x: Tensor,
    weight: SparseConvWeight,
    bias: Tensor | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    affine: tuple[Tensor, Tensor] | None = None,
    slope: Tensor | None = None,
) -> Tensor:
    """Convolve by a pruned weight: `prelu(scale * (conv2d(x, weight) + bias) + shift)`.

    What was pruned costs nothing: see `SparseConvWeight` for the formats, and its `from_dense` for
    when a format is worth it. One in the format `dense` is convolved by torch.

    Args:
        x: [N, C, H, W] in float16, bfloat16, float32 or float64 (reference only); any strides.
        weight: of O output channels.
        bias: [O].
        stride, padding, dilation: as in `torch.nn.functional.conv2d`, ints or pairs; the padding
            is of zeros.
        affine: (scale, shift), each [O]; a folded batch norm.
        slope: PReLU slopes [O].

    Parameters have the dtype of x; with 16-bit x they may stay float32. Under autocast x is cast
    and the parameters are not.

    Returns:
        [N, O, H', W'], with the dtype and memory format of x.

    Differentiable once with respect to x, the kept values and every other parameter; results are
    deterministic.

    Raises:
        ValueError: an argument does not fit; the text names it, what was expected and what came.
        BackendError: a backend forced by `use_backend` cannot run the call.
    """
    args = _bind(
        *(x, weight, bias),
        stride=stride,
        padding=padding,
        dilation=dilation,
        affine=affine,
        slope=slope,
    )
    if _dispatch.is_decomposed():
        check(*args)
        return reference.forward(*args)
    y: Tensor = invoke(OP, check, args)
    return y


def _bind(
    x: Tensor,
    weight: SparseConvWeight,
    bias: Tensor | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    affine: tuple[Tensor, Tensor] | None = None,
    slope: Tensor | None = None,
) -> tuple[Any, ...]:
    if not isinstance(weight, SparseConvWeight):
        raise argument_error(OP, "weight", "a SparseConvWeight", type(weight).__name__)
    scale, shift = ([], []) if affine is None else ([affine[0]], [affine[1]])
    return (
        *(x, weight.values, list(weight.indices), [] if bias is None else [bias], scale, shift),
        *([] if slope is None else [slope], weight.format, list(weight.shape), list(weight.block)),
        *(_pair("stride", stride), _pair("padding", padding), _pair("dilation", dilation)),
        weight.groups,
    )


def _pair(name: str, given: Pair) -> list[int]:
    if isinstance(given, int):
        return [given, given]
    pair = list(given)
    if len(pair) != 2 or not all(isinstance(side, int) for side in pair):
        raise argument_error(OP, name, "an int or two", given)
    return pair


def _fake_forward(x: Tensor, *args: Any) -> Tensor:
    shape, _, stride, padding, dilation = args[7:12]
    return empty_like_layout(x, output_shape(x, shape, stride, padding, dilation))


def _fake_backward(grad: Tensor, x: Tensor, *args: Any) -> tuple[list[Tensor], ...]:
    values, _, *lists = args[:6]
    wanted = list(args[-1])
    wanted[2] = False
    return empty_gradients([x], ([values], [], *lists), wanted)


_FORMAT, _BLOCK = 7, 9  # where they are among the arguments


def _refuse_cpp(*args: Any) -> str | None:
    return TORCH_FORMATS.get(args[_FORMAT])


def _refuse_triton(*args: Any) -> str | None:
    if max(args[_BLOCK]) > _MOST_ROWS:
        return f"it has kernels for blocks of at most {_MOST_ROWS} rows and columns"
    return TORCH_FORMATS.get(args[_FORMAT])


def _refuse_cuda(x: Tensor, values: Tensor, indices: list[Tensor], *rest: Any) -> str | None:
    format, shape, block, stride, padding = rest[4:9]
    if format not in ("unstructured", "block") or shape[2:] != [1, 1]:
        return "it computes 1 x 1 convolutions by blocks and by single values"
    if stride != [1, 1] or padding != [0, 0]:
        return "it computes convolutions of stride 1 without padding"
    if block[0] not in (1, 4, 16):
        return f"it has kernels for blocks of 1, 4 and 16 rows; these have {block[0]}"
    if block[0] == 16 and x.dtype != torch.float32:
        return "it leaves 16 rows of 16 bits to kernels that use tensor cores"
    if not is_planar(x) or is_channels_last(x):
        return "it reads planes whose pixels lie in a row"
    return None


register(
    OP,
    check=check,
    fake=_fake_forward,
    reference=reference.forward,
    compiled=("cuda", "cpp"),
    triton=_triton.launcher(__package__, "forward"),
    bind=_bind,
    example=example,
    refuse={"cpp": _refuse_cpp, "cuda": _refuse_cuda, "triton": _refuse_triton},
)
register_gradient(
    OP,
    check=check_backward,
    fake=_fake_backward,
    reference=reference.backward,
    compiled={"cpp": torch.ops.lmwp_ops.sparse_conv2d_backward_cpp.default},
    triton=_triton.launcher(__package__, "backward"),
    refuse={
        "cpp": lambda grad, *args: _refuse_cpp(*args),
        "triton": lambda grad, *args: _refuse_triton(*args),
    },
)
