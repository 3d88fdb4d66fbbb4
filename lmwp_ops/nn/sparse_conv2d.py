"""The module of `lmwp_ops.sparse_conv2d`."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmwp_ops.ops.sparse_conv2d import SparseConvWeight, sparse_conv2d
from lmwp_ops.ops.sparse_conv2d.layout import INDEX_NAMES

Pair = tuple[int, int]


class SparseConv2d(nn.Module):
    """Convolution by a pruned weight, with an optional bias, affine step and PReLU.

    Args:
        weight: the pruned weight; see `SparseConvWeight.from_dense`.
        bias: [O] or None.
        stride, padding, dilation: (vertical, horizontal).
        affine: (scale, shift), each [O], or None.
        slope: [O] or None.

    The kept `values`, `bias`, `scale`, `shift` and `slope` are parameters, of which those that are
    not there are None; the indices are buffers, named as in
    `lmwp_ops.ops.sparse_conv2d.layout.INDEX_NAMES`. Training changes what is kept alone.
    """

    def __init__(
        self,
        weight: SparseConvWeight,
        bias: Tensor | None = None,
        *,
        stride: Pair = (1, 1),
        padding: Pair = (0, 0),
        dilation: Pair = (1, 1),
        affine: tuple[Tensor, Tensor] | None = None,
        slope: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.format = weight.format
        self.weight_shape = weight.shape
        self.block = weight.block
        self.groups = weight.groups
        self.reason = weight.reason
        self.values = nn.Parameter(weight.values.detach().clone())
        self.bias, self.slope = _parameter(bias), _parameter(slope)
        self.scale, self.shift = (_parameter(p) for p in affine or (None, None))
        for name, index in zip(INDEX_NAMES[weight.format], weight.indices, strict=True):
            self.register_buffer(name, index)

    @staticmethod
    def from_conv(
        conv: nn.Conv2d,
        mask: Tensor,
        format: str = "auto",
        *,
        block: Pair | None = None,
        size: Pair = (28, 28),
    ) -> SparseConv2d:
        """The same convolution with what is zero in `mask` pruned.

        Args:
            conv: zero padded.
            mask: of the shape of its weight.
            format, block, size: see `SparseConvWeight.from_dense`.

        Raises:
            ValueError: it pads with something else, or the mask does not fit.
        """
        padding = conv.padding
        if conv.padding_mode != "zeros":
            raise ValueError(f"SparseConv2d: padding_mode: expected zeros, got {conv.padding_mode}")
        if padding == "valid":
            padding = (0, 0)
        elif padding == "same":
            reach = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
            if any(r % 2 for r in reach):
                raise ValueError("SparseConv2d: padding: expected an even one, got 'same'")
            padding = (reach[0] // 2, reach[1] // 2)
        weight = SparseConvWeight.from_dense(
            conv.weight, mask, format, block=block, groups=conv.groups, size=size
        )
        return SparseConv2d(
            weight,
            conv.bias,
            stride=cast(Pair, conv.stride),
            padding=cast(Pair, padding),
            dilation=cast(Pair, conv.dilation),
        )

    def to_conv(self) -> nn.Conv2d:
        """The same convolution by a dense weight, with zeros for what is pruned.

        Raises:
            ValueError: there is an affine step or a PReLU.
        """
        if self.scale is not None or self.slope is not None:
            raise ValueError("SparseConv2d: affine and slope: expected none, for an nn.Conv2d")
        conv = nn.Conv2d(
            self.weight_shape[1] * self.groups,
            self.weight_shape[0],
            self.weight_shape[2:],
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            bias=self.bias is not None,
            device=self.values.device,
            dtype=self.values.dtype,
        )
        with torch.no_grad():
            conv.weight.copy_(self.weight.to_dense())
            if conv.bias is not None and self.bias is not None:
                conv.bias.copy_(self.bias)
        return conv.train(self.training)

    @property
    def weight(self) -> SparseConvWeight:
        """The pruned weight with the values of now."""
        indices = tuple(getattr(self, name) for name in INDEX_NAMES[self.format])
        packed = (self.format, self.weight_shape, self.values, indices, self.block, self.groups)
        return SparseConvWeight(*packed, self.reason)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, C, H, W] to [N, O, H', W']."""
        if self._is_plain(x):
            settings = (self.stride, self.padding, self.dilation, self.groups)
            return F.conv2d(x, self.values, self.bias, *settings)
        affine = None
        if self.scale is not None and self.shift is not None:
            affine = (self.scale, self.shift)
        return sparse_conv2d(
            *(x, self.weight, self.bias),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            affine=affine,
            slope=self.slope,
        )

    def _is_plain(self, x: Tensor) -> bool:
        """Whether torch's convolution is all there is to do, without gradients to be masked."""
        return (
            self.format == "dense"
            and self.scale is None
            and self.slope is None
            and x.dtype == self.values.dtype
            and not torch.is_grad_enabled()
        )

    def extra_repr(self) -> str:
        block = " {} x {}".format(*self.block) if self.format == "block" else ""
        return (
            f"{list(self.weight_shape)}, {self.format}{block}, density={self.weight.density:.2f}, "
            f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"groups={self.groups}"
        )


def _parameter(values: Tensor | None) -> nn.Parameter | None:
    return None if values is None else nn.Parameter(values.detach().clone())
