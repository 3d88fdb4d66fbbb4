"""Choice of a backend for each call.

Every op registers candidates; a candidate refuses with a reason or runs. The choice is made when
the op runs, not when it is traced, so `use_backend` also acts on compiled graphs. On a GPU the
order is that of measurements, and a kernel has to pass its check at first use, too.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import torch

from lmwp_ops import _gpu, _tables, _verification
from lmwp_ops._backends import BACKENDS, GPU_BACKENDS
from lmwp_ops._examples import Example
from lmwp_ops._gpu import Place
from lmwp_ops._layout import leading

AUTO = "auto"
ENVIRONMENT = "LMWP_OPS_BACKEND"


class BackendError(RuntimeError):
    """A backend was asked for by name and cannot run the call."""


def _never(*_: Any) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Candidate:
    """One implementation of an op.

    `unavailable` is the reason why it can run no call at all (its library is not loaded), and
    `refuse(*args)` why it cannot run this one; None means that it can. One that `validates`
    raises RuntimeError for arguments that the op's checks would not let pass.
    """

    backend: str
    run: Callable[..., Any]
    unavailable: str | None = None
    refuse: Callable[..., str | None] = _never
    validates: bool = False

    def reason(self, args: tuple[Any, ...]) -> str | None:
        return self.unavailable or self.refuse(*args)


@dataclass(frozen=True, slots=True)
class OnGpu:
    """How an op runs on one GPU in one dtype: whom it asks, in order, and who is known to be
    right there."""

    place: Place
    order: tuple[Candidate, ...]
    proved: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Op:
    """An op's candidates, how the arguments of its public function become op arguments, and how
    arguments to try it with are made. `available` are the candidates that are loaded; `has_gpu`
    says whether one of them is for a GPU, `met` what each device and dtype met so far means."""

    name: str
    candidates: dict[str, Candidate]
    bind: Callable[..., tuple[Any, ...]]
    example: Example
    available: tuple[Candidate, ...]
    has_gpu: bool
    met: dict[tuple[torch.device, torch.dtype], OnGpu | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Who runs a call, and why the others do not."""

    op: str
    backend: str | None
    forced: str | None
    refusals: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain containers, ready for JSON."""
        return {
            "op": self.op,
            "backend": self.backend,
            "forced": self.forced,
            "refusals": dict(self.refusals),
        }

    def __str__(self) -> str:
        runs = f"runs on {self.backend}" if self.backend else "cannot run"
        forced = f" (forced: {self.forced})" if self.forced else ""
        lines = [f"{self.op} {runs}{forced}"]
        lines += [f"  not {backend}: {reason}" for backend, reason in self.refusals.items()]
        return "\n".join(lines)

    __repr__ = __str__


_ops: dict[str, Op] = {}


def register(
    op: str,
    candidates: list[Candidate],
    bind: Callable[..., tuple[Any, ...]],
    example: Example,
) -> None:
    """Register `op`, whose first argument is a list of tensors or a tensor.

    `bind` turns the arguments of its public function into op arguments, and
    `example(device, dtype, shapes)` makes op arguments to check and time its kernels with.
    """
    ordered = sorted(candidates, key=lambda candidate: BACKENDS.index(candidate.backend))
    available = tuple(candidate for candidate in ordered if candidate.unavailable is None)
    has_gpu = any(candidate.backend in GPU_BACKENDS for candidate in available)
    by_backend = {candidate.backend: candidate for candidate in ordered}
    _ops[op] = Op(op, by_backend, bind, example, available, has_gpu)


def run(op: str, *args: Any) -> Any:
    """Run `op` on the first backend that accepts `args`, or on the forced one.

    Raises `BackendError` if the forced backend refuses.
    """
    return _choose(op, args).run(*args)


def check_and_run(op: str, check: Callable[..., None], args: tuple[Any, ...]) -> Any:
    """`check` the arguments, then `run`; where the backend looks itself, it does so alone, and
    `check` only finds the words for what it refuses."""
    try:
        candidate = _choose(op, args)
    except BackendError:
        check(*args)
        raise
    if not candidate.validates:
        check(*args)
        return candidate.run(*args)
    try:
        return candidate.run(*args)
    except RuntimeError:
        check(*args)
        raise


def _choose(op: str, args: tuple[Any, ...]) -> Candidate:
    registered_op = _ops[op]
    on_gpu = _meet(registered_op, args) if registered_op.has_gpu else None
    if _forced is not None and _forced in registered_op.candidates:
        candidate = registered_op.candidates[_forced]
        reason = candidate.reason(args)
        if reason is None and on_gpu and not _is_trusted(registered_op, candidate, on_gpu):
            reason = _known_failure(registered_op, candidate, on_gpu)
        if reason:
            raise BackendError(
                f"{op}: backend {_forced!r} was forced and cannot run this call: {reason}"
            )
        return candidate
    for candidate in on_gpu.order if on_gpu else registered_op.available:
        if candidate.refuse(*args) is None and (
            on_gpu is None
            or candidate.backend in on_gpu.proved
            or _is_trusted(registered_op, candidate, on_gpu)
        ):
            return candidate
    raise BackendError(str(_explain(op, args)))


def _meet(op: Op, args: tuple[Any, ...]) -> OnGpu | None:
    """How a call on these arguments runs on its GPU; None if it is on no GPU."""
    like = leading(args[0])
    met = like.device, like.dtype
    try:
        return op.met[met]
    except KeyError:
        op.met[met] = _on_gpu(op, *met)
        return op.met[met]


def _on_gpu(op: Op, device: torch.device, dtype: torch.dtype) -> OnGpu | None:
    gpu = _gpu.describe(device)
    if gpu is None:
        return None
    order = _tables.backend_order(op.name, dtype, gpu)
    candidates = sorted(op.available, key=lambda candidate: order.index(candidate.backend))
    return OnGpu(Place(gpu, device, dtype), tuple(candidates))


def _is_trusted(op: Op, candidate: Candidate, on_gpu: OnGpu) -> bool:
    """Whether a candidate passes its check at first use, or cannot be checked yet."""
    verdict = _verification.verdict(op, candidate, on_gpu.place)
    if verdict == _verification.RIGHT:
        on_gpu.proved.add(candidate.backend)
    return verdict is None or verdict.error is None


def _known_failure(op: Op, candidate: Candidate, on_gpu: OnGpu) -> str | None:
    verdict = _verification.known(op, candidate, on_gpu.place)
    return verdict.reason if verdict else None


def _explain(op: str, args: tuple[Any, ...]) -> Explanation:
    registered_op = _ops[op]
    candidates = registered_op.candidates
    on_gpu = _meet(registered_op, args) if registered_op.has_gpu else None
    order = [candidate.backend for candidate in on_gpu.order] if on_gpu else []
    forced = _forced if _forced in candidates else None
    chosen = None
    refusals = {}
    for backend in dict.fromkeys([*order, *candidates]):
        candidate = candidates[backend]
        reason = candidate.reason(args)
        if reason is None and on_gpu:
            reason = _known_failure(registered_op, candidate, on_gpu)
        if reason is None and forced not in (None, backend):
            reason = f"{forced} is forced"
        elif reason is None and chosen:
            reason = f"{chosen} comes first"
        if reason is None:
            chosen = backend
        else:
            refusals[backend] = reason
    return Explanation(op, chosen, forced, refusals)


def explain(op: str | Callable[..., Any], *args: Any, **kwargs: Any) -> Explanation:
    """Say which backend would run a call of a public op, and why the others would not.

    `op` is the name or the function itself; the other arguments are those of the call, as in
    `explain("depthwise_scales", xs, weights, dilation=2)`. Nothing is run: a GPU kernel that was
    never checked counts as right. Print the result, or take `to_dict()` of it. Raises ValueError
    for an unknown op.
    """
    name = op if isinstance(op, str) else op.__name__
    if name not in _ops:
        raise ValueError(f"explain: op must be one of {', '.join(sorted(_ops))}; got {name!r}")
    return _explain(name, _ops[name].bind(*args, **kwargs))


def op_named(op: str) -> Op:
    """The registered op of this name."""
    return _ops[op]


def registered() -> dict[str, dict[str, str | None]]:
    """For each op its backends, each with None or the reason why it cannot run here."""
    return {
        name: {backend: candidate.unavailable for backend, candidate in op.candidates.items()}
        for name, op in _ops.items()
    }


def _checked(name: str | None, source: str) -> str | None:
    if name is None or name == AUTO:
        return None
    if name not in BACKENDS:
        expected = ", ".join((AUTO, *BACKENDS))
        raise ValueError(f"{source}: expected one of {expected}; got {name!r}")
    return name


_decomposed = False


def is_decomposed() -> bool:
    """Whether the public functions compute in plain torch operations of their own."""
    return _decomposed


@contextmanager
def decomposed() -> Iterator[None]:
    """Inside, every op is the plain torch operations of its reference, not one opaque call.

    For exporters and other compilers, which know torch's own operations only: trace, export and
    run under it. No backend is chosen there, and gradients are torch's own. It holds for the whole
    process.
    """
    global _decomposed
    previous, _decomposed = _decomposed, True
    try:
        yield
    finally:
        _decomposed = previous


_forced: str | None = _checked(os.environ.get(ENVIRONMENT) or None, ENVIRONMENT)


def forced_backend() -> str | None:
    """The backend that `use_backend` or the environment forces, or None."""
    return _forced


class use_backend:  # noqa: N801 - reads as a function, like torch.no_grad
    """Force one backend, for good or for a `with` block.

    `use_backend("reference")` acts from then on; as `with use_backend("reference"):` it acts until
    the block ends; `use_backend("auto")` returns to the automatic choice. The choice holds for the
    whole process, other threads included, because backward passes run in threads of their own. An
    op that has no implementation of that backend keeps its own choice; one that has it and cannot
    run the call raises `BackendError`. The variable `LMWP_OPS_BACKEND` sets the initial value.
    """

    def __init__(self, name: str) -> None:
        global _forced
        self._previous = _forced
        _forced = _checked(name, "use_backend")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        global _forced
        _forced = self._previous
