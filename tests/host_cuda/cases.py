"""Shapes that reach every branch of the depthwise kernel, and their float64 reference.

Also a program, because a library under AddressSanitizer needs a process of its own:
`python -m tests.host_cuda.cases LIBRARY DTYPE KERNEL...` runs all cases of these kernel sizes and
stops with status 1 at the first wrong result.
"""

import ctypes
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

ORDERS = {"forward": (0, 0), "reverse": (1, 0), "random": (2, 1), "random again": (2, 2)}
C_TYPES = {"float32": "float", "float16": "__half", "bfloat16": "__nv_bfloat16"}
EPSILON = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
SMALLEST = {"float32": 2.0**-149, "float16": 2.0**-24, "bfloat16": 2.0**-133}
BITS = {"float32": np.uint32, "float16": np.uint16, "bfloat16": np.uint16}
CANARY = {dtype: ~bits(0) for dtype, bits in BITS.items()}  # a NaN that no kernel writes
MARGIN = 64  # canary elements on either side of an output


@dataclass(frozen=True)
class Case:
    """One call; `shapes` are the branches' [N, C, H, W], `offset` shifts x and y in elements."""

    shapes: tuple[tuple[int, int, int, int], ...]
    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    offset: int = 0
    epilogue: str = "affine slope"
    parameters: str = "float32"  # or "x": the dtype of x
    layout: str = "contiguous"  # or "channels last", or "sliced" from a larger tensor


def cases(kernel: int) -> list[Case]:
    """All cases of one kernel size."""
    found = []
    for stride in (1, 2):
        # Widths around one and two tiles of 16 vectors (4 float32, 8 of 16 bits), odd, not whole
        # vectors; heights around the rows of one tile.
        for n, width in enumerate((1, 7, 13, 30, 56, 63, 64, 65, 128, 136)):
            width *= stride
            found.append(Case(((1, 2, 11 + 9 * n, width),), kernel, stride))
        found.append(Case(((2, 3, 40, 272 * stride),), kernel, stride))
        found.append(Case(((1, 1, 61 * stride, 64 * stride),), kernel, stride, offset=1))
        found.append(Case(((1, 2, 57, 64 * stride),), kernel, stride, offset=8))
        for dilation in (2, 4, 16):
            found.append(Case(((2, 2, 13, 17), (1, 3, 40, 40)), kernel, stride, dilation))
        # A pyramid in one launch, branches of every kind; then more branches than one launch has.
        pyramid = ((2, 3, 64, 64), (2, 5, 32, 32), (2, 1, 16, 16), (2, 4, 7, 7), (2, 2, 1, 1))
        found.append(Case(pyramid, kernel, stride, parameters="x"))
        found.append(Case(tuple((1, 1 + b % 3, 3 + b, 5) for b in range(11)), kernel, stride))
        found.append(Case(((0, 3, 8, 8), (1, 2, 64, 64), (0, 1, 64, 64)), kernel, stride))
        for layout in ("channels last", "sliced"):
            found.append(Case(((2, 3, 12, 10), (1, 5, 40, 128)), kernel, stride, layout=layout))
        for epilogue in ("", "affine", "slope"):
            found.append(Case(((1, 2, 33, 64), (1, 2, 9, 9)), kernel, stride, epilogue=epilogue))
    return found


def encode(values: Array, dtype: str) -> Array:
    """The bits of `values` rounded to `dtype`."""
    if dtype == "bfloat16":
        bits = values.astype(np.float32).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return values.astype(dtype).view(BITS[dtype])


def decode(bits: Array, dtype: str) -> Array:
    """The float64 values of `bits`."""
    if dtype == "bfloat16":
        return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return np.ascontiguousarray(bits).view(dtype).astype(np.float64)


def convolve(x: Array, weight: Array, stride: int, dilation: int) -> Array:
    """Depthwise convolution of x [N, C, H, W] by weight [C, k, k] in float64."""
    kernel = weight.shape[-1]
    _, _, height, width = x.shape
    pad = dilation * (kernel // 2)
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    z = np.zeros((*x.shape[:2], -(-height // stride), -(-width // stride)))
    for i in range(kernel):
        for j in range(kernel):
            rows = slice(i * dilation, i * dilation + height, stride)
            columns = slice(j * dilation, j * dilation + width, stride)
            z += weight[:, i, j, None, None] * padded[:, :, rows, columns]
    return z


class Parameter(ctypes.Structure):
    """A `Param` of the kernel."""

    _fields_ = (("data", ctypes.c_void_p), ("is_float32", ctypes.c_bool))


class Map(ctypes.Structure):
    """A `Map` of the kernel."""

    _fields_ = (("data", ctypes.c_void_p), ("stride", ctypes.c_int64 * 4))

    @classmethod
    def of(cls, array: Array) -> Self:
        strides = [stride // array.itemsize for stride in array.strides]
        return cls(array.ctypes.data, (ctypes.c_int64 * 4)(*strides))


class Branch(ctypes.Structure):
    """A `DepthwiseBranch` of the kernel."""

    _fields_ = (
        *(("x", Map), ("y", Map)),
        *((name, Parameter) for name in ("weight", "scale", "shift", "slope")),
        *((name, ctypes.c_int64) for name in ("batch", "channels", "height", "width")),
    )


def strided(memory: Array, shape: tuple[int, ...], layout: str) -> Array:
    """A view of [N, C, H, W] that ends where `memory` does, unless sliced from a larger tensor."""
    n, channels, height, width = shape
    if layout == "channels last":
        return memory.reshape(n, height, width, channels).transpose(0, 3, 1, 2)
    if layout == "sliced":
        return memory.reshape(n, channels + 1, height + 2, width + 16)[:, 1:, 1:-1, 8:-8]
    return memory.reshape(shape)


class Feature:
    """One branch: its inputs, the memory of its output, and what the output must be."""

    def __init__(self, case: Case, index: int, dtype: str, margin: int) -> None:
        rng = np.random.default_rng(index)
        n, channels, height, width = shape = case.shapes[index]
        out_shape = (n, channels, -(-height // case.stride), -(-width // case.stride))
        self._dtype = dtype
        count = int(np.prod(shape))
        whole = n * (channels + 1) * (height + 2) * (width + 16)
        # Exactly as long as it must be, so that AddressSanitizer sees a step too far.
        used = whole if case.layout == "sliced" else count
        x_memory = np.full(case.offset + used, CANARY[dtype])
        x = strided(x_memory[case.offset :], shape, case.layout)
        x[...] = encode(rng.standard_normal(shape), dtype)
        out_layout = "channels last" if case.layout == "channels last" else "contiguous"
        self._y_memory = np.empty(case.offset + int(np.prod(out_shape)) + 2 * margin, BITS[dtype])
        self._written = slice(margin + case.offset, len(self._y_memory) - margin)
        self._y = strided(self._y_memory[self._written], out_shape, out_layout)

        parameter_dtype = dtype if case.parameters == "x" else "float32"
        parameters = {"weight": rng.standard_normal((channels, case.kernel, case.kernel))}
        if "affine" in case.epilogue:
            parameters["scale"] = rng.standard_normal(channels)
            parameters["shift"] = rng.standard_normal(channels)
        if "slope" in case.epilogue:
            parameters["slope"] = rng.uniform(-0.5, 0.5, channels)
        bits = {name: encode(values, parameter_dtype) for name, values in parameters.items()}
        known = {name: decode(values, parameter_dtype) for name, values in bits.items()}
        self.expected, self.tolerance = self._reference(case, decode(x, dtype), known)

        self.branch = Branch(Map.of(x), Map.of(self._y))
        for name, values in bits.items():
            setattr(self.branch, name, Parameter(values.ctypes.data, parameter_dtype == "float32"))
        self.branch.batch, self.branch.channels = n, channels
        self.branch.height, self.branch.width = height, width
        self._alive = (x_memory, bits)

    def _reference(self, case: Case, x: Array, known: dict[str, Array]) -> tuple[Array, Array]:
        """The output, and how far float32 sums rounded to the dtype may be from it."""
        channels = x.shape[1]
        scale, shift, slope = (
            known.get(name, np.full(channels, absent))[:, None, None]
            for name, absent in (("scale", 1.0), ("shift", 0.0), ("slope", 1.0))
        )
        a = scale * convolve(x, known["weight"], case.stride, case.dilation) + shift
        y = np.where(a < 0, slope * a, a)
        size = convolve(np.abs(x), np.abs(known["weight"]), case.stride, case.dilation)
        operations = case.kernel**2 + 4
        bound = operations * EPSILON["float32"] * (np.abs(scale) * size + np.abs(shift))
        return y, bound + EPSILON[self._dtype] / 2 * np.abs(y) + SMALLEST[self._dtype]

    def poison(self) -> None:
        """NaN everywhere in the output's memory, of a kind of its own around the output."""
        self._y_memory[:] = CANARY[self._dtype]
        self._y_memory[self._written] = encode(np.array(np.nan), self._dtype)

    def problem(self) -> str | None:
        """What is wrong with the output, or None."""
        outside = np.delete(self._y_memory, self._written)
        if np.any(outside != CANARY[self._dtype]):
            return "wrote outside of the output"
        y = decode(self._y, self._dtype)
        wrong = ~(np.abs(y - self.expected) <= self.tolerance)
        if not wrong.any():
            return None
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        return f"{int(wrong.sum())} wrong, first {at}: {y[at]}, expected {self.expected[at]}"


class Library:
    """A build of depthwise_scales_host.cpp."""

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)
        self._library.report.restype = ctypes.c_char_p

    def run(
        self, case: Case, dtype: str, orders: Iterable[str] = ORDERS, margin: int = MARGIN
    ) -> None:
        """Run one case in several thread orders; AssertionError says what is wrong."""
        features = [Feature(case, b, dtype, margin) for b in range(len(case.shapes))]
        branches = (Branch * len(features))(*(feature.branch for feature in features))
        for order in orders:
            for feature in features:
                feature.poison()
            self._library.set_order(*ORDERS[order])
            status = self._library.run(
                branches, len(features), case.kernel, case.stride, case.dilation
            )
            assert status == 0, f"{order}: launch failed with {status}: {self.report()}"
            for b, feature in enumerate(features):
                problem = feature.problem()
                assert problem is None, f"{case} {dtype} {order}, branch {b}: {problem}"

    def is_tiled(self, case: Case, dtype: str) -> list[bool]:
        """Which branches of a case go through shared memory."""
        features = [Feature(case, b, dtype, MARGIN) for b in range(len(case.shapes))]
        return [
            bool(self._library.is_tiled(ctypes.byref(feature.branch), case.stride, case.dilation))
            for feature in features
        ]

    def report(self) -> str:
        """What the emulation says of the last launch that failed."""
        return self._library.report().decode()


def main(path: str, dtype: str, *kernels: str) -> int:
    library = Library(path)
    for kernel in map(int, kernels):
        for case in cases(kernel):
            try:
                library.run(case, dtype, margin=0)
            except AssertionError as error:
                print(error)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
