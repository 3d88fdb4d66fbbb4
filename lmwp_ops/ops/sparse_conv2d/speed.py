"""How long convolutions by dense and by pruned weights take, from measurements.

A convolution takes so long for the call, for each element read and written, and for each product
of a kept weight and a pixel; single values also for each product that is pruned, as every row of a
slab is visited whatever it holds. The figures were fitted to 177 float32 measurements of 1 x 1
(16 to 640 channels, 11 to 112 pixels a side), 3 x 3 and depthwise convolutions on one core of a
Xeon at 2.5 GHz with AVX-512, densities 5 to 70 %; half of the gains are within 9 % of what they
predict, nine of ten within 28 %. What counts is the ratio of two times, which other processors are
taken to share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Size = tuple[int, int]


@dataclass(frozen=True)
class Speed:
    """Nanoseconds for a call, an element of the maps, a product, and one that is pruned."""

    call: float
    element: float
    product: float
    pruned: float = 0.0

    def time(self, elements: float, products: float, density: float = 1.0) -> float:
        """Of `products` of the dense weight, of which a share is kept."""
        product = density * self.product + (1 - density) * self.pruned
        return self.call + self.element * elements + product * products


_CALL, _TORCH_CALL = 25e3, 8e3
_DENSE = Speed(_TORCH_CALL, 0.064, 0.0178)
_DENSE_KERNEL = Speed(_TORCH_CALL, 0.764, 0.0197)
_DENSE_DEPTHWISE = Speed(30e3, 0.0, 0.215)
_SPARSE = {
    "unstructured": Speed(_CALL, 0.144, 0.0378, 0.0046),
    "block": Speed(_CALL, 0.161, 0.0293),
    "channels": Speed(_CALL, 0.245, 0.0280),
    "taps": Speed(_CALL, 0.5, 0.060),
}
_CHANNELS_KERNEL = Speed(_CALL, 0.246, 0.0260)
_TAPS_DEPTHWISE = Speed(40e3, 0.42, 0.02)


def _elements(shape: Sequence[int], groups: int, size: Size, read: float = 1.0) -> float:
    """Elements read, of a share of the input channels, and written."""
    return (shape[0] + read * shape[1] * groups) * size[0] * size[1]


def _dense(shape: Sequence[int]) -> Speed:
    if shape[2] * shape[3] == 1:
        return _DENSE
    return _DENSE_DEPTHWISE if shape[1] == 1 else _DENSE_KERNEL


def _sparse(format: str, shape: Sequence[int]) -> Speed:
    if format == "channels" and shape[2] * shape[3] > 1:
        return _CHANNELS_KERNEL
    if format == "taps" and shape[1] == 1:
        return _TAPS_DEPTHWISE
    return _SPARSE[format]


def predicted_gain(
    format: str, density: float, shape: Sequence[int], groups: int, size: Size
) -> float:
    """How many times as fast a format is as torch's dense convolution, on the CPU."""
    products = shape[0] * shape[1] * shape[2] * shape[3] * size[0] * size[1]
    dense = _dense(shape).time(_elements(shape, groups, size), products)
    # Pruned input channels are not read: a square root on either side.
    read = density**0.5 if format == "channels" else 1.0
    elements = _elements(shape, groups, size, read)
    return dense / _sparse(format, shape).time(elements, products, density)


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
