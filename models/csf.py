"""CSF: the cross-stage fusion head on a ResNet-50 or Res2Net-50 trunk (Gao et al., ECCV 2020)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lmwp_ops
from lmwp_models.fields import check_fields
from lmwp_models.head_config import HeadConfig
from lmwp_models.layers import DilatedLayer, OctaveLayer
from lmwp_models.resnet import STAGE_WIDTHS, Res2Net50, ResNet50

Backbone = Literal["resnet50", "res2net50"]
BACKBONES: dict[str, type[ResNet50] | type[Res2Net50]] = {
    "resnet50": ResNet50,
    "res2net50": Res2Net50,
}
HEAD_WIDTHS = (128, 256, 512, 512)
GROUPS = 32
_INIT_STD = 0.01


@dataclass(frozen=True)
class CSFConfig:
    """Trunk and head channels; every output of a group norm must be a multiple of 32 wide."""

    backbone: Backbone
    head: HeadConfig = field(default_factory=lambda: HeadConfig.unpruned(HEAD_WIDTHS))

    def __post_init__(self) -> None:
        if self.backbone not in BACKBONES:
            known = ", ".join(BACKBONES)
            raise ValueError(f"backbone: expected one of {known}, got {self.backbone!r}")
        if len(self.head.fuse) != len(STAGE_WIDTHS):
            raise ValueError(
                f"head.fuse: expected {len(STAGE_WIDTHS)} scales, got {len(self.head.fuse)}"
            )
        widths = {
            "head.fuse": self.head.fuse,
            "head.ms (sums per scale)": self.head.ms_widths,
            "head.fuse1x1": (self.head.fuse1x1,),
        }
        for what, counts in widths.items():
            if any(count % GROUPS for count in counts):
                raise ValueError(f"{what}: expected multiples of {GROUPS}, got {list(counts)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for JSON."""
        return {"network": "csf", "backbone": self.backbone, "head": self.head.to_dict()}

    @classmethod
    def from_dict(cls, data: object) -> CSFConfig:
        """Raises `ValueError` naming the field that is missing, unknown or wrong."""
        fields = check_fields(
            "CSF config", data, required={"backbone", "head"}, optional={"network"}
        )
        if fields.get("network", "csf") != "csf":
            raise ValueError(f"network: expected 'csf', got {fields['network']!r}")
        return cls(fields["backbone"], HeadConfig.from_dict(fields["head"]))


class BilinearOctConv(nn.Module):
    """1 x 1 octave conv that resizes bilinearly both ways; its weight is called `weights`."""

    kernel_size = 1
    entry_pool = False
    cross_scale = True
    down: Literal["bilinear"] = "bilinear"

    def __init__(self, in_channels: Sequence[int], out_channels: Sequence[int]) -> None:
        super().__init__()
        self.in_channels = tuple(in_channels)
        self.out_channels = tuple(out_channels)
        self.weights = nn.Parameter(torch.empty(sum(out_channels), sum(in_channels), 1, 1))

    def forward(self, xs: Sequence[Tensor]) -> list[Tensor]:
        return lmwp_ops.goctconv2d(
            xs, self.weights, self.in_channels, self.out_channels, down=self.down
        )


class CSFHead(nn.Module):
    """Octave 1 x 1, dilated bank, octave 1 x 1 to the finest scale, with group norm and PReLU."""

    def __init__(self, in_channels: Sequence[int], config: HeadConfig) -> None:
        super().__init__()
        norm = functools.partial(nn.GroupNorm, GROUPS)
        width = (config.fuse1x1,)
        self.fuse = OctaveLayer(BilinearOctConv(in_channels, config.fuse), config.fuse, norm)
        self.ms = DilatedLayer(config.fuse, config.ms, norm=norm)
        self.fuse1x1 = OctaveLayer(BilinearOctConv(config.ms_widths, width), width, norm)
        for parameter in self.parameters():
            if parameter.dim() == 4:
                nn.init.normal_(parameter, std=_INIT_STD)

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        return self.fuse1x1(self.ms(self.fuse(xs)))


class CSF(nn.Module):
    """Saliency network: images [N, 3, H, W] of any size to logits [N, 1, H, W]."""

    size_multiple = 1

    def __init__(self, config: CSFConfig) -> None:
        super().__init__()
        self.config = config
        self.base = BACKBONES[config.backbone]()
        self.oct_fuse = CSFHead(STAGE_WIDTHS, config.head)
        self.cls_layer = nn.Conv2d(config.head.fuse1x1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Raises `ValueError` for a shape the network cannot take."""
        if x.dim() != 4 or x.shape[1] != 3 or 0 in x.shape[-2:]:
            raise ValueError(f"CSF: expected images [N, 3, H, W], got shape {list(x.shape)}")
        (y,) = self.oct_fuse(self.base(x))
        logits = self.cls_layer(y)
        return F.interpolate(logits, size=x.shape[-2:], mode="bilinear", align_corners=False)

    def parts(self) -> dict[str, nn.Module]:
        """The network cut into the parts that its size is reported by."""
        head = dict(self.oct_fuse.named_children())
        return {"base": self.base, **head, "cls_layer": self.cls_layer}
