"""CSNet on the fused ops, for inference."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lmwp_ops
from lmwp_models.csnet import CSNet, FusionHead, ILBlock
from lmwp_models.fused_network import Folded, FusedNetwork
from lmwp_models.head_config import DILATIONS
from lmwp_models.layers import DepthwiseLayer, DilatedScale, OctaveLayer, StandardConv
from lmwp_ops.nn import GOctConv2d


class FusedILBlock(Folded):
    """An `ILBlock` in one launch; in two where it starts with a strided ordinary convolution."""

    def __init__(self, block: ILBlock) -> None:
        super().__init__()
        layers: list[OctaveLayer | DepthwiseLayer] = [
            block.conv1x1,
            block.conv3x3_1,
            block.conv3x3_2,
        ]
        conv = block.conv1x1.conv
        if isinstance(conv, StandardConv):
            self.in_channels: tuple[int, ...] = (conv.weight.shape[1],)
            self.out_channels: tuple[int, ...] = (conv.weight.shape[0],)
            self.stride, self.entry_pool = conv.stride, False
            weight = conv.weight_scale * conv.weight
        else:
            conv = cast(GOctConv2d, conv)
            self.in_channels, self.out_channels = conv.in_channels, conv.out_channels
            self.stride, self.entry_pool = 1, conv.entry_pool
            weight = conv.weight
        self._keep("weight", [weight])
        for s, layer in enumerate(layers):
            self._keep_epilogue(f"layer{s}", layer.bns.values(), layer.prelus.values())
            if isinstance(layer, DepthwiseLayer):
                convs = cast(Iterable[nn.Conv2d], layer.convs.values())
                self._keep(f"depthwise{s}", [layer.weight_scale * c.weight for c in convs])

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        (weight,) = self._kept("weight")
        affine = [self._affine(f"layer{s}") for s in range(3)]
        slope = [self._slope(f"layer{s}") for s in range(3)]
        depthwise = [self._kept(f"depthwise{s}") for s in (1, 2)]
        if self.stride == 1:
            return lmwp_ops.il_block(
                xs,
                weight,
                self.in_channels,
                self.out_channels,
                depthwise,
                entry_pool=self.entry_pool,
                affine=affine,
                slope=slope,
            )
        (pair,), (values,) = affine[0], slope[0]
        ys = [lmwp_ops.stem_conv2d(xs[0], weight, stride=self.stride, affine=pair, slope=values)]
        for s in (1, 2):
            ys = lmwp_ops.depthwise_scales(ys, depthwise[s - 1], affine=affine[s], slope=slope[s])
        return ys


class FusedHead(Folded):
    """A `FusionHead` with its norms and activations inside the three ops."""

    def __init__(self, head: FusionHead) -> None:
        super().__init__()
        convs = [cast(GOctConv2d, head.fuse.conv), cast(GOctConv2d, head.fuse1x1.conv)]
        self.convs = [(conv.in_channels, conv.out_channels) for conv in convs]
        self._keep("weight", [conv.weight for conv in convs])
        self._keep_epilogue("fuse", head.fuse.bns.values(), head.fuse.prelus.values())
        self._keep_epilogue("fuse1x1", head.fuse1x1.bns.values(), head.fuse1x1.prelus.values())
        scales = cast(list[DilatedScale], list(head.ms.convs.values()))
        self._keep_epilogue("ms", [s.bn for s in scales], [s.prelu for s in scales])
        rows = [
            [None if w is None else head.ms.weight_scale * w for w in row]
            for row in head.ms.stored_weights()
        ]
        self.present = [[w is not None for w in row] for row in rows]
        self._keep("dilated", [w for row in rows for w in row if w is not None])

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        weights = self._kept("weight")
        dilated = iter(self._kept("dilated"))
        rows = [[next(dilated) if there else None for there in row] for row in self.present]
        ys = lmwp_ops.goctconv2d(
            xs, weights[0], *self.convs[0], affine=self._affine("fuse"), slope=self._slope("fuse")
        )
        ys = lmwp_ops.dilated_bank(
            ys, rows, DILATIONS, affine=self._affine("ms"), slope=self._slope("ms")
        )
        return lmwp_ops.goctconv2d(
            ys,
            weights[1],
            *self.convs[1],
            affine=self._affine("fuse1x1"),
            slope=self._slope("fuse1x1"),
        )


class FusedCSNet(FusedNetwork):
    """A `CSNet` for inference: images [N, 3, H, W] to logits [N, 1, H, W]."""

    def __init__(self, model: CSNet, *, cuda_graphs: bool = True) -> None:
        super().__init__(cuda_graphs)
        self.stages = nn.ModuleList(
            nn.ModuleList(FusedILBlock(cast(ILBlock, block)) for block in stage)
            for stage in model.stages
        )
        self.head = FusedHead(model.oct_fuse) if model.config.head else None
        classifier = model.cls_layer
        assert classifier.bias is not None
        self._keep("weight", [classifier.weight])
        self._keep("scale", [torch.ones_like(classifier.bias)])
        self._keep("bias", [classifier.bias])

    def _check_input(self, x: Tensor) -> None:
        CSNet.check_input(x)

    def _compute(self, x: Tensor) -> Tensor:
        xs, ends = [x], []
        for stage in self.stages:
            for block in cast(Iterable[FusedILBlock], stage):
                xs = block(xs)
            ends.append(xs)
        if self.head:
            xs = self.head([end[0] for end in ends[2:]])
        (weight,), (scale,), (bias,) = map(self._kept, ("weight", "scale", "bias"))
        (logits,) = lmwp_ops.goctconv2d(
            xs, weight, [weight.shape[1]], [weight.shape[0]], affine=[(scale, bias)]
        )
        return F.interpolate(logits, size=x.shape[-2:], mode="bilinear", align_corners=False)
