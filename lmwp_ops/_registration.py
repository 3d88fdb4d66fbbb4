"""What the registrations of all ops have in common.

The first argument of every op is its list of branches, `xs`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lmwp_ops import _dispatch, _loader
from lmwp_ops._layout import empty_like_layout
from lmwp_ops._library import LIBRARY

_DEVICES = ("cpu", "cuda")


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
    bind: Callable[..., tuple[Any, ...]],
    refuse: Mapping[str, Callable[..., str | None]] | None = None,
) -> None:
    """Give the defined op its implementation, fake, autocast and backends.

    `check(*args)` raises for arguments that the op cannot compute; `compiled` are the backends
    that a compiled library implements as `<op>_<backend>`, which is defined, too; `bind` turns the
    arguments of the public function into those of the op; `refuse` holds, by compiled backend, what
    says why the library cannot run a call, where it cannot run every one.
    """

    def forward(*args: Any) -> list[Tensor]:
        check(*args)
        outputs: list[Tensor] = _dispatch.run(op, *args)
        return outputs

    LIBRARY.impl(op, forward, "CompositeExplicitAutograd")
    for device_type in _DEVICES:
        LIBRARY.impl(op, partial(_autocast, op, device_type), f"Autocast{device_type.upper()}")
    for name in (op, *(f"{op}_{backend}" for backend in compiled)):
        torch.library.register_fake(f"lmwp_ops::{name}", fake, lib=LIBRARY)
    runs = {backend: getattr(torch.ops.lmwp_ops, f"{op}_{backend}").default for backend in compiled}
    candidates = [
        _compiled_candidate(
            backend, run, validates=backend == "cpp", also=(refuse or {}).get(backend)
        )
        for backend, run in runs.items()
    ]
    _dispatch.register(op, [*candidates, _dispatch.Candidate("reference", reference)], bind=bind)


def register_gradient(
    op: str,
    *,
    check: Callable[..., None],
    fake: Callable[..., Any],
    reference: Callable[..., Any],
    compiled: Mapping[str, Callable[..., Any]],
    setup_context: Callable[..., None],
    differentiate: Callable[..., Any],
) -> None:
    """Give the op its gradient, through the defined `<op>_backward`, and that op no gradient.

    `compiled` maps the backends of compiled libraries to what computes `<op>_backward` with them.
    """
    name = f"{op}_backward"

    def backward(*args: Any) -> Any:
        check(*args)
        return _dispatch.run(name, *args)

    def checked_fake(*args: Any) -> Any:
        check(*args)
        return fake(*args)

    def refuse(ctx: Any, *grads: Any) -> None:
        raise NotImplementedError(
            f"{op}: can be differentiated once only; "
            "a gradient of its gradient was asked for (create_graph=True)"
        )

    LIBRARY.impl(name, backward, "CompositeExplicitAutograd")
    torch.library.register_fake(f"lmwp_ops::{name}", checked_fake, lib=LIBRARY)
    torch.library.register_autograd(
        f"lmwp_ops::{op}", differentiate, setup_context=setup_context, lib=LIBRARY
    )
    torch.library.register_autograd(f"lmwp_ops::{name}", refuse, lib=LIBRARY)
    candidates = [
        _compiled_candidate(backend, run, validates=False) for backend, run in compiled.items()
    ]
    everyone = [*candidates, _dispatch.Candidate("reference", reference)]
    _dispatch.register(name, everyone, bind=lambda *args: args)


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


def _autocast(op: str, device_type: str, *args: Any) -> list[Tensor]:
    dtype = torch.get_autocast_dtype(device_type)
    xs = [x.to(dtype) if x.is_floating_point() and x.dtype != torch.float64 else x for x in args[0]]
    keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, f"Autocast{device_type.upper()}"))
    with torch._C._ExcludeDispatchKeyGuard(keys):
        outputs: list[Tensor] = getattr(torch.ops.lmwp_ops, op).default(xs, *args[1:])
        return outputs


def _compiled_candidate(
    backend: str,
    run: Callable[..., Any],
    *,
    validates: bool,
    also: Callable[..., str | None] | None = None,
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
    device_type: str, also: Callable[..., str | None] | None, xs: list[Tensor], *rest: Any
) -> str | None:
    if xs[0].device.type != device_type:
        return f"it runs on {device_type}; xs is on {xs[0].device.type}"
    if xs[0].dtype == torch.float64:
        return "it computes in float32; xs is float64"
    return also(xs, *rest) if also else None
