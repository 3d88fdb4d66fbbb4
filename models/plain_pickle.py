"""Reads pickles that hold nothing but plain containers, numbers and small numpy arrays.

Nothing named in the pickle is ever imported or called: the few names that such files need
stand for the classes and functions below, and any other name is refused.
"""

from __future__ import annotations

import io
import math
import pickle
from typing import Any

import numpy as np

_NUMBERS = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}
_BYTE_ORDERS = {"<", ">", "|", "="}


class RefusedPickleError(ValueError):
    """The pickle is damaged or asks for something that is not plain data."""


def load_plain(data: bytes) -> Any:
    """Lists, tuples, dicts, strings and numbers of a pickle; arrays come back as nested lists.

    Raises:
        RefusedPickleError: with one line saying what was found.
    """
    try:
        return _plain(_PlainUnpickler(io.BytesIO(data)).load())
    except RefusedPickleError:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise RefusedPickleError(f"damaged pickle ({type(error).__name__})") from error


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        allowed = _ALLOWED.get((module.replace("numpy.core", "numpy._core"), name))
        if allowed is None:
            raise RefusedPickleError(
                f"a pickle of plain lists and numbers may not name {module}.{name}"
            )
        return allowed

    def persistent_load(self, pid: Any) -> Any:
        raise RefusedPickleError("a pickle of plain lists and numbers may not refer to other data")


class _DType:
    """What `numpy.dtype("f8")` and its state stand for."""

    def __init__(self, code: str, *flags: object) -> None:
        if code not in _NUMBERS:
            raise RefusedPickleError(f"expected numbers, got numpy type {code!r}")
        self.code = code
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in _BYTE_ORDERS:
            raise RefusedPickleError(f"expected a byte order, got {state[1]!r}")
        self.order = state[1]

    def decode(self, data: bytes) -> list[Any]:
        values: list[Any] = np.frombuffer(data, np.dtype(self.order + self.code)).tolist()
        return values


class _Array:
    """What a `numpy.ndarray` and its state stand for; a Fortran-ordered one is refused."""

    def __init__(self) -> None:
        self.values: Any = []

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran_order, data = state
        if fortran_order and len(shape) > 1:
            raise RefusedPickleError("expected a C-ordered array, got a Fortran-ordered one")
        values = dtype.decode(data)
        if len(values) != math.prod(shape):
            raise RefusedPickleError(f"expected {math.prod(shape)} numbers, got {len(values)}")
        self.values = np.array(values, dtype=object).reshape(shape).tolist()


class _ArrayType:
    """Stands for the class `numpy.ndarray`, which is only ever an argument of `_reconstruct`."""


def _reconstruct(kind: object, shape: object, code: object) -> _Array:
    return _Array()


def _scalar(dtype: _DType, data: bytes) -> Any:
    (value,) = dtype.decode(data)
    return value


def _frombuffer(data: bytes, dtype: _DType, shape: tuple[int, ...], order: str) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", data))
    return array


def _encode(text: str, encoding: str) -> bytes:
    """How the older pickle protocols spell bytes."""
    if encoding != "latin1":
        raise RefusedPickleError(f"expected bytes as latin1, got {encoding!r}")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): _encode,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _ArrayType,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "scalar"): _scalar,
}


def _plain(value: Any) -> Any:
    """`value` with arrays as lists; whatever is not plain data is refused."""
    if isinstance(value, _Array):
        return value.values
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    raise RefusedPickleError(f"expected plain lists and numbers, got {type(value).__name__}")
