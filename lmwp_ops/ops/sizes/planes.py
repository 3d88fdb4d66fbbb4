"""Features as Triton kernels walk them plane by plane: the pixels of a channel lie in a row."""

from collections.abc import Sequence

from torch import Tensor

_VECTOR_BYTES = 16


def is_planar(x: Tensor) -> bool:
    """Whether the pixels of the channels of x [N, C, H, W] are in a row."""
    _, _, height, width = x.shape
    return (width == 1 or x.stride(3) == 1) and (height == 1 or x.stride(2) == width)


def planar(x: Tensor) -> Tensor:
    """x [N, C, H, W], or a dense copy where the pixels of its channels are not in a row."""
    return x if is_planar(x) else x.contiguous()


def vector(features: Sequence[Tensor]) -> int:
    """Pixels of the widest vector, at most 16 bytes, that all planes are made of."""
    width = _VECTOR_BYTES // features[0].element_size()
    while width > 1 and not all(_in_vectors(x, width) for x in features):
        width //= 2
    return width


def _in_vectors(x: Tensor, width: int) -> bool:
    aligned = x.data_ptr() % (width * x.element_size()) == 0
    sizes = (x.stride(0), x.stride(1), x.shape[2] * x.shape[3])
    return aligned and all(size % width == 0 for size in sizes)


def power_of_two(count: int) -> int:
    """The smallest that is not below a positive `count`."""
    return 1 << (count - 1).bit_length()


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)
