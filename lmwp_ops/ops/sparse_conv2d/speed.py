"""How long convolutions by dense and by pruned weights take, from measurements.

A convolution takes so long for the call, for each element read and written, and for each product
of a kept weight and a pixel. The figures were fitted to float32 measurements of 1 x 1 (16 to 640
channels, 11 to 112 pixels a side) and 3 x 3 convolutions on one core of a Xeon at 2.5 GHz with
AVX-512, densities 5 to 70 %; half of the measurements are within 16 % of them. What counts is the
ratio of two of them, which other processors are taken to share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Size = tuple[int, int]


@dataclass(frozen=True)
class Speed:
    """Nanoseconds for a call, an element of the maps, and a product."""

    call: float
    element: float
    product: float

    def time(self, elements: float, products: float) -> float:
        return self.call + self.element * elements + self.product * products


_CALL, _TORCH_CALL = 25e3, 8e3
_DENSE = Speed(_TORCH_CALL, 0.067, 0.0154)
_DENSE_KERNEL = Speed(_TORCH_CALL, 0.332, 0.0199)
_DENSE_DEPTHWISE = Speed(_TORCH_CALL, 0.0, 0.204)
_SPARSE = {
    "unstructured": Speed(_CALL, 0.196, 0.0418),
    "block": Speed(_CALL, 0.140, 0.0270),
    "channels": Speed(_CALL, 0.200, 0.0252),
    "taps": Speed(_CALL, 0.500, 0.0480),
}
_CHANNELS_KERNEL = Speed(_CALL, 0.266, 0.0218)


def _work(shape: Sequence[int], groups: int, size: Size) -> tuple[int, int]:
    """Elements read and written, and products, of a dense [O, I, kh, kw] on maps of this size."""
    pixels = size[0] * size[1]
    products = shape[0] * shape[1] * shape[2] * shape[3] * pixels
    return (shape[0] + shape[1] * groups) * pixels, products


def _dense(shape: Sequence[int]) -> Speed:
    if shape[2] * shape[3] == 1:
        return _DENSE
    return _DENSE_DEPTHWISE if shape[1] == 1 else _DENSE_KERNEL


def _sparse(format: str, shape: Sequence[int]) -> Speed:
    if format == "channels" and shape[2] * shape[3] > 1:
        return _CHANNELS_KERNEL
    return _SPARSE[format]


def predicted_gain(
    format: str, density: float, shape: Sequence[int], groups: int, size: Size
) -> float:
    """How many times as fast a format is as torch's dense convolution, on the CPU."""
    elements, products = _work(shape, groups, size)
    dense = _dense(shape).time(elements, products)
    # Pruned channels are neither read nor computed: a square root on either side.
    moved = elements * density**0.5 if format == "channels" else elements
    return dense / _sparse(format, shape).time(moved, density * products)


def break_even(format: str, shape: Sequence[int], groups: int, size: Size) -> float:
    """The density, 0 to 1, below which a format is faster than torch's dense convolution."""
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        if predicted_gain(format, middle, shape, groups, size) > 1:
            low = middle
        else:
            high = middle
    return low
