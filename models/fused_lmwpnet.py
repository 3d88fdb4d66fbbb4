"""LMWP-Net on the fused ops, for inference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lmwp_ops
from lmwp_models.blocks import ConvNorm, ConvNormPReLU, DepthwiseNorm, SeparableConv, resize
from lmwp_models.fused_layers import fusion_by_layers, mwpm_by_layers, pointwise
from lmwp_models.fused_network import Folded, FusedNetwork, fold_norm
from lmwp_models.lmwpnet import LMWPNet
from lmwp_models.mafm import MAFM
from lmwp_models.mwpm import HIGHEST_THRESHOLD, MWPM
from lmwp_models.semantic_context import OCTAVES, SemanticContext
from lmwp_ops.ops import mwpm_block


class FusedStem(Folded):
    """The first `ConvNormPReLU`; from it on, features are channels_last on a CPU."""

    def __init__(self, layer: ConvNormPReLU) -> None:
        super().__init__()
        self.stride = layer.conv.stride[0]
        self._keep("layer", [*_normed(layer), layer.prelu.weight])

    def forward(self, x: Tensor) -> Tensor:
        weight, scale, shift, slope = self._kept("layer")
        return lmwp_ops.stem_conv2d(
            x,
            weight,
            stride=self.stride,
            affine=(scale, shift),
            slope=slope,
            channels_last=on_cpu(x),
        )


class FusedConv(Folded):
    """A `ConvNormPReLU`, its norm inside weight and bias."""

    def __init__(self, layer: ConvNormPReLU) -> None:
        super().__init__()
        scale, shift = fold_norm(layer.norm)
        self.stride, self.padding = layer.conv.stride, layer.conv.padding
        self._keep("layer", [_scaled(layer.conv.weight, scale), shift, layer.prelu.weight])

    def forward(self, x: Tensor) -> Tensor:
        weight, bias, slope = self._kept("layer")
        y = F.conv2d(x, weight, bias, self.stride, cast(tuple[int, int], self.padding))
        return F.prelu(y, slope)


class FusedSeparableConv(Folded):
    """A `SeparableConv` in two launches."""

    def __init__(self, layer: SeparableConv) -> None:
        super().__init__()
        depthwise, pointwise = cast(DepthwiseNorm, layer[0]), cast(ConvNormPReLU, layer[1])
        self.stride = depthwise.conv.stride[0]
        self._keep("depthwise", [depthwise.conv.weight, *fold_norm(depthwise.norm)])
        self._keep("pointwise", [*_normed(pointwise), pointwise.prelu.weight])

    def forward(self, x: Tensor) -> Tensor:
        weight, scale, shift = self._kept("depthwise")
        ys = lmwp_ops.depthwise_scales([x], [weight], stride=self.stride, affine=[(scale, shift)])
        return pointwise(ys[0], *self._kept("pointwise"))


class FusedMWPM(Folded):
    """An `MWPM` in one call on a CPU, by layers elsewhere."""

    def __init__(self, block: MWPM) -> None:
        super().__init__()
        self.branches = block.mix.branches
        gate = block.gate
        relative = gate.threshold.double().sigmoid().clamp(max=HIGHEST_THRESHOLD)
        threshold = (relative / gate.branches).to(gate.threshold.dtype)
        self._keep("expand", [*_normed(block.expand), block.expand.prelu.weight])
        layers = (gate.fc1.weight, gate.fc1.bias, gate.prelu.weight, gate.fc2.weight, gate.fc2.bias)
        self._keep("gate", [*layers, threshold])
        self._keep("depthwise", _depthwise_tables(block.mix.convs, block.mix.norms))
        self._keep("project", [*_normed(block.project), block.prelu.weight])
        self.packed: Tensor | None
        self.register_buffer("packed", None, persistent=False)
        self._pack()
        self.register_load_state_dict_post_hook(_pack_again)

    def forward(self, x: Tensor) -> Tensor:
        names = ("expand", "gate", "depthwise", "project")
        expand, gate, depthwise, project = map(self._kept, names)
        if on_cpu(x):
            return lmwp_ops.mwpm_block(
                x, expand, gate, depthwise, project, self.branches, self.packed
            )
        return mwpm_by_layers(x, expand, gate, depthwise, project, self.branches)

    def _pack(self) -> None:
        names = ("expand", "depthwise", "project")
        self.packed = mwpm_block.pack(*map(self._kept, names))

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        super()._apply(*args, **kwargs)
        self._pack()
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._pack()  # the processor may be another one


class FusedContext(Folded):
    """A `SemanticContext` with its norms folded."""

    def __init__(self, context: SemanticContext) -> None:
        super().__init__()
        self.pooled = nn.ModuleList(
            FusedConv(cast(ConvNormPReLU, layer)) for layer in context.pooled
        )
        self.image = FusedConv(context.image)
        self.fuse = FusedConv(context.fuse)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x]
        for octave, layer in zip(OCTAVES, self.pooled, strict=True):
            parts.append(resize(layer(F.avg_pool2d(x, 2**octave, ceil_mode=True)), x))
        image = self.image(x.mean((2, 3), keepdim=True))
        parts.append(image.expand(-1, -1, *x.shape[2:]))
        y: Tensor = self.fuse(torch.cat(parts, 1))
        return y


class FusedMAFM(Folded):
    """An `MAFM` in two calls on a CPU, by layers elsewhere; what its channel guide gives comes from
    outside."""

    def __init__(self, module: MAFM) -> None:
        super().__init__()
        attention = module.attention
        assert attention.reduce is not None
        assert attention.expand is not None
        assert module.spatial_guide.bias is not None
        self._keep("attention", [attention.reduce.weight, attention.expand.weight])
        self._keep("spatial", [kernel[0] for kernel in attention.spatial.parameters()])
        self._keep("encode", _normed(module.encoder))
        self._keep("decode", _normed(module.decoder))
        self._keep("guide", [module.spatial_guide.weight, module.spatial_guide.bias])
        layers = [module.near, module.far]
        convs = [layer.conv for layer in layers]
        self.dilations = [conv.dilation[0] for conv in convs]
        self._keep("depthwise", _depthwise_tables(convs, [layer.norm for layer in layers]))
        self._keep("fuse", [*_normed(module.fuse), module.fuse.prelu.weight])

    def forward(self, encoder: Tensor, decoder: Tensor, gate: Tensor) -> Tensor:
        reduce, expand = self._kept("attention")
        compute = lmwp_ops.guided_fusion if on_cpu(encoder) else fusion_by_layers
        return compute(
            lmwp_ops.channel_spatial_attention(encoder, reduce, expand, self._kept("spatial")),
            decoder,
            gate,
            self._kept("encode"),
            self._kept("decode"),
            self._kept("guide"),
            self._kept("depthwise"),
            self._kept("fuse"),
            self.dilations,
        )


class FusedLMWPNet(FusedNetwork):
    """An `LMWPNet` for inference: images [N, 3, H, W] to its finest logits [N, 1, H, W]."""

    def __init__(self, model: LMWPNet, *, cuda_graphs: bool = True) -> None:
        super().__init__(cuda_graphs)
        self.stages = nn.ModuleList(
            nn.Sequential(*(_fused(module) for module in stage)) for stage in model.stages
        )
        self.context = FusedContext(model.context)
        fusions = cast(list[MAFM], list(model.decoder.values()))
        self.decoder = nn.ModuleList(FusedMAFM(fusion) for fusion in fusions)
        guides = [fusion.channel_guide for fusion in fusions]
        self.widths = [guide.out_channels for guide in guides]
        self._keep("guide_weight", [torch.cat([guide.weight.flatten(1) for guide in guides])])
        self._keep("guide_bias", [torch.cat([cast(Tensor, guide.bias) for guide in guides])])
        head = cast(nn.Conv2d, next(iter(model.heads.values())))
        self._keep("head", [head.weight, cast(Tensor, head.bias)])

    def _check_input(self, x: Tensor) -> None:
        LMWPNet.check_input(x)

    def _compute(self, x: Tensor) -> Tensor:
        y, features = x, []
        for stage in self.stages:
            y = stage(y)
            features.append(y)
        y = self.context(y)
        weights, biases = self._kept("guide_weight"), self._kept("guide_bias")
        gates = F.linear(y.mean((2, 3)), weights[0], biases[0]).sigmoid().split(self.widths, 1)
        for fusion, feature, gate in zip(self.decoder, features[-2::-1], gates, strict=True):
            y = fusion(feature, y, gate)
        weight, bias = self._kept("head")
        return resize(F.conv2d(y, weight, bias), x)


def _pack_again(block: FusedMWPM, _: object) -> None:
    block._pack()


def on_cpu(x: Tensor) -> bool:
    """Whether whole modules run in one call, on features whose channels lie side by side."""
    return x.device.type == "cpu"


def _fused(module: nn.Module) -> nn.Module:
    """The part of a stage that stands for `module`."""
    if isinstance(module, MWPM):
        return FusedMWPM(module)
    if isinstance(module, SeparableConv):
        return FusedSeparableConv(module)
    return FusedStem(cast(ConvNormPReLU, module))


def _scaled(weight: Tensor, scale: Tensor) -> Tensor:
    return (weight.double() * scale.double().view(-1, 1, 1, 1)).to(weight.dtype)


def _normed(layer: ConvNorm) -> list[Tensor]:
    """Weight, scale and shift of a convolution and its norm."""
    return [layer.conv.weight, *fold_norm(layer.norm)]


def _depthwise_tables(
    convs: Iterable[nn.Module], norms: Sequence[nn.Module] | nn.ModuleList
) -> list[Tensor]:
    """Weights [K, channels, 3, 3], scales and shifts [K, channels] of depthwise branches."""
    weights = [cast(nn.Conv2d, conv).weight.squeeze(1) for conv in convs]
    folded = [fold_norm(cast(nn.BatchNorm2d, norm)) for norm in norms]
    scales, shifts = zip(*folded, strict=True)
    return [torch.stack(weights), torch.stack(scales), torch.stack(shifts)]
