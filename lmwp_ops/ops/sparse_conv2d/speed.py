"""How long convolutions by dense and by pruned weights take, from measurements.

A convolution takes so long for the call, for each element read and written, and for each product
of a kept weight and a pixel; single values also for each product that is pruned, as every row of a
slab is visited whatever it holds. The figures were fitted to float32 measurements of 1 x 1 (16 to
640 channels, 7 to 112 pixels a side), 3 x 3 and depthwise convolutions on one core, densities 5 to
81 %. What counts is the ratio of two times. It is taken to follow from how many products a
processor makes in a cycle: the more, the more all else weighs.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from lmwp_ops import _loader

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


@dataclass(frozen=True)
class Processor:
    """What was measured on one: convolutions of torch, and those by pruned weights.

    A 1 x 1 convolution is told from one with a larger kernel, and that from a depthwise one.
    """

    dense: Speed
    dense_kernel: Speed
    dense_depthwise: Speed
    unstructured: Speed
    block: Speed
    channels: Speed
    channels_kernel: Speed
    taps: Speed
    taps_depthwise: Speed

    def of_dense(self, shape: Sequence[int]) -> Speed:
        if shape[2] * shape[3] == 1:
            return self.dense
        return self.dense_depthwise if shape[1] == 1 else self.dense_kernel

    def of_sparse(self, format: str, shape: Sequence[int]) -> Speed:
        if format == "channels" and shape[2] * shape[3] > 1:
            return self.channels_kernel
        if format == "taps" and shape[1] == 1:
            return self.taps_depthwise
        speed: Speed = getattr(self, format)
        return speed


XEON = Processor(
    dense=Speed(8e3, 0.064, 0.0178),
    dense_kernel=Speed(8e3, 0.764, 0.0197),
    dense_depthwise=Speed(30e3, 0.0, 0.215),
    unstructured=Speed(25e3, 0.144, 0.0378, 0.0046),
    block=Speed(25e3, 0.161, 0.0293),
    channels=Speed(25e3, 0.245, 0.0280),
    channels_kernel=Speed(25e3, 0.246, 0.0260),
    taps=Speed(25e3, 0.5, 0.060),
    taps_depthwise=Speed(40e3, 0.42, 0.02),
)
"""An Intel Xeon at 2.5 GHz: two multiply-adds of 512 bits a cycle.

Of 177 gains half are within 9 % of what this predicts, nine of ten within 28 %.
"""

EPYC = Processor(
    dense=Speed(5.9e3, 0.065, 0.0208),
    dense_kernel=Speed(15.7e3, 0.179, 0.0192),
    dense_depthwise=Speed(52e3, 0.0, 0.0555),
    unstructured=Speed(16.8e3, 0.027, 0.0272, 0.0016),
    block=Speed(17.9e3, 0.033, 0.0204),
    channels=Speed(17.6e3, 0.052, 0.0196),
    channels_kernel=Speed(21.0e3, 0.161, 0.0207),
    taps=Speed(21.6e3, 0.121, 0.0419),
    taps_depthwise=Speed(31.2e3, 0.056, 0.0344),
)
"""An AMD EPYC of the fourth generation: one multiply-add of 512 bits a cycle, or two of 256.

Of 407 gains half are within 5 % of what this predicts, nine of ten within 16 %.
"""


@functools.cache
def processor() -> Processor:
    """The one measured that this machine's is taken to be like: servers of Intel have AVX-512 twice
    as wide as others, whose AVX2 makes as many products a cycle as an EPYC does."""
    if _loader.why_not("_host"):
        return EPYC
    from lmwp_ops import _host

    wide = _host.cpu_vendor() == "intel" and _host.cpu_capability() == "avx512"
    return XEON if wide else EPYC


def _elements(shape: Sequence[int], groups: int, size: Size, read: float = 1.0) -> float:
    """Elements read, of a share of the input channels, and written."""
    return (shape[0] + read * shape[1] * groups) * size[0] * size[1]


def predicted_gain(
    format: str, density: float, shape: Sequence[int], groups: int, size: Size
) -> float:
    """How many times as fast a format is as torch's dense convolution, on the CPU."""
    products = shape[0] * shape[1] * shape[2] * shape[3] * size[0] * size[1]
    here = processor()
    dense = here.of_dense(shape).time(_elements(shape, groups, size), products)
    # Pruned input channels are not read: a square root on either side.
    read = density**0.5 if format == "channels" else 1.0
    elements = _elements(shape, groups, size, read)
    return dense / here.of_sparse(format, shape).time(elements, products, density)


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
