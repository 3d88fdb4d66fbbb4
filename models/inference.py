"""Networks on the fused ops, for inference."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lmwp_ops
from lmwp_models.csnet import CSNet, FusionHead, ILBlock
from lmwp_models.cuda_graphs import GraphCache, can_be_graphed
from lmwp_models.head_config import DILATIONS
from lmwp_models.layers import DepthwiseLayer, DilatedScale, OctaveLayer, StandardConv
from lmwp_ops.nn import GOctConv2d

Affine = list[tuple[Tensor, Tensor]]


def optimize_for_inference(model: nn.Module, *, cuda_graphs: bool = True) -> nn.Module:
    """A module that computes what `model` does in `eval()`, on the fused ops.

    Batch norms, in float64, and the factor on stored weights are folded into parameters of their
    own, so the result neither follows later changes of `model` nor can be trained. It has the
    device and dtype of `model`; logits agree within rounding. Takes networks of the class
    `CSNet`; raises `TypeError` for others.

    On a GPU, unless `cuda_graphs` is False, a call for images of a shape, dtype and layout that
    were seen before replays a CUDA graph, captured at the second such call; the last eight kinds of
    images are kept, each with memory for the network's features. Outputs are the caller's own, and
    several threads may call. Under autocast, `torch.compile`, a tracer or a capture of the
    caller's, the kernels are launched one by one, as they are on the CPU.
    """
    if not isinstance(model, CSNet):
        raise TypeError(f"optimize_for_inference: expected a CSNet, got {type(model).__name__}")
    return FusedCSNet(model, cuda_graphs=cuda_graphs).eval()


class _Folded(nn.Module):
    """Holds lists of tensors as buffers, so that they follow the module to devices and files."""

    def __init__(self) -> None:
        super().__init__()
        self._names: dict[str, list[str]] = {}

    def _keep(self, name: str, tensors: Iterable[Tensor]) -> None:
        self._names[name] = []
        for i, tensor in enumerate(tensors):
            self.register_buffer(f"{name}_{i}", tensor.detach().clone().contiguous())
            self._names[name].append(f"{name}_{i}")

    def _kept(self, name: str) -> list[Tensor]:
        return [cast(Tensor, self._buffers[key]) for key in self._names[name]]

    def _keep_epilogue(
        self, name: str, norms: Iterable[nn.Module], prelus: Iterable[nn.Module]
    ) -> None:
        folded = [fold_norm(cast(nn.BatchNorm2d, norm)) for norm in norms]
        self._keep(f"{name}_scale", [scale for scale, _ in folded])
        self._keep(f"{name}_shift", [shift for _, shift in folded])
        self._keep(f"{name}_slope", [cast(nn.PReLU, prelu).weight for prelu in prelus])

    def _affine(self, name: str) -> Affine:
        return list(zip(self._kept(f"{name}_scale"), self._kept(f"{name}_shift"), strict=True))

    def _slope(self, name: str) -> list[Tensor]:
        return self._kept(f"{name}_slope")


def fold_norm(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """(scale, shift), each [C], of a batch norm with running statistics."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias.double() - norm.running_mean.double() * scale
    return scale.to(norm.weight.dtype), shift.to(norm.bias.dtype)


class FusedILBlock(_Folded):
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
        scale, shift = affine[0][0]
        z = F.conv2d(xs[0], weight, stride=self.stride, padding=weight.shape[-1] // 2)
        ys = [F.prelu(z * scale[:, None, None] + shift[:, None, None], slope[0][0])]
        for s in (1, 2):
            ys = lmwp_ops.depthwise_scales(ys, depthwise[s - 1], affine=affine[s], slope=slope[s])
        return ys


class FusedHead(_Folded):
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


class FusedCSNet(_Folded):
    """A `CSNet` for inference: images [N, 3, H, W] to logits [N, 1, H, W]."""

    def __init__(self, model: CSNet, *, cuda_graphs: bool = True) -> None:
        super().__init__()
        self.cuda_graphs = cuda_graphs
        self._graphs = GraphCache()
        self.register_load_state_dict_post_hook(_forget_graphs)
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

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Raises `ValueError` for a shape the network cannot take."""
        CSNet.check_input(x)
        if self.cuda_graphs and can_be_graphed(x):
            return self._graphs(self._compute, x)
        return self._compute(x)

    def _apply(self, *args: Any, **kwargs: Any) -> FusedCSNet:
        self._graphs.clear()
        return super()._apply(*args, **kwargs)

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


def _forget_graphs(network: FusedCSNet, _: object) -> None:
    network._graphs.clear()
