"""The backward pass of the depthwise kernel: its cases, and their float64 reference.

Also a program, as cases.py is: `python -m tests.host_cuda.bwd_cases LIBRARY DTYPE KERNEL...`.
"""

import ctypes
import itertools
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from .cases import (
    BITS,
    CANARY,
    EPSILON,
    MARGIN,
    ORDERS,
    SMALLEST,
    Array,
    Branch,
    Case,
    Map,
    Parameter,
    convolve,
    decode,
    encode,
    strided,
)
from .cases import cases as forward_cases

KINDS = ("x", "weight", "scale", "shift", "slope")


@dataclass(frozen=True)
class BackwardCase(Case):
    """One call; `wanted` are flags of KINDS, and dy may be one value expanded or channels last."""

    wanted: tuple[bool, ...] = (True,) * 5
    dy_layout: str = ""


def cases(kernel: int) -> list[BackwardCase]:
    """All cases of one kernel size."""
    found = [BackwardCase(**vars(case)) for case in forward_cases(kernel)]
    for stride in (1, 2):
        both = BackwardCase(((2, 2, 32, 64 * stride), (1, 2, 9, 7)), kernel, stride)
        found += [replace(both, dy_layout=layout) for layout in ("expanded", "channels last")]
        found.append(replace(both, parameters="x", epilogue="affine"))
        if kernel != 3:
            continue
        for wanted in itertools.product((False, True), repeat=5):
            found.append(replace(both, shapes=((1, 2, 16, 128), (1, 2, 9, 7)), wanted=wanted))
        for layout in ("contiguous", "channels last"):  # wider than a block's 32 channels, too
            shape = ((1, 35, 5, 6),)
            found.append(BackwardCase(shape, kernel, stride, layout=layout))
        # More sweeps than parts: through tiles, and through columns.
        found.append(BackwardCase(((550, 1, 16, 128 * stride),), kernel, stride))
        found.append(BackwardCase(((3000, 1, 16 * stride, 7 * stride),), kernel, stride))
    return found


def transpose(dz: Array, weight: Array, shape: tuple[int, ...], stride: int, d: int) -> Array:
    """The gradient of x [N, C, H, W] = `shape` of the convolution, in float64."""
    kernel = weight.shape[-1]
    n, channels, height, width = shape
    pad = d * (kernel // 2)
    padded = np.zeros((n, channels, height + 2 * pad, width + 2 * pad))
    for i in range(kernel):
        for j in range(kernel):
            rows = slice(i * d, i * d + height, stride)
            columns = slice(j * d, j * d + width, stride)
            padded[:, :, rows, columns] += weight[:, i, j, None, None] * dz
    return padded[:, :, pad : pad + height, pad : pad + width]


def correlate(x: Array, dz: Array, kernel: int, stride: int, d: int) -> Array:
    """The gradient of the weight [C, k, k], in float64."""
    _, channels, height, width = x.shape
    pad = d * (kernel // 2)
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    grad = np.zeros((channels, kernel, kernel))
    for i in range(kernel):
        for j in range(kernel):
            rows = slice(i * d, i * d + height, stride)
            columns = slice(j * d, j * d + width, stride)
            grad[:, i, j] = (dz * padded[:, :, rows, columns]).sum((0, 2, 3))
    return grad


class BackwardBranch(ctypes.Structure):
    """A `DepthwiseBackwardBranch` of the kernels."""

    _fields_ = (
        *((name, Map) for name in ("x", "dy", "dz")),
        *((name, Parameter) for name in KINDS[1:]),
        *((f"grad_{name}", Parameter) for name in KINDS[1:]),
        *((name, ctypes.c_int64) for name in ("batch", "channels", "height", "width")),
        ("dx", Map),
    )


class Output:
    """Memory that a kernel fills, and what it must hold then."""

    def __init__(
        self, shape: tuple[int, ...], dtype: str, layout: str, offset: int, margin: int
    ) -> None:
        self._dtype = dtype
        self._memory = np.empty(offset + int(np.prod(shape)) + 2 * margin, BITS[dtype])
        self._written = slice(margin + offset, len(self._memory) - margin)
        inner = self._memory[self._written]
        self.array = strided(inner, shape, layout) if len(shape) == 4 else inner.reshape(shape)
        self.expected, self.tolerance = np.zeros(shape), np.zeros(shape)

    def expect(self, values: Array, tolerance: Array) -> None:
        """`tolerance` leaves out the rounding to the dtype."""
        self.expected = values
        rounding = EPSILON[self._dtype] / 2 * np.abs(values)
        self.tolerance = tolerance + rounding + SMALLEST[self._dtype]

    def poison(self) -> None:
        self._memory[:] = CANARY[self._dtype]
        self._memory[self._written] = encode(np.array(np.nan), self._dtype)

    def problem(self) -> str | None:
        if np.any(np.delete(self._memory, self._written) != CANARY[self._dtype]):
            return "wrote outside of the output"
        values = decode(self.array, self._dtype)
        wrong = ~(np.abs(values - self.expected) <= self.tolerance)
        if not wrong.any():
            return None
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        return f"{int(wrong.sum())} wrong, first {at}: {values[at]}, expected {self.expected[at]}"


class BackwardFeature:
    """One branch: its inputs, the memory of its gradients, and what they must be."""

    def __init__(self, case: BackwardCase, index: int, dtype: str, margin: int) -> None:
        rng = np.random.default_rng(index)
        n, channels, height, width = shape = case.shapes[index]
        k = case.kernel
        out_shape = (n, channels, -(-height // case.stride), -(-width // case.stride))
        self._alive: list[object] = []
        x = self._input(rng, shape, dtype, case.layout, case.offset)
        dy_layout = case.dy_layout or case.layout
        dy = self._input(rng, out_shape, dtype, dy_layout, case.offset)

        parameter_dtype = dtype if case.parameters == "x" else "float32"
        parameters = {"weight": rng.standard_normal((channels, k, k))}
        if "affine" in case.epilogue:
            parameters["scale"] = rng.standard_normal(channels)
            parameters["shift"] = rng.standard_normal(channels)
        if "slope" in case.epilogue:
            parameters["slope"] = rng.uniform(-0.5, 0.5, channels)
        bits = {name: encode(values, parameter_dtype) for name, values in parameters.items()}
        known = {name: decode(values, parameter_dtype) for name, values in bits.items()}
        self._alive.append(bits)

        layout = "channels last" if case.layout == "channels last" else "contiguous"
        self.outputs: dict[str, Output] = {}
        if case.wanted[0]:
            self.outputs["dx"] = Output(shape, dtype, layout, case.offset, margin)
            if "slope" in known:
                self.outputs["dz"] = Output(out_shape, dtype, layout, case.offset, margin)
        for name, want in zip(KINDS[1:], case.wanted[1:], strict=True):
            if want and name in known:
                grad = Output(known[name].shape, parameter_dtype, "contiguous", 0, margin)
                self.outputs[f"grad_{name}"] = grad
        self._reference(case, decode(x, dtype), decode(dy, dtype), known, dtype)

        self.branch = BackwardBranch(x=Map.of(x), dy=Map.of(dy))
        is_float32 = parameter_dtype == "float32"
        for name, values in bits.items():
            setattr(self.branch, name, Parameter(values.ctypes.data, is_float32))
        for name, output in self.outputs.items():
            place = Map.of(output.array)
            at = place if name in ("dx", "dz") else Parameter(place.data, is_float32)
            setattr(self.branch, name, at)
        self.branch.batch, self.branch.channels = n, channels
        self.branch.height, self.branch.width = height, width

    def _input(
        self,
        rng: np.random.Generator,
        shape: tuple[int, ...],
        dtype: str,
        layout: str,
        offset: int,
    ) -> Array:
        """A map of random values, in memory exactly as long as it must be."""
        n, channels, height, width = shape
        if layout == "expanded":
            memory = encode(rng.standard_normal(1), dtype)
            self._alive.append(memory)
            return np.broadcast_to(memory, shape)
        whole = n * (channels + 1) * (height + 2) * (width + 16)
        used = whole if layout == "sliced" else int(np.prod(shape))
        memory = np.full(offset + used, CANARY[dtype])
        self._alive.append(memory)
        x = strided(memory[offset:], shape, layout)
        x[...] = encode(rng.standard_normal(shape), dtype)
        return x

    def _reference(
        self, case: BackwardCase, x: Array, dy: Array, known: dict[str, Array], dtype: str
    ) -> None:
        """What each output must be, and how far float32 sums may be from it."""
        k, stride, d = case.kernel, case.stride, case.dilation
        channels = x.shape[1]
        scale, shift, slope = (
            known.get(name, np.full(channels, absent))[:, None, None]
            for name, absent in (("scale", 1.0), ("shift", 0.0), ("slope", 1.0))
        )
        weight = known["weight"]
        eps = EPSILON["float32"]
        z = convolve(x, weight, stride, d)
        z_error = (k * k + 2) * eps * convolve(np.abs(x), np.abs(weight), stride, d)
        u = scale * z + shift
        u_error = np.abs(scale) * z_error + 2 * eps * (np.abs(scale * z) + np.abs(shift))
        du = np.where(u > 0, dy, slope * dy)
        # The sign of a u this close to zero is anybody's guess.
        du_error = np.where(np.abs(u) <= u_error, np.abs((1 - slope) * dy), 0) + eps * np.abs(du)
        dz = scale * du
        dz_error = np.abs(scale) * du_error + eps * np.abs(dz)

        def expect(name: str, values: Array, tolerance: Array) -> None:
            if name in self.outputs:
                self.outputs[name].expect(values, tolerance)

        def expect_sum(name: str, terms: Array, errors: Array) -> None:
            """Any order of adding does for the hundred or so sums in a row of a thread."""
            size = (np.abs(terms) * 128 * eps + errors).sum((0, 2, 3))
            expect(name, terms.sum((0, 2, 3)), size)

        expect("dz", dz, dz_error)
        stored = EPSILON[dtype] / 2 * np.abs(dz) if "dz" in self.outputs else 0
        size = np.abs(dz) * (k * k + 4) * eps + dz_error + stored + SMALLEST[dtype]
        expect(
            "dx",
            transpose(dz, weight, x.shape, stride, d),
            transpose(size, np.abs(weight), x.shape, stride, d),
        )
        size = np.abs(dz) * 128 * eps + dz_error
        expect(
            "grad_weight",
            correlate(x, dz, k, stride, d),
            correlate(np.abs(x), size, k, stride, d),
        )
        expect_sum("grad_scale", du * z, np.abs(du) * z_error + np.abs(z) * du_error)
        expect_sum("grad_shift", du, du_error)
        below = np.where(u > 0, 0, dy * u)
        expect_sum("grad_slope", below, np.abs(dy) * u_error)

    def input_branch(self) -> Branch:
        """What the kernel of dx is given where dz is stored."""
        branch = Branch(self.branch.dz, self.branch.dx)
        for name, _ in Branch._fields_[-4:]:
            setattr(branch, name, getattr(self.branch, name))
        return branch


class BackwardLibrary:
    """A build of depthwise_scales_bwd_host.cpp."""

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)
        self._library.report.restype = ctypes.c_char_p
        self._library.scratch.restype = ctypes.c_int64

    def run(
        self, case: BackwardCase, dtype: str, orders: Iterable[str] = ORDERS, margin: int = MARGIN
    ) -> None:
        """Run one case in several thread orders; AssertionError says what is wrong."""
        features = [BackwardFeature(case, b, dtype, margin) for b in range(len(case.shapes))]
        branches = (BackwardBranch * len(features))(*(feature.branch for feature in features))
        sizes = (len(features), case.kernel, case.stride, case.dilation)
        floats = self._library.scratch(branches, *sizes)
        assert floats >= 0
        outputs = [
            (b, name, output)
            for b, feature in enumerate(features)
            for name, output in feature.outputs.items()
        ]
        first: list[bytes] = []
        for order in orders:
            scratch = np.full(floats + 2 * margin, np.nan, np.float32)
            scratch.view(np.uint32)[:] = CANARY["float32"]
            for _, _, output in outputs:
                output.poison()
            self._library.set_order(*ORDERS[order])
            at = ctypes.c_void_p(scratch[margin:].ctypes.data)
            status = self._library.run(branches, *sizes, at)
            assert status == 0, f"{order}: launch failed with {status}: {self.report()}"
            around = np.delete(scratch.view(np.uint32), slice(margin, margin + floats))
            assert np.all(around == CANARY["float32"]), f"{case}: wrote outside of the scratch"
            for b, name, output in outputs:
                problem = output.problem()
                assert problem is None, f"{case} {dtype} {order}, branch {b}, {name}: {problem}"
            bits = [output.array.tobytes() for _, _, output in outputs]
            first = first or bits
            assert bits == first, f"{case} {dtype}: {order} gives other bits"

    def plans(self, case: BackwardCase, dtype: str) -> list[tuple[bool, bool, int]]:
        """Of every branch, whether the sums and dx go through tiles, and the sweeps of a block."""
        plans = []
        for b in range(len(case.shapes)):
            feature = BackwardFeature(case, b, dtype, MARGIN)
            rest = (case.stride, case.dilation)
            plan = self._library.plan(ctypes.byref(feature.branch), *rest)
            dx = self._library.is_tiled(ctypes.byref(feature.input_branch()), *rest)
            plans.append((bool(plan & 1), bool(dx), plan >> 1))
        return plans

    def report(self) -> str:
        """What the emulation says of the last launch that failed."""
        return self._library.report().decode()


def main(path: str, dtype: str, *kernels: str) -> int:
    library = BackwardLibrary(path)
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
