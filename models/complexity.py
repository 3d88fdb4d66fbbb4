"""How large a network is and how much it computes.

Three counts, for one image:

* params: elements of all parameters.
* conv MACs: multiply-accumulates of convolutions and linear layers, biases left out.
* paper FLOPs: the count behind the "FLOPs" of the CSNet paper (Gao et al., ECCV 2020), which is
  that of the counter published with its code. To the conv MACs it adds

  - 1 per output element of a convolution with bias,
  - 4 per element of a batch or group norm and 3 per element of a PReLU,
  - 9 per element resized bilinearly inside an octave convolution (elements of the output, for
    every pair of an input branch and a finer output branch),
  - 5 per input element of the average pool at a stage's entry,
  - k^2 per output element of a max pool inside an octave convolution, k the size of the
    *convolution's* kernel, for every pair of an input branch and a coarser output branch, even
    if that output branch is empty.

  The last resize to the image's size, sums, concatenations, ReLU and the pooling of a trunk count
  nothing. The authors' counter cuts branches at truncated fractions of the width; here the
  channels are exact, which differs in the fourth decimal of a G for three networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lmwp_models.csf import BilinearOctConv
from lmwp_models.layers import DepthwiseLayer, DilatedLayer, DilatedScale, StandardConv
from lmwp_ops.nn import CBAM, DepthwiseScales, DilatedBank, GOctConv2d, MultiscaleMix

_NORM, _PRELU, _RESIZE, _AVG_POOL = 4, 3, 9, 5


@dataclass(frozen=True)
class Counts:
    """Params, conv MACs and paper FLOPs of one part of a network."""

    params: int
    macs: int
    paper_flops: int


@dataclass(frozen=True)
class Complexity(Counts):
    """Counts of a whole network, and of its parts by name in order of execution."""

    by_part: dict[str, Counts] = field(default_factory=dict)


def summarize(model: nn.Module, input_size: tuple[int, int]) -> Complexity:
    """Count `model` for one image of `input_size` (H, W); nothing is computed, it stays as it is.

    The parts are those of `model.parts()`, which must cover the model, or else its children. A
    network in training mode is counted with what it computes there only, such as side outputs.

    Raises:
        ValueError: the network does not take images of that size.
    """
    parts = _parts(model)
    tallies = {name: _Tally() for name in parts}
    hooks = [
        module.register_forward_hook(tallies[name].add)
        for name, part in parts.items()
        for module in part.modules()
    ]
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    shadow = {key: tensor.to("meta") for key, tensor in state.items()}
    images = torch.empty(2, 3, *input_size, device="meta")  # in training one may be too few
    try:
        with _ShapesOnly():
            torch.func.functional_call(model, shadow, images)
    finally:
        for hook in hooks:
            hook.remove()
    by_part = {
        name: Counts(
            sum(p.numel() for p in part.parameters()),
            tallies[name].macs,
            tallies[name].macs + tallies[name].others,
        )
        for name, part in parts.items()
    }
    return Complexity(
        params=sum(p.numel() for p in model.parameters()),
        macs=sum(counts.macs for counts in by_part.values()),
        paper_flops=sum(counts.paper_flops for counts in by_part.values()),
        by_part=by_part,
    )


def _parts(model: Any) -> dict[str, nn.Module]:
    return model.parts() if hasattr(model, "parts") else dict(model.named_children())


class _ShapesOnly(TorchFunctionMode):
    """Replaces what is slow on the meta device by a tensor of the same shape."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (F.batch_norm, F.group_norm, F.relu, torch.prelu):
            return args[0]
        if func is F.interpolate and "size" in kwargs:
            return args[0].new_empty((*args[0].shape[:2], *kwargs["size"]))
        return func(*args, **kwargs)


class _Tally:
    """Adds up the conv MACs and the other paper FLOPs of the modules it hears of."""

    def __init__(self) -> None:
        self.macs = 0
        self.others = 0

    def add(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """A forward hook."""
        for kinds, count in _COUNTERS:
            if isinstance(module, kinds):
                macs, others = count(module, inputs[0], output)
                self.macs += macs
                self.others += others
                return


def _conv(module: Any, x: Tensor, y: Tensor) -> tuple[int, int]:
    return y[0].numel() * module.weight[0].numel(), y[0].numel() if module.bias is not None else 0


def _standard(module: StandardConv, xs: list[Tensor], ys: list[Tensor]) -> tuple[int, int]:
    return _per_pixel([[module.weight]], ys), 0


def _depthwise(module: DepthwiseLayer, xs: list[Tensor], ys: list[Tensor]) -> tuple[int, int]:
    return _per_pixel([conv.parameters() for conv in module.convs.values()], ys), 0


def _depthwise_scales(
    module: DepthwiseScales, xs: list[Tensor], ys: list[Tensor]
) -> tuple[int, int]:
    return _per_pixel([[weight] for weight in module.weights], ys), 0


def _dilated(module: DilatedLayer, xs: list[Tensor], ys: list[Tensor]) -> tuple[int, int]:
    scales = cast(Iterable[DilatedScale], module.convs.values())
    return _per_pixel([scale.msconv.parameters() for scale in scales], ys), 0


def _dilated_bank(module: DilatedBank, xs: list[Tensor], ys: list[Tensor]) -> tuple[int, int]:
    scales = [list(scale.parameters()) for scale in module.convs]
    return _per_pixel([weights for weights in scales if weights], ys), 0


def _per_pixel(weights: Iterable[Iterable[Tensor]], ys: list[Tensor]) -> int:
    """MACs of convolutions whose weights (per branch) are each used once per output pixel."""
    return sum(
        y.shape[-2] * y.shape[-1] * sum(weight.numel() for weight in branch)
        for branch, y in zip(weights, ys, strict=True)
    )


def _octave(
    module: GOctConv2d | BilinearOctConv, xs: list[Tensor], ys: list[Tensor]
) -> tuple[int, int]:
    macs = others = 0
    outputs = dict(zip(_present(module.out_channels), ys, strict=True))
    for i, x in zip(_present(module.in_channels), xs, strict=True):
        height, width = x.shape[-2:]
        if module.entry_pool:
            others += _AVG_POOL * x[0].numel()
            height, width = height // 2, width // 2
        for j, out in enumerate(module.out_channels):
            if not module.cross_scale and i != j:
                continue
            pixels = height * width
            if i < j and module.down == "max":
                pixels = (height >> (j - i)) * (width >> (j - i))
                others += module.kernel_size**2 * x.shape[1] * pixels
            elif i < j and out:
                pixels = outputs[j][0, 0].numel()
                others += _RESIZE * x.shape[1] * pixels
            elif i > j and out:
                others += _RESIZE * outputs[j][0].numel()
            macs += module.kernel_size**2 * x.shape[1] * out * pixels
    return macs, others


def _multiscale_mix(module: MultiscaleMix, u: Tensor, y: Tensor) -> tuple[int, int]:
    macs = others = 0
    channels, height, width = u.shape[1:]
    for octave, _ in module.branches:
        pixels = -(-height // 2**octave) * -(-width // 2**octave)
        macs += 9 * channels * pixels
        others += _NORM * channels * pixels
        if octave:
            others += (_AVG_POOL + _RESIZE) * u[0].numel()
    return macs, others


def _cbam(module: CBAM, x: Tensor, y: Tensor) -> tuple[int, int]:
    """The layers of the channel gate run once for each pool."""
    layers = [layer for layer in (module.reduce, module.expand) if layer is not None]
    kernels = sum(kernel.numel() for kernel in module.spatial.parameters())
    macs = (module.mean + module.max) * sum(layer.weight.numel() for layer in layers)
    return macs + kernels * x[0, 0].numel(), 0


def _present(channels: tuple[int, ...]) -> list[int]:
    return [b for b, c in enumerate(channels) if c]


_COUNTERS: list[tuple[Any, Callable[[Any, Any, Any], tuple[int, int]]]] = [
    ((nn.Conv2d, nn.Linear), _conv),
    (StandardConv, _standard),
    (DepthwiseLayer, _depthwise),
    (DepthwiseScales, _depthwise_scales),
    (DilatedLayer, _dilated),
    (DilatedBank, _dilated_bank),
    ((GOctConv2d, BilinearOctConv), _octave),
    (MultiscaleMix, _multiscale_mix),
    (CBAM, _cbam),
    ((nn.BatchNorm2d, nn.GroupNorm), lambda module, x, y: (0, _NORM * y[0].numel())),
    (nn.PReLU, lambda module, x, y: (0, _PRELU * y[0].numel())),
]
