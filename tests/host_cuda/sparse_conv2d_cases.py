"""Calls that reach every branch of the sparse_conv2d kernel, and their float64 reference.

Also a program, because a library under AddressSanitizer needs a process of its own:
`python -m tests.host_cuda.sparse_conv2d_cases LIBRARY DTYPE` runs all cases and stops with status 1
at the first wrong result.
"""

import ctypes
import itertools
import sys
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .cases import (
    BITS,
    CANARY,
    EPSILON,
    MARGIN,
    ORDERS,
    SMALLEST,
    Array,
    Parameter,
    decode,
    encode,
)

SLAB = 64
CARDS = (0, 100_000)  # multiprocessors for which warps get as much or as little as can be


@dataclass(frozen=True)
class Case:
    """A convolution of x [N, I, pixels] into `out` channels; `apart` are elements between planes,
    `offset` shifts x and y in elements."""

    shape: tuple[int, int, int]
    out: int
    block: tuple[int, int] = (1, 1)
    density: float = 0.3
    groups: int = 1
    slabs: bool = True
    apart: int = 0
    offset: int = 0
    epilogue: str = "bias affine slope"
    parameters: str = "float32"  # or "x": the dtype of x


CASES = (
    # Pixels around one and two vectors and tiles of a warp (128 float32, 256 of 16 bits).
    *(Case((1, 9, pixels), 5) for pixels in (1, 8, 127, 128, 264, 520)),
    Case((2, 70, 24), 7, density=0.7),
    Case((1, 130, 16), 70, density=0.4, parameters="x"),
    Case((1, 40, 16), 6, density=1.0, slabs=False),
    Case((1, 8, 40), 9, density=0.0, epilogue="bias"),
    Case((2, 6, 35), 8, groups=2, epilogue="affine"),
    Case((1, 40, 64), 14, (4, 1), density=0.9),
    Case((2, 12, 21), 8, (4, 3), groups=2, density=0.6),
    Case((1, 20, 136), 40, (4, 1), epilogue="slope"),
    Case((1, 32, 48), 40, (16, 16), density=0.6),
    Case((1, 48, 19), 16, (16, 1), epilogue=""),
    Case((1, 9, 64), 5, apart=8),
    Case((1, 9, 64), 5, apart=3),
    Case((1, 9, 64), 5, offset=1),
    Case((0, 9, 64), 5),
)


class Call(ctypes.Structure):
    """A `SparseConvCall` of the kernel."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "y")),
        *((name, ctypes.c_int64 * 2) for name in ("x_step", "y_step")),
        *((name, ctypes.c_int64) for name in ("batch", "pixels")),
        *((n, ctypes.c_int) for n in ("inputs", "outputs", "group_inputs", "group_outputs")),
        *((name, ctypes.c_void_p) for name in ("offset", "column")),
        *((name, ctypes.c_int) for name in ("blocks", "slabs", "rows", "columns")),
        *((name, Parameter) for name in ("values", "bias", "scale", "shift", "slope")),
    )


def pack(mask: Array, slab: int) -> tuple[Array, Array]:
    """(offsets, columns) of the kept blocks of [rows, columns], `slab` columns at a time."""
    offsets, columns = [0], []
    for begin in range(0, mask.shape[1], slab):
        for row in mask[:, begin : begin + slab]:
            columns += [begin + int(c) for c in np.flatnonzero(row)]
            offsets.append(len(columns))
    return np.array(offsets, np.int32), np.array(columns, np.int32)


class Drawn:
    """The arguments of a case, and what must come out."""

    def __init__(self, case: Case, dtype: str, margin: int = MARGIN) -> None:
        self._case, self._dtype = case, dtype
        self._rng = np.random.default_rng(zlib.crc32(repr(case).encode()))
        self._alive: list[Array] = []
        images, inputs, pixels = case.shape
        rows, columns = case.block
        self.call = Call(batch=images, pixels=pixels, inputs=inputs, outputs=case.out)
        self.call.rows, self.call.columns = rows, columns
        self.call.group_inputs, self.call.group_outputs = (
            inputs // case.groups,
            case.out // case.groups,
        )
        x = self._add_x()
        weight = self._add_weight()
        y = np.stack([weight @ image for image in x]) if images else np.zeros((0, case.out, pixels))
        size = abs(weight) @ abs(x).max(0, initial=0)
        names = {"bias": 0.0, "scale": 1.0, "shift": 0.0, "slope": 1.0}
        bias, scale, shift, slope = (
            self._parameter(name, self._rng.uniform(-0.5, 1.5, case.out))[:, None]
            if (name if name in ("bias", "slope") else "affine") in case.epilogue
            else np.full((case.out, 1), absent)
            for name, absent in names.items()
        )
        y = scale * (y + bias) + shift
        self._expected = np.where(y < 0, slope * y, y)
        bound = (inputs + 4) * (np.abs(scale) * (size + np.abs(bias)) + np.abs(shift))
        self._tolerance = EPSILON["float32"] * bound * np.maximum(1, np.abs(slope))
        self._y = np.empty(case.offset + self._expected.size + 2 * margin, BITS[dtype])
        self._written = slice(margin + case.offset, len(self._y) - margin)
        self.call.y = self._y[self._written].ctypes.data
        self.call.y_step[:] = (case.out * pixels, pixels)

    def _keep(self, array: Array) -> Array:
        self._alive.append(array)
        return array

    def _add_x(self) -> Array:
        """Exactly as long as it must be, so that AddressSanitizer sees a step too far."""
        case = self._case
        images, inputs, pixels = case.shape
        step = pixels + case.apart
        length = max(images * inputs * step - case.apart, 0)
        memory = self._keep(np.full(case.offset + length, CANARY[self._dtype]))
        bits = encode(self._rng.standard_normal(case.shape), self._dtype)
        for i in range(images * inputs):
            at = case.offset + i * step
            memory[at : at + pixels] = bits.reshape(-1, pixels)[i]
        self.call.x = memory[case.offset :].ctypes.data
        self.call.x_step[:] = (inputs * step, step)
        return decode(bits, self._dtype)

    def _add_weight(self) -> Array:
        """The dense weight [out, I], zero where it is pruned and between groups."""
        case, (rows, columns) = self._case, self._case.block
        inputs = self.call.group_inputs
        shape = (-(-case.out // rows), inputs // columns)
        mask = self._rng.random(shape) < case.density
        slab = SLAB if case.slabs and case.block == (1, 1) else inputs
        offset, column = pack(mask, slab)
        self.indices = {"offset": self._keep(offset), "column": self._keep(column)}
        self.call.offset, self.call.column = offset.ctypes.data, column.ctypes.data
        self.call.blocks, self.call.slabs = len(column), -(-inputs // slab)
        values = self._parameter("values", self._rng.standard_normal((len(column), columns, rows)))
        weight = np.zeros((shape[0] * rows, case.shape[1]))
        for i, (begin, end) in enumerate(itertools.pairwise(offset)):
            row = i % shape[0] * rows
            first = row // self.call.group_outputs * inputs
            for k in range(begin, end):
                left = first + column[k] * columns
                weight[row : row + rows, left : left + columns] = values[k].T
        return weight[: case.out]

    def _parameter(self, name: str, drawn: Array) -> Array:
        dtype = self._dtype if self._case.parameters == "x" else "float32"
        bits = self._keep(encode(drawn, dtype))
        setattr(self.call, name, Parameter(bits.ctypes.data, dtype == "float32"))
        return decode(bits, dtype)

    def poison(self) -> None:
        """NaN everywhere in the output's memory, of a kind of its own around the output."""
        self._y[:] = CANARY[self._dtype]
        self._y[self._written] = encode(np.array(np.nan), self._dtype)

    def problem(self) -> str | None:
        """What is wrong with the output, or None."""
        if np.any(np.delete(self._y, self._written) != CANARY[self._dtype]):
            return "wrote outside of the output"
        y = decode(self._y[self._written], self._dtype).reshape(self._expected.shape)
        rounding = EPSILON[self._dtype] / 2 * np.abs(self._expected) + SMALLEST[self._dtype]
        wrong = ~(np.abs(y - self._expected) <= self._tolerance + rounding)
        if not wrong.any():
            return None
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        return f"{int(wrong.sum())} wrong, first {at}: {y[at]}, expected {self._expected[at]}"


class Library:
    """A build of sparse_conv2d_host.cpp."""

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)
        self._library.report.restype = ctypes.c_char_p
        self._library.moves_in_vectors.restype = ctypes.c_bool

    def run(
        self, case: Case, dtype: str, orders: Iterable[str] = ORDERS, margin: int = MARGIN
    ) -> None:
        """Run one case in several thread orders; AssertionError says what is wrong."""
        drawn = Drawn(case, dtype, margin)
        for order in orders:
            for cards in CARDS:
                drawn.poison()
                self._library.set_order(*ORDERS[order])
                status = self._library.run(ctypes.byref(drawn.call), cards)
                report = self._library.report().decode()
                assert status == 0, f"{order}: launch failed with {status}: {report}"
                problem = drawn.problem()
                assert problem is None, f"{case} {dtype} {order} {cards}: {problem}"

    def run_corrupt(self, dtype: str) -> None:
        """Columns and offsets of no weight: whatever comes out, nothing else is touched."""
        for index, wrong in (("column", 2**30), ("column", -5), ("offset", 2**30)):
            drawn = Drawn(CASES[0], dtype)
            drawn.indices[index][:] = wrong
            drawn.poison()
            assert self._library.run(ctypes.byref(drawn.call), 1) == 0
            assert drawn.problem() != "wrote outside of the output"

    def moves_in_vectors(self, case: Case, dtype: str) -> bool:
        drawn = Drawn(case, dtype)
        return bool(self._library.moves_in_vectors(ctypes.byref(drawn.call)))


def cases_of(dtype: str) -> list[Case]:
    """Those that the kernels of a dtype are for."""
    return [case for case in CASES if case.block[0] < 16 or dtype == "float32"]


def main(path: str, dtype: str) -> int:
    library = Library(path)
    for case in cases_of(dtype):
        try:
            library.run(case, dtype, ("forward", "random"), margin=0)
        except AssertionError as error:
            print(error)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
