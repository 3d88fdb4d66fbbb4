"""Autograd of the ops: through torch's dispatcher, and past it.

What `torch.library` makes of a registered gradient takes every call through the dispatcher and
pytrees, three times into Python and back: half a millisecond, more than a kernel on a small map.
Where nothing watches the calls, one autograd function does the same.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from lmwp_ops import _autocast, _dispatch
from lmwp_ops._examples import convert, tensors
from lmwp_ops._layout import leading
from lmwp_ops._library import LIBRARY

Kinds = list[Tensor | list[Tensor]]


class Gradient:
    """The gradient of an op, which `<op>_backward` computes.

    That takes the gradients of the op's first kind of results, the `count` tensors and lists of
    tensors that the op begins with, its last `kept` kinds of results, its settings, and a mask of
    the gradients wanted.
    """

    def __init__(self, op: str, kept: int) -> None:
        overload = getattr(torch.ops.lmwp_ops, op).default
        arguments = overload._schema.arguments
        self.op = op
        self.kept = kept
        self.results = len(overload._schema.returns)
        self.count = sum(str(argument.type) in ("Tensor", "List[Tensor]") for argument in arguments)

    def save(self, ctx: Any, args: Sequence[Any], outputs: Any) -> None:
        """Keep in `ctx` what the backward pass of a call needs, and nothing else alive."""
        kinds: Kinds = list(args[: self.count])
        if self.results > 1:
            ctx.mark_non_differentiable(*_flat(outputs[1:]))
            kinds += outputs[self.results - self.kept :]
        ctx.settings = args[self.count :]
        ctx.lengths = [None if isinstance(kind, Tensor) else len(kind) for kind in kinds]
        ctx.save_for_backward(*_flat(kinds))

    def compute(
        self, ctx: Any, grads: Tensor | list[Tensor], wanted: list[bool]
    ) -> list[Tensor | list[Tensor] | None]:
        """A gradient for each kind of tensors, None where it is not `wanted`."""
        kinds = _grouped(ctx.saved_tensors, ctx.lengths)
        args = grads, *kinds, *ctx.settings, wanted
        name = f"{self.op}_backward"
        if torch.is_grad_enabled() or _is_watched():
            found = getattr(torch.ops.lmwp_ops, name).default(*args)
        else:
            found = _dispatch.run(name, *args)
        return [
            None if not want else kind[0] if length is None else kind
            for kind, want, length in zip(found, wanted, ctx.lengths, strict=False)
        ]


_gradients: dict[str, Gradient] = {}


def register(op: str, kept: int) -> None:
    """Give `op` its gradient, and `<op>_backward` an error in the place of one."""
    gradient = _gradients[op] = Gradient(op, kept)

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        gradient.save(ctx, inputs, output)

    def differentiate(ctx: Any, grads: Tensor | list[Tensor], *_: Any) -> tuple[Any, ...]:
        needed = ctx.needs_input_grad[: gradient.count]
        wanted = [need if isinstance(need, bool) else any(need) for need in needed]
        found = gradient.compute(ctx, grads, wanted)
        lengths = ctx.lengths[: gradient.count]
        given = [
            [None] * length if kind is None and length is not None else kind
            for kind, length in zip(found, lengths, strict=True)
        ]
        return *given, *[None] * len(ctx.settings)

    def refuse(ctx: Any, *grads: Any) -> None:
        raise NotImplementedError(
            f"{op}: can be differentiated once only; "
            "a gradient of its gradient was asked for (create_graph=True)"
        )

    register_autograd = torch.library.register_autograd
    register_autograd(f"lmwp_ops::{op}", differentiate, setup_context=setup_context, lib=LIBRARY)
    register_autograd(f"lmwp_ops::{op}_backward", refuse, lib=LIBRARY)


def _is_watched() -> bool:
    """Whether something has to see the calls: a compiler, a dispatch mode, functorch."""
    return bool(
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._are_functorch_transforms_active()
    )


def invoke(op: str, check: Callable[..., None], args: tuple[Any, ...]) -> Any:
    """What a public function does with its op arguments: past the dispatcher where that is safe."""
    xs = args[0]
    if not (isinstance(xs, Tensor) or xs) or _is_watched():
        return getattr(torch.ops.lmwp_ops, op).default(*args)
    device_type = leading(xs).device.type
    if not _autocast.is_on(device_type):
        return _invoke_at_once(op, check, args)
    lowered = _autocast.cast(device_type, args)
    with _autocast.off(device_type):
        return _invoke_at_once(op, check, lowered)


def _invoke_at_once(op: str, check: Callable[..., None], args: tuple[Any, ...]) -> Any:
    if torch.is_grad_enabled():
        gradient = _gradients.get(op)
        given = list(tensors(args)) if gradient is None else _flat(args[: gradient.count])
        if any(tensor.requires_grad for tensor in given):
            if gradient is None:
                return getattr(torch.ops.lmwp_ops, op).default(*args)
            call = _Call(gradient, check, args)
            results = iter(_Differentiable.apply(call, *given))
            return convert(call.outputs, lambda _: next(results))
    return _dispatch.check_and_run(op, check, args)


class _Call:
    """A call on its way through `_Differentiable`, which takes and gives tensors only."""

    def __init__(
        self, gradient: Gradient, check: Callable[..., None], args: tuple[Any, ...]
    ) -> None:
        self.gradient = gradient
        self.check = check
        self.args = args
        self.outputs: Any = None


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, *_: Tensor) -> tuple[Tensor, ...]:
        gradient = ctx.gradient = call.gradient
        call.outputs = _dispatch.check_and_run(gradient.op, call.check, call.args)
        gradient.save(ctx, call.args, call.outputs)
        first = call.outputs[0] if gradient.results > 1 else call.outputs
        ctx.branches = None if isinstance(first, Tensor) else len(first)
        return tuple(tensors(call.outputs))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        gradient = ctx.gradient
        lengths = ctx.lengths[: gradient.count]
        needed = _grouped(ctx.needs_input_grad[1:], lengths)
        wanted = [need if isinstance(need, bool) else any(need) for need in needed]
        first = grads[0] if ctx.branches is None else list(grads[: ctx.branches])
        found = gradient.compute(ctx, first, wanted)
        given: list[Tensor | None] = [None]
        for kind, length in zip(found, lengths, strict=True):
            if kind is None:
                given += [None] * (1 if length is None else length)
            else:
                given += [kind] if length is None else kind
        return tuple(given)


def _flat(kinds: Iterable[Tensor | list[Tensor]]) -> list[Tensor]:
    flat: list[Tensor] = []
    for kind in kinds:
        if isinstance(kind, Tensor):
            flat.append(kind)
        else:
            flat += kind
    return flat


def _grouped(values: Sequence[Any], lengths: Sequence[int | None]) -> list[Any]:
    """Values one by one where a length is None, else in lists of that length."""
    left: Iterator[Any] = iter(values)
    return [
        next(left) if length is None else [next(left) for _ in range(length)] for length in lengths
    ]
