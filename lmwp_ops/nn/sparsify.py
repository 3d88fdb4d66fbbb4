"""Pruned convolutions of a model as sparse ones."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from lmwp_ops.nn.goctconv2d import GOctConv2d
from lmwp_ops.nn.sparse_conv2d import SparseConv2d
from lmwp_ops.ops.sparse_conv2d.layout import TORCH_FORMATS
from lmwp_ops.ops.sparse_conv2d.speed import predicted_gain

_ROUNDS = 7


@dataclass(frozen=True)
class SparsifiedConv:
    """What became of one convolution.

    `predicted_gain` is None where dense was chosen without a prediction, `measured_gain` where it
    was not measured; both say how many times as fast the format is as torch's dense convolution.
    """

    name: str
    format: str
    density: float
    predicted_gain: float | None
    measured_gain: float | None
    reason: str


@dataclass(frozen=True)
class SparsifyReport:
    """A row for each convolution that `sparsify` replaced; printed, a table."""

    rows: list[SparsifiedConv] = field(default_factory=list)

    def to_dict(self) -> list[dict[str, Any]]:
        """The rows as plain containers, ready for JSON."""
        return [dict(vars(row)) for row in self.rows]

    def __str__(self) -> str:
        width = max((len(row.name) for row in self.rows), default=0)
        lines = [
            f"{'':{width}}  {'format':12}  density  predicted  measured",
            *(
                f"{row.name:{width}}  {row.format:12}  {row.density:7.0%}  "
                f"{_times(row.predicted_gain):>9}  {_times(row.measured_gain):>8}"
                for row in self.rows
            ),
        ]
        return "\n".join(lines)


def sparsify(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    *args: Any,
    format: str = "auto",
) -> SparsifyReport:
    """Replace convolutions of a model by sparse ones, in place.

    Args:
        model: any module; it is left in the mode it is in.
        masks: by the name of an `nn.Conv2d` or a `GOctConv2d` as in `named_modules`, what is kept
            of its weight. Where no sparse convolution can take its place - an octave one, one of a
            class of its own, one whose weight the model takes without calling it (told by `args`) -
            the module stays, with zeros for what is pruned, and the report says why.
        args: arguments of the model. It is called once with them to learn the sizes of the maps;
            where `format` is `auto`, each convolution is then timed on its map both ways, and where
            dense turns out to be faster it is kept in the format `dense`, which keeps what is
            pruned at zero. Without them nothing is timed.
        format: see `SparseConvWeight.from_dense`.

    Raises:
        ValueError: a name is of no convolution, or a mask does not fit; the model is as it was.
    """
    convs = {name: _conv(model, name, mask) for name, mask in masks.items()}
    inputs = _inputs(model, convs, args) if args else {}
    made: dict[str, SparseConv2d | str] = {}
    for name, conv in convs.items():
        why_not = _why_not(conv, called=not args or name in inputs)
        made[name] = why_not or _sparse(conv, masks[name], inputs.get(name), format)
    rows = []
    for name, module in made.items():
        conv, mask = convs[name], masks[name]
        if isinstance(module, str):
            rows.append(_masked(name, conv, mask, module))
            continue
        row, chosen = _row(name, conv, module, mask, inputs.get(name), format)
        rows.append(row)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, chosen)
    return SparsifyReport(rows)


def _conv(model: nn.Module, name: str, mask: Tensor) -> nn.Conv2d:
    """The convolution of this name; an octave one passes for another, as it has a weight."""
    found = dict(model.named_modules()).get(name)
    if not isinstance(found, nn.Conv2d | GOctConv2d):
        got = "no module" if found is None else type(found).__name__
        expected = "expected the names of nn.Conv2d or GOctConv2d"
        raise ValueError(f"sparsify: masks: {expected}, got {name!r}: {got}")
    if mask.shape != found.weight.shape:
        expected = f"expected the shape {list(found.weight.shape)} of the weight"
        raise ValueError(f"sparsify: mask of {name!r}: {expected}, got {list(mask.shape)}")
    return cast(nn.Conv2d, found)


def _why_not(conv: nn.Conv2d, called: bool) -> str | None:
    """Why a sparse convolution cannot take the place of a module."""
    if isinstance(conv, GOctConv2d):
        return "dense: octave convolution, of several scales at once"
    if type(conv) is not nn.Conv2d:
        return f"dense: {type(conv).__name__} may compute something else than nn.Conv2d"
    return None if called else "dense: the model takes its weight and does not call it"


def _masked(name: str, conv: nn.Conv2d, mask: Tensor, reason: str) -> SparsifiedConv:
    """The row of a module that stays, with zeros for what is pruned."""
    kept = mask.ne(0).to(conv.weight.device)
    with torch.no_grad():
        conv.weight.mul_(kept)
    return SparsifiedConv(name, "dense", float(kept.float().mean()), None, None, reason)


def _inputs(
    model: nn.Module, convs: Mapping[str, nn.Conv2d], args: tuple[Any, ...]
) -> dict[str, Tensor]:
    """What each convolution is given when the model is called."""
    seen: dict[str, Tensor] = {}
    hooks = [
        conv.register_forward_pre_hook(
            lambda _, given, name=name: seen.update({name: given[0].detach()})
        )
        for name, conv in convs.items()
        if isinstance(conv, nn.Conv2d)
    ]
    try:
        with torch.no_grad(), _evaluating(model):
            model(*args)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """In evaluation mode, so that no statistics change."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _sparse(conv: nn.Conv2d, mask: Tensor, x: Tensor | None, format: str) -> SparseConv2d:
    sizes = {} if x is None else {"size": (x.shape[2], x.shape[3])}
    return SparseConv2d.from_conv(conv, mask, format, **sizes)


def _row(
    name: str,
    conv: nn.Conv2d,
    module: SparseConv2d,
    mask: Tensor,
    x: Tensor | None,
    format: str,
) -> tuple[SparsifiedConv, SparseConv2d]:
    """The row of the report, and the module to take."""
    predicted = measured = None
    density, reason = module.weight.density, module.reason
    if module.format not in TORCH_FORMATS:
        size = (28, 28) if x is None else (x.shape[2], x.shape[3])
        shape = module.weight_shape
        predicted = predicted_gain(module.format, density, shape, module.groups, size)
        if x is not None:
            measured = _measure(conv, module, x)
            if format == "auto" and measured <= 1:
                reason = f"dense is faster here: {module.format} is {measured:.2f} times as fast"
                module = _sparse(conv, mask, x, "dense")
    return SparsifiedConv(name, module.format, density, predicted, measured, reason), module


def _measure(conv: nn.Conv2d, module: SparseConv2d, x: Tensor) -> float:
    """How many times as fast the module is as the convolution, by turns."""
    seconds = [float("inf")] * 2
    with torch.no_grad():
        for _ in range(_ROUNDS):
            for i, compute in enumerate((conv, module)):
                compute(x)
                begin = time.perf_counter()
                compute(x)
                seconds[i] = min(seconds[i], time.perf_counter() - begin)
    return seconds[0] / seconds[1]


def _times(gain: float | None) -> str:
    return "-" if gain is None else f"{gain:.2f}"
