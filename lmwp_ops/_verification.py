"""GPU kernels prove themselves at first use: against the reference, on tiny inputs.

A verdict is about an op, a backend, a dtype, an architecture and all versions that matter. It is
kept on disk, so that one process finds it for all later ones. `LMWP_OPS_VERIFY=0` switches the
check off, and with it what was found before.
"""

import os
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lmwp_ops import _disk_cache, _gpu
from lmwp_ops._backends import GPU_BACKENDS
from lmwp_ops._examples import convert, double, tensors
from lmwp_ops._gpu import Gpu, Place

if TYPE_CHECKING:
    from lmwp_ops._dispatch import Candidate, Op

ENVIRONMENT = "LMWP_OPS_VERIFY"
KIND = "verified"

enabled = os.environ.get(ENVIRONMENT) != "0"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`error` is what a kernel got wrong, or None."""

    error: str | None

    @property
    def reason(self) -> str | None:
        """Why the kernel is refused."""
        return f"it failed its check at first use: {self.error}" if self.error else None


RIGHT = Verdict(None)
_RIGHT = "right"  # on disk, where otherwise the error is

Kernel = tuple[str, str, torch.dtype, tuple[int, int]]
"""Op, backend, dtype and compute capability."""

_verdicts: dict[Kernel, Verdict] = {}
_being_checked: set[Kernel] = set()
_one_at_a_time = threading.RLock()


def verdict(op: "Op", candidate: "Candidate", place: Place) -> Verdict | None:
    """The verdict on a kernel, which is checked now if nobody has yet.

    None where that is not possible: while a CUDA graph is captured or a graph traced, or for want
    of memory. A later call will have to do it.
    """
    if already := known(op, candidate, place):
        return already
    if _gpu.is_capturing() or torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
        return None
    kernel = _kernel(op, candidate, place)
    with _one_at_a_time:
        # Another thread was faster, or the check itself came by here.
        if kernel in _verdicts or kernel in _being_checked:
            return _verdicts.get(kernel)
        _being_checked.add(kernel)
        try:
            return _check(op, candidate, place)
        finally:
            _being_checked.remove(kernel)


def known(op: "Op", candidate: "Candidate", place: Place) -> Verdict | None:
    """The verdict on a kernel that this process or an earlier one has checked, else None."""
    if not enabled or candidate.backend not in GPU_BACKENDS:
        return RIGHT
    kernel = _kernel(op, candidate, place)
    return _verdicts.get(kernel) or _stored(kernel)


def ahead(op: "Op", candidate: "Candidate", place: Place) -> Verdict | None:
    """As `verdict`, but a kernel that failed is checked again."""
    before = known(op, candidate, place)
    if before == RIGHT:
        return before
    with _one_at_a_time:
        return _check(op, candidate, place)


def _kernel(op: "Op", candidate: "Candidate", place: Place) -> Kernel:
    return op.name, candidate.backend, place.dtype, place.gpu.capability


def _stored(kernel: Kernel) -> Verdict | None:
    """The verdict of an earlier process."""
    text = _disk_cache.load(KIND, _key(kernel))
    if not isinstance(text, str):
        return None
    _verdicts[kernel] = Verdict(None if text == _RIGHT else text)
    return _verdicts[kernel]


def verified() -> dict[str, dict[str, str]]:
    """For each op its kernels that were checked with the versions of today, and what was found."""
    found: dict[str, dict[str, str]] = {}
    for key, text in _disk_cache.entries(KIND, _gpu.versions()):
        kernel = "{backend} {dtype} {architecture}".format(**key)
        found.setdefault(key["op"], {})[kernel] = str(text)
    return found


def _key(kernel: Kernel) -> dict[str, str | None]:
    op, backend, dtype, capability = kernel
    return {
        "op": op,
        "backend": backend,
        "dtype": _name(dtype),
        "architecture": _gpu.architecture(capability),
        **_gpu.versions(),
    }


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _check(op: "Op", candidate: "Candidate", place: Place) -> Verdict | None:
    """Compare with the reference, keep the verdict, warn of a failure; None for want of memory."""
    try:
        found = Verdict(_error(op, candidate, place))
    except torch.OutOfMemoryError:
        return None
    kernel = _kernel(op, candidate, place)
    _verdicts[kernel] = found
    _disk_cache.store(KIND, _key(kernel), found.error or _RIGHT)
    if found.error:
        _warn(kernel, place.gpu, found.error)
    return found


def _error(op: "Op", candidate: "Candidate", place: Place) -> str | None:
    reference = op.candidates["reference"].run
    with (
        torch.no_grad(),
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False),
    ):
        args = op.example(place.device, place.dtype, None)
        on_cpu = convert(args, Tensor.cpu)  # waits: errors of earlier kernels are not of this one
        plain = list(tensors(reference(*on_cpu)))
        truth = list(tensors(reference(*convert(on_cpu, double))))
        try:
            got = [y.cpu() for y in tensors(candidate.run(*args))]
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a kernel may raise
            return in_one_line(error)
    return mismatch(got, plain, truth)


def in_one_line(error: Exception) -> str:
    """The type of an error and the first line of its message."""
    return ": ".join([type(error).__name__, *str(error).splitlines()[:1]])


def mismatch(got: Sequence[Tensor], plain: Sequence[Tensor], truth: Sequence[Tensor]) -> str | None:
    """What is wrong with `got`, or None.

    Its error against `truth`, in float64, may be twice that of `plain`, plus one rounding to its
    dtype and sixteen in float32, in which kernels sum in an order of their own.
    """
    if len(got) != len(truth):
        return f"{len(got)} results where {len(truth)} are expected"
    for i, (y, p, t) in enumerate(zip(got, plain, truth, strict=True)):
        if y.shape != p.shape or y.dtype != p.dtype:
            found, expected = (f"{_name(r.dtype)} {list(r.shape)}" for r in (y, p))
            return f"result {i} is {found} where {expected} is expected"
        if not y.numel():
            continue
        roundings = torch.finfo(y.dtype).eps + 16 * torch.finfo(torch.float32).eps
        error, plain_error = (float((r.double() - t).abs().max()) for r in (y, p))
        allowed = 2 * plain_error + roundings * max(1.0, float(t.abs().max()))
        if not error <= allowed:  # NaN is wrong, too
            return f"result {i} is off by {error:.2g} where {allowed:.2g} is allowed"
    return None


def _warn(kernel: Kernel, gpu: Gpu, error: str) -> None:
    op, backend, dtype, _ = kernel
    warnings.warn(
        f"lmwp_ops: {op} on {backend} in {_name(dtype)} failed its check at first use on {gpu}: "
        f"{error}. It is left out from now on; the next backend runs instead. "
        "Update the GPU driver, torch and lmwp_ops, or mend what the message names; "
        "lmwp_ops.warmup() checks again. Please report it with `python -m lmwp_ops.env`.",
        RuntimeWarning,
        stacklevel=2,
    )
