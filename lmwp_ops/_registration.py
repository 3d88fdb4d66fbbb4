"""What the registrations of all ops have in common.

The first argument of every op is its feature: a list of branches, `xs`, or one tensor.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lmwp_ops import _autocast, _autograd, _dispatch, _loader, _triton
from lmwp_ops._examples import Draw, Example, Shapes, convert
from lmwp_ops._layout import empty_like_layout, leading
from lmwp_ops._library import LIBRARY

_DEVICES = ("cpu", "cuda")


def register(
    op: str,
    *,
    check: Callable[..., None],
    fake: Callable[..., Any],
    reference: Callable[..., Any],
    compiled: Sequence[str],
    triton: Callable[..., Any] | None = None,
    bind: Callable[..., tuple[Any, ...]],
    example: Example,
    refuse: Mapping[str, Callable[..., str | None]] | None = None,
) -> None:
    """Give the defined op its implementation, fake, autocast and backends.

    `check(*args)` raises for arguments that the op cannot compute; `compiled` are the backends
    that a compiled library implements as `<op>_<backend>`, which is defined, too; `triton`
    launches Triton kernels and imports them when called; `bind` turns the arguments of the public
    function into those of the op; `example(device, dtype, shapes)` makes arguments of the op that
    reach all parts of its kernels, with branches of `shapes` or tiny ones; `refuse` holds, by
    backend, what says why it cannot run a call, where it cannot run every one.
    """
    refuse = refuse or {}

    def checked_example(
        device: torch.device, dtype: torch.dtype, shapes: Shapes | None
    ) -> tuple[Any, ...]:
        args = example(device, dtype, shapes)
        check(*args)
        return args

    runs = {backend: getattr(torch.ops.lmwp_ops, f"{op}_{backend}").default for backend in compiled}
    candidates = [
        _compiled_candidate(backend, run, validates=backend == "cpp", also=refuse.get(backend))
        for backend, run in runs.items()
    ]
    candidates += _everywhere(triton, reference, refuse.get("triton"))
    _implement(op, check, fake, compiled)
    for device_type in _DEVICES:
        LIBRARY.impl(op, partial(_run_autocast, op, device_type), f"Autocast{device_type.upper()}")
    _dispatch.register(op, candidates, bind=bind, example=checked_example)


def register_gradient(
    op: str,
    *,
    check: Callable[..., None],
    fake: Callable[..., Any],
    reference: Callable[..., Any],
    compiled: Mapping[str, Callable[..., Any]],
    triton: Callable[..., Any] | None = None,
    kept_outputs: int = 0,
    example: Example | None = None,
    refuse: Mapping[str, Callable[..., str | None]] | None = None,
) -> None:
    """Give the op its gradient, through the defined `<op>_backward`, and that op no gradient.

    `<op>_backward` takes the gradients of the results (of an op with several kinds of them: of the
    first kind, the others have none), the tensors and lists of tensors that the op begins with,
    its last `kept_outputs` kinds of results, its settings, and a mask of the gradients wanted.
    `compiled` maps the backends of compiled libraries to what computes `<op>_backward` with them;
    `example` is needed where that takes more than gradients, the op's arguments and a mask; the
    rest is as in `register`.
    """
    name = f"{op}_backward"
    refuse = refuse or {}
    candidates = [
        _compiled_candidate(backend, run, validates=False, also=refuse.get(backend))
        for backend, run in compiled.items()
    ]
    candidates += _everywhere(triton, reference, refuse.get("triton"))
    _implement(name, check, fake)
    _autograd.register(op, kept_outputs)
    example = example or partial(_gradients_of, op)
    _dispatch.register(name, candidates, bind=_as_given, example=example)


def _implement(
    op: str, check: Callable[..., None], fake: Callable[..., Any], compiled: Sequence[str] = ()
) -> None:
    """Check the arguments, then run the backend that is chosen, or the fake."""

    def run(*args: Any) -> Any:
        check(*args)
        return _dispatch.run(op, *args)

    def checked_fake(*args: Any) -> Any:
        check(*args)
        return fake(*args)

    LIBRARY.impl(op, run, "CompositeExplicitAutograd")
    for name in (op, *(f"{op}_{backend}" for backend in compiled)):
        torch.library.register_fake(f"lmwp_ops::{name}", checked_fake, lib=LIBRARY)


def _everywhere(
    triton: Callable[..., Any] | None,
    reference: Callable[..., Any],
    also: Callable[..., str | None] | None,
) -> list[_dispatch.Candidate]:
    """The candidates that no compiled library implements."""
    candidates = [_dispatch.Candidate("reference", reference)]
    if triton is not None:
        candidates.append(
            _dispatch.Candidate(
                "triton",
                triton,
                unavailable=_triton.why_not(),
                refuse=partial(_refuse_triton, also),
            )
        )
    return candidates


def _refuse_triton(
    also: Callable[..., str | None] | None, xs: Tensor | list[Tensor], *rest: Any
) -> str | None:
    return _triton.refuse(xs) or (also(xs, *rest) if also else None)


def _as_given(*args: Any) -> tuple[Any, ...]:
    return args


def _gradients_of(
    op: str, device: torch.device, dtype: torch.dtype, shapes: Shapes | None
) -> tuple[Any, ...]:
    """Arguments to try `<op>_backward` with: every gradient of the example of the op."""
    args = _dispatch.op_named(op).example(device, dtype, shapes)
    forward, backward = (getattr(torch.ops.lmwp_ops, name) for name in (op, f"{op}_backward"))
    outputs = forward.default(*convert(args, lambda t: t.to("meta")))
    draw = Draw(device, dtype, seed=1)
    wanted = [True] * len(backward.default._schema.returns)
    return convert(outputs, lambda y: draw(*y.shape)), *args, wanted


def empty_gradients(
    xs: list[Tensor], parameters: Sequence[list[Tensor]], wanted: Sequence[bool]
) -> tuple[list[Tensor], ...]:
    """What fake backward ops return: for xs, then each kind of parameters, tensors if wanted."""
    grad_xs = [empty_like_layout(x, x.shape) for x in xs] if wanted[0] else []
    kinds = (
        [torch.empty(p.shape, dtype=p.dtype, device=p.device) for p in kind] if want else []
        for kind, want in zip(parameters, wanted[1:], strict=True)
    )
    return grad_xs, *kinds


def _run_autocast(op: str, device_type: str, *args: Any) -> Any:
    lowered = _autocast.cast(device_type, args)
    with _autocast.off(device_type):
        return getattr(torch.ops.lmwp_ops, op).default(*lowered)


def _compiled_candidate(
    backend: str,
    run: Callable[..., Any],
    *,
    validates: bool,
    also: Callable[..., str | None] | None,
) -> _dispatch.Candidate:
    """The candidate that runs what a compiled library implements."""
    library, device_type = {"cpp": ("_C", "cpu"), "cuda": ("_C_cuda", "cuda")}[backend]
    return _dispatch.Candidate(
        backend,
        run,
        unavailable=_loader.status()[library],
        refuse=partial(_refuse_compiled, device_type, also),
        validates=validates,
    )


def _refuse_compiled(
    device_type: str,
    also: Callable[..., str | None] | None,
    xs: Tensor | list[Tensor],
    *rest: Any,
) -> str | None:
    like = leading(xs)
    if like.device.type != device_type:
        return f"it runs on {device_type}; xs is on {like.device.type}"
    if like.dtype == torch.float64:
        return "it computes in float32; xs is float64"
    return also(xs, *rest) if also else None
