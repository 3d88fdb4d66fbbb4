"""1 x 1 convolution by weights of which two of every four inputs are kept, by torch's own kernels.

They exist on CUDA from compute capability 8.0 on, for 16-bit weights of whole tiles.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

_OUTPUTS, _INPUTS = 32, 64  # multiples that every backend of torch accepts
_DTYPES = (torch.float16, torch.bfloat16)
_CAPABILITY = (8, 0)

_compressed = WeakIdKeyDictionary()  # of each tensor of values: its version, and its weight


def why_not(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> str | None:
    """Why torch has no kernel for a weight [O, I, 1, 1]; None if it has one."""
    if shape[0] % _OUTPUTS or shape[1] % _INPUTS:
        return (
            f"2:4 on CUDA takes multiples of {_OUTPUTS} outputs and {_INPUTS} inputs; "
            f"the weight has {shape[0]} and {shape[1]}"
        )
    if dtype not in _DTYPES:
        return f"2:4 on CUDA takes float16 and bfloat16; the weight is {dtype}"
    capability = torch.cuda.get_device_capability(device)
    if capability < _CAPABILITY:
        return f"2:4 needs compute capability 8.0; {device} has {capability[0]}.{capability[1]}"
    return None


def convolve(x: Tensor, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`conv2d(x, weight, bias)` of a weight [O, I, 1, 1] with these packed values.

    The weight is compressed once for each version of the values.
    """
    n, c, h, w = x.shape
    version, compressed = _compressed.get(values, (None, None))
    if compressed is None or version != values._version:
        matrix = weight.detach().flatten(1).contiguous()
        compressed = torch.sparse.to_sparse_semi_structured(matrix)
        _compressed[values] = values._version, compressed
    pixels = x.permute(0, 2, 3, 1).reshape(-1, c)
    y: Tensor = torch.nn.functional.linear(pixels, compressed, bias)
    return y.view(n, h, w, -1).permute(0, 3, 1, 2)
