"""Calls that reach every branch of the il_block kernel, and how its results are judged.

Also a program, because a library under AddressSanitizer needs a process of its own, without torch:
`python -m host_cuda.il_block_cases LIBRARY DTYPE EXPECTED CARDS...` runs every case for these
numbers of multiprocessors, takes what must come out from the file EXPECTED and stops with status 1
at the first wrong result.
"""

import ctypes
import sys
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cases import (
    BITS,
    CANARY,
    EPSILON,
    MARGIN,
    ORDERS,
    SMALLEST,
    Parameter,
    decode,
    encode,
    strided,
)

Array = NDArray[Any]

SCALES = 8
LAYERS = 3
ROUNDINGS = 16  # of float32, relative to the largest value: sums of hundreds of products
CARDS = (0, 100_000)  # multiprocessors for which tiles are cut as coarse or as fine as can be


@dataclass(frozen=True)
class Case:
    """One call; `size` is that of branch 0, before the entry pool."""

    ins: tuple[int, ...]
    outs: tuple[int, ...]
    size: tuple[int, int]
    kernel: int = 1
    batch: int = 1
    entry_pool: bool = False
    cross_scale: bool = True
    bilinear_down: bool = False
    epilogue: str = "affine slope"
    parameters: str = "float32"  # or "x": the dtype of x
    layout: str = "contiguous"  # or "channels last", or "sliced" from a larger tensor

    def input_shapes(self) -> dict[int, tuple[int, int, int, int]]:
        """By branch, those present."""
        height, width = self.size
        return {i: (self.batch, c, height >> i, width >> i) for i, c in enumerate(self.ins) if c}

    def output_shapes(self) -> dict[int, tuple[int, int, int, int]]:
        """Outputs have the size of their input, else that of the finest one halved or doubled."""
        step = 1 + self.entry_pool
        sizes = {i: (h // step, w // step) for i, (_, _, h, w) in self.input_shapes().items()}
        finest = min(sizes)
        for j in range(len(self.outs)):
            up, down = 2 ** max(finest - j, 0), 2 ** max(j - finest, 0)
            height, width = sizes[finest]
            sizes.setdefault(j, (height * up // down, width * up // down))
        return {j: (self.batch, c, *sizes[j]) for j, c in enumerate(self.outs) if c}


CASES = (
    # CSNet's first block, a middle one, the entry and the end of a stage; small maps.
    Case((3,), (8, 10), (24, 36), 3),
    Case((10, 10), (10, 10), (28, 72)),
    Case((18, 12), (28, 21), (24, 28), 3, entry_pool=True),
    Case((20, 12), (34,), (14, 14)),
    Case((38,), (18, 29), (28, 28), 3, entry_pool=True),
    Case((25, 24), (26, 20), (14, 14), batch=2),
    # Heights and widths around one tile, and odd ones; C = 1; absent branches.
    Case((2,), (3,), (11, 31)),
    Case((2,), (3,), (12, 32), 3),
    Case((2,), (3,), (13, 33)),
    Case((1,), (1,), (7, 13), 3),
    Case((1, 1), (1, 1), (7, 13)),
    Case((4, 3), (3, 5), (3, 2), 3),
    Case((5,), (3,), (1, 1)),
    Case((5,), (3,), (2, 1), 3),
    Case((0, 6), (5,), (14, 26)),
    Case((0, 6), (0, 7), (16, 10), 3),
    Case((2, 0, 9), (0, 13, 1), (13, 21)),
    Case((4, 3, 5), (5, 4, 3), (12, 20), 3),
    Case((3, 1, 2), (11,), (12, 20), batch=2),
    Case((9,), (2, 3, 4), (21, 9)),
    # More channels than are staged together.
    Case((70, 9), (4, 5), (8, 12)),
    Case((21, 9), (13, 5), (8, 12), 3),
    # What gOctConv offers besides.
    Case((4, 3), (3, 5), (9, 14), entry_pool=True),
    Case((4, 3), (3, 5), (14, 10), cross_scale=False),
    Case((4, 3, 5), (3, 5, 2), (13, 21), 3, cross_scale=False, entry_pool=True),
    Case((4, 3), (3, 5), (7, 13), bilinear_down=True),
    Case((4, 3, 2), (3, 5, 4), (13, 22), 3, bilinear_down=True, entry_pool=True),
    # Layouts, parameters, batches.
    Case((4, 3), (9, 5), (8, 12), 3, batch=2, layout="channels last"),
    Case((4, 3), (9, 5), (8, 12), batch=2, layout="sliced"),
    Case((4, 3), (9, 5), (8, 12), batch=0),
    Case((4, 3), (9, 5), (8, 12), parameters="x"),
    Case((4, 3), (9, 5), (8, 12), epilogue=""),
    Case((4, 3), (9, 5), (8, 12), 3, epilogue="affine"),
    Case((4, 3), (9, 5), (8, 12), epilogue="slope"),
)


class Input(ctypes.Structure):
    """An `OctaveInput` of the kernel."""

    _fields_ = (
        *(("x", ctypes.c_void_p), ("stride", ctypes.c_int64 * 4)),
        *((name, ctypes.c_int) for name in ("channels", "height", "width", "scale", "column")),
    )


class Output(ctypes.Structure):
    """An `OctaveOutput` of the kernel."""

    _fields_ = (
        *(("y", ctypes.c_void_p), ("stride", ctypes.c_int64 * 4)),
        *((name, Parameter * LAYERS) for name in ("scale", "shift", "slope")),
        ("depthwise", Parameter * (LAYERS - 1)),
        *((name, ctypes.c_int) for name in ("channels", "height", "width", "branch", "row")),
    )


class Call(ctypes.Structure):
    """An `IlBlockCall` of the kernel."""

    _fields_ = (
        *(("input", Input * SCALES), ("output", Output * SCALES)),
        *(("input_count", ctypes.c_int), ("output_count", ctypes.c_int), ("weight", Parameter)),
        *(("columns", ctypes.c_int), ("kernel", ctypes.c_int), ("batch", ctypes.c_int64)),
        *((name, ctypes.c_bool) for name in ("entry_pool", "cross_scale", "bilinear_down")),
    )


def element_strides(x: Array) -> Any:
    return (ctypes.c_int64 * 4)(*(stride // x.itemsize for stride in x.strides))


class Drawn:
    """The arguments of a case, as the kernel takes them and in float64."""

    def __init__(self, case: Case, dtype: str, margin: int = MARGIN) -> None:
        self.case, self.dtype = case, dtype
        self._rng = np.random.default_rng(zlib.crc32(repr(case).encode()))
        self._alive: list[Array] = []
        self.call = Call(
            kernel=case.kernel,
            batch=case.batch,
            columns=sum(case.ins),
            entry_pool=case.entry_pool,
            cross_scale=case.cross_scale,
            bilinear_down=case.bilinear_down,
        )
        self.xs = [self._add_input(i, shape) for i, shape in case.input_shapes().items()]
        shape = (sum(case.outs), sum(case.ins), case.kernel, case.kernel)
        bound = 2 / (shape[1] * case.kernel**2) ** 0.5
        self.call.weight, self.weight = self._parameter(bound * self._normal(shape))
        self._memory: list[tuple[Array, slice]] = []
        self._ys: list[Array] = []
        self.parameters: dict[str, list[list[Array]]] = {
            name: [[] for _ in range(LAYERS)] for name in ("scale", "shift", "slope", "depthwise")
        }
        for j, shape in case.output_shapes().items():
            self._add_output(j, shape, margin)

    def _normal(self, shape: tuple[int, ...]) -> Array:
        return self._rng.standard_normal(shape)

    def _add_input(self, branch: int, shape: tuple[int, int, int, int]) -> Array:
        n, channels, height, width = shape
        sliced = n * (channels + 1) * (height + 2) * (width + 16)
        # Exactly as long as it must be, so that AddressSanitizer sees a step too far.
        count = sliced if self.case.layout == "sliced" else int(np.prod(shape))
        memory = np.full(count, CANARY[self.dtype])
        x = strided(memory, shape, self.case.layout)
        x[...] = encode(self._normal(shape), self.dtype)
        step = 1 + self.case.entry_pool
        column = sum(self.case.ins[:branch])
        sizes = (channels, height // step, width // step, branch, column)
        self.call.input[self.call.input_count] = Input(x.ctypes.data, element_strides(x), *sizes)
        self.call.input_count += 1
        self._alive.append(memory)
        return decode(x, self.dtype)

    def _add_output(self, branch: int, shape: tuple[int, int, int, int], margin: int) -> None:
        _, channels, height, width = shape
        memory = np.empty(int(np.prod(shape)) + 2 * margin, BITS[self.dtype])
        written = slice(margin, len(memory) - margin)
        layout = "channels last" if self.case.layout == "channels last" else "contiguous"
        y = strided(memory[written], shape, layout)
        self._memory.append((memory, written))
        self._ys.append(y)
        output = self.call.output[self.call.output_count]
        self.call.output_count += 1
        output.y, output.stride = y.ctypes.data, element_strides(y)
        output.channels, output.height, output.width = channels, height, width
        output.branch, output.row = branch, sum(self.case.outs[:branch])
        for layer in range(LAYERS):
            drawn = {"scale": (0.5, 2), "shift": (-1, 1)} if "affine" in self.case.epilogue else {}
            drawn |= {"slope": (-0.2, 0.5)} if "slope" in self.case.epilogue else {}
            for name, limits in drawn.items():
                self._keep(output, name, layer, self._rng.uniform(*limits, channels))
            if layer:
                values = 0.5 * self._normal((channels, 1, 3, 3))
                self._keep(output, "depthwise", layer - 1, values)

    def _keep(self, output: Output, name: str, layer: int, values: Array) -> None:
        getattr(output, name)[layer], known = self._parameter(values)
        self.parameters[name][layer].append(known)

    def _parameter(self, values: Array) -> tuple[Parameter, Array]:
        dtype = self.dtype if self.case.parameters == "x" else "float32"
        bits = encode(values, dtype)
        self._alive.append(bits)
        return Parameter(bits.ctypes.data, dtype == "float32"), decode(bits, dtype)

    def poison(self) -> None:
        """NaN everywhere in the outputs' memory, of a kind of its own around them."""
        for memory, written in self._memory:
            memory[:] = CANARY[self.dtype]
            memory[written] = encode(np.array(np.nan), self.dtype)

    def problem(self, expected: Iterable[Array]) -> str | None:
        """What is wrong with the outputs, or None."""
        for b, (truth, y, (memory, written)) in enumerate(
            zip(expected, self._ys, self._memory, strict=True)
        ):
            if np.any(np.delete(memory, written) != CANARY[self.dtype]):
                return f"output {b}: wrote outside of it"
            got = decode(y, self.dtype)
            largest = np.abs(truth).max(initial=1)
            tolerance = ROUNDINGS * EPSILON["float32"] * largest + SMALLEST[self.dtype]
            tolerance = tolerance + EPSILON[self.dtype] / 2 * np.abs(truth)
            wrong = ~(np.abs(got - truth) <= tolerance)
            if wrong.any():
                at = tuple(int(i) for i in np.argwhere(wrong)[0])
                count = int(wrong.sum())
                return f"output {b}: {count} wrong, first {at}: {got[at]}, expected {truth[at]}"
        return None


class Library:
    """A build of il_block_host.cpp."""

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)
        self._library.report.restype = ctypes.c_char_p

    def run(
        self, drawn: Drawn, expected: list[Array], cards: int, orders: Iterable[str] = ORDERS
    ) -> None:
        """Run one case in several thread orders; AssertionError says what is wrong."""
        for order in orders:
            drawn.poison()
            self._library.set_order(*ORDERS[order])
            status = self._library.run(ctypes.byref(drawn.call), cards)
            report = self._library.report().decode()
            assert status == 0, f"{order}: launch failed with {status}: {report}"
            problem = drawn.problem(expected)
            assert problem is None, f"{drawn.case} {drawn.dtype} {order} {cards}: {problem}"

    def cut(self, drawn: Drawn, cards: int, output: int) -> tuple[int, int, int, int]:
        """Rows and columns of a tile, channels of a thread and of a chunk."""
        result = (ctypes.c_int * 4)()
        assert self._library.cut(ctypes.byref(drawn.call), cards, output, result)
        return tuple(result)

    def refuses(self, drawn: Drawn) -> bool:
        """Whether the kernel cannot be launched."""
        return self._library.run(ctypes.byref(drawn.call), 1) != 0


def expected_of(arrays: Mapping[str, Array], case: Case) -> list[Array]:
    """The entries of a file of expected outputs that belong to a case."""
    index = CASES.index(case)
    return [arrays[f"{index} {j}"] for j in case.output_shapes()]


def main(path: str, dtype: str, expected: str, *cards: str) -> int:
    library = Library(path)
    with np.load(expected) as arrays:
        for case in CASES:
            drawn = Drawn(case, dtype, margin=0)
            for number in cards:
                try:
                    library.run(drawn, expected_of(arrays, case), int(number))
                except AssertionError as error:
                    print(error)
                    return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
