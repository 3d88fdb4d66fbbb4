"""How sizes reach Triton kernels.

Of an integer in a tuple Triton makes a constant where it is 1, and it compiles a variant of the
kernel for every set of them that are multiples of 16. Passed sixteenfold all sizes are alike.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

_SHIFT = tl.constexpr(4)
MOST = 2**27 - 1  # sixteenfold it still has 32 bits; 64 make another variant


class Strides(NamedTuple):
    """Of a feature, in elements or vectors."""

    image: int
    channel: int
    row: int
    column: int


def passed(sizes: Any) -> Any:
    """An integer, or a tuple with any such in it, as kernels take it."""
    if isinstance(sizes, int):
        return sizes << _SHIFT.value
    inner = [passed(size) for size in sizes]
    return type(sizes)(*inner) if hasattr(sizes, "_fields") else tuple(inner)


@triton.jit
def plain(size):
    """The integer that was passed."""
    return size >> _SHIFT


@triton.jit
def plain_strides(strides):
    """The strides that were passed."""
    return Strides(*[plain(stride) for stride in strides])


@triton.jit
def mine(tensors, sizes):
    """Tensors and passed sizes of that part of a launch that a program belongs to; each part's
    sizes begin with the number of its first program."""
    t, s = tensors[0], sizes[0]
    for part in tl.static_range(1, len(sizes)):
        if tl.program_id(0) >= plain(sizes[part].first):
            t, s = tensors[part], sizes[part]
    return t, s
