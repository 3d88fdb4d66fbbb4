"""What the registrations of all ops have in common.

The first argument of every op is its list of branches, `xs`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lmwp_ops import _dispatch, _loader, _triton
from lmwp_ops._layout import empty_like_layout
from lmwp_ops._library import LIBRARY

_DEVICES = ("cpu", "cuda")
_LIBRARY_OF = {"cpp": ("_C", "cpu"), "cuda": ("_C_cuda", "cuda")}


def invoke(op: str, check: Callable[..., None], args: tuple[Any, ...]) -> list[Tensor]:
    """What a public function does with its op arguments.

    Where nothing watches the call - no gradient, trace or autocast - the op is run at once: the
    way through torch's dispatcher and back into Python costs more than a kernel on a small map.
    """
    xs = args[0]
    if xs and not (
        torch.is_grad_enabled()
        or torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack()
        or torch.is_autocast_enabled(xs[0].device.type)
    ):
        outputs: list[Tensor] = _dispatch.check_and_run(op, check, args)
        return outputs
    outputs = getattr(torch.ops.lmwp_ops, op).default(*args)
    return outputs


def register(
    op: str,
    *,
    check: Callable[..., None],
    fake: Callable[..., list[Tensor]],
    reference: Callable[..., list[Tensor]],
    compiled: Sequence[str],
    triton: Callable[..., list[Tensor]] | None = None,
    bind: Callable[..., tuple[Any, ...]],
) -> None:
    """Give the defined op its implementation, fake, autocast and backends.

    `check(*args)` raises for arguments that the op cannot compute; `compiled` are the backends
    that a compiled library implements as `<op>_<backend>`, which is defined, too; `triton`
    launches Triton kernels and imports them when called; `bind` turns the arguments of the public
    function into those of the op.
    """
    _implement(op, check, fake, _candidates(op, reference, compiled, triton), bind)
    for device_type in _DEVICES:
        LIBRARY.impl(op, partial(_autocast, op, device_type), f"Autocast{device_type.upper()}")


def register_gradient(
    op: str,
    *,
    check: Callable[..., None],
    fake: Callable[..., Any],
    reference: Callable[..., Any],
    compiled: Sequence[str] = (),
    triton: Callable[..., Any] | None = None,
    setup_context: Callable[..., None],
    differentiate: Callable[..., Any],
) -> None:
    """Give the op its gradient, through the defined `<op>_backward`, and that op no gradient.

    `<op>_backward` has checks, a fake and backends of its own, as `register` gives them.
    """
    name = f"{op}_backward"

    def refuse(ctx: Any, *grads: Any) -> None:
        raise NotImplementedError(
            f"{op}: can be differentiated once only; "
            "a gradient of its gradient was asked for (create_graph=True)"
        )

    _implement(name, check, fake, _candidates(name, reference, compiled, triton), _as_given)
    torch.library.register_autograd(
        f"lmwp_ops::{op}", differentiate, setup_context=setup_context, lib=LIBRARY
    )
    torch.library.register_autograd(f"lmwp_ops::{name}", refuse, lib=LIBRARY)


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


def _implement(
    op: str,
    check: Callable[..., None],
    fake: Callable[..., Any],
    candidates: list[_dispatch.Candidate],
    bind: Callable[..., tuple[Any, ...]],
) -> None:
    """Check, then run the backend that is chosen; the fake serves the compiled backends, too."""

    def run(*args: Any) -> Any:
        check(*args)
        return _dispatch.run(op, *args)

    LIBRARY.impl(op, run, "CompositeExplicitAutograd")
    compiled = [c.backend for c in candidates if c.backend in _LIBRARY_OF]
    for name in (op, *(f"{op}_{backend}" for backend in compiled)):
        torch.library.register_fake(f"lmwp_ops::{name}", fake, lib=LIBRARY)
    _dispatch.register(op, candidates, bind=bind)


def _candidates(
    op: str,
    reference: Callable[..., Any],
    compiled: Sequence[str],
    triton: Callable[..., Any] | None,
) -> list[_dispatch.Candidate]:
    candidates = [_compiled_candidate(op, backend) for backend in compiled]
    if triton is not None:
        candidates.append(
            _dispatch.Candidate(
                "triton", triton, unavailable=_triton.why_not(), refuse=_triton.refuse
            )
        )
    return [*candidates, _dispatch.Candidate("reference", reference)]


def _as_given(*args: Any) -> tuple[Any, ...]:
    return args


def _autocast(op: str, device_type: str, *args: Any) -> list[Tensor]:
    dtype = torch.get_autocast_dtype(device_type)
    xs = [x.to(dtype) if x.is_floating_point() and x.dtype != torch.float64 else x for x in args[0]]
    keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, f"Autocast{device_type.upper()}"))
    with torch._C._ExcludeDispatchKeyGuard(keys):
        outputs: list[Tensor] = getattr(torch.ops.lmwp_ops, op).default(xs, *args[1:])
        return outputs


def _compiled_candidate(op: str, backend: str) -> _dispatch.Candidate:
    """The candidate that runs `<op>_cpp` or `<op>_cuda` of a compiled library."""
    library, device_type = _LIBRARY_OF[backend]
    return _dispatch.Candidate(
        backend,
        getattr(torch.ops.lmwp_ops, f"{op}_{backend}").default,
        unavailable=_loader.status()[library],
        refuse=partial(_refuse_compiled, device_type),
        validates=backend == "cpp",
    )


def _refuse_compiled(device_type: str, xs: list[Tensor], *_: Any) -> str | None:
    if xs[0].device.type != device_type:
        return f"it runs on {device_type}; xs is on {xs[0].device.type}"
    if xs[0].dtype == torch.float64:
        return "it computes in float32; xs is float64"
    return None
