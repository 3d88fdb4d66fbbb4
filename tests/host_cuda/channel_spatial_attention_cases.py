"""Calls that reach every branch of the channel_spatial_attention kernel, and their truth.

Also a program, because a library under AddressSanitizer needs a process of its own:
`python -m tests.host_cuda.channel_spatial_attention_cases LIBRARY DTYPE FAULT` runs every case with
a planted fault, 0 for none, and stops with status 1 at the first wrong result.
"""

import ctypes
import sys
import zlib
from dataclasses import dataclass
from typing import Any

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
    convolve,
    decode,
    encode,
)

KERNELS = 3
ROUNDINGS = 16  # of float32, relative to the largest value


@dataclass(frozen=True)
class Case:
    """One call; `offset` shifts x in elements, between its images lie `gap` more."""

    shape: tuple[int, int, int, int]
    hidden: int = 3
    sizes: tuple[int, ...] = (3, 5, 7)
    pools: str = "mean max"
    bias: bool = True
    offset: int = 0
    gap: int = 0
    parameters: str = "float32"  # or "x": the dtype of x
    special: float = 0.0  # added to one element of the first image


CASES = (
    # One pixel, one channel; images that are shorter than 16 bytes.
    Case((2, 1, 1, 1)),
    Case((3, 1, 2, 3), sizes=(5,)),
    Case((2, 33, 1, 1), sizes=(3,)),
    # Teams of every size; whole vectors and odd maps; images that begin anywhere.
    Case((1, 50, 2, 5)),
    Case((3, 7, 3, 7)),
    Case((2, 20, 7, 7), sizes=(7,)),
    Case((2, 9, 8, 12), sizes=(3,)),
    Case((1, 5, 17, 13), sizes=(3, 7)),
    Case((3, 3, 15, 17), gap=5),
    Case((2, 4, 16, 24), sizes=(5, 3)),
    # Beyond the 48 KB of shared memory that need no permission, with many warps.
    Case((1, 80, 14, 14)),
    Case((1, 33, 23, 23), hidden=40, offset=3),
    Case((1, 9, 40, 48), sizes=(7,)),
    # What is not aligned in memory.
    Case((2, 4, 8, 8), offset=1),
    Case((2, 4, 8, 8), gap=2, sizes=(7,)),
    # Pools, gates, parameters, batches.
    Case((2, 6, 9, 9), pools="mean"),
    Case((2, 6, 9, 8), pools="max", bias=False),
    Case((2, 6, 8, 8), hidden=0),
    Case((2, 6, 7, 9), hidden=0, pools="max", sizes=(7,)),
    Case((2, 40, 8, 8), hidden=34, sizes=(), pools="mean"),
    Case((2, 5, 5, 5), parameters="x"),
    Case((0, 5, 8, 8)),
    # NaN is the largest number, and goes as far as in torch.
    Case((2, 5, 8, 9), special=np.nan),
    Case((2, 5, 8, 8), hidden=0, sizes=(3,), special=np.nan),
)


class Call(ctypes.Structure):
    """An `AttentionCall` of the kernel."""

    _fields_ = (
        *(("x", ctypes.c_void_p), ("out", ctypes.c_void_p)),
        *((name, ctypes.c_int64) for name in ("x_step", "out_step")),
        *((name, Parameter * 2) for name in ("reduce", "expand")),
        *(("kernel", Parameter * KERNELS), ("kernel_size", ctypes.c_int * KERNELS)),
        *((name, ctypes.c_bool) for name in ("mean", "max")),
        *((name, ctypes.c_int64) for name in ("batch", "channels", "height", "width", "hidden")),
    )


def sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


class Drawn:
    """The arguments of a case, as the kernel takes them and in float64, and what comes out."""

    def __init__(self, case: Case, dtype: str, margin: int = MARGIN) -> None:
        self.case, self.dtype = case, dtype
        self._rng = np.random.default_rng(zlib.crc32(repr(case).encode()))
        self._alive: list[Array] = []
        n, channels, height, width = case.shape
        count = channels * height * width
        # Exactly as long as it must be, so that AddressSanitizer sees a step too far.
        length = case.offset + max(n * (count + case.gap) - case.gap, 0)
        memory = np.full(length, CANARY[dtype])
        images = np.lib.stride_tricks.as_strided(
            memory[case.offset :],
            (n, count),
            ((count + case.gap) * memory.itemsize, memory.itemsize),
        )
        # Mostly below zero: no maximum is that of a zero beside it.
        values = self._rng.standard_normal((n, count)) - 1
        values[:1, count // 2] += case.special
        images[...] = encode(values, dtype)
        self._x = decode(images, dtype).reshape(case.shape)
        self._y_memory = np.empty(n * count + 2 * margin, BITS[dtype])
        self._written = slice(margin, len(self._y_memory) - margin)
        self._alive.append(memory)

        self.call = Call(
            x=memory[case.offset :].ctypes.data,
            out=self._y_memory[self._written].ctypes.data,
            x_step=count + case.gap,
            out_step=count,
            mean="mean" in case.pools,
            max="max" in case.pools,
            batch=n,
            channels=channels,
            height=height,
            width=width,
            hidden=case.hidden,
        )
        gated = self._x * self._channel_gate() if case.hidden else self._x
        self.expected = gated * self._spatial_gate(gated) if case.sizes else gated

    def _parameter(self, *shape: int) -> tuple[Parameter, Array]:
        dtype = self.dtype if self.case.parameters == "x" else "float32"
        bits = encode(self._rng.standard_normal(shape) / shape[-1] ** 0.5, dtype)
        self._alive.append(bits)
        return Parameter(bits.ctypes.data, dtype == "float32"), decode(bits, dtype)

    def _layer(self, given: Any, outputs: int, inputs: int) -> tuple[Array, Array]:
        given[0], weight = self._parameter(outputs, inputs)
        if not self.case.bias:
            return weight, np.zeros(outputs)
        given[1], bias = self._parameter(outputs)
        return weight, bias

    def _pool(self, values: Array, axis: int | tuple[int, int]) -> list[Array]:
        pools = {"mean": values.mean(axis), "max": values.max(axis, initial=-np.inf)}
        return [pools[name] for name in self.case.pools.split()]

    def _channel_gate(self) -> Array:
        channels, hidden = self.case.shape[1], self.case.hidden
        reduce = self._layer(self.call.reduce, hidden, channels)
        expand = self._layer(self.call.expand, channels, hidden)
        pooled = self._pool(self._x, (2, 3))
        logits = [
            np.maximum(v @ reduce[0].T + reduce[1], 0) @ expand[0].T + expand[1] for v in pooled
        ]
        return sigmoid(np.sum(logits, axis=0))[:, :, None, None]

    def _spatial_gate(self, gated: Array) -> Array:
        maps = np.stack(self._pool(gated, 1), 1)
        total = 0
        for i, size in enumerate(self.case.sizes):
            self.call.kernel_size[i] = size
            self.call.kernel[i], kernel = self._parameter(maps.shape[1], size, size)
            total = total + convolve(maps, kernel, 1, 1).sum(1, keepdims=True)
        return sigmoid(total)

    def poison(self) -> None:
        """NaN everywhere in the output's memory, of a kind of its own around the output."""
        self._y_memory[:] = CANARY[self.dtype]
        self._y_memory[self._written] = encode(np.array(np.nan), self.dtype)

    def output(self) -> Array:
        """The bits of the output."""
        return self._y_memory[self._written].copy()

    def problem(self) -> str | None:
        """What is wrong with the output, or None."""
        if np.any(np.delete(self._y_memory, self._written) != CANARY[self.dtype]):
            return "wrote outside of the output"
        got = decode(self._y_memory[self._written], self.dtype).reshape(self.case.shape)
        truth = self.expected
        largest = np.nanmax(np.abs(truth), initial=1)
        tolerance = ROUNDINGS * EPSILON["float32"] * largest + SMALLEST[self.dtype]
        tolerance = tolerance + EPSILON[self.dtype] / 2 * np.abs(truth)
        right = (np.abs(got - truth) <= tolerance) | (np.isnan(got) & np.isnan(truth))
        if right.all():
            return None
        at = tuple(int(i) for i in np.argwhere(~right)[0])
        return f"{int((~right).sum())} wrong, first {at}: {got[at]}, expected {truth[at]}"


@dataclass(frozen=True)
class Plan:
    """What the launcher decides."""

    shared_bytes: int
    threads: int
    vectorised: bool
    team: int
    warp_pixels: int


class Library:
    """A build of channel_spatial_attention_host.cpp."""

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)
        self._library.report.restype = ctypes.c_char_p

    def run(self, drawn: Drawn, cards: int = 1) -> None:
        """Run one case in several thread orders; AssertionError says what is wrong."""
        for order, setting in ORDERS.items():
            drawn.poison()
            self._library.set_order(*setting)
            status = self._library.run(ctypes.byref(drawn.call), cards)
            report = self._library.report().decode()
            assert status == 0, f"{order}: launch failed with {status}: {report}"
            problem = drawn.problem()
            assert problem is None, f"{drawn.case} {drawn.dtype} {order}: {problem}"

    def choose_fault(self, number: int) -> None:
        """From now on a planted fault is active; 0 for none."""
        self._library.set_fault(number)

    def plan(self, drawn: Drawn, cards: int = 1) -> Plan:
        result = (ctypes.c_int * 5)()
        assert self._library.plan(ctypes.byref(drawn.call), cards, result)
        return Plan(result[0], result[1], bool(result[2]), result[3], result[4])

    def refuses(self, drawn: Drawn) -> bool:
        """Whether the kernel cannot be launched."""
        return self._library.run(ctypes.byref(drawn.call), 1) != 0


def main(path: str, dtype: str, fault: str) -> int:
    library = Library(path)
    library.choose_fault(int(fault))
    for case in CASES:
        try:
            library.run(Drawn(case, dtype, margin=0))
        except AssertionError as error:
            print(error)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
